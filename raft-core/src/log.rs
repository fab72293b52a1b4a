//! The log as the core sees it: its last entries in memory, the terms of all the others as runs.
//!
//! Invariants:
//! - `tail` is a run without gaps that ends at `last`; what lies before it is on disk only.
//! - `terms` holds the first entry of each run of entries of one term, in order, from the log's first
//!   entry on: both indexes and terms grow strictly.
//! - Only entries that are durable and handed out leave the tail at its front.

use std::collections::VecDeque;

use crate::{Entry, LogId, LogIndex, Term};

#[derive(Clone, Debug)]
pub(crate) struct Log {
    terms: Vec<LogId>,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    last: LogId,
}

impl Log {
    pub(crate) fn new(last: LogId, terms: Vec<LogId>, tail: Vec<Entry>) -> Self {
        let tail_bytes = tail.iter().map(Entry::size_bytes).sum();
        Self {
            terms,
            tail: tail.into(),
            tail_bytes,
            last,
        }
    }

    /// The last entry's name.
    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    /// The first entry that is in memory; the position behind the last one if none is.
    pub(crate) fn tail_first(&self) -> LogIndex {
        LogIndex(self.last.index.0 + 1 - self.tail.len() as u64)
    }

    /// The term of the entry at `index`; term 0 before the first one, none behind the last one.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == LogIndex::ZERO {
            return Some(Term(0));
        }
        if index > self.last.index {
            return None;
        }
        let run = self.terms.partition_point(|first| first.index <= index);
        run.checked_sub(1).map(|run| self.terms[run].term)
    }

    /// Whether this log has the entry that `id` names, and so all before it.
    pub(crate) fn contains(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The last entry at or before `index` whose term is at most `term`. Where two logs differ at
    /// `index`, in which the other one has `term`, they cannot match between it and `index`.
    pub(crate) fn last_at_most(&self, index: LogIndex, term: Term) -> LogId {
        let index = index.min(self.last.index);
        let runs = self
            .terms
            .partition_point(|first| first.index <= index && first.term <= term);
        let Some(run) = runs.checked_sub(1) else {
            return LogId::ZERO;
        };
        let end = self
            .terms
            .get(runs)
            .map_or(self.last.index, |next| next.index.prev());
        LogId::new(self.terms[run].term, end.min(index))
    }

    /// Adds an entry behind the last one.
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.id.index, self.last.index.next());
        debug_assert!(entry.id.term >= self.last.term);
        if entry.id.term > self.last.term {
            self.terms.push(entry.id);
        }
        self.last = entry.id;
        self.tail_bytes += entry.size_bytes();
        self.tail.push_back(entry);
    }

    /// Cuts the entry at `from`, and all behind it.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        while self.tail.back().is_some_and(|entry| entry.id.index >= from) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= entry.size_bytes();
            }
        }
        let index = from.prev().min(self.last.index);
        let term = self.term_at(index).unwrap_or_default();
        self.terms
            .truncate(self.terms.partition_point(|first| first.index < from));
        self.last = LogId::new(term, index);
    }

    /// The entries from `from` through `through`, which must be in memory, up to `entries_max` of them
    /// and up to the one with which they reach `bytes_max`.
    pub(crate) fn slice(
        &self,
        from: LogIndex,
        through: LogIndex,
        entries_max: usize,
        bytes_max: usize,
    ) -> Vec<Entry> {
        let first = self.tail_first();
        debug_assert!(from >= first && through <= self.last.index);
        let start = (from.0 - first.0) as usize;
        let end = ((through.0 + 1).saturating_sub(first.0) as usize).max(start);
        let mut bytes = 0;
        let mut entries = Vec::with_capacity((end - start).min(entries_max));
        for entry in self.tail.range(start..end).take(entries_max) {
            bytes += entry.size_bytes();
            entries.push(entry.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        entries
    }

    /// Forgets entries at the front of the tail, as long as it has more than `bytes_max` and they are
    /// at or before `through`.
    pub(crate) fn shrink(&mut self, bytes_max: usize, through: LogIndex) {
        while self.tail_bytes > bytes_max {
            match self.tail.front() {
                Some(entry) if entry.id.index <= through => {
                    self.tail_bytes -= entry.size_bytes();
                    self.tail.pop_front();
                }
                _ => return,
            }
        }
    }

    /// The bytes of those entries behind `after`, through `through`, that are in memory.
    pub(crate) fn tail_bytes_between(&self, after: LogIndex, through: LogIndex) -> usize {
        let first = self.tail_first();
        let start = after.next().max(first).0 - first.0;
        let end = (through.0 + 1).saturating_sub(first.0).max(start);
        self.tail
            .range(start as usize..end as usize)
            .map(Entry::size_bytes)
            .sum()
    }

    /// Describes what does not hold of the module's invariants.
    pub(crate) fn check(&self) -> Result<(), String> {
        let runs = self
            .terms
            .windows(2)
            .all(|w| w[0].index < w[1].index && w[0].term < w[1].term);
        if !runs
            || self
                .terms
                .first()
                .is_some_and(|first| first.index != LogIndex(1))
        {
            return Err(format!(
                "the runs of terms are out of order: {:?}",
                self.terms
            ));
        }
        let last_run = self.terms.last().copied().unwrap_or_default();
        if last_run.term != self.last.term || last_run.index > self.last.index {
            return Err(format!(
                "the last entry {} is not of the last run",
                self.last
            ));
        }
        let ends = [self.tail.front(), self.tail.back()];
        for (entry, index) in ends
            .into_iter()
            .flatten()
            .zip([self.tail_first(), self.last.index])
        {
            if entry.id.index != index || self.term_at(index) != Some(entry.id.term) {
                return Err(format!("entry {} stands where {index} should", entry.id));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::EntryKind;

    /// A log with an entry of each of `terms`, from index 1 on.
    fn log(terms: &[u64]) -> Log {
        let mut log = Log::new(LogId::ZERO, Vec::new(), Vec::new());
        for (i, term) in terms.iter().enumerate() {
            let index = LogIndex(i as u64 + 1);
            log.push(Entry::new(
                Term(*term),
                index,
                EntryKind::Command,
                Bytes::from_static(b"x"),
            ));
            log.check().unwrap();
        }
        log
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), LogIndex(index))
    }

    #[test]
    fn terms_are_known_at_every_position() {
        let log = log(&[1, 1, 3, 3, 4]);
        let terms: Vec<_> = (0..=6)
            .map(|i| log.term_at(LogIndex(i)).map(|t| t.0))
            .collect();
        assert_eq!(
            terms,
            [Some(0), Some(1), Some(1), Some(3), Some(3), Some(4), None]
        );
    }

    #[test]
    fn truncation_cuts_runs_and_the_tail_alike() {
        for (from, last) in [
            (6, id(4, 5)),
            (5, id(3, 4)),
            (4, id(3, 3)),
            (3, id(1, 2)),
            (1, LogId::ZERO),
        ] {
            let mut log = log(&[1, 1, 3, 3, 4]);
            log.truncate(LogIndex(from));
            log.check().unwrap();
            assert_eq!(log.last(), last, "cut at {from}");
            assert_eq!(log.tail_first(), LogIndex(1));
        }
    }

    #[test]
    fn truncation_below_the_tail_leaves_an_empty_tail() {
        let mut log = log(&[1, 1, 3, 3, 4]);
        log.shrink(0, LogIndex(4));
        assert_eq!(log.tail_first(), LogIndex(5));
        log.truncate(LogIndex(2));
        log.check().unwrap();
        assert_eq!((log.last(), log.tail_first()), (id(1, 1), LogIndex(2)));
    }

    #[test]
    fn hints_skip_whole_terms() {
        let log = log(&[1, 1, 3, 3, 4]);
        for (index, term, expected) in [
            (9, 9, id(4, 5)),
            (5, 3, id(3, 4)),
            (5, 2, id(1, 2)),
            (3, 3, id(3, 3)),
            (1, 7, id(1, 1)),
            (5, 0, LogId::ZERO),
            (0, 5, LogId::ZERO),
        ] {
            assert_eq!(log.last_at_most(LogIndex(index), Term(term)), expected);
        }
    }

    #[test]
    fn slices_stop_at_either_limit_but_have_one_entry() {
        let log = log(&[1, 1, 1, 1, 1]);
        let len = |entries, bytes| log.slice(LogIndex(2), LogIndex(5), entries, bytes).len();
        assert_eq!(
            (len(9, 9999), len(2, 9999), len(9, 34), len(9, 1)),
            (4, 2, 2, 1)
        );
    }
}
