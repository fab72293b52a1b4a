//! Proposals and sessions: what is put into the log, and what comes of it.

use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use raft_core::{LogIndex, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{CodecError, ProposalId, ProposeError, SessionId};

/// Put a command into the log.
///
/// The answer comes when the command is applied: [`Committed`]; or it says that the command has no effect and
/// never will have any, or that this is [unknown](ProposeError::Unknown). Any node takes it; one that does not
/// lead forwards it, and while nobody leads it waits.
///
/// Until its timeout the node tries by itself: it sends the command again when the leader changes, or does not
/// answer. That is safe, since each proposal has a name in a session, and is applied once however often it arrives. The
/// session is the node's own; a client whose retries must be safe beyond the life of the node's process opens one
/// ([`OpenSession`]) and names its proposals itself ([`with_id`](Self::with_id)).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Committed, ProposeError>")]
pub struct Propose {
    pub(crate) command: Bytes,
    pub(crate) timeout: Option<Duration>,
    pub(crate) naming: Naming,
}

/// How a proposal gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// From the node's session.
    Node,
    /// It gets none.
    Nothing,
    /// The client names it, and has no outstanding proposal below `done_below`.
    Client { id: ProposalId, done_below: u64 },
}

impl Propose {
    /// Proposes `command`, any bytes up to [`Config::command_bytes_max`](crate::Config::command_bytes_max).
    #[must_use]
    pub fn new(command: impl Into<Bytes>) -> Self {
        Self {
            command: command.into(),
            timeout: None,
            naming: Naming::Node,
        }
    }

    /// Proposes a command of a [`StateMachine`](crate::StateMachine)'s type.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn of<C: Serialize>(command: &C) -> Result<Self, CodecError> {
        Ok(Self::new(CodecError::encode(command)?))
    }

    /// Waits for the outcome for this long, a day at most, instead of
    /// [`Config::propose_timeout`](crate::Config::propose_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Names the proposal, in a session that the client has opened. However often the same name is proposed,
    /// and at whichever nodes, the first command of that name that reaches the log is applied, and the rest is
    /// answered as that was. A client that keeps the name before it proposes can find out across any crash what
    /// became of it.
    ///
    /// Sequences begin with 1 and need not be proposed in their order. A session remembers 65,536 of them from the
    /// lowest on that is not [done](Self::done_below), and takes none beyond.
    #[must_use]
    pub fn with_id(mut self, id: ProposalId) -> Self {
        self.naming = Naming::Client { id, done_below: 0 };
        self
    }

    /// Tells that the client knows the outcomes of all sequences below this one, and will never ask for them
    /// again: the cluster forgets them. Only with [`with_id`](Self::with_id), and behind it.
    #[must_use]
    pub fn done_below(mut self, sequence: u64) -> Self {
        if let Naming::Client { done_below, .. } = &mut self.naming {
            *done_below = sequence;
        }
        self
    }

    /// Proposes it without a name. It is sent once: should the connection to the leader break, or the leader
    /// change, the outcome is [unknown](ProposeError::Unknown) at once and for ever.
    #[must_use]
    pub fn without_session(mut self) -> Self {
        self.naming = Naming::Nothing;
        self
    }
}

/// Put several commands into the log, in this order if the node's leader does not change meanwhile, each with an
/// outcome of its own. All or none of them find a place in the node's queue.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Vec<Result<Committed, ProposeError>>")]
pub struct ProposeBatch(pub Vec<Propose>);

/// A command is committed and applied: it is on the disks of a majority, and every node will be handed it at this
/// place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub index: LogIndex,
    /// The term of the leader that put it there.
    pub term: Term,
    /// What the state machine answered; empty without one.
    pub response: Bytes,
}

impl Committed {
    /// The response of a [`StateMachine`](crate::StateMachine), in its own type.
    ///
    /// # Errors
    /// It is of another type.
    pub fn response_as<R: DeserializeOwned>(&self) -> Result<R, CodecError> {
        CodecError::decode(&self.response)
    }
}

/// Open a session: a space of names for proposals, in which each is applied once. It is part of the replicated
/// state, and expires when it was not used for [`Config::session_timeout`](crate::Config::session_timeout) of the time
/// that the cluster had a leader.
///
/// A client that loses the answer opens another one; what nobody uses expires.
#[derive(Clone, Copy, Debug, Default, Message)]
#[rtype(result = "Result<SessionId, ProposeError>")]
pub struct OpenSession {
    pub(crate) timeout: Option<Duration>,
}

impl OpenSession {
    /// Opens one that expires as configured.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens one that expires when it was not used for this long: from a second to 366 days.
    #[must_use]
    pub fn expires_after(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// Close a session: it is forgotten, with all its outcomes.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), ProposeError>")]
pub struct CloseSession(pub SessionId);

/// See to it that a proposal is never applied, unless it was applied already. It is a command itself: once it is
/// committed, the proposal has an outcome for good, though copies of it may still be on their way.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Cancellation, ProposeError>")]
pub struct Cancel(pub ProposalId);

/// What came of a [`Cancel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The proposal was not applied and never will be.
    Cancelled,
    /// It came too late: the proposal was applied.
    Applied(Committed),
}

/// What has become of a proposal? Asked of the whole cluster: an outcome that anybody has been told is found.
/// `None`: it was not applied so far, and a copy of it may still be on its way. The errors are those of the proposal
/// itself, and those of a [read](crate::ReadError) as [`ProposeError::Unknown`].
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Option<Committed>, ProposeError>")]
pub struct Resolve(pub ProposalId);
