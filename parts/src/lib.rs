//! The parts of raft-actor, each driven by itself in one process: for the micro-benchmarks, which time them, and for
//! `instructions`, which counts what they execute. Both run the same lines.
//!
//! - [`protocol`] three cores that step in one thread
//! - [`codec`] the frames of a batch, from bytes to bytes
//! - [`storage`] writing a batch, to memory and to RocksDB
//! - [`node`] whole nodes: door, protocol, storage, ledger, delivery; one alone, or three over loopback
//! - [`mailbox`] a message between actors, and what else crosses a thread
//!
//! A part is made, warmed by a first run, and then run for so many batches of [`BATCH`] commands of [`PAYLOAD`] bytes.

pub mod codec;
pub mod mailbox;
pub mod node;
pub mod protocol;
pub mod storage;

use bytes::Bytes;
use raft_core::{Entry, EntryKind, LogIndex, Term};

/// Bytes of one command.
pub const PAYLOAD: usize = 256;
/// Commands that are proposed at once, unless a part is told otherwise.
pub const BATCH: usize = 64;

/// The payloads of up to so many entries, as slices of one buffer.
const PAYLOADS_MAX: usize = 1024;

/// Makes entries as a leader does: consecutive, with payloads that are slices of one buffer. The bytes are always the same,
/// so that making them costs no part anything.
struct Entries(Bytes);

impl Entries {
    fn new() -> Self {
        Self(Bytes::from(vec![7; PAYLOADS_MAX * PAYLOAD]))
    }

    /// So many from `first` on, at most [`PAYLOADS_MAX`].
    fn make(&self, first: LogIndex, count: usize) -> Vec<Entry> {
        let entry = |at: usize| {
            let index = LogIndex(first.0 + at as u64);
            let data = self.0.slice(at * PAYLOAD..(at + 1) * PAYLOAD);
            Entry::new(Term(1), index, EntryKind::Command, data)
        };
        (0..count).map(entry).collect()
    }
}
