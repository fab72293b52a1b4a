//! The digest: a chain over everything that was applied, to tell a replica that differs from the others.
//!
//! `digest' = H(digest | index | term | kind | outcome | H(data) | H(answer))`, `H` being 128-bit XXH3 and the
//! numbers big-endian.
//!
//! - Every entry moves it, also one without a command, so that nodes which have applied the same index can
//!   compare.
//! - The whole data of the entry is in it, so also a log that differs shows.
//! - A refusal's text is an answer like any other: it must be the same on every node.
//! - It finds mistakes and damage. It is no defence against somebody who wants two logs to look alike.

use raft_core::Entry;
use twox_hash::XxHash3_128;

/// What became of an entry, as the chain has it. The number never changes its meaning.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Mark {
    /// No-op, birth, configuration.
    Nothing = 0,
    /// It ran.
    Answered = 1,
    /// It ran, and the state machine refused it.
    Refused = 2,
    /// A command that had been applied.
    Repeated = 3,
    /// A session was opened.
    Opened = 4,
    /// A session was closed.
    Closed = 5,
    /// A proposal is cancelled.
    Cancelled = 6,
    /// Its session is gone.
    SessionExpired = 7,
    /// Its sequence is too far ahead.
    BeyondWindow = 8,
    /// Its sequence is below low.
    Acknowledged = 9,
    /// A session too many.
    TooManySessions = 10,
    /// Not an envelope.
    Malformed = 11,
}

/// The hash of some bytes.
pub(super) fn hash(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// The hash of nothing: the answer of every command where no state machine answers.
const OF_NOTHING: u128 = 0x99aa_06d3_0147_98d8_6001_c324_468d_497f;

/// The digest behind `entry`, whose data has the hash `data`.
pub(super) fn chain(before: u128, entry: &Head, mark: Mark, answer: &[u8]) -> u128 {
    let mut link = [0; 66];
    link[..16].copy_from_slice(&before.to_be_bytes());
    link[16..24].copy_from_slice(&entry.id.index.0.to_be_bytes());
    link[24..32].copy_from_slice(&entry.id.term.0.to_be_bytes());
    link[32] = entry.kind as u8;
    link[33] = mark as u8;
    link[34..50].copy_from_slice(&entry.data.to_be_bytes());
    let answer = match answer {
        [] => OF_NOTHING,
        answer => hash(answer),
    };
    link[50..].copy_from_slice(&answer.to_be_bytes());
    hash(&link)
}

/// What the chain takes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: raft_core::LogId,
    kind: raft_core::EntryKind,
    /// The hash of its data.
    data: u128,
}

impl Head {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id,
            kind: entry.kind,
            data: hash(&entry.data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_nothing_is_what_it_is() {
        assert_eq!(OF_NOTHING, hash(&[]));
    }
}
