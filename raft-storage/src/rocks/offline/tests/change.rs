//! Imports and recoveries: what they refuse, and what they leave.

use super::*;

fn is_locked(error: &OfflineError) -> bool {
    matches!(error, OfflineError::Open(error) if matches!(**error, OpenError::Locked { .. }))
}

fn exported(dir: &Path, to: &Path) -> PathBuf {
    let file = to.join("exported");
    let target = Export::File {
        path: &file,
        replace: true,
    };
    export(dir, Form::Framed, target).unwrap();
    file
}

/// A folder of the same cluster without a snapshot; its entries from `from` on are of term 9.
fn behind(last: u64, from: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).store;
    store.record(&identity()).unwrap();
    store.write(&hard_state(3, Some(1))).unwrap();
    for (term, first, last) in [(3, 1, last.min(200)), (4, 201, last)] {
        let end = last.min(from - 1);
        if first <= end {
            store.write(&suite::batch_of(term, first..=end)).unwrap();
        }
    }
    if from <= last {
        store.write(&suite::batch_of(9, from..=last)).unwrap();
    }
    store.close().unwrap();
    dir
}

#[test]
fn an_exported_snapshot_is_whole_and_replaces_nothing_unasked() {
    let dir = member_with_snapshot();
    let temp = tempfile::tempdir().unwrap();
    let file = exported(dir.path(), temp.path());
    let named = status(dir.path()).unwrap().snapshot.unwrap().file;
    assert_eq!(fs::read(&file).unwrap(), fs::read(named).unwrap());
    let again = Export::File {
        path: &file,
        replace: false,
    };
    let error = export(dir.path(), Form::Raw, again).unwrap_err();
    assert!(matches!(error, OfflineError::Exists { .. }), "{error}");
    let mut raw = Vec::new();
    let done = export(dir.path(), Form::Raw, Export::Stream(&mut raw)).unwrap();
    assert_eq!((raw, done.bytes), (state(600_000), 600_000));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    let none = export(member().path(), Form::Raw, Export::Stream(&mut Vec::new()));
    assert!(matches!(none, Err(OfflineError::NoSnapshot { .. })));
}

#[test]
fn a_log_that_holds_the_snapshots_last_entry_goes_on_behind_it() {
    let temp = tempfile::tempdir().unwrap();
    let file = exported(member_with_snapshot().path(), temp.path());
    let dir = behind(270, 1000);
    let before = files(dir.path());
    let import = Import::plan(dir.path(), &file).unwrap();
    assert_eq!(import.effect, Effect::Begins { keeps: 20 });
    assert_eq!(import.raises_term, Some(Term(4)));
    assert!(files(dir.path()) == before, "a plan changes nothing");
    import.carry_out().unwrap();

    let opened = open(dir.path());
    let recovered = opened.recovered;
    assert_eq!(
        (recovered.log_start, recovered.last),
        (id(4, 250), id(4, 270))
    );
    assert_eq!(recovered.snapshot.unwrap().last, id(4, 250));
    assert_eq!(recovered.hard_state.term, Term(4));
    assert_eq!(recovered.hard_state.voted_for, None);
    let source = opened.store.snapshots().open(id(4, 250)).unwrap();
    let chunks = (0..source.info().chunks()).map(|n| source.read_chunk(n).unwrap());
    assert_eq!(chunks.collect::<Vec<_>>().concat(), state(600_000));
    assert_eq!(source.info().cluster, Some(CLUSTER));
}

#[test]
fn a_log_that_does_not_hold_it_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let file = exported(member_with_snapshot().path(), temp.path());
    for (last, from) in [(120, 1000), (280, 240)] {
        let dir = behind(last, from);
        let import = Import::plan(dir.path(), &file).unwrap();
        assert!(matches!(import.effect, Effect::Replaces { last: l } if l.index.0 == last));
        import.carry_out().unwrap();
        let recovered = open(dir.path()).recovered;
        assert_eq!(
            (recovered.log_start, recovered.last),
            (id(4, 250), id(4, 250))
        );
        let twice = Import::plan(dir.path(), &file).unwrap_err();
        assert!(matches!(twice, OfflineError::NotNewer { .. }), "{twice}");
    }
}

#[test]
fn an_import_refuses_what_the_leader_would_not_have_sent() {
    let temp = tempfile::tempdir().unwrap();
    let file = exported(member_with_snapshot().path(), temp.path());
    let dir = behind(270, 1000);
    let refused = |dir: &Path, file: &Path| {
        let before = files(dir);
        let error = Import::plan(dir, file).unwrap_err();
        assert!(files(dir) == before);
        error
    };
    // A damaged file, cut or flipped anywhere.
    let bytes = fs::read(&file).unwrap();
    let damaged = temp.path().join("damaged");
    for at in [3, 40, 1000, 300_000, bytes.len() - 3] {
        fs::write(&damaged, &bytes).unwrap();
        flip(&damaged, at);
        let error = refused(dir.path(), &damaged).to_string();
        assert!(error.contains(damaged.to_str().unwrap()), "{error}");
        fs::write(&damaged, &bytes[..at]).unwrap();
        refused(dir.path(), &damaged);
    }
    // Another cluster's, or a folder of none.
    let other = tempfile::tempdir().unwrap();
    let mut store = open(other.path()).store;
    store.write(&suite::batch_of(1, 1..=3)).unwrap();
    store.close().unwrap();
    let error = refused(other.path(), &file);
    assert!(matches!(error, OfflineError::NoCluster { .. }), "{error}");
    let mut store = open(other.path()).store;
    store
        .record(&Record {
            cluster: Some(ClusterId(7)),
            ..Record::default()
        })
        .unwrap();
    // In use.
    let error = refused(other.path(), &file);
    assert!(is_locked(&error), "{error}");
    store.close().unwrap();
    let error = refused(other.path(), &file);
    assert!(
        matches!(error, OfflineError::OtherCluster { .. }),
        "{error}"
    );
    // Planned, and then the node ran.
    let import = Import::plan(dir.path(), &file).unwrap();
    let mut store = open(dir.path()).store;
    assert!(is_locked(&import.carry_out().unwrap_err()));
    store.write(&suite::batch_of(4, 271..=272)).unwrap();
    store.close().unwrap();
    assert!(matches!(
        import.carry_out(),
        Err(OfflineError::Moving { .. })
    ));
    assert!(open(dir.path()).recovered.snapshot.is_none());
}

#[test]
fn those_who_are_left_decide_alone_after_a_recovery() {
    for dir in [member(), member_with_snapshot()] {
        let dir = dir.path();
        let before = files(dir);
        let recovery = Recovery::plan(dir, &nodes([2, 3])).unwrap();
        assert!(files(dir) == before, "a plan changes nothing");
        assert_eq!(recovery.voters_before, nodes([1, 2, 3]));
        assert_eq!(recovery.cluster_before, CLUSTER);
        assert_eq!(recovery.cluster, cluster_after(CLUSTER, &nodes([2, 3])));
        let entries = all_entries(dir).unwrap();
        assert_eq!(recovery.carry_out().unwrap(), Recovered::Now);

        let after = files(dir);
        let again = Recovery::plan(dir, &nodes([2, 3])).unwrap();
        assert!(again.done && again.cluster == recovery.cluster);
        assert_eq!(again.carry_out().unwrap(), Recovered::Before);
        assert!(files(dir) == after, "a second recovery changes nothing");
        assert_eq!(verify(dir).unwrap().problems, []);
        assert_eq!(all_entries(dir).unwrap(), entries);

        let mut opened = open(dir);
        let identity = opened.identity;
        assert_eq!(identity.cluster, Some(recovery.cluster));
        // Nobody is given the id of the lost one again.
        let expected = Configuration {
            last_id: NodeId(1),
            ..known([2, 3])
        };
        assert_eq!(identity.known.as_ref(), Some(&expected));
        let recovered = opened.recovered;
        assert_eq!(
            recovered.configurations,
            [(LogIndex(300), expected.clone())]
        );
        if let Some(snapshot) = recovered.snapshot {
            assert_eq!(*snapshot.configuration, expected);
        }
        assert_eq!(recovered.last, id(4, 300));
        opened.store.write(&suite::batch_of(4, 301..=301)).unwrap();
        opened.store.close().unwrap();
        // Then another one of these two is lost.
        let second = Recovery::plan(dir, &nodes([2])).unwrap();
        assert_eq!(second.voters_before, nodes([2, 3]));
        assert_eq!(second.changes, []);
        second.carry_out().unwrap();
        let opened = open(dir);
        let alone = Configuration {
            last_id: NodeId(3),
            ..known([2])
        };
        assert_eq!(opened.identity.known.as_ref(), Some(&alone));
        assert_eq!(opened.recovered.configurations, [(LogIndex(301), alone)]);
    }
}

#[test]
fn a_recovered_folders_snapshot_is_exported_as_the_clusters_that_it_is_of() {
    let dir = member_with_snapshot();
    let recovery = Recovery::plan(dir.path(), &nodes([2])).unwrap();
    recovery.carry_out().unwrap();
    let mut framed = Vec::new();
    let done = export(dir.path(), Form::Framed, Export::Stream(&mut framed)).unwrap();
    assert_eq!(done.info.cluster, Some(recovery.cluster));
    assert_eq!(done.info.meta.configuration.voters, nodes([2]));
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, framed).unwrap();
    // It is whole, and refused for nothing but its age.
    let error = Import::plan(dir.path(), &file).unwrap_err();
    assert!(matches!(error, OfflineError::NotNewer { .. }), "{error}");
}

#[test]
fn a_recovery_refuses_strangers_and_folders_of_the_lost() {
    let dir = member();
    let refused =
        |voters: &[u64]| Recovery::plan(dir.path(), &nodes(voters.iter().copied())).unwrap_err();
    let error = refused(&[2, 9]);
    assert!(
        matches!(
            error,
            OfflineError::NotAMember {
                node: NodeId(9),
                ..
            }
        ),
        "{error}"
    );
    let error = refused(&[1, 3]);
    assert!(
        matches!(error, OfflineError::NotAVoter { node: NODE, .. }),
        "{error}"
    );
    assert!(matches!(refused(&[]), OfflineError::NoVoters));
    let store = open(dir.path()).store;
    assert!(is_locked(&refused(&[2])));
    drop(store);
    let recovery = Recovery::plan(dir.path(), &nodes([2])).unwrap();
    let mut store = open(dir.path()).store;
    assert!(is_locked(&recovery.carry_out().unwrap_err()));
    store.write(&suite::batch_of(4, 301..=301)).unwrap();
    store.close().unwrap();
    assert!(matches!(
        recovery.carry_out(),
        Err(OfflineError::Moving { .. })
    ));
}

#[test]
fn changes_of_membership_in_the_log_are_named() {
    let dir = member();
    let mut store = open(dir.path()).store;
    store
        .write(&said(301, &Configuration::of([NodeId(1), NODE])))
        .unwrap();
    store.close().unwrap();
    let recovery = Recovery::plan(dir.path(), &nodes([2])).unwrap();
    assert_eq!(recovery.changes, [LogIndex(301)]);
    assert_eq!(recovery.voters_before, nodes([1, 2]));
    recovery.carry_out().unwrap();
    let recovered = open(dir.path()).recovered;
    let alone = Configuration {
        last_id: NodeId(3),
        ..known([2])
    };
    assert_eq!(recovered.configurations, [(LogIndex(301), alone)]);
}

/// A write of an entry that says who belongs to the cluster.
fn said(index: u64, configuration: &Configuration) -> Batch {
    let entry = Entry::new(
        Term(4),
        LogIndex(index),
        raft_core::EntryKind::Configuration,
        configuration.encode(),
    );
    let mut batch = Batch::new();
    batch.push(None, None, [entry].into());
    batch
}

#[test]
fn who_joined_since_anything_was_recorded_may_be_left() {
    let dir = member();
    let mut store = open(dir.path()).store;
    // 3 went, 4 and 5 came, and 1 moved.
    let mut in_log = known([1, 2, 4]);
    in_log.learners.insert(NodeId(5));
    in_log.last_id = NodeId(3);
    let moved = in_log.about.get_mut(&NodeId(1)).unwrap();
    moved.address = "10.0.1.1:7001".to_owned();
    let moved = moved.clone();
    store.write(&said(301, &in_log)).unwrap();
    store.close().unwrap();
    let error = Recovery::plan(dir.path(), &nodes([2, 6])).unwrap_err();
    assert!(
        matches!(
            error,
            OfflineError::NotAMember {
                node: NodeId(6),
                ..
            }
        ),
        "{error}"
    );
    let recovery = Recovery::plan(dir.path(), &nodes([1, 2, 4])).unwrap();
    assert_eq!(recovery.voters_before, nodes([1, 2, 4]));
    recovery.carry_out().unwrap();
    let opened = open(dir.path());
    let mut expected = known([1, 2, 4]);
    expected.about.insert(NodeId(1), moved);
    expected.last_id = NodeId(5);
    assert_eq!(opened.identity.known.as_ref(), Some(&expected));
    assert_eq!(opened.recovered.configurations, [(LogIndex(301), expected)]);
}

#[test]
fn a_joiner_whose_log_is_behind_its_own_joining_may_be_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_rocksdb(dir.path(), None).unwrap().store;
    let joined = Record {
        node: Some(NodeId(4)),
        known: Some(Configuration {
            last_id: NodeId(3),
            ..known([1, 2, 4])
        }),
        ..identity()
    };
    store.record(&joined).unwrap();
    store.write(&hard_state(4, None)).unwrap();
    // The log has come as far as when 2 and 3 were there.
    store.write(&suite::batch_of(4, 1..=300)).unwrap();
    store.write(&said(301, &known([1, 2, 3]))).unwrap();
    store.close().unwrap();
    let error = Recovery::plan(dir.path(), &nodes([3, 4])).unwrap_err();
    assert!(
        matches!(
            error,
            OfflineError::NotAMember {
                node: NodeId(3),
                ..
            }
        ),
        "who is known to have departed comes back with its old log: {error}"
    );
    let recovery = Recovery::plan(dir.path(), &nodes([2, 4])).unwrap();
    recovery.carry_out().unwrap();
    let expected = Configuration {
        last_id: NodeId(3),
        ..known([2, 4])
    };
    let opened = open_rocksdb(dir.path(), Some(NodeId(4))).unwrap();
    assert_eq!(opened.identity.known.as_ref(), Some(&expected));
    assert_eq!(opened.recovered.configurations, [(LogIndex(301), expected)]);
    drop(opened);
    assert!(Recovery::plan(dir.path(), &nodes([2, 4])).unwrap().done);
}

#[test]
fn a_folder_that_has_departed_and_one_that_is_nobodys_are_not_recovered() {
    let dir = member();
    let left = Record {
        known: Some(known([1, 2, 3]).reduced_to([NodeId(1), NodeId(3)])),
        ..Record::default()
    };
    open(dir.path()).store.record(&left).unwrap();
    let error = Recovery::plan(dir.path(), &nodes([2])).unwrap_err();
    assert!(
        matches!(error, OfflineError::Departed { node: NODE, .. }),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    drop(open_rocksdb(dir.path(), None).unwrap());
    let error = Recovery::plan(dir.path(), &nodes([2])).unwrap_err();
    assert!(matches!(error, OfflineError::NoCluster { .. }), "{error}");
}

#[test]
fn the_cluster_after_a_recovery_is_frozen() {
    let after = |voters: &[u64]| cluster_after(ClusterId(1), &nodes(voters.iter().copied()));
    assert_eq!(
        after(&[1, 2]).to_string(),
        "14de04c333790a8b401f00f1b69d975c"
    );
    assert_ne!(after(&[1, 2]), after(&[1]));
    assert_ne!(after(&[1, 2]), after(&[1, 2, 3]));
}
