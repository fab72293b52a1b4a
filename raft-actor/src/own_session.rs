//! The node's own session, which names what is proposed here without a name.
//!
//! It is opened when it is first needed, and again when it may have expired, or when too many of its sequences have
//! outcomes that nobody knows.
//!
//! Invariants:
//! - A sequence is given to one command only.
//! - The cluster is told that a sequence is done only when its outcome is known here. One whose outcome is unknown
//!   stays outstanding, so that it can be asked for as long as the session lives.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ledger::WINDOW;
use crate::{ProposalId, SessionId};

/// Sequences from the lowest outstanding one on that the node uses of its session's window.
const OUTSTANDING_MAX: u64 = WINDOW;

/// See the [module](self).
pub(crate) struct OwnSession {
    /// After so long without use it may have expired.
    trust: Duration,
    state: State,
}

enum State {
    /// There is none.
    None,
    /// Its opening is proposed.
    Opening,
    Open {
        id: SessionId,
        next: u64,
        /// When something of it was last named: no later than it was used in the log.
        used: Instant,
        outstanding: Arc<Outstanding>,
    },
}

/// Which sequences have no known outcome.
#[derive(Debug)]
pub(crate) struct Outstanding {
    /// The lowest outstanding one; written under the lock, read without it, once for each proposal.
    low: AtomicU64,
    /// For it and each behind it, whether it is done.
    done: Mutex<VecDeque<bool>>,
}

/// One outstanding sequence. Dropped, it stays so.
#[derive(Debug)]
pub(crate) struct Ticket {
    sequence: u64,
    outstanding: Arc<Outstanding>,
}

/// A name for a proposal.
pub(crate) struct Named {
    pub(crate) id: ProposalId,
    pub(crate) ticket: Ticket,
}

/// Names for proposals, each of which must be used.
pub(crate) struct Names {
    session: SessionId,
    sequences: Range<u64>,
    outstanding: Arc<Outstanding>,
}

impl Iterator for Names {
    type Item = Named;

    fn next(&mut self) -> Option<Named> {
        let sequence = self.sequences.next()?;
        Some(Named {
            id: ProposalId {
                session: self.session,
                sequence,
            },
            ticket: Ticket {
                sequence,
                outstanding: Arc::clone(&self.outstanding),
            },
        })
    }
}

impl OwnSession {
    /// `timeout` is that of the sessions that it opens.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            // The cluster's time does not run faster than ours; what is on its way may take a while.
            trust: timeout / 2,
            state: State::None,
        }
    }

    /// Names for the next `count` proposals, or for as many as there is room for; none without a session to name them in. If
    /// there are fewer than were asked for, the session is left.
    pub(crate) fn names(&mut self, now: Instant, count: usize) -> Option<Names> {
        let State::Open {
            id,
            next,
            used,
            outstanding,
        } = &mut self.state
        else {
            return None;
        };
        if now.saturating_duration_since(*used) > self.trust {
            self.state = State::None;
            return None;
        }
        *used = now;
        let end = *next + count as u64;
        let room = outstanding.low() + OUTSTANDING_MAX;
        let names = Names {
            session: *id,
            sequences: *next..end.min(room),
            outstanding: Arc::clone(outstanding),
        };
        *next = names.sequences.end;
        let named = names.sequences.clone().map(|_| false);
        outstanding.done().extend(named);
        if end > room {
            self.state = State::None;
        }
        Some(names)
    }

    /// Whether one must be opened. It is assumed that the caller does so.
    pub(crate) fn must_open(&mut self) -> bool {
        let must = matches!(self.state, State::None);
        if must {
            self.state = State::Opening;
        }
        must
    }

    /// What was opened, if it was.
    pub(crate) fn opened(&mut self, id: Option<SessionId>, now: Instant) {
        self.state = match id {
            Some(id) => State::Open {
                id,
                next: 1,
                used: now,
                outstanding: Arc::new(Outstanding {
                    low: AtomicU64::new(1),
                    done: Mutex::default(),
                }),
            },
            None => State::None,
        };
    }

    /// The cluster does not know this session any more.
    pub(crate) fn expired(&mut self, session: SessionId) {
        if matches!(&self.state, State::Open { id, .. } if *id == session) {
            self.state = State::None;
        }
    }
}

impl Outstanding {
    fn done(&self) -> MutexGuard<'_, VecDeque<bool>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn low(&self) -> u64 {
        self.low.load(Ordering::Acquire)
    }
}

impl Ticket {
    /// The lowest outstanding sequence of the session.
    pub(crate) fn low(&self) -> u64 {
        self.outstanding.low()
    }

    /// The outcome is known.
    pub(crate) fn done(self) {
        let mut done = self.outstanding.done();
        let mut low = self.outstanding.low();
        let at = usize::try_from(self.sequence - low).unwrap_or(usize::MAX);
        if let Some(done) = done.get_mut(at) {
            *done = true;
        }
        while done.front() == Some(&true) {
            done.pop_front();
            low += 1;
        }
        self.outstanding.low.store(low, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> OwnSession {
        let mut own = OwnSession::new(Duration::from_secs(100));
        assert!(own.must_open() && !own.must_open());
        own.opened(Some(SessionId(7)), Instant::now());
        own
    }

    fn name(own: &mut OwnSession, now: Instant) -> Option<Named> {
        own.names(now, 1)?.next()
    }

    #[test]
    fn many_are_named_at_once_as_far_as_there_is_room() {
        let mut own = open();
        let now = Instant::now();
        let few = own.names(now, 3).unwrap();
        let few: Vec<_> = few.map(|named| named.id.sequence).collect();
        assert_eq!(few, [1, 2, 3]);
        let all = OUTSTANDING_MAX as usize;
        let rest: Vec<_> = own.names(now, all).unwrap().collect();
        assert_eq!(rest.len(), all - 3);
        assert_eq!(rest[0].id.sequence, 4);
        assert!(own.must_open(), "it is full");
    }

    #[test]
    fn the_lowest_outstanding_follows_what_is_done_and_stops_at_what_is_unknown() {
        let mut own = open();
        let now = Instant::now();
        let mut names: Vec<_> = (0..4).map(|_| name(&mut own, now).unwrap()).collect();
        let sequences: Vec<_> = names.iter().map(|named| named.id.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4]);
        let last = names.pop().unwrap().ticket;
        let third = names.pop().unwrap().ticket;
        let second = names.pop().unwrap().ticket;
        second.done();
        assert_eq!(last.low(), 1);
        names.pop().unwrap().ticket.done();
        assert_eq!(last.low(), 3);
        drop(third);
        let low = |ticket: &Ticket| ticket.low();
        assert_eq!(low(&last), 3);
        last.done();
        assert_eq!(name(&mut own, now).unwrap().ticket.low(), 3);
    }

    #[test]
    fn a_session_is_left_when_it_is_full_or_old_or_gone() {
        let mut own = open();
        let now = Instant::now();
        let unknown = name(&mut own, now).unwrap();
        drop(unknown);
        for _ in 1..OUTSTANDING_MAX {
            name(&mut own, now).unwrap().ticket.done();
        }
        assert!(name(&mut own, now).is_none());
        assert!(own.must_open());

        let mut own = open();
        let late = now + Duration::from_secs(60);
        assert!(name(&mut own, late).is_none() && own.must_open());

        let mut own = open();
        own.expired(SessionId(6));
        assert!(name(&mut own, now).is_some());
        own.expired(SessionId(7));
        assert!(name(&mut own, now).is_none());
    }
}
