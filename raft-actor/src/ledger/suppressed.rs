//! Which entries of the log hold a command that was not run, so that a replay equals what was delivered live.
//!
//! Invariant: ranges in ascending order with a gap between any two, all from `from` on. There are never more of
//! them than entries in the log, because they are forgotten with those.

use std::collections::VecDeque;

use raft_core::LogIndex;

#[derive(Clone, Debug)]
pub(super) struct Suppressed {
    /// What is before this is not known any more.
    pub(super) from: LogIndex,
    /// First and last index of each run of suppressed commands.
    pub(super) ranges: VecDeque<(LogIndex, LogIndex)>,
}

impl Suppressed {
    pub(super) fn new() -> Self {
        Self {
            from: LogIndex(1),
            ranges: VecDeque::new(),
        }
    }

    /// Adds `index`, which is above all others.
    pub(super) fn push(&mut self, index: LogIndex) {
        if index < self.from {
            return;
        }
        match self.ranges.back_mut() {
            Some((_, last)) if last.next() == index => *last = index,
            _ => self.ranges.push_back((index, index)),
        }
    }

    pub(super) fn contains(&self, index: LogIndex) -> bool {
        let behind = self.ranges.partition_point(|(_, last)| *last < index);
        self.ranges
            .get(behind)
            .is_some_and(|(first, _)| *first <= index)
    }

    /// Forgets what is before `first`. Nothing brings it back.
    pub(super) fn forget_before(&mut self, first: LogIndex) {
        self.from = self.from.max(first);
        while self
            .ranges
            .front()
            .is_some_and(|(_, last)| *last < self.from)
        {
            self.ranges.pop_front();
        }
        if let Some((range_first, _)) = self.ranges.front_mut() {
            *range_first = self.from.max(*range_first);
        }
    }
}
