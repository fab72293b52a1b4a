//! What is on its way to this node's disk, and how far the log is durable.
//!
//! The storage names the write that it finished, not a position: a position can be written, cut off and
//! written again, even with the same term, and the answer to the first write must not count for the
//! second. Invariants:
//! - `durable` and each unfinished write's `through` never exceed what the log holds now, because a
//!   truncation lowers them all.
//! - `through` of a later write is never below that of an earlier one.

use std::collections::VecDeque;

use crate::{LogIndex, WriteId};

#[derive(Clone, Debug)]
pub(crate) struct Writes {
    last: WriteId,
    unfinished: VecDeque<(WriteId, LogIndex)>,
    durable: LogIndex,
}

impl Writes {
    pub(crate) fn new(durable: LogIndex) -> Self {
        Self {
            last: WriteId(0),
            unfinished: VecDeque::new(),
            durable,
        }
    }

    /// How far the log is durable on this node.
    pub(crate) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The name that the next write will have.
    pub(crate) fn next(&self) -> WriteId {
        WriteId(self.last.0 + 1)
    }

    /// Begins a write after which the log ends at `last_index`, and names it.
    pub(crate) fn begin(&mut self, last_index: LogIndex) -> WriteId {
        self.last = self.next();
        self.unfinished.push_back((self.last, last_index));
        self.last
    }

    /// The log was cut at `from`: nothing that was begun before may confirm it or what is behind it.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        self.durable = self.durable.min(from.prev());
        for (_, through) in &mut self.unfinished {
            *through = (*through).min(from.prev());
        }
    }

    /// All writes up to `write` are durable. Says whether it was the answer to any.
    pub(crate) fn finish(&mut self, write: WriteId) -> bool {
        let mut any = false;
        while let Some((id, through)) = self.unfinished.front().copied()
            && id <= write
        {
            self.unfinished.pop_front();
            self.durable = self.durable.max(through);
            any = true;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_write_finishes_all_before_it() {
        let mut writes = Writes::new(LogIndex(3));
        writes.begin(LogIndex(5));
        let second = writes.begin(LogIndex(9));
        assert_eq!(writes.durable(), LogIndex(3));
        assert!(writes.finish(second));
        assert_eq!(writes.durable(), LogIndex(9));
        assert!(!writes.finish(second));
    }

    /// etcd's asynchronous storage writes had to solve this ABA: written, cut off, written again.
    #[test]
    fn the_answer_to_an_overwritten_entry_does_not_count_for_its_successor() {
        let mut writes = Writes::new(LogIndex(3));
        let first = writes.begin(LogIndex(5));
        writes.truncate(LogIndex(4));
        let second = writes.begin(LogIndex(5));
        writes.finish(first);
        assert_eq!(writes.durable(), LogIndex(3));
        writes.finish(second);
        assert_eq!(writes.durable(), LogIndex(5));
    }
}
