//! What a node is told, and what it tells.

use std::time::Duration;

use actix::{Message, Recipient};
use bytes::Bytes;
use raft_core::{LogIndex, Term};

use crate::{NodeFailure, NodeStatus, ProposeError, SubscribeError};

/// Put a command into the log.
///
/// The answer comes when the command is committed: [`Committed`]; or it says that the command is not in the
/// log and never will be, or that this is [unknown](ProposeError::Unknown). Any node
/// takes it; one that does not lead forwards it, and while nobody leads it waits, both until its timeout.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed, ProposeError>")]
pub struct Propose {
    pub(crate) command: Bytes,
    pub(crate) timeout: Option<Duration>,
}

impl Propose {
    /// Proposes `command`, any bytes up to [`Config::command_bytes_max`](crate::Config::command_bytes_max).
    #[must_use]
    pub fn new(command: impl Into<Bytes>) -> Self {
        Self {
            command: command.into(),
            timeout: None,
        }
    }

    /// Waits for the outcome for this long, a day at most, instead of
    /// [`Config::propose_timeout`](crate::Config::propose_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// A command is committed: it is on the disks of a majority, and every node will be handed it at this place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: LogIndex,
    /// The term of the leader that put it there.
    pub term: Term,
    /// What the state machine answered; empty without one.
    pub response: Bytes,
}

/// A committed command, handed to a subscriber: each once for each subscription, in the order of the log,
/// which is the same on every node.
///
/// Indexes grow but are not consecutive: the log holds entries of its own beside commands.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Delivered {
    /// The command's place in the log.
    pub index: LogIndex,
    /// The term in which it got there.
    pub term: Term,
    /// The command.
    pub command: Bytes,
}

/// Several [`Delivered`] at once, for those who want speed.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct DeliveredBatch(pub Vec<Delivered>);

/// Be handed committed commands from a position on.
///
/// A subscriber is sent at most 64 events (one batch) beyond what it has handled: one that is slow falls
/// behind by itself, is served from the log on disk, and holds up nobody. An event is handled when its
/// handler returns; where handlers return futures, a batch is handled when the last event's is done. The subscription ends with the
/// subscriber, or with the node.
#[derive(Message)]
#[rtype(result = "Result<Subscribed, SubscribeError>")]
pub struct Subscribe {
    pub(crate) from: Start,
    pub(crate) to: Subscriber,
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Index(LogIndex),
    Now,
}

/// Who is handed what is committed, one by one or in batches. Any recipient of either turns into one.
pub enum Subscriber {
    /// Takes [`Delivered`].
    Single(Recipient<Delivered>),
    /// Takes [`DeliveredBatch`].
    Batched(Recipient<DeliveredBatch>),
}

impl From<Recipient<Delivered>> for Subscriber {
    fn from(recipient: Recipient<Delivered>) -> Self {
        Self::Single(recipient)
    }
}

impl From<Recipient<DeliveredBatch>> for Subscriber {
    fn from(recipient: Recipient<DeliveredBatch>) -> Self {
        Self::Batched(recipient)
    }
}

impl Subscribe {
    /// Every command since the cluster was born, and then each as it is committed.
    #[must_use]
    pub fn from_start(to: impl Into<Subscriber>) -> Self {
        Self::from_index(LogIndex(1), to)
    }

    /// Every command from `index` on. To go on after a restart, ask for the one behind the last that was
    /// handled.
    #[must_use]
    pub fn from_index(index: LogIndex, to: impl Into<Subscriber>) -> Self {
        Self {
            from: Start::Index(index),
            to: to.into(),
        }
    }

    /// Only what this node has not applied yet; [`Subscribed::next`] says from where. A node that was just
    /// started has applied nothing before a leader tells it how far the log is committed: to it, the history
    /// is still to come.
    #[must_use]
    pub fn from_now(to: impl Into<Subscriber>) -> Self {
        Self {
            from: Start::Now,
            to: to.into(),
        }
    }
}

/// A subscription has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Nothing before this index will be delivered, and everything from it on.
    pub next: LogIndex,
}

/// How does the node see itself and its cluster?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "NodeStatus")]
pub struct GetStatus;

/// End the node in order: no more proposals are taken, those that wait are given a second to be committed,
/// each gets its outcome, the log is closed. The answer comes when the data folder is free again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), NodeFailure>")]
pub struct Shutdown;

/// Wait for the node's end: `Ok` after [`Shutdown`], an error if it failed. A program that depends on its
/// node ends with it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), NodeFailure>")]
pub struct Ended;
