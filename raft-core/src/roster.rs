//! The configurations of the log: the one in effect, and those that it goes back to when the log is cut.
//!
//! Invariants:
//! - Positions grow strictly; the first one is at or before everything that can still be cut off.
//! - There is always one: the initial configuration stands at position 0.
//! - All but the latest are committed, also where a node that was just started does not know how far its log is.

use std::sync::Arc;

use crate::LogIndex;
use crate::membership::Configuration;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Roster(Vec<(LogIndex, Arc<Configuration>)>);

impl Roster {
    /// `base` holds from position `at` on, until a later one does.
    pub(crate) fn new(
        at: LogIndex,
        base: Arc<Configuration>,
        later: impl IntoIterator<Item = (LogIndex, Configuration)>,
    ) -> Self {
        let mut all = vec![(at, base)];
        let later = later.into_iter().filter(|(index, _)| *index > at);
        all.extend(later.map(|(index, configuration)| (index, Arc::new(configuration))));
        Self(all)
    }

    /// The last one in the log, which is in effect (paper §6).
    pub(crate) fn latest(&self) -> &Arc<Configuration> {
        &self.0[self.0.len() - 1].1
    }

    /// Where it stands.
    pub(crate) fn latest_index(&self) -> LogIndex {
        self.0[self.0.len() - 1].0
    }

    /// The one that was in effect at `index`, if it is still known.
    pub(crate) fn at(&self, index: LogIndex) -> Option<&Arc<Configuration>> {
        let behind = self.0.partition_point(|(at, _)| *at <= index);
        behind.checked_sub(1).map(|at| &self.0[at].1)
    }

    /// Those that may still be in effect, should the log be cut behind `commit`: at least one.
    pub(crate) fn possible(&self, commit: LogIndex) -> impl Iterator<Item = &Configuration> {
        let possible = &self.0[self.last_until(commit)..];
        possible.iter().map(|(_, configuration)| &**configuration)
    }

    /// The one that is in effect if nothing behind `commit` is.
    pub(crate) fn committed(&self, commit: LogIndex) -> &Configuration {
        &self.0[self.last_until(commit)].1
    }

    /// The last that is committed, if the log is through `index`. All but the latest are, wherever they stand: no leader
    /// appends one before that.
    fn last_until(&self, index: LogIndex) -> usize {
        let behind = self.0.partition_point(|(at, _)| *at <= index);
        behind.saturating_sub(1).max(self.0.len().saturating_sub(2))
    }

    /// The log holds `configuration` at `index`, its new end.
    pub(crate) fn push(&mut self, index: LogIndex, configuration: Configuration) {
        self.0.push((index, Arc::new(configuration)));
    }

    /// The log was cut at `from`. Says whether another configuration is in effect now.
    pub(crate) fn truncate(&mut self, from: LogIndex) -> bool {
        let left = self.0.partition_point(|(at, _)| *at < from).max(1);
        let changed = left < self.0.len();
        self.0.truncate(left);
        changed
    }

    /// Nothing at or before `through` can be cut off, or asked for, any more.
    pub(crate) fn compact(&mut self, through: LogIndex) {
        let behind = self.0.partition_point(|(at, _)| *at <= through);
        self.0.drain(..behind.saturating_sub(1));
    }

    /// A snapshot replaced the log.
    pub(crate) fn reset(&mut self, at: LogIndex, configuration: Arc<Configuration>) {
        self.0 = vec![(at, configuration)];
    }
}
