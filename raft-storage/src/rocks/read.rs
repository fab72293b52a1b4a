//! Reading the log from any thread while it is written.
//!
//! Invariants:
//! - A read sees one moment: an iterator keeps the files that it walks over, whatever is dropped meanwhile.
//! - A log that a snapshot replaces is published as gone before the write, and its new beginning right behind it.
//! - The log's beginning is published before any file below it is dropped, and looked up after the iterator
//!   was made. So what is missing below the beginning is compacted, and what is missing above it is a hole.

use std::sync::{
    Arc, PoisonError, RwLock, RwLockReadGuard,
    atomic::{AtomicU64, Ordering},
};

use raft_core::{Entry, LogIndex};

use super::db::Database;
use crate::{Damage, LogReader, StorageError, error::Item, run};

/// What the writer and the readers share.
pub(super) struct Shared {
    /// None once it is closed.
    db: RwLock<Option<Database>>,
    /// The last position that the log does not hold any more.
    start: AtomicU64,
    /// While a snapshot takes the place of the log: the last position that goes. 0 otherwise.
    replaced: AtomicU64,
}

impl Shared {
    pub(super) fn new(db: Database, start: LogIndex) -> Arc<Self> {
        Arc::new(Self {
            db: Some(db).into(),
            start: start.0.into(),
            replaced: 0.into(),
        })
    }

    pub(super) fn lock(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        // Waits for the reads that are under way, which are bounded.
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The write that comes takes the whole log, through `last`. Who misses an entry of it from here on is told
    /// that it is compacted: the write is seen before it has returned.
    pub(super) fn replace_through(&self, last: LogIndex) {
        self.replaced.store(last.0, Ordering::Release);
    }

    /// The log has lost, durably, all up to `start`.
    pub(super) fn begin_behind(&self, start: LogIndex) {
        self.start.store(start.0, Ordering::Release);
        self.replaced.store(0, Ordering::Release);
    }

    /// Why an entry is not there, as it is known when it was missed.
    fn missed(&self, index: LogIndex, last: LogIndex) -> StorageError {
        let replaced = LogIndex(self.replaced.load(Ordering::Acquire));
        let start = self.start();
        if index <= start.max(replaced) {
            let first = start.max(replaced).next();
            return StorageError::Compacted { first };
        }
        let last = last.max(start);
        StorageError::Missing { index, last }
    }

    fn start(&self) -> LogIndex {
        LogIndex(self.start.load(Ordering::Acquire))
    }

    /// Gives the disk back the table files that lie before the log's beginning.
    pub(super) fn drop_files(&self) -> Result<(), StorageError> {
        let first = self.start().next();
        let guard = self.lock();
        let db = guard.as_ref().ok_or(StorageError::Closed)?;
        // The run that holds the first entry may begin before it.
        let holder = db.runs(first).seek(first)?.map(|found| found.run);
        let kept = holder.filter(|run| run.last() >= first);
        db.drop_files_below(kept.map_or(first, |run| run.first.index))
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
        let start = self.start();
        if from <= start {
            let first = start.next();
            return Err(StorageError::Compacted { first });
        }
        let Some(mut found) = runs.seek(from)? else {
            return Err(self.missed(from, LogIndex::ZERO));
        };
        if found.run.last() < from {
            return Err(self.missed(from, found.run.last()));
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut expected = from;
        let mut term = None;
        loop {
            let (run, value) = (found.run, found.to_bytes());
            let damaged = |damage| db.damaged(Item::Run(run.first.index), damage);
            if run.first.index.max(from) != expected {
                return Err(damaged(Damage::Hole { expected }));
            }
            if term.is_some_and(|before| before != run.term_before) {
                return Err(damaged(Damage::Unchained));
            }
            term = Some(run.first.term);
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
                return Ok(entries);
            }
            match runs.next()? {
                Some(next) => found = next,
                None => return Ok(entries),
            }
        }
    }
}
