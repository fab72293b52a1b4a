//! Random sequences of writes and reopens against the simplest thing that could be right: a vector.

use std::sync::Arc;

use proptest::prelude::*;
use raft_core::{
    Entry, EntryKind, HardState, LogId, LogIndex, NodeId, Term, membership::Configuration,
};

use crate::{Batch, MemoryDisk, Opened, StorageError, suite::Disk};

const NODE: NodeId = NodeId(1);

#[derive(Clone, Debug)]
enum Op {
    /// Several writes as one batch.
    Write(Vec<Push>),
    /// Closed in an orderly way, or dropped.
    Reopen { close: bool },
    /// A read of so many bytes from somewhere in the log.
    Read {
        from: prop::sample::Index,
        bytes_max: usize,
    },
}

#[derive(Clone, Debug)]
struct Push {
    term_up: bool,
    vote: bool,
    /// Where to cut, within the log and a little behind it.
    cut: Option<prop::sample::Index>,
    /// The lengths of the entries to append.
    append: Vec<usize>,
}

fn push() -> impl Strategy<Value = Push> {
    let length = prop_oneof![8 => 0..40_usize, 1 => 1000..5000_usize, 1 => Just(40_000)];
    let append = prop_oneof![
        4 => prop::collection::vec(length, 0..5),
        1 => prop::collection::vec(0..9_usize, 60..140),
    ];
    (
        prop::bool::weighted(0.2),
        any::<bool>(),
        prop::option::weighted(0.25, any::<prop::sample::Index>()),
        append,
    )
        .prop_map(|(term_up, vote, cut, append)| Push {
            term_up,
            vote,
            cut,
            append,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec(push(), 0..4).prop_map(Op::Write),
        1 => any::<bool>().prop_map(|close| Op::Reopen { close }),
        2 => (any::<prop::sample::Index>(), 0..9000_usize)
            .prop_map(|(from, bytes_max)| Op::Read { from, bytes_max }),
    ]
}

/// The configuration that entry `index` of the model holds, if it holds one.
fn alone(index: u64) -> Configuration {
    Configuration::of([NodeId(index)])
}

#[derive(Default)]
struct Model {
    hard_state: HardState,
    log: Vec<Entry>,
    starts: u64,
}

impl Model {
    fn push(&mut self, push: &Push, batch: &mut Batch) {
        let before = self.hard_state;
        if push.term_up || self.hard_state.term == Term(0) {
            self.hard_state.term = self.hard_state.term.next();
            self.hard_state.voted_for = None;
        }
        if push.vote {
            self.hard_state.voted_for = Some(NODE);
        }
        let changed = (self.hard_state != before).then_some(self.hard_state);
        let cut = push.cut.map(|cut| cut.index(self.log.len() + 3));
        self.log.truncate(cut.unwrap_or(usize::MAX));
        let append: Arc<[Entry]> = push
            .append
            .iter()
            .zip(self.log.len() as u64 + 1..)
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
        batch.push(changed, cut.map(|cut| LogIndex(cut as u64 + 1)), append);
    }

    fn check_opened(&self, opened: &Opened) {
        let recovered = &opened.recovered;
        assert_eq!(opened.identity.starts, self.starts);
        assert_eq!(recovered.hard_state, self.hard_state);
        assert_eq!(
            recovered.last,
            self.log.last().map_or(LogId::ZERO, |entry| entry.id)
        );
        let mut terms = self.log.iter().map(|entry| entry.id).collect::<Vec<_>>();
        terms.dedup_by_key(|id| id.term);
        assert_eq!(recovered.terms, terms);
        let configurations = self.log.iter().map(|entry| (entry.kind, entry.id.index));
        let configurations = configurations
            .filter(|(kind, _)| *kind == EntryKind::Configuration)
            .map(|(_, index)| (index, alone(index.0)));
        assert_eq!(recovered.configurations, configurations.collect::<Vec<_>>());
        assert!(self.log.ends_with(&recovered.tail));
        self.check_read(opened, LogIndex(1), usize::MAX);
    }

    fn check_read(&self, opened: &Opened, from: LogIndex, bytes_max: usize) {
        let through = LogIndex(u64::MAX);
        match opened.store.reader().read(from, through, bytes_max) {
            Ok(entries) => {
                let at = from.0 as usize - 1;
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
                assert_eq!(last.0, self.log.len() as u64);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn check(disk: &Disk, ops: &[Op]) {
    let mut model = Model {
        starts: 1,
        ..Model::default()
    };
    let mut opened = disk(NODE).unwrap();
    model.check_opened(&opened);
    for op in ops {
        match op {
            Op::Write(pushes) => {
                let mut batch = Batch::new();
                for push in pushes {
                    model.push(push, &mut batch);
                }
                opened.store.write(&batch).unwrap();
            }
            Op::Reopen { close } => {
                if *close {
                    opened.store.close().unwrap();
                }
                drop(opened);
                opened = disk(NODE).unwrap();
                model.starts += 1;
                model.check_opened(&opened);
            }
            Op::Read { from, bytes_max } => {
                let from = from.index(model.log.len() + 2) as u64 + 1;
                model.check_read(&opened, LogIndex(from), *bytes_max);
            }
        }
    }
    model.check_read(&opened, LogIndex(1), usize::MAX);
    drop(opened);
    model.starts += 1;
    model.check_opened(&disk(NODE).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_disk_equals_the_model(ops in prop::collection::vec(op(), 0..40)) {
        let disk = MemoryDisk::new();
        check(&(Box::new(move |node| disk.open(node)) as Disk), &ops);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rocksdb_equals_the_model(ops in prop::collection::vec(op(), 0..25)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        check(&(Box::new(move |node| crate::open_rocksdb(&path, node)) as Disk), &ops);
    }
}
