//! Whole nodes in this process, with disks of memory: one alone, or several over loopback. Everything of a node is in it:
//! door, protocol, storage actor, ledger, delivery, answers; and with several, frames and sockets.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use raft_actor::{
    Config, DeliveredBatch, GetStatus, MemoryDisk, NodeId, Propose, ProposeBatch, RaftActor, Role,
    Shutdown, Subscribe,
};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::PAYLOAD;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// See the [module](self).
pub struct Nodes {
    system: SystemRunner,
    nodes: Vec<Addr<RaftActor>>,
    leader: Addr<RaftActor>,
    /// What each subscriber was handed.
    delivered: Vec<watch::Receiver<u64>>,
    command: Bytes,
    proposed: u64,
}

/// Counts what it is handed.
struct Counter(watch::Sender<u64>);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<DeliveredBatch> for Counter {
    type Result = ();

    fn handle(&mut self, DeliveredBatch(batch): DeliveredBatch, _: &mut Self::Context) {
        self.0.send_modify(|count| *count += batch.len() as u64);
    }
}

impl Nodes {
    /// A cluster of `count` nodes with a leader, each with so many subscribers. Makes an actor system on this thread,
    /// which must have none.
    ///
    /// # Errors
    /// A node could not be started, or none of them leads in time.
    pub fn start(count: usize, subscribers: usize) -> Result<Self> {
        let system = System::new();
        let addresses = free_addresses(count)?;
        let (nodes, leader, delivered) = system.block_on(async {
            let peers: Vec<_> = (1..).map(NodeId).zip(addresses).collect();
            let node = |(id, _): &(NodeId, String)| {
                let config = Config::new(*id).peers(peers.clone());
                RaftActor::spawn(config.memory(MemoryDisk::new()))
            };
            let nodes = peers.iter().map(node).collect::<Result<Vec<_>, _>>()?;
            let leader = leader(&nodes).await?;
            let mut delivered = Vec::new();
            for node in &nodes {
                for _ in 0..subscribers {
                    delivered.push(subscribe(node).await?);
                }
            }
            anyhow::Ok((nodes, leader, delivered))
        })?;
        Ok(Self {
            system,
            nodes,
            leader,
            delivered,
            command: Bytes::from(vec![7; PAYLOAD]),
            proposed: 0,
        })
    }

    /// Commits so many batches of `size` commands at the leader, each proposed when the one before is answered, and waits
    /// until every subscriber was handed all of them.
    ///
    /// # Errors
    /// A command was not committed, or not delivered in time.
    pub fn run(&mut self, batches: usize, size: usize) -> Result<()> {
        let (leader, command) = (self.leader.clone(), self.command.clone());
        self.proposed += (batches * size) as u64;
        let (goal, delivered) = (self.proposed, &mut self.delivered);
        self.system.block_on(async move {
            for _ in 0..batches {
                let batch = ProposeBatch(vec![Propose::new(command.clone()); size]);
                for outcome in leader.send(batch).await.context("the leader")? {
                    outcome?;
                }
            }
            for delivered in delivered {
                let all = timeout(PATIENCE, delivered.wait_for(|count| *count >= goal));
                all.await.context("not everything is delivered")??;
            }
            Ok(())
        })
    }
}

impl Drop for Nodes {
    /// Ends the nodes, and the threads that they have.
    fn drop(&mut self) {
        self.system.block_on(async {
            for node in &self.nodes {
                // One that has failed has said so to whoever proposed.
                let _ = node.send(Shutdown).await;
            }
        });
        System::current().stop();
    }
}

/// The one that leads, once it does.
async fn leader(nodes: &[Addr<RaftActor>]) -> Result<Addr<RaftActor>> {
    let began = Instant::now();
    loop {
        for node in nodes {
            if node.send(GetStatus).await.context("a node")?.role == Role::Leader {
                return Ok(node.clone());
            }
        }
        ensure!(began.elapsed() < PATIENCE, "no node leads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn subscribe(node: &Addr<RaftActor>) -> Result<watch::Receiver<u64>> {
    let (count, delivered) = watch::channel(0);
    let counter = Counter(count).start();
    let from_start = Subscribe::from_start(counter.recipient::<DeliveredBatch>());
    node.send(from_start)
        .await
        .context("a node")?
        .context("subscribe")?;
    Ok(delivered)
}

/// Ports below those that the kernel gives to connections, so that no dial takes one.
fn free_addresses(count: usize) -> Result<Vec<String>> {
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports = (first..32_000).filter(free).take(count);
    let addresses: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    ensure!(addresses.len() == count, "no {count} free ports");
    Ok(addresses)
}
