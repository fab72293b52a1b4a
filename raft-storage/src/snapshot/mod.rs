//! Snapshots: the state that stands for the beginning of the log (paper §7), kept beside it.
//!
//! A snapshot is written as a stream of bytes and read in pieces, so that its size is bounded by the disk and
//! not by memory; on any thread, so that taking one stops neither appending nor applying.
//!
//! The way of one: [`Snapshots::create`] gives a [`SnapshotSink`]; what is written to it goes to a file of a
//! temporary name; [`SnapshotSink::finish`] makes it durable under its own name. Nothing rests on it yet: the
//! core is told ([`Input::SnapshotTaken`](raft_core::Input::SnapshotTaken) or `SnapshotReceived`), and its
//! write names the snapshot together with what happens to the log. Behind that write all other snapshots go.
//!
//! Invariants:
//! - A snapshot that can be opened is whole: begun and not finished, or torn by a crash, it is not there.
//! - Each piece is checked when it is read: against its content, its place and the snapshot it belongs to.
//! - The snapshot that a durable write has named stays until a later durable write names another one. Who
//!   reads it meanwhile reads on to its end.
//! - A snapshot that cannot be written, for want of space say, is no failure of the log: its sink says why,
//!   and leaves nothing behind.

#[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
pub(crate) mod files;
#[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
pub(crate) mod format;

use bytes::Bytes;
use raft_core::{ClusterId, LogId, SnapshotMeta};

use crate::StorageError;

/// How many bytes a piece of a snapshot has, but for the last one.
pub const CHUNK_BYTES: usize = 256 << 10;

/// The snapshots of one node.
pub trait Snapshots: Send + Sync + 'static {
    /// Begins a snapshot of the state as of `meta.last`. If it is dropped before it is finished, nothing of
    /// it stays.
    ///
    /// # Errors
    /// [`Closed`](StorageError::Closed), or what the operating system refused.
    fn create(&self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotSink>, StorageError>;

    /// Opens the snapshot through `last`, and checks that it is whole; what is in it is checked piece by piece
    /// as it is read.
    ///
    /// # Errors
    /// [`NoSnapshot`](StorageError::NoSnapshot) if there is none;
    /// [`Damaged`](StorageError::Damaged) if it is not what was written.
    fn open(&self, last: LogId) -> Result<Box<dyn SnapshotSource>, StorageError>;

    /// Removes a snapshot that nobody wants, unless a write has named it: one that came from a leader, and
    /// that the core did not ask to be written. The caller sees to it that no write on its way to the store names it:
    /// the core's own snapshot may have come a second time.
    ///
    /// # Errors
    /// What the operating system refused.
    fn remove(&self, last: LogId) -> Result<(), StorageError>;
}

/// A snapshot that is being written.
pub trait SnapshotSink: Send {
    /// Adds `bytes` behind what was written before. What it is handed need not be a piece: it gathers.
    ///
    /// # Errors
    /// The first error is repeated by every later call.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes it durable, whole and under its name. An earlier one of the same name is replaced.
    ///
    /// # Errors
    /// What kept it from that; then nothing of it stays.
    fn finish(self: Box<Self>) -> Result<SnapshotInfo, StorageError>;
}

/// A snapshot that is being read.
pub trait SnapshotSource: Send + Sync {
    /// What it is.
    fn info(&self) -> &SnapshotInfo;

    /// The piece with this number, from 0 on: [`CHUNK_BYTES`] of the state, and fewer in the last one.
    ///
    /// # Errors
    /// [`Damaged`](StorageError::Damaged) if it is not what was written or does not exist.
    fn read_chunk(&self, number: u64) -> Result<Bytes, StorageError>;
}

/// What a whole snapshot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// The cluster whose state it is, where that was known.
    pub cluster: Option<ClusterId>,
    /// Drawn at random when it was begun: two snapshots through the same entry need not have the same bytes,
    /// and what was fetched of one does not go on with the other.
    pub id: u128,
    /// How many bytes the state has.
    pub bytes: u64,
}

impl SnapshotInfo {
    /// How many pieces it has.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(CHUNK_BYTES as u64)
    }
}

/// A number that no other snapshot has.
pub(crate) fn random_id() -> Result<u128, StorageError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(StorageError::NoRandomness)?;
    Ok(u128::from_be_bytes(bytes))
}
