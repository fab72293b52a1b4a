//! The cases that every store must pass, for this crate's own two and for any other.
//!
//! ```no_run
//! use raft_storage::{MemoryDisk, suite};
//!
//! suite::check(|| {
//!     let disk = MemoryDisk::new();
//!     Box::new(move |node| disk.open(node))
//! });
//! ```

mod log;
mod node;
mod snapshot;

use std::{ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use raft_core::{
    ClusterId, Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, NodeId, Recovered,
    SnapshotMeta, SnapshotWrite, Term,
    membership::{ChangeError, Configuration, Member},
};

use crate::{
    Batch, CHUNK_BYTES, Damage, LogReader, LogStore, Misfit, OpenError, Opened, Record, Snapshots,
    StorageError, error::Item,
};

/// Opens one and the same disk each time it is called, for this node or for whoever it belongs to. The store that it gave out before is closed or
/// dropped by then.
pub type Disk = Box<dyn Fn(Option<NodeId>) -> Result<Opened, OpenError>>;

type Case = (&'static str, fn(&Disk));

/// Runs every case, each on a new disk. Panics with the case's name before the assertion that failed.
pub fn check(new_disk: impl Fn() -> Disk) {
    for (name, case) in CASES {
        eprintln!("case: {name}");
        case(&new_disk());
    }
}

/// The cases by name.
pub const CASES: &[Case] = &[
    ("a new store is empty", node::new_store_is_empty),
    (
        "what was written is there after a reopen",
        log::written_is_there,
    ),
    (
        "term and vote survive, alone and together with entries",
        node::vote_survives,
    ),
    ("a write of nothing is answered", log::nothing_is_written),
    (
        "a cut in the middle of a run keeps its beginning",
        log::cut_in_a_run,
    ),
    (
        "a cut at the border of a run takes it whole",
        log::cut_at_a_border,
    ),
    ("a cut behind the end cuts nothing", log::cut_behind_the_end),
    (
        "a cut of everything leaves an empty log",
        log::cut_of_everything,
    ),
    (
        "a cut and entries of a new term are one write",
        log::cut_and_append,
    ),
    (
        "the first entry of each term is recovered",
        log::terms_are_recovered,
    ),
    (
        "the configurations in the log are recovered, and a cut takes them back",
        log::configurations_are_recovered,
    ),
    (
        "an entry that should be a configuration, and is none, is named at the next opening",
        log::no_configuration_is_named,
    ),
    (
        "a read gives what it was asked for, to the byte",
        log::reads_are_bounded,
    ),
    (
        "a read that cannot be answered says why",
        log::reads_that_fail,
    ),
    (
        "entries keep their kind and their bytes",
        log::entries_keep_their_bytes,
    ),
    (
        "a gap is refused, and is the last write",
        log::gap_is_refused,
    ),
    ("term and vote never go back", node::vote_never_goes_back),
    (
        "what the node learned of its cluster survives",
        node::cluster_survives,
    ),
    ("another cluster is refused", node::other_cluster_is_refused),
    (
        "each start is counted, and the incarnation stays",
        node::starts_are_counted,
    ),
    (
        "a second store on the disk is refused",
        node::second_store_is_refused,
    ),
    ("another node is refused", node::other_node_is_refused),
    (
        "a store that is nobody's is given to a node once, and stays its",
        node::is_given_once,
    ),
    (
        "a store that is nobody's belongs to the first node that opens it",
        node::is_given_at_an_opening,
    ),
    ("who has departed is told so", node::departed_is_told),
    (
        "members that cannot be are refused, and so is the node 0",
        node::what_cannot_be_is_refused,
    ),
    (
        "a closed store answers that it is closed",
        node::closed_store_says_so,
    ),
    (
        "a named reader's place is kept, moved and given up",
        node::cursors_survive,
    ),
    (
        "a snapshot is read as it was written, piece by piece",
        snapshot::is_read_as_written,
    ),
    (
        "a snapshot that is not finished is not there",
        snapshot::unfinished_is_not_there,
    ),
    (
        "a finished snapshot that no write names goes at the next opening",
        snapshot::unnamed_goes,
    ),
    (
        "a snapshot and the log behind it survive",
        snapshot::named_survives,
    ),
    (
        "a compacted log begins where it was told, within a run and at its border",
        snapshot::log_begins_anywhere,
    ),
    (
        "the log may keep a margin before the snapshot's last entry",
        snapshot::margin_is_kept,
    ),
    (
        "a log of which nothing is left goes on behind the snapshot",
        snapshot::nothing_is_left,
    ),
    (
        "compactions follow each other",
        snapshot::compactions_follow_each_other,
    ),
    (
        "a reader is told what is compacted, also one from before",
        snapshot::readers_are_told,
    ),
    (
        "the terms of a compacted log are recovered",
        snapshot::terms_are_recovered,
    ),
    (
        "a configuration behind the snapshot is recovered, and the snapshot's own",
        snapshot::configurations_are_recovered,
    ),
    (
        "a snapshot takes the place of a shorter log",
        snapshot::replaces_a_shorter_log,
    ),
    (
        "a snapshot takes the place of a longer log that contradicts it",
        snapshot::replaces_a_longer_log,
    ),
    (
        "a snapshot, a vote and the entries behind it are one write",
        snapshot::is_one_write_with_the_rest,
    ),
    (
        "a log is replaced again and again",
        snapshot::replaces_again,
    ),
    (
        "older snapshots go when a newer one is named, and one that is not yet named stays",
        snapshot::older_ones_go,
    ),
    (
        "who reads a snapshot reads on when a newer one is named",
        snapshot::readers_read_on,
    ),
    (
        "a snapshot that nobody wants can be removed, and the named one cannot",
        snapshot::unwanted_is_removed,
    ),
    (
        "a second snapshot through the same entry takes the first one's place",
        snapshot::same_again,
    ),
    (
        "a write that names an absent snapshot is refused, and is the last write",
        snapshot::absent_is_refused,
    ),
    (
        "a snapshot that goes back or lies outside of the log is refused",
        snapshot::misplaced_is_refused,
    ),
    (
        "a cut of what a snapshot covers is refused",
        snapshot::covered_is_not_cut,
    ),
    (
        "a closed store takes and gives no snapshots",
        snapshot::closed_store_says_so,
    ),
];

const NODE: NodeId = NodeId(3);

/// A batch that appends entries of `term` at `indexes`, each with its own data.
#[must_use]
pub fn batch_of(term: u64, indexes: RangeInclusive<u64>) -> Batch {
    let mut batch = Batch::new();
    batch.push(None, None, entries(term, indexes));
    batch
}

fn entries(term: u64, indexes: RangeInclusive<u64>) -> Arc<[Entry]> {
    indexes.map(|index| entry(term, index)).collect()
}

fn entry(term: u64, index: u64) -> Entry {
    let data = format!("entry {index} of term {term}").into();
    Entry::new(Term(term), LogIndex(index), EntryKind::Command, data)
}

/// An entry that says who belongs to the cluster.
fn configuration(term: u64, index: u64, data: Bytes) -> Entry {
    Entry::new(Term(term), LogIndex(index), EntryKind::Configuration, data)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

fn hard_state(term: u64, vote: Option<u64>) -> HardState {
    HardState {
        term: Term(term),
        voted_for: vote.map(NodeId),
    }
}

fn vote(term: u64, vote: Option<u64>) -> Batch {
    let mut batch = Batch::new();
    batch.push(Some(hard_state(term, vote)), None, [].into());
    batch
}

fn cut(from: u64) -> Batch {
    let mut batch = Batch::new();
    batch.push(None, Some(LogIndex(from)), [].into());
    batch
}

fn open(disk: &Disk) -> Opened {
    disk(Some(NODE)).expect("opens")
}

fn store(disk: &Disk) -> Box<dyn LogStore> {
    open(disk).store
}

fn write(store: &mut dyn LogStore, batch: &Batch) {
    store.write(batch).expect("is written");
}

fn read_all(reader: &dyn LogReader) -> Vec<Entry> {
    read_from(reader, 1)
}

fn read_from(reader: &dyn LogReader, first: u64) -> Vec<Entry> {
    match reader.read(LogIndex(first), LogIndex(u64::MAX), usize::MAX) {
        Ok(entries) => entries,
        Err(StorageError::Missing { .. }) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Checks that the log is `expected`, now and after a reopen.
fn assert_log(mut store: Box<dyn LogStore>, disk: &Disk, expected: &[Entry]) {
    assert_eq!(read_all(&*store.reader()), expected);
    store.close().expect("closes");
    drop(store);
    let opened = open(disk);
    assert_eq!(read_all(&*opened.store.reader()), expected);
    let last = expected.last().map_or(LogId::ZERO, |entry| entry.id);
    assert_eq!(opened.recovered.last, last);
    let tail = &opened.recovered.tail;
    assert!(expected.ends_with(tail), "the tail is the log's end");
}
