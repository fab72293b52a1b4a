//! What crosses a connection after its handshake.

use bytes::Bytes;
use raft_core::{LogIndex, Message, NodeId, Term};

/// The longest reason of a [`ForwardOutcome::Refused`], in bytes. A longer one is neither encoded nor
/// decoded.
pub const REASON_LEN_MAX: usize = 4 << 10;
/// The longest request of a [`Frame::Manage`], in bytes. A longer one is neither encoded nor decoded.
pub const MANAGE_LEN_MAX: usize = 64 << 10;
/// The longest answer of a [`Frame::Managed`], in bytes: what is to be said of as many members as can be. A longer
/// one is neither encoded nor decoded.
pub const MANAGED_LEN_MAX: usize = 256 << 10;

/// One frame of an established connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of the protocol, from the node that the connection belongs to.
    Raft(Message),
    /// Proposals that the sender, a follower, hands to the receiver, whom it takes for the leader.
    /// At most [`ITEMS_MAX`](crate::ITEMS_MAX).
    Forward(Vec<Forwarded>),
    /// What became of proposals that the receiver had forwarded to the sender. At most
    /// [`ITEMS_MAX`](crate::ITEMS_MAX).
    Answers(Vec<Answer>),
    /// What the sender's state came to: a chain over all commands and their outcomes. Two nodes that
    /// have applied as much have the same.
    Digest {
        /// The last entry that it covers.
        index: LogIndex,
        /// The chain there.
        digest: u128,
        /// The sender, a leader, asks who has applied as much for theirs; else it answers that.
        announced: bool,
    },
    /// A request about the cluster itself, its members or its leadership, that the sender hands to the receiver,
    /// whom it takes for the leader. This crate does not look into it.
    Manage {
        /// The sender's own name for it, which comes back in [`Managed`](Self::Managed).
        request: u64,
        /// The request, of at most [`MANAGE_LEN_MAX`] bytes.
        data: Bytes,
    },
    /// What became of a request that the receiver had handed to the sender.
    Managed {
        /// The receiver's name for it.
        request: u64,
        /// The answer, of at most [`MANAGED_LEN_MAX`] bytes.
        data: Bytes,
    },
}

/// A proposal handed to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The forwarder's own name for it, which comes back in the [`Answer`].
    pub request: u64,
    /// The command.
    pub data: Bytes,
}

/// What became of a [`Forwarded`] proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The forwarder's name for it.
    pub request: u64,
    /// What became of it.
    pub outcome: ForwardOutcome,
}

/// What became of a [`Forwarded`] proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// It is committed and applied.
    Committed {
        /// Where it stands in the log.
        index: LogIndex,
        /// The term of its entry.
        term: Term,
        /// What the leader's state machine answered.
        response: Bytes,
    },
    /// It is committed, and the leader's state machine refused it: it has changed nothing.
    Refused {
        /// Where it stands in the log.
        index: LogIndex,
        /// The term of its entry.
        term: Term,
        /// Why, as UTF-8 text of at most [`REASON_LEN_MAX`] bytes.
        reason: Bytes,
    },
    /// It was not run, or not now: its session says why.
    NotApplied {
        /// Why.
        why: NotApplied,
    },
    /// Certainly not in the log: the receiver does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<NodeId>,
    },
    /// Certainly not in the log: the leader has as much under way as it takes.
    Busy,
    /// Certainly not in the log: the command is too long.
    TooLarge {
        /// The longest command that the leader takes, in bytes.
        max: u64,
    },
    /// Certainly not in the log: another entry took its place.
    Superseded,
    /// It may be in the log, or come to be.
    Unknown,
}

/// Why a proposal that went into the log was not run, or has no outcome to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotApplied {
    /// It was run before, and what the state machine answered is not kept any more.
    AnswerForgotten {
        /// Where the one that was run stands in the log.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
    },
    /// It was cancelled before it was run: it never will be.
    Cancelled {
        /// Where the cancellation stands in the log.
        index: LogIndex,
        /// The term of that entry.
        term: Term,
    },
    /// There is no such session any more: whether it was run before is not known.
    SessionExpired,
    /// Its sequence is further above the lowest outstanding one than the cluster keeps account of.
    BeyondWindow,
    /// Its sequence is below the lowest outstanding one: its proposer has said that it knows the outcome.
    Acknowledged,
    /// There are as many sessions as may be.
    TooManySessions,
    /// Its envelope is not one.
    Malformed,
}
