//! What the caller tells the core, and what the core asks of its caller.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    DurableMessage, Entry, Envelope, LogIndex, NodeId, OpenMessage, RequestId, Role, Term,
    Violation, WriteId,
};

/// One thing that happened, for [`Raft::step`](crate::Raft::step).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// One tick of the caller's monotonic clock has passed. After a pause the caller hands over the
    /// messages that wait before it hands over the ticks that passed.
    Tick,
    /// A message came in from the node that it names as its sender.
    Received(Envelope),
    /// Commands for the log, all of them or none. Answered at once by [`Effect::Appended`] or
    /// [`Effect::Rejected`].
    Propose(Vec<Bytes>),
    /// All writes up to and including this one are durable.
    Persisted {
        /// The last write that is.
        through: WriteId,
    },
    /// The answer to [`Effect::Read`].
    EntriesRead {
        /// Which read this answers.
        request: RequestId,
        /// The entries from the position that was asked for on, without a gap, at least one; or why
        /// there are none, which ends a node that still waits for them. A node that has lost its office
        /// since does not: what it asked for may have been cut off, and an error is then no fault.
        result: Result<Vec<Entry>, ReadFailure>,
    },
    /// The connection to a node broke: what was sent last may be lost.
    PeerUnreachable(NodeId),
    /// Begin an election now, without waiting for the timer. For operators and tests.
    Campaign,
}

/// Why a read of the log failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the log: {0}")]
pub struct ReadFailure(pub String);

/// One thing that the caller does for the core, in the order in which it got them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable, then answer [`Input::Persisted`].
    Persist(Persist),
    /// Send this now.
    Send {
        /// The receiver.
        to: NodeId,
        /// What it is told.
        message: OpenMessage,
    },
    /// The log is committed further, and durable here that far. Apply and deliver it.
    Commit(Commit),
    /// Read entries from the log on disk, then answer [`Input::EntriesRead`].
    Read {
        /// Names this read.
        request: RequestId,
        /// The first entry to read.
        from: LogIndex,
        /// The last one that is wanted.
        through: LogIndex,
        /// Stop after the entry with which the sum of [`Entry::size_bytes`] reaches this; at least one.
        bytes_max: usize,
    },
    /// What [`Input::Propose`] brought is in this leader's log, from `first` on. It is not committed
    /// yet: it will be once an entry of the same term at its index is, and never if another's is.
    Appended {
        /// The first one's position; the others follow it.
        first: LogIndex,
        /// Their term.
        term: Term,
        /// How many they are.
        count: usize,
    },
    /// What [`Input::Propose`] brought is not in the log, and never will be.
    Rejected(Rejection),
    /// Role, term or leader are others now.
    RoleChanged {
        /// What this node is.
        role: Role,
        /// The current term.
        term: Term,
        /// The leader, where it is known.
        leader: Option<NodeId>,
    },
    /// A message made no sense and was dropped. The caller counts and logs it.
    Ignored {
        /// Who sent it.
        from: NodeId,
        /// What was wrong with it.
        reason: &'static str,
    },
    /// This node must end at once: going on could do harm. The core takes no further input.
    Halt(Violation),
}

/// Why a proposal was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Only a leader takes proposals.
    #[error("this node is not the leader")]
    NotLeader {
        /// Who is, where it is known.
        leader: Option<NodeId>,
    },
    /// Too much is uncommitted already ([`Config::uncommitted_bytes_max`](crate::Config)).
    #[error("too much is uncommitted")]
    Busy,
}

/// One atomic, synced write.
///
/// Writes are first in, first out, and several may be under way. A storage that takes several as one
/// batch answers with the last. Within one write the truncation comes before the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Its name.
    pub write: WriteId,
    /// The new term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// Cut the log: this entry and all behind it go.
    pub truncate_from: Option<LogIndex>,
    /// Entries that follow what then is the last one.
    pub append: Arc<[Entry]>,
    /// What may be said when, and only when, all of the above is durable.
    pub then: Withheld,
}

/// Messages that wait for a write, each with its receiver.
///
/// The only way to them is [`release`](Self::release), and the only place that may call it is a
/// storage, behind the sync that makes them true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withheld(Vec<(NodeId, DurableMessage)>);

impl Withheld {
    pub(crate) fn new(messages: Vec<(NodeId, DurableMessage)>) -> Self {
        Self(messages)
    }

    /// Hands the messages out. For storages only, after the sync.
    #[must_use]
    pub fn release(self) -> Vec<(NodeId, DurableMessage)> {
        self.0
    }

    /// Forgets the messages that claim entries from `truncated` on, which a later write of the same
    /// batch cuts off.
    pub fn drop_claims_from(&mut self, truncated: LogIndex) {
        self.0.retain(|(_, message)| {
            message
                .claims_log_through()
                .is_none_or(|last| last < truncated)
        });
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What waits, for traces and golden scripts. Nothing of it may be sent.
    #[must_use]
    pub fn peek(&self) -> &[(NodeId, DurableMessage)] {
        &self.0
    }
}

/// What every node must remember across restarts beside its log (paper, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term that this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
}

/// The log is committed, and durable on this node, up to `through`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The last such entry.
    pub through: LogIndex,
    /// The entries behind the previous `Commit`, up to `through`, as far as they are in memory: all of
    /// them, or a run that ends at `through`, or none. The rest is read from the log.
    pub entries: Arc<[Entry]>,
}
