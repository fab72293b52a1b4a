//! The cases of snapshots: written, named, installed, removed, and what they do to the log.

use super::*;

fn meta(term: u64, index: u64) -> SnapshotMeta {
    SnapshotMeta {
        last: id(term, index),
        configuration: Configuration::of([NODE, NodeId(9)]).into(),
    }
}

/// So many bytes that differ from place to place.
fn state(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251 + at / 9973) as u8).collect()
}

fn take(snapshots: &dyn Snapshots, meta: &SnapshotMeta, state: &[u8]) {
    let mut sink = snapshots.create(meta).expect("is begun");
    for piece in state.chunks(7001) {
        sink.write(piece).expect("is written");
    }
    sink.finish().expect("is finished");
}

fn read(snapshots: &dyn Snapshots, last: LogId) -> Vec<u8> {
    let source = snapshots.open(last).expect("is there");
    assert_eq!(source.info().meta.last, last);
    let chunks = (0..source.info().chunks()).map(|n| source.read_chunk(n).expect("is whole"));
    chunks.collect::<Vec<_>>().concat()
}

fn is_there(snapshots: &dyn Snapshots, last: LogId) -> bool {
    match snapshots.open(last) {
        Ok(_) => true,
        Err(StorageError::NoSnapshot { last: asked }) if asked == last => false,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until a snapshot is gone: files are removed behind the write that lets them go.
fn wait_until_gone(snapshots: &dyn Snapshots, last: LogId) {
    for _ in 0..500 {
        if !is_there(snapshots, last) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{last} is still there");
}

/// A batch that names a snapshot. It takes the place of the log, or lets the log begin behind `start`.
fn named(last: LogId, start: LogId, replaces_log: bool) -> Batch {
    let mut batch = Batch::new();
    batch.push_snapshot(SnapshotWrite {
        snapshot: meta(last.term.0, last.index.0),
        log_start: start,
        replaces_log,
    });
    batch
}

/// Takes a snapshot of a few bytes and lets the log begin behind `start`.
fn compact(store: &mut dyn LogStore, last: LogId, start: LogId) {
    take(
        &*store.snapshots(),
        &meta(last.term.0, last.index.0),
        b"state",
    );
    write(store, &named(last, start, false));
}

/// Installs a snapshot of a few bytes in the place of the log.
fn install(store: &mut dyn LogStore, last: LogId) {
    take(
        &*store.snapshots(),
        &meta(last.term.0, last.index.0),
        b"state",
    );
    write(store, &named(last, last, true));
}

/// Checks that the log is `expected`, which begins behind `start`, now and after a reopen.
fn assert_log_behind(mut store: Box<dyn LogStore>, disk: &Disk, start: LogId, expected: &[Entry]) {
    let check = |store: &dyn LogStore| {
        let reader = store.reader();
        assert_eq!(read_from(&*reader, start.index.0 + 1), expected);
        if start.index > LogIndex::ZERO {
            let first = start.index.next();
            let below = reader.read(start.index, LogIndex(u64::MAX), 1);
            assert!(
                matches!(below, Err(StorageError::Compacted { first: f }) if f == first),
                "{below:?}"
            );
        }
    };
    check(&*store);
    store.close().expect("closes");
    drop(store);
    let opened = open(disk);
    check(&*opened.store);
    let recovered = &opened.recovered;
    assert_eq!(recovered.log_start, start);
    let last = expected.last().map_or(start, |entry| entry.id);
    assert_eq!(recovered.last, last);
    assert!(expected.ends_with(&recovered.tail));
}

pub(super) fn is_read_as_written(disk: &Disk) {
    let opened = open(disk);
    let snapshots = opened.store.snapshots();
    for (len, index) in [0, 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 5]
        .into_iter()
        .zip(1..)
    {
        let (meta, state) = (meta(2, index), state(len));
        let mut sink = snapshots.create(&meta).expect("is begun");
        let (first, rest) = state.split_at(len / 3);
        sink.write(first).expect("is written");
        sink.write(&[]).expect("nothing is written");
        sink.write(rest).expect("is written");
        let info = sink.finish().expect("is finished");
        assert_eq!((info.bytes, &info.meta), (len as u64, &meta));
        assert_eq!(info.chunks(), len.div_ceil(CHUNK_BYTES) as u64);
        assert_eq!(read(&*snapshots, meta.last), state);
        let source = snapshots.open(meta.last).expect("is there");
        assert_eq!(*source.info(), info);
        for absent in [info.chunks(), u64::MAX] {
            let error = source.read_chunk(absent).expect_err("no such chunk");
            let named =
                matches!(error, StorageError::Damaged { item: Item::Chunk(n), .. } if n == absent);
            assert!(named, "{error}");
        }
    }
}

pub(super) fn unfinished_is_not_there(disk: &Disk) {
    let opened = open(disk);
    let snapshots = opened.store.snapshots();
    let meta = meta(1, 4);
    let mut sink = snapshots.create(&meta).expect("is begun");
    sink.write(&state(2 * CHUNK_BYTES)).expect("is written");
    assert!(!is_there(&*snapshots, meta.last));
    drop(sink);
    assert!(!is_there(&*snapshots, meta.last));
    let mut sink = snapshots.create(&meta).expect("is begun");
    sink.write(&state(2 * CHUNK_BYTES)).expect("is written");
    // As a crash would leave it: nobody tidies up.
    std::mem::forget(sink);
    drop((opened, snapshots));
    assert!(!is_there(&*open(disk).store.snapshots(), meta.last));
}

pub(super) fn unnamed_goes(disk: &Disk) {
    let opened = open(disk);
    let snapshots = opened.store.snapshots();
    take(&*snapshots, &meta(1, 4), b"state");
    assert!(is_there(&*snapshots, id(1, 4)));
    drop((opened, snapshots));
    let opened = open(disk);
    assert!(!is_there(&*opened.store.snapshots(), id(1, 4)));
    assert_eq!(opened.recovered.snapshot, None);
}

pub(super) fn named_survives(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    let state = state(CHUNK_BYTES + 9);
    take(&*store.snapshots(), &meta(1, 60), &state);
    write(&mut *store, &named(id(1, 60), id(1, 60), false));
    write(&mut *store, &batch_of(1, 101..=110));
    assert_log_behind(store, disk, id(1, 60), &entries(1, 61..=110));
    let opened = open(disk);
    assert_eq!(opened.recovered.snapshot, Some(meta(1, 60)));
    assert_eq!(read(&*opened.store.snapshots(), id(1, 60)), state);
}

pub(super) fn log_begins_anywhere(disk: &Disk) {
    // Runs of 1..=10, 11..=20 and so on.
    let mut store = store(disk);
    for first in (1..=91).step_by(10) {
        write(&mut *store, &batch_of(1, first..=first + 9));
    }
    for start in [1, 9, 10, 11, 20, 57, 90, 99] {
        compact(&mut *store, id(1, start), id(1, start));
        assert_log_behind(store, disk, id(1, start), &entries(1, start + 1..=100));
        store = self::store(disk);
    }
}

pub(super) fn margin_is_kept(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    compact(&mut *store, id(1, 80), LogId::ZERO);
    compact(&mut *store, id(1, 90), id(1, 30));
    compact(&mut *store, id(1, 95), id(1, 30));
    assert_log_behind(store, disk, id(1, 30), &entries(1, 31..=100));
    assert_eq!(open(disk).recovered.snapshot, Some(meta(1, 95)));
}

pub(super) fn nothing_is_left(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=70));
    compact(&mut *store, id(1, 70), id(1, 70));
    assert_log_behind(store, disk, id(1, 70), &[]);
    let mut store = self::store(disk);
    let read = store.reader().read(LogIndex(71), LogIndex(80), 1);
    assert!(
        matches!(read, Err(StorageError::Missing { last, .. }) if last == LogIndex(70)),
        "{read:?}"
    );
    write(&mut *store, &batch_of(2, 71..=75));
    assert_log_behind(store, disk, id(1, 70), &entries(2, 71..=75));
}

pub(super) fn compactions_follow_each_other(disk: &Disk) {
    let mut store = store(disk);
    for round in 1..=12 {
        let last = round * 50;
        write(&mut *store, &batch_of(1, last - 49..=last));
        compact(&mut *store, id(1, last - 10), id(1, last - 20));
        if round % 4 == 0 {
            let left = entries(1, last - 19..=last);
            assert_log_behind(store, disk, id(1, last - 20), &left);
            store = self::store(disk);
        }
    }
}

pub(super) fn readers_are_told(disk: &Disk) {
    let mut store = store(disk);
    let reader = store.reader();
    write(&mut *store, &batch_of(1, 1..=300));
    assert_eq!(read_all(&*reader).len(), 300);
    compact(&mut *store, id(1, 250), id(1, 200));
    for from in [0, 1, 199, 200] {
        let read = reader.read(LogIndex(from), LogIndex(300), usize::MAX);
        let told = matches!(read, Err(StorageError::Compacted { first }) if first == LogIndex(201));
        assert!(told, "{from}: {read:?}");
    }
    assert_eq!(read_from(&*reader, 201).len(), 100);
}

pub(super) fn terms_are_recovered(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=20));
    write(&mut *store, &batch_of(3, 21..=40));
    write(&mut *store, &batch_of(4, 41..=60));
    let terms = || open(disk).recovered.terms;
    compact(&mut *store, id(1, 10), id(1, 10));
    drop(store);
    assert_eq!(terms(), [id(1, 11), id(3, 21), id(4, 41)]);
    compact(&mut *self::store(disk), id(1, 20), id(1, 20));
    assert_eq!(terms(), [id(3, 21), id(4, 41)]);
    compact(&mut *self::store(disk), id(4, 50), id(3, 21));
    assert_eq!(terms(), [id(3, 22), id(4, 41)]);
    compact(&mut *self::store(disk), id(4, 60), id(4, 60));
    assert_eq!(terms(), []);
}

pub(super) fn configurations_are_recovered(disk: &Disk) {
    let of = |voters: &[u64]| Configuration::of(voters.iter().copied().map(NodeId));
    let (two, three) = (of(&[1, 2]), of(&[1, 2, 3]));
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=5));
    for (index, configuration) in [(6, &two), (7, &three)] {
        let mut batch = Batch::new();
        let encoded = configuration.encode();
        batch.push(None, None, [super::configuration(1, index, encoded)].into());
        write(&mut *store, &batch);
    }
    compact(&mut *store, id(1, 6), id(1, 6));
    drop(store);
    let recovered = open(disk).recovered;
    assert_eq!(recovered.configurations, [(LogIndex(7), three)]);
    let snapshot = recovered.snapshot.expect("is named");
    assert_eq!(snapshot.configuration, meta(1, 6).configuration);
}

pub(super) fn replaces_a_shorter_log(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=30));
    install(&mut *store, id(2, 500));
    write(&mut *store, &batch_of(2, 501..=510));
    assert_log_behind(store, disk, id(2, 500), &entries(2, 501..=510));
}

pub(super) fn replaces_a_longer_log(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=300));
    install(&mut *store, id(3, 100));
    assert_log_behind(store, disk, id(3, 100), &[]);
    let mut store = self::store(disk);
    write(&mut *store, &batch_of(3, 101..=120));
    assert_log_behind(store, disk, id(3, 100), &entries(3, 101..=120));
}

pub(super) fn is_one_write_with_the_rest(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=30));
    take(&*store.snapshots(), &meta(4, 200), b"state");
    let mut batch = Batch::new();
    batch.push(None, Some(LogIndex(20)), entries(2, 20..=40));
    batch.push_snapshot(SnapshotWrite {
        snapshot: meta(4, 200),
        log_start: id(4, 200),
        replaces_log: true,
    });
    batch.push(Some(hard_state(5, Some(2))), None, entries(5, 201..=260));
    batch.push(None, Some(LogIndex(250)), entries(5, 250..=251));
    write(&mut *store, &batch);
    assert_log_behind(store, disk, id(4, 200), &entries(5, 201..=251));
    let recovered = open(disk).recovered;
    assert_eq!(recovered.hard_state, hard_state(5, Some(2)));
    assert_eq!(recovered.snapshot, Some(meta(4, 200)));
}

pub(super) fn replaces_again(disk: &Disk) {
    let mut store = store(disk);
    for round in 1..=8 {
        let last = id(round, round * 100);
        install(&mut *store, last);
        write(
            &mut *store,
            &batch_of(round, last.index.0 + 1..=last.index.0 + 70),
        );
    }
    compact(&mut *store, id(8, 840), id(8, 820));
    assert_log_behind(store, disk, id(8, 820), &entries(8, 821..=870));
}

pub(super) fn older_ones_go(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    let snapshots = store.snapshots();
    for index in [10, 20, 40] {
        take(&*snapshots, &meta(1, index), b"state");
    }
    write(&mut *store, &named(id(1, 20), id(1, 20), false));
    wait_until_gone(&*snapshots, id(1, 10));
    assert!(is_there(&*snapshots, id(1, 20)));
    assert!(
        is_there(&*snapshots, id(1, 40)),
        "its write may be on its way"
    );
    write(&mut *store, &named(id(1, 40), id(1, 40), false));
    wait_until_gone(&*snapshots, id(1, 20));
    assert!(is_there(&*snapshots, id(1, 40)));
}

pub(super) fn readers_read_on(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    let snapshots = store.snapshots();
    let state = state(3 * CHUNK_BYTES);
    take(&*snapshots, &meta(1, 10), &state);
    write(&mut *store, &named(id(1, 10), id(1, 10), false));
    let source = snapshots.open(id(1, 10)).expect("is there");
    assert_eq!(
        source.read_chunk(0).expect("is whole"),
        state[..CHUNK_BYTES]
    );
    compact(&mut *store, id(1, 50), id(1, 50));
    wait_until_gone(&*snapshots, id(1, 10));
    assert_eq!(
        source.read_chunk(2).expect("is whole"),
        state[2 * CHUNK_BYTES..]
    );
}

pub(super) fn unwanted_is_removed(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    compact(&mut *store, id(1, 50), id(1, 50));
    let snapshots = store.snapshots();
    take(&*snapshots, &meta(1, 90), b"state");
    for last in [id(1, 90), id(1, 50), id(1, 77)] {
        snapshots.remove(last).expect("is removed, or left");
    }
    assert!(!is_there(&*snapshots, id(1, 90)));
    assert!(is_there(&*snapshots, id(1, 50)), "the log begins behind it");
}

pub(super) fn same_again(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    let snapshots = store.snapshots();
    take(&*snapshots, &meta(1, 50), b"one");
    let first = snapshots.open(id(1, 50)).expect("is there").info().id;
    take(&*snapshots, &meta(1, 50), b"another");
    let second = snapshots.open(id(1, 50)).expect("is there").info().id;
    assert_ne!(
        first, second,
        "what was fetched of one does not go on with the other"
    );
    write(&mut *store, &named(id(1, 50), id(1, 50), false));
    drop((store, snapshots));
    assert_eq!(read(&*self::store(disk).snapshots(), id(1, 50)), b"another");
}

pub(super) fn absent_is_refused(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    for _ in 0..2 {
        let error = store.write(&named(id(1, 50), id(1, 50), false));
        let error = error.expect_err("absent, and then poisoned");
        let absent = matches!(error, StorageError::Refused(Misfit::SnapshotAbsent { last }) if last == id(1, 50));
        assert!(absent, "{error}");
    }
    drop(store);
    assert_log(self::store(disk), disk, &entries(1, 1..=100));
}

pub(super) fn misplaced_is_refused(disk: &Disk) {
    let mut first = store(disk);
    write(&mut *first, &batch_of(1, 1..=100));
    compact(&mut *first, id(1, 50), id(1, 40));
    drop(first);
    for (last, start) in [
        (id(1, 49), id(1, 45)),
        (id(1, 50), id(1, 50)),
        (id(1, 101), id(1, 60)),
        (id(2, 60), id(1, 50)),
        (id(1, 60), id(1, 61)),
        (id(1, 60), id(1, 39)),
        (id(1, 60), id(2, 50)),
    ] {
        let mut store = self::store(disk);
        take(
            &*store.snapshots(),
            &meta(last.term.0, last.index.0),
            b"state",
        );
        let error = store
            .write(&named(last, start, false))
            .expect_err("misplaced");
        let misplaced = matches!(
            error,
            StorageError::Refused(Misfit::SnapshotBack { .. } | Misfit::SnapshotOutside { .. })
        );
        assert!(misplaced, "{last} with {start}: {error}");
    }
    assert_log_behind(store(disk), disk, id(1, 40), &entries(1, 41..=100));
    assert_eq!(open(disk).recovered.snapshot, Some(meta(1, 50)));
}

pub(super) fn covered_is_not_cut(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    compact(&mut *store, id(1, 50), id(1, 40));
    let mut kept = cut(51);
    kept.push(None, None, entries(2, 51..=52));
    write(&mut *store, &kept);
    let error = store.write(&cut(50)).expect_err("covered");
    assert!(
        matches!(error, StorageError::Refused(Misfit::CutOfCovered { .. })),
        "{error}"
    );
    drop(store);
    let mut expected = entries(1, 41..=50).to_vec();
    expected.extend_from_slice(&entries(2, 51..=52));
    assert_log_behind(self::store(disk), disk, id(1, 40), &expected);
}

pub(super) fn closed_store_says_so(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=100));
    compact(&mut *store, id(1, 50), id(1, 40));
    let snapshots = store.snapshots();
    let mut begun = snapshots.create(&meta(1, 60)).expect("is begun");
    begun.write(b"half").expect("is written");
    store.close().expect("closes");
    assert!(matches!(begun.finish(), Err(StorageError::Closed)));
    let refused = snapshots.create(&meta(1, 60)).map(drop);
    assert!(matches!(refused, Err(StorageError::Closed)));
    let refused = snapshots.open(id(1, 50)).map(drop);
    assert!(matches!(refused, Err(StorageError::Closed)));
    drop(store);
    assert!(!is_there(&*self::store(disk).snapshots(), id(1, 60)));
}
