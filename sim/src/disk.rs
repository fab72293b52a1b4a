//! One node's log disk, which tells the truth and nothing more: what is pending is gone after a crash, or a
//! prefix of it is kept, or the last record of that prefix is torn.
//!
//! Invariants:
//! - Writes become durable first in, first out.
//! - The log has no gap behind its start; term and vote never go back.
//! - What a sync hands out is true of what is durable then.

use std::collections::VecDeque;

use raft_core::membership::Configuration;
use raft_core::{
    DurableMessage, Entry, EntryKind, HardState, LogId, LogIndex, NodeId, Persist, ReadFailure,
    Recovered, SnapshotMeta, SnapshotWrite, Term, WriteId,
};

use crate::broken::{Broken, Check, hold};

/// What one sync made true.
#[derive(Debug)]
pub(crate) struct Synced {
    pub(crate) through: WriteId,
    pub(crate) released: Vec<(NodeId, DurableMessage)>,
    /// Messages that the same batch made untrue.
    pub(crate) dropped: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) log_start: LogId,
    pub(crate) log: VecDeque<Entry>,
    pending: VecDeque<Persist>,
    /// A record of which a crash left a part: its checksum does not hold, so that it is no record.
    torn: Option<WriteId>,
}

impl Disk {
    /// Takes a write in, behind those that wait.
    pub(crate) fn write(&mut self, persist: Persist) {
        self.pending.push_back(persist);
    }

    pub(crate) fn pending(&self) -> &VecDeque<Persist> {
        &self.pending
    }

    /// Makes the first `count` of the pending writes durable as one batch.
    pub(crate) fn sync(&mut self, count: usize) -> Result<Option<Synced>, Broken> {
        let mut batch = self.take(count);
        let Some(through) = batch.last().map(|persist| persist.write) else {
            return Ok(None);
        };
        let waiting = |batch: &[Persist]| batch.iter().map(|p| p.then.peek().len()).sum::<usize>();
        let before = waiting(&batch);
        for i in 0..batch.len() {
            let cut = batch[i].takes_back_from();
            for earlier in &mut batch[..i] {
                if let Some(cut) = cut {
                    earlier.then.drop_claims_from(cut);
                }
            }
        }
        let dropped = before - waiting(&batch);
        for persist in &batch {
            self.apply(persist)?;
        }
        let released = batch.into_iter().flat_map(|p| p.then.release()).collect();
        Ok(Some(Synced {
            through,
            released,
            dropped,
        }))
    }

    /// The power fails: the first `keep` of the pending writes are found later, though nobody was told; if
    /// `tear`, a part of the next one as well.
    pub(crate) fn crash(&mut self, keep: usize, tear: bool) -> Check {
        for persist in self.take(keep) {
            self.apply(&persist)?;
        }
        self.torn = self.pending.front().filter(|_| tear).map(|p| p.write);
        self.pending.clear();
        Ok(())
    }

    /// What a start reads first: whether there is a torn record at the end. It is cut off.
    pub(crate) fn drop_torn_record(&mut self) -> bool {
        self.torn.take().is_some()
    }

    /// What a start finds, with the last `tail` entries in memory.
    pub(crate) fn recover(&self, applied: LogIndex, tail: usize) -> Recovered {
        let mut terms: Vec<LogId> = Vec::new();
        let mut configurations = Vec::new();
        for entry in &self.log {
            if terms.last().is_none_or(|run| run.term < entry.id.term) {
                terms.push(entry.id);
            }
            if entry.kind == EntryKind::Configuration {
                let configuration = Configuration::decode(&entry.data).unwrap();
                configurations.push((entry.id.index, configuration));
            }
        }
        let skipped = self.log.len().saturating_sub(tail);
        Recovered {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            log_start: self.log_start,
            last: self.last(),
            terms,
            configurations,
            tail: self.log.iter().skip(skipped).cloned().collect(),
            applied,
        }
    }

    pub(crate) fn last(&self) -> LogId {
        self.log.back().map_or(self.log_start, |entry| entry.id)
    }

    pub(crate) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let at = index.0.checked_sub(self.log_start.index.0 + 1)?;
        self.log.get(at as usize)
    }

    /// The durable entry's term; none if it is compacted, or not there.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.log_start.index {
            return Some(self.log_start.term);
        }
        self.entry(index).map(|entry| entry.id.term)
    }

    /// Whether the entry is durable here, or covered by the snapshot: that this is right, the check of
    /// snapshots shows.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        id.index < self.log_start.index || self.term_at(id.index) == Some(id.term)
    }

    /// The last position that is durable in some way.
    pub(crate) fn snapshot_index(&self) -> LogIndex {
        self.snapshot
            .as_ref()
            .map_or(LogIndex::ZERO, |s| s.last.index)
    }

    /// Reads as [`raft_core::Effect::Read`] asks.
    pub(crate) fn read(
        &self,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadFailure> {
        if from <= self.log_start.index {
            return Err(ReadFailure::Compacted);
        }
        let (mut bytes, mut index) = (0, from);
        let mut entries = Vec::new();
        while index <= through
            && bytes < bytes_max.max(1)
            && let Some(entry) = self.entry(index)
        {
            bytes += entry.size_bytes();
            entries.push(entry.clone());
            index = index.next();
        }
        if entries.is_empty() {
            return Err(ReadFailure::Failed(format!("there is no entry {from}")));
        }
        Ok(entries)
    }

    fn take(&mut self, count: usize) -> Vec<Persist> {
        let count = count.min(self.pending.len());
        self.pending.drain(..count).collect()
    }

    fn apply(&mut self, persist: &Persist) -> Check {
        if let Some(new) = persist.hard_state {
            let old = std::mem::replace(&mut self.hard_state, new);
            let kept = old.term < new.term
                || old.term == new.term
                    && (old.voted_for.is_none() || old.voted_for == new.voted_for);
            hold!(kept, "vote-once", "{old:?} on disk becomes {new:?}");
        }
        if let Some(write) = &persist.snapshot {
            self.replace_start(write)?;
        }
        if let Some(from) = persist.truncate_from {
            let start = self.log_start.index;
            hold!(
                from > start,
                "log-without-gaps",
                "cut from {from}, behind {start}"
            );
            self.log.truncate((from.0 - start.0 - 1) as usize);
        }
        for entry in persist.append.iter() {
            let last = self.last();
            let fits = entry.id.index == last.index.next() && entry.id.term >= last.term;
            hold!(
                fits,
                "log-without-gaps",
                "entry {} follows {last}",
                entry.id
            );
            self.log.push_back(entry.clone());
        }
        Ok(())
    }

    fn replace_start(&mut self, write: &SnapshotWrite) -> Check {
        let SnapshotWrite {
            snapshot,
            log_start,
            replaces_log,
        } = write;
        let before = self.snapshot_index();
        hold!(
            snapshot.last.index >= before && log_start.index <= snapshot.last.index,
            "snapshot-never-back",
            "{before} becomes {}, and the log starts behind {log_start}",
            snapshot.last
        );
        hold!(
            *replaces_log || self.holds(*log_start) && self.holds(snapshot.last),
            "snapshot-of-own-log",
            "the log starts behind {log_start} and ends at {}",
            self.last()
        );
        if *replaces_log {
            self.log.clear();
        }
        while self
            .log
            .front()
            .is_some_and(|entry| entry.id.index <= log_start.index)
        {
            self.log.pop_front();
        }
        if *replaces_log || log_start.index > self.log_start.index {
            self.log_start = *log_start;
        }
        self.snapshot = Some(snapshot.clone());
        Ok(())
    }
}
