//! What the tests of the ledger share.

use bytes::Bytes;
use raft_core::{Entry, EntryKind, LogId, LogIndex, Term};

use super::*;

mod bounds;
mod bytes_of;
mod hostile;
mod model;
mod rules;
mod speed;

/// A log that is written as it is applied.
struct Log {
    ledger: Ledger,
    term: u64,
    time_ms: u64,
    entries: Vec<Entry>,
    ran: Vec<u64>,
}

fn id(session: u64, sequence: u64) -> ProposalId {
    ProposalId {
        session: SessionId(session),
        sequence,
    }
}

fn in_session(session: u64, sequence: u64, low: u64) -> Request {
    Request::InSession {
        id: id(session, sequence),
        low,
        command: Bytes::from(format!("command {sequence}")),
    }
}

fn cancel(session: u64, sequence: u64, low: u64) -> Request {
    Request::Cancel {
        id: id(session, sequence),
        low,
    }
}

fn at(index: u64) -> LogId {
    LogId::new(Term(3), LogIndex(index))
}

fn envelope(request: &Request, time_ms: u64) -> Bytes {
    let mut to = Vec::new();
    request.encode_into(time_ms, &mut to);
    assert_eq!(to.len(), request.encoded_len());
    Bytes::from(to)
}

/// Where the state machine answers nothing.
fn nothing() -> Answer {
    Ok(Bytes::new())
}

impl Log {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(),
            term: 3,
            time_ms: 1000,
            entries: Vec::new(),
            ran: Vec::new(),
        }
    }

    fn append(&mut self, kind: EntryKind, data: Bytes, answer: Answer) -> Option<Settlement> {
        let index = self.ledger.applied().index.next();
        let entry = Entry::new(Term(self.term), index, kind, data);
        self.entries.push(entry.clone());
        match self.ledger.begin(&entry).unwrap() {
            Step::Run { .. } => {
                self.ran.push(index.0);
                Some(self.ledger.ran(answer).unwrap())
            }
            Step::Settled(settlement) => Some(settlement),
            Step::Nothing => None,
        }
    }

    fn answer(&mut self, request: &Request, answer: Answer) -> Settlement {
        let data = envelope(request, self.time_ms);
        self.append(EntryKind::Command, data, answer).unwrap()
    }

    /// Applies it; the state machine answers with the index.
    fn apply(&mut self, request: &Request) -> Settlement {
        let index = self.ledger.applied().index.next();
        self.answer(request, Ok(Bytes::from(index.to_string())))
    }

    fn open(&mut self, timeout_ms: u64) -> u64 {
        match self.apply(&Request::Open { timeout_ms }) {
            Settlement::Opened { session } => session.0,
            other => panic!("{other:?}"),
        }
    }

    fn at(&mut self, time_ms: u64) -> &mut Self {
        self.time_ms = time_ms;
        self
    }
}

/// That it ran at `index`, which is what it was answered.
fn applied(index: u64) -> Settlement {
    Settlement::Applied {
        at: at(index),
        answer: Ok(Bytes::from(index.to_string())),
    }
}
