//! A disk in memory that can lose power: a real store, for tests and simulations.
//!
//! Invariants:
//! - What a write made durable survives [`MemoryDisk::crash`]; what waits for its sync does not.
//! - One store at a time has the disk open; a store that was open at a crash is dead for good, so that no
//!   late write of it reaches what is opened next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use raft_core::{
    ClusterId, Entry, EntryKind, HardState, Incarnation, LogIndex, NodeId, Recovered,
    membership::Configuration,
};

use crate::{
    Batch, Damage, Identity, LogReader, LogStore, Misfit, OpenError, Opened, StorageError,
    error::Item, shape::Shape, store::random_incarnation,
};

/// What errors name as the disk's place.
const PLACE: &str = "memory";

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
    members: Option<BTreeMap<NodeId, Incarnation>>,
    hard_state: HardState,
    log: Vec<Entry>,
    shape: Shape,

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

    /// Opens the disk for `node`, which it belongs to from then on.
    ///
    /// # Errors
    /// [`Locked`](OpenError::Locked) while another store has it open,
    /// [`WrongNode`](OpenError::WrongNode) on a disk of another node, and
    /// [`Damaged`](StorageError::Damaged) if an entry that should hold a configuration does not.
    pub fn open(&self, node: NodeId) -> Result<Opened, OpenError> {
        let mut disk = self.shared.lock();
        let dir = PLACE.into();
        if disk.in_use {
            return Err(OpenError::Locked { dir });
        }
        let belongs_to = *disk.node.get_or_insert(node);
        if belongs_to != node {
            let asked = node;
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
        let configurations = configurations(&disk.log)?;
        disk.starts += 1;
        disk.in_use = true;
        let identity = Identity {
            node,
            incarnation,
            starts: disk.starts,
            cluster: disk.cluster,
            members: disk.members.clone(),
        };
        let recovered = Recovered {
            hard_state: disk.hard_state,
            last: disk.shape.last(),
            terms: disk.shape.terms().to_vec(),
            configurations,
            tail: disk.log.clone(),
            ..Recovered::default()
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
        disk.log.truncate(position(from));
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
        let fits = disk.shape.check(disk.hard_state, batch);
        fits.map_err(StorageError::Refused)?;
        if batch.is_empty() {
            return Ok(());
        }
        drop(disk);
        let disk = &mut *self.handle.synced()?;
        disk.hard_state = batch.hard_state().unwrap_or(disk.hard_state);
        if let Some(from) = batch.truncate_from() {
            disk.log.truncate(position(from));
        }
        disk.log.extend(batch.entries().cloned());
        disk.shape.apply(batch);
        Ok(())
    }

    fn try_record(
        &self,
        members: Option<&BTreeMap<NodeId, Incarnation>>,
        cluster: Option<ClusterId>,
    ) -> Result<(), StorageError> {
        let known = self.handle.disk()?.cluster;
        if cluster.is_some() && known.is_some() && cluster != known {
            return Err(StorageError::Refused(Misfit::OtherCluster));
        }
        let mut disk = self.handle.synced()?;
        if let Some(members) = members {
            disk.members = Some(members.clone());
        }
        disk.cluster = cluster.or(known);
        Ok(())
    }
}

impl LogStore for MemoryStore {
    fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.alive()?;
        let result = self.try_write(batch);
        self.poisoned_by(result)
    }

    fn record(
        &mut self,
        members: Option<&BTreeMap<NodeId, Incarnation>>,
        cluster: Option<ClusterId>,
    ) -> Result<(), StorageError> {
        self.alive()?;
        let result = self.try_record(members, cluster);
        self.poisoned_by(result)
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(MemoryReader {
            handle: self.handle.clone(),
            starts: self.handle.shared.lock().starts,
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

struct MemoryReader {
    handle: Handle,
    /// Which opening of the disk this reads for.
    starts: u64,
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
        let disk = self.handle.disk()?;
        if !disk.in_use || disk.starts != self.starts {
            return Err(StorageError::Closed);
        }
        let last = disk.shape.last().index;
        if from > last {
            let index = from;
            return Err(StorageError::Missing { index, last });
        }
        if from == LogIndex::ZERO {
            let first = LogIndex(1);
            return Err(StorageError::Compacted { first });
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in &disk.log[position(from)..position(through.next()).min(disk.log.len())] {
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
fn configurations(log: &[Entry]) -> Result<Vec<(LogIndex, Configuration)>, StorageError> {
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

/// Where an entry is in the vector that holds the log from entry 1 on.
fn position(index: LogIndex) -> usize {
    usize::try_from(index.0.saturating_sub(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
