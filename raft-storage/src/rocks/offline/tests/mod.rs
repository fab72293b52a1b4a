//! Offline calls on real folders: damaged ones, and those of running nodes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use raft_core::{
    ClusterId, Entry, HardState, Incarnation, LogId, LogIndex, NodeId, SnapshotMeta, SnapshotWrite,
    Term, membership::Configuration,
};
use tempfile::TempDir;

use super::*;
use crate::{Batch, LogStore, OpenError, Opened, Record, open_rocksdb, suite};

mod backup;
mod change;
mod read;

const NODE: NodeId = NodeId(2);
const CLUSTER: ClusterId = ClusterId(0xc1);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

fn nodes(ids: impl IntoIterator<Item = u64>) -> std::collections::BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

fn open(dir: &Path) -> Opened {
    open_rocksdb(dir, Some(NODE)).expect("opens")
}

fn hard_state(term: u64, vote: Option<u64>) -> Batch {
    let mut batch = Batch::new();
    let hard_state = HardState {
        term: Term(term),
        voted_for: vote.map(NodeId),
    };
    batch.push(Some(hard_state), None, [].into());
    batch
}

/// So many bytes that differ from place to place.
fn state(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251 + at / 9973) as u8).collect()
}

/// Takes a snapshot through `last` and lets the log begin behind `start`.
fn compact(store: &mut dyn LogStore, last: LogId, start: LogId, bytes: usize) {
    let meta = SnapshotMeta {
        last,
        configuration: Configuration::of([NodeId(1), NODE, NodeId(3)]).into(),
    };
    let mut sink = store.snapshots().create(&meta).unwrap();
    sink.write(&state(bytes)).unwrap();
    sink.finish().unwrap();
    let mut batch = Batch::new();
    batch.push_snapshot(SnapshotWrite {
        snapshot: meta,
        log_start: start,
        replaces_log: false,
    });
    store.write(&batch).unwrap();
}

/// Members with their folders and addresses.
fn known(ids: impl IntoIterator<Item = u64>) -> Configuration {
    let folder = |id: u64| (NodeId(id), Incarnation(u128::from(id) + 70));
    let mut known = Configuration::of_folders(ids.into_iter().map(folder));
    for (id, member) in &mut known.about {
        member.address = format!("10.0.0.{id}:7001");
    }
    known
}

fn identity() -> Record {
    Record {
        node: Some(NODE),
        known: Some(known([1, 2, 3])),
        cluster: Some(CLUSTER),
        cursors: [("a reader".to_owned(), Some(LogIndex(40)))].into(),
    }
}

/// A folder of a member of a cluster of three: 300 entries in terms 3 and 4, opened twice, so that table files hold
/// a part of it.
fn member() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).store;
    store.record(&identity()).unwrap();
    store.write(&hard_state(3, Some(1))).unwrap();
    for first in (1..=200).step_by(10) {
        store.write(&suite::batch_of(3, first..=first + 9)).unwrap();
    }
    store.close().unwrap();
    let mut store = open(dir.path()).store;
    store.write(&hard_state(4, Some(2))).unwrap();
    store.write(&suite::batch_of(4, 201..=300)).unwrap();
    store.close().unwrap();
    dir
}

/// The same, with a snapshot of some chunks through entry 250, and a log from 101 on.
fn member_with_snapshot() -> TempDir {
    let dir = member();
    let mut store = open(dir.path()).store;
    compact(&mut *store, id(4, 250), id(3, 100), 600_000);
    store.close().unwrap();
    dir
}

/// Every file with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    all
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for (path, content) in files(from) {
        let path = to.path().join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    to
}

fn all_entries(dir: &Path) -> Result<Vec<Entry>, OfflineError> {
    let mut found = Vec::new();
    let range = Range {
        from: LogIndex(1),
        through: LogIndex(u64::MAX),
    };
    entries(dir, range, |entry| {
        found.push(entry);
        true
    })?;
    Ok(found)
}

fn table_file(dir: &Path) -> PathBuf {
    let files = files(&dir.join("db")).into_keys();
    let mut tables: Vec<_> = files
        .filter(|p| p.extension().is_some_and(|e| e == "sst"))
        .collect();
    tables.sort_by_key(|path| fs::metadata(path).unwrap().len());
    tables.pop().expect("there is one")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}
