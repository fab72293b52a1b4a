//! How entries are stored: in runs that arrived together.
//!
//! One value for each entry costs twice the CPU. So a value holds a run of up to 64 entries or 64 KiB,
//! whichever is first; a larger entry is a run alone. Its key is the group and the first entry's index. In
//! the frame of [`sealed`], the body is, all numbers big-endian:
//!
//! ```text
//! 0..8    term of all entries
//! 8..16   term of the entry before the first one; 0 if there is none
//! 16..20  how many they are: n
//! 20..    n times: kind (1 byte), length of the data (4 bytes)
//! ..      the data of all, back to back
//! ```
//!
//! The table stands before the data, so that a run is decoded by slicing and not by copying. A format of
//! this crate's own, and not MessagePack: it has three fields, never nests, and its header and its table are
//! read alone at recovery.
//!
//! Invariants:
//! - A run is of one term. Terms change seldom, and the key and the first 20 bytes then say where each
//!   begins; what else recovery wants to know, which entries are configurations, the table says.
//! - Runs neither overlap nor leave a gap.

use std::ops::Range;

use bytes::Bytes;
use raft_core::{Entry, EntryKind, LogId, LogIndex, Term};

use crate::{
    Damage,
    sealed::{self, Fields, HEADER_LEN},
};

/// The group that every key names. There is one, for now.
pub(crate) const GROUP: u64 = 0;
/// A run has at most so many entries,
const ENTRIES_MAX: usize = 64;
/// and, unless it has one only, at most so many bytes of data.
const BYTES_MAX: usize = 64 << 10;

const TABLE_AT: usize = 20;
const ROW_LEN: usize = 5;

/// The key of the run that begins with entry `first`.
pub(crate) fn key(first: LogIndex) -> [u8; 16] {
    key_in(GROUP, first)
}

/// The first key behind all of this group.
pub(crate) fn key_of_next_group() -> [u8; 16] {
    key_in(GROUP + 1, LogIndex::ZERO)
}

fn key_in(group: u64, first: LogIndex) -> [u8; 16] {
    (u128::from(group) << 64 | u128::from(first.0)).to_be_bytes()
}

/// The entry that the run under `key` begins with; none for a key that is not one of a run.
pub(crate) fn first_of(key: &[u8]) -> Option<LogIndex> {
    let index = key.strip_prefix(&GROUP.to_be_bytes())?;
    Some(LogIndex(u64::from_be_bytes(index.try_into().ok()?)))
}

/// What a run is, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its first entry.
    pub(crate) first: LogId,
    /// The term of the entry before it. Where two logs have the same entry, they have the same before it; so
    /// this chains the runs: an old run that comes to light again, because a table file was lost that
    /// had cut it off, fits none behind it.
    pub(crate) term_before: Term,
    /// How many entries it has; at least one.
    pub(crate) count: u32,
}

impl Run {
    /// Its last entry's position.
    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(self.first.index.0 + u64::from(self.count) - 1)
    }
}

/// Calls `each` with the entries run by run.
pub(crate) fn split<'e>(
    entries: impl Iterator<Item = &'e Entry>,
    mut each: impl FnMut(&[&'e Entry]),
) {
    let mut run: Vec<&Entry> = Vec::with_capacity(ENTRIES_MAX);
    let mut bytes = 0;
    for entry in entries {
        let full = run.first().is_some_and(|first| {
            run.len() == ENTRIES_MAX
                || bytes + entry.data.len() > BYTES_MAX
                || first.id.term != entry.id.term
        });
        if full {
            each(&run);
            run.clear();
            bytes = 0;
        }
        bytes += entry.data.len();
        run.push(entry);
    }
    if !run.is_empty() {
        each(&run);
    }
}

/// Writes the value of a run of one term, behind an entry of the term `before`, into `out`, and gives its key.
pub(crate) fn encode(before: Term, run: &[&Entry], out: &mut Vec<u8>) -> [u8; 16] {
    let first = run[0].id;
    let key = key(first.index);
    sealed::begin(out);
    out.extend_from_slice(&first.term.0.to_be_bytes());
    out.extend_from_slice(&before.0.to_be_bytes());
    out.extend_from_slice(&small(run.len()));
    for entry in run {
        out.push(entry.kind as u8);
        out.extend_from_slice(&small(entry.data.len()));
    }
    for entry in run {
        out.extend_from_slice(&entry.data);
    }
    sealed::finish(&key, out);
    key
}

fn small(length: usize) -> [u8; 4] {
    let length = u32::try_from(length).expect("no entry has 4 GiB");
    length.to_be_bytes()
}

/// Checks a value against its checksum, and says what run it is.
pub(crate) fn header(first: LogIndex, value: &[u8]) -> Result<Run, Damage> {
    let mut fields = Fields(sealed::open(&key(first), value)?);
    let first = LogId::new(Term(fields.u64()?), first);
    let term_before = Term(fields.u64()?);
    let count = fields.u32()?;
    let behind = first.index.0.checked_add(u64::from(count));
    // Nor is there anything at the highest positions: they are nobody's.
    if count == 0 || behind.is_none_or(|behind| behind - 1 > LogIndex::LIMIT.0) {
        return Err(Damage::Length);
    }
    Ok(Run {
        first,
        term_before,
        count,
    })
}

/// Hands out the entries of a value whose header was read, from entry `from` on, until `each` answers
/// that it has enough. They share the value's memory.
pub(crate) fn decode(
    run: Run,
    value: &Bytes,
    from: LogIndex,
    mut each: impl FnMut(Entry) -> bool,
) -> Result<(), Damage> {
    rows(run, value, |index, kind, data| {
        if index < from {
            return Ok(true);
        }
        let kind = EntryKind::from_number(kind).ok_or(Damage::Kind(kind))?;
        let data = value.slice(data);
        Ok(each(Entry::new(run.first.term, index, kind, data)))
    })
}

/// The data of those entries of a value whose header was read that are configurations, with their positions.
pub(crate) fn configurations(run: Run, value: &[u8]) -> Result<Vec<(LogIndex, &[u8])>, Damage> {
    let mut found = Vec::new();
    rows(run, value, |index, kind, data| {
        if kind == EntryKind::Configuration as u8 {
            found.push((index, &value[data]));
        }
        Ok(true)
    })?;
    Ok(found)
}

/// Hands out what the table says of each entry, its kind and where its data is, until `each` answers that it
/// has enough.
fn rows(
    run: Run,
    value: &[u8],
    mut each: impl FnMut(LogIndex, u8, Range<usize>) -> Result<bool, Damage>,
) -> Result<(), Damage> {
    let table_at = HEADER_LEN + TABLE_AT;
    let mut data_at = table_at + run.count as usize * ROW_LEN;
    let mut table = Fields(value.get(table_at..data_at).ok_or(Damage::Length)?);
    for index in (run.first.index.0..).take(run.count as usize).map(LogIndex) {
        let kind = table.u8()?;
        let data_end = data_at + table.u32()? as usize;
        if data_end > value.len() {
            return Err(Damage::Length);
        }
        if !each(index, kind, data_at..data_end)? {
            return Ok(());
        }
        data_at = data_end;
    }
    if data_at == value.len() {
        Ok(())
    } else {
        Err(Damage::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, index: u64, data: Vec<u8>) -> Entry {
        Entry::new(Term(term), LogIndex(index), EntryKind::Command, data.into())
    }

    fn runs(entries: &[Entry]) -> Vec<(u64, usize)> {
        let mut runs = Vec::new();
        split(entries.iter(), |run| {
            runs.push((run[0].id.index.0, run.len()))
        });
        runs
    }

    #[test]
    fn the_bytes_are_frozen() {
        let entries = [
            Entry::new(Term(2), LogIndex(9), EntryKind::Noop, Bytes::new()),
            entry(2, 10, b"hi".to_vec()),
        ];
        let mut value = Vec::new();
        let key = encode(Term(1), &[&entries[0], &entries[1]], &mut value);
        assert_eq!(key, *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09");
        assert_eq!(value[0], 1);
        let body = b"\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\x01\0\0\0\x02hi";
        assert_eq!(value[HEADER_LEN..], *body);
    }

    #[test]
    fn what_is_decoded_shares_the_values_memory() {
        let entries = [entry(1, 4, vec![7; 100]), entry(1, 5, vec![8; 50])];
        let mut value = Vec::new();
        encode(Term(1), &[&entries[0], &entries[1]], &mut value);
        let value = Bytes::from(value);
        let run = header(LogIndex(4), &value).unwrap();
        assert_eq!(run.last(), LogIndex(5));
        let mut found = Vec::new();
        decode(run, &value, LogIndex(5), |entry| {
            found.push(entry);
            true
        })
        .unwrap();
        assert_eq!(found, entries[1..]);
        assert!(value.as_ptr_range().contains(&found[0].data.as_ptr()));
    }

    #[test]
    fn a_run_ends_at_64_entries_at_64_kib_and_with_its_term() {
        let many = (1..=130)
            .map(|index| entry(1, index, vec![]))
            .collect::<Vec<_>>();
        assert_eq!(runs(&many), [(1, 64), (65, 64), (129, 2)]);
        let large = [30_000, 30_000, 30_000, 90_000, 1].map(|length| vec![0; length]);
        let large = large
            .into_iter()
            .zip(1..)
            .map(|(data, index)| entry(1, index, data));
        assert_eq!(
            runs(&large.collect::<Vec<_>>()),
            [(1, 2), (3, 1), (4, 1), (5, 1)]
        );
        let terms = [
            entry(1, 1, vec![]),
            entry(2, 2, vec![]),
            entry(2, 3, vec![]),
        ];
        assert_eq!(runs(&terms), [(1, 1), (2, 2)]);
        assert_eq!(runs(&[]), []);
    }

    #[test]
    fn keys_are_in_the_order_of_the_log() {
        assert!(key(LogIndex(255)) < key(LogIndex(256)));
        assert!(key(LogIndex(u64::MAX)) < key_of_next_group());
        assert_eq!(first_of(&key(LogIndex(77))), Some(LogIndex(77)));
        assert_eq!(first_of(&key_of_next_group()), None);
    }
}
