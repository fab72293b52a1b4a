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

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use raft_core::{
    ClusterId, Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, NodeId, Recovered, Term,
};

use crate::{Batch, LogReader, LogStore, Misfit, OpenError, Opened, StorageError};

/// Opens one and the same disk each time it is called. The store that it gave out before is closed or
/// dropped by then.
pub type Disk = Box<dyn Fn(NodeId) -> Result<Opened, OpenError>>;

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
    ("a new store is empty", new_store_is_empty),
    ("what was written is there after a reopen", written_is_there),
    (
        "term and vote survive, alone and together with entries",
        vote_survives,
    ),
    ("a write of nothing is answered", nothing_is_written),
    (
        "a cut in the middle of a run keeps its beginning",
        cut_in_a_run,
    ),
    (
        "a cut at the border of a run takes it whole",
        cut_at_a_border,
    ),
    ("a cut behind the end cuts nothing", cut_behind_the_end),
    ("a cut of everything leaves an empty log", cut_of_everything),
    (
        "a cut and entries of a new term are one write",
        cut_and_append,
    ),
    (
        "the first entry of each term is recovered",
        terms_are_recovered,
    ),
    (
        "a read gives what it was asked for, to the byte",
        reads_are_bounded,
    ),
    ("a read that cannot be answered says why", reads_that_fail),
    (
        "entries keep their kind and their bytes",
        entries_keep_their_bytes,
    ),
    ("a gap is refused, and is the last write", gap_is_refused),
    ("term and vote never go back", vote_never_goes_back),
    (
        "what the node learned of its cluster survives",
        cluster_survives,
    ),
    ("another cluster is refused", other_cluster_is_refused),
    (
        "each start is counted, and the incarnation stays",
        starts_are_counted,
    ),
    (
        "a second store on the disk is refused",
        second_store_is_refused,
    ),
    ("another node is refused", other_node_is_refused),
    (
        "a closed store answers that it is closed",
        closed_store_says_so,
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
    disk(NODE).expect("opens")
}

fn store(disk: &Disk) -> Box<dyn LogStore> {
    open(disk).store
}

fn write(store: &mut dyn LogStore, batch: &Batch) {
    store.write(batch).expect("is written");
}

fn read_all(reader: &dyn LogReader) -> Vec<Entry> {
    match reader.read(LogIndex(1), LogIndex(u64::MAX), usize::MAX) {
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

fn new_store_is_empty(disk: &Disk) {
    let opened = open(disk);
    assert_eq!(opened.recovered, Recovered::default());
    assert_eq!(opened.identity.node, NODE);
    assert_eq!(opened.identity.starts, 1);
    assert_eq!(opened.identity.cluster, None);
    assert_eq!(opened.identity.members, None);
}

fn written_is_there(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=1));
    write(&mut *store, &batch_of(1, 2..=200));
    write(&mut *store, &batch_of(2, 201..=203));
    let mut expected = entries(1, 1..=200).to_vec();
    expected.extend_from_slice(&entries(2, 201..=203));
    assert_log(store, disk, &expected);
}

fn vote_survives(disk: &Disk) {
    let mut opened = open(disk);
    let mut batch = batch_of(1, 1..=3);
    batch.push(Some(hard_state(1, None)), None, [].into());
    write(&mut *opened.store, &batch);
    write(&mut *opened.store, &vote(1, Some(2)));
    drop(opened);
    let mut opened = open(disk);
    assert_eq!(opened.recovered.hard_state, hard_state(1, Some(2)));
    write(&mut *opened.store, &vote(5, None));
    drop(opened);
    let opened = open(disk);
    assert_eq!(opened.recovered.hard_state, hard_state(5, None));
    assert_eq!(opened.recovered.last, id(1, 3));
}

fn nothing_is_written(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &Batch::new());
    write(&mut *store, &batch_of(1, 1..=1));
    write(&mut *store, &Batch::new());
    assert_log(store, disk, &entries(1, 1..=1));
}

fn cut_in_a_run(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=40));
    write(&mut *store, &batch_of(1, 41..=80));
    write(&mut *store, &cut(17));
    assert_log(store, disk, &entries(1, 1..=16));
}

fn cut_at_a_border(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=5));
    write(&mut *store, &batch_of(1, 6..=9));
    write(&mut *store, &batch_of(1, 10..=10));
    write(&mut *store, &cut(6));
    assert_log(store, disk, &entries(1, 1..=5));
}

fn cut_behind_the_end(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &cut(1));
    write(&mut *store, &batch_of(1, 1..=5));
    write(&mut *store, &cut(6));
    write(&mut *store, &cut(100));
    write(&mut *store, &batch_of(1, 6..=6));
    assert_log(store, disk, &entries(1, 1..=6));
}

fn cut_of_everything(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=70));
    write(&mut *store, &cut(1));
    assert_log(store, disk, &[]);
}

fn cut_and_append(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=10));
    let mut batch = Batch::new();
    let new_term = hard_state(2, None);
    batch.push(Some(new_term), Some(LogIndex(4)), entries(2, 4..=100));
    batch.push(None, Some(LogIndex(90)), entries(3, 90..=91));
    write(&mut *store, &batch);
    let mut expected = entries(1, 1..=3).to_vec();
    expected.extend_from_slice(&entries(2, 4..=89));
    expected.extend_from_slice(&entries(3, 90..=91));
    assert_log(store, disk, &expected);
}

fn terms_are_recovered(disk: &Disk) {
    let mut opened = open(disk);
    let store = &mut *opened.store;
    write(store, &batch_of(1, 1..=100));
    write(store, &batch_of(1, 101..=101));
    let mut batch = Batch::new();
    batch.push(None, None, entries(4, 102..=103));
    batch.push(None, None, entries(6, 104..=104));
    batch.push(None, None, entries(7, 105..=110));
    write(store, &batch);
    let mut batch = cut(104);
    batch.push(None, None, entries(9, 104..=104));
    write(store, &batch);
    drop(opened);
    let recovered = open(disk).recovered;
    assert_eq!(recovered.terms, [id(1, 1), id(4, 102), id(9, 104)]);
    assert_eq!(recovered.last, id(9, 104));
}

fn reads_are_bounded(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=150));
    write(&mut *store, &batch_of(1, 151..=151));
    let reader = store.reader();
    let read = |from, through, bytes_max| {
        let entries = reader.read(LogIndex(from), LogIndex(through), bytes_max);
        let indexes = entries.expect("reads").into_iter();
        indexes.map(|entry| entry.id.index.0).collect::<Vec<_>>()
    };
    assert_eq!(read(1, 1, usize::MAX), [1]);
    assert_eq!(read(60, 130, usize::MAX), (60..=130).collect::<Vec<_>>());
    assert_eq!(read(150, 999, usize::MAX), [150, 151]);
    assert_eq!(read(7, 9, 0), [7], "at least one");
    let one = entry(1, 100).size_bytes();
    assert_eq!(read(100, 999, one), [100], "the sum is reached");
    assert_eq!(read(100, 999, one + 1), [100, 101]);
    assert_eq!(read(100, 999, 3 * one), [100, 101, 102]);
}

fn reads_that_fail(disk: &Disk) {
    let mut store = store(disk);
    let reader = store.reader();
    let read = |from, through| reader.read(LogIndex(from), LogIndex(through), usize::MAX);
    let missing = |result: Result<Vec<Entry>, StorageError>| match result {
        Err(StorageError::Missing { index, last }) => (index.0, last.0),
        other => panic!("not missing: {other:?}"),
    };
    assert_eq!(missing(read(1, 1)), (1, 0));
    write(&mut *store, &batch_of(1, 1..=100));
    assert_eq!(missing(read(101, 200)), (101, 100));
    assert!(matches!(read(5, 4), Err(StorageError::EmptyRange { .. })));
    let first = LogIndex(1);
    assert!(matches!(read(0, 4), Err(StorageError::Compacted { first: f }) if f == first));
}

fn entries_keep_their_bytes(disk: &Disk) {
    let lengths = [0, 1, 256, 70_000, 64 << 10, 0, 3];
    let kinds = [EntryKind::Birth, EntryKind::Noop, EntryKind::Command];
    let entries: Arc<[Entry]> = lengths
        .iter()
        .zip(1..)
        .map(|(&length, index)| {
            let data = (0..length)
                .map(|byte| (byte % 251) as u8)
                .collect::<Vec<_>>();
            let kind = kinds[length % kinds.len()];
            Entry::new(Term(2), LogIndex(index), kind, Bytes::from(data))
        })
        .collect();
    let mut store = store(disk);
    let mut batch = Batch::new();
    batch.push(None, None, entries.clone());
    write(&mut *store, &batch);
    assert_log(store, disk, &entries);
}

fn gap_is_refused(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(2, 1..=2));
    let error = store.write(&batch_of(2, 4..=4)).expect_err("a gap");
    assert!(
        matches!(error, StorageError::Refused(Misfit::Gap { .. })),
        "{error}"
    );
    let error = store.write(&batch_of(2, 3..=3)).expect_err("poisoned");
    assert!(
        matches!(error, StorageError::Refused(Misfit::Gap { .. })),
        "{error}"
    );
    assert!(store.close().is_err());
    drop(store);
    let mut store = self::store(disk);
    let error = store.write(&batch_of(1, 3..=3)).expect_err("a lower term");
    assert!(
        matches!(error, StorageError::Refused(Misfit::Gap { .. })),
        "{error}"
    );
    drop(store);
    assert_log(self::store(disk), disk, &entries(2, 1..=2));
}

fn vote_never_goes_back(disk: &Disk) {
    for (batch, what) in [
        (vote(4, Some(1)), "a lower term"),
        (vote(5, Some(2)), "another vote"),
        (vote(5, None), "no vote any more"),
    ] {
        let mut opened = open(disk);
        write(&mut *opened.store, &vote(5, Some(1)));
        let error = opened.store.write(&batch).expect_err(what);
        let back = matches!(error, StorageError::Refused(Misfit::HardStateBack { .. }));
        assert!(back, "{what}: {error}");
        drop(opened);
        assert_eq!(
            open(disk).recovered.hard_state,
            hard_state(5, Some(1)),
            "{what}"
        );
    }
}

fn cluster_survives(disk: &Disk) {
    let members = |nodes: &[u64]| -> BTreeMap<NodeId, Incarnation> {
        let member = |&node: &u64| (NodeId(node), Incarnation(u128::from(node) << 80));
        nodes.iter().map(member).collect()
    };
    let mut opened = open(disk);
    let recorded = opened.store.record(Some(&members(&[1, 2])), None);
    recorded.expect("is recorded");
    drop(opened);
    let mut opened = open(disk);
    assert_eq!(opened.identity.members, Some(members(&[1, 2])));
    assert_eq!(opened.identity.cluster, None);
    let recorded = opened.store.record(None, Some(ClusterId(u128::MAX)));
    recorded.expect("is recorded");
    let recorded = opened.store.record(Some(&members(&[1, 2, 9])), None);
    recorded.expect("is recorded");
    drop(opened);
    let opened = open(disk);
    assert_eq!(opened.identity.members, Some(members(&[1, 2, 9])));
    assert_eq!(opened.identity.cluster, Some(ClusterId(u128::MAX)));
}

fn other_cluster_is_refused(disk: &Disk) {
    let mut store = store(disk);
    for _ in 0..2 {
        store.record(None, Some(ClusterId(1))).expect("is recorded");
    }
    let error = store.record(None, Some(ClusterId(2))).expect_err("another");
    assert!(
        matches!(error, StorageError::Refused(Misfit::OtherCluster)),
        "{error}"
    );
    drop(store);
    assert_eq!(open(disk).identity.cluster, Some(ClusterId(1)));
}

fn starts_are_counted(disk: &Disk) {
    let first = open(disk).identity;
    for starts in 2..5 {
        let identity = open(disk).identity;
        assert_eq!(identity.starts, starts);
        assert_eq!(identity.incarnation, first.incarnation);
    }
}

fn second_store_is_refused(disk: &Disk) {
    let first = open(disk);
    let error = disk(NODE).expect_err("a second one");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(first);
    open(disk);
}

fn other_node_is_refused(disk: &Disk) {
    drop(open(disk));
    match disk(NodeId(4)).expect_err("another node") {
        OpenError::WrongNode {
            belongs_to, asked, ..
        } => assert_eq!((belongs_to, asked), (NODE, NodeId(4))),
        error => panic!("{error}"),
    }
    assert_eq!(
        open(disk).identity.starts,
        2,
        "the refused one does not count"
    );
}

fn closed_store_says_so(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=1));
    let reader = store.reader();
    store.close().expect("closes");
    let reopened = open(disk);
    assert!(matches!(
        store.write(&batch_of(1, 2..=2)),
        Err(StorageError::Closed)
    ));
    assert!(matches!(
        store.record(None, None),
        Err(StorageError::Closed)
    ));
    assert!(matches!(store.close(), Err(StorageError::Closed)));
    let read = reader.read(LogIndex(1), LogIndex(1), 1);
    assert!(matches!(read, Err(StorageError::Closed)));
    drop(store);
    assert!(matches!(disk(NODE), Err(OpenError::Locked { .. })));
    drop(reopened);
}
