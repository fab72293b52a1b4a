//! A store that is written batch by batch, as `LogStorage` writes it: every batch is synced where there is a disk.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use raft_core::{LogIndex, NodeId};
use raft_storage::{Batch, LogStore, MemoryDisk, open_rocksdb};

use crate::Entries;

/// See the [module](self).
pub struct Storage {
    store: Box<dyn LogStore>,
    entries: Entries,
    next: LogIndex,
}

impl Storage {
    /// One in memory, which grows with what is written.
    ///
    /// # Errors
    /// It could not be opened.
    pub fn memory() -> Result<Self> {
        Ok(Self::of(MemoryDisk::new().open(Some(NodeId(1)))?.store))
    }

    /// RocksDB in an empty folder.
    ///
    /// # Errors
    /// It could not be opened.
    pub fn rocksdb(folder: &Path) -> Result<Self> {
        Ok(Self::of(open_rocksdb(folder, Some(NodeId(1)))?.store))
    }

    fn of(store: Box<dyn LogStore>) -> Self {
        Self {
            store,
            entries: Entries::new(),
            next: LogIndex(1),
        }
    }

    /// Writes so many batches of `size` entries, at most 1,024, one after the other.
    ///
    /// # Errors
    /// A write failed.
    pub fn run(&mut self, batches: usize, size: usize) -> Result<()> {
        for _ in 0..batches {
            let mut batch = Batch::new();
            batch.push(None, None, Arc::from(self.entries.make(self.next, size)));
            self.store.write(&batch)?;
            self.next.0 += size as u64;
        }
        Ok(())
    }
}
