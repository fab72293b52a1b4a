use super::*;
use crate::Incarnation;

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn add(id: u64) -> Step {
    Step::AddVoter(NodeId(id))
}

fn learner(id: u64) -> Step {
    Step::AddLearner(NodeId(id))
}

fn remove(id: u64) -> Step {
    Step::Remove(NodeId(id))
}

fn folder(incarnation: u128, address: &str) -> Member {
    Member {
        incarnation: Some(Incarnation(incarnation)),
        address: address.to_owned(),
        tls_name: String::new(),
    }
}

fn describe(id: u64, member: Member) -> Step {
    Step::Describe(NodeId(id), member)
}

fn three() -> Configuration {
    Configuration::of([1, 2, 3].map(NodeId))
}

fn joint(steps: &[Step]) -> Change {
    Change::EnterJoint {
        steps: steps.to_vec(),
        auto_leave: false,
    }
}

#[test]
fn one_voter_changes_in_one_step() {
    let four = apply(&three(), &Change::Simple(vec![add(4)])).unwrap();
    assert_eq!(four.to_string(), "voters 1 2 3 4");
    let two = apply(&four, &Change::Simple(vec![remove(1), learner(5)])).unwrap();
    assert_eq!(two.to_string(), "voters 2 3 4, learners 5");
    let demoted = apply(&two, &Change::Simple(vec![learner(2)])).unwrap();
    assert_eq!(demoted.to_string(), "voters 3 4, learners 2 5");
    let first = apply(&Configuration::default(), &Change::Simple(vec![add(1)]));
    assert_eq!(first.unwrap(), Configuration::of([NodeId(1)]));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let simple = |steps: &[Step]| apply(&three(), &Change::Simple(steps.to_vec()));
    assert_eq!(
        simple(&[add(4), add(5)]),
        Err(ChangeError::TooManyVoters(2))
    );
    assert_eq!(
        simple(&[add(4), remove(1)]),
        Err(ChangeError::TooManyVoters(2))
    );
    assert_eq!(
        simple(&[remove(1), remove(2), remove(3)]),
        Err(ChangeError::NoVoters)
    );
    assert_eq!(simple(&[add(0)]), Err(ChangeError::NodeIdZero));
    let stranger = Step::SetPriority(NodeId(9), 1);
    assert_eq!(simple(&[stranger]), Err(ChangeError::NotAMember(NodeId(9))));
    assert_eq!(
        apply(&three(), &Change::LeaveJoint),
        Err(ChangeError::NotJoint)
    );
    let in_joint = apply(&three(), &joint(&[add(4)])).unwrap();
    for change in [
        Change::Simple(vec![add(5)]),
        joint(&[]),
        Change::Auto(vec![add(5)]),
    ] {
        assert_eq!(apply(&in_joint, &change), Err(ChangeError::AlreadyJoint));
    }
    let empty = Configuration::default();
    assert_eq!(apply(&empty, &joint(&[add(1)])), Err(ChangeError::NoVoters));
    let many: Vec<Step> = (4..=MEMBERS_MAX as u64 + 1).map(learner).collect();
    assert_eq!(
        simple(&many),
        Err(ChangeError::TooManyMembers(MEMBERS_MAX + 1))
    );
}

#[test]
fn a_joint_configuration_keeps_the_outgoing_half_until_it_is_left() {
    let entered = apply(
        &three(),
        &joint(&[add(4), remove(1), learner(2), learner(5)]),
    )
    .unwrap();
    assert_eq!(entered.voters, ids(&[3, 4]));
    assert_eq!(entered.voters_outgoing, ids(&[1, 2, 3]));
    // Who still votes is no learner yet.
    assert_eq!(
        (entered.learners.clone(), entered.learners_next.clone()),
        (ids(&[5]), ids(&[2]))
    );
    assert!(entered.votes(NodeId(1)) && entered.contains(NodeId(5)) && !entered.votes(NodeId(5)));
    let left = apply(&entered, &Change::LeaveJoint).unwrap();
    assert_eq!(left.to_string(), "voters 3 4, learners 2 5");
}

#[test]
fn the_automatic_way_is_joint_only_where_it_must() {
    let auto = |steps: &[Step]| apply(&three(), &Change::Auto(steps.to_vec())).unwrap();
    assert!(!auto(&[add(4)]).is_joint());
    let joint = auto(&[add(4), remove(1)]);
    assert!(joint.is_joint() && joint.auto_leave);
}

#[test]
fn the_last_of_contradicting_steps_counts() {
    let simple = |steps: &[Step]| apply(&three(), &Change::Simple(steps.to_vec())).unwrap();
    assert_eq!(simple(&[add(4), remove(4)]), three());
    assert_eq!(simple(&[remove(1), add(1)]), three());
    assert_eq!(simple(&[learner(1), add(1)]), three());
    assert_eq!(simple(&[Step::Join(NodeId(2))]), three());
    let joins = simple(&[Step::Join(NodeId(4))]);
    assert_eq!(joins.joining, ids(&[4]));
    let voter = apply(&joins, &Change::Simple(vec![add(4)])).unwrap();
    assert_eq!(voter, Configuration::of([1, 2, 3, 4].map(NodeId)));
}

#[test]
fn priorities_go_with_their_nodes() {
    let set = [
        Step::SetPriority(NodeId(1), 7),
        Step::SetPriority(NodeId(2), 3),
    ];
    let prior = apply(&three(), &Change::Simple(set.to_vec())).unwrap();
    assert_eq!(
        (prior.priority(NodeId(1)), prior.priority(NodeId(3))),
        (7, 0)
    );
    let removed = apply(&prior, &joint(&[remove(1), add(4)])).unwrap();
    let left = apply(&removed, &Change::LeaveJoint).unwrap();
    assert_eq!(left.priorities, BTreeMap::from([(NodeId(2), 3)]));
}

#[test]
fn what_is_encoded_is_decoded_and_nothing_else_is() {
    let steps = [
        add(4),
        remove(1),
        learner(2),
        Step::Join(NodeId(5)),
        Step::SetPriority(NodeId(3), 9),
    ];
    let change = Change::EnterJoint {
        steps: steps.to_vec(),
        auto_leave: true,
    };
    for configuration in [
        Configuration::default(),
        three(),
        apply(&three(), &change).unwrap(),
    ] {
        let bytes = configuration.encode();
        assert_eq!(Configuration::decode(&bytes), Ok(configuration));
        for end in 0..bytes.len() {
            assert_eq!(
                Configuration::decode(&bytes[..end]),
                Err(DecodeError::Damaged)
            );
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(Configuration::decode(&longer), Err(DecodeError::Damaged));
        longer[0] = 3;
        assert_eq!(Configuration::decode(&longer), Err(DecodeError::Format(3)));
    }
    // The same ids in another order.
    let mut unordered = three().encode().to_vec();
    unordered.swap(11, 19);
    assert_eq!(Configuration::decode(&unordered), Err(DecodeError::Damaged));
    // A learner that votes.
    let mut twofold = three();
    twofold.learners = ids(&[3]);
    assert_eq!(
        Configuration::decode(&twofold.encode()),
        Err(DecodeError::Damaged)
    );
}

#[test]
fn a_description_comes_and_goes_with_its_member() {
    let simple = |c: &Configuration, steps: &[Step]| apply(c, &Change::Simple(steps.to_vec()));
    // With the entry that adds it, and for an outgoing voter until that is none.
    let joined = [Step::Join(NodeId(4)), describe(4, folder(44, "d:7004"))];
    let four = simple(&three(), &joined).unwrap();
    assert_eq!(four.about[&NodeId(4)], folder(44, "d:7004"));
    let voter = simple(&four, &[add(4)]).unwrap();
    let replaced = [remove(4), add(5), describe(5, folder(55, "e:7005"))];
    let entered = apply(&voter, &joint(&replaced)).unwrap();
    assert_eq!(entered.about.len(), 2);
    let left = apply(&entered, &Change::LeaveJoint).unwrap();
    assert_eq!(
        left.about,
        BTreeMap::from([(NodeId(5), folder(55, "e:7005"))])
    );
    // It moves, or is known by less: all of it is replaced, but for the folder.
    let mut moved = folder(44, "f:7006");
    moved.tls_name = "four".to_owned();
    let moved = [describe(4, moved), describe(1, folder(11, ""))];
    let moved = simple(&four, &moved).unwrap();
    assert_eq!(moved.about[&NodeId(4)].address, "f:7006");
    let nowhere = simple(&moved, &[describe(4, folder(44, ""))]).unwrap();
    assert_eq!(nowhere.about[&NodeId(4)], folder(44, ""));
    // What is unknown is not written down.
    let at = Member {
        address: "a:7001".to_owned(),
        ..Member::default()
    };
    let known = simple(&three(), &[describe(1, at)]).unwrap();
    let unknown = simple(&known, &[describe(1, Member::default())]);
    assert_eq!(unknown.unwrap(), three());
    // Of contradicting steps the last one counts.
    assert_eq!(
        simple(&three(), &[&joined[..], &[remove(4)]].concat()).unwrap(),
        three()
    );
    assert_eq!(
        simple(&four, &[remove(4), Step::Join(NodeId(4))]).unwrap(),
        four
    );
}

#[test]
fn what_a_member_cannot_be_is_refused_by_name() {
    let refused = |steps: &[Step]| {
        let one = describe(1, folder(11, "a:7001"));
        let known = apply(&three(), &Change::Simple(vec![one])).unwrap();
        apply(&known, &Change::Auto(steps.to_vec())).unwrap_err()
    };
    let (stranger, one) = (ChangeError::NotAMember(NodeId(9)), NodeId(1));
    assert_eq!(refused(&[describe(9, folder(99, "i:7009"))]), stranger);
    let gone = [remove(3), describe(3, folder(33, "c:7003"))];
    assert_eq!(refused(&gone), ChangeError::NotAMember(NodeId(3)));
    assert_eq!(
        refused(&[describe(0, folder(1, "a:1"))]),
        ChangeError::NodeIdZero
    );
    // Not even by a new disk that is added in the place of the old one, nor through a joint configuration.
    let (other, unknown) = (folder(12, "a:7001"), Member::default());
    for steps in [
        vec![describe(1, other.clone())],
        vec![describe(1, unknown)],
        vec![remove(1), add(1), describe(1, other.clone())],
        vec![add(4), add(5), Step::Join(one), describe(1, other)],
    ] {
        assert_eq!(refused(&steps), ChangeError::OtherFolder(one), "{steps:?}");
    }
    let long = "x".repeat(ADDRESS_LEN_MAX);
    for bad in ["a", ":7001", "a:", "a:0", "a:65536", "a b:1", "ä:1", &long] {
        let error = refused(&[describe(1, folder(11, bad))]);
        assert_eq!(error, ChangeError::BadAddress(one), "{bad:?}");
    }
    for bad in [&long[..TLS_NAME_LEN_MAX + 1], "a b", "ä"] {
        let mut member = folder(11, "a:7001");
        member.tls_name = bad.to_owned();
        let error = refused(&[describe(1, member)]);
        assert_eq!(error, ChangeError::BadAddress(one), "{bad:?}");
    }
}

#[test]
fn no_id_is_given_twice() {
    let simple = |c: &Configuration, steps: &[Step]| apply(c, &Change::Simple(steps.to_vec()));
    let four = simple(&three(), &[add(4)]).unwrap();
    assert_eq!((four.highest_id(), four.next_id()), (NodeId(4), NodeId(5)));
    // Of whom is left none has an id so high.
    let without = simple(&four, &[remove(4)]).unwrap();
    assert_eq!(without.next_id(), NodeId(5));
    assert!(without.has_departed(NodeId(4)) && !without.has_departed(NodeId(5)));
    assert!(!without.has_departed(NodeId(3)));
    let two = simple(&without, &[remove(1)]).unwrap();
    assert!(two.has_departed(NodeId(1)) && two.next_id() == NodeId(5));
    // Who still votes in the outgoing half has not left.
    let entered = apply(&four, &joint(&[remove(4), remove(3)])).unwrap();
    assert!(!entered.has_departed(NodeId(4)));
    let left = apply(&entered, &Change::LeaveJoint).unwrap();
    assert!(left.has_departed(NodeId(4)) && left.next_id() == NodeId(5));
    // Who never was a member has not left either, whatever is asked for.
    let never = simple(&three(), &[remove(9)]).unwrap();
    assert_eq!((never.clone(), never.next_id()), (three(), NodeId(4)));
    // Nothing was ever given out, or everything.
    assert_eq!(Configuration::default().next_id(), NodeId(1));
    let all = Configuration::of([NodeId(u64::MAX)]);
    assert_eq!(all.next_id(), NodeId(u64::MAX));
}

#[test]
fn what_is_left_of_a_lost_quorum_gives_no_id_twice() {
    let described = [
        describe(1, folder(11, "a:7001")),
        describe(2, folder(22, "b:7002")),
    ];
    let joins = [Step::Join(NodeId(6)), Step::SetPriority(NodeId(2), 3)];
    let steps = [&described[..], &joins, &[add(4), remove(3)]].concat();
    let before = apply(&three(), &joint(&steps)).unwrap();
    let reduced = before.reduced_to([NodeId(1)]);
    assert_eq!(reduced.to_string(), "voters 1");
    assert_eq!(
        reduced.about,
        BTreeMap::from([(NodeId(1), folder(11, "a:7001"))])
    );
    assert_eq!((reduced.validate(), reduced.next_id()), (None, NodeId(7)));
    assert!(
        [2, 3, 4, 6]
            .map(NodeId)
            .iter()
            .all(|id| reduced.has_departed(*id))
    );
    assert_eq!(reduced.reduced_to([NodeId(1)]), reduced);
    // From nothing it is what a list of voters is.
    let first = Configuration::default().reduced_to([1, 2, 3].map(NodeId));
    assert_eq!(first, three());
}

/// Every way through four of these changes, from three voters.
#[test]
fn ids_grow_and_folders_stay_whatever_is_changed() {
    let simple = |steps: &[Step]| Change::Simple(steps.to_vec());
    let all = [
        simple(&[add(4)]),
        simple(&[remove(4)]),
        simple(&[remove(3)]),
        simple(&[Step::Join(NodeId(5)), describe(5, folder(55, "e:7005"))]),
        simple(&[remove(5)]),
        simple(&[describe(5, folder(56, "e:7005"))]),
        simple(&[describe(4, folder(44, "d:7004"))]),
        simple(&[learner(4), describe(4, folder(45, "d:7004"))]),
        joint(&[remove(4), add(5)]),
        joint(&[remove(5), learner(4), describe(4, folder(44, ""))]),
        Change::LeaveJoint,
    ];
    let mut now = BTreeSet::from([three()]);
    for _ in 0..4 {
        let mut then = BTreeSet::new();
        for (before, change) in now.iter().flat_map(|c| all.iter().map(move |a| (c, a))) {
            let Ok(after) = apply(before, change) else {
                continue;
            };
            let what = format!("{change:?} makes of {before:?} {after:?}");
            assert!(after.highest_id() >= before.highest_id(), "{what}");
            let left = |id: &NodeId| !after.contains(*id) && after.has_departed(*id);
            let gone = before.members().into_iter().find(|id| !after.contains(*id));
            assert!(gone.iter().all(left), "{what}");
            for (id, member) in &after.about {
                let known = before.about.get(id).and_then(|member| member.incarnation);
                assert!(known.is_none() || known == member.incarnation, "{what}");
            }
            for id in before.about.keys().filter(|id| after.contains(**id)) {
                assert!(after.about.contains_key(id), "{what}");
            }
            assert_eq!(Configuration::decode(&after.encode()), Ok(after.clone()));
            then.insert(after);
        }
        now = then;
    }
    assert!(now.len() > 100, "{} configurations", now.len());
}

#[test]
fn a_configuration_has_one_encoding() {
    let mut two = Configuration::of([1, 2].map(NodeId));
    assert_eq!(two.encode()[0], 1);
    two.last_id = NodeId(7);
    assert_eq!(two.encode()[0], 2);
    two.about.insert(NodeId(1), folder(11, "a:7001"));
    two.about.insert(NodeId(2), Member::default());
    let bytes = two.encode();
    assert_eq!(Configuration::decode(&bytes), Ok(two));
    // Whatever one byte is made, it is refused, or is the only way to say what it says.
    let mut taken = 0;
    for (at, value) in (0..bytes.len()).flat_map(|at| (0..=u8::MAX).map(move |v| (at, v))) {
        let mut other = bytes.to_vec();
        other[at] = value;
        if let Ok(decoded) = Configuration::decode(&other) {
            assert_eq!(decoded.encode(), other, "byte {at} is {value}");
            taken += 1;
        }
    }
    assert!(taken > bytes.len(), "{taken} were taken");
    // What format 1 can say is not said in format 2.
    let mut longer = three().encode().to_vec();
    longer[0] = 2;
    longer.extend([0; 10]);
    assert_eq!(Configuration::decode(&longer), Err(DecodeError::Damaged));
    // Somebody who is no member.
    let mut stranger = three();
    stranger.about.insert(NodeId(4), folder(44, "d:7004"));
    let stranger = Configuration::decode(&stranger.encode());
    assert_eq!(stranger, Err(DecodeError::Damaged));
    // Nobody, and yet somebody was.
    let nobody = Configuration {
        last_id: NodeId(1),
        ..Configuration::default()
    };
    let nobody = Configuration::decode(&nobody.encode());
    assert_eq!(nobody, Err(DecodeError::Damaged));
}

#[test]
fn the_largest_configuration_is_as_long_as_documented() {
    let all = (1..=MEMBERS_MAX as u64).map(NodeId);
    let mut largest = Configuration::of(all.clone());
    largest.voters_outgoing = largest.voters.clone();
    largest.auto_leave = true;
    for id in all {
        let mut member = folder(u128::MAX, "");
        member.address = format!("{}:65535", "x".repeat(ADDRESS_LEN_MAX - 6));
        member.tls_name = "x".repeat(TLS_NAME_LEN_MAX);
        largest.about.insert(id, member);
        largest.priorities.insert(id, 1);
    }
    let bytes = largest.encode();
    assert!(bytes.len() < 150 << 10, "{} bytes", bytes.len());
    assert_eq!(Configuration::decode(&bytes), Ok(largest));
}

#[test]
fn members_are_known_by_their_folders() {
    let folders = [1, 2, 9].map(|id| (NodeId(id), Incarnation(u128::from(id) << 70)));
    let known = Configuration::of_folders(folders);
    assert_eq!(known.validate(), None);
    assert_eq!(known.voters, ids(&[1, 2, 9]));
    assert_eq!(known.folders(), folders.into());
    let steps = vec![learner(10), describe(10, Member::default())];
    let known = apply(&known, &Change::Simple(steps)).unwrap();
    assert_eq!(known.folders(), folders.into(), "10 is known by nothing");
}
