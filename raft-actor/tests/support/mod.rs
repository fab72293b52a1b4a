//! Clusters in one process: real actors, real sockets, disks of memory; and a state machine that can be made to
//! misbehave.

#![allow(clippy::unwrap_used, dead_code)]

mod ports;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use raft_actor::{
    ApplyError, At, Capture, Compacted, Config, Delivered, DeliveredBatch, GetStatus, LogIndex,
    MemoryDisk, NodeId, NodeStatus, Phase, Propose, RaftActor, Read, Role, Shutdown, StartError,
    StateMachine, capture, restored,
};
use serde::{Deserialize, Serialize};

pub(crate) use ports::free_port;

/// Index and command, in the order of their delivery.
pub(crate) type Log = Arc<Mutex<Vec<(u64, Bytes)>>>;

/// Remembers what it is handed.
#[derive(Default)]
pub(crate) struct Collector {
    pub(crate) log: Log,
    /// What stood for commands that were compacted: a state, or none and the gap.
    pub(crate) compacted: Arc<Mutex<Vec<Stood>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stood {
    State { last: u64, sum: u64 },
    Gap { from: u64, first: u64 },
}

impl Actor for Collector {
    type Context = Context<Self>;
}

impl Handler<Delivered> for Collector {
    type Result = ();

    fn handle(&mut self, event: Delivered, _: &mut Self::Context) {
        let mut log = self.log.lock().unwrap();
        log.push((event.index.0, event.command));
    }
}

impl Handler<DeliveredBatch> for Collector {
    type Result = ();

    fn handle(&mut self, DeliveredBatch(events): DeliveredBatch, ctx: &mut Self::Context) {
        for event in Arc::unwrap_or_clone(events) {
            self.handle(event, ctx);
        }
    }
}

impl Handler<Compacted> for Collector {
    type Result = ();

    fn handle(&mut self, compacted: Compacted, _: &mut Self::Context) {
        let stood = match compacted {
            Compacted::Gap { from, first } => Stood::Gap {
                from: from.0,
                first: first.0,
            },
            Compacted::Snapshot(mut reader) => {
                let last = reader.last().index.0;
                let state: State = restored(&mut reader).unwrap();
                let sum = state.sum;
                Stood::State { last, sum }
            }
        };
        self.compacted.lock().unwrap().push(stood);
    }
}

/// A command of [`Adder`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Add(u64),
    Refuse,
    Panic,
    /// Answered with so many bytes.
    Long(usize),
    Sleep(u64),
}

pub(crate) fn add(n: u64) -> Propose {
    Propose::of(&Command::Add(n)).unwrap()
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) sum: u64,
    /// How many commands were applied.
    pub(crate) count: u64,
    /// The library's bookkeeping, where the state has a disk of its own.
    #[serde(with = "serde_bytes")]
    ledger: Vec<u8>,
}

/// Adds. What it answers tells how often it has applied, so that a command that is applied twice shows.
#[derive(Default)]
pub(crate) struct Adder {
    pub(crate) state: State,
    /// Answers wrongly from now on.
    pub(crate) lies: Arc<AtomicBool>,
    /// A file that the state is kept in.
    pub(crate) file: Option<PathBuf>,
    /// The file is written at most so often.
    pub(crate) writes_left: Option<Arc<AtomicU64>>,
    /// How often `apply` was called.
    pub(crate) calls: Arc<AtomicU64>,
}

impl StateMachine for Adder {
    type Command = Command;
    type Response = (u64, serde_bytes::ByteBuf);

    fn apply(&mut self, _: At, command: Command) -> Result<Self::Response, ApplyError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut long = 0;
        match command {
            Command::Add(n) => self.state.sum += n,
            Command::Refuse => return Err(ApplyError::new("not this")),
            Command::Panic => panic!("what was that"),
            Command::Long(len) => long = len,
            Command::Sleep(ms) => std::thread::sleep(Duration::from_millis(ms)),
        }
        self.state.count += 1;
        let lie = u64::from(self.lies.load(Ordering::SeqCst));
        Ok((self.state.sum + lie, vec![7; long].into()))
    }

    fn snapshot(&self) -> Capture {
        capture(self.state.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        self.state = restored(from)?;
        Ok(())
    }

    fn has_own_disk(&self) -> bool {
        self.file.is_some()
    }

    fn kept(&mut self) -> io::Result<Option<Bytes>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        match std::fs::File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(mut file) => {
                self.state = restored(&mut file)?;
                Ok(Some(self.state.ledger.clone().into()))
            }
        }
    }

    fn keep(&mut self, _: LogIndex, ledger: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        self.state.ledger = ledger.to_vec();
        if let Some(left) = &self.writes_left
            && left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_err()
        {
            return Ok(()); // Lost in a crash, which is allowed.
        }
        let new = file.with_extension("new");
        let mut writing = std::fs::File::create(&new)?;
        StateMachine::snapshot(self)(&mut writing)?;
        std::fs::rename(&new, file)
    }
}

type Tweak = Box<dyn Fn(Config) -> Config>;
type Making = Box<dyn Fn(u64) -> Option<Adder>>;

pub(crate) struct Cluster {
    peers: Vec<(NodeId, String)>,
    pub(crate) disks: Vec<MemoryDisk>,
    pub(crate) nodes: Vec<Addr<RaftActor>>,
    tweak: Tweak,
    making: Making,
}

impl Cluster {
    /// Starts one whose nodes have an [`Adder`] each.
    pub(crate) fn start(size: u64, tweak: impl Fn(Config) -> Config + 'static) -> Self {
        Self::start_with(size, tweak, |_| Some(Adder::default()))
    }

    pub(crate) fn start_with(
        size: u64,
        tweak: impl Fn(Config) -> Config + 'static,
        making: impl Fn(u64) -> Option<Adder> + 'static,
    ) -> Self {
        let addresses = (0..size).map(|_| format!("127.0.0.1:{}", free_port()));
        let mut cluster = Self {
            peers: (1..=size).map(NodeId).zip(addresses).collect(),
            disks: (0..size).map(|_| MemoryDisk::new()).collect(),
            nodes: Vec::new(),
            tweak: Box::new(tweak),
            making: Box::new(making),
        };
        cluster.nodes = (1..=size).map(|id| cluster.spawn(id)).collect();
        cluster
    }

    pub(crate) fn spawn(&self, id: u64) -> Addr<RaftActor> {
        self.try_spawn(id).unwrap()
    }

    pub(crate) fn try_spawn(&self, id: u64) -> Result<Addr<RaftActor>, StartError> {
        let disk = self.disks[id as usize - 1].clone();
        let config = Config::new(NodeId(id))
            .peers(self.peers.clone())
            .memory(disk);
        let config = (self.tweak)(config);
        match (self.making)(id) {
            Some(machine) => RaftActor::spawn_with(config, machine),
            None => RaftActor::spawn(config),
        }
    }

    /// Ends a node in order and starts it anew.
    pub(crate) async fn restart(&mut self, id: u64) {
        self.node(id).send(Shutdown).await.unwrap().unwrap();
        self.nodes[id as usize - 1] = self.spawn(id);
    }

    pub(crate) fn node(&self, id: u64) -> &Addr<RaftActor> {
        &self.nodes[id as usize - 1]
    }

    pub(crate) fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.nodes.len() as u64
    }

    /// The leader that all running nodes follow.
    pub(crate) async fn leader(&self) -> u64 {
        until("a leader that all follow", async || {
            let mut statuses = Vec::new();
            for node in &self.nodes {
                match node.send(GetStatus).await {
                    Ok(status) if matches!(status.phase, Phase::Running) => statuses.push(status),
                    _ => {}
                }
            }
            let leads = |status: &&NodeStatus| status.role == Role::Leader;
            let leader = statuses.iter().find(leads)?.id;
            let follow = statuses.iter().all(|status| status.leader == Some(leader));
            follow.then_some(leader.0)
        })
        .await
    }

    pub(crate) async fn follower(&self) -> u64 {
        self.leader().await % self.nodes.len() as u64 + 1
    }

    pub(crate) async fn shut_down(&self) {
        let ends: Vec<_> = self.nodes.iter().map(|node| node.send(Shutdown)).collect();
        for end in ends {
            end.await.unwrap().unwrap();
        }
    }

    /// Sum and count that this node has applied when it has applied all that was acknowledged.
    pub(crate) async fn state(&self, id: u64) -> (u64, u64) {
        let read = Read::new(|adder: &Adder| (adder.state.sum, adder.state.count));
        self.node(id).send(read).await.unwrap().unwrap().value
    }
}

/// A cluster does not outlive its test: it would take the processor from those that still run.
impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.do_send(Shutdown);
        }
    }
}

/// Sends at once: a request that nobody polls waits for room in the mailbox.
pub(crate) fn send<M>(node: &Addr<RaftActor>, message: M) -> tokio::task::JoinHandle<M::Result>
where
    M: Message + Send + 'static,
    M::Result: Send,
    RaftActor: Handler<M>,
    <RaftActor as Actor>::Context: actix::dev::ToEnvelope<RaftActor, M>,
{
    let sent = node.send(message);
    actix::spawn(async move { sent.await.unwrap() })
}

pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn status(node: &Addr<RaftActor>) -> NodeStatus {
    node.send(GetStatus).await.unwrap()
}

/// Waits for so many deliveries.
pub(crate) async fn has(log: &Log, count: usize) {
    let counted = async || (log.lock().unwrap().len() >= count).then_some(());
    until(&format!("{count} deliveries"), counted).await;
}

/// The settings of nodes 1 to `size`, and their disks.
pub(crate) fn configs(size: u64) -> Vec<(Config, MemoryDisk)> {
    let addresses = (0..size).map(|_| format!("127.0.0.1:{}", free_port()));
    let peers: Vec<_> = (1..=size).map(NodeId).zip(addresses).collect();
    let config = |id: u64| {
        let disk = MemoryDisk::new();
        let config = Config::new(NodeId(id)).peers(peers.clone());
        (config.memory(disk.clone()), disk)
    };
    (1..=size).map(config).collect()
}

/// Starts them, without a state machine.
pub(crate) fn spawn(configs: &[(Config, MemoryDisk)]) -> Vec<Addr<RaftActor>> {
    let spawn = |(config, _): &(Config, MemoryDisk)| RaftActor::spawn(config.clone()).unwrap();
    configs.iter().map(spawn).collect()
}
