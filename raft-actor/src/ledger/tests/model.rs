//! Random logs of several clients that retry, reorder, cancel and vanish, with snapshots in between: the ledger
//! against the simplest thing that could be right, which looks through the whole log again for each entry.
//!
//! `SEQUENCES` says how many logs (default: 2,000).

use std::sync::Arc;

use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    answers::{ANSWER_OVERHEAD_BYTES, ANSWERS_BYTES_MAX},
    window::WINDOW,
    *,
};

#[derive(Clone, Debug)]
enum Op {
    Open {
        timeout_ms: u64,
    },
    Close {
        session: usize,
    },
    /// A proposal or its cancellation, at `ahead` from a little below what low can be.
    Propose {
        session: usize,
        ahead: u64,
        low: Low,
        cancel: bool,
        answer: Reply,
    },
    Plain,
    Noop,
    Malformed,
    /// The leaders' clock goes on.
    Wait(u64),
    /// One entry with a stamp of long ago.
    Late,
    Term,
    /// The node falls and restores its last ledger.
    Restore,
    /// The log is cut before this share of 256 of it.
    Compact(u8),
}

#[derive(Clone, Copy, Debug)]
enum Low {
    Silent,
    Below(u64),
    Above,
}

#[derive(Clone, Copy, Debug)]
enum Reply {
    Empty,
    Short,
    Refused,
    Big,
}

fn op(big: bool) -> impl Strategy<Value = Op> {
    let low = prop_oneof![
        4 => Just(Low::Silent),
        4 => (0..6_u64).prop_map(Low::Below),
        1 => Just(Low::Above),
    ];
    let ahead = prop_oneof![30 => 0..10_u64, 1 => WINDOW - 2..WINDOW + 6];
    let answer = match big {
        true => Just(Reply::Big).boxed(),
        false => prop_oneof![Just(Reply::Empty), Just(Reply::Short), Just(Reply::Refused)].boxed(),
    };
    let propose = (0..4_usize, ahead, low, prop::bool::weighted(0.15), answer);
    prop_oneof![
        3 => prop_oneof![Just(40_u64), Just(300), Just(5000)]
            .prop_map(|timeout_ms| Op::Open { timeout_ms }),
        1 => (0..4_usize).prop_map(|session| Op::Close { session }),
        30 => propose.prop_map(|(session, ahead, low, cancel, answer)| Op::Propose {
            session, ahead, low, cancel, answer,
        }),
        2 => Just(Op::Plain),
        1 => Just(Op::Noop),
        1 => Just(Op::Malformed),
        6 => prop_oneof![0..30_u64, 0..400_u64].prop_map(Op::Wait),
        1 => Just(Op::Late),
        1 => Just(Op::Term),
        3 => Just(Op::Restore),
        1 => any::<u8>().prop_map(Op::Compact),
    ]
}

/// An entry that was applied.
struct Done {
    at: LogId,
    /// The log time behind it.
    time_ms: u64,
    request: Option<Request>,
    answer: Option<Answer>,
    settlement: Option<Settlement>,
}

#[derive(Default)]
struct Model {
    done: Vec<Done>,
    /// Whose answers are kept, in the order of the log.
    kept: Vec<(LogIndex, ProposalId, usize)>,
}

/// A session as the log has it.
struct Life {
    alive: bool,
    low: u64,
}

fn names(request: &Request) -> Option<(ProposalId, u64)> {
    match request {
        Request::InSession { id, low, .. } | Request::Cancel { id, low } => Some((*id, *low)),
        _ => None,
    }
}

impl Model {
    fn time_ms(&self) -> u64 {
        self.done.last().map_or(0, |done| done.time_ms)
    }

    /// What is left of a session at log time `now_ms`.
    fn life(&self, session: SessionId, now_ms: u64) -> Life {
        let (mut alive, mut low, mut timeout, mut deadline) = (false, 1, 0, 0);
        for done in &self.done {
            alive &= done.time_ms < deadline;
            match &done.request {
                Some(Request::Open { timeout_ms })
                    if done.settlement == Some(Settlement::Opened { session }) =>
                {
                    (alive, timeout) = (true, *timeout_ms);
                    deadline = done.time_ms + timeout;
                }
                Some(Request::Close { session: closed }) if *closed == session => alive = false,
                Some(request) => {
                    if let Some((id, carried)) = names(request)
                        && id.session == session
                        && alive
                    {
                        deadline = done.time_ms + timeout;
                        low = low.max(carried.min(id.sequence));
                    }
                }
                None => {}
            }
        }
        alive &= now_ms < deadline;
        Life { alive, low }
    }

    /// What the log says of a proposal whose session lives.
    fn known(&self, id: ProposalId) -> Option<Settlement> {
        let first = self.done.iter().find(|done| {
            let named = done.request.as_ref().and_then(names);
            let cancelled = Settlement::Cancelled { at: done.at };
            named.is_some_and(|(named, _)| named == id)
                && (done.answer.is_some() || done.settlement == Some(cancelled))
        })?;
        let at = first.at;
        Some(match &first.answer {
            None => Settlement::Cancelled { at },
            Some(answer) if *answer == nothing() => Settlement::Applied {
                at,
                answer: nothing(),
            },
            Some(answer) => match self.kept.iter().any(|(index, ..)| *index == at.index) {
                true => Settlement::Applied {
                    at,
                    answer: answer.clone(),
                },
                false => Settlement::AnswerForgotten { at },
            },
        })
    }

    /// What must become of an entry; none if it must run.
    fn judge(&self, request: &Request, at: LogId, now_ms: u64) -> Option<Settlement> {
        match request {
            Request::Plain { .. } => None,
            Request::Open { .. } => Some(Settlement::Opened {
                session: SessionId(at.index.0),
            }),
            Request::Close { .. } => Some(Settlement::Closed),
            Request::InSession { id, low, .. } | Request::Cancel { id, low } => {
                let life = self.life(id.session, now_ms);
                let low = life.low.max((*low).min(id.sequence));
                if !life.alive {
                    Some(Settlement::SessionExpired)
                } else if id.sequence < low {
                    Some(Settlement::Acknowledged)
                } else if id.sequence >= low + WINDOW {
                    Some(Settlement::BeyondWindow { low })
                } else if let Some(known) = self.known(*id) {
                    Some(known)
                } else if matches!(request, Request::Cancel { .. }) {
                    Some(Settlement::Cancelled { at })
                } else {
                    None
                }
            }
        }
    }

    fn lookup(&self, id: ProposalId) -> Lookup {
        let life = self.life(id.session, self.time_ms());
        if !life.alive {
            let opened = self.done.iter().any(|done| done.at.index.0 == id.session.0);
            return if opened {
                Lookup::Expired
            } else {
                Lookup::NotYet
            };
        }
        if id.sequence < life.low {
            return Lookup::Settled(Settlement::Acknowledged);
        }
        self.known(id).map_or(Lookup::NotYet, Lookup::Settled)
    }

    /// Takes the entry in, and does what its answer and its low mean for the kept answers.
    fn push(&mut self, done: Done) {
        let (at, now_ms) = (done.at, done.time_ms);
        let ran = done
            .request
            .as_ref()
            .and_then(names)
            .zip(done.answer.clone());
        self.done.push(done);
        let mut kept = std::mem::take(&mut self.kept);
        kept.retain(|(_, id, _)| {
            let life = self.life(id.session, now_ms);
            life.alive && id.sequence >= life.low
        });
        if let Some(((id, _), answer)) = ran
            && answer != nothing()
        {
            kept.push((
                at.index,
                id,
                answers::bytes(&answer).len() + ANSWER_OVERHEAD_BYTES,
            ));
            while kept.iter().map(|(.., cost)| cost).sum::<usize>() > ANSWERS_BYTES_MAX {
                kept.remove(0);
            }
        }
        self.kept = kept;
    }
}

struct Run {
    log: Log,
    model: Model,
    sessions: Vec<u64>,
    big: Bytes,
    /// The log begins here.
    first: LogIndex,
}

impl Run {
    fn command(&mut self, request: Request, answer: Answer) {
        let index = self.log.ledger.applied().index.next();
        let at = LogId::new(Term(self.log.term), index);
        let time_ms = self.model.time_ms().max(self.log.time_ms);
        let expected = self.model.judge(&request, at, time_ms);
        let ran = self.log.ran.len();
        let settlement = self.log.answer(&request, answer.clone());
        let runs = self.log.ran.len() > ran;
        assert_eq!(
            runs,
            expected.is_none(),
            "{request:?} at {at}: {settlement:?}"
        );
        let answer = runs.then_some(answer);
        let expected = expected.unwrap_or_else(|| Settlement::Applied {
            at,
            answer: answer.clone().unwrap(),
        });
        // Without printing megabytes.
        assert!(settlement == expected, "{request:?} at {at}");
        if let Settlement::Opened { session } = &settlement {
            self.sessions.push(session.0);
        }
        self.model.push(Done {
            at,
            time_ms,
            request: Some(request),
            answer,
            settlement: Some(settlement),
        });
    }

    fn other(&mut self, kind: EntryKind, data: Bytes) {
        let index = self.log.ledger.applied().index.next();
        let settlement = self.log.append(kind, data, nothing());
        self.model.push(Done {
            at: LogId::new(Term(self.log.term), index),
            time_ms: self.model.time_ms(),
            request: None,
            answer: None,
            settlement,
        });
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Open { timeout_ms } => self.command(Request::Open { timeout_ms }, nothing()),
            Op::Close { session } => {
                let session = SessionId(self.session(session));
                self.command(Request::Close { session }, nothing());
            }
            Op::Propose {
                session,
                ahead,
                low,
                cancel,
                answer,
            } => {
                let session = self.session(session);
                let known = self.model.life(SessionId(session), 0).low;
                let sequence = 1.max(known.saturating_sub(3) + ahead);
                let low = match low {
                    Low::Silent => 0,
                    Low::Below(below) => sequence.saturating_sub(below),
                    Low::Above => sequence + 5,
                };
                let request = match cancel {
                    true => super::cancel(session, sequence, low),
                    false => in_session(session, sequence, low),
                };
                let answer = match answer {
                    Reply::Empty => nothing(),
                    Reply::Short => Ok(Bytes::from(format!("answer {}", self.model.done.len()))),
                    Reply::Refused => Err(Arc::from("refused")),
                    Reply::Big => Ok(self.big.clone()),
                };
                self.command(request, answer);
            }
            Op::Plain => {
                let command = Bytes::from_static(b"plain");
                self.command(Request::Plain { command }, nothing());
            }
            Op::Noop => self.other(EntryKind::Noop, Bytes::new()),
            Op::Malformed => self.other(EntryKind::Command, Bytes::from_static(b"\xffno")),
            Op::Wait(ms) => self.log.time_ms += ms,
            Op::Late => {
                let now_ms = std::mem::replace(&mut self.log.time_ms, 1);
                self.step(&Op::Plain);
                self.log.time_ms = now_ms;
            }
            Op::Term => self.log.term += 1,
            Op::Restore => {
                let bytes = self.log.ledger.encode();
                self.log.ledger = Ledger::decode(&bytes).unwrap();
                assert!(self.log.ledger.encode() == bytes);
            }
            Op::Compact(share) => {
                let applied = self.log.ledger.applied().index.0;
                self.first = self
                    .first
                    .max(LogIndex(applied * u64::from(share) / 256 + 1));
                self.log.ledger.forget_before(self.first);
            }
        }
    }

    /// One of those opened last; or one that there never was.
    fn session(&self, of: usize) -> u64 {
        let recent = self.sessions.iter().rev().nth(of);
        recent.copied().unwrap_or(1_000_000)
    }

    fn check(&self) {
        let ledger = &self.log.ledger;
        for session in &self.sessions {
            for sequence in 1..30 {
                let id = id(*session, sequence);
                assert!(ledger.lookup(id) == self.model.lookup(id), "{id}");
            }
        }
        for done in &self.model.done {
            let in_session = matches!(done.request, Some(Request::InSession { .. }));
            let suppressed = in_session && done.answer.is_none() && done.at.index >= self.first;
            assert_eq!(
                ledger.is_suppressed(done.at.index),
                suppressed,
                "{}",
                done.at
            );
        }
        self.replayed();
    }

    /// The same log without a snapshot makes the same ledger, and runs the same commands.
    fn replayed(&self) {
        let mut again = Ledger::new();
        for (entry, done) in self.log.entries.iter().zip(&self.model.done) {
            if let Step::Run { .. } = again.begin(entry).unwrap() {
                again.ran(done.answer.clone().unwrap()).unwrap();
            }
        }
        again.forget_before(self.first);
        assert_eq!(again.digest(), self.log.ledger.digest());
        assert!(again == self.log.ledger, "the ledgers differ");
    }
}

fn logs(cases: u32, big: bool) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let bytes = Bytes::from(vec![7; if big { 9 << 20 } else { 0 }]);
    let tested = TestRunner::new(config).run(&prop::collection::vec(op(big), 0..120), |ops| {
        let mut run = Run {
            log: Log::new(),
            model: Model::default(),
            sessions: Vec::new(),
            big: bytes.clone(),
            first: LogIndex(1),
        };
        for op in &ops {
            run.step(op);
        }
        run.check();
        Ok(())
    });
    if let Err(failure) = tested {
        panic!("{failure}");
    }
}

#[test]
fn random_logs_equal_the_model() {
    let cases = std::env::var("SEQUENCES").map_or(2000, |cases| cases.parse().unwrap());
    logs(cases, false);
}

#[test]
fn random_logs_of_big_answers_equal_the_model() {
    logs(12, true);
}
