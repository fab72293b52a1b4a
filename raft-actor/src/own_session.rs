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

    /// None of `sequences` was done before.
    fn are_done(&self, sequences: Range<u64>) {
        let mut done = self.done();
        let mut low = self.low();
        for sequence in sequences {
            let at = usize::try_from(sequence - low).unwrap_or(usize::MAX);
            if let Some(done) = done.get_mut(at) {
                *done = true;
            }
        }
        while done.front() == Some(&true) {
            done.pop_front();
            low += 1;
        }
        self.low.store(low, Ordering::Release);
    }
}

impl Ticket {
    /// The lowest outstanding sequence of the session.
    pub(crate) fn low(&self) -> u64 {
        self.outstanding.low()
    }

    /// The outcome is known.
    #[cfg(test)]
    fn done(self) {
        let mut done = Done::default();
        done.add(self);
    }
}

/// Tickets whose outcomes are known, gathered as long as they follow on each other. Dropped, they are done.
#[derive(Default)]
pub(crate) struct Done(Option<(Arc<Outstanding>, Range<u64>)>);

impl Done {
    pub(crate) fn add(&mut self, ticket: Ticket) {
        let Ticket {
            sequence,
            outstanding,
        } = ticket;
        match &mut self.0 {
            Some((of, sequences)) if sequences.end == sequence && Arc::ptr_eq(of, &outstanding) => {
                sequences.end += 1;
            }
            _ => {
                self.settle();
                self.0 = Some((outstanding, sequence..sequence + 1));
            }
        }
    }

    fn settle(&mut self) {
        if let Some((outstanding, sequences)) = self.0.take() {
            outstanding.are_done(sequences);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.settle();
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
    fn what_is_gathered_is_done_in_any_order_and_of_either_session() {
        let (mut own, mut other) = (open(), open());
        let now = Instant::now();
        let low = |own: &mut OwnSession| name(own, now).unwrap().ticket.low();
        let tickets = |own: &mut OwnSession| -> Vec<Ticket> {
            let names = own.names(now, 4).unwrap();
            names.map(|named| named.ticket).collect()
        };
        let (first, second) = (tickets(&mut own), tickets(&mut other));
        let mut done = Done::default();
        let mut of_first = first.into_iter();
        for (n, ticket) in second.into_iter().enumerate() {
            // 1 to 3 of the one with 1 to 4 of the other; 4 stays outstanding.
            done.add(ticket);
            if let Some(ticket) = of_first.next().filter(|_| n < 3) {
                done.add(ticket);
            }
        }
        drop(done);
        assert_eq!((low(&mut own), low(&mut other)), (4, 5));
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
