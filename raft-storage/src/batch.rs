//! One atomic, synced write, gathered from several [`Persist`](raft_core::Persist)s.
//!
//! Invariants:
//! - Carrying out a batch leaves the store exactly as carrying out, in order, all that was pushed into it.
//! - In this order a store reads it: term and vote; whether the log is replaced; the cut; the entries, which
//!   follow what is left without a gap; the snapshot, and where the log begins then.
//! - What a later push of the same batch takes away again is not in it.

use std::sync::Arc;

use raft_core::{Entry, HardState, LogId, LogIndex, SnapshotMeta, SnapshotWrite};

/// One atomic, synced write: what several Persists become.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    hard_state: Option<HardState>,
    /// Where the log began anew, if a snapshot took its place.
    replaced: Option<LogId>,
    truncate_from: Option<LogIndex>,
    /// What was appended, shared with the core, and how much of each still counts.
    appended: Vec<(Arc<[Entry]>, usize)>,
    snapshot: Option<(SnapshotMeta, LogId)>,
}

impl Batch {
    /// A batch of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a snapshot behind all that is in the batch. What else belongs to the same write is pushed after.
    pub fn push_snapshot(&mut self, write: SnapshotWrite) {
        let SnapshotWrite {
            snapshot,
            log_start,
            replaces_log,
        } = write;
        if replaces_log {
            self.appended.clear();
            self.truncate_from = None;
            self.replaced = Some(log_start);
        }
        self.snapshot = Some((snapshot, log_start));
    }

    /// Adds one write behind all that is in the batch: term and vote if they change, a cut of the log
    /// (this entry and all behind it go), and entries that follow what then is the last one.
    pub fn push(
        &mut self,
        hard_state: Option<HardState>,
        truncate_from: Option<LogIndex>,
        append: Arc<[Entry]>,
    ) {
        if let Some(hard_state) = hard_state {
            self.hard_state = Some(hard_state);
        }
        if let Some(from) = truncate_from {
            self.truncate(from);
        }
        if !append.is_empty() {
            let count = append.len();
            self.appended.push((append, count));
        }
    }

    fn truncate(&mut self, from: LogIndex) {
        let begins = self.entries().next().map(|entry| entry.id.index);
        if begins.is_none_or(|first| from <= first) {
            self.appended.clear();
            if self.replaced.is_none() {
                // A cut above an earlier one of the same batch finds nothing there that it could cut.
                self.truncate_from = Some(self.truncate_from.map_or(from, |cut| cut.min(from)));
            }
            return;
        }
        for (entries, count) in &mut self.appended {
            *count = entries[..*count].partition_point(|entry| entry.id.index < from);
        }
        self.appended.retain(|(_, count)| *count > 0);
    }

    /// The new term and vote.
    #[must_use]
    pub fn hard_state(&self) -> Option<HardState> {
        self.hard_state
    }

    /// The log goes as a whole, and begins anew behind this entry.
    #[must_use]
    pub fn replaced(&self) -> Option<LogId> {
        self.replaced
    }

    /// The first entry that goes. It may lie behind the end of the log, where it cuts nothing.
    #[must_use]
    pub fn truncate_from(&self) -> Option<LogIndex> {
        self.truncate_from
    }

    /// The entries to append, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.appended
            .iter()
            .flat_map(|(entries, count)| &entries[..*count])
    }

    /// The same in the runs in which they came, and how many of each.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&Arc<[Entry]>, usize)> {
        self.appended
            .iter()
            .map(|(entries, count)| (entries, *count))
    }

    /// The snapshot that the store starts from after this, and the last entry that the log does not hold any
    /// more then.
    #[must_use]
    pub fn snapshot(&self) -> Option<(&SnapshotMeta, LogId)> {
        let (snapshot, log_start) = self.snapshot.as_ref()?;
        Some((snapshot, *log_start))
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none()
            && self.truncate_from.is_none()
            && self.appended.is_empty()
            && self.snapshot.is_none()
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{EntryKind, NodeId, Term};

    use super::*;

    fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Arc<[Entry]> {
        indexes
            .map(|index| {
                Entry::new(
                    Term(term),
                    LogIndex(index),
                    EntryKind::Noop,
                    [].as_slice().into(),
                )
            })
            .collect()
    }

    fn names(batch: &Batch) -> Vec<(u64, u64)> {
        batch
            .entries()
            .map(|entry| (entry.id.term.0, entry.id.index.0))
            .collect()
    }

    #[test]
    fn a_cut_into_the_batchs_own_entries_writes_them_never() {
        let mut batch = Batch::new();
        batch.push(None, None, entries(1, 5..=7));
        batch.push(None, None, entries(1, 8..=9));
        batch.push(None, Some(LogIndex(7)), entries(2, 7..=7));
        assert_eq!(names(&batch), [(1, 5), (1, 6), (2, 7)]);
        assert_eq!(batch.truncate_from(), None, "nothing on disk is cut");
    }

    #[test]
    fn a_cut_below_the_batchs_own_entries_cuts_the_disk() {
        let mut batch = Batch::new();
        batch.push(None, Some(LogIndex(6)), entries(1, 6..=7));
        batch.push(None, Some(LogIndex(4)), entries(2, 4..=4));
        assert_eq!(names(&batch), [(2, 4)]);
        assert_eq!(batch.truncate_from(), Some(LogIndex(4)));
    }

    #[test]
    fn a_second_cut_above_the_first_changes_nothing_on_disk() {
        let mut batch = Batch::new();
        batch.push(None, Some(LogIndex(3)), entries(1, 3..=3));
        batch.push(None, Some(LogIndex(3)), [].into());
        batch.push(None, Some(LogIndex(5)), [].into());
        assert_eq!(names(&batch), []);
        assert_eq!(batch.truncate_from(), Some(LogIndex(3)));
    }

    #[test]
    fn a_snapshot_in_the_logs_place_takes_what_the_batch_had_before_it() {
        let snapshot = |index, replaces_log| SnapshotWrite {
            snapshot: SnapshotMeta {
                last: LogId::new(Term(1), LogIndex(index)),
                ..SnapshotMeta::default()
            },
            log_start: LogId::new(Term(1), LogIndex(index)),
            replaces_log,
        };
        let mut batch = Batch::new();
        batch.push(None, Some(LogIndex(4)), entries(1, 4..=7));
        batch.push_snapshot(snapshot(20, true));
        batch.push(None, None, entries(1, 21..=23));
        batch.push(None, Some(LogIndex(21)), entries(2, 21..=22));
        batch.push_snapshot(snapshot(21, false));
        assert_eq!(names(&batch), [(2, 21), (2, 22)]);
        assert_eq!(batch.truncate_from(), None, "there is nothing to cut");
        assert_eq!(batch.replaced(), Some(LogId::new(Term(1), LogIndex(20))));
        let (snapshot, log_start) = batch.snapshot().unwrap();
        assert_eq!((snapshot.last.index.0, log_start.index.0), (21, 21));
    }

    #[test]
    fn the_last_term_and_vote_win() {
        let vote = |term, node: Option<u64>| HardState {
            term: Term(term),
            voted_for: node.map(NodeId),
        };
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.push(Some(vote(3, Some(1))), None, [].into());
        batch.push(None, None, [].into());
        batch.push(Some(vote(4, None)), None, [].into());
        assert_eq!(batch.hard_state(), Some(vote(4, None)));
        assert!(!batch.is_empty());
    }
}
