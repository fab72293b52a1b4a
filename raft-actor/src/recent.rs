//! The last committed entries, kept in memory for subscribers that keep up.
//!
//! Invariant: a run without gaps that ends at the applied index. What has left it is read from the log.

use std::collections::VecDeque;

use raft_core::{Entry, LogIndex};

#[derive(Debug)]
pub(crate) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Takes in what was committed, a run that ends at the applied index.
    pub(crate) fn extend(&mut self, entries: &[Entry]) {
        if let (Some(last), Some(first)) = (self.entries.back(), entries.first())
            && last.id.index.next() != first.id.index
        {
            self.entries.clear();
            self.bytes = 0;
        }
        for entry in entries {
            self.bytes += entry.size_bytes();
            self.entries.push_back(entry.clone());
        }
        while self.bytes > self.bytes_max
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry.size_bytes();
        }
    }

    /// The entries from `from` on, through `through`, up to `count_max` and up to the one that reaches
    /// `bytes_max`; none if the first of them is not in memory.
    pub(crate) fn read(
        &self,
        from: LogIndex,
        through: LogIndex,
        count_max: usize,
        bytes_max: usize,
    ) -> Vec<Entry> {
        let Some(first) = self.entries.front().map(|entry| entry.id.index) else {
            return Vec::new();
        };
        let Some(start) = from.0.checked_sub(first.0) else {
            return Vec::new();
        };
        let mut bytes = 0;
        let mut found = Vec::new();
        let start = usize::try_from(start)
            .unwrap_or(usize::MAX)
            .min(self.entries.len());
        for entry in self.entries.range(start..).take(count_max) {
            if entry.id.index > through || bytes >= bytes_max {
                break;
            }
            bytes += entry.size_bytes();
            found.push(entry.clone());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{EntryKind, Term};

    use super::*;

    fn run(from: u64, through: u64) -> Vec<Entry> {
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
        let entries = recent.read(LogIndex(from), LogIndex(through), 100, usize::MAX);
        entries.iter().map(|entry| entry.id.index.0).collect()
    }

    #[test]
    fn old_entries_leave_and_the_rest_stays_in_order() {
        let mut recent = Recent::new(4 * run(1, 1)[0].size_bytes());
        recent.extend(&run(1, 3));
        recent.extend(&run(4, 6));
        assert_eq!(read(&recent, 2, 6), [0u64; 0]);
        assert_eq!(read(&recent, 3, 6), [3, 4, 5, 6]);
        assert_eq!(read(&recent, 4, 5), [4, 5]);
        assert_eq!(read(&recent, 7, 9), [0u64; 0]);
    }

    #[test]
    fn a_gap_before_new_entries_empties_it() {
        let mut recent = Recent::new(1 << 20);
        recent.extend(&run(1, 3));
        recent.extend(&run(7, 8));
        assert_eq!(read(&recent, 3, 8), [0u64; 0]);
        assert_eq!(read(&recent, 7, 8), [7, 8]);
    }
}
