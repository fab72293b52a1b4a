//! The state machine that is replicated: a few counters, and a table of sessions so that a command which
//! is sent again runs once (thesis §6.3).
//!
//! Invariants:
//! - `digest` is the chain over every entry applied since the first one, whatever its kind.
//! - The table travels with the state: a snapshot that forgot it would let a retry run twice.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft_core::{Entry, EntryKind, LogIndex};

pub(crate) const KEYS: usize = 4;
pub(crate) const SESSIONS: usize = 6;

/// Adds `delta` to `key`, once for each (session, sequence).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Which client; one beyond the table asks for no such care.
    pub(crate) session: u8,
    pub(crate) sequence: u32,
    pub(crate) key: u8,
    pub(crate) delta: u32,
}

impl Command {
    /// The bytes of the command, and as many more as `padding` says.
    pub(crate) fn encode(self, padding: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(10 + padding);
        bytes.put_u8(self.session);
        bytes.put_u32(self.sequence);
        bytes.put_u8(self.key);
        bytes.put_u32(self.delta);
        bytes.put_bytes(0, padding);
        bytes.freeze()
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        Some(Self {
            session: bytes.try_get_u8().ok()?,
            sequence: bytes.try_get_u32().ok()?,
            key: bytes.try_get_u8().ok()?,
            delta: bytes.try_get_u32().ok()?,
        })
    }
}

/// What a command was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// The counter after the command ran, the first time that it did.
    pub(crate) value: u64,
    /// Whether it had run before.
    pub(crate) again: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Session {
    sequence: u32,
    value: u64,
}

/// The state as of `applied`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) applied: LogIndex,
    pub(crate) digest: u64,
    counters: [u64; KEYS],
    sessions: [Session; SESSIONS],
}

impl Machine {
    /// Applies the next entry; a command has an answer.
    pub(crate) fn apply(&mut self, entry: &Entry, hash: u64) -> Option<Response> {
        self.applied = entry.id.index;
        self.digest = chain(self.digest, hash);
        if entry.kind != EntryKind::Command {
            return None;
        }
        let command = Command::decode(&entry.data)?;
        let session = self.sessions.get_mut(usize::from(command.session));
        if let Some(session) = &session
            && command.sequence <= session.sequence
        {
            let value = session.value;
            return Some(Response { value, again: true });
        }
        let counter = &mut self.counters[usize::from(command.key) % KEYS];
        *counter += u64::from(command.delta);
        let value = *counter;
        if let Some(session) = session {
            let sequence = command.sequence;
            *session = Session { sequence, value };
        }
        Some(Response {
            value,
            again: false,
        })
    }

    /// One number for the whole state, its history included.
    pub(crate) fn fingerprint(&self) -> u64 {
        let counters = self.counters.iter().fold(self.digest, |d, c| chain(d, *c));
        self.sessions.iter().fold(counters, |d, session| {
            chain(d, session.value ^ (u64::from(session.sequence) << 32))
        })
    }
}

/// The digest of a sequence that is one element longer.
pub(crate) fn chain(digest: u64, element: u64) -> u64 {
    let mut z = digest.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ element;
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z ^ (z >> 29)
}

/// A number for an entry: name, kind and data.
pub(crate) fn entry_hash(entry: &Entry) -> u64 {
    let head = chain(
        entry.id.term.0,
        entry.id.index.0 ^ ((entry.kind as u64) << 56),
    );
    let (chunks, rest) = entry.data.as_chunks::<8>();
    let body = chunks
        .iter()
        .fold(head, |d, c| chain(d, u64::from_le_bytes(*c)));
    rest.iter().fold(body, |d, byte| chain(d, u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_core::Term;

    #[test]
    fn a_command_that_comes_again_runs_once() {
        let command = Command {
            session: 1,
            sequence: 1,
            key: 0,
            delta: 5,
        };
        let entry = |index| {
            let data = command.encode(3);
            Entry::new(Term(1), LogIndex(index), EntryKind::Command, data)
        };
        let mut machine = Machine::default();
        let first = machine.apply(&entry(1), 1);
        let again = machine.apply(&entry(2), 2);
        assert_eq!(first.map(|r| (r.value, r.again)), Some((5, false)));
        assert_eq!(again.map(|r| (r.value, r.again)), Some((5, true)));
    }
}
