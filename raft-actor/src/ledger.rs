//! The ledger: the replicated bookkeeping that makes a proposal have one outcome, however often it is sent.
//!
//! It is told every committed entry in the order of the log, and says what to do with it: run its command, or
//! nothing, with the outcome for whoever proposed it. It keeps the sessions and what became of their proposals,
//! the log time, the digest, and which commands were suppressed. It does no I/O and has no clock.
//!
//! Invariants:
//! - It is a function of the log: nodes that have applied the same entries hold the same ledger, whichever
//!   snapshots they came by. Two parts are not replicated: how far back the suppressed indexes are known, which is
//!   how far the node's own log goes, and where a deadline is filed.
//! - A command of a session runs at most once as long as its session lives. What is once settled stays so until
//!   the client's low passes it or the session ends.
//! - The log time never goes back: of a time below one before, nothing comes.
//! - Everything in it has a bound: [`SESSIONS_MAX`](sessions::SESSIONS_MAX), [`WINDOW`](window::WINDOW),
//!   [`OUTCOMES_MAX`](sessions::OUTCOMES_MAX), [`ANSWERS_BYTES_MAX`](answers::ANSWERS_BYTES_MAX); the
//!   suppressed indexes go with the log.

mod answers;
mod digest;
mod encode;
mod envelope;
#[cfg(any(test, feature = "fuzzing"))]
// Reachable where the fuzzers are built.
#[cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))]
pub mod fuzz;
mod id;
mod sessions;
mod suppressed;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use answers::Answer;
pub(crate) use envelope::{Malformed, Request, TIME_MAX_MS};
pub use id::{ProposalId, SessionId};
pub(crate) use window::WINDOW;

use raft_core::{Entry, EntryKind, LogId, LogIndex};

use digest::{Head, Mark};
use sessions::Sessions;
use suppressed::Suppressed;
use window::Outcome;

/// What to do with a committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<'e> {
    /// Run this command, and tell its answer to [`Ledger::ran`] before the next entry.
    Run { command: &'e [u8] },
    /// Run and deliver nothing. This is what its proposer is told.
    Settled(Settlement),
    /// An entry of the log's own, which nobody proposed through an envelope.
    Nothing,
}

/// What became of an entry, for whoever proposed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The command ran at `at`: this very entry, or the first copy of it, whose answer this is.
    Applied { at: LogId, answer: Answer },
    /// It ran at `at`, and its answer is not kept any more.
    AnswerForgotten { at: LogId },
    /// The session is open.
    Opened { session: SessionId },
    /// The session is not, or no longer, open.
    Closed,
    /// The command is cancelled, at `at` for the first time: it has not run, and never will.
    Cancelled { at: LogId },
    /// The session has expired or was closed: what became of the proposal is not known any more.
    SessionExpired,
    /// This copy did nothing: its sequence is too far above the session's low, which the client must raise first.
    /// Too far is 65,536; or 128, while all sessions together hold 2,097,152 outcomes.
    BeyondWindow { low: u64 },
    /// The client said before that it has the outcome, so it is forgotten.
    Acknowledged,
    /// No session was opened: there are 10,000.
    TooManySessions,
    /// The entry is no envelope.
    Malformed,
}

impl Settlement {
    fn mark(&self) -> Mark {
        match self {
            Self::Applied { .. } | Self::AnswerForgotten { .. } => Mark::Repeated,
            Self::Opened { .. } => Mark::Opened,
            Self::Closed => Mark::Closed,
            Self::Cancelled { .. } => Mark::Cancelled,
            Self::SessionExpired => Mark::SessionExpired,
            Self::BeyondWindow { .. } => Mark::BeyondWindow,
            Self::Acknowledged => Mark::Acknowledged,
            Self::TooManySessions => Mark::TooManySessions,
            Self::Malformed => Mark::Malformed,
        }
    }
}

/// What is known of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It has an outcome: `Applied`, `AnswerForgotten`, `Cancelled` or `Acknowledged`.
    Settled(Settlement),
    /// Nothing yet, as far as this node has applied: it may still come, or its session may.
    NotYet,
    /// Its session is gone, and so is what was known.
    Expired,
}

/// The ledger was told something out of turn. Its caller is wrong, and the node must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutOfTurn {
    /// An entry was left out, or came twice.
    #[error("entry {entry} came to be applied behind entry {applied}")]
    Gap {
        /// The last one applied.
        applied: LogId,
        /// The one that came.
        entry: LogId,
    },
    /// The entry before has not been answered.
    #[error("entry {entry} came to be applied while entry {running} still runs")]
    StillRuns {
        /// The one that runs.
        running: LogId,
        /// The one that came.
        entry: LogId,
    },
    /// There is nothing to answer.
    #[error("an answer came, and no entry runs behind entry {applied}")]
    NothingRuns {
        /// The last one applied.
        applied: LogId,
    },
}

/// What runs between [`Ledger::begin`] and [`Ledger::ran`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    head: Head,
    id: Option<ProposalId>,
}

/// The replicated bookkeeping, as of the last applied entry.
///
/// A clone shares the answers' bytes.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    applied: LogId,
    time_ms: u64,
    digest: u128,
    suppressed: Suppressed,
    sessions: Sessions,
    running: Option<Running>,
}

impl Ledger {
    /// That of an empty log.
    pub(crate) fn new() -> Self {
        Self {
            applied: LogId::ZERO,
            time_ms: 0,
            digest: 0,
            suppressed: Suppressed::new(),
            sessions: Sessions::default(),
            running: None,
        }
    }

    /// The last entry that is done with.
    pub(crate) fn applied(&self) -> LogId {
        self.applied
    }

    /// How many sessions are open.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.count()
    }

    /// The log time: the highest that an entry carried.
    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The digest through the applied entry.
    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    /// Takes in the next committed entry.
    ///
    /// # Errors
    ///
    /// The entry is not the one behind the last, or the one before still runs. Nothing has changed.
    pub(crate) fn begin<'e>(&mut self, entry: &'e Entry) -> Result<Step<'e>, OutOfTurn> {
        if let Some(running) = &self.running {
            return Err(OutOfTurn::StillRuns {
                running: running.head.id,
                entry: entry.id,
            });
        }
        if entry.id.index != self.applied.index.next() {
            return Err(OutOfTurn::Gap {
                applied: self.applied,
                entry: entry.id,
            });
        }
        let head = Head::of(entry);
        if entry.kind != EntryKind::Command {
            self.finish(&head, Mark::Nothing, &[]);
            return Ok(Step::Nothing);
        }
        let settlement = match Request::parse(&entry.data) {
            Err(Malformed) => Settlement::Malformed,
            Ok((time_ms, request)) => {
                self.time_ms = self.time_ms.max(time_ms);
                self.sessions.expire(self.time_ms);
                match self.carry_out(request, entry.id) {
                    Ok((command, id)) => {
                        self.running = Some(Running { head, id });
                        return Ok(Step::Run { command });
                    }
                    Err(settlement) => settlement,
                }
            }
        };
        self.finish(&head, settlement.mark(), &[]);
        Ok(Step::Settled(settlement))
    }

    /// The command to run, or the outcome if there is none.
    fn carry_out<C>(
        &mut self,
        request: Request<C>,
        at: LogId,
    ) -> Result<(C, Option<ProposalId>), Settlement> {
        let now_ms = self.time_ms;
        match request {
            Request::Plain { command } => Ok((command, None)),
            Request::InSession { id, low, command } => {
                let answered = false;
                let outcome = Outcome::Applied { at, answered };
                let settled = self.sessions.settle(id, low, now_ms, outcome);
                if settled.is_err() {
                    self.suppressed.push(at.index);
                }
                settled.map(|()| (command, Some(id)))
            }
            Request::Open { timeout_ms } => {
                let session = SessionId(at.index.0);
                Err(self.sessions.open(session, timeout_ms, now_ms))
            }
            Request::Close { session } => Err(self.sessions.close(session)),
            Request::Cancel { id, low } => {
                let outcome = Outcome::Cancelled { at };
                let settled = self.sessions.settle(id, low, now_ms, outcome);
                Err(settled.map_or_else(|known| known, |()| Settlement::Cancelled { at }))
            }
        }
    }

    /// Takes in the answer of the command that [`begin`](Self::begin) said to run; empty where nothing runs
    /// commands. The entry is done with.
    ///
    /// # Errors
    ///
    /// Nothing runs.
    pub(crate) fn ran(&mut self, answer: Answer) -> Result<Settlement, OutOfTurn> {
        let Some(Running { head, id }) = self.running.take() else {
            return Err(OutOfTurn::NothingRuns {
                applied: self.applied,
            });
        };
        if let Some(id) = id {
            self.sessions.answered(id, head.id, &answer);
        }
        let mark = if answer.is_ok() {
            Mark::Answered
        } else {
            Mark::Refused
        };
        self.finish(&head, mark, answers::bytes(&answer));
        Ok(Settlement::Applied {
            at: head.id,
            answer,
        })
    }

    fn finish(&mut self, head: &Head, mark: Mark, answer: &[u8]) {
        self.digest = digest::chain(self.digest, head, mark, answer);
        self.applied = head.id;
    }

    /// What is known of a proposal.
    pub(crate) fn lookup(&self, id: ProposalId) -> Lookup {
        match self.sessions.get(id.session) {
            Some(session) => self
                .sessions
                .outcome(session, id.sequence)
                .map_or(Lookup::NotYet, Lookup::Settled),
            None if id.session.0 > self.applied.index.0 => Lookup::NotYet,
            None => Lookup::Expired,
        }
    }

    /// Whether the command of a session at `index` was not run. True for no entry of another kind: those say
    /// themselves that they have nothing to run.
    ///
    /// Known from where the log [begins](Self::forget_before) through the applied entry.
    pub(crate) fn is_suppressed(&self, index: LogIndex) -> bool {
        self.suppressed.contains(index)
    }

    #[cfg(test)]
    fn suppressed_from(&self) -> LogIndex {
        self.suppressed.from
    }

    /// The log begins at `first` from now on: the suppressed indexes before are not asked for any more.
    pub(crate) fn forget_before(&mut self, first: LogIndex) {
        self.suppressed.forget_before(first);
    }
}
