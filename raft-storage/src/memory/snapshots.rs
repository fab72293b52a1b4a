//! Snapshots on the memory disk: there once they are finished, as a file is once it is renamed.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::{LogId, SnapshotMeta};

use super::{PLACE, View};
use crate::{
    CHUNK_BYTES, Damage, Item, SnapshotInfo, SnapshotSink, SnapshotSource, Snapshots, StorageError,
    snapshot::random_id,
};

pub(super) struct MemorySnapshots {
    pub(super) view: View,
}

/// A whole snapshot.
pub(super) struct MemorySnapshot {
    info: SnapshotInfo,
    state: Bytes,
}

impl Snapshots for MemorySnapshots {
    fn create(&self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotSink>, StorageError> {
        let cluster = self.view.disk()?.cluster;
        let info = SnapshotInfo {
            meta: meta.clone(),
            cluster,
            id: random_id()?,
            bytes: 0,
        };
        Ok(Box::new(MemorySink {
            view: self.view.clone(),
            info,
            state: Vec::new(),
        }))
    }

    fn open(&self, last: LogId) -> Result<Box<dyn SnapshotSource>, StorageError> {
        let disk = self.view.disk()?;
        let snapshot = disk.snapshots.get(&last);
        let snapshot = snapshot.ok_or(StorageError::NoSnapshot { last })?;
        Ok(Box::new(MemorySource(Arc::clone(snapshot))))
    }

    fn remove(&self, last: LogId) -> Result<(), StorageError> {
        if let Ok(mut disk) = self.view.disk()
            && disk.snapshot.as_ref().map(|meta| meta.last) != Some(last)
        {
            disk.snapshots.remove(&last);
        }
        Ok(())
    }
}

struct MemorySink {
    view: View,
    info: SnapshotInfo,
    state: Vec<u8>,
}

impl SnapshotSink for MemorySink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        drop(self.view.disk()?);
        self.state.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<SnapshotInfo, StorageError> {
        self.info.bytes = self.state.len() as u64;
        let snapshot = MemorySnapshot {
            info: self.info.clone(),
            state: std::mem::take(&mut self.state).into(),
        };
        let mut disk = self.view.disk()?;
        disk.snapshots
            .insert(self.info.meta.last, Arc::new(snapshot));
        Ok(self.info.clone())
    }
}

struct MemorySource(Arc<MemorySnapshot>);

impl SnapshotSource for MemorySource {
    fn info(&self) -> &SnapshotInfo {
        &self.0.info
    }

    fn read_chunk(&self, number: u64) -> Result<Bytes, StorageError> {
        if number >= self.0.info.chunks() {
            return Err(StorageError::Damaged {
                path: PLACE.into(),
                item: Item::Chunk(number),
                damage: Damage::Absent,
            });
        }
        let from = number as usize * CHUNK_BYTES;
        let end = (from + CHUNK_BYTES).min(self.0.state.len());
        Ok(self.0.state.slice(from..end))
    }
}
