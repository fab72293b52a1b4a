//! The store over RocksDB: its own promises, and what it refuses, on real files.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use raft_core::{EntryKind, LogId, NodeId, SnapshotMeta, Term};
use tempfile::TempDir;

use super::*;
use crate::{OpenError, Opened, mark, suite};

mod files;
mod owner;

const NODE: NodeId = NodeId(5);

/// What a mark is made to say, and how.
type Lie = (&'static str, fn(&mut Claim));

fn open(dir: &Path) -> Result<Opened, OpenError> {
    open_rocksdb(dir, Some(NODE))
}

fn refused(dir: &Path) -> OpenError {
    let error = open(dir).expect_err("is refused");
    let text = error.to_string();
    assert!(
        text.contains(dir.to_str().unwrap()),
        "names the folder: {text}"
    );
    error
}

fn vote(term: u64, node: Option<u64>) -> Batch {
    let mut batch = Batch::new();
    let hard_state = HardState {
        term: Term(term),
        voted_for: node.map(NodeId),
    };
    batch.push(Some(hard_state), None, [].into());
    batch
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

/// A folder with a vote in term 3 and a log up to 50, written one by one, closed in an orderly way.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap().store;
    store.write(&vote(3, Some(1))).unwrap();
    for index in 1..=50 {
        store.write(&suite::batch_of(3, index..=index)).unwrap();
    }
    store.close().unwrap();
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).unwrap();
        }
    }
}

/// What is on the disk while the store is open: what a kill would leave.
fn killed(dir: &Path) -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    copy(dir, copied.path());
    copied
}

/// The write-ahead log that is being written.
fn newest_wal(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("db")).unwrap();
    let wals = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    wals.max().unwrap()
}

fn cut_end(file: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}

fn change_from(file: &Path, at: u64, change: impl FnOnce(&mut [u8])) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes[at as usize..]);
    fs::write(file, bytes).unwrap();
}

fn remark(dir: &Path, change: impl FnOnce(&mut Claim)) {
    let mut mark = Mark::open(dir).unwrap().unwrap();
    let mut claim = mark.record().claim;
    change(&mut claim);
    mark.promise(claim).unwrap();
}

fn rewrite(dir: &Path, change: impl FnOnce(&Database, &mut WriteBatch)) {
    let db = Database::open(&dir.join("db"), false).unwrap();
    let mut rows = WriteBatch::default();
    change(&db, &mut rows);
    db.write(rows).unwrap();
}

#[test]
fn passes_the_suite() {
    suite::check(|| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move |node| open_rocksdb(dir.path(), node))
    });
}

#[test]
fn a_folder_of_ones_own_is_made_private() {
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for dir in [temp.path().join("a/b"), temp.path().to_owned()] {
        if dir == temp.path() {
            fs::remove_dir_all(dir.join("a")).unwrap();
        }
        drop(open(&dir).unwrap());
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[test]
fn a_crash_at_any_step_of_making_a_folder_is_mended_by_the_next_start() {
    for (point, starts) in [
        (CrashPoint::FolderMade, 1),
        (CrashPoint::MarkMade, 1),
        (CrashPoint::DatabaseMade, 1),
        (CrashPoint::IdentityWritten, 2),
    ] {
        for node in [Some(NODE), None] {
            let dir = tempfile::tempdir().unwrap();
            crash_point::stop_at(point);
            let error = open_rocksdb(dir.path(), node).unwrap_err();
            assert!(
                matches!(error, OpenError::Storage(StorageError::Injected)),
                "{point:?}: {error}"
            );
            // Whoever was first is still first, but for a folder in which nothing is.
            let kept = node.filter(|_| point != CrashPoint::FolderMade);
            let identity = open_rocksdb(dir.path(), None).unwrap().identity;
            assert_eq!(
                (identity.node, identity.starts),
                (kept, starts),
                "{point:?}"
            );
            let again = open(dir.path()).unwrap().identity;
            assert_eq!(again.node, Some(NODE));
            assert_eq!(again.incarnation, identity.incarnation, "{point:?}");
        }
    }
}

#[test]
fn a_half_made_database_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    crash_point::stop_at(CrashPoint::MarkMade);
    open(dir.path()).unwrap_err();
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/MANIFEST-000001"), "").unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn the_mark_is_lowered_before_the_log_is_cut() {
    let dir = folder();
    let mut store = open(dir.path()).unwrap().store;
    let mut cut = Batch::new();
    cut.push(None, Some(LogIndex(20)), [].into());
    crash_point::stop_at(CrashPoint::MarkLowered);
    store.write(&cut).unwrap_err();
    drop(store);
    let mark = Mark::open(dir.path()).unwrap().unwrap();
    assert_eq!(mark.record().claim.position, id(3, 19));
    drop(mark);

    let mut opened = open(dir.path()).unwrap();
    assert_eq!(
        opened.recovered.last,
        id(3, 50),
        "not cut yet, and no harm done"
    );
    crash_point::stop_at(CrashPoint::BatchWritten);
    opened.store.write(&cut).unwrap_err();
    drop(opened);
    assert_eq!(open(dir.path()).unwrap().recovered.last, id(3, 19));
}

#[test]
fn the_database_may_hold_more_than_the_mark_says() {
    let dir = folder();
    let mut opened = open(dir.path()).unwrap();
    crash_point::stop_at(CrashPoint::BatchWritten);
    opened.store.write(&vote(9, Some(2))).unwrap_err();
    drop(opened);
    let recovered = open(dir.path()).unwrap().recovered;
    assert_eq!(
        (recovered.hard_state.term, recovered.hard_state.voted_for),
        (Term(9), Some(NodeId(2)))
    );
}

#[test]
fn a_kill_leaves_what_was_written_and_a_mark_that_knows_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap().store;
    store.write(&vote(1, None)).unwrap();
    store.write(&suite::batch_of(1, 1..=100)).unwrap();
    let killed = killed(dir.path());
    assert_eq!(
        Mark::open(killed.path())
            .unwrap()
            .unwrap()
            .record()
            .claim
            .position,
        id(1, 100)
    );
    assert_eq!(open(killed.path()).unwrap().recovered.last, id(1, 100));
}

#[test]
fn a_write_ahead_log_that_lost_synced_records_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap().store;
    store.write(&vote(1, None)).unwrap();
    for index in 1..=30 {
        store.write(&suite::batch_of(1, index..=index)).unwrap();
    }
    let length = newest_wal(dir.path()).metadata().unwrap().len();
    for damage in 0..4 {
        let killed = killed(dir.path());
        let wal = newest_wal(killed.path());
        match damage {
            0 => cut_end(&wal, 1),
            1 => cut_end(&wal, length / 2),
            2 => change_from(&wal, length / 2, |bytes| bytes[0] ^= 1),
            _ => change_from(&wal, length / 2, |bytes| bytes.fill(0)),
        }
        match refused(killed.path()) {
            OpenError::LogLost { marked, found, .. } => {
                assert_eq!(marked.position, id(1, 30), "damage {damage}");
                assert!(found.position < marked.position, "damage {damage}");
            }
            error => panic!("damage {damage}: {error}"),
        }
    }
}

#[test]
fn a_torn_record_that_was_never_acknowledged_is_an_ordinary_power_loss() {
    let dir = folder();
    let mut store = open(dir.path()).unwrap().store;
    store.write(&suite::batch_of(3, 51..=51)).unwrap();
    crash_point::stop_at(CrashPoint::BatchWritten);
    store.write(&suite::batch_of(3, 52..=60)).unwrap_err();
    let killed = killed(dir.path());
    cut_end(&newest_wal(killed.path()), 100);
    assert_eq!(open(killed.path()).unwrap().recovered.last, id(3, 51));
}

#[test]
fn a_database_that_holds_less_than_the_mark_says_is_refused() {
    let lies: [Lie; 7] = [
        ("a later record", |claim| claim.records += 1),
        ("a later position", |claim| claim.position = id(3, 51)),
        ("another entry there", |claim| claim.position = id(2, 40)),
        ("a later term", |claim| claim.hard_state.term = Term(4)),
        ("a later term without a vote", |claim| {
            claim.hard_state = HardState {
                term: Term(4),
                voted_for: None,
            };
        }),
        ("a later start", |claim| claim.starts += 1),
        ("everything later", |claim| {
            *claim = Claim {
                starts: 9,
                position: id(9, 900),
                ..*claim
            }
        }),
    ];
    for (what, lie) in lies {
        let dir = folder();
        remark(dir.path(), lie);
        let error = refused(dir.path());
        assert!(
            matches!(error, OpenError::LogLost { .. }),
            "{what}: {error}"
        );
        let error = refused(dir.path());
        assert!(
            matches!(error, OpenError::LogLost { .. }),
            "{what}, again: {error}"
        );
    }
}

#[test]
fn a_vote_in_the_mark_that_the_database_lacks_or_contradicts_is_refused() {
    let dir = folder();
    remark(dir.path(), |claim| {
        claim.hard_state.voted_for = Some(NodeId(2))
    });
    match refused(dir.path()) {
        OpenError::VotesConflict {
            term,
            marked,
            found,
            ..
        } => {
            assert_eq!((term, marked, found), (Term(3), NodeId(2), NodeId(1)));
        }
        error => panic!("{error}"),
    }
    let dir = tempfile::tempdir().unwrap();
    open(dir.path())
        .unwrap()
        .store
        .write(&vote(3, None))
        .unwrap();
    remark(dir.path(), |claim| {
        claim.hard_state.voted_for = Some(NodeId(2))
    });
    assert!(matches!(refused(dir.path()), OpenError::LogLost { .. }));
}

#[test]
fn an_old_copy_of_the_database_is_refused() {
    let dir = folder();
    let old = killed(dir.path());
    drop(open(dir.path()).unwrap());
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    copy(&old.path().join("db"), &dir.path().join("db"));
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::LogLost { .. }), "{error}");
}

#[test]
fn a_mark_without_its_database_and_a_database_without_its_mark_are_refused() {
    let dir = folder();
    fs::rename(dir.path().join("db"), dir.path().join("db.away")).unwrap();
    let error = refused(dir.path());
    assert!(
        matches!(error, OpenError::DatabaseMissing { .. }),
        "{error}"
    );
    fs::create_dir(dir.path().join("db")).unwrap();
    let error = refused(dir.path());
    assert!(
        matches!(error, OpenError::DatabaseMissing { .. }),
        "an empty one: {error}"
    );
    fs::remove_dir(dir.path().join("db")).unwrap();
    fs::rename(dir.path().join("db.away"), dir.path().join("db")).unwrap();
    fs::remove_file(dir.path().join(mark::FILE)).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::MarkMissing { .. }), "{error}");
}

#[test]
fn a_folder_mixed_from_two_is_refused() {
    let (dir, other) = (folder(), folder());
    fs::copy(other.path().join(mark::FILE), dir.path().join(mark::FILE)).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Mixed { .. }), "{error}");
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let dir = folder();
    rewrite(dir.path(), |db, rows| {
        let key = run::key(LogIndex(51));
        let mut value = Vec::new();
        crate::sealed::begin(&mut value);
        value[0] = 2;
        crate::sealed::finish(&key, &mut value);
        db.put_run(rows, key, &value);
    });
    let error = refused(dir.path());
    assert!(
        matches!(
            error,
            OpenError::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_damaged_run_and_a_missing_one_are_named() {
    let dir = folder();
    rewrite(dir.path(), |db, rows| {
        db.put_run(rows, run::key(LogIndex(7)), b"\x01not a run")
    });
    let error = refused(dir.path()).to_string();
    assert!(error.contains("run of entries from 7 on"), "{error}");
    rewrite(dir.path(), |db, rows| db.delete_run(rows, LogIndex(7)));
    let error = refused(dir.path()).to_string();
    assert!(error.contains("entry 7 is missing"), "{error}");
}

#[test]
fn a_reader_works_while_the_log_is_written_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap().store;
    store.write(&suite::batch_of(1, 1..=500)).unwrap();
    let reader = store.reader();
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            for _ in 0..200 {
                let entries = reader.read(LogIndex(1), LogIndex(500), usize::MAX).unwrap();
                assert!([299, 500].contains(&entries.len()), "{}", entries.len());
                assert!(entries.iter().all(|entry| entry.kind == EntryKind::Command));
            }
        });
        while !reads.is_finished() {
            let mut batch = Batch::new();
            batch.push(None, Some(LogIndex(300)), [].into());
            store.write(&batch).unwrap();
            store.write(&suite::batch_of(1, 300..=500)).unwrap();
        }
    });
}

/// Every file of a folder with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn a_refused_folder_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap().store;
    for index in 1..=30 {
        store.write(&suite::batch_of(1, index..=index)).unwrap();
    }
    let killed = killed(dir.path());
    let wal = newest_wal(killed.path());
    let middle = wal.metadata().unwrap().len() / 2;
    change_from(&wal, middle, |bytes| bytes[0] ^= 1);
    let before = files(killed.path());
    refused(killed.path());
    assert!(before == files(killed.path()), "not a byte has changed");
    change_from(&wal, middle, |bytes| bytes[0] ^= 1);
    assert_eq!(open(killed.path()).unwrap().recovered.last, id(1, 30));
}

fn meta(last: LogId) -> SnapshotMeta {
    SnapshotMeta {
        last,
        ..SnapshotMeta::default()
    }
}

fn named(last: LogId, log_start: LogId, replaces_log: bool) -> Batch {
    let mut batch = Batch::new();
    batch.push_snapshot(raft_core::SnapshotWrite {
        snapshot: meta(last),
        log_start,
        replaces_log,
    });
    batch
}

fn take(store: &dyn LogStore, last: LogId) {
    let mut sink = store.snapshots().create(&meta(last)).unwrap();
    sink.write(&[7; 300_000]).unwrap();
    sink.finish().unwrap();
}

/// A folder whose log, 41 to 50, begins behind a snapshot.
fn folder_with_snapshot() -> (TempDir, PathBuf) {
    let dir = folder();
    let mut store = open(dir.path()).unwrap().store;
    take(&*store, id(3, 40));
    store.write(&named(id(3, 40), id(3, 40), false)).unwrap();
    store.close().unwrap();
    let file = dir.path().join(format!("snapshots/{:020}-3.snap", 40));
    assert!(file.is_file());
    (dir, file)
}

#[test]
fn a_crash_around_an_installed_snapshot_leaves_the_old_log_or_the_new_one() {
    for (point, last) in [
        (CrashPoint::MarkLowered, id(3, 50)),
        (CrashPoint::BatchWritten, id(4, 20)),
    ] {
        let dir = folder();
        let mut store = open(dir.path()).unwrap().store;
        take(&*store, id(4, 20));
        crash_point::stop_at(point);
        let error = store.write(&named(id(4, 20), id(4, 20), true)).unwrap_err();
        assert!(matches!(error, StorageError::Injected), "{error}");
        let killed = killed(dir.path());
        drop(store);
        let recovered = open(killed.path()).unwrap().recovered;
        assert_eq!(recovered.last, last, "{point:?}");
        assert_eq!(recovered.snapshot.is_some(), last == id(4, 20));
    }
}

#[test]
fn what_a_crash_left_of_a_snapshot_goes_at_the_start() {
    let (dir, file) = folder_with_snapshot();
    let snapshots = dir.path().join("snapshots");
    let part = snapshots.join("00000000000000000045-3.part-0");
    let whole = snapshots.join("00000000000000000045-3.snap");
    fs::write(&part, "half").unwrap();
    fs::copy(&file, &whole).unwrap();
    fs::write(snapshots.join("notes.txt"), "an operator's").unwrap();
    let opened = open(dir.path()).unwrap();
    assert!(!part.exists() && !whole.exists());
    assert!(file.exists() && snapshots.join("notes.txt").exists());
    assert_eq!(opened.recovered.log_start, id(3, 40));
}

#[test]
fn a_snapshot_that_is_missing_or_not_whole_is_refused_by_its_files_name() {
    let damages: [fn(&Path); 5] = [
        |file| fs::remove_file(file).unwrap(),
        |file| cut_end(file, 1),
        |file| cut_end(file, 270_000),
        |file| change_from(file, 30, |bytes| bytes[0] ^= 1),
        |file| {
            let end = file.metadata().unwrap().len() - 1;
            change_from(file, end, |bytes| bytes[0] ^= 1);
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let (dir, file) = folder_with_snapshot();
        damage(&file);
        let text = refused(dir.path()).to_string();
        assert!(text.contains(".snap"), "{number}: {text}");
    }
}

#[test]
fn a_damaged_piece_of_a_snapshot_is_named_when_it_is_read() {
    let (dir, file) = folder_with_snapshot();
    let middle = file.metadata().unwrap().len() - 10_000;
    change_from(&file, middle, |bytes| bytes[0] ^= 1);
    let store = open(dir.path()).unwrap().store;
    let source = store.snapshots().open(id(3, 40)).unwrap();
    source.read_chunk(0).unwrap();
    let error = source.read_chunk(1).unwrap_err();
    assert!(
        matches!(
            error,
            StorageError::Damaged {
                item: Item::Chunk(1),
                damage: crate::Damage::Checksum,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_snapshot_that_does_not_fit_leaves_the_log_alone() {
    let dir = folder();
    let mut store = open(dir.path()).unwrap().store;
    // A file stands where the folder of snapshots should be.
    fs::write(dir.path().join("snapshots"), "").unwrap();
    let refused = store.snapshots().create(&meta(id(3, 40))).map(drop);
    assert!(matches!(refused, Err(StorageError::Io { .. })));
    store.write(&suite::batch_of(3, 51..=51)).unwrap();
}

#[test]
fn what_lies_before_the_log_is_given_back_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap().store;
    let size = || -> u64 {
        let files = fs::read_dir(dir.path().join("db")).unwrap();
        let tables = files.map(|file| file.unwrap());
        tables
            .filter(|file| file.file_name().to_string_lossy().ends_with(".sst"))
            .map(|file| file.metadata().unwrap().len())
            .sum()
    };
    // 320 MiB that do not compress.
    let mut noise = 1_u64;
    for index in 1..=320 {
        let data: Vec<u8> = (0..1 << 17)
            .flat_map(|_| {
                noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1);
                noise.to_be_bytes()
            })
            .collect();
        let entry = Entry::new(Term(1), LogIndex(index), EntryKind::Command, data.into());
        let mut batch = Batch::new();
        batch.push(None, None, [entry].into());
        store.write(&batch).unwrap();
    }
    let full = size();
    take(&*store, id(1, 310));
    store.write(&named(id(1, 310), id(1, 300), false)).unwrap();
    let given_back = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        size() < full / 2
    });
    assert!(given_back, "{full} bytes before, {} after", size());
    let reader = store.reader();
    let entries = reader.read(LogIndex(301), LogIndex(320), usize::MAX);
    assert_eq!(entries.unwrap().len(), 20);
}

#[test]
fn a_record_of_long_ago_that_is_missing_is_noticed_though_later_ones_are_there() {
    let dir = folder();
    let mut store = open(dir.path()).unwrap().store;
    let cluster = crate::Record {
        cluster: Some(raft_core::ClusterId(77)),
        known: Some(raft_core::membership::Configuration::of([NODE])),
        ..crate::Record::default()
    };
    store.record(&cluster).unwrap();
    let cursor = crate::Record {
        cursors: [("mail".to_owned(), Some(LogIndex(3)))].into(),
        ..crate::Record::default()
    };
    store.record(&cursor).unwrap();
    store.close().unwrap();
    for name in ["cluster", "known"] {
        let damaged = killed(dir.path());
        rewrite(damaged.path(), |db, rows| {
            db.delete_state(rows, &crate::records::key(run::GROUP, name));
        });
        let error = refused(damaged.path()).to_string();
        assert!(error.contains("\"records\""), "{name}: {error}");
    }
}

fn cut_and_append(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Batch {
    let mut batch = Batch::new();
    batch.push(None, Some(LogIndex(*indexes.start())), [].into());
    for entry in suite::batch_of(term, indexes).entries() {
        batch.push(None, None, [entry.clone()].into());
    }
    batch
}

#[test]
fn old_entries_that_come_to_light_again_fit_none_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap().store;
    for index in 1..=50 {
        store.write(&suite::batch_of(1, index..=index)).unwrap();
    }
    store.write(&cut_and_append(2, 20..=20)).unwrap();
    for index in 21..=60 {
        store.write(&suite::batch_of(2, index..=index)).unwrap();
    }
    store.close().unwrap();
    // As if the table file were lost that holds 20 to 50 of term 2, and the one before it were not.
    rewrite(dir.path(), |db, rows| {
        for index in 20..=50 {
            let batch = suite::batch_of(1, index..=index);
            let mut value = Vec::new();
            let entries: Vec<_> = batch.entries().collect();
            let key = run::encode(Term(1), &entries, &mut value);
            db.put_run(rows, key, &value);
        }
    });
    let error = refused(dir.path()).to_string();
    assert!(
        error.contains("the run of entries from 51 on: does not belong behind"),
        "{error}"
    );
}

#[test]
fn what_an_operator_forced_ends_where_the_recovered_cluster_goes_on() {
    use raft_core::membership::Configuration;
    let of = |voters: &[u64]| Configuration::of(voters.iter().copied().map(NodeId));
    let three = of(&[5, 6, 7]);
    let forced = |through| {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).unwrap().store;
        store.write(&vote(4, None)).unwrap();
        store.write(&suite::batch_of(4, 1..=100)).unwrap();
        store.close().unwrap();
        rewrite(dir.path(), |db, rows| {
            let configuration = three.clone();
            let forced = crate::records::Forced {
                through: LogIndex(through),
                configuration,
            };
            state::put_forced(db, rows, &forced);
            let mut state = State::load(db).unwrap();
            state.forced = Some(forced);
            state.records += 1;
            state::put_records(db, rows, &state);
        });
        dir
    };
    let configurations = |dir: &Path| open(dir).unwrap().recovered.configurations;

    let dir = forced(100);
    assert_eq!(configurations(dir.path()), [(LogIndex(100), three.clone())]);
    let five = of(&[5, 6, 7, 8, 9]);
    let change = Entry::new(
        Term(5),
        LogIndex(95),
        EntryKind::Configuration,
        five.encode(),
    );
    let mut batch = cut_and_append(5, 91..=94);
    batch.push(None, None, [change].into());
    open(dir.path()).unwrap().store.write(&batch).unwrap();
    let expected = [(LogIndex(90), three.clone()), (LogIndex(95), five)];
    assert_eq!(configurations(dir.path()), expected);

    let dir = forced(100);
    let mut store = open(dir.path()).unwrap().store;
    take(&*store, id(5, 95));
    store.write(&named(id(5, 95), id(5, 95), true)).unwrap();
    store.write(&suite::batch_of(5, 96..=120)).unwrap();
    drop(store);
    assert_eq!(configurations(dir.path()), []);
}

#[test]
fn a_snapshot_of_another_folder_is_not_taken_for_this_ones() {
    let ((dir, file), (_other, others)) = (folder_with_snapshot(), folder_with_snapshot());
    fs::copy(others, file).unwrap();
    let error = refused(dir.path()).to_string();
    assert!(error.contains("is another one"), "{error}");
}

#[test]
fn what_a_closed_store_had_begun_is_in_nobodys_way() {
    let dir = folder();
    let old = open(dir.path()).unwrap().store;
    let mut begun = old.snapshots().create(&meta(id(3, 40))).unwrap();
    begun.write(&[1; 300_000]).unwrap();
    drop(old);
    let store = open(dir.path()).unwrap().store;
    let mut sink = store.snapshots().create(&meta(id(3, 40))).unwrap();
    sink.write(&[2; 300_000]).unwrap();
    drop(begun);
    sink.finish().unwrap();
    let source = store.snapshots().open(id(3, 40)).unwrap();
    assert!(source.read_chunk(1).unwrap().iter().all(|byte| *byte == 2));
}

#[test]
fn a_snapshot_that_a_write_is_about_to_name_is_not_removed() {
    let dir = folder();
    let mut store = open(dir.path()).unwrap().store;
    take(&*store, id(3, 40));
    let snapshots = store.snapshots();
    crash_point::stop_at(CrashPoint::BatchWritten);
    store
        .write(&named(id(3, 40), id(3, 40), false))
        .unwrap_err();
    snapshots.remove(id(3, 40)).unwrap();
    drop((store, snapshots));
    let recovered = open(dir.path()).unwrap().recovered;
    assert_eq!(recovered.snapshot.unwrap().last, id(3, 40));
}
