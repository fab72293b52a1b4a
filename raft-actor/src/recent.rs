//! The last committed entries, kept in memory for subscribers that keep up.
//!
//! Invariants:
//! - One sequence without gaps that ends at the applied index. What has left it is read from the log.
//! - It is kept in the runs in which it was committed, shared with whoever else has them: an entry is neither copied nor
//!   counted by itself. The last run stays, whatever its size; the rest is bounded in bytes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use raft_core::{Entry, LogIndex};

#[derive(Debug)]
pub(crate) struct Recent {
    runs: VecDeque<Run>,
    bytes: usize,
    bytes_max: usize,
}

/// A part of what was committed together, at least one entry.
#[derive(Debug)]
struct Run {
    entries: Arc<[Entry]>,
    part: Range<usize>,
    bytes: usize,
}

impl Run {
    fn entries(&self) -> &[Entry] {
        &self.entries[self.part.clone()]
    }

    fn first(&self) -> LogIndex {
        self.entries[self.part.start].id.index
    }

    fn last(&self) -> LogIndex {
        self.entries[self.part.end - 1].id.index
    }
}

impl Recent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            runs: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Takes in `part` of what was committed together, which ends at the applied index.
    pub(crate) fn extend(&mut self, entries: &Arc<[Entry]>, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        let bytes = entries[part.clone()].iter().map(Entry::size_bytes).sum();
        let run = Run {
            entries: Arc::clone(entries),
            part,
            bytes,
        };
        if let Some(last) = self.runs.back()
            && last.last().next() != run.first()
        {
            self.runs.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.runs.push_back(run);
        while self.bytes > self.bytes_max
            && self.runs.len() > 1
            && let Some(run) = self.runs.pop_front()
        {
            self.bytes -= run.bytes;
        }
    }

    /// Shows the entries from `from` on, through `through`, up to `count_max` and up to the one that reaches
    /// `bytes_max`; none if the first of them is not in memory.
    pub(crate) fn read(
        &self,
        from: LogIndex,
        through: LogIndex,
        count_max: usize,
        bytes_max: usize,
        mut show: impl FnMut(&Entry),
    ) {
        // Almost always the last run, of ten thousands.
        let at = match self.runs.back() {
            Some(last) if last.first() <= from && from <= last.last() => self.runs.len() - 1,
            _ => self.runs.partition_point(|run| run.last() < from),
        };
        if self.runs.get(at).is_none_or(|run| run.first() > from) {
            return;
        }
        let entries = self.runs.range(at..).flat_map(Run::entries);
        let entries = entries.skip_while(|entry| entry.id.index < from);
        let mut bytes = 0;
        for entry in entries.take(count_max) {
            if entry.id.index > through || bytes >= bytes_max {
                break;
            }
            bytes += entry.size_bytes();
            show(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{EntryKind, Term};

    use super::*;

    fn run(from: u64, through: u64) -> Arc<[Entry]> {
        let entry = |i| {
            Entry::new(
                Term(1),
                LogIndex(i),
                EntryKind::Command,
                Bytes::from_static(b"x"),
            )
        };
        (from..=through).map(entry).collect()
    }

    fn read(recent: &Recent, from: u64, through: u64) -> Vec<u64> {
        let (mut indexes, to) = (Vec::new(), usize::MAX);
        recent.read(LogIndex(from), LogIndex(through), 100, to, |entry| {
            indexes.push(entry.id.index.0);
        });
        indexes
    }

    #[test]
    fn old_entries_leave_and_the_rest_stays_in_order() {
        let mut recent = Recent::new(4 * run(1, 1)[0].size_bytes());
        recent.extend(&run(1, 2), 0..2);
        recent.extend(&run(3, 4), 0..2);
        let long = run(1, 6);
        recent.extend(&long, 4..5);
        recent.extend(&long, 5..6);
        recent.extend(&long, 6..6);
        assert_eq!(read(&recent, 2, 6), [0u64; 0]);
        assert_eq!(read(&recent, 3, 6), [3, 4, 5, 6]);
        assert_eq!(read(&recent, 4, 5), [4, 5]);
        assert_eq!(read(&recent, 7, 9), [0u64; 0]);
        // The last run stays, however long it is.
        recent.extend(&run(7, 20), 0..14);
        assert_eq!(read(&recent, 6, 20), [0u64; 0]);
        assert_eq!(read(&recent, 19, 20), [19, 20]);
    }

    #[test]
    fn what_is_read_ends_where_the_reader_says() {
        let mut recent = Recent::new(1 << 20);
        recent.extend(&run(1, 3), 0..3);
        recent.extend(&run(4, 6), 0..3);
        let size = run(1, 1)[0].size_bytes();
        for (count, bytes, expected) in [
            (3, usize::MAX, &[2, 3, 4][..]),
            (9, 2 * size, &[2, 3]),
            (9, 2 * size + 1, &[2, 3, 4]),
            (0, usize::MAX, &[]),
        ] {
            let mut indexes = Vec::new();
            let to = LogIndex(6);
            recent.read(LogIndex(2), to, count, bytes, |e| {
                indexes.push(e.id.index.0);
            });
            assert_eq!(indexes, expected, "{count} {bytes}");
        }
    }

    #[test]
    fn a_gap_before_new_entries_empties_it() {
        let mut recent = Recent::new(1 << 20);
        recent.extend(&run(1, 3), 0..3);
        recent.extend(&run(7, 8), 0..2);
        assert_eq!(read(&recent, 3, 8), [0u64; 0]);
        assert_eq!(read(&recent, 7, 8), [7, 8]);
    }
}
