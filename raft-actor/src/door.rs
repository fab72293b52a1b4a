//! Where proposals of this process come in: checked, counted and gathered for the [`Node`](crate::node).
//!
//! [`RaftActor`](crate::RaftActor) and the node share it, on one thread.
//!
//! Invariants:
//! - What is gathered here holds a permit, so the [`Budget`] bounds it.
//! - Somebody who stands here while the node is alive has been announced to it by a [`Knock`].

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Message;

use crate::proposals::{Budget, Outcome, Proposal, ReplyTo, Waiter};
use crate::reply::{Later, later};
use crate::{NodeFailure, Propose, ProposeError, UnknownCause, metrics};

/// The longest time that a proposal may wait for its outcome.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Proposals stand at the door. There is at most one in the node's mailbox.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Knock;

pub(crate) struct Door {
    command_bytes_max: usize,
    timeout: Duration,
    budget: Arc<Budget>,
    gathered: RefCell<Vec<Proposal>>,
    announced: Cell<bool>,
    gate: RefCell<Gate>,
}

/// Whether proposals are taken in.
#[derive(Clone, Debug)]
enum Gate {
    Open,
    ShuttingDown,
    Failed(NodeFailure),
}

impl Door {
    pub(crate) fn new(config: &crate::Config) -> Self {
        Self {
            command_bytes_max: config.command_bytes_max,
            timeout: config.propose_timeout,
            budget: Budget::counted(
                config.proposals_max,
                config.proposals_bytes_max,
                Some(metrics::Proposals::new(config.id)),
            ),
            gathered: RefCell::default(),
            announced: Cell::new(false),
            gate: RefCell::new(Gate::Open),
        }
    }

    /// Takes a proposal in, or refuses it at once. Says whether the node must be told.
    pub(crate) fn enter(&self, message: Propose) -> (Later<Outcome>, bool) {
        let Propose { command, timeout } = message;
        let refuse = |error| {
            self.budget.refused(&error);
            (Later::now(Err(error)), false)
        };
        let (len, max) = (command.len(), self.command_bytes_max);
        if len > max {
            return refuse(ProposeError::TooLarge { len, max });
        }
        match &*self.gate.borrow() {
            Gate::Open => {}
            Gate::ShuttingDown => return refuse(ProposeError::ShuttingDown),
            Gate::Failed(failure) => return refuse(ProposeError::Failed(failure.clone())),
        }
        let Some(permit) = self.budget.take(len) else {
            return refuse(ProposeError::Busy);
        };
        let (reply, answer) = later(|| Err(ProposeError::Unknown(UnknownCause::NodeEnded)));
        let since = Instant::now();
        let deadline = since + timeout.unwrap_or(self.timeout).min(TIMEOUT_MAX);
        let waiter = Waiter::new(ReplyTo::Local(answer), since, deadline, permit);
        self.gathered
            .borrow_mut()
            .push(Proposal { command, waiter });
        (reply, !self.announced.replace(true))
    }

    /// The node has heard the knock.
    pub(crate) fn answered(&self) {
        self.announced.set(false);
    }

    /// Takes out all that stands here.
    pub(crate) fn take(&self) -> Vec<Proposal> {
        self.gathered.take()
    }

    /// Proposals of this process that wait for their outcome, wherever they are.
    pub(crate) fn waiting_count(&self) -> usize {
        self.budget.count()
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
