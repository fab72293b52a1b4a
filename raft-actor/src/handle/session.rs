//! `Session`: proposals with names that a client keeps.
//!
//! Invariants:
//! - A sequence is given to one proposal only.
//! - The cluster is told that a sequence is done only when its outcome is known here, or when it was certainly never
//!   sent. All others stay outstanding.
//! - A proposal that may have been sent once is never called certainly not applied, unless the cluster says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{CommandError, RETRY, Raft};
use crate::ledger::WINDOW;
use crate::message::Naming;
use crate::{
    Cancellation, Committed, ProposalId, Propose, ProposeError, SessionId, StateMachine,
    UnknownCause,
};

/// The longest that a proposal waits, as with [`Propose::timeout`].
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A client's session: proposals that are applied once, however often they are sent, by this process or by one that comes
/// after it. Clones are the same session; any number of proposals may be outstanding at once.
///
/// Each proposal has a sequence, from 1 up. To survive a crash, a client keeps before it proposes: the
/// [session's id](Self::id), and the command with the sequence that it [reserves](Self::reserve) for it. When it comes
/// back, it [resumes](Raft::resume_session) the session with the lowest sequence whose outcome it does not know, and
/// first [proposes again](Self::propose_as) what it had kept from there on: what was applied is answered as it was then,
/// the rest is applied now.
///
/// ```
/// # use raft_actor::{Config, MemoryDisk, NodeId, OpenSession, Raft};
/// # futures_executor::block_on(async {
/// # let peers = [(NodeId(1), "127.0.0.1:7001")];
/// # let config = Config::new(NodeId(1)).peers(peers).listen("127.0.0.1:0").memory(MemoryDisk::new());
/// # let raft = Raft::start(config).await?;
/// let session = raft.open_session(OpenSession::new()).await?;
/// let sequence = session.reserve();
/// // Kept on a disk: session.id(), and that `sequence` is "pay 5".
/// let first = session.propose_as(sequence, "pay 5").await?;
///
/// // In a later life, which does not know what came of it.
/// let session = raft.resume_session(session.id(), sequence);
/// let again = session.propose_as(sequence, "pay 5").await?;
/// assert_eq!(first, again);
/// # anyhow::Ok(())
/// # }).unwrap();
/// ```
///
/// A proposal whose outcome stays unknown, or whose future was dropped, keeps its sequence [outstanding](Self::outstanding),
/// and with it the outcomes of all behind it, of which a session holds 65,536: [resolve](Self::resolve) or
/// [cancel](Self::cancel) it, or propose it again. The node lives at least as long as this does.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

struct Shared {
    raft: Raft,
    id: SessionId,
    names: Mutex<Names>,
}

/// Which sequences are given, and which of them have no known outcome.
struct Names {
    next: u64,
    /// Each with whether it may have been sent.
    outstanding: BTreeMap<u64, bool>,
    /// An earlier life may have sent any of them.
    resumed: bool,
}

impl Names {
    fn low(&self) -> u64 {
        let first = self.outstanding.first_key_value();
        first.map_or(self.next, |(sequence, _)| *sequence)
    }

    fn reserve(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.outstanding.insert(sequence, self.resumed);
        sequence
    }

    /// Takes a sequence for sending. Says whether it may have been sent before.
    fn take(&mut self, sequence: u64) -> bool {
        // What is skipped was given by an earlier life, and may be on its way.
        for skipped in self.next..sequence {
            self.outstanding.insert(skipped, true);
        }
        let given = sequence < self.next;
        self.next = self.next.max(sequence + 1);
        // One that was done was sent.
        let before = self.outstanding.insert(sequence, true);
        before.unwrap_or(given || self.resumed)
    }
}

impl Session {
    pub(super) fn new(raft: Raft, id: SessionId) -> Self {
        Self::with(raft, id, 1, false)
    }

    pub(super) fn resumed(raft: Raft, id: SessionId, low: u64) -> Self {
        Self::with(raft, id, low.max(1), true)
    }

    fn with(raft: Raft, id: SessionId, next: u64, resumed: bool) -> Self {
        let names = Mutex::new(Names {
            next,
            outstanding: BTreeMap::new(),
            resumed,
        });
        Self(Arc::new(Shared { raft, id, names }))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, sequence: u64) -> ProposalId {
        ProposalId {
            session: self.0.id,
            sequence,
        }
    }

    /// Its name in the cluster.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// The lowest sequence whose outcome is not known: what to [resume](Raft::resume_session) with.
    #[must_use]
    pub fn low(&self) -> u64 {
        self.names().low()
    }

    /// The sequences that were given and have no known outcome, in their order.
    #[must_use]
    pub fn outstanding(&self) -> Vec<u64> {
        self.names().outstanding.keys().copied().collect()
    }

    /// Takes the next sequence, for a proposal that is to be kept before it is [sent](Self::propose_as).
    #[must_use = "it stays outstanding until it is proposed"]
    pub fn reserve(&self) -> u64 {
        self.names().reserve()
    }

    /// Puts a command into the log, under the next sequence. Until its timeout
    /// ([`Propose::timeout`], or [`Config::propose_timeout`](crate::Config::propose_timeout)) it is tried again whenever that
    /// can help, always under the same name.
    ///
    /// # Errors
    /// As [`Propose`] has them. [`Unknown`](ProposeError::Unknown) holds the sequence, which stays outstanding.
    pub async fn propose(&self, command: impl Into<Propose>) -> Result<Committed, ProposeError> {
        let sequence = self.reserve();
        self.propose_as(sequence, command).await
    }

    /// Puts a command into the log under this sequence, which was [reserved](Self::reserve), or given to the same command
    /// earlier, in this life or another one. It must be the same command: whichever reached the log first is applied.
    ///
    /// # Errors
    /// As [`propose`](Self::propose). If the sequence may have been sent before, any error that is not the cluster's word on
    /// its outcome is [`Unknown`](ProposeError::Unknown).
    pub async fn propose_as(
        &self,
        sequence: u64,
        command: impl Into<Propose>,
    ) -> Result<Committed, ProposeError> {
        let mut propose = command.into();
        let id = self.name(sequence);
        let mut unknown = self.take(sequence)?;
        let timeout = propose.timeout.unwrap_or(self.0.raft.propose_timeout);
        let deadline = Instant::now() + timeout.min(DAY);
        let outcome = loop {
            let done_below = self.low();
            propose.naming = Naming::Client { id, done_below };
            propose.timeout = Some(deadline.saturating_duration_since(Instant::now()));
            let error = match self.0.raft.propose(propose.clone()).await {
                Err(error) if !is_outcome(&error) => error,
                outcome => break outcome,
            };
            let again = may_pass(&error);
            if let ProposeError::Unknown { .. } = error {
                unknown = Some(error.clone());
            }
            if !again || deadline.saturating_duration_since(Instant::now()) <= RETRY {
                let known = matches!(
                    error,
                    ProposeError::SessionExpired(_) | ProposeError::Done(_)
                );
                break Err(if known {
                    error
                } else {
                    unknown.unwrap_or(error)
                });
            }
            self.0.raft.running.pause(RETRY).await;
        };
        let done = match &outcome {
            Ok(_) => true,
            Err(error) => error.is_certainly_not_applied() || is_outcome(error),
        };
        if done {
            self.done(sequence);
        }
        outcome
    }

    /// Puts a command of a [`StateMachine`]'s type into the log, under the next sequence, and gives its response.
    ///
    /// # Errors
    /// As [`Raft::apply`].
    pub async fn apply<M: StateMachine>(
        &self,
        command: &M::Command,
    ) -> Result<M::Response, CommandError> {
        let committed = self.propose(Propose::of(command)?).await?;
        Ok(committed.response_as()?)
    }

    /// What has become of an outstanding proposal? See [`Resolve`](crate::Resolve). With an answer, it is done.
    ///
    /// # Errors
    /// Those of the proposal itself; or it could not be found out.
    pub async fn resolve(&self, sequence: u64) -> Result<Option<Committed>, ProposeError> {
        let resolved = self.0.raft.resolve(self.name(sequence)).await;
        match &resolved {
            Ok(Some(_)) => self.done(sequence),
            Err(error) if is_outcome(error) => self.done(sequence),
            _ => {}
        }
        resolved
    }

    /// Sees to it that a proposal is never applied, unless it was already. See [`Cancel`](crate::Cancel). With an answer,
    /// it is done.
    ///
    /// # Errors
    /// As [`Cancel`](crate::Cancel) has them.
    pub async fn cancel(&self, sequence: u64) -> Result<Cancellation, ProposeError> {
        let cancelled = self.0.raft.cancel(self.name(sequence)).await;
        match &cancelled {
            Ok(_) => self.done(sequence),
            Err(error) if is_outcome(error) => self.done(sequence),
            Err(_) => {}
        }
        cancelled
    }

    /// Closes the session, with all its outcomes. What is outstanding ends with
    /// [`SessionExpired`](ProposeError::SessionExpired).
    ///
    /// # Errors
    /// As [`CloseSession`](crate::CloseSession) has them.
    pub async fn close(self) -> Result<(), ProposeError> {
        self.0.raft.close_session(self.0.id).await
    }

    /// Takes a sequence for sending. If it may have been sent before, this is its outcome until there is another one.
    fn take(&self, sequence: u64) -> Result<Option<ProposeError>, ProposeError> {
        let id = self.name(sequence);
        let mut names = self.names();
        if sequence == 0 {
            return Err(ProposeError::SequenceZero);
        }
        match sequence.checked_sub(names.low()) {
            None => return Err(ProposeError::Done(id)),
            Some(ahead) if ahead >= WINDOW => return Err(ProposeError::BeyondWindow(id)),
            Some(_) => {}
        }
        Ok(names.take(sequence).then_some(ProposeError::Unknown {
            cause: UnknownCause::TimedOut,
            id: Some(id),
        }))
    }

    fn done(&self, sequence: u64) {
        self.names().outstanding.remove(&sequence);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.0.id)
            .field("low", &self.low())
            .finish_non_exhaustive()
    }
}

/// Whether this is the cluster's word on what became of a name.
fn is_outcome(error: &ProposeError) -> bool {
    matches!(
        error,
        ProposeError::Refused { .. }
            | ProposeError::Cancelled
            | ProposeError::ResponseForgotten { .. }
    )
}

/// Whether the same proposal may fare better a moment later.
fn may_pass(error: &ProposeError) -> bool {
    match error {
        ProposeError::Busy | ProposeError::NoLeader { .. } | ProposeError::Superseded => true,
        ProposeError::Unknown { cause, .. } => *cause != UnknownCause::NodeEnded,
        _ => false,
    }
}
