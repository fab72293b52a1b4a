//! What `make fuzz` does to the ledger and to envelopes: it takes any bytes, and panics when something is wrong with
//! what became of them. The test runs it over the committed corpus.

use bytes::Bytes;
use raft_core::{Entry, EntryKind, LogId, LogIndex, Term};

use super::{Answer, Ledger, ProposalId, Request, SessionId, Settlement, Step};

/// A ledger as bytes, and the envelopes of the entries behind it: what decodes encodes to the same bytes, and a
/// ledger that was decoded goes on like the one that was encoded.
///
/// The first byte says whether the ledger is an empty one (0) or which bytes, behind their length, are to be one;
/// then come the entries.
pub fn ledger(data: &[u8]) {
    let mut choices = Choices(data);
    let mut ledger = match choices.byte() {
        None => return,
        Some(0) => Ledger::new(),
        Some(_) => {
            let bytes = choices.bytes().unwrap_or_default();
            let Ok(ledger) = Ledger::decode(bytes) else {
                return;
            };
            assert_eq!(ledger.encode(), bytes, "one ledger has one encoding");
            ledger
        }
    };
    while let Some(what) = choices.byte() {
        let Some(data) = envelope(what, &mut choices) else {
            return;
        };
        same_again(&data);
        let (term, index) = (ledger.applied().term, ledger.applied().index);
        if index >= LogIndex::LIMIT {
            return;
        }
        let entry = Entry::new(term.max(Term(1)), index.next(), EntryKind::Command, data);
        apply(&mut ledger, &entry, answer(what));
    }
}

/// Bytes from which choices are read, until none are left.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number that is small most of the time.
    fn number(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            255 => u64::MAX,
            254 => 1 << 40,
            253 => super::WINDOW / 64,
            252 => super::TIME_MAX_MS,
            small => u64::from(small),
        })
    }

    /// Up to as many bytes as the next two say.
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        Some(bytes)
    }
}

fn envelope(what: u8, choices: &mut Choices<'_>) -> Option<Bytes> {
    if what % 8 == 7 {
        return choices.bytes().map(Bytes::copy_from_slice);
    }
    let time_ms = choices.number()?;
    let session = SessionId(choices.number()?);
    let mut id = || {
        let sequence = choices.number()?.max(1);
        Some((ProposalId { session, sequence }, choices.number()?))
    };
    let request = match what % 8 {
        0 => Request::Plain {
            command: Bytes::from_static(b"plain"),
        },
        1..4 => {
            let (id, low) = id()?;
            let command = Bytes::from_static(b"once");
            Request::InSession { id, low, command }
        }
        4 => Request::Open {
            timeout_ms: session.0.max(1),
        },
        5 => Request::Close { session },
        _ => {
            let (id, low) = id()?;
            Request::Cancel { id, low }
        }
    };
    let mut data = Vec::new();
    request.encode_into(time_ms, &mut data);
    assert_eq!(data.len(), request.encoded_len());
    Some(Bytes::from(data))
}

fn answer(what: u8) -> Answer {
    match what >> 5 {
        0 => Ok(Bytes::new()),
        1 => Err("no".into()),
        more => Ok(Bytes::from(vec![what; usize::from(more) * 10])),
    }
}

fn same_again(data: &Bytes) {
    if let Ok((time_ms, request)) = Request::decode(data) {
        let mut again = Vec::new();
        request.encode_into(time_ms, &mut again);
        assert_eq!(again, data[..], "one request has one envelope");
    }
}

/// Applies an entry to the ledger, and to what its bytes are decoded to.
fn apply(ledger: &mut Ledger, entry: &Entry, answer: Answer) {
    let bytes = ledger.encode();
    let mut decoded = Ledger::decode(&bytes).expect("a ledger can be read");
    let settled = settle(ledger, entry, answer.clone());
    assert_eq!(settle(&mut decoded, entry, answer), settled);
    assert_eq!(decoded.encode(), ledger.encode());
    assert_eq!(ledger.applied(), entry.id);
    // Once settled it stays so, as long as the session lives and the client has not said that it knows.
    let Ok((_, Request::InSession { id, .. })) = Request::decode(&entry.data) else {
        return;
    };
    let index = entry.id.index.next();
    let copy = Entry::new(entry.id.term, index, EntryKind::Command, entry.data.clone());
    let (at, mut after) = (LogId::new(entry.id.term, index), ledger.clone());
    let again = settle(&mut after, &copy, Ok(Bytes::from_static(b"twice")));
    let ran_twice = matches!(again, Settlement::Applied { at: ran, .. } if ran == at);
    assert!(!ran_twice, "{id} ran twice: {settled:?}, then {again:?}");
}

fn settle(ledger: &mut Ledger, entry: &Entry, answer: Answer) -> Settlement {
    match ledger.begin(entry).expect("the entry is the next one") {
        Step::Run { .. } => ledger.ran(answer).expect("it runs"),
        Step::Settled(settlement) => settlement,
        Step::Nothing => panic!("a command is not nothing"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn ledger() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/ledger");
        let inputs = std::fs::read_dir(corpus).unwrap();
        let inputs = inputs.map(|input| std::fs::read(input.unwrap().path()).unwrap());
        let count = inputs.map(|input| super::ledger(&input)).count();
        assert!(count > 10, "a corpus of {count} inputs");
    }
}
