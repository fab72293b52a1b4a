//! What can go wrong, each with what it means for the caller.

mod membership;

use std::time::Duration;

use bytes::Bytes;
use raft_core::{ClusterId, LogId, LogIndex, NodeId, Term, Violation};
use raft_net::{ListenError, Refusal, TlsFileError};
use raft_storage::{OpenError, StorageError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::check::ids;
use crate::{ApplyError, ConfigError, JoinError, ProposalId, SessionId};

pub use membership::MembershipError;

/// Why a node could not be started. Nothing is left behind: neither a thread, nor a lock, nor a socket.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no actix system on this thread.
    #[error(
        "no actix system runs on this thread: start the node inside #[actix::main] or System::run"
    )]
    NoSystem,
    /// No thread could be had for an actor system ([`Raft`](crate::Raft)), or it ended at once.
    #[error("the actor system cannot be started: {0}")]
    System(#[source] std::io::Error),
    /// A setting cannot be.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A TLS file is no good.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// The address can be reached from other hosts, there is no TLS, and nobody has said that it may be so.
    #[error(
        "{address} can be reached from other hosts, and without TLS whoever reaches it can read all and be any node: \
         give --tls-ca, --tls-cert and --tls-key, or --insecure where everybody is trusted"
    )]
    Insecure {
        /// Where the node would listen.
        address: std::net::SocketAddr,
    },
    /// The node could not begin to take part.
    #[error(transparent)]
    Node(#[from] NodeFailure),
    /// The node did not come into a cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
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
    /// The node has left its cluster, or was removed: its folder is of no use any more.
    #[error(
        "node {} has left its cluster, or was removed: to take part again, join it with an empty data folder",
        node.unwrap_or_default()
    )]
    Departed {
        /// The node.
        node: Option<NodeId>,
    },
    /// The state as of the snapshot cannot be had back.
    #[error("cannot restore the snapshot through entry {last}: {why}")]
    Restore {
        /// The last entry that it covers.
        last: LogId,
        /// Why: damaged, or not what this program's state machine wrote.
        why: String,
    },
    /// The state machine's own disk cannot be read, or is not of this log.
    #[error("the state machine's own disk: {0}")]
    OwnDisk(String),
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

/// Why a proposal has no effect, or may have none, or has one that this caller is not told.
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
    /// Too many proposals wait for their outcome, or too much that is committed is not applied yet. Try again
    /// later.
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
    /// The state machine refused the command, on every node. It is in the log, and changed nothing.
    #[error("refused by the state machine: {reason}")]
    Refused {
        /// Its place in the log.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// What the state machine said.
        reason: ApplyError,
    },
    /// It was [cancelled](crate::Cancel) before it could be applied.
    #[error("cancelled before it was applied")]
    Cancelled,
    /// Its session is not known to the cluster: it expired, was closed, or never was. If the command was proposed
    /// before under the same name, it may have been applied then.
    #[error("session {0} has expired")]
    SessionExpired(SessionId),
    /// Its sequence is too far above the lowest of its session that is not [done](crate::Propose::done_below).
    /// Nothing was done.
    #[error("sequence {} of session {} is beyond its window of outcomes", .0.sequence, .0.session)]
    BeyondWindow(ProposalId),
    /// Its sequence was declared [done](crate::Propose::done_below) before: its outcome is forgotten.
    #[error("the outcome of sequence {} of session {} was declared done, and is forgotten", .0.sequence, .0.session)]
    Done(ProposalId),
    /// It was applied before, and the response to it is not kept any more.
    #[error("applied at entry {index}, but its response is forgotten")]
    ResponseForgotten {
        /// Its place in the log.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The cluster has as many sessions as it may; some must be closed, or expire.
    #[error("the cluster has too many sessions")]
    TooManySessions,
    /// The name is none: sequences begin with 1.
    #[error("there is no sequence 0: sequences begin with 1")]
    SequenceZero,
    /// The cluster does not understand the proposal: its nodes run different versions of this library.
    #[error("the cluster does not understand the proposal: its nodes run different versions")]
    Malformed,
    /// It may have been applied or not, now or later.
    #[error("it is unknown whether the command is applied: {cause}")]
    Unknown {
        /// Why.
        cause: UnknownCause,
        /// Its name, if it has one: with it the outcome can be found out ([`Resolve`](crate::Resolve)), or decided
        /// ([`Cancel`](crate::Cancel)), or the command proposed again ([`Propose::with_id`](crate::Propose::with_id)),
        /// as long as the session lives.
        id: Option<ProposalId>,
    },
}

impl ProposeError {
    /// Whether the command certainly has no effect and never will have any, so that proposing it again under
    /// another name cannot make it happen twice. (Under the same name that cannot happen anyway.) It speaks of what this
    /// node did with it: a command whose name an earlier process may have proposed is [resolved](crate::Resolve).
    #[must_use]
    pub fn is_certainly_not_applied(&self) -> bool {
        !matches!(
            self,
            Self::Unknown { .. }
                | Self::SessionExpired(_)
                | Self::Done(_)
                | Self::ResponseForgotten { .. }
        )
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
    /// It was sent more than once: the last copy was refused, and what became of another is not known.
    #[error("its last copy was refused, and another one may be on its way")]
    OtherCopy,
    /// A snapshot came in place of the entries among which it would be.
    #[error("a snapshot took the place of its part of the log")]
    Compacted,
}

/// Why a read was not answered. It can be asked again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader, or no majority, confirmed it in time; or this node did not apply enough of the log in time.
    #[error("not confirmed within {} ms: {why}", waited.as_millis())]
    TimedOut {
        /// How long it waited.
        waited: Duration,
        /// What kept it.
        why: ReadObstacle,
    },
    /// Too many reads wait. Try again later.
    #[error("too many reads wait")]
    Busy,
    /// The program has no state machine, or one of another type than the read is for.
    #[error("the node has no state machine of this type")]
    NoSuchMachine,
    /// The closure that reads panicked.
    #[error("the read panicked: {0}")]
    Panicked(String),
    /// The node is being shut down, or has ended.
    #[error("the node has ended")]
    NodeEnded,
    /// The node has failed.
    #[error("the node has failed: {0}")]
    Failed(NodeFailure),
}

/// What kept a read from being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadObstacle {
    /// Who leads is not known, or nobody does.
    #[error("no leader is known")]
    NoLeader,
    /// No majority has confirmed the leader.
    #[error("no majority confirmed the leader")]
    NotConfirmed,
    /// The read was confirmed, but this node has not applied so much.
    #[error("this node is behind")]
    Behind,
}

/// Why a snapshot was not taken. The log goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Nothing was applied since the last one.
    #[error("nothing was applied since the last snapshot")]
    NothingNew,
    /// Another one is being written.
    #[error("another snapshot is being written")]
    UnderWay,
    /// It cannot be written.
    #[error("the snapshot cannot be written: {0}")]
    Write(String),
    /// The node has ended, or takes no part.
    #[error("the node has ended, or takes no part")]
    NodeEnded,
}

/// A value could not be encoded or decoded as MessagePack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It cannot be encoded.
    #[error("cannot be encoded: {0}")]
    Encode(String),
    /// It is of another type.
    #[error("cannot be decoded: {0}")]
    Decode(String),
}

impl CodecError {
    pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, Self> {
        rmp_serde::to_vec_named(value)
            .map(Bytes::from)
            .map_err(|error| Self::Encode(error.to_string()))
    }

    pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Self> {
        let mut rest = bytes;
        let value = rmp_serde::from_read(&mut rest).map_err(|e| Self::Decode(e.to_string()))?;
        match rest.len() {
            0 => Ok(value),
            more => Err(Self::Decode(format!("{more} bytes follow it"))),
        }
    }
}

/// Why a subscription could not begin, or a cursor not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// Positions begin with 1.
    #[error("there is no index 0: the log begins with 1")]
    IndexZero,
    /// The log does not reach back so far, and the subscriber takes no
    /// [`Compacted`](crate::Compacted).
    #[error("the log begins at {first}: what was before is compacted")]
    Compacted {
        /// The first entry that is there.
        first: LogIndex,
    },
    /// A subscription uses this cursor already.
    #[error("cursor {0:?} is used by another subscription")]
    CursorInUse(String),
    /// A cursor cannot be kept: its name, or one more of them, is beyond the bounds.
    #[error("cursor {name:?} cannot be kept: {why}")]
    Cursor {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
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
    /// The other nodes have removed this one, for good. Its folder is of no use any more.
    #[error(
        "removed from the cluster{}: to take part again, join it with an empty data folder",
        cluster.map(|cluster| format!(" {cluster}")).unwrap_or_default()
    )]
    Removed {
        /// The cluster, where it is known.
        cluster: Option<ClusterId>,
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
    /// The state machine did not return from a command in time, when the node ended. Its thread may still run; the data
    /// folder is free.
    #[error("the state machine did not return within {} s", .0.as_secs())]
    StateMachineBusy(Duration),
    /// The log did not close in time; its folder may still be in use by this process.
    #[error("the log was not closed within {} s", .0.as_secs())]
    CloseTimedOut(Duration),
    /// The first entry of the log cannot be understood.
    #[error("the first entry of the log, at {0}, does not say which cluster it is of")]
    Birth(LogIndex),
    /// The state machine panicked. It will do so again at the next start, on every node, unless the program
    /// is another one then.
    #[error("the state machine panicked at entry {index}: {message}")]
    StateMachinePanicked {
        /// The command's place in the log.
        index: LogIndex,
        /// What the panic said.
        message: String,
    },
    /// The state machine could not take a snapshot's state, or could not keep its state on its own disk.
    #[error("the state machine, at entry {index}: {message}")]
    StateMachine {
        /// How far it had come.
        index: LogIndex,
        /// What it said.
        message: String,
    },
    /// This node's state is not that of the majority: its state machine is no function of the log, or its memory or its
    /// disk are broken. Restore it from a snapshot of another node: with an empty folder, as a new node.
    #[error(
        "diverged: at entry {index} this node has digest {own:032x}, and a majority has {majority:032x}"
    )]
    Diverged {
        /// Where they were compared.
        index: LogIndex,
        /// This node's digest of all commands and responses so far.
        own: u128,
        /// That of the majority.
        majority: u128,
    },
}

impl From<StorageError> for NodeFailure {
    fn from(error: StorageError) -> Self {
        Self::Storage(error.to_string())
    }
}
