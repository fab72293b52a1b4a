//! Where do three eat? One value, agreed by three nodes.
//!
//! All wish for a place, at the same time and each at a node of its own. Every node applies the wishes in the same order, so
//! the first one decides, on all of them; whoever comes later hears what was decided. That stays so when the leader leaves,
//! and when all of them do.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use raft_actor::{ApplyError, At, Capture, Config, NodeId, Raft, StateMachine, capture, restored};

/// What every node has a replica of: the place, once there is one.
#[derive(Default)]
struct Dinner(Option<String>);

impl StateMachine for Dinner {
    /// A wish.
    type Command = String;
    /// Where they eat, whatever was wished for.
    type Response = String;

    fn apply(&mut self, _: At, wish: String) -> Result<String, ApplyError> {
        Ok(self.0.get_or_insert(wish).clone())
    }

    fn snapshot(&self) -> Capture {
        capture(self.0.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        self.0 = restored(from)?;
        Ok(())
    }
}

/// Three nodes, here in one process: on sockets and in folders of their own, as they would be on three machines.
async fn start(first_port: u16, folder: &Path) -> Result<Vec<(NodeId, Raft)>> {
    let mut nodes = Vec::new();
    for (id, _) in examples::peers(first_port) {
        let config = Config::new(id)
            .peers(examples::peers(first_port))
            .data_dir(folder.join(format!("node{id}")));
        nodes.push((id, Raft::start_with(config, Dinner::default()).await?));
    }
    Ok(nodes)
}

async fn wish((id, node): &(NodeId, Raft), place: &str) -> Result<String> {
    let agreed = node.apply::<Dinner>(&place.to_owned()).await?;
    println!("node {id} wishes for {place}, and hears: {agreed}");
    Ok(agreed)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first_port = examples::free_ports()?;

    let mut nodes = start(first_port, folder.path()).await?;
    let (one, two, three) = tokio::try_join!(
        wish(&nodes[0], "the noodle bar"),
        wish(&nodes[1], "the pizzeria"),
        wish(&nodes[2], "the taverna"),
    )?;
    let mut heard = vec![one, two, three];

    // Any majority goes on, and knows what was agreed.
    let mut view = nodes[0].1.watch().await?;
    let leader = view.wait_for(|view| view.leader.is_some()).await?.leader;
    let place = nodes.iter().position(|(id, _)| Some(*id) == leader);
    let (id, node) = nodes.remove(place.context("the leader is one of the three")?);
    node.shutdown().await?;
    println!("node {id} led, and has left");
    heard.push(wish(&nodes[0], "the bakery").await?);

    // It is on their disks.
    for (_, node) in &nodes {
        node.shutdown().await?;
    }
    println!("all have left, and come back");
    let nodes = start(first_port, folder.path()).await?;
    for (id, node) in &nodes {
        let read = node.read(|dinner: &Dinner| dinner.0.clone()).await?;
        let place = read.value.context("nothing was agreed")?;
        println!("node {id} reads: {place}");
        heard.push(place);
    }
    for (_, node) in &nodes {
        node.shutdown().await?;
    }

    ensure!(
        heard.iter().all(|place| *place == heard[0]),
        "they do not agree: {heard:?}"
    );
    println!("agreed: {}", heard[0]);
    Ok(())
}
