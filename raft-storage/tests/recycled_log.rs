//! Power losses in the middle of a write into a recycled log file: what is behind the torn record there is not
//! nothing, but whole records of an earlier life of the file.
//!
//! The disk before a write and the disk after it differ in some pages. A power loss may leave any of them old and
//! any of them new, so that is what is put together here, in many ways; each must open, with all that was
//! acknowledged before the write, and with the write as a whole or not at all.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use raft_core::{Entry, EntryKind, HardState, LogIndex, NodeId, Term};
use raft_storage::{Batch, LogStore, OpenError, open_rocksdb};

const NODE: NodeId = NodeId(1);
const PAGE: usize = 4096;

/// The n-th of a row of numbers that look random.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

fn entry(index: u64) -> Entry {
    let words = (0..32).flat_map(|word| mix(index << 8 | word).to_le_bytes());
    let data = words.collect::<Vec<_>>().into();
    Entry::new(Term(1), LogIndex(index), EntryKind::Command, data)
}

/// Writes entries behind `last`, and gives the new last.
fn write(store: &mut dyn LogStore, last: u64, count: u64) -> u64 {
    let mut batch = Batch::new();
    let hard_state = HardState {
        term: Term(1),
        voted_for: Some(NODE),
    };
    let entries: Arc<[Entry]> = (last + 1..=last + count).map(entry).collect();
    batch.push((last == 0).then_some(hard_state), None, entries);
    store.write(&batch).unwrap();
    last + count
}

/// The log file that is written: the one with the highest number.
fn log_file(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir.join("db")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|e| e == "log"));
    logs.max().unwrap()
}

/// Copies a folder; table files, which never change, as links.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let (from, kind) = file.map(|f| (f.path(), f.file_type())).unwrap();
        let to = to.join(from.file_name().unwrap());
        if kind.unwrap().is_dir() {
            copy(&from, &to);
        } else if from.extension().is_some_and(|e| e == "sst") {
            fs::hard_link(&from, &to).unwrap();
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// Sets of pages that a power loss may have left old.
fn losses(pages: usize) -> BTreeSet<Vec<usize>> {
    let mut losses = BTreeSet::from([(0..pages).collect()]);
    let step = pages.div_ceil(9);
    for page in (0..pages).step_by(step) {
        losses.insert(vec![page]);
        losses.insert((page..pages).collect());
        losses.insert((0..page.max(1)).collect());
    }
    for seed in 0..8 {
        let lost = |page: &usize| mix(seed << 32 | *page as u64).is_multiple_of(2);
        losses.insert((0..pages).filter(lost).collect());
    }
    losses.remove(&Vec::new());
    losses
}

/// Opens what is left, and checks that it is all that was acknowledged, or that and the torn write as a whole.
fn check(dir: &Path, before: u64, after: u64, case: &str) -> u64 {
    let mut opened = match open_rocksdb(dir, Some(NODE)) {
        Ok(opened) => opened,
        Err(error) => panic!("{case}: an ordinary power loss was refused: {error}"),
    };
    let last = opened.recovered.last.index.0;
    assert!(last == before || last == after, "{case}: last is {last}");
    let (from, through) = (LogIndex(before - 2_000), LogIndex(last));
    let mut found = Vec::new();
    let reader = opened.store.reader();
    while (found.len() as u64) < last - from.0 + 1 {
        let next = LogIndex(from.0 + found.len() as u64);
        found.extend(reader.read(next, through, 1 << 20).unwrap());
    }
    let expected: Vec<_> = (from.0..=last).map(entry).collect();
    assert!(found == expected, "{case}: other entries than were written");
    opened.store.close().unwrap();
    last
}

#[test]
fn a_torn_write_into_a_recycled_log_file_is_there_as_a_whole_or_not_at_all() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("node");
    let mut store = open_rocksdb(&dir, Some(NODE)).unwrap().store;
    let mut last = 0;
    // Until the log file that is written is the fourth: the first two are new.
    let mut names = BTreeSet::new();
    while names.len() < 4 {
        last = write(&mut *store, last, 1_024);
        names.insert(log_file(&dir));
    }
    // Some more, while the background finishes what it has.
    for count in [64, 1, 7, 64, 300] {
        thread::sleep(Duration::from_millis(100));
        last = write(&mut *store, last, count);
    }
    let log = log_file(&dir);
    let recycled = fs::metadata(&log).unwrap().len();
    assert!(recycled > 16 << 20, "not recycled: {recycled} bytes");

    let mut cases = 0;
    for count in [1, 64, 1_024] {
        let was = temp.path().join("was");
        copy(&dir, &was);
        let before = last;
        last = write(&mut *store, last, count);
        let old = fs::read(was.join("db").join(log.file_name().unwrap())).unwrap();
        let new = fs::read(&log).unwrap();
        assert_eq!(old.len(), new.len(), "it was overwritten, and did not grow");
        let at = |page: usize| page * PAGE..((page + 1) * PAGE).min(new.len());
        let changed: Vec<_> = (0..new.len().div_ceil(PAGE))
            .filter(|page| old[at(*page)] != new[at(*page)])
            .collect();
        for lost in losses(changed.len()) {
            let case = format!("{count} entries, pages {lost:?} of {} lost", changed.len());
            let torn = temp.path().join("torn");
            copy(&was, &torn);
            let file = torn.join("db").join(log.file_name().unwrap());
            let file = OpenOptions::new().write(true).open(file).unwrap();
            for (number, page) in changed.iter().enumerate() {
                if !lost.contains(&number) {
                    file.write_all_at(&new[at(*page)], at(*page).start as u64)
                        .unwrap();
                }
            }
            drop(file);
            if cases % 10 == 9 {
                // Where the write was acknowledged, and the mark says so, its loss is noticed.
                fs::copy(dir.join("mark"), torn.join("mark")).unwrap();
                let error = open_rocksdb(&torn, Some(NODE)).unwrap_err();
                assert!(
                    matches!(error, OpenError::LogLost { .. }),
                    "{case}: {error}"
                );
            } else {
                let left = check(&torn, before, last, &case);
                assert_eq!(left, before, "{case}: a page is missing and nothing is");
            }
            cases += 1;
            fs::remove_dir_all(&torn).unwrap();
        }
        let whole = temp.path().join("whole");
        copy(&dir, &whole);
        assert_eq!(check(&whole, before, last, "nothing is lost"), last);
        fs::remove_dir_all(&whole).unwrap();
        fs::remove_dir_all(&was).unwrap();
    }
    assert!(cases > 40, "{cases} cases");
}
