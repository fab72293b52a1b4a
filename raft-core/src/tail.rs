//! The log's last entries, in the runs in which they came: what was proposed together is kept, written, sent
//! and handed out as one allocation that everybody shares.
//!
//! Invariants:
//! - Runs follow each other without a gap, none is empty, and the last one ends at the log's end.
//! - How entries are cut into runs makes no difference to anybody: tails with equal entries are equal.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::{Entry, LogIndex};

#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    runs: VecDeque<Run>,
    len: usize,
    bytes: usize,
}

/// `all[from..to]`.
#[derive(Clone, Debug)]
struct Run {
    all: Arc<[Entry]>,
    from: usize,
    to: usize,
    bytes: usize,
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

    /// Those of its entries that are neither before `from` nor behind `through`.
    fn between(&self, from: LogIndex, through: LogIndex) -> &[Entry] {
        let entries = self.entries();
        let start = from.0.saturating_sub(self.first().0) as usize;
        let end = (through.0.saturating_add(1)).saturating_sub(self.first().0) as usize;
        let end = end.min(entries.len());
        &entries[start.min(end)..end]
    }
}

fn bytes_of(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::size_bytes).sum()
}

impl Tail {
    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Its first and its last entry.
    pub(crate) fn ends(&self) -> Option<(&Entry, &Entry)> {
        let (first, last) = (self.runs.front()?, self.runs.back()?);
        Some((&first.all[first.from], &last.all[last.to - 1]))
    }

    /// All entries, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.runs.iter().flat_map(Run::entries)
    }

    /// Adds `all[from..]` behind the last entry.
    pub(crate) fn push(&mut self, all: Arc<[Entry]>, from: usize) {
        let (to, bytes) = (all.len(), bytes_of(&all[from..]));
        if from < to {
            self.len += to - from;
            self.bytes += bytes;
            self.runs.push_back(Run {
                all,
                from,
                to,
                bytes,
            });
        }
    }

    /// Cuts the entry at `from`, and all behind it.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        while let Some(mut run) = self.runs.pop_back() {
            self.len -= run.entries().len();
            self.bytes -= run.bytes;
            if run.first() < from {
                run.to = run.to.min(run.from + (from.0 - run.first().0) as usize);
                run.bytes = bytes_of(run.entries());
                self.len += run.entries().len();
                self.bytes += run.bytes;
                self.runs.push_back(run);
                return;
            }
        }
    }

    /// Forgets all entries up to `through`.
    pub(crate) fn forget(&mut self, through: LogIndex) {
        while let Some(mut run) = self.runs.pop_front() {
            self.len -= run.entries().len();
            self.bytes -= run.bytes;
            if run.last() > through {
                run.from += run.between(LogIndex::ZERO, through).len();
                run.bytes = bytes_of(run.entries());
                self.len += run.entries().len();
                self.bytes += run.bytes;
                self.runs.push_front(run);
                return;
            }
        }
    }

    /// Forgets runs at the front, as long as there are more than `bytes_max` and they end at or before
    /// `through`.
    pub(crate) fn shrink(&mut self, bytes_max: usize, through: LogIndex) {
        while self.bytes > bytes_max
            && let Some(run) = self.runs.front()
            && run.last() <= through
        {
            self.len -= run.entries().len();
            self.bytes -= run.bytes;
            self.runs.pop_front();
        }
    }

    /// The bytes of those entries that are neither before `from` nor behind `through`.
    pub(crate) fn bytes_between(&self, from: LogIndex, through: LogIndex) -> usize {
        let run = |run: &Run| {
            if from <= run.first() && run.last() <= through {
                run.bytes
            } else {
                bytes_of(run.between(from, through))
            }
        };
        self.runs_from(from)
            .take_while(|run| run.first() <= through)
            .map(run)
            .sum()
    }

    /// The runs from the one on that holds `from`.
    fn runs_from(&self, from: LogIndex) -> impl Iterator<Item = &Run> {
        // Almost always the last run, or one close to it, of ten thousands.
        let near = self.runs.iter().rev().take(4);
        let behind = near.take_while(|run| run.last() >= from).count();
        let before = match behind {
            4 => self.runs.partition_point(|run| run.last() < from),
            _ => self.runs.len() - behind,
        };
        self.runs.range(before..)
    }

    /// The entries from `from` through `through`, up to `entries_max` of them and up to the one with which
    /// they reach `bytes_max`.
    pub(crate) fn slice(
        &self,
        from: LogIndex,
        through: LogIndex,
        entries_max: usize,
        bytes_max: usize,
    ) -> Arc<[Entry]> {
        let mut runs = self.runs_from(from).peekable();
        if let Some(run) = runs.peek()
            && run.first() == from
            && run.last() == through
            && run.entries().len() == run.all.len()
            && run.all.len() <= entries_max
            && run.bytes <= bytes_max
        {
            return Arc::clone(&run.all);
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in runs.flat_map(|run| run.between(from, through)) {
            if entries.len() >= entries_max || bytes >= bytes_max {
                break;
            }
            bytes += entry.size_bytes();
            entries.push(entry.clone());
        }
        Arc::from(entries)
    }
}

impl PartialEq for Tail {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for Tail {}

impl Hash for Tail {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len.hash(state);
        self.iter().for_each(|entry| entry.hash(state));
    }
}
