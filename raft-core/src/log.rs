//! The log as the core sees it: its last entries in memory, the terms of all the others as runs.
//!
//! Invariants:
//! - The log holds what lies behind `start`, the last entry that a snapshot stands for and that is gone.
//! - `tail` is a run without gaps that ends at `last`; what lies before it is on disk only.
//! - `terms` holds the first entry of each run of entries of one term, in order, from the log's first
//!   entry on: both indexes and terms grow strictly.
//! - Only entries that are durable and handed out leave the tail at its front.

use std::sync::Arc;

use crate::tail::Tail;
use crate::{Entry, LogId, LogIndex, Term};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    start: LogId,
    terms: Vec<LogId>,
    tail: Tail,
    last: LogId,
}

impl Log {
    pub(crate) fn new(start: LogId, last: LogId, terms: Vec<LogId>, entries: Vec<Entry>) -> Self {
        let mut tail = Tail::default();
        tail.push(entries.into(), 0);
        Self {
            start,
            terms,
            tail,
            last,
        }
    }

    /// The entry right before the first one that the log holds.
    pub(crate) fn start(&self) -> LogId {
        self.start
    }

    /// The last entry's name.
    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    /// The first entry that is in memory; the position behind the last one if none is.
    pub(crate) fn tail_first(&self) -> LogIndex {
        LogIndex(self.last.index.0 + 1 - self.tail.len() as u64)
    }

    /// The term of the entry at `index`; none before `start` and behind the last one.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index || index > self.last.index {
            return None;
        }
        if let Some(run) = self.terms.last()
            && run.index <= index
        {
            return Some(run.term);
        }
        let run = self.terms.partition_point(|first| first.index <= index);
        run.checked_sub(1).map(|run| self.terms[run].term)
    }

    /// Whether this log has the entry that `id` names, and so all before it.
    pub(crate) fn contains(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The last entry at or before `index` whose term is at most `term`. Where two logs differ at
    /// `index`, in which the other one has `term`, they cannot match between it and `index`. `start` if the
    /// log holds none.
    pub(crate) fn last_at_most(&self, index: LogIndex, term: Term) -> LogId {
        let index = index.min(self.last.index);
        let runs = self
            .terms
            .partition_point(|first| first.index <= index && first.term <= term);
        let Some(run) = runs.checked_sub(1) else {
            return self.start;
        };
        let end = self
            .terms
            .get(runs)
            .map_or(self.last.index, |next| next.index.prev());
        LogId::new(self.terms[run].term, end.min(index))
    }

    /// Adds `run[from..]`, which follows the last entry.
    pub(crate) fn push(&mut self, run: Arc<[Entry]>, from: usize) {
        for entry in &run[from..] {
            debug_assert_eq!(entry.id.index, self.last.index.next());
            debug_assert!(entry.id.term >= self.last.term);
            if entry.id.term > self.last.term || self.terms.is_empty() {
                self.terms.push(entry.id);
            }
            self.last = entry.id;
        }
        self.tail.push(run, from);
    }

    /// Cuts the entry at `from`, and all behind it.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        self.tail.truncate(from);
        let index = from.prev().min(self.last.index);
        let term = self.term_at(index).unwrap_or_default();
        self.terms
            .truncate(self.terms.partition_point(|first| first.index < from));
        self.last = LogId::new(term, index);
    }

    /// Forgets all entries up to `through`, which the log holds; a snapshot stands for them.
    pub(crate) fn compact(&mut self, through: LogIndex) {
        let Some(term) = self.term_at(through) else {
            return;
        };
        self.tail.forget(through);
        let behind = self.terms.partition_point(|first| first.index <= through);
        self.terms.drain(..behind.saturating_sub(1));
        let next = self
            .terms
            .get(1)
            .map_or(self.last.index, |run| run.index.prev());
        if let Some(run) = self.terms.first_mut()
            && run.index <= through
        {
            run.index = through.next();
            if next <= through {
                self.terms.remove(0);
            }
        }
        self.start = LogId::new(term, through);
    }

    /// A snapshot that ends with `last` takes the place of the whole log.
    pub(crate) fn reset(&mut self, last: LogId) {
        *self = Self::new(last, last, Vec::new(), Vec::new());
    }

    /// The entries from `from` through `through`, which must be in memory, up to `entries_max` of them
    /// and up to the one with which they reach `bytes_max`.
    pub(crate) fn slice(
        &self,
        from: LogIndex,
        through: LogIndex,
        entries_max: usize,
        bytes_max: usize,
    ) -> Arc<[Entry]> {
        debug_assert!(from >= self.tail_first() && through <= self.last.index);
        self.tail.slice(from, through, entries_max, bytes_max)
    }

    /// Forgets entries at the front of the tail, as long as it has more than `bytes_max` and they are
    /// at or before `through`.
    pub(crate) fn shrink(&mut self, bytes_max: usize, through: LogIndex) {
        self.tail.shrink(bytes_max, through);
    }

    /// The bytes of those entries behind `after`, through `through`, that are in memory.
    pub(crate) fn tail_bytes_between(&self, after: LogIndex, through: LogIndex) -> usize {
        self.tail.bytes_between(after.next(), through)
    }

    /// Describes what does not hold of the module's invariants.
    pub(crate) fn check(&self) -> Result<(), String> {
        let runs = self
            .terms
            .windows(2)
            .all(|w| w[0].index < w[1].index && w[0].term < w[1].term);
        if !runs
            || self.terms.first().is_some_and(|first| {
                first.index != self.start.index.next() || first.term < self.start.term
            })
        {
            return Err(format!(
                "the runs of terms are out of order: {:?}",
                self.terms
            ));
        }
        let last_run = self.terms.last().copied().unwrap_or(self.start);
        let empty = self.terms.is_empty();
        if last_run.term != self.last.term
            || last_run.index > self.last.index
            || empty != (self.start.index == self.last.index)
        {
            return Err(format!(
                "the last entry {} is not of the last run",
                self.last
            ));
        }
        if let Some((first, last)) = self.tail.ends() {
            for (entry, index) in [(first, self.tail_first()), (last, self.last.index)] {
                if entry.id.index != index || self.term_at(index) != Some(entry.id.term) {
                    return Err(format!("entry {} stands where {index} should", entry.id));
                }
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

    fn push(log: &mut Log, term: u64, index: u64) {
        let data = Bytes::from_static(b"x");
        let entry = Entry::new(Term(term), LogIndex(index), EntryKind::Command, data);
        log.push([entry].into(), 0);
        log.check().unwrap();
    }

    /// A log with an entry of each of `terms`, from index 1 on.
    fn log(terms: &[u64]) -> Log {
        let mut log = Log::new(LogId::ZERO, LogId::ZERO, Vec::new(), Vec::new());
        for (term, index) in terms.iter().zip(1..) {
            push(&mut log, *term, index);
        }
        log
    }

    /// The same log in runs of other lengths: everything must be the same.
    fn in_runs(log: &Log, lengths: &[usize]) -> Log {
        let all = log.slice(log.tail_first(), log.last().index, usize::MAX, usize::MAX);
        let mut other = Log::new(LogId::ZERO, LogId::ZERO, Vec::new(), Vec::new());
        let mut from = 0;
        for length in lengths {
            let to = (from + length).min(all.len());
            // What lies before `from` in the allocation is no part of the run.
            other.push(Arc::from(&all[..to]), from);
            from = to;
        }
        other
    }

    #[test]
    fn it_makes_no_difference_in_which_runs_entries_came() {
        let whole = log(&[1, 1, 3, 3, 4, 4, 4]);
        for lengths in [&[7][..], &[3, 4], &[1, 5, 1], &[2, 2, 2, 1]] {
            for at in 1..=7 {
                let (mut a, mut b) = (whole.clone(), in_runs(&whole, lengths));
                assert_eq!(a, b);
                let bytes = |log: &Log| log.tail_bytes_between(LogIndex(at - 1), LogIndex(6));
                assert_eq!(bytes(&a), bytes(&b));
                let slice = |log: &Log| log.slice(LogIndex(at), LogIndex(7), 3, 70);
                assert_eq!(slice(&a), slice(&b));
                a.truncate(LogIndex(at + 1));
                b.truncate(LogIndex(at + 1));
                b.check().unwrap();
                assert_eq!(a, b);
                a.compact(LogIndex(at / 2));
                b.compact(LogIndex(at / 2));
                b.check().unwrap();
                assert_eq!(a, b);
            }
        }
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
    fn compaction_moves_the_start_and_keeps_the_rest() {
        for through in 0..=5 {
            let mut log = log(&[1, 1, 3, 3, 4]);
            let terms: Vec<_> = (0..=6).map(|i| log.term_at(LogIndex(i))).collect();
            log.compact(LogIndex(through));
            log.check().unwrap();
            assert_eq!(log.start().index, LogIndex(through));
            assert_eq!(log.tail_first(), LogIndex(through + 1));
            for i in 0..=6 {
                let known = (i >= through).then_some(terms[i as usize]).flatten();
                assert_eq!(log.term_at(LogIndex(i)), known, "{i} behind {through}");
            }
            push(&mut log, 4, 6);
            log.check().unwrap();
            log.truncate(LogIndex(through + 1));
            log.check().unwrap();
            assert_eq!(log.last(), log.start());
        }
        let mut log = log(&[1, 1]);
        log.reset(id(7, 30));
        log.check().unwrap();
        push(&mut log, 7, 31);
        log.check().unwrap();
        assert_eq!(
            (log.last_at_most(LogIndex(40), Term(6)), log.last()),
            (id(7, 30), id(7, 31))
        );
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
