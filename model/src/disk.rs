//! A disk that is fake and yet real: what is written is pending until it is synced, and a crash forgets what was
//! pending, or keeps a prefix of it.
//!
//! Invariants:
//! - Everything but `pending` is durable: it survives a crash.
//! - `log` follows `log_start` without a gap; the snapshot covers at least `log_start`.
//! - A message that a write withholds comes out of [`Disk::sync`], and from nowhere else (but see [`Disk::hasty`]).

use std::collections::VecDeque;

use raft_core::{
    DurableMessage, Entry, EntryKind, HardState, LogId, LogIndex, NodeId, Persist, ReadFailure,
    Recovered, SnapshotMeta, WriteId, membership::Configuration,
};

/// What a sync made true: its last write, and the messages that waited for it.
pub(crate) type Synced = (WriteId, Vec<(NodeId, DurableMessage)>);

/// One node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Term and vote, durable.
    pub hard_state: HardState,
    /// The snapshot that the log begins behind, or covers.
    pub snapshot: Option<SnapshotMeta>,
    /// The log, durable.
    pub log: Log,
    /// Writes that are not durable yet, the oldest first.
    pub pending: VecDeque<Persist>,
    /// A bug on purpose: messages leave when the write begins, not when it is durable. Only tests turn it
    /// on, to see that the properties catch it.
    pub hasty: bool,
}

/// A log: entries behind a start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    /// The last entry that it does not hold any more.
    pub start: LogId,
    /// The entries behind `start`, without a gap.
    pub entries: Vec<Entry>,
}

impl Log {
    /// The last entry.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, |entry| entry.id)
    }

    /// The entry at `index`, if the log holds it.
    #[must_use]
    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        let at = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(at as usize)
    }

    /// Whether the log has `entry`, or begins behind its position and so held it once.
    #[must_use]
    pub fn covers(&self, entry: &Entry) -> bool {
        entry.id.index <= self.start.index || self.get(entry.id.index) == Some(entry)
    }

    /// Carries out what `persist` does to the log.
    fn apply(&mut self, persist: &Persist) {
        if let Some(write) = &persist.snapshot {
            if write.replaces_log {
                self.entries.clear();
            }
            let start = write.log_start;
            self.entries.retain(|entry| entry.id.index > start.index);
            self.start = start;
        }
        if let Some(from) = persist.truncate_from {
            self.entries.retain(|entry| entry.id.index < from);
        }
        for entry in persist.append.iter() {
            assert_eq!(entry.id.index, self.last().index.next(), "a gap in the log");
            self.entries.push(entry.clone());
        }
    }
}

impl Disk {
    /// Begins a write. A hasty disk hands out at once what the write withholds.
    pub(crate) fn write(&mut self, persist: Persist) -> Vec<(NodeId, DurableMessage)> {
        let early = if self.hasty {
            persist.then.peek().to_vec()
        } else {
            Vec::new()
        };
        self.pending.push_back(persist);
        early
    }

    /// Makes the first `count` pending writes durable, in one batch as a storage does; nothing if none is
    /// pending.
    pub(crate) fn sync(&mut self, count: usize) -> Option<Synced> {
        let mut batch = self.take(count);
        for i in 0..batch.len() {
            if let Some(cut) = batch[i].takes_back_from() {
                for earlier in &mut batch[..i] {
                    earlier.then.drop_claims_from(cut);
                }
            }
        }
        let through = batch.last()?.write;
        for persist in &batch {
            self.apply(persist);
        }
        let released = batch.into_iter().flat_map(|persist| persist.then.release());
        let released = released.filter(|_| !self.hasty).collect();
        Some((through, released))
    }

    /// The power fails: of what was pending the first `keep` writes are found later, though nobody was told;
    /// the rest is gone.
    pub(crate) fn crash(&mut self, keep: usize) {
        for persist in self.take(keep) {
            self.apply(&persist);
        }
        self.pending.clear();
    }

    /// What a start finds. The state machine is the snapshot's: it has no disk of its own.
    pub(crate) fn recover(&self) -> Recovered {
        let mut terms: Vec<LogId> = Vec::new();
        let mut configurations = Vec::new();
        for entry in &self.log.entries {
            if terms.last().is_none_or(|run| run.term < entry.id.term) {
                terms.push(entry.id);
            }
            if entry.kind == EntryKind::Configuration
                && let Ok(configuration) = Configuration::decode(&entry.data)
            {
                configurations.push((entry.id.index, configuration));
            }
        }
        let snapshot = self.snapshot.clone();
        Recovered {
            hard_state: self.hard_state,
            applied: snapshot.as_ref().map_or(LogIndex::ZERO, |s| s.last.index),
            snapshot,
            log_start: self.log.start,
            last: self.log.last(),
            terms,
            configurations,
            tail: self.log.entries.clone(),
        }
    }

    /// Reads as [`raft_core::Effect::Read`] asks; only what is durable can be read.
    pub(crate) fn read(
        &self,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadFailure> {
        if from <= self.log.start.index {
            return Err(ReadFailure::Compacted);
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        let wanted = self
            .log
            .entries
            .iter()
            .filter(|entry| entry.id.index >= from);
        for entry in wanted {
            if entry.id.index > through || bytes >= bytes_max {
                break;
            }
            bytes += entry.size_bytes();
            entries.push(entry.clone());
        }
        if entries.is_empty() {
            return Err(ReadFailure::Failed(format!("no entry {from}")));
        }
        Ok(entries)
    }

    /// The log as the node sees it: with all that is pending carried out.
    #[must_use]
    pub fn log_with_pending(&self) -> Log {
        let mut log = self.log.clone();
        for persist in &self.pending {
            log.apply(persist);
        }
        log
    }

    /// The snapshot's last entry.
    #[must_use]
    pub fn snapshot_last(&self) -> LogId {
        self.snapshot.as_ref().map_or(LogId::ZERO, |s| s.last)
    }

    fn take(&mut self, count: usize) -> Vec<Persist> {
        let count = count.min(self.pending.len());
        self.pending.drain(..count).collect()
    }

    fn apply(&mut self, persist: &Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(write) = &persist.snapshot {
            self.snapshot = Some(write.snapshot.clone());
        }
        self.log.apply(persist);
    }
}
