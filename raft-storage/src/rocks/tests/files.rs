//! The database's list of files: torn, damaged, half written, or not there.

use std::{sync::mpsc, thread, time::Duration};

use super::*;
use crate::{manifest, rocks::open::look};

/// RocksDB reads some damaged lists for ever: then a test fails, and its thread ends with the process.
const LIMIT: Duration = Duration::from_secs(20);

fn list_of(dir: &Path) -> PathBuf {
    let current = fs::read_to_string(dir.join("db/CURRENT")).unwrap();
    dir.join("db").join(current.trim())
}

/// Where the records of a list of one block begin.
fn records(list: &[u8]) -> Vec<usize> {
    let next = |at: &usize| {
        let len = u16::from_le_bytes([list[at + 4], list[at + 5]]);
        Some(at + 7 + usize::from(len)).filter(|at| *at < list.len())
    };
    std::iter::successors(Some(0), next).collect()
}

fn in_time<T: Send + 'static>(what: &str, ask: impl FnOnce() -> T + Send + 'static) -> T {
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || answer.send(ask()));
    let Ok(answer) = answered.recv_timeout(LIMIT) else {
        panic!("{what}: no answer within {LIMIT:?}");
    };
    answer
}

/// Opens a folder whose list was damaged: all is there, or it is refused by the list's name and left as it is.
/// Says which.
fn opens_whole(dir: &Path, what: &str) -> bool {
    let list = list_of(dir);
    let before = files(dir);
    let folder = dir.to_owned();
    let seen = in_time(what, move || look(&folder).map(drop));
    assert!(
        before == files(dir),
        "{what}: a look has changed the folder"
    );
    let folder = dir.to_owned();
    match in_time(what, move || {
        open(&folder).map(|opened| opened.recovered.last)
    }) {
        Ok(last) => {
            assert_eq!(last, id(3, 50), "{what}");
            seen.expect(what);
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(list.to_str().unwrap()), "{what}: {text}");
            assert!(text.contains("bring the data folder back"), "{text}");
            assert!(before == files(dir), "{what}: a refusal changed the folder");
            assert_eq!(seen.err().map(|error| error.to_string()), Some(text));
            false
        }
    }
}

#[test]
fn no_kind_of_record_keeps_a_node_from_answering() {
    let dir = folder();
    let list = fs::read(list_of(dir.path())).unwrap();
    let records = records(&list);
    assert!(records.len() > 5, "{records:?}");
    let mut refused = 0;
    for at in records.iter().rev() {
        // The kinds of log files that are written over old ones, and some that RocksDB reports or passes.
        for kind in [5, 6, 7, 8, 11, 131, 0, 2, 9, 255] {
            let damaged = killed(dir.path());
            change_from(&list_of(damaged.path()), *at as u64, |bytes| {
                bytes[6] = kind;
            });
            let what = format!("kind {kind} at byte {at}");
            refused += usize::from(!opens_whole(damaged.path(), &what));
        }
    }
    assert!(refused > 0, "each record can be spared");
}

#[test]
fn a_torn_list_of_files_is_an_ordinary_power_loss() {
    // A record of 40 bytes whose second sector never reached the disk; of that kind, and of the kind that
    // RocksDB's reader does not pass.
    for kind in [1, 5] {
        let dir = folder();
        let mut torn = fs::read(list_of(dir.path())).unwrap();
        torn.extend_from_slice(&[0x11, 0x22, 0x33, 0x44, 40, 0, kind]);
        torn.extend_from_slice(&[0; 40]);
        fs::write(list_of(dir.path()), &torn).unwrap();
        let folder = dir.path().to_owned();
        let opened = in_time("a torn list", move || open(&folder)).unwrap();
        assert_eq!(opened.recovered.last, id(3, 50));
        assert_eq!(opened.recovered.hard_state.voted_for, Some(NodeId(1)));
        drop(opened);
        assert!(!dir.path().join("judge").exists());
        assert_eq!(open(dir.path()).unwrap().recovered.last, id(3, 50));
    }
}

#[test]
fn a_record_on_its_way_into_the_list_is_in_nobodys_way() {
    let dir = folder();
    let whole = fs::read(list_of(dir.path())).unwrap();
    let first = &whole[..records(&whole)[1]];
    for len in 1..first.len() {
        let bytes = [&whole, &first[..len]].concat();
        fs::write(list_of(dir.path()), bytes).unwrap();
        manifest::check(&dir.path().join("db")).unwrap();
        if [6, 7, first.len() - 1].contains(&len) {
            let sight = look(dir.path()).unwrap();
            let (_, found, _) = sight.content.unwrap();
            assert_eq!(found.shape.last(), id(3, 50));
        }
    }
    assert_eq!(open(dir.path()).unwrap().recovered.last, id(3, 50));
}

#[test]
fn a_damaged_list_of_files_is_refused_and_left_as_it_is() {
    let dir = folder();
    change_from(&list_of(dir.path()), 10, |bytes| bytes[0] ^= 1);
    assert!(!opens_whole(dir.path(), "the first record"));
}

#[test]
fn a_list_that_nobody_names_or_that_is_not_there_is_refused_by_its_name() {
    let dir = folder();
    let current = dir.path().join("db/CURRENT");
    let right = fs::read_to_string(&current).unwrap();
    let long = format!("MANIFEST-{}\n", "0".repeat(100));
    for wrong in [
        "",
        "\n",
        "MANIFEST-\n",
        "MANIFEST-00000x\n",
        "../MANIFEST-000001\n",
        "LOG\n",
        right.trim(),
        &format!("{right}\n"),
        &long,
    ] {
        fs::write(&current, wrong).unwrap();
        let error = refused(dir.path()).to_string();
        assert!(error.contains(current.to_str().unwrap()), "{error}");
        assert!(error.contains("bring the data folder back"), "{error}");
    }
    fs::write(&current, &right).unwrap();
    let list = list_of(dir.path());
    let bytes = fs::read(&list).unwrap();
    fs::remove_file(&list).unwrap();
    let error = refused(dir.path()).to_string();
    assert!(error.contains(list.to_str().unwrap()), "{error}");
    assert!(error.contains("is missing"), "{error}");
    // What the disk refuses is told as that.
    fs::create_dir(&list).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(list.to_str().unwrap()));
    fs::remove_dir(&list).unwrap();
    fs::write(&list, bytes).unwrap();
    assert_eq!(open(dir.path()).unwrap().recovered.last, id(3, 50));
}
