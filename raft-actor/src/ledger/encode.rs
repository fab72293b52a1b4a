//! The ledger as bytes, at the head of every snapshot.
//!
//! Every number big-endian:
//!
//! ```text
//! version u8 | applied: index u64, term u64 | log time u64 | digest u128
//! suppressed: from u64, count u64, (first u64, last u64)*
//! sessions: count u64, (id u64, timeout u64, active u64, low u64, count u64, outcome*)*
//! outcome: 0 unknown | 1 applied, empty answer: index u64, term u64 | 2 .., response: length u64, bytes
//!          | 3 .., refusal: length u64, bytes | 4 applied, answer dropped: .. | 5 cancelled: ..
//! ```
//!
//! Invariants:
//! - One ledger has one encoding, and what is decoded goes on like what was encoded, byte for byte.
//! - What no ledger can be is refused, by what is wrong with it. Memory is taken as the bytes come, never as a
//!   count claims.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::{LogId, LogIndex, Term};

use super::{
    Answer, Ledger, SessionId,
    answers::{self, ANSWERS_BYTES_MAX},
    envelope::TIME_MAX_MS,
    sessions::{OUTCOMES_MAX, OUTCOMES_SURE, SESSIONS_MAX, Session, Sessions},
    suppressed::Suppressed,
    window::{Outcome, WINDOW, Window},
};

const VERSION: u8 = 1;

const UNKNOWN: u8 = 0;
const EMPTY: u8 = 1;
const RESPONSE: u8 = 2;
const REFUSAL: u8 = 3;
const DROPPED: u8 = 4;
const CANCELLED: u8 = 5;

/// The bytes are not those of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LedgerDamaged {
    /// A version of this program wrote them that this one does not know.
    #[error("the ledger has format {0}, and this program knows format {VERSION} at most")]
    Version(u8),
    /// They end too early.
    #[error("the ledger ends in the middle of {0}")]
    Short(&'static str),
    /// They go on behind the end.
    #[error("the ledger is followed by {0} bytes too many")]
    Long(usize),
    /// They say what cannot be.
    #[error("the ledger holds {0}")]
    Impossible(&'static str),
}

impl Ledger {
    /// The ledger as of the applied entry. Not while a command runs.
    pub(crate) fn encode(&self) -> Vec<u8> {
        debug_assert!(self.running.is_none(), "encoded while a command runs");
        let sessions = &self.sessions;
        let mut to = Vec::with_capacity(
            73 + 16 * self.suppressed.ranges.len()
                + 40 * sessions.iter().len()
                + 17 * sessions.outcomes()
                + sessions.answers().bytes(),
        );
        to.push(VERSION);
        put_id(&mut to, self.applied);
        put(&mut to, self.time_ms);
        to.extend(self.digest.to_be_bytes());
        put(&mut to, self.suppressed.from.0);
        put(&mut to, self.suppressed.ranges.len() as u64);
        for (first, last) in &self.suppressed.ranges {
            put(&mut to, first.0);
            put(&mut to, last.0);
        }
        put(&mut to, sessions.iter().len() as u64);
        for (id, session) in sessions.iter() {
            put(&mut to, id.0);
            self.put_session(&mut to, session);
        }
        to
    }

    fn put_session(&self, to: &mut Vec<u8>, session: &Session) {
        put(to, session.timeout_ms);
        put(to, session.active_ms);
        put(to, session.window.low);
        put(to, session.window.outcomes.len() as u64);
        for outcome in &session.window.outcomes {
            match *outcome {
                None => to.push(UNKNOWN),
                Some(Outcome::Cancelled { at }) => {
                    to.push(CANCELLED);
                    put_id(to, at);
                }
                Some(Outcome::Applied { at, answered }) => {
                    let kept = self.sessions.answers().get(at.index);
                    to.push(match kept {
                        _ if !answered => EMPTY,
                        Some(Ok(_)) => RESPONSE,
                        Some(Err(_)) => REFUSAL,
                        None => DROPPED,
                    });
                    put_id(to, at);
                    if let (true, Some(answer)) = (answered, kept) {
                        let bytes = answers::bytes(&answer);
                        put(to, bytes.len() as u64);
                        to.extend(bytes);
                    }
                }
            }
        }
    }

    /// The ledger that [`encode`](Self::encode) made `bytes` of.
    ///
    /// # Errors
    ///
    /// They are not those of a ledger, or a newer program wrote them.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LedgerDamaged> {
        let mut from = Reader(bytes);
        let version = from.byte("the version")?;
        if version != VERSION {
            return Err(LedgerDamaged::Version(version));
        }
        let applied = from.id("the applied entry")?;
        let time_ms = from.number("the log time")?;
        if time_ms > TIME_MAX_MS {
            return Err(LedgerDamaged::Impossible("a log time that no clock shows"));
        }
        let digest = u128::from_be_bytes(from.array("the digest")?);
        let suppressed = from.suppressed(applied.index)?;
        let mut sessions = Sessions::default();
        let mut answers = Vec::new();
        let mut before = 0;
        for read in 0..from.number("the number of sessions")? {
            if read >= SESSIONS_MAX as u64 {
                return Err(LedgerDamaged::Impossible("too many sessions"));
            }
            let id = from.number("a session's id")?;
            if id <= before || id > applied.index.0 {
                return Err(LedgerDamaged::Impossible("a session out of order"));
            }
            before = id;
            let timeout_ms = from.number("a session's timeout")?;
            let active_ms = from.number("a session's time")?;
            if active_ms > time_ms || active_ms.saturating_add(timeout_ms) <= time_ms {
                return Err(LedgerDamaged::Impossible("a session that has expired"));
            }
            let window = from.window(applied.index, &mut answers)?;
            sessions.insert(SessionId(id), timeout_ms, active_ms, window);
            if sessions.outcomes() > OUTCOMES_MAX + SESSIONS_MAX * OUTCOMES_SURE {
                return Err(LedgerDamaged::Impossible("too many outcomes"));
            }
        }
        keep(&mut sessions, &answers)?;
        match from.0.len() {
            0 => Ok(Self {
                applied,
                time_ms,
                digest,
                suppressed,
                sessions,
                running: None,
            }),
            more => Err(LedgerDamaged::Long(more)),
        }
    }
}

/// Two ledgers are equal when they go on alike, which is when they encode alike: where a deadline is filed does
/// not count. For tests: it costs two encodings.
#[cfg(test)]
impl PartialEq for Ledger {
    fn eq(&self, other: &Self) -> bool {
        self.running == other.running && self.encode() == other.encode()
    }
}

/// Puts the answers where they belong. None of them may push another one out, and none that was dropped be there.
fn keep(
    sessions: &mut Sessions,
    answers: &[(LogIndex, Option<Answer>)],
) -> Result<(), LedgerDamaged> {
    let twice = LedgerDamaged::Impossible("two answers of one entry");
    let kept = sessions.answers_mut();
    for (index, answer) in answers {
        let Some(answer) = answer else { continue };
        if kept.get(*index).is_some() {
            return Err(twice);
        }
        if kept.bytes() + answers::cost(answer) > ANSWERS_BYTES_MAX {
            return Err(LedgerDamaged::Impossible("too many answers"));
        }
        kept.keep(*index, answer);
    }
    let dropped = answers.iter().filter(|(_, answer)| answer.is_none());
    for (index, _) in dropped {
        if kept.get(*index).is_some() {
            return Err(twice);
        }
    }
    Ok(())
}

fn put(to: &mut Vec<u8>, number: u64) {
    to.extend(number.to_be_bytes());
}

fn put_id(to: &mut Vec<u8>, id: LogId) {
    put(to, id.index.0);
    put(to, id.term.0);
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], LedgerDamaged> {
        let (array, behind) = self
            .0
            .split_first_chunk()
            .ok_or(LedgerDamaged::Short(what))?;
        self.0 = behind;
        Ok(*array)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, LedgerDamaged> {
        self.array(what).map(|[byte]| byte)
    }

    fn number(&mut self, what: &'static str) -> Result<u64, LedgerDamaged> {
        self.array(what).map(u64::from_be_bytes)
    }

    fn id(&mut self, what: &'static str) -> Result<LogId, LedgerDamaged> {
        let index = LogIndex(self.number(what)?);
        let term = Term(self.number(what)?);
        if index > LogIndex::LIMIT || term > Term::MAX {
            return Err(LedgerDamaged::Impossible("an entry that no log has"));
        }
        Ok(LogId::new(term, index))
    }

    fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], LedgerDamaged> {
        let len = usize::try_from(self.number(what)?).unwrap_or(usize::MAX);
        let (bytes, behind) = self
            .0
            .split_at_checked(len)
            .ok_or(LedgerDamaged::Short(what))?;
        self.0 = behind;
        Ok(bytes)
    }

    fn suppressed(&mut self, applied: LogIndex) -> Result<Suppressed, LedgerDamaged> {
        let mut suppressed = Suppressed::new();
        suppressed.from = LogIndex(self.number("the suppressed indexes")?);
        // The lowest that the next range can begin with: ranges that touch would be one.
        let mut least = suppressed.from.max(LogIndex(1));
        for _ in 0..self.number("the suppressed indexes")? {
            let first = LogIndex(self.number("a suppressed index")?);
            let last = LogIndex(self.number("a suppressed index")?);
            if first < least || last < first || last > applied {
                return Err(LedgerDamaged::Impossible("a suppressed index out of order"));
            }
            least = last.next().next();
            suppressed.ranges.push_back((first, last));
        }
        Ok(suppressed)
    }

    fn window(
        &mut self,
        applied: LogIndex,
        answers: &mut Vec<(LogIndex, Option<Answer>)>,
    ) -> Result<Window, LedgerDamaged> {
        let mut window = Window::new();
        window.low = self.number("a session's low")?;
        let len = self.number("a session's outcomes")?;
        if window.low == 0 || len > WINDOW {
            return Err(LedgerDamaged::Impossible("a session's window"));
        }
        for _ in 0..len {
            let outcome = self.outcome(answers)?;
            if let Some(Outcome::Applied { at, .. } | Outcome::Cancelled { at }) = outcome
                && at.index > applied
            {
                return Err(LedgerDamaged::Impossible("an outcome of a later entry"));
            }
            window.outcomes.push_back(outcome);
        }
        if window.outcomes.back().is_some_and(Option::is_none) {
            return Err(LedgerDamaged::Impossible("a session's window"));
        }
        Ok(window)
    }

    fn outcome(
        &mut self,
        answers: &mut Vec<(LogIndex, Option<Answer>)>,
    ) -> Result<Option<Outcome>, LedgerDamaged> {
        let tag = self.byte("an outcome")?;
        if tag == UNKNOWN {
            return Ok(None);
        }
        let at = self.id("an outcome")?;
        let answered = tag != EMPTY;
        let outcome = match tag {
            EMPTY => Outcome::Applied { at, answered },
            DROPPED => {
                answers.push((at.index, None));
                Outcome::Applied { at, answered }
            }
            RESPONSE => {
                let response = Bytes::copy_from_slice(self.bytes("a response")?);
                if response.is_empty() {
                    return Err(LedgerDamaged::Impossible("an empty answer that is kept"));
                }
                answers.push((at.index, Some(Ok(response))));
                Outcome::Applied { at, answered }
            }
            REFUSAL => {
                let refusal = std::str::from_utf8(self.bytes("a refusal")?)
                    .map_err(|_| LedgerDamaged::Impossible("a refusal that is no text"))?;
                answers.push((at.index, Some(Err(Arc::from(refusal)))));
                Outcome::Applied { at, answered }
            }
            CANCELLED => Outcome::Cancelled { at },
            _ => return Err(LedgerDamaged::Impossible("an unknown outcome")),
        };
        Ok(Some(outcome))
    }
}
