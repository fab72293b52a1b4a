//! A worker that follows the log, is stopped, and goes on where it was.
//!
//! Orders come in at node 1. A worker at node 3 confirms each by mail, which is a line of a file here. Its node keeps a cursor
//! for it, by name and on disk: how far the worker has come. An order counts as handled when the worker comes back for the
//! next one, so the last that it had in its hands is handed over again: at least once. For exactly once the worker writes, in
//! one write with what it does, where in the log that was ordered, and leaves out what it finds done.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use raft_actor::{Config, Event, Events, LogIndex, NodeId, Position, Raft};

/// Orders before the worker is stopped, and all of them.
const BEFORE: usize = 8;
const ORDERS: usize = 20;

struct Worker {
    events: Events,
    /// A line for each mail: the order's place in the log, and the order.
    outbox: File,
    /// The last order that was mailed.
    last: LogIndex,
}

impl Worker {
    async fn start(node: &Raft, outbox: &Path) -> Result<Self> {
        let events = node.subscribe(Position::Cursor("mailer".into())).await?;
        println!("the worker begins at entry {}", events.first());
        let file = File::options().create(true).append(true).open(outbox)?;
        let last = match fs::read_to_string(outbox)?.lines().last() {
            Some(mail) => mail.split(' ').next().context("an index")?.parse()?,
            None => 0,
        };
        Ok(Self {
            events,
            outbox: file,
            last: LogIndex(last),
        })
    }

    /// Waits for an order that is not mailed yet, and mails it.
    async fn mail_one(&mut self) -> Result<()> {
        loop {
            let order = match self.events.recv().await? {
                Event::Delivered(order) => order,
                // Only with `Config::retention`, or with snapshots of a state machine.
                Event::Snapshot(_) | Event::Gap { .. } => bail!("orders are lost to this worker"),
            };
            let (index, text) = (order.index, String::from_utf8_lossy(&order.command));
            if index <= self.last {
                println!("handed over again, and done already: {text}");
                continue;
            }
            writeln!(self.outbox, "{index} {text}")?;
            self.outbox.sync_data()?;
            self.last = index;
            println!("mailed: {text}, entry {index}");
            return Ok(());
        }
    }
}

async fn start(id: NodeId, first_port: u16, folder: &Path) -> Result<Raft> {
    let config = Config::new(id)
        .peers(examples::peers(first_port))
        .data_dir(folder.join(format!("node{id}")));
    Ok(Raft::start(config).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first_port = examples::free_ports()?;
    let outbox = folder.path().join("outbox");
    let one = start(NodeId(1), first_port, folder.path()).await?;
    let two = start(NodeId(2), first_port, folder.path()).await?;
    let three = start(NodeId(3), first_port, folder.path()).await?;

    let mut worker = Worker::start(&three, &outbox).await?;
    for n in 1..=BEFORE {
        one.propose(format!("order {n}")).await?;
        worker.mail_one().await?;
    }

    // Two of three are enough for orders to come in.
    drop(worker);
    three.shutdown().await?;
    println!("node 3 is stopped, and its worker with it");
    for n in BEFORE + 1..=ORDERS {
        one.propose(format!("order {n}")).await?;
    }
    println!("{} more orders have come in", ORDERS - BEFORE);

    let three = start(NodeId(3), first_port, folder.path()).await?;
    println!("node 3 is back");
    let mut worker = Worker::start(&three, &outbox).await?;
    for _ in BEFORE + 1..=ORDERS {
        worker.mail_one().await?;
    }

    for node in [one, two, three] {
        node.shutdown().await?;
    }
    let mails = fs::read_to_string(&outbox)?.lines().count();
    println!("{ORDERS} orders, {mails} mails");
    Ok(())
}
