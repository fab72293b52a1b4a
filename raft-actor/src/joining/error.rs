//! Why a node has not come into a cluster.

use std::time::Duration;

use raft_core::{ClusterId, NodeId};
use raft_net::Refusal;

/// Why a node could not join, or lead, a cluster. Its folder is as it was, and the same call may be made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A member refuses it, for a reason that will not pass by itself.
    #[error("{address} refuses: {refusal}")]
    Refused {
        /// Who.
        address: String,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// Nobody let it in within [`Config::join_timeout`](crate::Config::join_timeout).
    #[error("nobody let this node in within {} ms: {}", waited.as_millis(), answers(.asked))]
    TimedOut {
        /// How long it was tried.
        waited: Duration,
        /// Who was asked, each with what came of it last.
        asked: Vec<(String, String)>,
    },
    /// The folder is of one cluster, and whoever answered is of another.
    #[error(
        "the data folder is of cluster {ours}, and {address} is of another: to leave the one for the other, join with an \
         empty folder"
    )]
    OtherCluster {
        /// Who answered.
        address: String,
        /// This node's.
        ours: ClusterId,
    },
    /// A cluster looks here for one of its nodes: this folder is a new one in the place of that, and to lead would begin
    /// a second cluster beside the first.
    #[error(
        "node {from} of cluster {cluster} looks here for node {node}: join that cluster, or lead at another address"
    )]
    Expected {
        /// Who looks here.
        from: NodeId,
        /// For whom.
        node: NodeId,
        /// Of which cluster.
        cluster: ClusterId,
    },
    /// What the leader said cannot be.
    #[error("{address} is no leader to join: {what}")]
    Malformed {
        /// Who said it.
        address: String,
        /// What is wrong.
        what: String,
    },
}

fn answers(asked: &[(String, String)]) -> String {
    if asked.is_empty() {
        return "nobody was asked, or has invited it".to_owned();
    }
    let answers = asked.iter().map(|(who, what)| format!("{who}: {what}"));
    answers.collect::<Vec<_>>().join("; ")
}
