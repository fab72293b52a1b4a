//! Proposals that wait for their outcome, and the bound on them.
//!
//! Invariants:
//! - Every proposal holds a [`Permit`] of a [`Budget`] from the moment it is taken in until it is answered,
//!   wherever it is: no queue of proposals has another bound, and none needs one. One too many is `Busy`.
//! - Every proposal has a deadline, and whoever holds it answers at that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use raft_core::NodeId;
use raft_net::ForwardOutcome;

use crate::reply::Answer;
use crate::{Committed, ProposeError, UnknownCause};

/// The outcome of a proposal.
pub(crate) type Outcome = Result<Committed, ProposeError>;

/// How many proposals, and how many bytes of them, may wait.
pub(crate) struct Budget {
    count: AtomicUsize,
    bytes: AtomicUsize,
    count_max: usize,
    bytes_max: usize,
}

/// A place in a [`Budget`], free again when it is dropped.
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            count_max,
            bytes_max,
        })
    }

    /// Proposals that wait.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// A place for a command of `bytes`, if there is one. Only one thread asks; any may give back.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let count = self.count.load(Ordering::Acquire);
        let waiting_bytes = self.bytes.load(Ordering::Acquire);
        if count >= self.count_max || waiting_bytes + bytes > self.bytes_max {
            return None;
        }
        self.count.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Some(Permit {
            budget: Arc::clone(self),
            bytes,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.count.fetch_sub(1, Ordering::AcqRel);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A command on its way into the log, and who waits for it.
pub(crate) struct Proposal {
    pub(crate) command: Bytes,
    pub(crate) waiter: Waiter,
}

/// Who waits for a command's outcome.
pub(crate) struct Waiter {
    pub(crate) to: ReplyTo,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    _permit: Permit,
}

pub(crate) enum ReplyTo {
    /// A caller in this process.
    Local(Answer<Outcome>),
    /// A node that forwarded the command, and its name for it.
    Peer { node: NodeId, request: u64 },
}

impl Waiter {
    pub(crate) fn new(to: ReplyTo, since: Instant, deadline: Instant, permit: Permit) -> Self {
        Self {
            to,
            since,
            deadline,
            _permit: permit,
        }
    }

    /// Answers a caller of this process. What a peer is to be told is given back for it.
    pub(crate) fn answer(self, outcome: Outcome) -> Option<(NodeId, raft_net::Answer)> {
        match self.to {
            ReplyTo::Local(answer) => {
                answer.give(outcome);
                None
            }
            ReplyTo::Peer { node, request } => Some((
                node,
                raft_net::Answer {
                    request,
                    outcome: for_peer(outcome),
                },
            )),
        }
    }
}

/// What the node that forwarded a command is told.
fn for_peer(outcome: Outcome) -> ForwardOutcome {
    match outcome {
        Ok(Committed {
            index,
            term,
            response,
        }) => ForwardOutcome::Committed {
            index,
            term,
            response,
        },
        Err(ProposeError::TooLarge { max, .. }) => ForwardOutcome::TooLarge { max: max as u64 },
        Err(ProposeError::Busy) => ForwardOutcome::Busy,
        Err(ProposeError::Superseded) => ForwardOutcome::Superseded,
        Err(ProposeError::Unknown(_)) => ForwardOutcome::Unknown,
        Err(
            ProposeError::NoLeader { .. } | ProposeError::ShuttingDown | ProposeError::Failed(_),
        ) => ForwardOutcome::NotLeader { leader: None },
    }
}

/// What the caller is told of a leader's answer; nothing if the leader certainly did not take the
/// command, which then may be sent again.
pub(crate) fn from_peer(leader: NodeId, len: usize, outcome: ForwardOutcome) -> Option<Outcome> {
    Some(match outcome {
        ForwardOutcome::Committed {
            index,
            term,
            response,
        } => Ok(Committed {
            index,
            term,
            response,
        }),
        ForwardOutcome::NotLeader { .. } => return None,
        ForwardOutcome::Busy => Err(ProposeError::Busy),
        ForwardOutcome::TooLarge { max } => Err(ProposeError::TooLarge {
            len,
            max: usize::try_from(max).unwrap_or(usize::MAX),
        }),
        ForwardOutcome::Superseded => Err(ProposeError::Superseded),
        // A leader of this version says neither of the last two.
        ForwardOutcome::Unknown
        | ForwardOutcome::Refused { .. }
        | ForwardOutcome::NotApplied { .. } => {
            Err(ProposeError::Unknown(UnknownCause::LeaderUnsure(leader)))
        }
    })
}
