//! Random sequences of writes, snapshots and reopenings: every store against the simplest thing that could be
//! right, a vector, and so against each other.
//!
//! `SEQUENCES` says how many (default: 2,000; the long form is 10,000).

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use raft_core::{
    Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, NodeId, SnapshotMeta, SnapshotWrite,
    Term, membership::Configuration,
};

use crate::{Batch, MemoryDisk, Opened, Record, StorageError, suite::Disk};

const NODE: NodeId = NodeId(1);

#[derive(Clone, Debug)]
enum Op {
    /// Several writes as one batch.
    Write(Vec<Push>),
    /// A named reader's place.
    Cursor { name: u8, at: Option<u64> },
    /// What is known of the members, and sometimes whose store it is, which is given once.
    Known { voters: u8, node: bool },
    /// Closed in an orderly way, or dropped.
    Reopen { close: bool },
    /// A read of so many bytes from somewhere in the log, or a little outside of it.
    Read { from: Index, bytes_max: usize },
}

#[derive(Clone, Debug)]
struct Push {
    term_up: bool,
    vote: bool,
    snapshot: Option<Snapshot>,
    /// Where to cut, among what may be cut and a little behind it.
    cut: Option<Index>,
    /// The lengths of the entries to append.
    append: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Snapshot {
    /// Through this entry, with the log beginning behind that one.
    Taken { last: Index, start: Index },
    /// In the place of the log, through an entry that it lacks.
    Installed { at: Index },
}

fn push() -> impl Strategy<Value = Push> {
    let length = prop_oneof![8 => 0..40_usize, 1 => 1000..5000_usize, 1 => Just(40_000)];
    let append = prop_oneof![
        4 => prop::collection::vec(length, 0..5),
        1 => prop::collection::vec(0..9_usize, 60..140),
    ];
    let snapshot = prop_oneof![
        3 => (any::<Index>(), any::<Index>())
            .prop_map(|(last, start)| Snapshot::Taken { last, start }),
        1 => any::<Index>().prop_map(|at| Snapshot::Installed { at }),
    ];
    (
        prop::bool::weighted(0.2),
        any::<bool>(),
        prop::option::weighted(0.15, snapshot),
        prop::option::weighted(0.25, any::<Index>()),
        append,
    )
        .prop_map(|(term_up, vote, snapshot, cut, append)| Push {
            term_up,
            vote,
            snapshot,
            cut,
            append,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop::collection::vec(push(), 0..4).prop_map(Op::Write),
        1 => (0..3_u8, prop::option::of(0..99_u64)).prop_map(|(name, at)| Op::Cursor { name, at }),
        1 => (1..9_u8, any::<bool>()).prop_map(|(voters, node)| Op::Known { voters, node }),
        2 => any::<bool>().prop_map(|close| Op::Reopen { close }),
        4 => (any::<Index>(), 0..9000_usize)
            .prop_map(|(from, bytes_max)| Op::Read { from, bytes_max }),
    ]
}

/// The configuration that entry `index` of the model holds, if it holds one.
fn alone(index: u64) -> Configuration {
    Configuration::of([NodeId(index)])
}

/// A snapshot's bytes.
fn state(last: LogId) -> Vec<u8> {
    format!("the state as of {last}").into_bytes()
}

#[derive(Default)]
struct Model {
    hard_state: HardState,
    /// The last entry before `log`.
    start: LogId,
    log: Vec<Entry>,
    snapshot: Option<SnapshotMeta>,
    cursors: BTreeMap<String, LogIndex>,
    node: Option<NodeId>,
    known: Option<Configuration>,
    starts: u64,
}

impl Model {
    fn last(&self) -> LogId {
        self.log.last().map_or(self.start, |entry| entry.id)
    }

    fn covered(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |meta| meta.last.index.0)
    }

    fn id_at(&self, index: u64) -> LogId {
        let behind = index - self.start.index.0;
        behind
            .checked_sub(1)
            .map_or(self.start, |at| self.log[at as usize].id)
    }

    /// What a snapshot does, if it can be there.
    fn snapshot(&mut self, snapshot: &Snapshot) -> Option<SnapshotWrite> {
        let pick = |index: &Index, range: Range<u64>| {
            let len = (range.end - range.start) as usize;
            (len > 0).then(|| range.start + index.index(len) as u64)
        };
        let after = self.last().index.0 + 1;
        let (last, log_start) = match snapshot {
            Snapshot::Taken { last, start } => {
                let last = pick(last, self.covered() + 1..after)?;
                let start = pick(start, self.start.index.0..last + 1)?;
                (self.id_at(last), self.id_at(start))
            }
            Snapshot::Installed { at } => {
                let at = pick(at, self.covered() + 1..after + 50)?;
                let last = LogId::new(self.hard_state.term, LogIndex(at));
                if at < after && self.id_at(at) == last {
                    return None;
                }
                (last, last)
            }
        };
        let replaces_log = matches!(snapshot, Snapshot::Installed { .. });
        if replaces_log {
            self.log.clear();
        } else {
            let gone = log_start.index.0 - self.start.index.0;
            self.log.drain(..gone as usize);
        }
        self.start = log_start;
        let meta = SnapshotMeta {
            last,
            configuration: alone(last.index.0).into(),
        };
        self.snapshot = Some(meta.clone());
        Some(SnapshotWrite {
            snapshot: meta,
            log_start,
            replaces_log,
        })
    }

    /// Carries out a push, adds it to the batch, and gives the snapshot that it needs.
    fn push(&mut self, push: &Push, batch: &mut Batch) -> Option<SnapshotMeta> {
        let before = self.hard_state;
        if push.term_up || self.hard_state.term == Term(0) {
            self.hard_state.term = self.hard_state.term.next();
            self.hard_state.voted_for = None;
        }
        if push.vote {
            self.hard_state.voted_for = Some(NODE);
        }
        let changed = (self.hard_state != before).then_some(self.hard_state);
        let write = push.snapshot.as_ref().and_then(|s| self.snapshot(s));
        let needed = write.as_ref().map(|write| write.snapshot.clone());
        if let Some(write) = write {
            batch.push_snapshot(write);
        }
        let cut = push.cut.map(|cut| {
            let may_go = self.last().index.0 - self.covered() + 3;
            self.covered() + 1 + cut.index(may_go as usize) as u64
        });
        if let Some(from) = cut {
            let kept = from - self.start.index.0 - 1;
            self.log.truncate(kept as usize);
        }
        let append: Arc<[Entry]> = push
            .append
            .iter()
            .zip(self.last().index.0 + 1..)
            .map(|(&length, index)| {
                let command = || vec![(index % 256) as u8; length].into();
                let (kind, data) = match length {
                    0 => (EntryKind::Noop, command()),
                    1 => (EntryKind::Configuration, alone(index).encode()),
                    _ => (EntryKind::Command, command()),
                };
                Entry::new(self.hard_state.term, LogIndex(index), kind, data)
            })
            .collect();
        self.log.extend_from_slice(&append);
        batch.push(changed, cut.map(LogIndex), append);
        needed
    }

    fn check_opened(&self, opened: &Opened) {
        let recovered = &opened.recovered;
        assert_eq!(opened.identity.starts, self.starts);
        assert_eq!(opened.identity.node, self.node);
        assert_eq!(opened.identity.known, self.known);
        assert_eq!(opened.cursors, self.cursors);
        assert_eq!(recovered.hard_state, self.hard_state);
        assert_eq!(recovered.snapshot, self.snapshot);
        assert_eq!(recovered.log_start, self.start);
        assert_eq!(recovered.last, self.last());
        let mut terms = self.log.iter().map(|entry| entry.id).collect::<Vec<_>>();
        terms.dedup_by_key(|id| id.term);
        assert_eq!(recovered.terms, terms);
        let configurations = self.log.iter().map(|entry| (entry.kind, entry.id.index));
        let configurations = configurations
            .filter(|(kind, _)| *kind == EntryKind::Configuration)
            .map(|(_, index)| (index, alone(index.0)));
        assert_eq!(recovered.configurations, configurations.collect::<Vec<_>>());
        assert!(self.log.ends_with(&recovered.tail));
        self.check_read(opened, self.start.index.next(), usize::MAX);
        if let Some(meta) = &self.snapshot {
            let source = opened.store.snapshots().open(meta.last).unwrap();
            assert_eq!(source.info().meta, *meta);
            assert_eq!(source.read_chunk(0).unwrap(), state(meta.last));
        }
    }

    fn check_read(&self, opened: &Opened, from: LogIndex, bytes_max: usize) {
        let through = LogIndex(u64::MAX);
        match opened.store.reader().read(from, through, bytes_max) {
            Ok(entries) => {
                let at = (from.0 - self.start.index.0) as usize - 1;
                assert_eq!(entries, self.log[at..at + entries.len()]);
                let bytes =
                    |entries: &[Entry]| entries.iter().map(Entry::size_bytes).sum::<usize>();
                let all_but_one = &entries[..entries.len() - 1];
                assert!(all_but_one.is_empty() || bytes(all_but_one) < bytes_max);
                let at_end = at + entries.len() == self.log.len();
                assert!(at_end || bytes(&entries) >= bytes_max);
            }
            Err(StorageError::Missing { last, .. }) => {
                assert!(from > last);
                assert_eq!(last, self.last().index);
            }
            Err(StorageError::Compacted { first }) => {
                assert!(from < first);
                assert_eq!(first, self.start.index.next());
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn check(disks: &[Disk], ops: &[Op]) {
    let mut model = Model {
        starts: 1,
        ..Model::default()
    };
    let open = || -> Vec<Opened> { disks.iter().map(|disk| disk(None).unwrap()).collect() };
    let mut opened = open();
    for opened in &opened {
        model.check_opened(opened);
    }
    for op in ops {
        match op {
            Op::Write(pushes) => {
                let mut batch = Batch::new();
                for push in pushes {
                    let Some(meta) = model.push(push, &mut batch) else {
                        continue;
                    };
                    for opened in &opened {
                        let mut sink = opened.store.snapshots().create(&meta).unwrap();
                        sink.write(&state(meta.last)).unwrap();
                        sink.finish().unwrap();
                    }
                }
                for opened in &mut opened {
                    opened.store.write(&batch).unwrap();
                }
            }
            Op::Cursor { name, at } => {
                let (name, at) = (format!("reader {name}"), at.map(LogIndex));
                match at {
                    Some(at) => model.cursors.insert(name.clone(), at),
                    None => model.cursors.remove(&name),
                };
                let record = Record {
                    cursors: [(name, at)].into(),
                    ..Record::default()
                };
                for opened in &mut opened {
                    opened.store.record(&record).unwrap();
                }
            }
            Op::Known { voters, node } => {
                let folder = |id: u64| (NodeId(id), Incarnation(id.into()));
                let known = Configuration::of_folders((1..=u64::from(*voters)).map(folder));
                model.known = Some(known);
                let record = Record {
                    node: node.then_some(NODE),
                    known: model.known.clone(),
                    ..Record::default()
                };
                model.node = model.node.or(record.node);
                for opened in &mut opened {
                    opened.store.record(&record).unwrap();
                }
            }
            Op::Reopen { close } => {
                for opened in opened.iter_mut().filter(|_| *close) {
                    opened.store.close().unwrap();
                }
                drop(opened);
                opened = open();
                model.starts += 1;
                for opened in &opened {
                    model.check_opened(opened);
                }
            }
            Op::Read { from, bytes_max } => {
                let from = from.index(model.last().index.0 as usize + 3) as u64;
                for opened in &opened {
                    model.check_read(opened, LogIndex(from), *bytes_max);
                }
            }
        }
    }
    drop(opened);
    model.starts += 1;
    for opened in open() {
        model.check_opened(&opened);
    }
}

fn memory() -> Disk {
    let disk = MemoryDisk::new();
    Box::new(move |node| disk.open(node))
}

#[cfg(feature = "rocksdb")]
fn rocksdb() -> Disk {
    let dir = tempfile::tempdir().unwrap();
    Box::new(move |node| crate::open_rocksdb(dir.path(), node))
}

/// Runs a part of all sequences; the parts run beside each other.
fn sequences(part: u32, parts: u32, disks: impl Fn() -> Vec<Disk>) {
    let all = std::env::var("SEQUENCES").map_or(2000, |all| all.parse().unwrap());
    let config = ProptestConfig {
        cases: all / parts + u32::from(part < all % parts),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let ops = prop::collection::vec(op(), 0..30);
    let tested = TestRunner::new(config).run(&ops, |ops| {
        check(&disks(), &ops);
        Ok(())
    });
    if let Err(failure) = tested {
        panic!("{failure}");
    }
}

#[test]
fn the_memory_disk_equals_the_model() {
    sequences(0, 1, || vec![memory()]);
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_and_the_memory_disk_equal_the_model() {
    sequences(0, 2, || vec![memory(), rocksdb()]);
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_and_the_memory_disk_equal_the_model_the_other_half() {
    sequences(1, 2, || vec![memory(), rocksdb()]);
}
