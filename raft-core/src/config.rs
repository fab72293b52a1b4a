//! What the core must be told at construction.

use bytes::Bytes;

use crate::NodeId;
use crate::membership::{ChangeError, Configuration};

/// The settings of a [`Raft`](crate::Raft).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Who belongs to the cluster as long as neither log nor snapshot says it. Empty for a node that is to
    /// join one: it waits until a leader tells it.
    pub initial: Configuration,
    /// Ticks between two heartbeats of a leader. At least 1.
    pub heartbeat_ticks: u32,
    /// The shortest election timeout, in ticks. More than `heartbeat_ticks`.
    pub election_timeout_ticks_min: u32,
    /// The longest election timeout, in ticks. More than the shortest; each node draws its own from
    /// between them again and again (paper §5.2).
    pub election_timeout_ticks_max: u32,
    /// Entries in one AppendEntries, at most. At least 1.
    pub append_entries_max: usize,
    /// Bytes of entries in one AppendEntries: the entry that reaches it is the last.
    pub append_bytes_max: usize,
    /// AppendEntries on their way to one follower, at most. At least 1.
    pub inflight_max: usize,
    /// Bytes of entries on their way to one follower: the message that reaches it is the last.
    pub inflight_bytes_max: usize,
    /// Bytes of entries that are not committed: beyond it a leader answers
    /// [`Rejection::Busy`](crate::Rejection::Busy). What a leader found in its log when it was elected counts
    /// as far as it is in memory.
    pub uncommitted_bytes_max: usize,
    /// Reads that wait for their [`ReadReady`](crate::ReadReady): beyond it the answer is
    /// [`Rejection::Busy`](crate::Rejection::Busy). Questions of followers count as one each. At least 1.
    pub reads_max: usize,
    /// Entries before a snapshot that the log keeps, so that a follower which is a little behind needs no
    /// snapshot.
    pub compaction_margin_entries: u64,
    /// Entries before a snapshot that a leader's log keeps at most for followers that are heard, and lack them
    /// or are being sent a snapshot.
    pub compaction_hold_entries_max: u64,
    /// With it, leases are on: the most that the clocks of two nodes drift apart in one election timeout,
    /// in ticks. With it and one tick more, the grain of a clock, a lease is shorter than the shortest
    /// election timeout. It is on at all nodes or at none, and the shortest election timeout is the same at
    /// all of them: a lease rests on what the others have promised.
    pub lease_drift_ticks: Option<u32>,
    /// Bytes of entries kept in memory for followers, beside those that are not durable or not
    /// committed yet.
    pub tail_bytes_max: usize,
    /// The data of the very first entry, should this node be elected with an empty log.
    pub birth: Option<Bytes>,
    /// From this the node draws its election timeouts. Each node has another one.
    pub seed: u64,
    /// How often this node was started, this time included: no two of its runs share a number. It names the
    /// questions that this node asks for its reads; with a number that came before, the answer to a question
    /// of an earlier run would be taken for one of this run, and a read could miss what was acknowledged.
    /// [`Config::new`] says 1: whoever starts a node a second time says more.
    pub start: u64,
}

impl Config {
    /// Settings that suit a tick of 10 ms: a heartbeat each 100 ms, an election timeout of 500 to
    /// 1,000 ms.
    #[must_use]
    pub fn new(id: NodeId, voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            id,
            initial: Configuration::of(voters),
            heartbeat_ticks: 10,
            election_timeout_ticks_min: 50,
            election_timeout_ticks_max: 100,
            append_entries_max: 512,
            append_bytes_max: 128 << 10,
            inflight_max: 64,
            inflight_bytes_max: 4 << 20,
            uncommitted_bytes_max: 64 << 20,
            reads_max: 10_000,
            compaction_margin_entries: 10_000,
            compaction_hold_entries_max: 1_000_000,
            lease_drift_ticks: None,
            tail_bytes_max: 16 << 20,
            birth: None,
            seed: id.0,
            start: 1,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let range = |what, value: u64, min: u64| {
            if value < min {
                Err(ConfigError::TooSmall { what, value, min })
            } else {
                Ok(())
            }
        };
        if self.id.0 == 0 {
            return Err(ConfigError::NodeIdZero);
        }
        if let Some(error) = self.initial.validate() {
            return Err(ConfigError::Members(error));
        }
        if let Some(drift) = self.lease_drift_ticks
            && drift.saturating_add(1) >= self.election_timeout_ticks_min
        {
            return Err(ConfigError::NoLease {
                drift,
                election_timeout: self.election_timeout_ticks_min,
            });
        }
        range("heartbeat_ticks", self.heartbeat_ticks.into(), 1)?;
        range(
            "election_timeout_ticks_min",
            self.election_timeout_ticks_min.into(),
            u64::from(self.heartbeat_ticks) + 1,
        )?;
        range(
            "election_timeout_ticks_max",
            self.election_timeout_ticks_max.into(),
            u64::from(self.election_timeout_ticks_min) + 1,
        )?;
        range("reads_max", self.reads_max as u64, 1)?;
        range("append_entries_max", self.append_entries_max as u64, 1)?;
        range("append_bytes_max", self.append_bytes_max as u64, 1)?;
        range("inflight_max", self.inflight_max as u64, 1)?;
        range("inflight_bytes_max", self.inflight_bytes_max as u64, 1)?;
        range(
            "uncommitted_bytes_max",
            self.uncommitted_bytes_max as u64,
            1,
        )
    }
}

/// Why a node was not started: its [`Config`], or what its storage recovered, was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Node ids begin with 1.
    #[error("0 is no node id: ids begin with 1")]
    NodeIdZero,
    /// The initial members are none.
    #[error("the initial members cannot be a configuration: {0}")]
    Members(ChangeError),
    /// The drift leaves nothing of a lease.
    #[error(
        "a drift of {drift} ticks leaves no lease of an election timeout of {election_timeout}"
    )]
    NoLease {
        /// The drift, in ticks.
        drift: u32,
        /// The shortest election timeout, in ticks.
        election_timeout: u32,
    },
    /// A setting is below its range.
    #[error("{what} is {value}, and must be at least {min}")]
    TooSmall {
        /// Which one.
        what: &'static str,
        /// What it is.
        value: u64,
        /// The least that it may be.
        min: u64,
    },
    /// What the storage found contradicts itself.
    #[error("the recovered log cannot be one: {0}")]
    Recovered(String),
}
