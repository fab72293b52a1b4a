//! Looking, which changes nothing.

use super::*;
use crate::{mark::Mark, rocks::db::Database, rocks::state as records, run};
use rocksdb::WriteBatch;

/// Everything that only reads.
fn look_everywhere(dir: &Path) {
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("file");
    let _ = status(dir);
    let _ = all_entries(dir);
    let _ = verify(dir);
    let to = Export::File {
        path: &file,
        replace: false,
    };
    let _ = export(dir, Form::Framed, to);
    let _ = backup(dir, &outside.path().join("copy"));
    let _ = Import::plan(dir, &file);
    let _ = Recovery::plan(dir, &nodes([1, 2]));
}

#[test]
fn a_whole_folder_is_told_as_it_is_and_stays_as_it_is() {
    let dir = member_with_snapshot();
    let before = files(dir.path());
    look_everywhere(dir.path());
    assert_eq!(files(dir.path()), before);

    let status = status(dir.path()).unwrap();
    assert!(status.refusal.is_none(), "{:?}", status.refusal);
    assert_eq!(status.used, Use::Free);
    let content = status.content.unwrap();
    assert_eq!(
        content.owner.map(|(node, _, starts)| (node, starts)),
        Some((Some(NODE), 3))
    );
    assert_eq!(content.cluster, Some(CLUSTER));
    assert_eq!((content.log_start, content.last), (id(3, 100), id(4, 300)));
    assert_eq!(content.entries, 200);
    let terms: Vec<_> = content
        .terms
        .iter()
        .map(|t| (t.term.0, t.first.0, t.last.0))
        .collect();
    assert_eq!(terms, [(3, 101, 200), (4, 201, 300)]);
    assert_eq!(content.configuration.unwrap().0, LogIndex(250));
    assert_eq!(content.cursors["a reader"], LogIndex(40));
    let snapshot = status.snapshot.unwrap();
    assert_eq!((snapshot.last, snapshot.bytes), (id(4, 250), Some(600_000)));
    assert!(snapshot.wrong.is_none());
    assert_eq!(status.mark.unwrap().claim.position, id(4, 300));
    assert!(status.disk.snapshots > 600_000 && status.disk.total > status.disk.snapshots);

    let found = all_entries(dir.path()).unwrap();
    assert_eq!(found.len(), 200);
    assert_eq!((found[0].id, found[199].id), (id(3, 101), id(4, 300)));
    assert_eq!(&found[0].data[..], b"entry 101 of term 3");
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.problems, report.notes), (vec![], vec![]));
    let checked = report.checked;
    // Ten entries of the run that holds the first are gone, and whole.
    assert!(checked.entries >= 200, "{checked:?}");
    assert_eq!((checked.records, checked.chunks), (7, 3));
}

#[test]
fn a_folder_that_is_nobodys_and_one_that_has_departed_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let open = || open_rocksdb(dir.path(), None).unwrap().store;
    drop(open());
    let told = || status(dir.path()).unwrap();
    let whose = |status: &Status| status.content.as_ref().unwrap().owner.unwrap().0;
    let seen = told();
    assert_eq!((whose(&seen), seen.mark.unwrap().node), (None, None));
    assert!(!seen.content.unwrap().has_departed());
    open().record(&identity()).unwrap();
    let seen = told();
    assert_eq!(
        (whose(&seen), seen.mark.unwrap().node),
        (Some(NODE), Some(NODE))
    );
    let content = seen.content.unwrap();
    assert_eq!(content.known, Some(known([1, 2, 3])));
    assert!(!content.has_departed());
    let left = Record {
        known: Some(known([1, 2, 3]).reduced_to([NodeId(1), NodeId(3)])),
        ..Record::default()
    };
    open().record(&left).unwrap();
    assert!(told().content.unwrap().has_departed());
    assert_eq!(verify(dir.path()).unwrap().problems, []);
}

#[test]
fn a_range_is_read_and_no_more() {
    let dir = member();
    let mut found = Vec::new();
    let range = Range {
        from: LogIndex(195),
        through: LogIndex(203),
    };
    entries(dir.path(), range, |entry| {
        found.push(entry.id.index.0);
        found.len() < 7
    })
    .unwrap();
    assert_eq!(found, [195, 196, 197, 198, 199, 200, 201]);
    let empty = Range {
        from: LogIndex(301),
        through: LogIndex(400),
    };
    entries(dir.path(), empty, |_| panic!("there is none")).unwrap();
}

#[test]
fn what_is_no_data_folder_is_said_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    for dir in [temp.path().to_owned(), temp.path().join("missing")] {
        let error = status(&dir).unwrap_err();
        assert!(
            matches!(error, OfflineError::NotADataFolder { .. }),
            "{error}"
        );
        assert!(verify(&dir).is_err() && Recovery::plan(&dir, &nodes([2])).is_err());
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

/// Damages every file in several ways. No look changes a byte, the verdict is what a node is told, and where it is
/// refused the verification names a problem.
#[test]
fn damaged_folders_are_not_touched_and_the_verdict_is_the_nodes_own() {
    let whole = member_with_snapshot();
    let mut refusals = 0;
    for (path, content) in files(whole.path()) {
        let name = path.strip_prefix(whole.path()).unwrap();
        let len = content.len();
        if len == 0 || name.to_string_lossy().contains("LOG") {
            continue;
        }
        for way in ["flip early", "flip late", "half", "gone"] {
            let dir = copy(whole.path());
            let file = dir.path().join(name);
            match way {
                "flip early" => flip(&file, len / 3),
                "flip late" => flip(&file, len - 1 - len / 9),
                "half" => fs::write(&file, &content[..len / 2]).unwrap(),
                _ => fs::remove_file(&file).unwrap(),
            }
            let what = format!("{way}: {}", name.display());
            let before = files(dir.path());
            look_everywhere(dir.path());
            let seen = status(dir.path()).unwrap();
            let report = verify(dir.path()).unwrap();
            assert!(files(dir.path()) == before, "{what}: changed");
            let told = seen.refusal.as_ref().map(ToString::to_string);
            let refused = open_rocksdb(dir.path(), Some(NODE)).err();
            let refused = refused.map(|error| error.to_string());
            assert_eq!(told, refused, "{what}");
            if refused.is_some() {
                refusals += 1;
                assert!(!report.problems.is_empty(), "{what}: no problem is named");
            }
        }
    }
    assert!(refusals > 10, "{refusals}");
}

#[test]
fn all_problems_are_listed_and_not_only_the_first() {
    let dir = member_with_snapshot();
    let snapshot = status(dir.path()).unwrap().snapshot.unwrap().file;
    let db = Database::open(&dir.path().join("db"), false).unwrap();
    let mut rows = WriteBatch::default();
    let mut value = Vec::new();
    // An entry of a later run under the key of an earlier one, and a run that is missing.
    let entry = suite_entry(3, 150);
    run::encode(entry.id.term, &[&entry], &mut value);
    db.put_run(&mut rows, run::key(LogIndex(131)), &value);
    db.delete_run(&mut rows, LogIndex(171));
    let (key, _) = records::rows(&db).unwrap().into_iter().next().unwrap();
    db.put_state(&mut rows, &key, b"nonsense");
    db.write(rows).unwrap();
    drop(db);
    flip(&snapshot, 1000);
    flip(&snapshot, 590_000);

    let before = files(dir.path());
    let report = verify(dir.path()).unwrap();
    assert!(files(dir.path()) == before);
    let texts: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    let all = texts.join("\n");
    for expected in [
        "the run of entries from 131 on: does not match its checksum",
        "the run of entries from 181 on: does not follow the run before it, behind which entry 171 is missing",
        "does not match its checksum",
        "chunk 0 of the snapshot: does not match its checksum",
        "chunk 2 of the snapshot: does not match its checksum",
    ] {
        assert!(all.contains(expected), "{expected}\nis not in\n{all}");
    }
    assert!(all.contains("the record \"") && texts.len() >= 5, "{all}");
    assert!(report.checked.entries > 150, "{:?}", report.checked);
}

fn suite_entry(term: u64, index: u64) -> Entry {
    let batch = suite::batch_of(term, index..=index);
    batch.entries().next().unwrap().clone()
}

#[test]
fn a_table_file_that_cannot_be_read_in_the_middle_is_read_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).store;
    store.write(&hard_state(1, None)).unwrap();
    for index in 1..=400 {
        // Too varied to be compressed to nothing.
        let data: Vec<u8> = (0..2000u64)
            .flat_map(|at| (at * index * 2_654_435_761).to_be_bytes())
            .collect();
        let entry = Entry::new(
            Term(1),
            LogIndex(index),
            raft_core::EntryKind::Command,
            data.into(),
        );
        let mut batch = Batch::new();
        batch.push(None, None, [entry].into());
        store.write(&batch).unwrap();
    }
    store.close().unwrap();
    open(dir.path()).store.close().unwrap();
    let table = table_file(dir.path());
    let len = fs::metadata(&table).unwrap().len() as usize;
    flip(&table, len / 3);
    flip(&table, len / 3 * 2);
    let report = verify(dir.path()).unwrap();
    let unreadable: Vec<_> = report
        .problems
        .iter()
        .filter(|problem| problem.item.starts_with("the entries from"))
        .collect();
    assert_eq!(unreadable.len(), 2, "{:#?}", report.problems);
    assert!(report.checked.entries > 380, "{:?}", report.checked);
    assert!(unreadable[0].reason.contains(".sst"), "{:?}", unreadable[0]);
}

#[test]
fn half_a_mark_is_a_note_and_two_halves_are_problems() {
    let dir = member();
    let mark = dir.path().join("mark");
    flip(&mark, 100);
    let report = verify(dir.path()).unwrap();
    // Which half counts decides whether anything is lost.
    assert_eq!(report.notes.len(), 1, "{report:?}");
    flip(&mark, 4196);
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.problems.len(), 2, "{report:?}");
    assert!(Mark::read(dir.path()).is_err());
}

#[test]
fn a_running_nodes_folder_is_read_and_said_to_be_in_use() {
    let dir = member();
    let mut store = open(dir.path()).store;
    store.write(&suite::batch_of(4, 301..=310)).unwrap();
    let seen = status(dir.path()).unwrap();
    assert!(matches!(seen.used, Use::By(_)));
    assert!(seen.refusal.is_none(), "{:?}", seen.refusal);
    assert_eq!(seen.content.unwrap().last, id(4, 310));
    assert_eq!(all_entries(dir.path()).unwrap().len(), 310);
    assert_eq!(verify(dir.path()).unwrap().problems, []);
    store.write(&suite::batch_of(4, 311..=312)).unwrap();
    store.close().unwrap();
}
