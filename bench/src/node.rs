//! A child: its nodes, subscribers that count what they are handed, and clients when the parent asks for them.
//!
//! It ends when the parent asks it to, or when its standard input ends, which it does with the parent.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::{Context as _, Result, anyhow, ensure};
use raft_actor::{
    Config, ConfigArgs, GetStatus, MemoryDisk, NodeId, Phase, RaftActor, Role, Shutdown,
    TransferLeadership,
};
use tokio::sync::{mpsc, oneshot};

use crate::clients;
use crate::cluster::Apart;
use crate::counted::Counts;
use crate::protocol::{Answer, Load, Measured, Request, State};
use crate::subscribers;
use crate::tally::Tally;

/// Who leads where one process has all nodes.
const FIRST: NodeId = NodeId(1);
/// So long that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// So much of a log stays in memory where there is no disk.
const MEMORY_ENTRIES: u64 = 200_000;

/// What a child with one node is told at its start.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    node: ConfigArgs,
    /// Where the members are, if it is to join them.
    #[arg(long, value_delimiter = ',')]
    join: Vec<String>,
    /// How many subscribers it has.
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    /// Whether it has a state machine.
    #[arg(long)]
    tally: bool,
    /// Whether it runs on the thread of its clients and subscribers.
    #[arg(long)]
    here: bool,
}

/// What a child with all nodes is told.
#[derive(Debug, clap::Args)]
pub(crate) struct AllOptions {
    /// The addresses of nodes 1, 2 and so on.
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<String>,
    /// How many subscribers each has.
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    /// Which of them apply on a second thread.
    #[arg(long)]
    apart: Apart,
}

/// Runs a node until the parent ends it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let counts = begin()?;
    let mut config = options.node.config()?;
    let here = options.here;
    if here {
        config = config.here();
    }
    let (join, subscribers) = (options.join.clone(), options.subscribers);
    let tally = options.tally;
    System::new().block_on(async move {
        let raft = if !join.is_empty() {
            RaftActor::join(config, join).await?
        } else if tally {
            RaftActor::spawn_with(config, Tally::default())?
        } else {
            RaftActor::spawn(config)?
        };
        if here {
            let member = Member::new(raft, subscribers, &Arbiter::current()).await?;
            return serve(vec![member], &counts, clients_here).await;
        }
        // Its subscribers have a thread of their own, as a program would have them.
        let member = Member::new(raft, subscribers, &Arbiter::new().handle()).await?;
        serve(vec![member], &counts, clients_apart).await
    })
}

/// Runs all nodes of a cluster, without disks, until the parent ends them, on this thread, with the clients. The first
/// leads; who is `apart` applies on a second thread.
pub(crate) fn run_all(options: &AllOptions) -> Result<()> {
    let counts = begin()?;
    let peers: Vec<_> = (1..).map(NodeId).zip(options.addresses.clone()).collect();
    let subscribers = options.subscribers;
    let apart = options.apart;
    System::new().block_on(async move {
        let here = Arbiter::current();
        let there = (apart != Apart::None).then(|| Arbiter::new().handle());
        let mut members = Vec::new();
        for (id, _) in &peers {
            let mut config = Config::new(*id)
                .peers(peers.clone())
                .memory(MemoryDisk::new())
                .here()
                .retention(MEMORY_ENTRIES);
            let mut thread = here.clone();
            let goes = apart == Apart::All || *id != FIRST;
            if let Some(there) = there.as_ref().filter(|_| goes) {
                config = config.deliver_on(there.clone());
                thread = there.clone();
            }
            let raft = RaftActor::spawn(config)?;
            members.push(Member::new(raft, subscribers, &thread).await?);
        }
        first_leads(&members).await?;
        serve(members, &counts, clients_here).await
    })
}

/// Waits until the first node leads.
async fn first_leads(members: &[Member]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for member in members {
            let status = member.raft.send(GetStatus).await.context("the node")?;
            match (status.role, status.id) {
                (Role::Leader, FIRST) => return Ok(()),
                (Role::Leader, _) => {
                    let to = Some(FIRST);
                    // If it comes to nothing it is asked again.
                    let _ = member.raft.send(TransferLeadership { to }).await;
                }
                _ => {}
            }
        }
        ensure!(Instant::now() < deadline, "node {FIRST} does not lead");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs `task` on `thread`.
async fn on<T: Send + 'static>(
    thread: &ArbiterHandle,
    task: impl AsyncFnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (done, result) = oneshot::channel();
    thread.spawn_fn(move || {
        actix_rt::spawn(async move {
            // Nobody waits for it when this process ends.
            let _ = done.send(task().await);
        });
    });
    result.await.context("a thread of nodes")
}

fn begin() -> Result<Counts> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    Counts::install()
}

/// A node, and how far its subscribers are.
struct Member {
    raft: Addr<RaftActor>,
    delivered: Vec<Arc<AtomicU64>>,
}

impl Member {
    /// With so many subscribers, which are on `thread`.
    async fn new(
        raft: Addr<RaftActor>,
        subscribers: usize,
        thread: &ArbiterHandle,
    ) -> Result<Self> {
        let delivered = subscribers::subscribe(&raft, subscribers, thread).await?;
        Ok(Self { raft, delivered })
    }

    async fn state(&self, counts: &Counts) -> Result<State> {
        let status = self.raft.send(GetStatus).await.context("the node")?;
        let delivered = self.delivered.iter();
        Ok(State {
            id: status.id.0,
            running: status.phase == Phase::Running,
            leads: status.role == Role::Leader,
            leader: status.leader.map(|id| id.0),
            term: status.term.0,
            applied: status.applied.0,
            delivered: delivered.map(|count| count.load(Ordering::Relaxed)).min(),
            counted: counts.now(),
        })
    }
}

async fn serve(
    members: Vec<Member>,
    counts: &Counts,
    clients: impl AsyncFn(&Member, Load, Counts) -> Result<Measured>,
) -> Result<()> {
    let mut requests = requests();
    while let Some(request) = requests.recv().await {
        match request? {
            Request::State => {
                let mut states = Vec::new();
                for member in &members {
                    states.push(member.state(counts).await?);
                }
                say(&Answer::States(states))?;
            }
            Request::Measure(load) => say(&measure(&members, load, counts, &clients).await?)?,
            Request::Replay { node, commands } => {
                let member = members.get(node).context("no such node")?;
                say(&match subscribers::replay(&member.raft, commands).await {
                    Ok(replayed) => Answer::Replayed(replayed),
                    Err(error) => Answer::Failed(format!("{error:#}")),
                })?;
            }
            Request::End => {
                for member in members {
                    member
                        .raft
                        .send(Shutdown)
                        .await
                        .context("the node")?
                        .context("the node ended in failure")?;
                }
                return say(&Answer::Ended);
            }
        }
    }
    // The parent is gone, and nobody reads what a measurement under way would find.
    std::process::exit(1);
}

async fn measure(
    members: &[Member],
    load: Load,
    counts: &Counts,
    clients: &impl AsyncFn(&Member, Load, Counts) -> Result<Measured>,
) -> Result<Answer> {
    let Some(member) = members.get(load.node) else {
        return Ok(Answer::Failed(format!("no node at place {}", load.node)));
    };
    let measured = clients(member, load, counts.clone()).await;
    Ok(match measured {
        Ok(measured) => Answer::Measured(measured),
        Err(error) => Answer::Failed(format!("{error:#}")),
    })
}

/// Clients on threads of their own.
async fn clients_apart(member: &Member, load: Load, counts: Counts) -> Result<Measured> {
    let raft = member.raft.clone();
    let measured = actix_rt::task::spawn_blocking(move || {
        clients::measure(&raft, load, || opened(&counts), || closed(&counts))
    });
    measured.await.context("the clients")?
}

/// Clients on the thread of their node, which is this one, unless they have a pace to keep.
async fn clients_here(member: &Member, load: Load, counts: Counts) -> Result<Measured> {
    if load.rate.is_some() {
        return clients_apart(member, load, counts).await;
    }
    let raft = member.raft.clone();
    let measure = async move || {
        clients::measure_here(&raft, load, || opened(&counts), || closed(&counts)).await
    };
    on(&Arbiter::current(), measure).await?
}

// If the parent is gone, so are we when its input ends.

fn opened(counts: &Counts) {
    drop(say(&Answer::Opened(counts.now())));
}

fn closed(counts: &Counts) {
    drop(say(&Answer::Closed(counts.now())));
}

/// The lines of standard input, read by a thread that ends the process with its parent, whatever it is doing.
fn requests() -> mpsc::Receiver<Result<Request>> {
    let (requests, queue) = mpsc::channel(4);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let request = line
                .map_err(|error| anyhow!(error))
                .and_then(|line| serde_json::from_str(&line).context("a request"));
            if requests.blocking_send(request).is_err() {
                return;
            }
        }
        std::process::exit(1);
    });
    queue
}

fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
