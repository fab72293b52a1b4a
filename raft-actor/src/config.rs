//! Everything a node is told at its start, with defaults that suit production.
//!
//! `check.rs` has the range of each setting, and why it is that; `args.rs` (feature `cli`) takes the settings
//! of the table in `settings.rs` from flags, environment and a file. A setting has one name everywhere: the field's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use actix::ArbiterHandle;
use raft_core::NodeId;
use raft_net::{TlsFiles, TlsName};
use raft_storage::MemoryDisk;

use crate::step::Steps;
use crate::{ConfigError, Step};

#[cfg(feature = "cli")]
pub(crate) mod args;
pub(crate) mod check;
#[cfg(feature = "cli")]
mod settings;
#[cfg(feature = "cli")]
mod text;

/// A node's settings. Only its id, the list of peers and a data folder must be given.
///
/// ```
/// use raft_actor::{Config, NodeId};
///
/// let config = Config::new(NodeId(1))
///     .peers([(NodeId(1), "127.0.0.1:7001"), (NodeId(2), "127.0.0.1:7002"), (NodeId(3), "127.0.0.1:7003")])
///     .data_dir("data/1");
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) id: Option<NodeId>,
    /// Where the node is, if it has no list of peers to say it.
    pub(crate) at: Option<String>,
    pub(crate) peers: Vec<(NodeId, String)>,
    pub(crate) listen: Option<String>,
    pub(crate) advertise: Option<String>,
    pub(crate) store: Store,
    pub(crate) here: bool,
    pub(crate) sync_inline: bool,
    pub(crate) delivers_on: Option<ArbiterHandle>,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) election_timeout_min: Duration,
    pub(crate) election_timeout_max: Duration,
    pub(crate) early_campaign: bool,
    pub(crate) command_bytes_max: usize,
    pub(crate) proposals_max: usize,
    pub(crate) proposals_bytes_max: usize,
    pub(crate) propose_timeout: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) snapshots: Snapshots,
    pub(crate) retention: Option<u64>,
    pub(crate) lease_reads: Option<Duration>,
    pub(crate) unapplied_bytes_max: usize,
    pub(crate) snapshot_bytes_per_s: Option<u64>,
    pub(crate) tls: TlsPaths,
    pub(crate) tls_names: BTreeMap<NodeId, String>,
    pub(crate) insecure: bool,
    pub(crate) own_tls_name: Option<String>,
    pub(crate) learner: bool,
    pub(crate) replacing: Option<NodeId>,
    pub(crate) joins: bool,
    pub(crate) join_timeout: Duration,
    pub(crate) joiner_timeout: Duration,
    pub(crate) steps: Steps,
}

/// Where the TLS files are: all three, or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsPaths {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// When a node with a state machine takes a snapshot by itself, and what its log keeps before one.
///
/// ```
/// use raft_actor::{Config, NodeId, Snapshots};
///
/// // A small state, and commands that are rare: by count alone, and often.
/// let snapshots = Snapshots { every_entries: 1_000, every_bytes: 0, ..Snapshots::default() };
/// let config = Config::new(NodeId(1)).snapshots(snapshots);
/// # let _ = config;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// A snapshot is taken when this many entries have been applied since the last one. 0: their number does
    /// not matter. 100,000 unless said.
    pub every_entries: u64,
    /// A snapshot is taken when the entries applied since the last one have this many bytes. 0: their size does
    /// not matter. 256 MiB unless said. With 0 for both, none is taken by itself, and the log grows.
    pub every_bytes: u64,
    /// Entries before a snapshot that the log keeps, so that a node which was away for a moment is sent those
    /// and not the whole state. 10,000 unless said.
    pub margin_entries: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            every_entries: 100_000,
            every_bytes: 256 << 20,
            margin_entries: 10_000,
        }
    }
}

/// Where a node keeps its log.
#[derive(Clone)]
pub(crate) enum Store {
    /// Nothing was said.
    Missing,
    /// RocksDB in this folder.
    Folder(PathBuf),
    /// Memory that plays a disk, for tests.
    Memory(MemoryDisk),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("Missing"),
            Self::Folder(dir) => f.debug_tuple("Folder").field(dir).finish(),
            Self::Memory(_) => f.write_str("Memory"),
        }
    }
}

/// The TLS files, and the names that differ from `node-<id>`.
type Secured = (TlsFiles, BTreeMap<NodeId, TlsName>);

/// How often the clock is looked at. The timeouts are multiples of it.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// What a frame may carry beside one batch of entries: headers, and one command over the batch's limit.
const FRAME_MARGIN_BYTES: usize = 1 << 20;

impl Config {
    /// Settings for node `id`, a number from 1 up that no other node of the cluster has.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id: Some(id),
            ..Self::of_nobody()
        }
    }

    /// Settings for a node that is found at `address` (`host:port`), and is given its id: by
    /// [`lead`](crate::RaftActor::lead), [`join`](crate::RaftActor::join), or the folder that it had it in before. It
    /// listens there too, unless [`listen`](Self::listen) says where.
    ///
    /// ```
    /// use raft_actor::Config;
    ///
    /// let config = Config::at("10.0.0.2:7001").data_dir("data").insecure();
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            at: Some(address.into()),
            ..Self::of_nobody()
        }
    }

    pub(crate) fn of_nobody() -> Self {
        Self {
            id: None,
            at: None,
            peers: Vec::new(),
            listen: None,
            advertise: None,
            store: Store::Missing,
            here: false,
            sync_inline: false,
            delivers_on: None,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_millis(1000),
            early_campaign: true,
            command_bytes_max: 1 << 20,
            proposals_max: 65_536,
            proposals_bytes_max: 64 << 20,
            propose_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(60 * 60),
            snapshots: Snapshots::default(),
            retention: None,
            lease_reads: None,
            unapplied_bytes_max: 64 << 20,
            snapshot_bytes_per_s: Some(32 << 20),
            tls: TlsPaths::default(),
            tls_names: BTreeMap::new(),
            insecure: false,
            own_tls_name: None,
            learner: false,
            replacing: None,
            joins: true,
            join_timeout: Duration::from_secs(60),
            joiner_timeout: Duration::from_secs(10 * 60),
            steps: Steps::default(),
        }
    }

    /// The node's id, if it is not given one.
    #[must_use]
    pub fn id(&self) -> Option<NodeId> {
        self.id
    }

    /// All nodes of the cluster, this one among them, with the address (`host:port`) at which each is
    /// reached. The list must be the same on every node. A name is resolved at each dial.
    ///
    /// Nodes of one process reach each other without a wire at `memory/NAME:PORT`, with any name and any port from 1 on:
    /// for tests, and to measure a cluster beside its network. There is no TLS there, nobody else reaches them, and all
    /// else is as over TCP.
    ///
    /// ```
    /// # use raft_actor::{Config, MemoryDisk, NodeId};
    /// let peers = [1, 2, 3].map(|id| (NodeId(id), format!("memory/test:{id}")));
    /// let config = Config::new(NodeId(1)).peers(peers).memory(MemoryDisk::new());
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn peers<A: Into<String>>(mut self, peers: impl IntoIterator<Item = (NodeId, A)>) -> Self {
        self.peers = peers
            .into_iter()
            .map(|(id, address)| (id, address.into()))
            .collect();
        self
    }

    /// The folder of the log, of term and vote and of the node's identity. It is made if it is missing
    /// (mode 0700), and belongs to this node and this process alone.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.store = Store::Folder(dir.into());
        self
    }

    /// Keeps the log in `disk` instead of a folder: memory that can forget what was not synced. For tests.
    #[must_use]
    pub fn memory(mut self, disk: MemoryDisk) -> Self {
        self.store = Store::Memory(disk);
        self
    }

    /// The node runs on the thread on which it is spawned, with whatever else runs there, and not on one of its own. Who
    /// asks it from there, and its subscribers there, need no other thread to wake up, which for a single caller is a tenth
    /// of a commit's time or more. But what keeps that thread busy keeps the node from answering its peers, so it is for
    /// programs that do not block.
    ///
    /// The log of a folder is written by a thread of its own nevertheless, unless it is synced
    /// [inline](Self::sync_inline); so is a state machine run by one, and old entries are read by one. With a log [in memory](Self::memory) nothing else waits for another thread: a cluster of such nodes,
    /// connected [without a wire](Self::peers), commits in microseconds; a disk that is [held](MemoryDisk::hold) holds the
    /// thread.
    ///
    /// ```
    /// # use raft_actor::{Config, MemoryDisk, NodeId, Propose, RaftActor};
    /// # #[actix::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::new(NodeId(1)).peers([(NodeId(1), "memory/here:1")]);
    /// let raft = RaftActor::spawn(config.memory(MemoryDisk::new()).here())?;
    /// raft.send(Propose::new("one")).await??;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn here(mut self) -> Self {
        self.here = true;
        self
    }

    /// Whether the log is written and synced on the node's own thread, and not by one that does nothing else. On the way of a
    /// commit two threads fewer are woken, which for up to sixteen callers, who wait for each commit, was a tenth to a seventh of its
    /// time on two processors. With 64 callers it costs more than it saves: nothing is gathered while the disk is busy.
    ///
    /// What is lost is what a node does while its disk does not answer, be it in a sync, in a write that RocksDB holds back, or
    /// while the log is closed: it hears nobody, gives no status, and keeps no deadline, neither
    /// [`propose_timeout`](Self::propose_timeout) nor that of [`Shutdown`](crate::Shutdown); with [`here`](Self::here) nothing
    /// else on the thread goes on. A leader is then replaced because it is silent, once the
    /// [election timeout](Self::election_timeout) has passed, which should be well above the slowest sync. Off unless said.
    #[must_use]
    pub fn sync_inline(mut self, on: bool) -> Self {
        self.sync_inline = on;
        self
    }

    /// Commands are applied and handed to subscribers on this thread. Unless it is set, that is the node's thread for a node
    /// without a state machine, and one of its own for one that has one. For subscribers that live there, who need no other
    /// thread to wake up then, and for a process of many nodes, whose state machines can share a thread, or whose node's
    /// threads have more than one processor's work. The answers to this node's own callers come from there, too.
    ///
    /// The node does not outlive that thread's arbiter: when it stops, the node fails. And where one node's state machine takes
    /// its time, the others that share the thread wait, with their shutdown as well, which reports after two seconds that it
    /// could not wait for what they apply.
    #[must_use]
    pub fn deliver_on(mut self, thread: ArbiterHandle) -> Self {
        self.delivers_on = Some(thread);
        self
    }

    /// Where to listen (`ip:port`, or [`memory/NAME:PORT`](Self::peers)), if that is not this node's address in the list of peers.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Where this node tells the others to find it (`host:port`), if that is not its address in the list of
    /// peers. They try there too when nobody answers where their own lists say, so a node that moved needs no
    /// change of the others' lists.
    #[must_use]
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// How often a leader is heard of. From 10 ms to a day, rounded down to a multiple of 10 ms; 100 ms unless
    /// said.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// How long a follower waits for its leader before it asks to be elected: each time a random time
    /// from `min` to `max`. `min` is more than the heartbeat by 10 ms at least, and `max` more than `min`; both
    /// are rounded down to multiples of 10 ms. 500 to 1,000 ms unless said.
    #[must_use]
    pub fn election_timeout(mut self, min: Duration, max: Duration) -> Self {
        self.election_timeout_min = min;
        self.election_timeout_max = max;
        self
    }

    /// Whether a follower of a leader whose process has died asks to be elected at once: its connection was
    /// reset by the leader's host, and its next dial refused. Without it, and whenever a link breaks or a host falls
    /// silent, it waits for the election timeout. With [`lease_reads`](Self::lease_reads) it always waits, as it has
    /// promised. On unless said.
    #[must_use]
    pub fn early_campaign(mut self, on: bool) -> Self {
        self.early_campaign = on;
        self
    }

    /// The longest command, in bytes: a longer one is [`TooLarge`](crate::ProposeError::TooLarge).
    /// 1 MiB unless said, from 1 byte up to 4 MiB. The same on every node.
    #[must_use]
    pub fn command_bytes_max(mut self, bytes: usize) -> Self {
        self.command_bytes_max = bytes;
        self
    }

    /// How many proposals, and how many bytes of them, may wait for their outcome on this node: one more
    /// is [`Busy`](crate::ProposeError::Busy). 65,536 and 64 MiB unless said; from 1 to 16,777,216, and from one
    /// command of the longest kind to 1 TiB.
    #[must_use]
    pub fn proposals_max(mut self, count: usize, bytes: usize) -> Self {
        self.proposals_max = count;
        self.proposals_bytes_max = bytes;
        self
    }

    /// How long a proposal waits for its outcome, unless it says otherwise itself. 10 s unless said, from 1 ms
    /// to a day.
    #[must_use]
    pub fn propose_timeout(mut self, timeout: Duration) -> Self {
        self.propose_timeout = timeout;
        self
    }

    /// How long a session may be silent before the cluster forgets it, in the time that leaders stamp into
    /// the log: it stands still while nobody leads. 1 h unless said, from 10 s to 30 days.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// When snapshots are taken, and what the log keeps before them. See [`Snapshots`].
    #[must_use]
    pub fn snapshots(mut self, snapshots: Snapshots) -> Self {
        self.snapshots = snapshots;
        self
    }

    /// For programs without a state machine: how many entries the log keeps, at least 1. What is before them is
    /// gone, for new subscribers as well as for nodes that were away. Unless it is set nothing is
    /// removed, and the log grows.
    #[must_use]
    pub fn retention(mut self, entries: impl Into<Option<u64>>) -> Self {
        self.retention = entries.into();
        self
    }

    /// Lets a leader answer reads without asking a majority, for as long as the others have promised to elect
    /// nobody else. `max_clock_drift` is the most by which the clocks of two nodes drift apart within one
    /// election timeout: the promise is relied on for that much less. A read is stale if they drift further.
    /// At least 1 ms, rounded up to a multiple of 10 ms, and it must leave a lease: at most the shortest
    /// election timeout less 20 ms. On at all nodes or at none, with the same election timeout. Off
    /// unless said.
    #[must_use]
    pub fn lease_reads(mut self, max_clock_drift: impl Into<Option<Duration>>) -> Self {
        self.lease_reads = max_clock_drift.into();
        self
    }

    /// How many bytes of committed commands may wait to be applied on this node: while a leader is further
    /// behind, proposals are [`Busy`](crate::ProposeError::Busy). 64 MiB unless said, from one command of the
    /// longest kind to 1 TiB.
    #[must_use]
    pub fn unapplied_bytes_max(mut self, bytes: usize) -> Self {
        self.unapplied_bytes_max = bytes;
        self
    }

    /// How fast this node sends snapshots to another, at most, in bytes per second, from 64 KiB to 1 TiB; none for as
    /// fast as the network takes them. 32 MiB unless said: what is sent as fast as it goes takes disks and processors
    /// from those who commit meanwhile. While one is on its way the log keeps what it lacks, up to a million
    /// entries: a state that is so large, or a log that grows so fast, that this is too little needs more.
    #[must_use]
    pub fn snapshot_bytes_per_s(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.snapshot_bytes_per_s = bytes.into();
        self
    }

    /// Has all connections between nodes go through mutual TLS: PEM files with the CAs that are trusted, this node's
    /// certificate (and its chain), and that certificate's key. Each node's certificate must hold the DNS name
    /// `node-<id>`, or the one that [`tls_name`](Self::tls_name) says, and serve for servers and clients both. Files
    /// that change are put to use within seconds, for new connections; bad ones are logged, and those before them stay
    /// in use. On at all nodes or none.
    #[must_use]
    pub fn tls(
        mut self,
        ca: impl Into<PathBuf>,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.tls = TlsPaths {
            ca: Some(ca.into()),
            cert: Some(cert.into()),
            key: Some(key.into()),
        };
        self
    }

    /// The DNS name that `node`'s certificate must hold, if that is not `node-<id>`. The same on every node.
    #[must_use]
    pub fn tls_name(mut self, node: NodeId, name: impl Into<String>) -> Self {
        self.tls_names.insert(node, name.into());
        self
    }

    /// Allows to listen beyond loopback without TLS. Then whoever reaches the port can read all, and can be any node:
    /// for networks in which everybody is trusted.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// The DNS name that this node's own certificate holds, for who joins: what the others are told to ask for. Without
    /// it that is `node-<id>`, and the certificate must be made for an id that nobody has had yet.
    #[must_use]
    pub fn own_tls_name(mut self, name: impl Into<String>) -> Self {
        self.own_tls_name = Some(name.into());
        self
    }

    /// Has a node that [joins](crate::RaftActor::join) stay a learner, which is sent everything and does not vote, until
    /// somebody promotes it. Without it, it votes as soon as it has caught up.
    #[must_use]
    pub fn learner(mut self, on: bool) -> Self {
        self.learner = on;
        self
    }

    /// Has a node that [joins](crate::RaftActor::join) take the place of `node`, which is removed by the same entry, and
    /// must not be alive.
    #[must_use]
    pub fn replacing(mut self, node: NodeId) -> Self {
        self.replacing = Some(node);
        self
    }

    /// Whether this node, while it leads, lets others join. On unless said. Without TLS whoever reaches the port can.
    /// It keeps nobody from connecting: a node that others have let in is heard by one that lags behind.
    #[must_use]
    pub fn joins(mut self, on: bool) -> Self {
        self.joins = on;
        self
    }

    /// How long [`join`](crate::RaftActor::join) tries, from 1 s to a day. 60 s unless said.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.join_timeout = timeout;
        self
    }

    /// How long this node, while it leads, waits for one that it has let in and that has never been heard of since, before it
    /// removes it again: its start broke off, and nobody has repeated it. From 1 s to 30 days; 10 minutes unless said.
    #[must_use]
    pub fn joiner_timeout(mut self, timeout: Duration) -> Self {
        self.joiner_timeout = timeout;
        self
    }

    /// For tests of this library: is called at each step of a join and of a leave.
    #[doc(hidden)]
    #[must_use]
    pub fn at_step(mut self, called: fn(Step)) -> Self {
        self.steps = Steps(Some(called));
        self
    }

    /// The TLS files, if there are to be any, and the names of the nodes.
    ///
    /// # Errors
    /// Not all three were given, or a name is none, or that of two nodes.
    pub(crate) fn checked_tls(&self) -> Result<Option<Secured>, ConfigError> {
        let mut names = BTreeMap::new();
        for (node, name) in &self.tls_names {
            let name = TlsName::new(name.clone()).map_err(|_| ConfigError::TlsName {
                id: *node,
                name: name.clone(),
            })?;
            names.insert(*node, name);
        }
        // Whoever has a name that two nodes go by can be either.
        let mut all = names.clone();
        for (id, _) in &self.peers {
            all.entry(*id).or_insert_with(|| TlsName::of(*id));
        }
        for (first, name) in &names {
            let twice = all
                .iter()
                .find(|(id, other)| *id != first && *other == name);
            if let Some((second, _)) = twice {
                return Err(ConfigError::TlsNameTwice {
                    first: *first,
                    second: *second,
                    name: self.tls_names[first].clone(),
                });
            }
        }
        let TlsPaths { ca, cert, key } = &self.tls;
        let given = [("tls_ca", ca), ("tls_cert", cert), ("tls_key", key)];
        match (ca, cert, key) {
            (Some(ca), Some(cert), Some(key)) => {
                let (ca, cert, key) = (ca.clone(), cert.clone(), key.clone());
                Ok(Some((TlsFiles { ca, cert, key }, names)))
            }
            (None, None, None) => Ok(None),
            _ => {
                let name = |there| {
                    let found = given.iter().find(|(_, path)| path.is_some() == there);
                    found.map_or("", |(name, _)| *name)
                };
                Err(ConfigError::TlsIncomplete {
                    given: name(true),
                    missing: name(false),
                })
            }
        }
    }

    /// Where this node says that it is.
    pub(crate) fn own_address(&self) -> Option<String> {
        let listed = || {
            let own = self.peers.iter().find(|(id, _)| Some(*id) == self.id);
            own.map(|(_, address)| address.clone())
        };
        let said = self.advertise.clone().or_else(|| self.at.clone());
        said.or_else(listed)
    }

    /// The longest frame between peers: a batch of entries that one command of the longest kind overshot.
    pub(crate) fn frame_len_max(&self, append_bytes_max: usize) -> usize {
        append_bytes_max + self.command_bytes_max + FRAME_MARGIN_BYTES
    }

    /// What of these settings the core is told. The rest of its settings is the node's to say.
    pub(crate) fn core(
        &self,
        id: NodeId,
        voters: impl IntoIterator<Item = NodeId>,
    ) -> raft_core::Config {
        let mut core = raft_core::Config::new(id, voters);
        core.heartbeat_ticks = Self::ticks(self.heartbeat_interval);
        core.election_timeout_ticks_min = Self::ticks(self.election_timeout_min);
        core.election_timeout_ticks_max = Self::ticks(self.election_timeout_max);
        // Rounded up, and everything else down: a lease must not come out longer than was meant.
        core.lease_drift_ticks = self.lease_reads.map(|drift| {
            u32::try_from(drift.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u32::MAX)
        });
        let margin = self.snapshots.margin_entries;
        core.compaction_margin_entries = margin;
        core.compaction_hold_entries_max = core.compaction_hold_entries_max.max(margin);
        core
    }

    /// `duration` in ticks, at least one.
    pub(crate) fn ticks(duration: Duration) -> u32 {
        u32::try_from((duration.as_millis() / TICK.as_millis()).max(1)).unwrap_or(u32::MAX)
    }
}
