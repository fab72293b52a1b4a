//! The cases of what a node is and has promised: votes, cluster, starts, one owner.

use super::*;

pub(super) fn new_store_is_empty(disk: &Disk) {
    let opened = open(disk);
    assert_eq!(opened.recovered, Recovered::default());
    assert_eq!(opened.identity.node, Some(NODE));
    assert_eq!(opened.identity.starts, 1);
    assert_eq!(opened.identity.cluster, None);
    assert_eq!(opened.identity.known, None);
    assert!(!opened.identity.has_departed());
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
    let two = known(&[1, 2]);
    let mut more = known(&[1, 2, 9]);
    let moved = Member {
        address: "10.0.0.9:7001".to_owned(),
        tls_name: "nine".to_owned(),
        ..more.about[&NodeId(9)].clone()
    };
    more.about.insert(NodeId(9), moved);
    more.last_id = NodeId(30);
    let mut opened = open(disk);
    let recorded = opened.store.record(&record(None, Some(two.clone())));
    recorded.expect("is recorded");
    drop(opened);
    let mut opened = open(disk);
    assert_eq!(opened.identity.known, Some(two));
    assert_eq!(opened.identity.cluster, None);
    let recorded = opened.store.record(&cluster(u128::MAX));
    recorded.expect("is recorded");
    let recorded = opened.store.record(&record(None, Some(more.clone())));
    recorded.expect("is recorded");
    drop(opened);
    let opened = open(disk);
    assert_eq!(opened.identity.known, Some(more));
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
    let error = disk(Some(NODE)).expect_err("a second one");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(first);
    open(disk);
}

pub(super) fn other_node_is_refused(disk: &Disk) {
    drop(open(disk));
    assert_is_not_of(disk, NodeId(4));
    assert_eq!(
        open(disk).identity.starts,
        2,
        "the refused one does not count"
    );
}

pub(super) fn is_given_once(disk: &Disk) {
    let open = || disk(None).expect("opens for nobody");
    let first = open().identity;
    assert_eq!(first.node, None);
    let mut opened = open();
    assert_eq!(opened.identity.node, None);
    assert_eq!(opened.identity.starts, 2);
    let joined = Record {
        cluster: Some(ClusterId(7)),
        ..record(Some(NODE), Some(known(&[1, 3])))
    };
    for _ in 0..2 {
        opened.store.record(&joined).expect("is recorded");
    }
    drop(opened);
    assert_is_not_of(disk, NodeId(4));
    let mut opened = open();
    let identity = &opened.identity;
    assert_eq!(identity.node, Some(NODE));
    assert_eq!(identity.incarnation, first.incarnation);
    assert_eq!((identity.starts, identity.cluster), (3, joined.cluster));
    assert_eq!(identity.known, joined.known);
    assert!(!identity.has_departed());
    let other = record(Some(NodeId(4)), None);
    let error = opened.store.record(&other).expect_err("another node");
    let refused = Misfit::OtherNode {
        is: NODE,
        asked: NodeId(4),
    };
    assert_refused(&error, refused);
    drop(opened);
    let opened = disk(Some(NODE)).expect("opens for its node");
    assert_eq!(
        (opened.identity.node, opened.identity.starts),
        (Some(NODE), 4)
    );
}

pub(super) fn is_given_at_an_opening(disk: &Disk) {
    drop(disk(None).expect("opens for nobody"));
    let identity = open(disk).identity;
    assert_eq!((identity.node, identity.starts), (Some(NODE), 2));
    assert_is_not_of(disk, NodeId(4));
    let identity = disk(None).expect("opens for whoever it is of").identity;
    assert_eq!((identity.node, identity.starts), (Some(NODE), 3));
}

pub(super) fn departed_is_told(disk: &Disk) {
    let left = |nodes: &[u64], last_id: u64| Configuration {
        last_id: NodeId(last_id),
        ..known(nodes)
    };
    // Who was removed, or left, has an id that was given; who was never a member has none of these.
    for (known, departed) in [
        (left(&[1, 2], 0), false),
        (left(&[1, 2, 3], 0), false),
        (left(&[1, 2, 3], 9), false),
        (left(&[1, 2], 3), true),
        (left(&[1, 4], 0), true),
    ] {
        let mut opened = open(disk);
        let recorded = opened.store.record(&record(None, Some(known.clone())));
        recorded.expect("is recorded");
        drop(opened);
        let identity = open(disk).identity;
        assert_eq!(identity.has_departed(), departed, "{known:?}");
    }
}

pub(super) fn what_cannot_be_is_refused(disk: &Disk) {
    match disk(Some(NodeId(0))).expect_err("there is no node 0") {
        OpenError::Storage(error) => assert_refused(&error, ChangeError::NodeIdZero.into()),
        error => panic!("{error}"),
    }
    let mut stranger = known(&[1, 2]);
    stranger.voters.remove(&NodeId(2));
    for (record, cause) in [
        (record(Some(NodeId(0)), None), ChangeError::NodeIdZero),
        (
            record(Some(NODE), Some(stranger)),
            ChangeError::NotAMember(NodeId(2)),
        ),
    ] {
        let mut opened = disk(None).expect("opens");
        let error = opened.store.record(&record).expect_err("cannot be");
        assert_refused(&error, cause.into());
        drop(opened);
        let identity = disk(None).expect("opens").identity;
        assert_eq!((identity.node, identity.known), (None, None));
    }
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
    assert!(matches!(disk(Some(NODE)), Err(OpenError::Locked { .. })));
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

/// Members that are known by their folders.
fn known(nodes: &[u64]) -> Configuration {
    let folder = |&node: &u64| (NodeId(node), Incarnation(u128::from(node) << 80));
    Configuration::of_folders(nodes.iter().map(folder))
}

fn record(node: Option<NodeId>, known: Option<Configuration>) -> Record {
    Record {
        node,
        known,
        ..Record::default()
    }
}

fn assert_is_not_of(disk: &Disk, other: NodeId) {
    match disk(Some(other)).expect_err("another node") {
        OpenError::WrongNode {
            belongs_to, asked, ..
        } => assert_eq!((belongs_to, asked), (NODE, other)),
        error => panic!("{error}"),
    }
}

fn assert_refused(error: &StorageError, expected: Misfit) {
    match error {
        StorageError::Refused(misfit) => assert_eq!(*misfit, expected),
        error => panic!("{error}"),
    }
}

fn cluster(id: u128) -> Record {
    Record {
        cluster: Some(ClusterId(id)),
        ..Record::default()
    }
}
