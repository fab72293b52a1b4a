//! What can go wrong with what only the leader can do.

use std::time::Duration;

use raft_core::NodeId;
use raft_core::membership::ChangeError;
use raft_net::Refusal;

use crate::NodeFailure;
use crate::config::check::ids;

/// Why the membership was not changed, or the leadership not handed over, or the leader not asked. It can be asked again,
/// whatever it is: what was done already is not done twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// There is no such node.
    #[error("node {0} is no member of the cluster")]
    NotAMember(NodeId),
    /// There was such a node, and it is none any more: ids are never used again. It can join as a new node, with an empty
    /// folder.
    #[error("node {0} is a member no more, and its id is never used again")]
    IdUsed(NodeId),
    /// Too few of those that would vote are healthy for a majority: nothing could be committed after it.
    /// [`forced`](crate::ChangeMembership::forced) does it all the same.
    #[error(
        "{} would vote, and of them only {} are healthy, which is no majority: mend or replace the others first, or force it",
        nodes(.voters), nodes(.healthy)
    )]
    NoHealthyQuorum {
        /// Who would vote.
        voters: Vec<NodeId>,
        /// Those of them that are healthy.
        healthy: Vec<NodeId>,
    },
    /// Somebody must vote. A cluster is ended by shutting down its last node.
    #[error("no voter would be left: to end a cluster, shut its last node down")]
    LastVoter,
    /// It is to be replaced in one step, which is for nodes that are gone, and it is there.
    #[error("node {0} is alive: it cannot be replaced as one that is gone")]
    Alive(NodeId),
    /// There is nobody to whom the leadership could be handed over, or who was named is no voter.
    #[error("there is nobody to hand the leadership over to")]
    NoCandidate,
    /// It did not take the leadership over within an election timeout, and is not waited for any longer.
    #[error("node {to} did not take the leadership over in time")]
    NotTransferred {
        /// The node that was to lead.
        to: NodeId,
    },
    /// Nobody led, or no leader could be reached, in all the time. Nothing was done.
    #[error("no leader was found within {} ms", waited.as_millis())]
    NoLeader {
        /// How long it waited.
        waited: Duration,
    },
    /// Its time was up. It may be done or not, now or later. Another change that is under way, which must be committed
    /// first, is the usual reason.
    #[error("no outcome was known within {} ms: it may still be done", waited.as_millis())]
    TimedOut {
        /// How long it waited.
        waited: Duration,
    },
    /// The node that is to join is not there. Nothing was done.
    #[error("nobody can be reached at {address}: {why}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What came of it.
        why: String,
    },
    /// A node refuses it.
    #[error("refused: {0}")]
    Refused(Box<Refusal>),
    /// Too many requests of this kind wait, here or at the leader.
    #[error("too many changes and questions wait for the leader")]
    Busy,
    /// The leader does not understand the request, or this node its answer.
    #[error(
        "the nodes of the cluster run different versions of this library: run one before changing who is in it"
    )]
    Malformed,
    /// The node is being shut down, or has ended. What it had asked may still be done.
    #[error("the node has ended")]
    NodeEnded,
    /// The node has failed. What it had asked may still be done.
    #[error("the node has failed: {0}")]
    Failed(NodeFailure),
    /// It makes no membership.
    #[error("the change cannot be made: {0}")]
    Change(ChangeError),
}

impl From<ChangeError> for MembershipError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NoVoters => Self::LastVoter,
            ChangeError::NotAMember(id) => Self::NotAMember(id),
            other => Self::Change(other),
        }
    }
}

fn nodes(of: &[NodeId]) -> String {
    if of.is_empty() {
        return "none".to_owned();
    }
    format!("nodes {}", ids(of))
}
