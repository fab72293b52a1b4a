//! Who writes batches and waits for the disk: the store, or a plain file beside it.
//!
//! What is handed to either is made before its clock starts: a core hands a store entries that exist.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{
    Entry, EntryKind, HardState, LogId, LogIndex, NodeId, SnapshotMeta, SnapshotWrite, Term,
};
use raft_storage::{Batch, LogReader, LogStore, Snapshots, open_rocksdb};

use super::{PAYLOAD, median};

pub(crate) const NODE: NodeId = NodeId(1);
/// In each batch of so many the term changes: far more often than in earnest.
const TERM_EVERY: u64 = 256;

/// Bytes that no compression makes smaller, and no two entries of a table's block share.
#[derive(Debug)]
struct Noise {
    pool: Bytes,
    at: usize,
}

impl Noise {
    fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = (0..1 << 20).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Self {
            pool: words.collect(),
            at: 0,
        }
    }

    fn next(&mut self) -> Bytes {
        // Odd, so that the second time around the pieces are others.
        self.at = (self.at + PAYLOAD + 1) % (self.pool.len() - PAYLOAD);
        self.pool.slice(self.at..self.at + PAYLOAD)
    }
}

/// What writes batches of so many entries, each synced, and says how long one took.
pub(crate) trait Writer {
    fn write(&mut self, entries: usize) -> Result<Duration>;

    /// Writes `batches` batches of `entries` entries, and says how long each took.
    fn turn(&mut self, entries: usize, batches: usize) -> Result<Vec<Duration>> {
        (0..batches).map(|_| self.write(entries)).collect()
    }
}

/// Writes a snapshot of `bytes` bytes in pieces of a megabyte.
pub(crate) fn write_snapshot(snapshots: &dyn Snapshots, last: LogId, bytes: usize) -> Result<()> {
    let noise = Noise::new();
    let mut sink = snapshots.create(&snapshot_meta(last))?;
    let mut left = bytes;
    for piece in noise.pool.chunks(1 << 20).cycle() {
        let piece = &piece[..piece.len().min(left)];
        sink.write(piece)?;
        left -= piece.len();
        if left == 0 {
            break;
        }
    }
    sink.finish()?;
    Ok(())
}

fn snapshot_meta(last: LogId) -> SnapshotMeta {
    SnapshotMeta {
        last,
        configuration: Configuration::of([NODE]).into(),
    }
}

/// The store.
pub(crate) struct Store {
    store: Box<dyn LogStore>,
    term: Term,
    last: LogIndex,
    batches: u64,
    noise: Noise,
}

impl Store {
    /// Opens the store in `folder`, made if it is missing.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let opened = open_rocksdb(folder, Some(NODE))?;
        Ok(Self {
            store: opened.store,
            term: opened.recovered.hard_state.term,
            last: opened.recovered.last.index,
            batches: 0,
            noise: Noise::new(),
        })
    }

    /// Writes `entries` entries in batches of `batch`.
    pub(crate) fn fill(&mut self, entries: u64, batch: u64) -> Result<()> {
        let mut left = entries;
        while left > 0 {
            let count = left.min(batch);
            self.write(count as usize)?;
            left -= count;
        }
        Ok(())
    }

    /// Its last entry.
    pub(crate) fn last(&self) -> LogId {
        LogId::new(self.term, self.last)
    }

    /// Lets the log begin behind `start`. The snapshot was made before, and covers it.
    pub(crate) fn compact(&mut self, snapshot: LogId, start: LogId) -> Result<()> {
        let mut batch = Batch::new();
        batch.push_snapshot(SnapshotWrite {
            snapshot: snapshot_meta(snapshot),
            log_start: start,
            replaces_log: false,
        });
        Ok(self.store.write(&batch)?)
    }

    pub(crate) fn snapshots(&self) -> Arc<dyn Snapshots> {
        self.store.snapshots()
    }

    pub(crate) fn reader(&self) -> Arc<dyn LogReader> {
        self.store.reader()
    }

    pub(crate) fn close(mut self) -> Result<()> {
        Ok(self.store.close()?)
    }
}

impl Writer for Store {
    fn write(&mut self, entries: usize) -> Result<Duration> {
        let mut hard_state = None;
        if self.batches.is_multiple_of(TERM_EVERY) {
            self.term = Term(self.term.0 + 1);
            hard_state = Some(HardState {
                term: self.term,
                voted_for: Some(NODE),
            });
        }
        self.batches += 1;
        let indexes = (self.last.0 + 1..).take(entries).map(LogIndex);
        let made: Arc<[Entry]> = indexes
            .map(|index| Entry::new(self.term, index, EntryKind::Command, self.noise.next()))
            .collect();
        self.last = LogIndex(self.last.0 + entries as u64);
        let mut batch = Batch::new();
        batch.push(hard_state, None, made);
        let before = Instant::now();
        self.store.write(&batch)?;
        Ok(before.elapsed())
    }
}

/// A file that grows by one write for each batch.
#[derive(Debug)]
pub(crate) struct Plain {
    file: File,
    noise: Noise,
    buffer: Vec<u8>,
}

impl Plain {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path);
        Ok(Self {
            file: file.with_context(|| format!("cannot make {}", path.display()))?,
            noise: Noise::new(),
            buffer: Vec::new(),
        })
    }
}

impl Writer for Plain {
    fn write(&mut self, entries: usize) -> Result<Duration> {
        self.buffer.clear();
        for _ in 0..entries {
            self.buffer.extend_from_slice(&self.noise.next());
        }
        let before = Instant::now();
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        Ok(before.elapsed())
    }
}

/// How one round of turns went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) entries_per_s: f64,
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
}

impl Round {
    /// Of batches of `entries` entries that took so long each.
    pub(crate) fn new(entries: usize, mut times: Vec<Duration>) -> Self {
        let all: Duration = times.iter().sum();
        let entries_per_s = (entries * times.len()) as f64 / all.as_secs_f64();
        times.sort_unstable();
        let us = |time: Duration| time.as_nanos() as f64 / 1_000.0;
        Self {
            entries_per_s,
            median_us: us(times[times.len() / 2]),
            p99_us: us(times[times.len() * 99 / 100]),
        }
    }

    /// Of each number the median over several rounds.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let of = |number: fn(&Self) -> f64| median(rounds.iter().map(number).collect());
        Self {
            entries_per_s: of(|round| round.entries_per_s),
            median_us: of(|round| round.median_us),
            p99_us: of(|round| round.p99_us),
        }
    }
}
