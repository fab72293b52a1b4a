//! What a store knows of its log without reading it: where it begins, where each term begins, where it ends,
//! and what the snapshot covers.
//!
//! Invariants:
//! - The log holds what lies behind `start`. `start` is at or before `covered`, and `covered` at or before
//!   `last`; a snapshot's last entry is in the log, or is its start.
//! - `terms` holds the first entry in the log of each run of entries of one term; terms and indexes both rise.
//! - `last` is at or behind the last of `terms` and of its term, or is `start`, and then `terms` is empty.

use raft_core::{HardState, LogId, LogIndex, Term};

use crate::{Batch, Misfit};

/// The log's outline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    start: LogId,
    terms: Vec<LogId>,
    last: LogId,
    covered: LogId,
}

impl Shape {
    /// An empty log that begins behind `start`, with a snapshot through `covered`.
    pub(crate) fn new(start: LogId, covered: LogId) -> Self {
        Self {
            start,
            terms: Vec::new(),
            last: start,
            covered,
        }
    }

    /// The last entry that the log does not hold any more.
    pub(crate) fn start(&self) -> LogId {
        self.start
    }

    /// The last entry that the snapshot covers.
    pub(crate) fn covered(&self) -> LogId {
        self.covered
    }

    pub(crate) fn terms(&self) -> &[LogId] {
        &self.terms
    }

    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    /// The entry's name, of `start` and of what the log holds.
    pub(crate) fn id_at(&self, index: LogIndex) -> Option<LogId> {
        if index == self.start.index {
            return Some(self.start);
        }
        if index < self.start.index || index > self.last.index {
            return None;
        }
        let behind = self.terms.partition_point(|first| first.index <= index);
        let term = self.terms.get(behind.checked_sub(1)?)?.term;
        Some(LogId::new(term, index))
    }

    /// Whether the log holds the entry, or has held it: what lies before its start, a snapshot stands for.
    pub(crate) fn has(&self, id: LogId) -> bool {
        id.index < self.start.index || self.id_at(id.index) == Some(id)
    }

    /// The last entry that a cut from `from` on leaves.
    pub(crate) fn last_below(&self, from: LogIndex) -> LogId {
        if from > self.last.index {
            return self.last;
        }
        self.id_at(from.prev()).unwrap_or(self.start)
    }

    /// Cuts the log without asking what may be cut.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        self.last = self.last_below(from);
        self.terms.retain(|first| first.index <= self.last.index);
    }

    /// Adds a run of entries of one term that follows the last entry.
    pub(crate) fn append(&mut self, first: LogId, last: LogIndex) {
        if self.terms.is_empty() || first.term != self.last.term {
            self.terms.push(first);
        }
        self.last = LogId::new(first.term, last);
    }

    /// Lets the log begin behind an entry that it holds.
    fn compact(&mut self, start: LogId) {
        let behind = self
            .terms
            .partition_point(|first| first.index <= start.index);
        if let Some(of_start) = behind.checked_sub(1) {
            let next = self.terms.get(behind).map(|next| next.index);
            self.terms.drain(..of_start);
            if next.unwrap_or(self.last.index.next()) == start.index.next() {
                self.terms.remove(0);
            } else {
                self.terms[0].index = start.index.next();
            }
        }
        self.start = start;
    }

    /// What the log is after `batch`, if it fits the log, and the term and vote that are stored.
    pub(crate) fn after(&self, stored: HardState, batch: &Batch) -> Result<Self, Misfit> {
        if let Some(to) = batch.hard_state() {
            let back = to.term < stored.term
                || to.term == stored.term
                    && stored.voted_for.is_some()
                    && to.voted_for != stored.voted_for;
            if back {
                return Err(Misfit::HardStateBack { from: stored, to });
            }
        }
        let mut shape = match batch.replaced() {
            Some(start) => Self::new(start, start),
            None => self.clone(),
        };
        if let Some(from) = batch.truncate_from() {
            if from <= shape.covered.index {
                let covered = shape.covered;
                return Err(Misfit::CutOfCovered { from, covered });
            }
            shape.truncate(from);
        }
        for entry in batch.entries() {
            let last = shape.last;
            let follows = entry.id.index == last.index.next()
                && entry.id.term >= last.term
                && entry.id.term > Term(0);
            if !follows {
                let found = entry.id;
                return Err(Misfit::Gap { found, last });
            }
            shape.append(entry.id, entry.id.index);
        }
        if let Some((snapshot, log_start)) = batch.snapshot() {
            let last = snapshot.last;
            if last.index <= self.covered.index {
                let stored = self.covered;
                return Err(Misfit::SnapshotBack { last, stored });
            }
            for named in [log_start, last] {
                let held = shape.id_at(named.index) == Some(named);
                if !held || named.index > last.index {
                    return Err(Misfit::SnapshotOutside {
                        missing: named,
                        start: shape.start,
                        end: shape.last,
                    });
                }
            }
            shape.compact(log_start);
            shape.covered = last;
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), LogIndex(index))
    }

    fn shape() -> Shape {
        let mut shape = Shape::default();
        shape.append(id(1, 1), LogIndex(3));
        shape.append(id(1, 4), LogIndex(4));
        shape.append(id(3, 5), LogIndex(9));
        shape
    }

    #[test]
    fn runs_of_one_term_are_one() {
        assert_eq!(shape().terms(), [id(1, 1), id(3, 5)]);
        assert_eq!(shape().last(), id(3, 9));
    }

    #[test]
    fn every_position_has_its_term() {
        let shape = shape();
        assert_eq!(shape.id_at(LogIndex(0)), Some(LogId::ZERO));
        assert_eq!(shape.id_at(LogIndex(4)), Some(id(1, 4)));
        assert_eq!(shape.id_at(LogIndex(5)), Some(id(3, 5)));
        assert_eq!(shape.id_at(LogIndex(10)), None);
    }

    #[test]
    fn a_cut_takes_whole_terms_with_it() {
        let mut shape = shape();
        shape.truncate(LogIndex(20));
        assert_eq!(shape.last(), id(3, 9));
        shape.truncate(LogIndex(5));
        assert_eq!((shape.last(), shape.terms()), (id(1, 4), &[id(1, 1)][..]));
        shape.truncate(LogIndex(0));
        assert_eq!(shape, Shape::default());
    }

    #[test]
    fn a_compaction_keeps_the_terms_of_what_is_left() {
        let compacted = |start| {
            let mut shape = shape();
            shape.compact(start);
            assert_eq!(shape.id_at(start.index), Some(start));
            assert_eq!(shape.id_at(start.index.prev()), None);
            assert_eq!(shape.last(), id(3, 9));
            shape.terms().to_vec()
        };
        assert_eq!(compacted(id(1, 2)), [id(1, 3), id(3, 5)]);
        assert_eq!(compacted(id(1, 4)), [id(3, 5)]);
        assert_eq!(compacted(id(3, 5)), [id(3, 6)]);
        assert_eq!(compacted(id(3, 9)), []);
    }
}
