//! The actor over a memory disk whose syncs are held back, failed and lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use actix::System;
use raft_core::{
    AppendEntries, AppendOutcome, AppendResponse, Config, Effect, Entry, EntryKind, Envelope,
    HardState, Input, LogId, LogIndex, OpenMessage, Raft, Recovered, SnapshotMeta, SnapshotWrite,
    Term,
};

use super::*;
use crate::{LogReader, LogReads, MemoryDisk, Misfit, Opened, ReadEntries, Snapshots};

const NODE: NodeId = NodeId(2);

/// Hears what the storage tells, and hands it to the test.
struct Listener(mpsc::Sender<Written>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Written> for Listener {
    type Result = ();

    fn handle(&mut self, written: Written, _: &mut Self::Context) {
        self.0.send(written).unwrap();
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Deafen;

impl Handler<Deafen> for Listener {
    type Result = ();

    fn handle(&mut self, _: Deafen, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// A storage over some store, and the ear of its test.
struct Bench {
    addr: Addr<LogStorage>,
    listener: Addr<Listener>,
    heard: mpsc::Receiver<Written>,
    snapshots: Arc<dyn Snapshots>,
}

impl Bench {
    fn new(store: Box<dyn LogStore>) -> Self {
        let snapshots = store.snapshots();
        let (sender, heard) = mpsc::channel();
        let arbiter = Arbiter::new();
        let listener = Listener::start_in_arbiter(&arbiter.handle(), |_| Listener(sender));
        let addr = LogStorage::start(store, listener.clone().recipient()).addr;
        Self {
            addr,
            listener,
            heard,
            snapshots,
        }
    }

    fn write(&self, persist: Persist) {
        self.addr.do_send(Write(vec![persist]));
    }

    fn next(&self) -> Result<Durable, StorageError> {
        self.heard.recv_timeout(Duration::from_secs(10)).unwrap().0
    }

    fn hears_nothing(&self) {
        let heard = self.heard.recv_timeout(Duration::from_millis(100));
        assert!(heard.is_err(), "{heard:?}");
    }

    /// Lets the storage block on a write, so that what comes next queues up behind it.
    fn block(&self, disk: &MemoryDisk) {
        disk.hold();
        self.addr.do_send(Record::default());
        disk.wait_until_held();
    }
}

/// Runs a test within an actor system, over a new memory disk.
fn over_memory(test: impl AsyncFnOnce(MemoryDisk, Bench)) {
    System::new().block_on(async {
        let disk = MemoryDisk::new();
        let bench = Bench::new(disk.open(Some(NODE)).unwrap().store);
        test(disk, bench).await;
    });
}

fn persist(write: u64, hard_state: Option<u64>, append: &[Entry]) -> Persist {
    Persist {
        write: WriteId(write),
        hard_state: hard_state.map(|term| HardState {
            term: Term(term),
            voted_for: Some(NODE),
        }),
        snapshot: None,
        truncate_from: None,
        append: append.into(),
        then: Withheld::default(),
    }
}

fn entry(term: u64, index: u64, length: usize) -> Entry {
    let data = vec![b'x'; length].into();
    Entry::new(Term(term), LogIndex(index), EntryKind::Command, data)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a follower's core asks of its storage when a leader sends it entries.
fn follow(core: &mut Raft, leader: u64, entries: &[Entry]) -> Persist {
    let message = OpenMessage::AppendEntries(AppendEntries {
        term: entries[0].id.term,
        prev: LogId::ZERO,
        entries: entries.into(),
        commit: LogIndex::ZERO,
    });
    let envelope = Envelope {
        from: NodeId(leader),
        to: NODE,
        message: message.into(),
    };
    let effects = core.step(Input::Received(envelope));
    let persist = effects.into_iter().find_map(|effect| match effect {
        Effect::Persist(persist) => Some(persist),
        _ => None,
    });
    persist.expect("the follower writes")
}

fn follower() -> Raft {
    let config = Config::new(NODE, [1, 2, 3].map(NodeId));
    Raft::new(config, Recovered::default()).unwrap()
}

fn accepted(matched: u64) -> AppendOutcome {
    let matched = LogIndex(matched);
    AppendOutcome::Accepted { matched }
}

fn outcomes(durable: &Durable) -> Vec<(NodeId, AppendOutcome)> {
    let outcome = |(to, message): &(NodeId, DurableMessage)| match message {
        DurableMessage::AppendResponse(AppendResponse { outcome, .. }) => (*to, outcome.clone()),
        other => panic!("{other:?}"),
    };
    durable.messages.iter().map(outcome).collect()
}

#[test]
fn what_queues_up_behind_a_sync_is_one_batch_and_one_answer() {
    over_memory(async |disk, bench| {
        bench.block(&disk);
        for index in 1..=10 {
            bench.write(persist(index, None, &[entry(1, index, 10)]));
        }
        disk.release();
        assert_eq!(bench.next().unwrap().through, WriteId(10));
        assert_eq!(disk.syncs(), 2, "one for what blocked, one for all ten");
        bench.hears_nothing();
    });
}

#[test]
fn nothing_is_told_before_the_sync() {
    over_memory(async |disk, bench| {
        disk.hold();
        bench.write(follow(&mut follower(), 1, &[entry(1, 1, 5)]));
        disk.wait_until_held();
        bench.hears_nothing();
        disk.release();
        let durable = bench.next().unwrap();
        assert_eq!(outcomes(&durable), [(NodeId(1), accepted(1))]);
    });
}

#[test]
fn a_crash_before_the_sync_releases_nothing() {
    over_memory(async |disk, bench| {
        disk.hold();
        bench.write(follow(&mut follower(), 1, &[entry(1, 1, 5)]));
        disk.wait_until_held();
        disk.crash();
        assert!(matches!(bench.next(), Err(StorageError::Crashed)));
        bench.hears_nothing();
    });
}

#[test]
fn a_claim_that_a_later_write_of_the_batch_takes_back_is_dropped() {
    over_memory(async |disk, bench| {
        let mut core = follower();
        let first = follow(&mut core, 1, &[1, 2, 3].map(|index| entry(1, index, 5)));
        assert_eq!(first.then.peek().len(), 1);
        let second = follow(&mut core, 3, &[entry(2, 1, 5)]);
        assert_eq!(second.truncate_from, Some(LogIndex(1)));
        let through = second.write;
        bench.block(&disk);
        bench.write(first);
        bench.write(second);
        disk.release();
        let durable = bench.next().unwrap();
        assert_eq!(durable.through, through);
        assert_eq!(outcomes(&durable), [(NodeId(3), accepted(1))]);
        bench.addr.send(Close).await.unwrap().unwrap();
        assert_eq!(
            disk.open(Some(NODE)).unwrap().recovered.last,
            LogId::new(Term(2), LogIndex(1))
        );
    });
}

#[test]
fn claims_of_separate_batches_all_leave_in_order() {
    over_memory(async |_, bench| {
        let mut core = follower();
        for matched in 1..=5 {
            let entries = (1..=matched).map(|index| entry(1, index, 5));
            bench.write(follow(&mut core, 1, &entries.collect::<Vec<_>>()));
        }
        let mut heard = Vec::new();
        while heard.len() < 5 {
            heard.extend(outcomes(&bench.next().unwrap()));
        }
        let all = [1, 2, 3, 4, 5].map(|matched| (NodeId(1), accepted(matched)));
        assert_eq!(heard, all);
    });
}

#[test]
fn a_vote_alone_and_a_write_of_nothing_are_answered() {
    over_memory(async |disk, bench| {
        bench.write(persist(1, Some(4), &[]));
        assert_eq!(bench.next().unwrap().through, WriteId(1));
        bench.write(persist(2, None, &[]));
        assert_eq!(bench.next().unwrap().through, WriteId(2));
        assert_eq!(disk.syncs(), 1, "all before the second is durable already");
    });
}

#[test]
fn under_a_flood_a_large_batch_does_not_wait_for_an_empty_mailbox() {
    over_memory(async |disk, bench| {
        bench.block(&disk);
        for index in 1..=12 {
            bench.write(persist(index, None, &[entry(1, index, 1 << 20)]));
        }
        disk.release();
        let throughs = [(); 3].map(|()| bench.next().unwrap().through.0);
        assert_eq!(throughs, [4, 8, 12]);
    });
}

#[test]
fn a_failed_write_is_told_once_and_nothing_follows_it() {
    over_memory(async |disk, bench| {
        disk.fail_write(2);
        bench.write(persist(1, None, &[entry(1, 1, 5)]));
        bench.next().unwrap();
        bench.write(persist(2, Some(3), &[]));
        assert!(matches!(bench.next(), Err(StorageError::Injected)));
        for write in 3..6 {
            bench.write(persist(write, None, &[]));
        }
        let recorded = bench.addr.send(Record::default()).await.unwrap();
        assert!(matches!(recorded, Err(StorageError::Injected)));
        let closed = bench.addr.send(Close).await.unwrap();
        assert!(matches!(closed, Err(StorageError::Injected)));
        bench.hears_nothing();
        let recovered = disk.open(Some(NODE)).unwrap().recovered;
        assert_eq!(
            (recovered.last.index, recovered.hard_state.term),
            (LogIndex(1), Term(0))
        );
    });
}

#[test]
fn a_snapshot_is_one_batch_with_what_stands_around_it() {
    over_memory(async |disk, bench| {
        let last = LogId::new(Term(2), LogIndex(100));
        let meta = SnapshotMeta {
            last,
            ..SnapshotMeta::default()
        };
        let mut sink = bench.snapshots.create(&meta).unwrap();
        sink.write(b"state").unwrap();
        sink.finish().unwrap();
        let install = Persist {
            snapshot: Some(Box::new(SnapshotWrite {
                snapshot: meta.clone(),
                log_start: last,
                replaces_log: true,
            })),
            ..persist(2, Some(3), &[])
        };
        let before = persist(1, None, &[entry(1, 1, 5)]);
        let behind = persist(3, None, &[entry(3, 101, 5)]);
        bench.addr.do_send(Write(vec![before, install, behind]));
        assert_eq!(bench.next().unwrap().through, WriteId(3));
        assert_eq!(disk.syncs(), 1);
        bench.addr.send(Close).await.unwrap().unwrap();
        let recovered = disk.open(Some(NODE)).unwrap().recovered;
        assert_eq!(recovered.snapshot, Some(meta));
        assert_eq!((recovered.log_start, recovered.last.index.0), (last, 101));
    });
}

#[test]
fn a_snapshot_that_is_not_there_ends_the_storage_by_name() {
    over_memory(async |_, bench| {
        let last = LogId::new(Term(1), LogIndex(1));
        let snapshot = SnapshotMeta {
            last,
            ..SnapshotMeta::default()
        };
        let taken = Persist {
            snapshot: Some(Box::new(SnapshotWrite {
                snapshot,
                log_start: last,
                replaces_log: false,
            })),
            ..persist(2, None, &[])
        };
        let before = persist(1, None, &[entry(1, 1, 5)]);
        bench.addr.do_send(Write(vec![before, taken]));
        let error = bench.next().unwrap_err();
        assert!(
            matches!(error, StorageError::Refused(Misfit::SnapshotAbsent { .. })),
            "{error}"
        );
    });
}

/// Does nothing, counts how often it is told to settle, and panics when it is written to.
struct Panics {
    settled: Arc<AtomicU64>,
}

impl LogStore for Panics {
    fn write(&mut self, _: &Batch) -> Result<(), StorageError> {
        panic!("on purpose")
    }

    fn record(&mut self, _: &Record) -> Result<(), StorageError> {
        Ok(())
    }

    fn settle(&mut self) -> Result<(), StorageError> {
        self.settled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        unreachable!("nobody reads here")
    }

    fn snapshots(&self) -> Arc<dyn Snapshots> {
        MemoryDisk::new()
            .open(Some(NODE))
            .unwrap()
            .store
            .snapshots()
    }

    fn close(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

#[test]
fn a_panic_is_told_like_any_other_failure() {
    System::new().block_on(async {
        let settled = Arc::default();
        let bench = Bench::new(Box::new(Panics { settled }));
        bench.write(persist(1, None, &[entry(1, 1, 1)]));
        let error = bench.next().unwrap_err();
        assert!(
            matches!(&error, StorageError::Panicked(why) if why == "on purpose"),
            "{error}"
        );
        let closed = bench.addr.send(Close).await.unwrap();
        assert!(matches!(closed, Err(StorageError::Panicked(_))));
    });
}

#[test]
fn an_idle_store_settles_within_a_second() {
    System::new().block_on(async {
        let settled = Arc::<AtomicU64>::default();
        let store = Panics {
            settled: settled.clone(),
        };
        let _bench = Bench::new(Box::new(store));
        thread::sleep(Duration::from_secs(1));
        assert!(settled.load(Ordering::Relaxed) >= 1);
    });
}

async fn close_takes_what_waits(open: impl Fn() -> Opened) {
    let opened = open();
    let reads = LogReads::start(opened.store.reader());
    let bench = Bench::new(opened.store);
    for index in 1..=100 {
        bench.write(persist(index, Some(index), &[entry(index, index, 10)]));
    }
    bench.addr.send(Close).await.unwrap().unwrap();

    let reopened = open();
    assert_eq!(
        reopened.recovered.last,
        LogId::new(Term(100), LogIndex(100))
    );
    assert_eq!(reopened.recovered.hard_state.term, Term(100));
    while bench.next().unwrap().through < WriteId(100) {}
    let read = ReadEntries {
        from: LogIndex(1),
        through: LogIndex(100),
        bytes_max: 1000,
    };
    let closed = reads.send(read).await.unwrap();
    assert!(matches!(closed, Err(StorageError::Closed)));
    let reads = LogReads::start(reopened.store.reader());
    assert_eq!(reads.send(read).await.unwrap().unwrap()[0], entry(1, 1, 10));
    eventually("the actor ends", || !bench.addr.connected());
}

#[test]
fn close_writes_what_waits_and_frees_the_disk_at_once() {
    System::new().block_on(async {
        let disk = MemoryDisk::new();
        close_takes_what_waits(|| disk.open(Some(NODE)).unwrap()).await;
        #[cfg(feature = "rocksdb")]
        {
            let dir = tempfile::tempdir().unwrap();
            close_takes_what_waits(|| crate::open_rocksdb(dir.path(), Some(NODE)).unwrap()).await;
        }
    });
}

#[test]
fn without_anybody_to_tell_it_ends_and_frees_the_disk() {
    over_memory(async |disk, bench| {
        bench.listener.send(Deafen).await.unwrap();
        bench.write(persist(1, None, &[entry(1, 1, 5)]));
        eventually("the disk is free", || disk.open(Some(NODE)).is_ok());
    });
}

#[test]
fn without_anybody_to_ask_it_ends_and_frees_the_disk() {
    over_memory(async |disk, bench| {
        bench.write(persist(1, None, &[entry(1, 1, 5)]));
        bench.next().unwrap();
        drop(bench.addr);
        eventually("the disk is free", || disk.open(Some(NODE)).is_ok());
        assert!(
            bench.heard.try_recv().is_err(),
            "an orderly end is no failure"
        );
    });
}
