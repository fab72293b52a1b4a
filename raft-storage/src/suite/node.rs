//! The cases of what a node is and has promised: votes, cluster, starts, one owner.

use super::*;

pub(super) fn new_store_is_empty(disk: &Disk) {
    let opened = open(disk);
    assert_eq!(opened.recovered, Recovered::default());
    assert_eq!(opened.identity.node, NODE);
    assert_eq!(opened.identity.starts, 1);
    assert_eq!(opened.identity.cluster, None);
    assert_eq!(opened.identity.members, None);
}

pub(super) fn vote_survives(disk: &Disk) {
    let mut opened = open(disk);
    let mut batch = batch_of(1, 1..=3);
    batch.push(Some(hard_state(1, None)), None, [].into());
    write(&mut *opened.store, &batch);
    write(&mut *opened.store, &vote(1, Some(2)));
    drop(opened);
    let mut opened = open(disk);
    assert_eq!(opened.recovered.hard_state, hard_state(1, Some(2)));
    write(&mut *opened.store, &vote(5, None));
    drop(opened);
    let opened = open(disk);
    assert_eq!(opened.recovered.hard_state, hard_state(5, None));
    assert_eq!(opened.recovered.last, id(1, 3));
}

pub(super) fn vote_never_goes_back(disk: &Disk) {
    for (batch, what) in [
        (vote(4, Some(1)), "a lower term"),
        (vote(5, Some(2)), "another vote"),
        (vote(5, None), "no vote any more"),
    ] {
        let mut opened = open(disk);
        write(&mut *opened.store, &vote(5, Some(1)));
        let error = opened.store.write(&batch).expect_err(what);
        let back = matches!(error, StorageError::Refused(Misfit::HardStateBack { .. }));
        assert!(back, "{what}: {error}");
        drop(opened);
        assert_eq!(
            open(disk).recovered.hard_state,
            hard_state(5, Some(1)),
            "{what}"
        );
    }
}

pub(super) fn cluster_survives(disk: &Disk) {
    let members = |nodes: &[u64]| -> BTreeMap<NodeId, Incarnation> {
        let member = |&node: &u64| (NodeId(node), Incarnation(u128::from(node) << 80));
        nodes.iter().map(member).collect()
    };
    let mut opened = open(disk);
    let of = |nodes: &[u64]| Record {
        members: Some(members(nodes)),
        ..Record::default()
    };
    let recorded = opened.store.record(&of(&[1, 2]));
    recorded.expect("is recorded");
    drop(opened);
    let mut opened = open(disk);
    assert_eq!(opened.identity.members, Some(members(&[1, 2])));
    assert_eq!(opened.identity.cluster, None);
    let recorded = opened.store.record(&cluster(u128::MAX));
    recorded.expect("is recorded");
    let recorded = opened.store.record(&of(&[1, 2, 9]));
    recorded.expect("is recorded");
    drop(opened);
    let opened = open(disk);
    assert_eq!(opened.identity.members, Some(members(&[1, 2, 9])));
    assert_eq!(opened.identity.cluster, Some(ClusterId(u128::MAX)));
}

pub(super) fn other_cluster_is_refused(disk: &Disk) {
    let mut store = store(disk);
    for _ in 0..2 {
        store.record(&cluster(1)).expect("is recorded");
    }
    let error = store.record(&cluster(2)).expect_err("another");
    assert!(
        matches!(error, StorageError::Refused(Misfit::OtherCluster)),
        "{error}"
    );
    drop(store);
    assert_eq!(open(disk).identity.cluster, Some(ClusterId(1)));
}

pub(super) fn starts_are_counted(disk: &Disk) {
    let first = open(disk).identity;
    for starts in 2..5 {
        let identity = open(disk).identity;
        assert_eq!(identity.starts, starts);
        assert_eq!(identity.incarnation, first.incarnation);
    }
}

pub(super) fn second_store_is_refused(disk: &Disk) {
    let first = open(disk);
    let error = disk(NODE).expect_err("a second one");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(first);
    open(disk);
}

pub(super) fn other_node_is_refused(disk: &Disk) {
    drop(open(disk));
    match disk(NodeId(4)).expect_err("another node") {
        OpenError::WrongNode {
            belongs_to, asked, ..
        } => assert_eq!((belongs_to, asked), (NODE, NodeId(4))),
        error => panic!("{error}"),
    }
    assert_eq!(
        open(disk).identity.starts,
        2,
        "the refused one does not count"
    );
}

pub(super) fn closed_store_says_so(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=1));
    let reader = store.reader();
    store.close().expect("closes");
    let reopened = open(disk);
    assert!(matches!(
        store.write(&batch_of(1, 2..=2)),
        Err(StorageError::Closed)
    ));
    assert!(matches!(
        store.record(&Record::default()),
        Err(StorageError::Closed)
    ));
    assert!(matches!(store.close(), Err(StorageError::Closed)));
    let read = reader.read(LogIndex(1), LogIndex(1), 1);
    assert!(matches!(read, Err(StorageError::Closed)));
    drop(store);
    assert!(matches!(disk(NODE), Err(OpenError::Locked { .. })));
    drop(reopened);
}

pub(super) fn cursors_survive(disk: &Disk) {
    let moved = |name: &str, at: Option<u64>| Record {
        cursors: [(name.to_owned(), at.map(LogIndex))].into(),
        ..Record::default()
    };
    let cursors = |opened: &Opened| {
        let cursors = opened.cursors.iter();
        cursors
            .map(|(name, at)| (name.clone(), at.0))
            .collect::<Vec<_>>()
    };
    let mut opened = open(disk);
    assert_eq!(cursors(&opened), []);
    for (name, at) in [("mail", 3), ("audit", 7), ("mail", 9), ("mail", 4)] {
        let recorded = opened.store.record(&moved(name, Some(at)));
        recorded.expect("is recorded");
    }
    drop(opened);
    let mut opened = open(disk);
    assert_eq!(
        cursors(&opened),
        [("audit".to_owned(), 7), ("mail".to_owned(), 4)]
    );
    for name in ["audit", "nobody's"] {
        let recorded = opened.store.record(&moved(name, None));
        recorded.expect("is recorded");
    }
    drop(opened);
    let mut opened = open(disk);
    assert_eq!(cursors(&opened), [("mail".to_owned(), 4)]);
    let error = opened
        .store
        .record(&moved("", Some(1)))
        .expect_err("no name");
    assert!(
        matches!(error, StorageError::Refused(Misfit::CursorName { len: 0 })),
        "{error}"
    );
}

fn cluster(id: u128) -> Record {
    Record {
        cluster: Some(ClusterId(id)),
        ..Record::default()
    }
}
