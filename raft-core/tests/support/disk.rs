//! A disk that is fake and yet real: what is written is pending until it is synced, and a crash forgets
//! what was pending, or keeps a prefix of it.

use std::collections::VecDeque;

use raft_core::membership::Configuration;
use raft_core::{
    DurableMessage, Entry, EntryKind, HardState, LogId, LogIndex, NodeId, Persist, ReadFailure,
    Recovered, SnapshotMeta, WriteId,
};

/// What a sync made true: its last write, and the messages that waited for it.
pub(crate) type Synced = (WriteId, Vec<(NodeId, DurableMessage)>);

/// One node's disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// Term and vote, durable.
    pub(crate) hard_state: HardState,
    /// The snapshot that the node starts from, durable.
    pub(crate) snapshot: Option<SnapshotMeta>,
    /// The last entry that the log does not hold any more.
    pub(crate) log_start: LogId,
    /// The log behind that, durable.
    pub(crate) log: Vec<Entry>,
    pending: VecDeque<Persist>,
}

impl Disk {
    /// Begins a write.
    pub(crate) fn write(&mut self, persist: Persist) {
        self.pending.push_back(persist);
    }

    /// The writes that are not durable yet.
    pub(crate) fn pending(&self) -> &VecDeque<Persist> {
        &self.pending
    }

    /// Makes the first `count` pending writes durable, in one batch as a storage does; nothing if none
    /// is pending.
    pub(crate) fn sync(&mut self, count: usize) -> Option<Synced> {
        let mut batch: Vec<Persist> = self.take(count);
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
        let released = batch.into_iter().flat_map(|p| p.then.release()).collect();
        Some((through, released))
    }

    /// The power fails: of what was pending the first `keep` writes are found later, though nobody was
    /// told; the rest is gone.
    pub(crate) fn crash(&mut self, keep: usize) {
        for persist in self.take(keep) {
            self.apply(&persist);
        }
        self.pending.clear();
    }

    /// What a start finds, with the last `tail` entries in memory.
    pub(crate) fn recover(&self, tail: usize) -> Recovered {
        let mut terms: Vec<LogId> = Vec::new();
        for entry in &self.log {
            if terms.last().is_none_or(|run| run.term < entry.id.term) {
                terms.push(entry.id);
            }
        }
        let configurations = self
            .log
            .iter()
            .filter(|e| e.kind == EntryKind::Configuration);
        let configurations = configurations.map(|entry| {
            let configuration = Configuration::decode(&entry.data).expect("a configuration");
            (entry.id.index, configuration)
        });
        Recovered {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            log_start: self.log_start,
            last: self.log.last().map_or(self.log_start, |entry| entry.id),
            terms,
            configurations: configurations.collect(),
            tail: self.log[self.log.len().saturating_sub(tail)..].to_vec(),
            applied: LogIndex::ZERO,
        }
    }

    /// Reads as [`raft_core::Effect::Read`] asks; only what is durable can be read.
    pub(crate) fn read(
        &self,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadFailure> {
        if from <= self.log_start.index {
            return Err(ReadFailure::Compacted);
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.log.iter().filter(|entry| entry.id.index >= from) {
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

    fn take(&mut self, count: usize) -> Vec<Persist> {
        let count = count.min(self.pending.len());
        self.pending.drain(..count).collect()
    }

    fn apply(&mut self, persist: &Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(write) = &persist.snapshot {
            let keep =
                |entry: &Entry| !write.replaces_log && entry.id.index > write.log_start.index;
            self.log.retain(keep);
            self.log_start = write.log_start;
            self.snapshot = Some(write.snapshot.clone());
        }
        if let Some(from) = persist.truncate_from {
            self.log.retain(|entry| entry.id.index < from);
        }
        for entry in persist.append.iter() {
            let last = self.log.last().map_or(self.log_start, |entry| entry.id);
            assert_eq!(entry.id.index, last.index.next(), "a gap in the log");
            self.log.push(entry.clone());
        }
    }
}
