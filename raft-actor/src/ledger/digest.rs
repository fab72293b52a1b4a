//! The digest: a chain over everything that was applied, to tell a replica that differs from the others.
//!
//! `digest' = (digest + H(data) + index·A + term·B + (256·kind + outcome)·C + H(answer)·D)·E` modulo 2^128; `H` is 128-bit
//! XXH3, the hash of an empty answer counts as 0, and `A` to `E` are [odd](FACTORS).
//!
//! - A factor that is odd can be divided by again. So a single difference shows for certain, as far as `H` tells two data
//!   apart; and two digests that differ stay different as long as the entries are the same: no divergence heals by itself.
//! - Every entry moves it, also one without a command, so that nodes which have applied the same index can
//!   compare.
//! - The whole data of the entry is in it, so also a log that differs shows.
//! - A refusal's text is an answer like any other: it must be the same on every node.
//! - It finds mistakes and damage. It is no defence against somebody who wants two logs to look alike, and could compute
//!   differences that make up for each other.

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

/// `A` to `E`: the first 128 bits behind the point of the square roots of 2, 3, 5, 7 and 11, the last one set.
const FACTORS: [u128; 5] = [
    0x6a09_e667_f3bc_c908_b2fb_1366_ea95_7d3f,
    0xbb67_ae85_84ca_a73b_2574_2d70_78b8_3b89,
    0x3c6e_f372_fe94_f82b_e739_80c0_b9db_9069,
    0xa54f_f53a_5f1d_36f1_cea7_e61f_c37a_20d5,
    0x510e_527f_ade6_82d1_de49_e330_e42b_4cbb,
];

/// The digest behind `entry`, which `mark` and `answer` came of.
pub(super) fn chain(before: u128, entry: &Head, mark: Mark, answer: &[u8]) -> u128 {
    let [a, b, c, d, e] = FACTORS;
    let times = |number: u64, factor: u128| u128::from(number).wrapping_mul(factor);
    let outcome = u64::from(entry.kind as u8) << 8 | u64::from(mark as u8);
    let mut sum = before
        .wrapping_add(entry.data)
        .wrapping_add(times(entry.id.index.0, a))
        .wrapping_add(times(entry.id.term.0, b))
        .wrapping_add(times(outcome, c));
    if !answer.is_empty() {
        sum = sum.wrapping_add(hash(answer).wrapping_mul(d));
    }
    sum.wrapping_mul(e)
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
    use raft_core::{EntryKind, LogId, LogIndex, Term};

    #[test]
    fn the_factors_are_what_they_are_said_to_be() {
        // As far as a floating number knows; the test below has them whole.
        for (root, factor) in [2_u8, 3, 5, 7, 11].into_iter().zip(FACTORS) {
            let whole = f64::from(root).sqrt();
            let shown = factor as f64 / 2_f64.powi(128);
            assert!((whole.fract() - shown).abs() < 1e-15, "{root}");
            assert_eq!(factor % 2, 1, "{root}");
        }
    }

    /// As computed elsewhere, from the formula and another XXH3.
    #[test]
    fn the_chain_is_what_the_formula_says() {
        let head = |term, index, data| Head {
            id: LogId::new(Term(term), LogIndex(index)),
            kind: EntryKind::Command,
            data: hash(data),
        };
        let first = chain(0, &head(3, 7, b"abc"), Mark::Answered, b"yes");
        assert_eq!(first, 0xcd61_2f04_4354_3deb_eda9_4047_d580_e708);
        let second = chain(first, &head(4, 8, b""), Mark::Refused, b"");
        assert_eq!(second, 0x97ff_2b7c_904b_ab02_d623_9321_0ca2_b777);
    }

    /// Each thing that an entry brings moves the digest, by itself and with whatever else; and what once differs does so
    /// behind the same entries.
    #[test]
    fn every_difference_shows_and_stays() {
        let mut digests = Vec::new();
        for index in [1, 2, 1 << 40] {
            for term in [1, 2, 1 << 40] {
                for kind in [EntryKind::Command, EntryKind::Noop] {
                    for mark in [Mark::Answered, Mark::Refused, Mark::Repeated] {
                        for data in [0, 1, 1 << 64, 1 << 127] {
                            for answer in ["", "a", "b"] {
                                let id = LogId::new(Term(term), LogIndex(index));
                                let head = Head { id, kind, data };
                                digests.push(chain(7, &head, mark, answer.as_bytes()));
                            }
                        }
                    }
                }
            }
        }
        let count = digests.len();
        for index in 0..100 {
            let id = LogId::new(Term(3), LogIndex(index));
            let (kind, data) = (EntryKind::Command, u128::from(index) << 77);
            let head = Head { id, kind, data };
            for digest in &mut digests {
                *digest = chain(*digest, &head, Mark::Answered, b"yes");
            }
            let different: std::collections::BTreeSet<_> = digests.iter().collect();
            assert_eq!(different.len(), count, "behind entry {index}");
        }
    }

    /// Entries that changed places do not make up for each other.
    #[test]
    fn the_order_shows() {
        let head = |index, data| {
            let id = LogId::new(Term(1), LogIndex(index));
            let kind = EntryKind::Command;
            Head { id, kind, data }
        };
        let both = |first, second| {
            let digest = chain(0, &head(1, first), Mark::Answered, &[]);
            chain(digest, &head(2, second), Mark::Answered, &[])
        };
        assert_ne!(both(hash(b"a"), hash(b"b")), both(hash(b"b"), hash(b"a")));
    }
}
