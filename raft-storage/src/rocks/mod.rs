//! The store over RocksDB, with the mark beside it.
//!
//! Invariants:
//! - A write is one synced batch over both column families: term, vote, cut and entries, or none of them.
//! - Before the batch the mark claims nothing that the batch takes away; behind it, and before the write is
//!   answered, term and vote are synced in the mark as well.
//! - A run is cut by rewriting it in the same batch. The log is at every moment a row of runs without a gap.
//! - The database lives behind one lock, which readers share: at the close it is dropped for all.

mod db;
mod open;
mod options;
mod run;
mod state;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use raft_core::{ClusterId, Entry, HardState, Incarnation, LogIndex, NodeId};
use rocksdb::WriteBatch;

use crate::{
    Batch, Damage, LogReader, LogStore, Misfit, StorageError,
    crash_point::{self, CrashPoint},
    error::{Claim, Item},
    folder::Folder,
    mark::Mark,
    shape::Shape,
};
use db::Database;
pub use open::open_rocksdb;

/// The open store.
struct RocksStore {
    shared: Arc<Shared>,
    mark: Mark,
    hard_state: HardState,
    shape: Shape,
    cluster: Option<ClusterId>,
    /// Why nothing is written any more; while something is written, that it was interrupted.
    poison: Option<StorageError>,
    /// The value that is being written; kept for its memory.
    value: Vec<u8>,
    /// Released last, when the database and the mark are gone.
    folder: Option<Folder>,
}

/// What the writer and the readers share.
struct Shared {
    /// None once it is closed.
    db: RwLock<Option<Database>>,
}

impl Shared {
    fn lock(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        // Waits for the reads that are under way, which are bounded.
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
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
        let fits = self.shape.check(self.hard_state, batch);
        fits.map_err(StorageError::Refused)?;
        if batch.is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        let guard = shared.lock();
        let db = guard.as_ref().ok_or(StorageError::Closed)?;

        let mut rows = WriteBatch::default();
        if let Some(hard_state) = batch.hard_state() {
            state::put_hard_state(db, &mut rows, hard_state);
        }
        let last = self.shape.last().index;
        if let Some(from) = batch.truncate_from().filter(|from| *from <= last) {
            self.cut(db, &mut rows, from)?;
            self.mark.lower(self.shape.last_below(from))?;
            crash_point::reached(CrashPoint::MarkLowered)?;
        }
        run::split(batch.entries(), |run| {
            let key = run::encode(run, &mut self.value);
            db.put_run(&mut rows, key, &self.value);
        });
        db.write(rows)?;
        crash_point::reached(CrashPoint::BatchWritten)?;

        self.shape.apply(batch);
        let promised = self.hard_state;
        self.hard_state = batch.hard_state().unwrap_or(promised);
        if self.hard_state == promised {
            self.mark.note(self.shape.last())?;
            self.mark.settle_if_due()
        } else {
            let starts = self.mark.record().claim.starts;
            self.mark.promise(Claim {
                starts,
                hard_state: self.hard_state,
                position: self.shape.last(),
            })
        }
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
                let key = run::encode(&kept.iter().collect::<Vec<_>>(), &mut self.value);
                db.put_run(rows, key, &self.value);
            }
            at = runs.next()?;
        }
        Ok(())
    }

    fn try_record(
        &mut self,
        members: Option<&BTreeMap<NodeId, Incarnation>>,
        cluster: Option<ClusterId>,
    ) -> Result<(), StorageError> {
        if cluster.is_some() && self.cluster.is_some() && cluster != self.cluster {
            return Err(StorageError::Refused(Misfit::OtherCluster));
        }
        let guard = self.shared.lock();
        let db = guard.as_ref().ok_or(StorageError::Closed)?;
        let mut rows = WriteBatch::default();
        if let Some(members) = members {
            state::put_members(db, &mut rows, members);
        }
        if let Some(cluster) = cluster {
            state::put_cluster(db, &mut rows, cluster);
        }
        db.write(rows)?;
        self.cluster = cluster.or(self.cluster);
        Ok(())
    }
}

impl LogStore for RocksStore {
    fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.guarded(|store| store.try_write(batch))
    }

    fn record(
        &mut self,
        members: Option<&BTreeMap<NodeId, Incarnation>>,
        cluster: Option<ClusterId>,
    ) -> Result<(), StorageError> {
        self.guarded(|store| store.try_record(members, cluster))
    }

    fn settle(&mut self) -> Result<(), StorageError> {
        self.guarded(|store| store.mark.settle())
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.shared.clone()
    }

    fn close(&mut self) -> Result<(), StorageError> {
        let result = self.guarded(|store| store.mark.settle());
        self.poison = Some(StorageError::Closed);
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

impl LogReader for Shared {
    fn read(
        &self,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        if from > through {
            return Err(StorageError::EmptyRange { from, through });
        }
        let guard = self.lock();
        let db = guard.as_ref().ok_or(StorageError::Closed)?;
        let mut runs = db.runs(through);
        let mut at = runs.seek(from)?;
        if at.is_none() {
            return Err(absent(&mut runs, from)?);
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut expected = from;
        while let Some(found) = at {
            let (run, value) = (found.run, found.to_bytes());
            let damaged = |damage| db.damaged(Item::Run(run.first.index), damage);
            if run.last() < from {
                let (index, last) = (from, run.last());
                return Err(StorageError::Missing { index, last });
            }
            if run.first.index.max(from) != expected {
                return Err(damaged(Damage::Hole { expected }));
            }
            expected = run.last().next();
            let mut enough = false;
            let decoded = run::decode(run, &value, from, |entry| {
                if entry.id.index > through || bytes >= bytes_max && !entries.is_empty() {
                    enough = true;
                } else {
                    bytes += entry.size_bytes();
                    entries.push(entry);
                }
                !enough
            });
            decoded.map_err(damaged)?;
            if enough || bytes >= bytes_max || run.last() >= through {
                break;
            }
            at = runs.next()?;
        }
        Ok(entries)
    }
}

/// Why there is no run that begins at or below `from`.
fn absent(runs: &mut db::Runs<'_>, from: LogIndex) -> Result<StorageError, StorageError> {
    Ok(match runs.seek_to_first()? {
        Some(found) => StorageError::Compacted {
            first: found.run.first.index,
        },
        None => StorageError::Missing {
            index: from,
            last: LogIndex::ZERO,
        },
    })
}

#[cfg(test)]
mod tests;
