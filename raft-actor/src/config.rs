//! Everything a node is told at its start, with defaults that suit production.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use raft_core::NodeId;
use raft_storage::MemoryDisk;

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
    pub(crate) id: NodeId,
    pub(crate) peers: Vec<(NodeId, String)>,
    pub(crate) listen: Option<String>,
    pub(crate) store: Store,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) election_timeout_min: Duration,
    pub(crate) election_timeout_max: Duration,
    pub(crate) command_bytes_max: usize,
    pub(crate) proposals_max: usize,
    pub(crate) proposals_bytes_max: usize,
    pub(crate) propose_timeout: Duration,
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

/// How often the clock is looked at. The timeouts are multiples of it.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// What a frame may carry beside one batch of entries: headers, and one command over the batch's limit.
const FRAME_MARGIN_BYTES: usize = 1 << 20;

impl Config {
    /// Settings for node `id`, a number from 1 up that no other node of the cluster has.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            peers: Vec::new(),
            listen: None,
            store: Store::Missing,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_millis(1000),
            command_bytes_max: 1 << 20,
            proposals_max: 65_536,
            proposals_bytes_max: 64 << 20,
            propose_timeout: Duration::from_secs(10),
        }
    }

    /// All nodes of the cluster, this one among them, with the address (`host:port`) at which each is
    /// reached. The list must be the same on every node. A name is resolved at each dial.
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

    /// Where to listen (`ip:port`), if that is not this node's address in the list of peers.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// How often a leader is heard of. A multiple of 10 ms, at least 10 ms; 100 ms unless said.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// How long a follower waits for its leader before it asks to be elected: each time a random time
    /// from `min` to `max`. More than the heartbeat; 500 to 1,000 ms unless said.
    #[must_use]
    pub fn election_timeout(mut self, min: Duration, max: Duration) -> Self {
        self.election_timeout_min = min;
        self.election_timeout_max = max;
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
    /// is [`Busy`](crate::ProposeError::Busy). 65,536 and 64 MiB unless said.
    #[must_use]
    pub fn proposals_max(mut self, count: usize, bytes: usize) -> Self {
        self.proposals_max = count;
        self.proposals_bytes_max = bytes;
        self
    }

    /// How long a proposal waits for its outcome, unless it says otherwise itself. 10 s unless said.
    #[must_use]
    pub fn propose_timeout(mut self, timeout: Duration) -> Self {
        self.propose_timeout = timeout;
        self
    }

    /// Checks every setting, and puts the peers in order.
    pub(crate) fn validate(&self) -> Result<BTreeMap<NodeId, String>, ConfigError> {
        let mut peers = BTreeMap::new();
        for (id, address) in &self.peers {
            if id.0 == 0 {
                return Err(ConfigError::NodeIdZero);
            }
            let port = address
                .rsplit_once(':')
                .map(|(host, port)| (host, port.parse::<u16>()));
            if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
                return Err(ConfigError::Address {
                    id: *id,
                    address: address.clone(),
                });
            }
            if let Some(other) = peers.insert(*id, address.clone()) {
                return Err(ConfigError::DuplicateId {
                    id: *id,
                    first: other,
                    second: address.clone(),
                });
            }
        }
        for (id, address) in &peers {
            if let Some((other, _)) = peers.iter().find(|(other, a)| *other < id && *a == address) {
                return Err(ConfigError::DuplicateAddress {
                    address: address.clone(),
                    first: *other,
                    second: *id,
                });
            }
        }
        if !peers.contains_key(&self.id) {
            let listed = peers.keys().copied().collect();
            return Err(ConfigError::NotListed {
                id: self.id,
                listed,
            });
        }
        let range = |what: &'static str, value: u128, min: u128, max: u128| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::OutOfRange {
                    what,
                    value,
                    min,
                    max,
                })
            }
        };
        let day = Duration::from_secs(24 * 60 * 60).as_millis();
        let heartbeat = self.heartbeat_interval.as_millis();
        let election_min = self.election_timeout_min.as_millis();
        let tick = TICK.as_millis();
        range("the heartbeat interval, in ms,", heartbeat, tick, day)?;
        range(
            "the shortest election timeout, in ms,",
            election_min,
            heartbeat + tick,
            day,
        )?;
        let election_max = self.election_timeout_max.as_millis();
        range(
            "the longest election timeout, in ms,",
            election_max,
            election_min + tick,
            day,
        )?;
        range(
            "the longest command, in bytes,",
            self.command_bytes_max as u128,
            1,
            4 << 20,
        )?;
        range(
            "the number of proposals that may wait",
            self.proposals_max as u128,
            1,
            1 << 24,
        )?;
        let bytes_max = self.proposals_bytes_max as u128;
        range(
            "the bytes of proposals that may wait",
            bytes_max,
            self.command_bytes_max as u128,
            1 << 40,
        )?;
        let timeout = self.propose_timeout.as_millis();
        range("the timeout of a proposal, in ms,", timeout, 1, day)?;
        Ok(peers)
    }

    /// The longest frame between peers: a batch of entries that one command of the longest kind overshot.
    pub(crate) fn frame_len_max(&self, append_bytes_max: usize) -> usize {
        append_bytes_max + self.command_bytes_max + FRAME_MARGIN_BYTES
    }

    /// `duration` in ticks, at least one.
    pub(crate) fn ticks(duration: Duration) -> u32 {
        u32::try_from((duration.as_millis() / TICK.as_millis()).max(1)).unwrap_or(u32::MAX)
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Ids begin with 1.
    #[error("0 is no node id: ids begin with 1")]
    NodeIdZero,
    /// Two peers have the same id.
    #[error("node {id} is listed twice, as {first} and as {second}")]
    DuplicateId {
        /// The id.
        id: NodeId,
        /// The address that it was listed with first.
        first: String,
        /// The address that it was listed with again.
        second: String,
    },
    /// Two peers have the same address.
    #[error("nodes {first} and {second} are both listed at {address}")]
    DuplicateAddress {
        /// The address.
        address: String,
        /// One of them.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
    /// This node is not in the list.
    #[error("node {id} is not in its own list of peers ({})", ids(.listed))]
    NotListed {
        /// This node.
        id: NodeId,
        /// The list.
        listed: Vec<NodeId>,
    },
    /// An address is not `host:port`.
    #[error("the address of node {id}, {address:?}, is not of the form host:port")]
    Address {
        /// Whose.
        id: NodeId,
        /// What was given.
        address: String,
    },
    /// There is nowhere to keep the log.
    #[error("no data folder was given")]
    NoDataDir,
    /// A number is out of its range.
    #[error("{what} is {value}; it must be from {min} to {max}")]
    OutOfRange {
        /// Which.
        what: &'static str,
        /// What it is.
        value: u128,
        /// The least that it may be.
        min: u128,
        /// The most that it may be.
        max: u128,
    },
    /// The core refused its settings.
    #[error(transparent)]
    Core(#[from] raft_core::ConfigError),
}

/// Ids as people write them.
pub(crate) fn ids(ids: &[NodeId]) -> String {
    ids.iter()
        .map(NodeId::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
