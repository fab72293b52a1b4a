use super::*;

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
        longer[0] = 2;
        assert_eq!(Configuration::decode(&longer), Err(DecodeError::Format(2)));
    }
    // A learner that votes.
    let mut twofold = three();
    twofold.learners = ids(&[3]);
    assert_eq!(
        Configuration::decode(&twofold.encode()),
        Err(DecodeError::Damaged)
    );
}
