//! What a store knows of its log without reading it: where each term begins, and where the log ends.
//!
//! Invariants:
//! - `terms` holds the first entry of each run of entries of one term; terms and indexes both rise.
//! - `last` is at or behind the last of `terms` and of its term; both are empty together.

use raft_core::{HardState, LogId, LogIndex, Term};

use crate::{Batch, Misfit};

/// The log's outline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    terms: Vec<LogId>,
    last: LogId,
}

impl Shape {
    pub(crate) fn terms(&self) -> &[LogId] {
        &self.terms
    }

    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    /// The entry's name; [`LogId::ZERO`] for index 0, none for what is not in the log.
    pub(crate) fn id_at(&self, index: LogIndex) -> Option<LogId> {
        if index == LogIndex::ZERO {
            return Some(LogId::ZERO);
        }
        if index > self.last.index {
            return None;
        }
        let behind = self.terms.partition_point(|first| first.index <= index);
        let term = self.terms.get(behind.checked_sub(1)?)?.term;
        Some(LogId::new(term, index))
    }

    /// The last entry that a cut from `from` on leaves.
    pub(crate) fn last_below(&self, from: LogIndex) -> LogId {
        self.id_at(from.prev()).unwrap_or(self.last)
    }

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

    pub(crate) fn apply(&mut self, batch: &Batch) {
        if let Some(from) = batch.truncate_from() {
            self.truncate(from);
        }
        for entry in batch.entries() {
            self.append(entry.id, entry.id.index);
        }
    }

    /// Whether `batch` fits the log, and the term and vote that are stored.
    pub(crate) fn check(&self, stored: HardState, batch: &Batch) -> Result<(), Misfit> {
        if let Some(to) = batch.hard_state() {
            let back = to.term < stored.term
                || to.term == stored.term
                    && stored.voted_for.is_some()
                    && to.voted_for != stored.voted_for;
            if back {
                return Err(Misfit::HardStateBack { from: stored, to });
            }
        }
        let mut last = batch
            .truncate_from()
            .map_or(self.last, |from| self.last_below(from));
        for entry in batch.entries() {
            let follows = entry.id.index == last.index.next()
                && entry.id.term >= last.term
                && entry.id.term > Term(0);
            if !follows {
                let found = entry.id;
                return Err(Misfit::Gap { found, last });
            }
            last = entry.id;
        }
        Ok(())
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
}
