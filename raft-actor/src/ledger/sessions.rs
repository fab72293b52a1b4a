//! The open sessions, and the answers kept for them.
//!
//! Invariants:
//! - A session ends by log time alone: `timeout_ms` after the last entry that named it, judged at the next entry
//!   that carries a time, before that entry counts for anything.
//! - Each session is filed once in `deadlines`, at a time that is not above its deadline. Naming a session moves
//!   its deadline but not its file: that is put right when the filed time comes. Where it is filed is no
//!   part of what is replicated.
//! - `outcomes` is the length of all windows together.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::LogId;

use super::{
    ProposalId, SessionId, Settlement,
    answers::{self, Answer, Answers},
    window::{Outcome, Place, Window},
};

/// How many sessions can be open at once.
pub(crate) const SESSIONS_MAX: usize = 10_000;

/// How many outcomes all windows can hold together, beside the room that each session is sure of.
pub(crate) const OUTCOMES_MAX: usize = 1 << 21;

/// How long a session's window can be, whatever the others hold.
pub(crate) const OUTCOMES_SURE: usize = 128;

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) timeout_ms: u64,
    /// The log time of the last entry that named it.
    pub(super) active_ms: u64,
    filed_ms: u64,
    pub(super) window: Window,
}

impl Session {
    pub(super) fn deadline_ms(&self) -> u64 {
        self.active_ms.saturating_add(self.timeout_ms)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    deadlines: BTreeSet<(u64, SessionId)>,
    outcomes: usize,
    answers: Answers,
}

impl Sessions {
    /// Opens one at log time `now_ms`.
    pub(super) fn open(&mut self, id: SessionId, timeout_ms: u64, now_ms: u64) -> Settlement {
        if self.open.len() >= SESSIONS_MAX {
            return Settlement::TooManySessions;
        }
        self.insert(id, timeout_ms, now_ms, Window::new());
        Settlement::Opened { session: id }
    }

    pub(super) fn insert(
        &mut self,
        id: SessionId,
        timeout_ms: u64,
        active_ms: u64,
        window: Window,
    ) {
        let filed_ms = active_ms.saturating_add(timeout_ms);
        self.deadlines.insert((filed_ms, id));
        self.outcomes += window.outcomes.len();
        let session = Session {
            timeout_ms,
            active_ms,
            filed_ms,
            window,
        };
        self.open.insert(id, session);
    }

    /// Ends one, if it is there. One that is not there has ended: closed is what it was to be.
    pub(super) fn close(&mut self, id: SessionId) -> Settlement {
        if let Some(session) = self.open.remove(&id) {
            self.deadlines.remove(&(session.filed_ms, id));
            self.outcomes -= session.window.outcomes.len();
            for outcome in session.window.outcomes.into_iter().flatten() {
                release(&mut self.answers, outcome);
            }
        }
        Settlement::Closed
    }

    /// Ends those whose deadline is not above `now_ms`.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some(&(filed_ms, id)) = self.deadlines.first()
            && filed_ms <= now_ms
        {
            let Some(session) = self.open.get_mut(&id) else {
                self.deadlines.pop_first();
                continue;
            };
            let deadline_ms = session.deadline_ms();
            if deadline_ms <= now_ms {
                self.close(id);
            } else {
                session.filed_ms = deadline_ms;
                self.deadlines.pop_first();
                self.deadlines.insert((deadline_ms, id));
            }
        }
    }

    /// Settles proposal `id` with `outcome`, at log time `now_ms`.
    ///
    /// # Errors
    ///
    /// It is settled already, or cannot be: what it is then.
    pub(super) fn settle(
        &mut self,
        id: ProposalId,
        low: u64,
        now_ms: u64,
        outcome: Outcome,
    ) -> Result<(), Settlement> {
        let Some(session) = self.open.get_mut(&id.session) else {
            return Err(Settlement::SessionExpired);
        };
        session.active_ms = now_ms;
        let window = &mut session.window;
        self.outcomes -= window.outcomes.len();
        window.raise_low(low.min(id.sequence), |outcome| {
            release(&mut self.answers, outcome);
        });
        let settled = match window.place(id.sequence) {
            Place::Below => Err(Settlement::Acknowledged),
            Place::Beyond => Err(Settlement::BeyondWindow { low: window.low }),
            Place::Within {
                outcome: Some(outcome),
                ..
            } => Err(settlement(&self.answers, outcome)),
            Place::Within { offset, .. } => {
                let len = window.outcomes.len().max(offset + 1);
                let grows = len > window.outcomes.len();
                if grows && len > OUTCOMES_SURE && self.outcomes + len > OUTCOMES_MAX {
                    Err(Settlement::BeyondWindow { low: window.low })
                } else {
                    window.settle(offset, outcome);
                    Ok(())
                }
            }
        };
        self.outcomes += window.outcomes.len();
        settled
    }

    /// What ran at `at` for proposal `id`, the last one settled, answered with `answer`.
    pub(super) fn answered(&mut self, id: ProposalId, at: LogId, answer: &Answer) {
        if answers::is_empty(answer) {
            return;
        }
        if let Some(session) = self.open.get_mut(&id.session)
            && let Place::Within { offset, .. } = session.window.place(id.sequence)
        {
            let answered = true;
            session
                .window
                .settle(offset, Outcome::Applied { at, answered });
            self.answers.keep(at.index, answer);
        }
    }

    /// What is known of a proposal of an open session; none if nothing.
    pub(super) fn outcome(&self, session: &Session, sequence: u64) -> Option<Settlement> {
        match session.window.place(sequence) {
            Place::Below => Some(Settlement::Acknowledged),
            Place::Within { outcome, .. } => {
                outcome.map(|outcome| settlement(&self.answers, outcome))
            }
            Place::Beyond => None,
        }
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.open.get(&id)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (SessionId, &Session)> {
        self.open.iter().map(|(id, session)| (*id, session))
    }

    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    pub(super) fn answers_mut(&mut self) -> &mut Answers {
        &mut self.answers
    }

    /// How many deadlines are filed.
    #[cfg(test)]
    pub(super) fn filed(&self) -> usize {
        self.deadlines.len()
    }

    /// The length of all windows together.
    pub(super) fn outcomes(&self) -> usize {
        self.outcomes
    }
}

fn release(answers: &mut Answers, outcome: Outcome) {
    if let Outcome::Applied { at, answered: true } = outcome {
        answers.release(at.index);
    }
}

fn settlement(answers: &Answers, outcome: Outcome) -> Settlement {
    match outcome {
        Outcome::Cancelled { at } => Settlement::Cancelled { at },
        Outcome::Applied {
            at,
            answered: false,
        } => Settlement::Applied {
            at,
            answer: Ok(bytes::Bytes::new()),
        },
        Outcome::Applied { at, answered: true } => match answers.get(at.index) {
            Some(answer) => Settlement::Applied { at, answer },
            None => Settlement::AnswerForgotten { at },
        },
    }
}
