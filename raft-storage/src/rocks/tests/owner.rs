//! Whose a folder is, and what it knows of the others: given once, completed, lost, and of an earlier version.

use raft_core::{ClusterId, Incarnation, membership::Configuration};

use super::*;
use crate::records::{self, Owner};

/// A folder that is nobody's yet.
fn nobodys() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open_rocksdb(dir.path(), None).unwrap();
    assert_eq!(opened.identity.node, None);
    opened.store.close().unwrap();
    dir
}

fn known() -> Configuration {
    Configuration::of_folders([2, 5].map(|id| (NodeId(id), Incarnation(u128::from(id) + 70))))
}

/// What the end of a join records.
fn joined() -> Record {
    Record {
        node: Some(NODE),
        known: Some(known()),
        cluster: Some(ClusterId(7)),
        ..Record::default()
    }
}

fn marked(dir: &Path) -> Option<NodeId> {
    Mark::read(dir).unwrap().unwrap().node
}

/// A folder whose power went when the database knew whose it is, and the mark did not.
fn half_given() -> TempDir {
    let dir = nobodys();
    let mut store = open_rocksdb(dir.path(), None).unwrap().store;
    crash_point::stop_at(CrashPoint::NodeWritten);
    let error = store.record(&joined()).unwrap_err();
    assert!(matches!(error, StorageError::Injected), "{error}");
    drop(store);
    assert_eq!(marked(dir.path()), None);
    dir
}

#[test]
fn a_node_that_was_half_given_is_completed_by_the_next_opening() {
    for node in [None, Some(NODE)] {
        let dir = half_given();
        let identity = open_rocksdb(dir.path(), node).unwrap().identity;
        assert_eq!((identity.node, identity.starts), (Some(NODE), 3));
        assert_eq!(identity.cluster, Some(ClusterId(7)));
        assert_eq!(identity.known, Some(known()));
        assert_eq!(marked(dir.path()), Some(NODE));
    }
}

#[test]
fn a_folder_that_was_half_given_is_no_other_nodes() {
    let dir = half_given();
    let before = files(dir.path());
    let error = open_rocksdb(dir.path(), Some(NodeId(6))).unwrap_err();
    assert!(
        matches!(error, OpenError::WrongNode { belongs_to, .. } if belongs_to == NODE),
        "{error}"
    );
    assert!(before == files(dir.path()), "not a byte has changed");
}

#[test]
fn a_node_that_is_given_is_in_the_mark_before_it_is_told() {
    let dir = nobodys();
    let mut store = open_rocksdb(dir.path(), None).unwrap().store;
    store.record(&joined()).unwrap();
    let killed = killed(dir.path());
    assert_eq!(marked(killed.path()), Some(NODE));
    let identity = open_rocksdb(killed.path(), None).unwrap().identity;
    assert_eq!(identity.node, Some(NODE));
}

#[test]
fn a_database_that_has_forgotten_whose_it_is_has_lost_what_was_synced() {
    let dir = nobodys();
    let mut store = open_rocksdb(dir.path(), None).unwrap().store;
    store.record(&joined()).unwrap();
    store.close().unwrap();
    rewrite(dir.path(), |db, rows| {
        let owner = State::load(db).unwrap().owner.unwrap();
        state::put_owner(
            db,
            rows,
            Owner {
                node: None,
                ..owner
            },
        );
    });
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::LogLost { .. }), "{error}");
    rewrite(dir.path(), |db, rows| {
        let owner = State::load(db).unwrap().owner.unwrap();
        let node = Some(NodeId(6));
        state::put_owner(db, rows, Owner { node, ..owner });
    });
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::WrongNode { .. }), "{error}");
}

#[test]
fn a_log_file_that_lost_the_giving_of_an_id_is_refused() {
    let dir = nobodys();
    let mut store = open_rocksdb(dir.path(), None).unwrap().store;
    store.record(&joined()).unwrap();
    let killed = killed(dir.path());
    cut_end(&newest_wal(killed.path()), 1);
    let error = refused(killed.path());
    assert!(matches!(error, OpenError::LogLost { .. }), "{error}");
}

/// The folder of a member, as an earlier version has written it.
fn of_an_earlier_version() -> TempDir {
    let dir = folder();
    rewrite(dir.path(), |db, rows| {
        let mut state = State::load(db).unwrap();
        state.records += 1;
        state::put_members(db, rows, &mut state, &known().folders());
        state::put_records(db, rows, &state);
    });
    dir
}

#[test]
fn the_members_of_an_earlier_version_are_known() {
    let dir = of_an_earlier_version();
    let cursor = Record {
        cursors: [("mail".to_owned(), Some(LogIndex(3)))].into(),
        ..Record::default()
    };
    for _ in 0..2 {
        let mut opened = open(dir.path()).unwrap();
        assert_eq!(opened.identity.known, Some(known()));
        assert!(!opened.identity.has_departed());
        opened.store.record(&cursor).unwrap();
    }
    let more = Configuration::of([NODE, NodeId(9)]);
    let record = Record {
        known: Some(more.clone()),
        ..Record::default()
    };
    let mut store = open(dir.path()).unwrap().store;
    store.record(&record).unwrap();
    store.record(&cursor).unwrap();
    store.close().unwrap();
    assert_eq!(open(dir.path()).unwrap().identity.known, Some(more));
    let db = Database::open(&dir.path().join("db"), false).unwrap();
    let old = db.get_state(&records::key(run::GROUP, "members")).unwrap();
    assert_eq!(old, None, "what is newer has taken its place");
}
