//! A node as it sees itself.

use raft_core::membership::Configuration;
use raft_core::{ClusterId, Incarnation, LogId, LogIndex, NodeId, Role, Term};
use raft_core::{PeerState, PeerStatus};
use raft_net::PeerStats;

use crate::{NodeFailure, Tolerance};

/// The answer to [`GetStatus`](crate::GetStatus): what an operator asks first when something is wrong.
///
/// While a node forms, and once it ends, the protocol does not run: then what comes from it has its
/// default (role follower, term, indexes and configuration empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// This node.
    pub id: NodeId,
    /// Its data folder's random name.
    pub incarnation: Incarnation,
    /// The cluster, once its first entry is committed here.
    pub cluster: Option<ClusterId>,
    /// Whether it takes part.
    pub phase: Phase,
    /// What it is in the current term.
    pub role: Role,
    /// The current term.
    pub term: Term,
    /// The leader, where it is known.
    pub leader: Option<NodeId>,
    /// How far the log is known to be committed.
    pub commit: LogIndex,
    /// How far it has been applied and may have been delivered here.
    pub applied: LogIndex,
    /// How many committed entries are not applied here yet. Small, unless applying is slower than the cluster.
    pub unapplied: u64,
    /// How far this node's own log is on its disk.
    pub durable: LogIndex,
    /// The last entry of this node's log.
    pub last: LogId,
    /// The last entry that the log does not hold any more, for a snapshot stands for it or nobody wants it; 0
    /// if the log holds all.
    pub log_start: LogIndex,
    /// The last entry that this node's snapshot covers; 0 if it has none.
    pub snapshot: LogIndex,
    /// Who decides and who is fed: the last configuration in the log, committed or not.
    pub configuration: Configuration,
    /// All nodes of the cluster, in the order of their ids.
    pub members: Vec<MemberStatus>,
    /// How many voters may fail, if this node leads and has led for long enough to know.
    pub tolerance: Option<Tolerance>,
    /// Proposals of this process that wait for their outcome.
    pub proposals_waiting: usize,
}

/// Where a node is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its folder is new, and not every listed peer has answered yet: it neither votes nor acknowledges.
    Forming {
        /// Who has not answered, each with what was last heard or seen of it.
        waiting_for: Vec<(NodeId, String)>,
    },
    /// It takes part.
    Running,
    /// It takes part, and takes no more proposals: it is to be removed, as it wants itself.
    Leaving,
    /// It is being shut down.
    ShuttingDown,
    /// It has failed and takes no part any more.
    Failed(NodeFailure),
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// Where it is reached, or was tried last.
    pub address: String,
    /// Whether this node has a connection to it; true for itself.
    pub connected: bool,
    /// How long it takes to answer, what waits to be sent to it, and what was sent and dropped since this node was
    /// started; none for itself.
    pub queue: Option<PeerStats>,
    /// What it is in the cluster, by the last configuration in the log; none if that does not name it, or there is none yet.
    pub role: Option<MemberRole>,
    /// A voter with a higher one than the leader's is handed the leadership. 0 unless somebody said.
    pub priority: u32,
    /// Its data folder's random name, where it is known.
    pub incarnation: Option<Incarnation>,
    /// Whether the leader has heard it within two of the shortest election timeouts, feeds it with entries, and finds it
    /// no more than 10,000 of them behind; none unless this node leads.
    pub healthy: Option<bool>,
    /// How far it has come, as far as this node knows; none unless this node leads.
    pub progress: Option<Progress>,
}

/// What a node is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// It decides.
    Voter,
    /// It has the log, and does not count.
    Learner,
    /// It is a learner, and votes as soon as it has caught up.
    Joining {
        /// Rounds of catching up that it took so far, as far as this node knows: one that takes less than an election
        /// timeout is the last.
        rounds: u32,
    },
    /// It is a member no more, as soon as the change that is under way is complete; or it is told that it is none.
    Leaving,
}

/// The answer to [`GetMembers`](crate::GetMembers): the cluster as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The leader, whose word this is.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
    /// The entry that says who belongs to the cluster; 0 if none has changed it yet.
    pub index: LogIndex,
    /// Whether that is committed. If not, a change is under way.
    pub committed: bool,
    /// Whether two majorities are needed, for several voters change at once.
    pub joint: bool,
    /// The members, in the order of their ids. Their [`queue`](MemberStatus::queue) is only in the leader's own
    /// [status](crate::GetStatus).
    pub members: Vec<MemberStatus>,
    /// How many voters may fail. None just after an election, while the leader has not heard of all and cannot know.
    pub tolerance: Option<Tolerance>,
}

/// Where a follower stands, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How it is fed.
    pub state: PeerState,
    /// Up to where its log is known to be the leader's, on its disk.
    pub matched: LogIndex,
    /// The next entry that it will be sent.
    pub next: LogIndex,
    /// Messages with entries that are on their way to it and not answered.
    pub inflight: usize,
    /// Whether it has said anything within two of the shortest election timeouts. A leader that a majority is silent to
    /// leads no more.
    pub active: bool,
}

impl From<PeerStatus> for Progress {
    fn from(peer: PeerStatus) -> Self {
        let PeerStatus {
            id: _,
            state,
            matched,
            next,
            inflight,
            active,
            rounds: _,
        } = peer;
        Self {
            state,
            matched,
            next,
            inflight,
            active,
        }
    }
}
