//! What a node tells of itself, and why it ended.

use crate::membership::Configuration;
use crate::{LogId, LogIndex, NodeId, Term};

/// What a node is in its current term (paper §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected (thesis §9.6); its term is unchanged.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// A node's view of itself and, if it leads, of its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
    /// The leader of that term, where it is known.
    pub leader: Option<NodeId>,
    /// How far the log is known to be committed.
    pub commit: LogIndex,
    /// How far it has been handed out by [`Effect::Commit`](crate::Effect::Commit).
    pub handed_out: LogIndex,
    /// How far this node's own log is durable.
    pub durable: LogIndex,
    /// This node's last entry.
    pub last: LogId,
    /// The last entry that the log does not hold any more; [`LogId::ZERO`] if it holds all.
    pub log_start: LogId,
    /// The last entry that this node's snapshot covers; [`LogId::ZERO`] if it has none.
    pub snapshot: LogId,
    /// The configuration in effect: the last one in the log.
    pub configuration: Configuration,
    /// The entry that it stands in, or the last one of the snapshot that it came with; 0 if it is the initial
    /// one.
    pub configuration_index: LogIndex,
    /// To whom this leader hands over.
    pub transfer: Option<NodeId>,
    /// Up to when this leader may answer reads by its lease, in ticks since its start.
    pub lease_until_ticks: Option<u64>,
    /// Where each peer stands, in the order of their ids; empty unless this node leads.
    pub peers: Vec<PeerStatus>,
}

/// How a leader feeds a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// It looks for the last entry that both have, one message at a time.
    Probe,
    /// It sends what there is, many messages at a time.
    Replicate,
    /// It sends a snapshot, and no entries until that has ended.
    Snapshot,
}

/// A leader's view of one follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The follower.
    pub id: NodeId,
    /// How it is fed.
    pub state: PeerState,
    /// Up to where its log is known to equal the leader's, durably.
    pub matched: LogIndex,
    /// The next entry that it will be sent.
    pub next: LogIndex,
    /// Messages on their way to it that are not answered.
    pub inflight: usize,
    /// Whether it has said anything since the last check of the quorum but one: within two of the shortest
    /// election timeouts.
    pub active: bool,
    /// Rounds of catching up that it took so far (thesis §4.2.1): one that joins becomes a voter when a
    /// round takes less than an election timeout.
    pub rounds: u32,
}

/// Something that cannot happen, unless a disk, a peer or this program is broken. The node ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// A leader's entry contradicts a committed one.
    #[error("node {leader}, leader of term {term}, contradicts committed entry {index}")]
    CommittedConflict {
        /// Who sent it.
        leader: NodeId,
        /// Its term.
        term: Term,
        /// Where.
        index: LogIndex,
    },
    /// The log on disk could not be read, or had other content than the core knows.
    #[error("{0}")]
    Log(String),
    /// An invariant of the core itself does not hold.
    #[error("invariant broken: {0}")]
    Invariant(String),
}
