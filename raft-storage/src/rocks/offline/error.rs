//! What keeps an offline call from its work.

use std::{collections::BTreeSet, path::PathBuf};

use raft_core::{ClusterId, LogId, NodeId};

use crate::{OpenError, StorageError};

/// Why an offline call did nothing. Nothing was changed, unless the variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// There is no such folder, or it is not one of a node.
    #[error(
        "{} is no data folder: it holds neither a mark nor a database; name the folder that the node is started with",
        dir.display()
    )]
    NotADataFolder {
        /// What was named.
        dir: PathBuf,
    },
    /// The folder is one that a node would not open either.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// A running node changed its files under every attempt.
    #[error(
        "the node that runs on {} replaced its files during each of {tries} attempts to read them; try again",
        dir.display()
    )]
    Moving {
        /// The folder.
        dir: PathBuf,
        /// How often it was tried.
        tries: usize,
    },
    /// The folder was made, and no node has ever written to it.
    #[error("data folder {} is empty: no node has written to it yet", dir.display())]
    Empty {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has no snapshot.
    #[error("data folder {} has no snapshot", dir.display())]
    NoSnapshot {
        /// The folder.
        dir: PathBuf,
    },
    /// The target of a copy is there already.
    #[error("{} exists already: nothing is overwritten; name another place, or use --force", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target of a backup holds something.
    #[error("{} exists and is not empty: name a folder that does not exist", path.display())]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// The target of a backup lies within the folder that is to be copied.
    #[error("{} lies within the folder that is to be copied: name a place outside", path.display())]
    Inside {
        /// The target.
        path: PathBuf,
    },
    /// A snapshot does not say of which cluster it is.
    #[error("{} does not say which cluster's state it is: export it from a node's folder", file.display())]
    SnapshotOfNone {
        /// The snapshot's file.
        file: PathBuf,
    },
    /// The snapshot is another cluster's.
    #[error(
        "{} is of cluster {theirs}, and data folder {} is of cluster {ours}: a node takes no state of another cluster",
        file.display(), dir.display()
    )]
    OtherCluster {
        /// The snapshot's file.
        file: PathBuf,
        /// The cluster that it is of.
        theirs: ClusterId,
        /// The folder.
        dir: PathBuf,
        /// The cluster that the folder is of.
        ours: ClusterId,
    },
    /// The folder does not know of any cluster.
    #[error(
        "data folder {} does not know its cluster: its node has never learned of a committed entry; start it with \
         its peers instead", dir.display()
    )]
    NoCluster {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has a snapshot that covers as much or more.
    #[error(
        "{} covers the log through {theirs}, and data folder {} has a snapshot through {ours} already: only a newer \
         one is taken", file.display(), dir.display()
    )]
    NotNewer {
        /// The snapshot's file.
        file: PathBuf,
        /// What it covers.
        theirs: LogId,
        /// The folder.
        dir: PathBuf,
        /// What the folder's own snapshot covers.
        ours: LogId,
    },
    /// A recovery without voters.
    #[error("no voters are named: name the nodes that are left")]
    NoVoters,
    /// Somebody is to vote who is not a member.
    #[error(
        "node {node} is no member of this cluster, whose members are {}: a recovery names nodes that are left, and \
         others join later",
        list(members)
    )]
    NotAMember {
        /// Who is not.
        node: NodeId,
        /// Who is.
        members: BTreeSet<NodeId>,
    },
    /// The folder's own node is not to vote.
    #[error(
        "data folder {} is of node {node}, which is not among the voters {}: recover the folders of those that are",
        dir.display(), list(voters)
    )]
    NotAVoter {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        node: NodeId,
        /// Who is to vote.
        voters: BTreeSet<NodeId>,
    },
    /// The folder's node was removed from the cluster, for good.
    #[error(
        "data folder {} is of node {node}, which has departed from its cluster: recover the folders of those that are \
         members", dir.display()
    )]
    Departed {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        node: NodeId,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<OpenError> for OfflineError {
    fn from(error: OpenError) -> Self {
        Self::Open(Box::new(error))
    }
}

fn list(nodes: &BTreeSet<NodeId>) -> String {
    let nodes: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
    nodes.join(", ")
}
