//! Three nodes that deliver: start it with 1, with 2 and with 3.

use anyhow::Context as _;
use raft_actor::{Config, Event, NodeId, Position, Raft};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let id: u64 = std::env::args()
        .nth(1)
        .context("usage: first 1|2|3")?
        .parse()?;
    let peers = (1..=3).map(|n| (NodeId(n), format!("127.0.0.1:{}", 7000 + n)));
    let config = Config::new(NodeId(id))
        .peers(peers)
        .data_dir(format!("data/{id}"));

    let raft = Raft::start(config).await?;
    let mut events = raft.subscribe(Position::Start).await?;

    let committed = raft.propose(format!("hello from {id}")).await?;
    println!("committed at {}", committed.index);

    loop {
        if let Event::Delivered(event) = events.recv().await? {
            println!(
                "{} {}",
                event.index,
                String::from_utf8_lossy(&event.command)
            );
        }
    }
}
