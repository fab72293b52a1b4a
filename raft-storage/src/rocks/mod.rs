//! The store over RocksDB, with the mark and the snapshots beside it.
//!
//! Invariants:
//! - A write is one synced batch over both column families: term, vote, cut, entries, and the snapshot with
//!   the log's beginning, or none of them.
//! - Before the batch the mark claims nothing that the batch takes away; behind it, and before the write is
//!   answered, term and vote are synced in the mark as well.
//! - A run is cut by rewriting it in the same batch. The log is at every moment a row of runs without a gap.
//! - A log loses its beginning by a pointer that hides it, and not by tombstones: keys only grow, so that
//!   table files lie one behind the other, and those before the beginning are dropped whole
//!   ([`sweeper`]).
//! - The database lives behind one lock, which readers share: at the close it is dropped for all.

mod db;
mod found;

pub mod offline;
mod open;
mod options;
mod read;

mod state;
mod sweeper;

use std::sync::Arc;

use raft_core::{Entry, HardState, LogId, LogIndex, SnapshotMeta, Term};
use rocksdb::WriteBatch;

use crate::{
    Batch, LogReader, LogStore, Record, Snapshots, StorageError,
    crash_point::{self, CrashPoint},
    error::{Claim, Item},
    folder::Folder,
    mark::{self, Mark},
    records::{Owner, Pointer},
    run,
    shape::Shape,
    snapshot::files::SnapshotFiles,
};
use db::Database;
pub use open::open_rocksdb;
use read::Shared;
use state::State;
use sweeper::Sweeper;

/// Room in a batch for what is beside the entries: its keys and tables, and the rows of term, vote and configuration.
const ROWS_BYTES: usize = 4 << 10;

/// The open store.
struct RocksStore {
    shared: Arc<Shared>,
    mark: Mark,
    hard_state: HardState,
    shape: Shape,
    /// The records, as they are in the database; of term, vote and snapshot those of the opening.
    state: State,
    snapshots: SnapshotFiles,
    sweeper: Sweeper,
    /// Why nothing is written any more; while something is written, that it was interrupted.
    poison: Option<StorageError>,
    /// The value that is being written; kept for its memory.
    value: Vec<u8>,
    /// Released last, when the database and the mark are gone.
    folder: Option<Folder>,
}

impl RocksStore {
    /// Runs one call that writes. If it fails, or panics, no other will run.
    fn guarded(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if let Some(cause) = &self.poison {
            return Err(cause.clone());
        }
        self.poison = Some(StorageError::Panicked("inside the store".to_owned()));
        let result = call(self);
        self.poison = result.clone().err();
        result
    }

    fn try_write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let after = self.shape.after(self.hard_state, batch);
        let after = after.map_err(StorageError::Refused)?;
        if batch.is_empty() {
            return Ok(());
        }
        let named = match batch.snapshot() {
            Some((SnapshotMeta { last, .. }, _)) => Some(self.snapshots.name(*last)?),
            None => None,
        };
        let shared = self.shared.clone();
        let guard = shared.lock();
        let db = guard.as_ref().ok_or(StorageError::Closed)?;

        // Its buffer would grow by doubling, copying what is in it each time.
        let bytes: usize = batch.entries().map(Entry::size_bytes).sum();
        let mut rows = WriteBatch::with_capacity_bytes(bytes + ROWS_BYTES);
        if let Some(hard_state) = batch.hard_state() {
            state::put_hard_state(db, &mut rows, hard_state);
        }
        let last = self.shape.last().index;
        let mut recorded = false;
        if let Some(start) = batch.replaced() {
            // A snapshot of the recovered cluster has its configuration.
            let none = LogId::new(start.term, LogIndex::ZERO);
            recorded = self.lower_forced(db, &mut rows, none);
            db.delete_runs_through(&mut rows, last);
            self.mark.lower(LogId::ZERO)?;
            crash_point::reached(CrashPoint::MarkLowered)?;
        } else if let Some(from) = batch.truncate_from().filter(|from| *from <= last) {
            recorded = self.lower_forced(db, &mut rows, self.shape.last_below(from));
            self.cut(db, &mut rows, from)?;
            self.mark.lower(self.shape.last_below(from))?;
            crash_point::reached(CrashPoint::MarkLowered)?;
        }
        let mut before = self.before_entries(batch);
        run::split(batch.entries(), |run| {
            let key = run::encode(before, run, &mut self.value);
            before = run[0].id.term;
            db.put_run(&mut rows, key, &self.value);
        });
        if let (Some((meta, log_start)), Some(named)) = (batch.snapshot(), &named) {
            let pointer = Pointer {
                meta: meta.clone(),
                log_start,
                id: named.id,
                bytes: named.bytes,
                first_run: first_run(db, batch, &after, log_start)?,
            };
            state::put_pointer(db, &mut rows, &pointer);
        }
        if batch.replaced().is_some() {
            self.shared.replace_through(last);
        }
        db.write(rows)?;
        if let Some((_, log_start)) = batch.snapshot() {
            self.shared.begin_behind(log_start.index);
        }
        crash_point::reached(CrashPoint::BatchWritten)?;

        self.shape = after;
        let promised = self.hard_state;
        self.hard_state = batch.hard_state().unwrap_or(promised);
        if self.hard_state == promised && batch.replaced().is_none() {
            self.mark.note(self.shape.last())?;
            self.mark.settle_if_due()?;
        } else {
            self.mark.promise(Claim {
                hard_state: self.hard_state,
                position: self.shape.last(),
                ..self.mark.record().claim
            })?;
        }
        if recorded {
            self.mark.note_records(self.state.records)?;
        }
        if let Some(named) = named {
            self.snapshots.set_named(named);
            self.sweeper.wake();
        }
        Ok(())
    }

    /// The term of the entry behind which a batch's entries come.
    fn before_entries(&self, batch: &Batch) -> Term {
        match (batch.replaced(), batch.truncate_from()) {
            (Some(start), _) => start.term,
            (None, Some(from)) => self.shape.last_below(from).term,
            (None, None) => self.shape.last().term,
        }
    }

    /// An operator's configuration holds from where the log ended then. What comes in the place of a part of that
    /// log is of the recovered cluster, and counts as any other.
    fn lower_forced(&mut self, db: &Database, rows: &mut WriteBatch, last: LogId) -> bool {
        let Some(forced) = self
            .state
            .forced
            .as_mut()
            .filter(|f| f.through > last.index)
        else {
            return false;
        };
        forced.through = last.index;
        state::put_forced(db, rows, forced);
        self.state.records += 1;
        state::put_records(db, rows, &self.state);
        true
    }

    /// Takes the entries from `from` on out of the log. Keys one by one: a cut is short, and what a range
    /// tombstone saves here, every later seek would pay.
    fn cut(
        &mut self,
        db: &Database,
        rows: &mut WriteBatch,
        from: LogIndex,
    ) -> Result<(), StorageError> {
        let mut runs = db.runs(LogIndex(u64::MAX));
        let mut at = runs.seek(from)?;
        if at.is_none() {
            at = runs.seek_to_first()?;
        }
        while let Some(found) = at {
            let (run, value) = (found.run, found.to_bytes());
            if run.first.index >= from {
                db.delete_run(rows, run.first.index);
            } else if run.last() >= from {
                let mut kept: Vec<Entry> = Vec::new();
                let decoded = run::decode(run, &value, run.first.index, |entry| {
                    let keep = entry.id.index < from;
                    kept.extend(keep.then_some(entry));
                    keep
                });
                decoded.map_err(|damage| db.damaged(Item::Run(run.first.index), damage))?;
                let kept: Vec<_> = kept.iter().collect();
                let key = run::encode(run.term_before, &kept, &mut self.value);
                db.put_run(rows, key, &self.value);
            }
            at = runs.next()?;
        }
        Ok(())
    }

    fn try_record(&mut self, record: &Record) -> Result<(), StorageError> {
        let owner = self.state.owner;
        let node = owner.and_then(|owner| owner.node);
        let checked = record.check(node, self.state.cluster);
        checked.map_err(StorageError::Refused)?;
        // It is given once.
        let given = record.node.filter(|_| node.is_none());
        let cursors = record.cursors_over(&self.state.cursors);
        let mut state = State {
            cursors: cursors.map_err(StorageError::Refused)?,
            records: self.state.records + 1,
            ..self.state.clone()
        };
        let guard = self.shared.lock();
        let db = guard.as_ref().ok_or(StorageError::Closed)?;
        let mut rows = WriteBatch::default();
        if let (Some(owner), Some(_)) = (owner, given) {
            let owner = Owner {
                node: given,
                ..owner
            };
            state::put_owner(db, &mut rows, owner);
            state.owner = Some(owner);
        }
        if let Some(known) = &record.known {
            state::put_known(db, &mut rows, &mut state, known);
        }
        if let Some(cluster) = record.cluster {
            state::put_cluster(db, &mut rows, cluster);
            state.cluster = Some(cluster);
        }
        for (name, at) in &record.cursors {
            state::put_cursor(db, &mut rows, name, *at);
        }
        state::put_records(db, &mut rows, &state);
        db.write(rows)?;
        drop(guard);
        crash_point::reached(CrashPoint::BatchWritten)?;
        if given.is_some() {
            crash_point::reached(CrashPoint::NodeWritten)?;
            let records = state.records;
            let claim = self.mark.record().claim;
            self.mark.promise_twice(given, Claim { records, ..claim })?;
        } else {
            self.mark.note_records(state.records)?;
        }
        if record.known.is_some() || record.cluster.is_some() {
            // What a node says to its peers of itself. A cursor may fall back with the last second.
            self.mark.settle()?;
        }
        self.snapshots.set_cluster(state.cluster);
        self.state = state;
        Ok(())
    }
}

/// The run that holds, after a batch, the first entry of a log that begins behind `start`: no run that begins
/// before it is of the log. 0 where it is not worth to find out.
fn first_run(
    db: &Database,
    batch: &Batch,
    after: &Shape,
    start: LogId,
) -> Result<LogIndex, StorageError> {
    let first = start.index.next();
    if batch.replaced() == Some(start) || after.last() == start {
        return Ok(first);
    }
    let changes = batch.replaced().or(batch.truncate_from().map(|_| start));
    if changes.is_some() || batch.entries().next().is_some() {
        return Ok(LogIndex::ZERO);
    }
    let holder = db.runs(first).seek(first)?.map(|found| found.run);
    let holder = holder.filter(|run| run.last() >= first);
    Ok(holder.map_or(first, |run| run.first.index))
}

impl LogStore for RocksStore {
    fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.guarded(|store| store.try_write(batch))
    }

    fn record(&mut self, record: &Record) -> Result<(), StorageError> {
        self.guarded(|store| store.try_record(record))
    }

    fn settle(&mut self) -> Result<(), StorageError> {
        self.guarded(|store| {
            if let Some(db) = store.shared.lock().as_ref() {
                db.check_background()?;
            }
            store.mark.settle()
        })
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.shared.clone()
    }

    fn snapshots(&self) -> Arc<dyn Snapshots> {
        Arc::new(self.snapshots.clone())
    }

    fn close(&mut self) -> Result<(), StorageError> {
        let result = self.guarded(|store| {
            let mark::Record { node, claim, .. } = store.mark.record();
            store.mark.promise_twice(node, claim)
        });
        self.poison = Some(StorageError::Closed);
        self.snapshots.close();
        self.sweeper.stop();
        self.shared.close();
        self.folder = None;
        result
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        // Whoever wants to know how the close went calls it.
        let _ = self.close();
    }
}

#[cfg(test)]
mod tests;
