//! A disk in memory that can lose power: a real store, for tests and simulations.
//!
//! Invariants:
//! - What a write made durable survives [`MemoryDisk::crash`]; what waits for its sync does not.
//! - `log` holds the entries behind `shape`'s start, and none other.
//! - One store at a time has the disk open; a store that was open at a crash is dead for good, so that no
//!   late write of it reaches what is opened next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use raft_core::{
    ClusterId, Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, NodeId, Recovered,
    SnapshotMeta, membership::Configuration,
};

use crate::{
    Batch, Damage, Identity, LogReader, LogStore, Misfit, OpenError, Opened, Record, Snapshots,
    StorageError,
    error::Item,
    shape::Shape,
    store::{check_id, random_incarnation},
};
use runs::Runs;
use snapshots::{MemorySnapshot, MemorySnapshots};

/// What errors name as the disk's place.
const PLACE: &str = "memory";
/// Of what was cut from the log's beginning each write lets go of so many entries, and of twice as many as it brings.
const CUT_MIN: usize = 64;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    disk: Mutex<Disk>,
    /// Told whenever `held`, `waiting` or `crashes` change.
    changed: Condvar,
}

#[derive(Default)]
struct Disk {
    node: Option<NodeId>,
    incarnation: Option<Incarnation>,
    starts: u64,
    cluster: Option<ClusterId>,
    known: Option<Configuration>,
    hard_state: HardState,
    log: Runs,
    shape: Shape,
    snapshot: Option<SnapshotMeta>,
    /// All that are whole.
    snapshots: BTreeMap<LogId, Arc<MemorySnapshot>>,
    cursors: BTreeMap<String, LogIndex>,

    in_use: bool,
    crashes: u64,
    syncs: u64,
    held: bool,
    waiting: bool,
    fail_in: Option<u64>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk whose incarnation is not random, for runs that can be repeated.
    #[must_use]
    pub fn with_incarnation(incarnation: Incarnation) -> Self {
        let disk = Self::default();
        disk.shared.lock().incarnation = Some(incarnation);
        disk
    }

    /// Opens the disk for `node`, which it belongs to from then on; without one, for whoever it belongs to, which may
    /// be nobody yet.
    ///
    /// # Errors
    /// [`Locked`](OpenError::Locked) while another store has it open,
    /// [`WrongNode`](OpenError::WrongNode) on a disk of another node, and
    /// [`Damaged`](StorageError::Damaged) if an entry that should hold a configuration does not.
    pub fn open(&self, node: Option<NodeId>) -> Result<Opened, OpenError> {
        check_id(node).map_err(StorageError::Refused)?;
        let mut disk = self.shared.lock();
        let dir = PLACE.into();
        if disk.in_use {
            return Err(OpenError::Locked { dir });
        }
        if let (Some(belongs_to), Some(asked)) = (disk.node, node)
            && belongs_to != asked
        {
            return Err(OpenError::WrongNode {
                dir,
                belongs_to,
                asked,
            });
        }
        let incarnation = match disk.incarnation {
            Some(incarnation) => incarnation,
            None => *disk.incarnation.insert(random_incarnation()?),
        };
        let configurations = configurations(&disk.log);
        let configurations = configurations.map_err(|cause| OpenError::Damaged { dir, cause })?;
        disk.node = disk.node.or(node);
        disk.starts += 1;
        disk.in_use = true;
        let named = disk.snapshot.as_ref().map(|meta| meta.last);
        disk.snapshots.retain(|last, _| Some(*last) == named);
        let identity = Identity {
            node: disk.node,
            incarnation,
            starts: disk.starts,
            cluster: disk.cluster,
            known: disk.known.clone(),
        };
        let recovered = Recovered {
            hard_state: disk.hard_state,
            snapshot: disk.snapshot.clone(),
            log_start: disk.shape.start(),
            last: disk.shape.last(),
            terms: disk.shape.terms().to_vec(),
            configurations,
            tail: disk.log.iter().cloned().collect(),
            applied: LogIndex::ZERO,
        };
        let store = MemoryStore {
            handle: Handle {
                shared: self.shared.clone(),
                crashes: disk.crashes,
            },
            poison: None,
        };
        Ok(Opened {
            store: Box::new(store),
            recovered,
            identity,
            cursors: disk.cursors.clone(),
        })
    }

    /// The power goes: what was not synced is forgotten, and the store that had the disk open is dead.
    pub fn crash(&self) {
        let mut disk = self.shared.lock();
        disk.crashes += 1;
        disk.in_use = false;
        disk.held = false;
        disk.fail_in = None;
        self.shared.changed.notify_all();
    }

    /// The disk loses the log from `from` on, though it was synced, and shows no trace of the loss.
    pub fn lose_from(&self, from: LogIndex) {
        let disk = &mut *self.shared.lock();
        disk.log.truncate(from);
        disk.shape.truncate(from);
    }

    /// From now on a write waits for its sync until [`release`](Self::release), or until a crash loses it.
    pub fn hold(&self) {
        self.shared.lock().held = true;
    }

    /// Syncs what waits, and holds back nothing more.
    pub fn release(&self) {
        self.shared.lock().held = false;
        self.shared.changed.notify_all();
    }

    /// Blocks this thread until a write waits for its sync: written, but not durable.
    pub fn wait_until_held(&self) {
        let disk = self.shared.lock();
        let waits = self.shared.changed.wait_while(disk, |disk| !disk.waiting);
        drop(waits.unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes the `nth` write from now on fail, 1 being the next one. Nothing of it is kept.
    pub fn fail_write(&self, nth: u64) {
        self.shared.lock().fail_in = Some(nth);
    }

    /// How many writes were synced since the disk was made.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Access to the disk for as long as it does not crash.
#[derive(Clone)]
struct Handle {
    shared: Arc<Shared>,
    /// The disk's count of crashes when it was opened.
    crashes: u64,
}

impl Handle {
    fn disk(&self) -> Result<MutexGuard<'_, Disk>, StorageError> {
        let disk = self.shared.lock();
        if disk.crashes != self.crashes {
            return Err(StorageError::Crashed);
        }
        Ok(disk)
    }

    /// The disk, when what is about to be written is durable.
    fn synced(&self) -> Result<MutexGuard<'_, Disk>, StorageError> {
        let mut disk = self.disk()?;
        if let Some(left) = disk.fail_in {
            disk.fail_in = (left > 1).then(|| left - 1);
            if left <= 1 {
                return Err(StorageError::Injected);
            }
        }
        if disk.held {
            disk.waiting = true;
            self.shared.changed.notify_all();
            let waits = |disk: &mut Disk| disk.held && disk.crashes == self.crashes;
            let synced = self.shared.changed.wait_while(disk, waits);
            disk = synced.unwrap_or_else(PoisonError::into_inner);
            disk.waiting = false;
        }
        if disk.crashes != self.crashes {
            return Err(StorageError::Crashed);
        }
        disk.syncs += 1;
        Ok(disk)
    }
}

struct MemoryStore {
    handle: Handle,
    /// Why nothing is written any more.
    poison: Option<StorageError>,
}

impl MemoryStore {
    fn alive(&self) -> Result<(), StorageError> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    fn poisoned_by<T>(&mut self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &result {
            self.poison = Some(error.clone());
        }
        result
    }

    fn try_write(&self, batch: &Batch) -> Result<(), StorageError> {
        let disk = self.handle.disk()?;
        let after = disk.shape.after(disk.hard_state, batch);
        let after = after.map_err(StorageError::Refused)?;
        if let Some((SnapshotMeta { last, .. }, _)) = batch.snapshot()
            && !disk.snapshots.contains_key(last)
        {
            let last = *last;
            return Err(StorageError::Refused(Misfit::SnapshotAbsent { last }));
        }
        if batch.is_empty() {
            return Ok(());
        }
        drop(disk);
        let disk = &mut *self.handle.synced()?;
        disk.hard_state = batch.hard_state().unwrap_or(disk.hard_state);
        if batch.replaced().is_some() {
            disk.log.clear();
        }
        if let Some(from) = batch.truncate_from() {
            disk.log.truncate(from);
        }
        let mut count = 0;
        for (run, len) in batch.runs() {
            disk.log.push(run, len);
            count += len;
        }
        disk.log.let_go(2 * count + CUT_MIN);
        if let Some((meta, log_start)) = batch.snapshot() {
            disk.log.cut(log_start.index);
            disk.snapshot = Some(meta.clone());
            disk.snapshots
                .retain(|last, _| *last == meta.last || last.index > meta.last.index);
        }
        disk.shape = after;
        Ok(())
    }

    fn try_record(&self, record: &Record) -> Result<(), StorageError> {
        let disk = self.handle.disk()?;
        let checked = record.check(disk.node, disk.cluster);
        checked.map_err(StorageError::Refused)?;
        let cursors = record.cursors_over(&disk.cursors);
        let cursors = cursors.map_err(StorageError::Refused)?;
        drop(disk);
        let mut disk = self.handle.synced()?;
        disk.node = disk.node.or(record.node);
        if let Some(known) = &record.known {
            disk.known = Some(known.clone());
        }
        disk.cluster = disk.cluster.or(record.cluster);
        disk.cursors = cursors;
        Ok(())
    }
}

impl LogStore for MemoryStore {
    fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.alive()?;
        let result = self.try_write(batch);
        self.poisoned_by(result)
    }

    fn record(&mut self, record: &Record) -> Result<(), StorageError> {
        self.alive()?;
        let result = self.try_record(record);
        self.poisoned_by(result)
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(MemoryReader {
            view: self.handle.view(),
        })
    }

    fn snapshots(&self) -> Arc<dyn Snapshots> {
        Arc::new(MemorySnapshots {
            view: self.handle.view(),
        })
    }

    fn close(&mut self) -> Result<(), StorageError> {
        if let Ok(mut disk) = self.handle.disk()
            && !matches!(self.poison, Some(StorageError::Closed))
        {
            disk.in_use = false;
        }
        let result = self.alive();
        self.poison = Some(StorageError::Closed);
        result
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// Access for as long as the store is open.
#[derive(Clone)]
struct View {
    handle: Handle,
    /// Which opening of the disk this belongs to.
    starts: u64,
}

impl Handle {
    fn view(&self) -> View {
        View {
            handle: self.clone(),
            starts: self.shared.lock().starts,
        }
    }
}

impl View {
    fn disk(&self) -> Result<MutexGuard<'_, Disk>, StorageError> {
        let disk = self.handle.disk()?;
        if !disk.in_use || disk.starts != self.starts {
            return Err(StorageError::Closed);
        }
        Ok(disk)
    }
}

struct MemoryReader {
    view: View,
}

impl LogReader for MemoryReader {
    fn read(
        &self,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        if from > through {
            return Err(StorageError::EmptyRange { from, through });
        }
        let disk = self.view.disk()?;
        let (start, last) = (disk.shape.start().index, disk.shape.last().index);
        if from <= start {
            let first = start.next();
            return Err(StorageError::Compacted { first });
        }
        if from > last {
            let index = from;
            return Err(StorageError::Missing { index, last });
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        let wanted = |entry: &&Entry| entry.id.index <= through;
        for entry in disk.log.since(from).take_while(wanted) {
            bytes += entry.size_bytes();
            entries.push(entry.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(entries)
    }
}

/// The configurations of a log, with their positions.
fn configurations(log: &Runs) -> Result<Vec<(LogIndex, Configuration)>, StorageError> {
    let of_that_kind = |entry: &&Entry| entry.kind == EntryKind::Configuration;
    let decode = |entry: &Entry| {
        let decoded = Configuration::decode(&entry.data);
        let configuration = decoded.map_err(|error| StorageError::Damaged {
            path: PLACE.into(),
            item: Item::Entry(entry.id.index),
            damage: Damage::Configuration(error),
        })?;
        Ok((entry.id.index, configuration))
    };
    log.iter().filter(of_that_kind).map(decode).collect()
}

mod runs;
mod snapshots;
#[cfg(test)]
mod tests;
