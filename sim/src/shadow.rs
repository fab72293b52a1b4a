//! A node's log as its own effects tell it, kept beside the node so that each step is checked against it
//! and not against what the node says of itself.
//!
//! Invariant: it holds what the node's disk will hold when all its pending writes are durable.

use std::collections::VecDeque;

use raft_core::membership::Configuration;
use raft_core::{Entry, EntryKind, LogId, LogIndex, SnapshotMeta, SnapshotWrite, Term};

use crate::disk::Disk;

#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    start: LogId,
    terms: VecDeque<Term>,
    sizes: VecDeque<usize>,
    /// Where the configuration stands that cannot be cut off any more, and which it is.
    base: (LogIndex, Configuration),
    configurations: Vec<(LogIndex, Configuration)>,
}

impl Shadow {
    pub(crate) fn of(disk: &Disk, initial: &Configuration) -> Self {
        let base = match &disk.snapshot {
            Some(snapshot) => (
                snapshot.last.index,
                Configuration::clone(&snapshot.configuration),
            ),
            None => (LogIndex::ZERO, initial.clone()),
        };
        let mut shadow = Self {
            start: disk.log_start,
            terms: VecDeque::new(),
            sizes: VecDeque::new(),
            base,
            configurations: Vec::new(),
        };
        for entry in &disk.log {
            shadow.push(entry);
        }
        shadow
    }

    pub(crate) fn start(&self) -> LogId {
        self.start
    }

    pub(crate) fn last(&self) -> LogId {
        let index = LogIndex(self.start.index.0 + self.terms.len() as u64);
        self.id(index).unwrap_or(self.start)
    }

    /// The entry at `index`; none if it is compacted, or not there.
    pub(crate) fn id(&self, index: LogIndex) -> Option<LogId> {
        if index == self.start.index {
            return Some(self.start);
        }
        let at = index.0.checked_sub(self.start.index.0 + 1)?;
        self.terms
            .get(at as usize)
            .map(|term| LogId::new(*term, index))
    }

    /// What the entries of `term` behind `after` and before `end` count for.
    pub(crate) fn bytes_of(&self, term: Term, after: LogIndex, end: LogIndex) -> usize {
        let at =
            |index: u64| (index.saturating_sub(self.start.index.0) as usize).min(self.sizes.len());
        let range = at(after.0)..at(end.0.saturating_sub(1)).max(at(after.0));
        let entries = self.terms.range(range.clone()).zip(self.sizes.range(range));
        entries
            .filter(|(of, _)| **of == term)
            .map(|(_, bytes)| bytes)
            .sum()
    }

    pub(crate) fn push(&mut self, entry: &Entry) {
        self.terms.push_back(entry.id.term);
        self.sizes.push_back(entry.size_bytes());
        if entry.kind == EntryKind::Configuration && entry.id.index > self.base.0 {
            let configuration = Configuration::decode(&entry.data).unwrap();
            self.configurations.push((entry.id.index, configuration));
        }
    }

    /// Cuts `from` and all behind it. Says whether another configuration is in effect now.
    pub(crate) fn truncate(&mut self, from: LogIndex) -> bool {
        let kept = from.0.saturating_sub(self.start.index.0 + 1) as usize;
        self.terms.truncate(kept);
        self.sizes.truncate(kept);
        let before = self.configurations.len();
        self.configurations.retain(|(at, _)| *at < from);
        self.configurations.len() < before
    }

    pub(crate) fn install(&mut self, write: &SnapshotWrite) {
        let SnapshotWrite {
            snapshot,
            log_start,
            replaces_log,
        } = write;
        if *replaces_log {
            self.terms.clear();
            self.sizes.clear();
            self.configurations.clear();
            self.start = *log_start;
        }
        while self.start.index < log_start.index {
            let Some(term) = self.terms.pop_front() else {
                break;
            };
            self.sizes.pop_front();
            self.start = LogId::new(term, self.start.index.next());
        }
        let SnapshotMeta {
            last,
            configuration,
        } = snapshot;
        self.configurations.retain(|(at, _)| *at > last.index);
        self.base = (last.index, Configuration::clone(configuration));
    }

    /// The configuration in effect: the last one in the log (paper §6).
    pub(crate) fn configuration(&self) -> &Configuration {
        self.configurations.last().map_or(&self.base.1, |(_, c)| c)
    }
}
