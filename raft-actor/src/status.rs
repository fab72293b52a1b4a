//! A node as it sees itself.

use raft_core::{ClusterId, Incarnation, LogId, LogIndex, NodeId, Role, Term};

use crate::NodeFailure;

/// The answer to [`GetStatus`](crate::GetStatus).
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
    /// The last entry of this node's log.
    pub last: LogId,
    /// All nodes of the cluster, in the order of their ids.
    pub members: Vec<MemberStatus>,
    /// Proposals that wait for their outcome.
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
    /// Where it is reached.
    pub address: String,
    /// Whether this node has a connection to it; true for itself.
    pub connected: bool,
}
