//! Where proposals of this process come in: checked, counted and gathered for the [`Node`](crate::node).
//!
//! [`RaftActor`](crate::RaftActor) and the node share it, on one thread.
//!
//! Invariants:
//! - What is gathered here holds a permit, so the [`Budget`] bounds it.
//! - Somebody who stands here while the node is alive has been announced to it by a [`Knock`], or stands here with fewer
//!   than it [wants](Door::want) and it looks by itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};
use raft_core::NodeId;

use crate::batch::places;
use crate::ledger::Request;
use crate::message::Naming;
use crate::proposals::{Budget, Permit, Proposal, ReplyTo, Waiter};
use crate::reply::{Answer, Later, later};
use crate::{
    Cancel, Cancellation, CloseSession, Committed, NodeFailure, OpenSession, Propose, ProposeBatch,
    ProposeError, SessionId, UnknownCause, metrics,
};

/// The longest time that a proposal may wait for its outcome.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The bounds on how long a session lives without use.
const SESSION_MIN: Duration = Duration::from_secs(1);
const SESSION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Proposals stand at the door. There is at most one in the node's mailbox.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Knock;

pub(crate) struct Door {
    command_bytes_max: usize,
    timeout: Duration,
    session_timeout: Duration,
    budget: Arc<Budget>,
    gathered: RefCell<Vec<Proposal>>,
    /// When the first of them came, for all of them: the clock costs as much as the rest of coming in.
    since: Cell<Instant>,
    /// How many there were the last time: about as many there will be.
    last_len: Cell<usize>,
    announced: Cell<bool>,
    /// The node is told of those who stand here when there are so many.
    wanted: Cell<usize>,
    /// Too much that is committed is not applied yet.
    lagging: Cell<bool>,
    gate: RefCell<Gate>,
}

/// Whether proposals are taken in.
#[derive(Clone, Debug)]
enum Gate {
    Open,
    ShuttingDown,
    Failed(NodeFailure),
}

/// An answer that is known, or will be given later, and whether the node must be told.
type Entered<R> = (Later<R>, bool);

/// A proposal that comes in as soon as it is known who proposes it, which actix says when the handler has returned.
pub struct Entering(Result<(Rc<Door>, Propose, Permit), ProposeError>);

impl<A: Actor> MessageResponse<A, Propose> for Entering {
    fn handle(
        self,
        _: &mut A::Context,
        caller: Option<OneshotSender<Result<Committed, ProposeError>>>,
    ) {
        match self.0 {
            Ok((door, message, permit)) => {
                let answer = Answer::to(caller, || Err(unknown()));
                door.gather(door.proposal(message, ReplyTo::Propose(answer), permit));
            }
            Err(error) => Answer::to(caller, || Err(unknown())).give(Err(error)),
        }
    }
}

impl Door {
    pub(crate) fn new(config: &crate::Config, id: NodeId) -> Self {
        Self {
            command_bytes_max: config.command_bytes_max,
            timeout: config.propose_timeout,
            session_timeout: config.session_timeout,
            budget: Budget::counted(
                config.proposals_max,
                config.proposals_bytes_max,
                Some(metrics::Proposals::new(id)),
            ),
            gathered: RefCell::default(),
            since: Cell::new(Instant::now()),
            last_len: Cell::new(0),
            announced: Cell::new(false),
            wanted: Cell::new(1),
            lagging: Cell::new(false),
            gate: RefCell::new(Gate::Open),
        }
    }

    /// Takes a proposal in, or refuses it at once.
    pub(crate) fn enter(self: &Rc<Self>, message: Propose) -> (Entering, bool) {
        let permit = self
            .check(&message)
            .and_then(|()| self.permit(message.command.len()));
        match permit {
            Ok(permit) => {
                let door = Rc::clone(self);
                let entering = Entering(Ok((door, message, permit)));
                // It is about to stand here.
                (entering, self.knock(self.standing() + 1))
            }
            Err(error) => {
                self.budget.refused(&error);
                (Entering(Err(error)), false)
            }
        }
    }

    /// Takes in all of them, or those that have a place are none.
    pub(crate) fn enter_batch(
        &self,
        ProposeBatch(messages): ProposeBatch,
    ) -> Entered<Vec<Result<Committed, ProposeError>>> {
        let refuse_all = |error: ProposeError| {
            let refuse = |_| {
                self.budget.refused(&error);
                Err(error.clone())
            };
            (Later::now(messages.iter().map(refuse).collect()), false)
        };
        let bytes = messages.iter().map(|message| message.command.len()).sum();
        if let Err(error) = self.is_refused() {
            return refuse_all(error);
        }
        if !self.budget.has_room(messages.len(), bytes) {
            return refuse_all(ProposeError::Busy);
        }
        let (reply, answer) = later(Vec::new);
        let places = places(messages.len(), answer);
        for (message, place) in messages.into_iter().zip(places) {
            match self
                .check(&message)
                .and_then(|()| self.permit(message.command.len()))
            {
                Ok(permit) => self.gather(self.proposal(message, ReplyTo::Batch(place), permit)),
                Err(error) => {
                    self.budget.refused(&error);
                    place.give(Err(error));
                }
            }
        }
        (reply, self.knock(self.standing()))
    }

    pub(crate) fn enter_open(
        &self,
        message: OpenSession,
    ) -> Entered<Result<SessionId, ProposeError>> {
        let timeout = message.timeout.unwrap_or(self.session_timeout);
        let request = Request::Open {
            timeout_ms: session_ms(timeout),
        };
        self.enter_request(request, ReplyTo::Open, || Err(unknown()))
    }

    pub(crate) fn enter_close(
        &self,
        CloseSession(session): CloseSession,
    ) -> Entered<Result<(), ProposeError>> {
        self.enter_request(
            Request::Close { session },
            ReplyTo::Close,
            || Err(unknown()),
        )
    }

    pub(crate) fn enter_cancel(
        &self,
        Cancel(id): Cancel,
    ) -> Entered<Result<Cancellation, ProposeError>> {
        if id.sequence == 0 {
            return self.refuse(ProposeError::SequenceZero);
        }
        self.enter_request(Request::Cancel { id, low: 0 }, ReplyTo::Cancel, || {
            Err(unknown())
        })
    }

    fn enter_request<R>(
        &self,
        request: Request,
        to: impl FnOnce(crate::reply::Answer<Result<R, ProposeError>>) -> ReplyTo,
        fallback: fn() -> Result<R, ProposeError>,
    ) -> Entered<Result<R, ProposeError>> {
        let permit = match self.permit(request.encoded_len()) {
            Ok(permit) => permit,
            Err(error) => return self.refuse(error),
        };
        let (reply, answer) = later(fallback);
        let waiter = self.waiter(to(answer), None, permit);
        self.gather(Proposal::new(request, waiter));
        (reply, self.knock(self.standing()))
    }

    fn refuse<R>(&self, error: ProposeError) -> Entered<Result<R, ProposeError>> {
        self.budget.refused(&error);
        (Later::now(Err(error)), false)
    }

    /// A proposal of the node itself, past the bounds.
    pub(crate) fn open_for_node(&self, to: ReplyTo) -> Option<Proposal> {
        let request = Request::Open {
            timeout_ms: session_ms(self.session_timeout),
        };
        let permit = Budget::new(1, usize::MAX).take(0)?;
        let waiter = self.waiter_since(Instant::now(), to, None, permit);
        Some(Proposal::new(request, waiter))
    }

    fn check(&self, message: &Propose) -> Result<(), ProposeError> {
        let (len, max) = (message.command.len(), self.command_bytes_max);
        if len > max {
            return Err(ProposeError::TooLarge { len, max });
        }
        match message.naming {
            Naming::Client { id, .. } if id.sequence == 0 => Err(ProposeError::SequenceZero),
            _ => Ok(()),
        }
    }

    fn is_refused(&self) -> Result<(), ProposeError> {
        match &*self.gate.borrow() {
            Gate::ShuttingDown => Err(ProposeError::ShuttingDown),
            Gate::Failed(failure) => Err(ProposeError::Failed(failure.clone())),
            Gate::Open if self.lagging.get() => Err(ProposeError::Busy),
            Gate::Open => Ok(()),
        }
    }

    fn permit(&self, bytes: usize) -> Result<Permit, ProposeError> {
        self.is_refused()?;
        self.budget.take(bytes).ok_or(ProposeError::Busy)
    }

    /// Somebody who comes in, and is gathered next.
    fn waiter(&self, to: ReplyTo, timeout: Option<Duration>, permit: Permit) -> Waiter {
        if self.gathered.borrow().is_empty() {
            self.since.set(Instant::now());
        }
        self.waiter_since(self.since.get(), to, timeout, permit)
    }

    fn waiter_since(
        &self,
        since: Instant,
        to: ReplyTo,
        timeout: Option<Duration>,
        permit: Permit,
    ) -> Waiter {
        let deadline = since + timeout.unwrap_or(self.timeout).min(TIMEOUT_MAX);
        Waiter::new(to, since, deadline, permit)
    }

    fn proposal(&self, message: Propose, to: ReplyTo, permit: Permit) -> Proposal {
        let Propose {
            command,
            timeout,
            naming,
        } = message;
        let request = match naming {
            Naming::Client { id, done_below } => Request::InSession {
                id,
                low: done_below,
                command,
            },
            Naming::Node | Naming::Nothing => Request::Plain { command },
        };
        let mut proposal = Proposal::new(request, self.waiter(to, timeout, permit));
        proposal.nameless = naming == Naming::Node;
        proposal
    }

    fn gather(&self, proposal: Proposal) {
        let mut gathered = self.gathered.borrow_mut();
        if gathered.capacity() == 0 {
            gathered.reserve(self.last_len.get().max(4));
        }
        gathered.push(proposal);
    }

    /// Says whether the node must be told that so many stand here.
    fn knock(&self, standing: usize) -> bool {
        standing >= self.wanted.get() && !self.announced.replace(true)
    }

    /// The node is told of those who stand here only when there are so many, until it takes them.
    pub(crate) fn want(&self, count: usize) {
        self.wanted.set(count);
    }

    /// How many stand here.
    pub(crate) fn standing(&self) -> usize {
        self.gathered.borrow().len()
    }

    /// Takes proposals in again, after it was shut.
    pub(crate) fn reopen(&self) {
        let mut gate = self.gate.borrow_mut();
        if matches!(*gate, Gate::ShuttingDown) {
            *gate = Gate::Open;
        }
    }

    /// The node has heard the knock.
    pub(crate) fn answered(&self) {
        self.announced.set(false);
    }

    /// Takes out all that stands here.
    pub(crate) fn take(&self) -> Vec<Proposal> {
        self.wanted.set(1);
        let gathered = self.gathered.take();
        if !gathered.is_empty() {
            self.last_len.set(gathered.len());
        }
        gathered
    }

    /// Proposals of this process that wait for their outcome, wherever they are.
    pub(crate) fn waiting_count(&self) -> usize {
        self.budget.count()
    }

    /// The bytes of their commands.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// Whether too much is committed and not applied.
    pub(crate) fn set_lagging(&self, lagging: bool) {
        self.lagging.set(lagging);
    }

    /// Whether proposals are taken in: the node neither ends nor has failed.
    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.gate.borrow(), Gate::Open)
    }

    /// Takes nothing in any more: the node is being shut down.
    pub(crate) fn shut(&self) {
        let mut gate = self.gate.borrow_mut();
        if matches!(*gate, Gate::Open) {
            *gate = Gate::ShuttingDown;
        }
    }

    /// Takes nothing in any more: the node has failed. The first failure counts.
    pub(crate) fn fail(&self, failure: NodeFailure) {
        let mut gate = self.gate.borrow_mut();
        if !matches!(*gate, Gate::Failed(_)) {
            *gate = Gate::Failed(failure);
        }
    }

    /// Why the node failed, if it has.
    pub(crate) fn failure(&self) -> Option<NodeFailure> {
        match &*self.gate.borrow() {
            Gate::Failed(failure) => Some(failure.clone()),
            Gate::Open | Gate::ShuttingDown => None,
        }
    }
}

fn session_ms(timeout: Duration) -> u64 {
    let timeout = timeout.clamp(SESSION_MIN, SESSION_MAX);
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

/// What somebody is told whom nobody answered.
fn unknown() -> ProposeError {
    ProposeError::Unknown {
        cause: UnknownCause::NodeEnded,
        id: None,
    }
}
