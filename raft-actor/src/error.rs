//! What can go wrong, each with what it means for the caller.

use std::time::Duration;

use raft_core::{ClusterId, LogId, LogIndex, NodeId, Violation};
use raft_net::{ListenError, Refusal};
use raft_storage::{OpenError, StorageError};

use crate::ConfigError;
use crate::config::check::ids;

/// Why a node could not be started. Nothing is left behind: neither a thread, nor a lock, nor a socket.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no actix system on this thread.
    #[error(
        "no actix system runs on this thread: start the node inside #[actix::main] or System::run"
    )]
    NoSystem,
    /// A setting cannot be.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The node could not begin to take part.
    #[error(transparent)]
    Node(#[from] NodeFailure),
    /// The folder is of a cluster of other nodes.
    #[error(
        "the data folder is of a cluster of nodes {}, but the list of peers names {}",
        ids(.stored), ids(.listed)
    )]
    OtherPeers {
        /// The nodes that the cluster was born with.
        stored: Vec<NodeId>,
        /// The nodes that are listed now.
        listed: Vec<NodeId>,
    },
    /// The log begins behind a snapshot, and a node cannot restore one yet.
    #[error(
        "the log begins behind a snapshot through entry {last}, and this version cannot restore snapshots"
    )]
    NeedsStateMachine {
        /// The last entry that it covers.
        last: LogId,
    },
    /// A data folder was given to a program that was built without RocksDB.
    #[cfg(not(feature = "rocksdb"))]
    #[error(
        "this program was built without the feature `rocksdb`, and can keep no log in a folder"
    )]
    NoRocksDb,
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        Self::Open(Box::new(error))
    }
}

/// Why a proposal is not, or may not be, in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The command is longer than may be.
    #[error("the command has {len} bytes, and {max} is the most")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// [`Config::command_bytes_max`](crate::Config::command_bytes_max).
        max: usize,
    },
    /// Too many proposals wait for their outcome. Try again later.
    #[error("too many proposals wait for their outcome")]
    Busy,
    /// Nobody led for as long as the proposal could wait.
    #[error("no leader was found within {} ms", waited.as_millis())]
    NoLeader {
        /// How long it waited.
        waited: Duration,
    },
    /// Another command was committed at its place. It is not in the log and never will be.
    #[error("superseded by another leader's entry")]
    Superseded,
    /// The node is being shut down, and the command was not sent to anybody.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The node has failed, and the command was not sent to anybody.
    #[error("the node has failed: {0}")]
    Failed(NodeFailure),
    /// It may be in the log or not, now or later.
    #[error("it is unknown whether the command is in the log: {0}")]
    Unknown(UnknownCause),
}

impl ProposeError {
    /// Whether the command is certainly not in the log and never will be, so that proposing it again
    /// cannot make it appear twice.
    #[must_use]
    pub fn is_certainly_not_in_log(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCause {
    /// Its time was up first.
    #[error("no outcome was known in time")]
    TimedOut,
    /// It was on its way to the leader, or at it, when the connection broke.
    #[error("the connection to the leader, node {0}, broke")]
    ConnectionLost(NodeId),
    /// The leader that had it does not know either.
    #[error("the leader, node {0}, does not know")]
    LeaderUnsure(NodeId),
    /// The node ended first.
    #[error("the node ended before it was committed")]
    NodeEnded,
}

/// Why a subscription could not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// Positions begin with 1.
    #[error("there is no index 0: the log begins with 1")]
    IndexZero,
    /// The node has ended.
    #[error("the node has ended")]
    NodeEnded,
}

/// Why a node ended by itself. It takes no part any more. What was acknowledged is safe, but for what its own
/// disk may have lost ([`LostAcknowledged`](Self::LostAcknowledged)).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeFailure {
    /// The disk failed; nothing was written after that.
    #[error("storage: {0}")]
    Storage(String),
    /// Something that cannot happen did.
    #[error("protocol: {0}")]
    Violation(#[from] Violation),
    /// A majority of the peers refuses this node for good.
    #[error("refused by node {peer} and a majority with it: {refusal}")]
    Refused {
        /// One of them.
        peer: NodeId,
        /// What it said.
        refusal: Box<Refusal>,
    },
    /// What this node's disk holds is less than what the node had acknowledged to a peer: synced writes are
    /// gone. With such a log it must not vote.
    #[error("refused by node {peer}: {refusal}")]
    LostAcknowledged {
        /// The peer.
        peer: NodeId,
        /// A [`Refusal::LostAcknowledged`], which says what is missing and what to do.
        refusal: Box<Refusal>,
    },
    /// The protocol asks for something, or answers something, that this program never asks of it.
    #[error("a bug of this program: the protocol comes with {0}, which nobody has asked for")]
    NotAsked(&'static str),
    /// A part of the node stopped without having been asked to.
    #[error("{0} stopped unexpectedly, probably by a panic")]
    PartStopped(&'static str),
    /// The operating system has no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Random(String),
    /// A setting cannot be.
    #[error("configuration: {0}")]
    Config(raft_core::ConfigError),
    /// The cluster was born with other nodes, or other folders of them, than this node knows.
    #[error(
        "cluster {cluster} was born with other nodes, or other data folders of theirs, than this node was: \
         give all nodes the same list of peers"
    )]
    OtherBirth {
        /// The cluster.
        cluster: ClusterId,
    },
    /// The log did not close in time; its folder may still be in use by this process.
    #[error("the log was not closed within {} s", .0.as_secs())]
    CloseTimedOut(Duration),
    /// The first entry of the log cannot be understood.
    #[error("the first entry of the log, at {0}, does not say which cluster it is of")]
    Birth(LogIndex),
}

impl From<StorageError> for NodeFailure {
    fn from(error: StorageError) -> Self {
        Self::Storage(error.to_string())
    }
}
