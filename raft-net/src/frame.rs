//! What crosses a connection after its handshake.

use bytes::Bytes;
use raft_core::{LogIndex, Message, NodeId, Term};

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
