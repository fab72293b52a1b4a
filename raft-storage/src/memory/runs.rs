//! A log in the runs in which it was written, shared with whoever else has them.
//!
//! Invariants:
//! - Runs follow each other without a gap, and none is empty.
//! - What is cut from the beginning is let go of piece by piece: a million entries at once take half a second.

use std::collections::VecDeque;
use std::sync::Arc;

use raft_core::{Entry, LogIndex};

#[derive(Default)]
pub(super) struct Runs {
    runs: VecDeque<Run>,
    cut: VecDeque<Run>,
}

/// `all[from..to]`.
struct Run {
    all: Arc<[Entry]>,
    from: usize,
    to: usize,
}

impl Run {
    fn entries(&self) -> &[Entry] {
        &self.all[self.from..self.to]
    }

    fn first(&self) -> LogIndex {
        self.all[self.from].id.index
    }

    fn last(&self) -> LogIndex {
        self.all[self.to - 1].id.index
    }

    /// Where the entry at `index`, which is not behind this run, is in `all`.
    fn place(&self, index: LogIndex) -> usize {
        self.from + index.0.saturating_sub(self.first().0) as usize
    }
}

impl Runs {
    /// Adds the first `count` of `all` behind the last entry.
    pub(super) fn push(&mut self, all: &Arc<[Entry]>, count: usize) {
        if count > 0 {
            let all = Arc::clone(all);
            self.runs.push_back(Run {
                all,
                from: 0,
                to: count,
            });
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.runs.iter().flat_map(Run::entries)
    }

    /// Those at `from` and behind.
    pub(super) fn since(&self, from: LogIndex) -> impl Iterator<Item = &Entry> {
        let at = self.runs.partition_point(|run| run.last() < from);
        let runs = self.runs.range(at..);
        runs.flat_map(move |run| &run.all[run.place(from)..run.to])
    }

    /// Takes away the entry at `from` and all behind it.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        while self.runs.back().is_some_and(|run| from <= run.first()) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut() {
            run.to = run.place(from).min(run.to);
        }
    }

    /// Cuts all up to and including the entry at `through`.
    pub(super) fn cut(&mut self, through: LogIndex) {
        let whole = self.runs.partition_point(|run| run.last() <= through);
        self.cut.extend(self.runs.drain(..whole));
        if let Some(run) = self.runs.front_mut() {
            run.from = run.place(through.next());
        }
    }

    /// Cuts all.
    pub(super) fn clear(&mut self) {
        self.cut.append(&mut self.runs);
    }

    /// Lets go of what was cut: of as many as there are in a run at once, and of `count` at least.
    pub(super) fn let_go(&mut self, count: usize) {
        let mut gone = 0;
        while gone < count
            && let Some(run) = self.cut.pop_front()
        {
            gone += run.entries().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{EntryKind, Term};

    use super::*;

    fn run(indexes: std::ops::Range<u64>) -> Arc<[Entry]> {
        let entry = |index| Entry::new(Term(1), LogIndex(index), EntryKind::Command, Bytes::new());
        indexes.map(entry).collect()
    }

    fn log() -> Runs {
        let mut log = Runs::default();
        log.push(&run(1..5), 4);
        log.push(&run(5..9), 2);
        log.push(&run(7..8), 0);
        log.push(&run(7..9), 2);
        log
    }

    fn indexes<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<u64> {
        entries.map(|entry| entry.id.index.0).collect()
    }

    #[test]
    fn is_read_from_anywhere() {
        let log = log();
        assert_eq!(indexes(log.iter()), (1..9).collect::<Vec<_>>());
        for from in 0..12 {
            let since = (from.max(1)..9).collect::<Vec<_>>();
            assert_eq!(indexes(log.since(LogIndex(from))), since, "from {from}");
        }
    }

    #[test]
    fn is_cut_at_either_end_within_a_run_and_between() {
        for cut in 0..10 {
            for from in 1..12 {
                let mut log = log();
                log.truncate(LogIndex(from));
                log.cut(LogIndex(cut));
                let left = (cut + 1..from.min(9)).collect::<Vec<_>>();
                assert_eq!(
                    indexes(log.iter()),
                    left,
                    "cut {cut}, truncated from {from}"
                );
            }
        }
    }

    #[test]
    fn what_was_cut_goes_run_by_run() {
        let first = run(1..5);
        let mut log = Runs::default();
        log.push(&first, 4);
        log.push(&run(5..9), 4);
        log.clear();
        assert_eq!(indexes(log.iter()), []);
        assert_eq!(Arc::strong_count(&first), 2);
        log.let_go(1);
        assert_eq!(Arc::strong_count(&first), 1);
        assert_eq!(log.cut.len(), 1);
        log.let_go(100);
        assert!(log.cut.is_empty());
    }
}
