//! Copies, of a running node's folder above all.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};
use std::thread;

use super::*;

#[test]
fn a_copy_holds_all_and_was_never_started() {
    let dir = member_with_snapshot();
    let temp = tempfile::tempdir().unwrap();
    let to = temp.path().join("copy");
    let copied = backup(dir.path(), &to).unwrap();
    assert_eq!((copied.node, copied.cluster), (Some(NODE), Some(CLUSTER)));
    assert_eq!((copied.entries, copied.last), (200, id(4, 300)));
    assert_eq!(copied.snapshot, Some(id(4, 250)));
    assert_eq!(all_entries(&to).unwrap(), all_entries(dir.path()).unwrap());
    assert_eq!(verify(&to).unwrap().problems, []);
    let (ours, theirs) = (status(dir.path()).unwrap(), status(&to).unwrap());
    let (ours, theirs) = (ours.content.unwrap(), theirs.content.unwrap());
    assert_eq!(theirs.owner.unwrap().2, 0);
    assert_eq!(
        Content {
            owner: ours.owner,
            ..theirs
        },
        ours
    );
    // Beside it nothing is left.
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);

    let opened = open(&to);
    assert_eq!(opened.identity.starts, 1);
    assert_eq!(opened.recovered.last, id(4, 300));
    assert_eq!(opened.recovered.hard_state.term, Term(4));
    assert!(opened.store.snapshots().open(id(4, 250)).is_ok());
}

#[test]
fn a_copy_that_lost_its_database_is_refused_though_it_was_never_started() {
    let dir = member();
    let temp = tempfile::tempdir().unwrap();
    let to = temp.path().join("copy");
    backup(dir.path(), &to).unwrap();
    fs::remove_dir_all(to.join("db")).unwrap();
    let error = open_rocksdb(&to, Some(NODE)).unwrap_err();
    assert!(
        matches!(error, OpenError::DatabaseMissing { .. }),
        "{error}"
    );
}

#[test]
fn nothing_is_overwritten_and_a_damaged_folder_is_not_copied() {
    let dir = member();
    let temp = tempfile::tempdir().unwrap();
    let to = temp.path().join("copy");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("thesis.tex"), "x").unwrap();
    let error = backup(dir.path(), &to).unwrap_err();
    assert!(matches!(error, OfflineError::NotEmpty { .. }), "{error}");
    fs::remove_file(to.join("thesis.tex")).unwrap();
    let error = backup(dir.path(), &dir.path().join("copy")).unwrap_err();
    assert!(matches!(error, OfflineError::Inside { .. }), "{error}");

    let damaged = copy(dir.path());
    let table = table_file(damaged.path());
    flip(&table, 100);
    let error = backup(damaged.path(), &to).unwrap_err().to_string();
    assert!(error.contains(damaged.path().to_str().unwrap()), "{error}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    backup(dir.path(), &to).unwrap();
}

/// Backups in a loop while a writer appends, cuts and compacts with snapshots. Each one opens as an ordinary folder,
/// and holds what was acknowledged before it began.
#[test]
fn every_backup_of_a_busy_folder_holds_what_was_acknowledged_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    // The last entry that is acknowledged and that the writer will never cut again.
    let acknowledged = Mutex::new(LogId::ZERO);
    let temp = tempfile::tempdir().unwrap();
    let mut backups = 0;
    thread::scope(|scope| {
        let _stops = Stops(&stop);
        let writer = scope.spawn(|| write_until(dir.path(), &stop, &acknowledged));
        while *acknowledged.lock().unwrap() == LogId::ZERO {
            thread::yield_now();
        }
        let begun = std::time::Instant::now();
        while begun.elapsed().as_secs() < 8 && backups < 60 && !writer.is_finished() {
            let before = *acknowledged.lock().unwrap();
            let to = temp.path().join("copy");
            let copied = backup(dir.path(), &to).unwrap();
            assert!(copied.last >= before, "{copied:?} of {before}");
            let opened = open_rocksdb(&to, Some(NODE)).unwrap();
            let recovered = opened.recovered;
            assert!(recovered.last >= before, "{} of {before}", recovered.last);
            if before.index > recovered.log_start.index {
                let read = opened
                    .store
                    .reader()
                    .read(before.index, before.index, 1)
                    .unwrap();
                assert_eq!(read[0].id, before);
            }
            drop(opened.store);
            assert_eq!(verify(&to).unwrap().problems, []);
            assert_eq!(verify(dir.path()).unwrap().problems, []);
            fs::remove_dir_all(&to).unwrap();
            backups += 1;
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    assert!(backups >= 3, "{backups}");
}

/// Ends the writer, also when the test fails, which would wait for it else.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn write_until(dir: &Path, stop: &AtomicBool, acknowledged: &Mutex<LogId>) {
    let mut store = open(dir).store;
    store.record(&identity()).unwrap();
    let (mut term, mut last) = (1, 0);
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        store.write(&hard_state(term, None)).unwrap();
        for _ in 0..20 {
            store
                .write(&suite::batch_of(term, last + 1..=last + 30))
                .unwrap();
            last += 30;
            *acknowledged.lock().unwrap() = id(term, last);
        }
        // Entries that nobody acknowledged, and that go again.
        store
            .write(&suite::batch_of(term, last + 1..=last + 10))
            .unwrap();
        let mut cut = Batch::new();
        cut.push(None, Some(LogIndex(last + 1)), [].into());
        store.write(&cut).unwrap();
        if rounds % 3 == 2 {
            compact(&mut *store, id(term, last), id(term, last - 50), 300_000);
        }
        if rounds % 5 == 4 {
            // Reopening brings the log file's content into a table file, and removes it.
            store.close().unwrap();
            store = open(dir).store;
        }
        rounds += 1;
        term += 1;
    }
    store.close().unwrap();
}
