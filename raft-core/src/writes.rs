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

/// With so many unfinished writes a node takes no messages that want another one: its disk is stuck, and its
/// peers will ask again.
pub(crate) const WRITES_MAX: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writes {
    last: WriteId,
    unfinished: VecDeque<Unfinished>,
    durable: LogIndex,
    /// The tick at which a write was finished last.
    finished: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Unfinished {
    write: WriteId,
    /// How far the log is durable when it is done.
    through: LogIndex,
    /// The tick at which it began.
    since: u64,
}

impl Writes {
    pub(crate) fn new(durable: LogIndex) -> Self {
        Self {
            last: WriteId(0),
            unfinished: VecDeque::new(),
            durable,
            finished: 0,
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

    /// Begins a write after which the log ends at `through`, at tick `since`, and names it.
    pub(crate) fn begin(&mut self, through: LogIndex, since: u64) -> WriteId {
        let write = self.next();
        self.last = write;
        self.unfinished.push_back(Unfinished {
            write,
            through,
            since,
        });
        write
    }

    /// Whether [`WRITES_MAX`] are unfinished.
    pub(crate) fn is_full(&self) -> bool {
        self.unfinished.len() >= WRITES_MAX
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Since which tick something waits and nothing was finished.
    pub(crate) fn stuck_since(&self) -> Option<u64> {
        let oldest = self.unfinished.front();
        oldest.map(|oldest| oldest.since.max(self.finished))
    }

    /// Whether `write`, which was begun, is durable.
    pub(crate) fn is_finished(&self, write: WriteId) -> bool {
        self.unfinished
            .front()
            .is_none_or(|oldest| oldest.write > write)
    }

    /// The log was cut at `from`: nothing that was begun before may confirm it or what is behind it.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        self.durable = self.durable.min(from.prev());
        for unfinished in &mut self.unfinished {
            unfinished.through = unfinished.through.min(from.prev());
        }
    }

    /// All writes up to `write` are durable, at tick `now`. Says whether it was the answer to any.
    pub(crate) fn finish(&mut self, write: WriteId, now: u64) -> bool {
        let mut any = false;
        while let Some(oldest) = self.unfinished.front()
            && oldest.write <= write
        {
            self.durable = self.durable.max(oldest.through);
            self.unfinished.pop_front();
            self.finished = now;
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
        writes.begin(LogIndex(5), 0);
        let second = writes.begin(LogIndex(9), 0);
        assert_eq!(writes.durable(), LogIndex(3));
        assert!(writes.finish(second, 0));
        assert_eq!(writes.durable(), LogIndex(9));
        assert!(!writes.finish(second, 0));
    }

    /// etcd's asynchronous storage writes had to solve this ABA: written, cut off, written again.
    #[test]
    fn the_answer_to_an_overwritten_entry_does_not_count_for_its_successor() {
        let mut writes = Writes::new(LogIndex(3));
        let first = writes.begin(LogIndex(5), 0);
        writes.truncate(LogIndex(4));
        let second = writes.begin(LogIndex(5), 0);
        writes.finish(first, 0);
        assert_eq!(writes.durable(), LogIndex(3));
        writes.finish(second, 0);
        assert_eq!(writes.durable(), LogIndex(5));
    }
}
