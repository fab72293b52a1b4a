//! How far applying lags behind what is committed, in bytes of entries that are kept in memory for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use raft_core::Entry;

/// Shared by the node, which hands entries over, and by [`Delivery`](crate::delivery::Delivery), which applies them.
#[derive(Debug)]
pub(crate) struct Lag {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Bytes that were ever applied.
    applied: AtomicU64,
}

fn bytes(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::size_bytes).sum()
}

impl Lag {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
            applied: AtomicU64::new(0),
        }
    }

    /// Whether so much waits already that more is to be read from the log when its turn comes.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= self.bytes_max
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    pub(crate) fn handed_over(&self, entries: &[Entry]) {
        self.bytes.fetch_add(bytes(entries), Ordering::AcqRel);
    }

    pub(crate) fn applied(&self, entries: &[Entry]) {
        let bytes = bytes(entries);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.applied.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// Bytes of entries that were applied since the start.
    pub(crate) fn applied_bytes(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}
