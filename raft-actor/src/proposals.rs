//! Proposals that wait for their outcome, and the bound on them.
//!
//! Invariants:
//! - Every proposal holds a [`Permit`] of a [`Budget`] from the moment it is taken in until it is answered,
//!   wherever it is: no queue of proposals has another bound, and none needs one. One too many is `Busy`.
//! - Every proposal has a deadline, and whoever holds it answers at that time.
//! - A proposal without a name is sent to a log at most once. One with a name may be sent again and again; it is
//!   called not applied only if no copy of it was ever sent, or the ledger says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Message, Recipient};
use bytes::Bytes;
use raft_core::{LogId, NodeId};
use raft_net::{ForwardOutcome, NotApplied};

use crate::batch::BatchPlace;
use crate::ledger::{Request, Settlement};
use crate::own_session::Ticket;
use crate::reply::Answer;
use crate::{
    ApplyError, Cancellation, Committed, ProposalId, ProposeError, SessionId, UnknownCause, metrics,
};

/// The outcome of a proposal.
pub(crate) type Outcome = Result<Settled, ProposeError>;

/// One look at the clock, for many who are answered together.
pub(crate) struct OneLook {
    now: Instant,
    last: (Instant, Duration),
}

impl OneLook {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            last: (now, Duration::ZERO),
        }
    }

    /// How long ago `since` was. Those who came together ask one after the other.
    fn since(&mut self, since: Instant) -> Duration {
        if self.last.0 != since {
            self.last = (since, self.now.saturating_duration_since(since));
        }
        self.last.1
    }
}

/// What came of an entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The entry. A copy of what was applied before has an outcome that names another one.
    pub(crate) at: LogId,
    pub(crate) settlement: Settlement,
}

/// How many proposals, and how many bytes of them, may wait.
pub(crate) struct Budget {
    count: AtomicUsize,
    bytes: AtomicUsize,
    count_max: usize,
    bytes_max: usize,
    /// Where the outcomes of proposals of this process are counted.
    metrics: Option<metrics::Proposals>,
}

/// A place in a [`Budget`], free again when it is dropped.
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Arc<Self> {
        Self::counted(count_max, bytes_max, None)
    }

    /// One whose outcomes are counted.
    pub(crate) fn counted(
        count_max: usize,
        bytes_max: usize,
        metrics: Option<metrics::Proposals>,
    ) -> Arc<Self> {
        Arc::new(Self {
            metrics,
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

    /// The bytes of their commands.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// A proposal is answered before it has a place.
    pub(crate) fn refused(&self, error: &ProposeError) {
        if let Some(metrics) = &self.metrics {
            metrics.refused(error);
        }
    }

    /// Whether so many more, of so many bytes together, have a place.
    pub(crate) fn has_room(&self, count: usize, bytes: usize) -> bool {
        self.count.load(Ordering::Acquire).saturating_add(count) <= self.count_max
            && self.bytes.load(Ordering::Acquire).saturating_add(bytes) <= self.bytes_max
    }

    /// A place for a command of `bytes`, if there is one. Only one thread asks; any may give back.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        if !self.has_room(1, bytes) {
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

/// Something on its way into the log, and who waits for it.
pub(crate) struct Proposal {
    pub(crate) request: Request,
    /// Whether the node's own session is to name it before it goes anywhere.
    pub(crate) nameless: bool,
    /// Its place among the outstanding ones of the node's own session.
    pub(crate) ticket: Option<Ticket>,
    /// How many copies of it have gone to some log, and may be there.
    pub(crate) copies: u32,
    pub(crate) waiter: Waiter,
}

/// Who waits for an outcome.
pub(crate) struct Waiter {
    pub(crate) to: ReplyTo,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    permit: Permit,
}

pub(crate) enum ReplyTo {
    /// Callers in this process, by what they asked.
    Propose(Answer<Result<Committed, ProposeError>>),
    Batch(BatchPlace),
    Open(Answer<Result<SessionId, ProposeError>>),
    Close(Answer<Result<(), ProposeError>>),
    Cancel(Answer<Result<Cancellation, ProposeError>>),
    /// The node itself, which opens a session of its own.
    Node(Recipient<OwnSessionOpened>),
    /// A node that forwarded it, and its name for it.
    Peer {
        node: NodeId,
        request: u64,
    },
}

/// What came of opening the node's own session.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct OwnSessionOpened(pub(crate) Result<SessionId, ProposeError>);

impl Waiter {
    pub(crate) fn new(to: ReplyTo, since: Instant, deadline: Instant, permit: Permit) -> Self {
        Self {
            to,
            since,
            deadline,
            permit,
        }
    }
}

impl Proposal {
    pub(crate) fn new(request: Request, waiter: Waiter) -> Self {
        Self {
            request,
            nameless: false,
            ticket: None,
            copies: 0,
            waiter,
        }
    }

    /// What it is called, so that it may be sent again.
    pub(crate) fn id(&self) -> Option<ProposalId> {
        match &self.request {
            Request::InSession { id, .. } => Some(*id),
            Request::Plain { .. } | Request::Open { .. } | Request::Close { .. } => None,
            Request::Cancel { id, .. } => Some(*id),
        }
    }

    /// Whether a second copy of it would do no harm. A session that was opened twice expires once more.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        !self.is_of_peer() && (self.copies == 0 || !matches!(self.request, Request::Plain { .. }))
    }

    pub(crate) fn is_of_peer(&self) -> bool {
        matches!(self.waiter.to, ReplyTo::Peer { .. })
    }

    /// What it counts for in limits of bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.request.encoded_len()
    }

    pub(crate) fn unknown(&self, cause: UnknownCause) -> ProposeError {
        let id = self.id();
        ProposeError::Unknown { cause, id }
    }

    /// Answers a caller of this process. What a peer is to be told is given back for it.
    pub(crate) fn answer(self, outcome: Outcome) -> Option<(NodeId, raft_net::Answer)> {
        self.answer_at(outcome, &mut OneLook::new())
    }

    /// The same for many, at one moment.
    pub(crate) fn answer_at(
        self,
        mut outcome: Outcome,
        clock: &mut OneLook,
    ) -> Option<(NodeId, raft_net::Answer)> {
        let id = self.id();
        let did_nothing = |outcome: &Outcome| match outcome {
            Ok(settled) => matches!(
                settled.settlement,
                Settlement::BeyondWindow { .. } | Settlement::Malformed
            ),
            Err(error) => matches!(error, ProposeError::TooLarge { .. }),
        };
        if self.copies > 1 && did_nothing(&outcome) {
            // This copy did; another one may still come to be applied.
            outcome = Err(self.unknown(UnknownCause::OtherCopy));
        }
        if let Some(metrics) = &self.waiter.permit.budget.metrics {
            metrics.answered(&outcome, clock.since(self.waiter.since));
        }
        if let Some(ticket) = self.ticket
            && !matches!(outcome, Err(ProposeError::Unknown { .. }))
        {
            ticket.done();
        }
        let Waiter { to, permit, .. } = self.waiter;
        // Who is answered may propose again at once, and must find the place free, and a name.
        drop(permit);
        match to {
            ReplyTo::Propose(answer) => answer.give(outcome.and_then(|s| committed(s, id))),
            ReplyTo::Batch(place) => place.give(outcome.and_then(|s| committed(s, id))),
            ReplyTo::Open(answer) => answer.give(opened(outcome)),
            ReplyTo::Close(answer) => answer.give(closed(outcome, &self.request)),
            ReplyTo::Cancel(answer) => answer.give(cancelled(outcome, id)),
            ReplyTo::Node(node) => node.do_send(OwnSessionOpened(opened(outcome))),
            ReplyTo::Peer { node, request } => {
                let outcome = for_peer(outcome);
                return Some((node, raft_net::Answer { request, outcome }));
            }
        }
        None
    }
}

/// What who proposed a command is told.
pub(crate) fn committed(
    settled: Settled,
    id: Option<ProposalId>,
) -> Result<Committed, ProposeError> {
    let id = id.unwrap_or(ProposalId {
        session: SessionId(0),
        sequence: 0,
    });
    Err(match settled.settlement {
        Settlement::Applied {
            at: LogId { term, index },
            answer,
        } => match answer {
            Ok(response) => {
                return Ok(Committed {
                    index,
                    term,
                    response,
                });
            }
            Err(reason) => ProposeError::Refused {
                index,
                term,
                reason: ApplyError::new(&*reason),
            },
        },
        Settlement::AnswerForgotten {
            at: LogId { term, index },
        } => ProposeError::ResponseForgotten { index, term },
        Settlement::Cancelled { .. } => ProposeError::Cancelled,
        Settlement::SessionExpired => ProposeError::SessionExpired(id.session),
        Settlement::BeyondWindow { .. } => ProposeError::BeyondWindow(id),
        Settlement::Acknowledged => ProposeError::Done(id),
        Settlement::TooManySessions => ProposeError::TooManySessions,
        Settlement::Malformed | Settlement::Opened { .. } | Settlement::Closed => {
            ProposeError::Malformed
        }
    })
}

fn opened(outcome: Outcome) -> Result<SessionId, ProposeError> {
    let settled = outcome?;
    match settled.settlement {
        Settlement::Opened { session } => Ok(session),
        _ => Err(refusal(settled, None)),
    }
}

fn closed(outcome: Outcome, request: &Request) -> Result<(), ProposeError> {
    let settled = outcome?;
    match (&settled.settlement, request) {
        (Settlement::Closed, _) => Ok(()),
        (Settlement::SessionExpired, Request::Close { session }) => {
            Err(ProposeError::SessionExpired(*session))
        }
        _ => Err(refusal(settled, None)),
    }
}

fn cancelled(outcome: Outcome, id: Option<ProposalId>) -> Result<Cancellation, ProposeError> {
    match committed(outcome?, id) {
        Ok(committed) => Ok(Cancellation::Applied(committed)),
        Err(ProposeError::Cancelled) => Ok(Cancellation::Cancelled),
        Err(error) => Err(error),
    }
}

/// The error that an outcome stands for which cannot be a success.
fn refusal(settled: Settled, id: Option<ProposalId>) -> ProposeError {
    committed(settled, id)
        .err()
        .unwrap_or(ProposeError::Malformed)
}

/// What the node that forwarded a command is told.
fn for_peer(outcome: Outcome) -> ForwardOutcome {
    let not_applied = |why| ForwardOutcome::NotApplied { why };
    match outcome {
        Ok(Settled { at, settlement }) => match settlement {
            Settlement::Applied {
                at: LogId { term, index },
                answer,
            } => match answer {
                Ok(response) => ForwardOutcome::Committed {
                    index,
                    term,
                    response,
                },
                Err(reason) => ForwardOutcome::Refused {
                    index,
                    term,
                    reason: Bytes::copy_from_slice(reason.as_bytes()),
                },
            },
            Settlement::Opened { .. } | Settlement::Closed => ForwardOutcome::Committed {
                index: at.index,
                term: at.term,
                response: Bytes::new(),
            },
            Settlement::AnswerForgotten {
                at: LogId { term, index },
            } => not_applied(NotApplied::AnswerForgotten { index, term }),
            Settlement::Cancelled {
                at: LogId { term, index },
            } => not_applied(NotApplied::Cancelled { index, term }),
            Settlement::SessionExpired => not_applied(NotApplied::SessionExpired),
            Settlement::BeyondWindow { .. } => not_applied(NotApplied::BeyondWindow),
            Settlement::Acknowledged => not_applied(NotApplied::Acknowledged),
            Settlement::TooManySessions => not_applied(NotApplied::TooManySessions),
            Settlement::Malformed => not_applied(NotApplied::Malformed),
        },
        Err(ProposeError::TooLarge { max, .. }) => ForwardOutcome::TooLarge { max: max as u64 },
        Err(ProposeError::Busy) => ForwardOutcome::Busy,
        Err(ProposeError::Superseded) => ForwardOutcome::Superseded,
        Err(
            ProposeError::NoLeader { .. } | ProposeError::ShuttingDown | ProposeError::Failed(_),
        ) => ForwardOutcome::NotLeader { leader: None },
        Err(_) => ForwardOutcome::Unknown,
    }
}

/// What a leader's answer means.
pub(crate) enum FromPeer {
    /// It is the outcome of this copy, and of the proposal.
    Outcome(Outcome),
    /// The leader certainly did not put this copy into its log.
    NotTaken,
    /// This copy is certainly not in the log, and never will be.
    Superseded,
    /// As [`Self::NotTaken`], since too much waits there.
    Busy,
    /// The leader does not know.
    Unsure,
}

/// Reads a leader's answer to `request`.
pub(crate) fn from_peer(request: &Request, outcome: ForwardOutcome) -> FromPeer {
    let settled = |at, settlement| FromPeer::Outcome(Ok(Settled { at, settlement }));
    match outcome {
        ForwardOutcome::Committed {
            index,
            term,
            response,
        } => {
            let settlement = match request {
                Request::Open { .. } => Settlement::Opened {
                    session: SessionId(index.0),
                },
                Request::Close { .. } => Settlement::Closed,
                _ => Settlement::Applied {
                    at: LogId::new(term, index),
                    answer: Ok(response),
                },
            };
            settled(LogId::new(term, index), settlement)
        }
        ForwardOutcome::Refused {
            index,
            term,
            reason,
        } => {
            let answer = Err(String::from_utf8_lossy(&reason).into());
            let at = LogId::new(term, index);
            settled(at, Settlement::Applied { at, answer })
        }
        ForwardOutcome::NotApplied { why } => {
            let settlement = match why {
                NotApplied::AnswerForgotten { index, term } => Settlement::AnswerForgotten {
                    at: LogId::new(term, index),
                },
                NotApplied::Cancelled { index, term } => Settlement::Cancelled {
                    at: LogId::new(term, index),
                },
                NotApplied::SessionExpired => Settlement::SessionExpired,
                NotApplied::BeyondWindow => Settlement::BeyondWindow { low: 0 },
                NotApplied::Acknowledged => Settlement::Acknowledged,
                NotApplied::TooManySessions => Settlement::TooManySessions,
                NotApplied::Malformed => Settlement::Malformed,
            };
            settled(LogId::ZERO, settlement)
        }
        ForwardOutcome::NotLeader { .. } => FromPeer::NotTaken,
        ForwardOutcome::Busy => FromPeer::Busy,
        ForwardOutcome::TooLarge { max } => FromPeer::Outcome(Err(ProposeError::TooLarge {
            len: request.encoded_len(),
            max: usize::try_from(max).unwrap_or(usize::MAX),
        })),
        ForwardOutcome::Superseded => FromPeer::Superseded,
        ForwardOutcome::Unknown => FromPeer::Unsure,
    }
}
