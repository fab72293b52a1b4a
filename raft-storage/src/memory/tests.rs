//! The memory disk through crashes and failures.

use std::thread;

use raft_core::Term;

use super::*;
use crate::suite;

const NODE: NodeId = NodeId(1);

fn vote(term: u64) -> Batch {
    let mut batch = Batch::new();
    let hard_state = HardState {
        term: Term(term),
        voted_for: Some(NODE),
    };
    batch.push(Some(hard_state), None, [].into());
    batch
}

#[test]
fn passes_the_suite() {
    suite::check(|| {
        let disk = MemoryDisk::new();
        Box::new(move |node| disk.open(node))
    });
}

#[test]
fn a_crash_forgets_what_was_not_synced_and_kills_the_store() {
    let disk = MemoryDisk::new();
    let mut store = disk.open(Some(NODE)).unwrap().store;
    let reader = store.reader();
    store.write(&vote(1)).unwrap();
    disk.hold();
    let writer = thread::spawn(move || {
        let result = store.write(&vote(2));
        (store, result)
    });
    disk.wait_until_held();
    disk.crash();
    let (mut store, result) = writer.join().unwrap();
    assert!(matches!(result, Err(StorageError::Crashed)));
    assert!(matches!(store.write(&vote(3)), Err(StorageError::Crashed)));
    let read = reader.read(LogIndex(1), LogIndex(1), 1);
    assert!(matches!(read, Err(StorageError::Crashed)));

    let opened = disk.open(Some(NODE)).unwrap();
    drop(store);
    assert!(
        matches!(disk.open(Some(NODE)), Err(OpenError::Locked { .. })),
        "the dead let go of nothing"
    );
    assert_eq!(opened.recovered.hard_state.term, Term(1));
    assert_eq!(opened.identity.starts, 2);
}

#[test]
fn nobody_sees_what_waits_for_its_sync() {
    let disk = MemoryDisk::new();
    let mut store = disk.open(Some(NODE)).unwrap().store;
    let reader = store.reader();
    disk.hold();
    let writer = thread::spawn(move || {
        store.write(&suite::batch_of(1, 1..=1)).unwrap();
        store
    });
    disk.wait_until_held();
    let read = || reader.read(LogIndex(1), LogIndex(1), 1);
    assert!(matches!(read(), Err(StorageError::Missing { .. })));
    disk.release();
    let _store = writer.join().unwrap();
    assert_eq!(read().unwrap().len(), 1);
}

#[test]
fn after_a_failed_write_the_first_cause_is_the_answer_to_everything() {
    let disk = MemoryDisk::new();
    let mut store = disk.open(Some(NODE)).unwrap().store;
    disk.fail_write(2);
    store.write(&vote(1)).unwrap();
    for term in 2..5 {
        let error = store.write(&vote(term)).unwrap_err();
        assert!(matches!(error, StorageError::Injected));
    }
    let error = store
        .record(&Record {
            cluster: Some(ClusterId(1)),
            ..Record::default()
        })
        .unwrap_err();
    assert!(matches!(error, StorageError::Injected));
    assert!(matches!(store.close(), Err(StorageError::Injected)));
    assert!(matches!(store.close(), Err(StorageError::Closed)));
    let opened = disk.open(Some(NODE)).unwrap();
    assert_eq!(opened.recovered.hard_state.term, Term(1));
}
