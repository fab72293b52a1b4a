//! What each setting may be, and why.
//!
//! Invariant: a range stands in [`Config::ranges`] and nowhere else; whatever is refused is refused with the
//! setting's name, what it is, what it may be, and the reason.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use raft_core::NodeId;
use raft_net::{TlsName, is_within_process};

use super::{Config, TICK};

/// A setting, what it is, and what it may be.
struct Range {
    setting: &'static str,
    value: Amount,
    min: Amount,
    max: Amount,
    why: &'static str,
}

impl Range {
    fn of(
        setting: &'static str,
        value: impl Into<Amount>,
        (min, max): (impl Into<Amount>, impl Into<Amount>),
        why: &'static str,
    ) -> Self {
        Self {
            setting,
            value: value.into(),
            min: min.into(),
            max: max.into(),
            why,
        }
    }

    fn check(self) -> Result<(), ConfigError> {
        let Self {
            setting,
            value,
            min,
            max,
            why,
        } = self;
        if (min..=max).contains(&value) {
            return Ok(());
        }
        Err(ConfigError::OutOfRange {
            setting,
            value,
            min,
            max,
            why,
        })
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Nobody means more entries than this: it is a number in the wrong unit, or a mistake.
const ENTRIES_MAX: u64 = 1 << 40;
/// Nor more bytes of memory, or of bytes in a second.
const BYTES_MAX: u64 = 1 << 40;

impl Config {
    /// Each setting that is a number, what it may be, and why. A bound that follows from another setting comes
    /// behind that one, so that the first error is the cause of the rest.
    fn ranges(&self) -> Vec<Range> {
        let longest = self.command_bytes_max as u64;
        let (heartbeat, election) = (self.heartbeat_interval, self.election_timeout_min);
        let mut ranges = vec![
            Range::of(
                "heartbeat_interval",
                heartbeat,
                (TICK, DAY),
                "the clock is looked at each 10 ms",
            ),
            Range::of(
                "election_timeout_min",
                election,
                (heartbeat.saturating_add(TICK), DAY),
                "a follower must hear of its leader before it gives it up",
            ),
            Range::of(
                "election_timeout_max",
                self.election_timeout_max,
                (election.saturating_add(TICK), DAY),
                "nodes that wait for equally long stand for election at once, and nobody wins",
            ),
            Range::of(
                "command_bytes_max",
                bytes(longest),
                (bytes(1), bytes(4 << 20)),
                "a longer command would hold up the heartbeats behind it",
            ),
            Range::of(
                "proposals_max",
                self.proposals_max as u64,
                (1, 1 << 24),
                "each that waits takes memory",
            ),
            Range::of(
                "proposals_bytes_max",
                bytes(self.proposals_bytes_max as u64),
                (bytes(longest), bytes(BYTES_MAX)),
                "the longest command must fit",
            ),
            Range::of(
                "propose_timeout",
                self.propose_timeout,
                (Duration::from_millis(1), DAY),
                "every caller is answered, within a day, and no command gets anywhere in less than a millisecond",
            ),
            Range::of(
                "session_timeout",
                self.session_timeout,
                (Duration::from_secs(10), 30 * DAY),
                "a session must outlive a change of the leader, and the cluster forgets it one day",
            ),
            Range::of(
                "snapshot_every_entries",
                self.snapshots.every_entries,
                (0, ENTRIES_MAX),
                OR_NONE,
            ),
            Range::of(
                "snapshot_every_bytes",
                bytes(self.snapshots.every_bytes),
                (bytes(0), bytes(BYTES_MAX)),
                OR_NONE,
            ),
            Range::of(
                "snapshot_margin_entries",
                self.snapshots.margin_entries,
                (0, ENTRIES_MAX),
                "more is no log that is ever compacted",
            ),
            Range::of(
                "unapplied_bytes_max",
                bytes(self.unapplied_bytes_max as u64),
                (bytes(longest), bytes(BYTES_MAX)),
                "the longest command must fit",
            ),
        ];
        ranges.extend(self.retention.map(|entries| {
            let why = "the last entry is always kept; without a retention, all are";
            Range::of("retention_entries", entries, (1, ENTRIES_MAX), why)
        }));
        ranges.extend(self.lease_reads.map(|drift| {
            // In whole ticks, as the core counts, and one of them is the grain of its clock.
            let lease = u64::from(Self::ticks(election)).saturating_sub(2);
            let most = Duration::from_millis(lease * TICK.as_millis() as u64);
            let why = "no two clocks are the same, and the shortest election timeout less the drift and 10 ms \
                       is the lease, which must last";
            Range::of("lease_clock_drift", drift, (Duration::from_millis(1), most), why)
        }));
        ranges.push(Range::of(
            "join_timeout",
            self.join_timeout,
            (Duration::from_secs(1), DAY),
            "a member must be found and an entry committed meanwhile, and a wait ends",
        ));
        ranges.push(Range::of(
            "joiner_timeout",
            self.joiner_timeout,
            (Duration::from_secs(1), 30 * DAY),
            "who was let in must have the time to start, and who never comes is removed one day",
        ));
        ranges.extend(self.snapshot_bytes_per_s.map(|rate| {
            let why = "a slower one may never catch up with the log";
            let (least, most) = (bytes(64 << 10), bytes(BYTES_MAX));
            Range::of("snapshot_bytes_per_s", bytes(rate), (least, most), why)
        }));
        ranges
    }

    #[cfg(all(test, feature = "cli"))]
    pub(crate) fn range_names(&self) -> impl Iterator<Item = &'static str> {
        self.ranges().into_iter().map(|range| range.setting)
    }

    /// Checks every setting, and puts the peers in order.
    pub(crate) fn validate(&self) -> Result<BTreeMap<NodeId, String>, ConfigError> {
        let peers = self.checked_peers()?;
        let said = [("advertise", &self.advertise), ("at", &self.at)];
        for (setting, address) in said {
            if let Some(address) = address
                && !is_address(address)
            {
                let address = address.clone();
                return Err(ConfigError::OwnAddress { setting, address });
            }
        }
        if let Some(name) = &self.own_tls_name
            && TlsName::new(name.clone()).is_err()
        {
            let name = name.clone();
            return Err(ConfigError::OwnTlsName { name });
        }
        for range in self.ranges() {
            range.check()?;
        }
        if self.checked_tls()?.is_some() {
            self.checked_reach()?;
        }
        Ok(peers)
    }

    /// With TLS, no address is inside this process, where there is none.
    fn checked_reach(&self) -> Result<(), ConfigError> {
        let peers = self.peers.iter().map(|(_, address)| address);
        let own = [&self.listen, &self.at].into_iter().flatten();
        let mut inside = peers.chain(own).filter(|at| is_within_process(at));
        match inside.next().cloned() {
            None => Ok(()),
            Some(address) => Err(ConfigError::TlsWithinProcess { address }),
        }
    }

    fn checked_peers(&self) -> Result<BTreeMap<NodeId, String>, ConfigError> {
        let mut peers = BTreeMap::new();
        for (id, address) in &self.peers {
            if id.0 == 0 {
                return Err(ConfigError::NodeIdZero);
            }
            if !is_address(address) {
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
        match self.id {
            Some(id) if !peers.contains_key(&id) && (self.at.is_none() || !peers.is_empty()) => {
                let listed = peers.keys().copied().collect();
                Err(ConfigError::NotListed { id, listed })
            }
            Some(id) if id.0 == 0 => Err(ConfigError::NodeIdZero),
            None if self.at.is_none() => Err(ConfigError::NotSaid),
            _ => Ok(peers),
        }
    }
}

/// Whether `address` is one that can be dialled, and told.
fn is_address(address: &str) -> bool {
    !address.is_empty() && raft_net::is_address(address)
}

/// Why a threshold ends where it does.
const OR_NONE: &str = "0 is no threshold, and more is none that is ever reached";

/// How much of something a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Amount {
    /// So many.
    Count(u64),
    /// So many bytes.
    Bytes(u64),
    /// So long.
    Time(Duration),
}

fn bytes(bytes: u64) -> Amount {
    Amount::Bytes(bytes)
}

impl From<u64> for Amount {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<Duration> for Amount {
    fn from(time: Duration) -> Self {
        Self::Time(time)
    }
}

/// In the largest unit of which it is a whole multiple, as flags and files take it.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Bytes(bytes) => {
                let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
                let whole = |(shift, _): &(u32, &str)| *bytes > 0 && bytes % (1 << shift) == 0;
                match units.iter().find(|unit| whole(unit)) {
                    Some((shift, unit)) => write!(f, "{}{unit}", bytes >> shift),
                    None => write!(f, "{bytes}B"),
                }
            }
            Self::Time(time) => {
                let units = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "min")];
                let s = time.as_secs();
                let whole =
                    |(unit, _): &(u64, &str)| s > 0 && time.subsec_nanos() == 0 && s % unit == 0;
                match units.iter().find(|unit| whole(unit)) {
                    Some((seconds, unit)) => write!(f, "{}{unit}", s / seconds),
                    None => write!(f, "{time:?}"),
                }
            }
        }
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
    #[error(
        "the address of node {id}, {address:?}, is not of the form host:port, with a port from 1 on"
    )]
    Address {
        /// Whose.
        id: NodeId,
        /// What was given.
        address: String,
    },
    /// An address of this node's is not `host:port`.
    #[error("the {}, {address:?}, is not of the form host:port, with a port from 1 on",
        if *.setting == "at" { "address of this node" } else { "address to advertise" })]
    OwnAddress {
        /// Which setting, by its name in a configuration file.
        setting: &'static str,
        /// What was given.
        address: String,
    },
    /// The name of this node's certificate is no DNS name.
    #[error("the TLS name of this node, {name:?}, is no DNS name")]
    OwnTlsName {
        /// What was given.
        name: String,
    },
    /// Neither an address nor an id and a list of peers was given.
    #[error(
        "it is not said where this node is: give its address, to lead, join or resume, or its id and the list of peers"
    )]
    NotSaid,
    /// Who leads or joins a cluster is given its id.
    #[error("node {id} cannot choose its id: who leads or joins is given one")]
    IdGiven {
        /// What was chosen.
        id: NodeId,
    },
    /// The folder is empty, and there is no list of peers to be born with.
    #[error("the data folder is of no node yet: lead a cluster, or join one")]
    NotBorn,
    /// The folder has an id, from a list of peers, and its cluster was never born.
    #[error(
        "the data folder is node {id}'s, whose cluster was not born yet: start it with the list of peers, or empty the folder"
    )]
    Unborn {
        /// Whose it is.
        id: NodeId,
    },
    /// There is nowhere to keep the log.
    #[error("no data folder was given")]
    NoDataDir,
    /// A number is out of its range.
    #[error("{setting} is {value}; it must be from {min} to {max}: {why}")]
    OutOfRange {
        /// Which setting, by its name in a configuration file.
        setting: &'static str,
        /// What it is.
        value: Amount,
        /// The least that it may be.
        min: Amount,
        /// The most that it may be.
        max: Amount,
        /// Why it may be no less and no more.
        why: &'static str,
    },
    /// Of the three TLS files, some were given and some were not.
    #[error("{given} is given and {missing} is not: TLS takes tls_ca, tls_cert and tls_key")]
    TlsIncomplete {
        /// One that was given, by its name in a configuration file.
        given: &'static str,
        /// One that was not.
        missing: &'static str,
    },
    /// Nodes of one process reach each other without TLS.
    #[error(
        "{address} is inside one process, where there is no TLS: leave out tls_ca, tls_cert and tls_key"
    )]
    TlsWithinProcess {
        /// The address.
        address: String,
    },
    /// The name of a node's certificate is no DNS name.
    #[error("the TLS name of node {id}, {name:?}, is no DNS name")]
    TlsName {
        /// Whose.
        id: NodeId,
        /// What was given.
        name: String,
    },
    /// Two nodes would go by one name: whoever has its certificate could be either.
    #[error("nodes {first} and {second} would both go by the TLS name {name}")]
    TlsNameTwice {
        /// One of them.
        first: NodeId,
        /// The other.
        second: NodeId,
        /// The name.
        name: String,
    },
    /// The core refused its settings.
    #[error(transparent)]
    Core(#[from] raft_core::ConfigError),
}

impl ConfigError {
    /// Which setting it is about.
    #[cfg(feature = "cli")]
    pub(crate) fn setting(&self) -> Option<&'static str> {
        match self {
            Self::NodeIdZero
            | Self::DuplicateId { .. }
            | Self::DuplicateAddress { .. }
            | Self::Address { .. } => Some("peers"),
            Self::NotListed { .. } => Some("id"),
            Self::NoDataDir => Some("data"),
            Self::OwnAddress { setting, .. } => Some(setting),
            Self::OwnTlsName { .. } => Some("own_tls_name"),
            Self::NotSaid => Some("at"),
            Self::IdGiven { .. } => Some("id"),
            Self::NotBorn | Self::Unborn { .. } => Some("data"),
            Self::OutOfRange { setting, .. } => Some(setting),
            Self::TlsIncomplete { given, .. } => Some(given),
            Self::TlsWithinProcess { .. } => Some("tls_ca"),
            Self::TlsName { .. } | Self::TlsNameTwice { .. } => Some("tls_names"),
            Self::Core(_) => None,
        }
    }
}

/// Ids as people write them.
pub(crate) fn ids(ids: &[NodeId]) -> String {
    ids.iter()
        .map(NodeId::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
