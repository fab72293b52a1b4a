use super::*;
use crate::NodeFailure;
use std::time::Duration;

fn ids<const N: usize>(ids: [u64; N]) -> Vec<NodeId> {
    ids.map(NodeId).to_vec()
}

fn same(outcome: &Outcome) {
    let bytes = outcome.encode().unwrap().unwrap();
    assert_eq!(Outcome::decode(&bytes).as_ref(), Ok(outcome));
    for len in 0..bytes.len() {
        assert_eq!(
            Outcome::decode(&bytes[..len]),
            Err(Unreadable),
            "{outcome:?} {len}"
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Outcome::decode(&longer), Err(Unreadable));
}

#[test]
fn what_is_asked_arrives_as_it_was_asked() {
    let id = NodeId(u64::MAX);
    let steps = vec![
        Step::Remove(id),
        Step::Join(NodeId(2)),
        Step::AddLearner(NodeId(3)),
        Step::SetPriority(id, u32::MAX),
    ];
    let change = |steps, forced| Op::Change { steps, forced };
    for op in [
        change(steps, true),
        change(Vec::new(), false),
        change(vec![Step::SetPriority(id, u32::MAX); STEPS_MAX], false),
        Op::Transfer { to: None },
        Op::Transfer { to: Some(id) },
        Op::Members,
    ] {
        let bytes = op.encode().unwrap();
        assert!(bytes.len() <= raft_net::MANAGE_LEN_MAX, "{}", bytes.len());
        assert_eq!(Op::decode(&bytes).as_ref(), Ok(&op));
        assert_eq!(
            Op::decode(&bytes[..bytes.len() - 1]),
            Err(Unreadable),
            "{op:?}"
        );
        assert_eq!(Op::decode(&[&bytes[..], &[0]].concat()), Err(Unreadable));
    }
}

#[test]
fn nobody_is_made_a_member_or_a_voter_from_afar() {
    // The leader's own steps have no number, so nobody else can ask for them.
    let member = raft_core::membership::Member::default();
    let own = vec![Step::AddVoter(NodeId(9)), Step::Describe(NodeId(9), member)];
    let op = Op::Change {
        steps: own,
        forced: false,
    };
    let none = Op::Change {
        steps: Vec::new(),
        forced: false,
    };
    assert_eq!(Op::decode(&op.encode().unwrap()), Ok(none));
    for kind in [0, 5, 255] {
        let steps: WireSteps = vec![(kind, 9, 0)];
        let bytes = encoded(CHANGE, &(steps, false)).unwrap();
        assert_eq!(Op::decode(&bytes), Err(Unreadable));
    }
    let many: WireSteps = vec![(REMOVE, 1, 0); STEPS_MAX + 1];
    let bytes = encoded(CHANGE, &(many, false)).unwrap();
    assert_eq!(Op::decode(&bytes), Err(Unreadable));
    // Another version, an unknown request, and nothing at all.
    for bytes in [&[2, 3, 0xc0][..], &[1, 99, 0xc0], &[1], &[]] {
        assert_eq!(Op::decode(bytes), Err(Unreadable));
    }
}

#[test]
fn what_is_answered_arrives_as_it_was_answered() {
    let mut configuration = Configuration::of(ids([1, 2, 3]));
    configuration.last_id = NodeId(7);
    let catching_up = ids([3]);
    let changed = Changed {
        index: Some(LogIndex(9)),
        configuration,
        catching_up,
    };
    same(&Outcome::Done(Done::Changed(changed)));
    same(&Outcome::Done(Done::Transferred(NodeId(3))));
    same(&Outcome::NotLeader);
    let id = NodeId(4);
    for error in [
        MembershipError::NotAMember(id),
        MembershipError::IdUsed(id),
        MembershipError::NoHealthyQuorum {
            voters: ids([1, 2, 3]),
            healthy: ids([1]),
        },
        MembershipError::LastVoter,
        MembershipError::Alive(id),
        MembershipError::NoCandidate,
        MembershipError::NotTransferred { to: id },
        MembershipError::Busy,
        MembershipError::Malformed,
        MembershipError::Change(ChangeError::NodeIdZero),
        MembershipError::Change(ChangeError::TooManyMembers(257)),
        MembershipError::Change(ChangeError::BadAddress(id)),
        MembershipError::Change(ChangeError::OtherFolder(id)),
    ] {
        same(&Outcome::Error(error));
    }
}

#[test]
fn what_a_node_says_of_itself_is_not_told_as_the_leaders_word() {
    let waited = Duration::ZERO;
    for error in [
        MembershipError::NoLeader { waited },
        MembershipError::TimedOut { waited },
        MembershipError::NodeEnded,
        MembershipError::Failed(NodeFailure::PartStopped("delivery")),
    ] {
        assert!(Outcome::Error(error).encode().is_none());
    }
}

/// As large as can be: 256 members in all roles, each in trouble.
fn crowd() -> Members {
    let roles = [
        None,
        Some(MemberRole::Voter),
        Some(MemberRole::Learner),
        Some(MemberRole::Joining { rounds: u32::MAX }),
        Some(MemberRole::Leaving),
    ];
    let states = [PeerState::Probe, PeerState::Replicate, PeerState::Snapshot];
    let member = |at: usize| MemberStatus {
        id: NodeId(u64::MAX - at as u64),
        address: "a".repeat(raft_core::membership::ADDRESS_LEN_MAX),
        connected: at.is_multiple_of(2),
        role: roles[at % roles.len()],
        priority: u32::MAX,
        incarnation: (at > 0).then_some(Incarnation(u128::MAX)),
        healthy: [None, Some(true), Some(false)][at % 3],
        queue: None,
        progress: (at > 0).then(|| Progress {
            state: states[at % 3],
            matched: LogIndex(u64::MAX),
            next: LogIndex(u64::MAX),
            inflight: at,
            active: at.is_multiple_of(3),
        }),
    };
    let text = "\u{1F980}".repeat(crate::census::TROUBLE_LEN_MAX / 4);
    let whys = [
        Why::NotConnected(text.clone()),
        Why::Refuses(text),
        Why::Silent,
        Why::Snapshot,
        Why::Behind(u64::MAX),
    ];
    let members: Vec<_> = (0..MEMBERS_MAX).map(member).collect();
    let why = members.iter().enumerate();
    // Those with the longest text, for all but a few.
    let why = why.map(|(at, member)| (member.id, whys[at.saturating_sub(MEMBERS_MAX - 4)].clone()));
    Members {
        leader: NodeId(1),
        term: Term(u64::MAX),
        index: LogIndex(u64::MAX),
        committed: true,
        joint: true,
        tolerance: Some(Tolerance {
            now: 1,
            possible: 2,
            voters: 3,
            why: why.collect(),
        }),
        members,
    }
}

#[test]
fn the_largest_cluster_can_be_told() {
    let outcome = Outcome::Done(Done::Members(crowd()));
    let bytes = outcome.encode().unwrap().unwrap();
    assert!(bytes.len() <= raft_net::MANAGED_LEN_MAX, "{}", bytes.len());
    assert_eq!(Outcome::decode(&bytes), Ok(outcome));
    let mut few = crowd();
    few.members.truncate(6);
    few.tolerance = None;
    same(&Outcome::Done(Done::Members(few)));
}
