//! The log, the term and the vote of a Raft node on disk.
//!
//! What a node says must be on its disk before it says it. In [`raft_core`] such messages ride inside the
//! write that they depend on; here is the only place that releases them, behind the sync.
//!
//! - [`LogStorage`] is the actor that writes, on a thread of its own: it takes all that waits as one synced
//!   [`Batch`], and answers once. [`LogReads`] is the actor that reads old entries, on another thread.
//! - [`LogStore`] and [`LogReader`] are what they write to and read from. `open_rocksdb` (feature
//!   `rocksdb`, on by default) opens the one for production, and [`MemoryDisk`] is the one for tests, which can lose its power.
//! - [`Snapshots`] stand for the beginning of the log: written and read in pieces, beside the log.
//! - [`suite`] holds the cases that every store must pass.
//!
//! Invariants of the whole:
//! - **Durable before said.** No message is released, and no write confirmed, before the sync that makes it
//!   true has returned.
//! - **The first failure is the last write.** After an error nothing is written, retried or released.
//! - **A log that lost its end is noticed.** A small mark file beside the database says how much it must
//!   hold; a folder that holds less is refused by name, never opened in silence, and left as it was.
//!
//! What is promised, what is taken for granted and what cannot be noticed is in `docs/durability.md`. What is
//! not here yet: many groups in one store (the group is in every key, and 0).
// It reads what is stored, without the store that would use the rest.
#![cfg_attr(
    all(feature = "fuzzing", not(feature = "rocksdb")),
    allow(dead_code, unreachable_pub)
)]

mod actor;
mod batch;
#[cfg(feature = "rocksdb")]
mod crash_point;
mod error;
#[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
mod folder;
#[cfg(any(all(test, feature = "rocksdb"), feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
mod manifest;
#[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
mod mark;
mod memory;
mod reads;
#[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
mod records;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
mod run;
#[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
mod sealed;
mod shape;
mod snapshot;
mod store;
pub mod suite;

pub use actor::{Close, Durable, LogStorage, LogStorageHandle, Write, WriteListener, Written};
pub use batch::Batch;
pub use error::{Cause, Claim, Damage, Item, Misfit, OpenError, StorageError};
pub use memory::MemoryDisk;
pub use reads::{LogReads, ReadEntries};
#[cfg(feature = "rocksdb")]
pub use rocks::{offline, open_rocksdb};
pub use snapshot::{CHUNK_BYTES, SnapshotInfo, SnapshotSink, SnapshotSource, Snapshots};
pub use store::{Identity, LogReader, LogStore, Opened, Record};

#[cfg(test)]
mod model_test;
