//! Changes of the membership, and handovers, in clusters that are there: real actors and sockets, disks of memory.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use raft_actor::{
    ChangeError, ChangeMembership, Changed, Config, Configuration, GetMembers, LogIndex,
    MemberRole, Members, MembershipError, NodeId, Role, Shutdown, Step, TransferLeadership, Why,
};

use support::{Cluster, add, send, status, until};

const QUICK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(400));

/// One in which nobody waits long.
fn quick(size: u64) -> Cluster {
    Cluster::start(size, |config: Config| {
        let config = config.heartbeat_interval(Duration::from_millis(30));
        config.election_timeout(QUICK.0, QUICK.1)
    })
}

fn change() -> ChangeMembership {
    ChangeMembership::new()
}

async fn make(
    cluster: &Cluster,
    at: u64,
    change: ChangeMembership,
) -> Result<Changed, MembershipError> {
    cluster.node(at).send(change).await.unwrap()
}

async fn members(cluster: &Cluster, at: u64) -> Members {
    cluster.node(at).send(GetMembers).await.unwrap().unwrap()
}

fn role(members: &Members, id: u64) -> Option<MemberRole> {
    let found = members
        .members
        .iter()
        .find(|member| member.id == NodeId(id));
    found.and_then(|member| member.role)
}

fn voters(configuration: &Configuration) -> Vec<u64> {
    assert!(!configuration.is_joint());
    configuration.voters.iter().map(|id| id.0).collect()
}

/// The two that do not lead.
fn others(leader: u64) -> (u64, u64) {
    (leader % 3 + 1, (leader + 1) % 3 + 1)
}

/// Waits until the leader has found everybody healthy.
async fn healthy(cluster: &Cluster, at: u64) {
    until("everybody is healthy", async || {
        let tolerance = members(cluster, at).await.tolerance?;
        tolerance.why.is_empty().then_some(())
    })
    .await;
}

#[actix::test]
async fn from_any_node_a_voter_is_demoted_and_promoted_again() {
    let cluster = quick(3);
    let leader = cluster.leader().await;
    let (asked, other) = others(leader);
    let demote = || change().demote(NodeId(other));
    let changed = make(&cluster, asked, demote()).await.unwrap();
    let index = changed.index.unwrap();
    assert!(!voters(&changed.configuration).contains(&other));
    assert!(changed.configuration.learners.contains(&NodeId(other)));
    assert_eq!(changed.catching_up, []);

    // It is so already: nothing is appended, whoever asks.
    for at in cluster.ids() {
        let again = make(&cluster, at, demote()).await.unwrap();
        assert_eq!(
            (again.index, again.configuration),
            (None, changed.configuration.clone())
        );
    }
    let seen = members(&cluster, asked).await;
    assert_eq!(
        (seen.leader, seen.index, seen.committed),
        (NodeId(leader), index, true)
    );
    assert_eq!(role(&seen, other), Some(MemberRole::Learner));
    assert_eq!(role(&seen, leader), Some(MemberRole::Voter));
    assert_eq!(seen.tolerance.unwrap().voters, 2);

    // The learner itself asks for its vote. It has the log, so it votes at once.
    let promoted = make(&cluster, other, change().promote(NodeId(other)))
        .await
        .unwrap();
    assert!(promoted.index.unwrap() > index);
    until("the vote", async || {
        let seen = members(&cluster, other).await;
        let votes = role(&seen, other) == Some(MemberRole::Voter);
        (votes && seen.committed).then_some(())
    })
    .await;
    let again = make(&cluster, other, change().promote(NodeId(other)))
        .await
        .unwrap();
    assert_eq!(
        (again.index, voters(&again.configuration)),
        (None, vec![1, 2, 3])
    );
    cluster.node(asked).send(add(1)).await.unwrap().unwrap();
    cluster.shut_down().await;
}

#[actix::test]
async fn a_removed_id_is_never_used_again() {
    let cluster = quick(3);
    let (asked, other) = others(cluster.leader().await);
    let remove = || change().remove(NodeId(other));
    let removed = make(&cluster, asked, remove()).await.unwrap();
    assert_eq!(removed.configuration.members().len(), 2);
    assert!(removed.configuration.has_departed(NodeId(other)));
    // A goal that is reached is no error; to take the id again is.
    assert_eq!(make(&cluster, asked, remove()).await.unwrap().index, None);
    for back in [
        change().promote(NodeId(other)),
        change().demote(NodeId(other)),
    ] {
        let refused = make(&cluster, asked, back).await;
        assert_eq!(refused, Err(MembershipError::IdUsed(NodeId(other))));
    }
    // Somebody who never was.
    for (id, why) in [
        (9, MembershipError::NotAMember(NodeId(9))),
        (0, MembershipError::Change(ChangeError::NodeIdZero)),
    ] {
        for wrong in [
            change().remove(NodeId(id)),
            change().promote(NodeId(id)),
            change().demote(NodeId(id)),
            change().priority(NodeId(id), 1),
        ] {
            assert_eq!(make(&cluster, asked, wrong).await, Err(why.clone()));
        }
    }
    assert_eq!(members(&cluster, asked).await.index, removed.index.unwrap());
}

#[actix::test]
async fn several_things_at_once_take_effect_together() {
    let cluster = quick(5);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let stay: Vec<u64> = cluster.ids().filter(|id| *id != leader).collect();
    let [a, b, c, d] = stay[..] else {
        unreachable!()
    };
    let first = change().demote(NodeId(a));
    make(&cluster, b, first).await.unwrap();
    // Two voters go and one learner is to come: two majorities, which the leader leaves by itself.
    let steps = change()
        .remove(NodeId(c))
        .demote(NodeId(d))
        .promote(NodeId(a))
        .priority(NodeId(b), 3);
    let changed = make(&cluster, b, steps).await.unwrap();
    assert!(!changed.configuration.is_joint());
    assert_eq!(changed.catching_up, [NodeId(a)]);
    assert_eq!(changed.configuration.priority(NodeId(b)), 3);
    until("the new voter", async || {
        let seen = members(&cluster, a).await;
        let as_wanted = [
            (a, Some(MemberRole::Voter)),
            (b, Some(MemberRole::Voter)),
            (leader, Some(MemberRole::Voter)),
            (d, Some(MemberRole::Learner)),
        ];
        let there = as_wanted.iter().all(|(id, what)| role(&seen, *id) == *what);
        (there && !seen.joint && seen.committed).then_some(())
    })
    .await;
    // And who has the priority leads.
    until("the leader of choice", async || {
        (members(&cluster, a).await.leader == NodeId(b)).then_some(())
    })
    .await;
}

#[actix::test]
async fn no_change_leaves_the_cluster_without_a_healthy_majority_unless_forced() {
    let cluster = quick(3);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let (dead, other) = others(leader);
    cluster.node(dead).send(Shutdown).await.unwrap().unwrap();
    until("it is missed", async || {
        let tolerance = members(&cluster, other).await.tolerance?;
        assert_eq!((tolerance.possible, tolerance.voters), (1, 3));
        let [(who, Why::NotConnected(_))] = &tolerance.why[..] else {
            return None;
        };
        assert_eq!((*who, tolerance.now), (NodeId(dead), 0));
        Some(())
    })
    .await;
    let before = members(&cluster, leader).await;
    let sick = before
        .members
        .iter()
        .find(|m| m.id == NodeId(dead))
        .unwrap();
    assert_eq!((sick.healthy, sick.connected), (Some(false), false));
    let (mut would_vote, healthy) = (vec![NodeId(dead), NodeId(leader)], vec![NodeId(leader)]);
    would_vote.sort();
    for goal in [
        change().remove(NodeId(other)),
        change().demote(NodeId(other)),
    ] {
        assert_eq!(
            make(&cluster, other, goal).await,
            Err(MembershipError::NoHealthyQuorum {
                voters: would_vote.clone(),
                healthy: healthy.clone(),
            })
        );
    }
    assert_eq!(members(&cluster, leader).await.index, before.index);
    // What changes nothing about who decides is nobody's danger, and the dead may always go.
    let weight = change().priority(NodeId(leader), 1);
    make(&cluster, other, weight).await.unwrap().index.unwrap();
    let bury = change().remove(NodeId(dead));
    let buried = make(&cluster, other, bury).await.unwrap();
    assert_eq!(buried.configuration.voters.len(), 2);
}

#[actix::test]
async fn what_is_forced_is_done_though_it_costs_the_majority() {
    let cluster = quick(3);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let (dead, other) = others(leader);
    cluster.node(dead).send(Shutdown).await.unwrap().unwrap();
    until("it is missed", async || {
        let tolerance = members(&cluster, leader).await.tolerance?;
        (tolerance.now == 0).then_some(())
    })
    .await;
    let goal = change()
        .demote(NodeId(other))
        .forced()
        .timeout(Duration::from_secs(1));
    // Of the two that are to decide one is dead: the entry is appended, and cannot be committed.
    let error = make(&cluster, leader, goal).await.unwrap_err();
    assert!(matches!(error, MembershipError::TimedOut { .. }), "{error}");
    let found = status(cluster.node(leader)).await.configuration;
    assert!(found.learners.contains(&NodeId(other)), "{found}");
}

#[actix::test]
async fn after_an_election_the_guard_waits_until_it_can_know() {
    let min = Duration::from_millis(500);
    let cluster = Cluster::start(3, move |config: Config| {
        let config = config.heartbeat_interval(Duration::from_millis(30));
        config.election_timeout(min, Duration::from_millis(900))
    });
    let leader = cluster.leader().await;
    let (heir, dead) = others(leader);
    healthy(&cluster, leader).await;
    cluster.node(dead).send(Shutdown).await.unwrap().unwrap();
    let to = Some(NodeId(heir));
    let began = Instant::now();
    let handed = cluster.node(leader).send(TransferLeadership { to }).await;
    assert_eq!(handed.unwrap(), Ok(NodeId(heir)));
    // The new leader has not heard of the dead one, as it would not have of one that lives and is slow.
    let goal = change().demote(NodeId(leader));
    let refused = make(&cluster, leader, goal).await;
    assert!(
        matches!(refused, Err(MembershipError::NoHealthyQuorum { .. })),
        "{refused:?}"
    );
    assert!(began.elapsed() >= 2 * min, "{:?}", began.elapsed());
    // Nobody waits for what is no danger.
    let began = Instant::now();
    let to = Some(NodeId(leader));
    let back = cluster.node(heir).send(TransferLeadership { to }).await;
    assert_eq!(back.unwrap(), Ok(NodeId(leader)));
    let bury = change().remove(NodeId(dead));
    make(&cluster, heir, bury).await.unwrap().index.unwrap();
    assert!(began.elapsed() < 2 * min, "{:?}", began.elapsed());
}

#[actix::test]
async fn a_leader_that_loses_its_vote_hands_over_before() {
    static HANDED_OVER: AtomicU32 = AtomicU32::new(0);
    fn seen(step: Step) {
        let handed_over = u32::from(step == Step::LeaveTransferred);
        HANDED_OVER.fetch_add(handed_over, Ordering::SeqCst);
    }
    let cluster = Cluster::start(3, |config: Config| {
        // So long that whoever leads next was handed it.
        let config = config.election_timeout(Duration::from_secs(6), Duration::from_secs(7));
        config.at_step(seen)
    });
    let leader = cluster.leader().await;
    let (heir, other) = others(leader);
    healthy(&cluster, leader).await;
    let began = Instant::now();
    let demoted = make(&cluster, leader, change().demote(NodeId(leader)))
        .await
        .unwrap();
    assert!(demoted.configuration.learners.contains(&NodeId(leader)));
    assert_ne!(cluster.leader().await, leader);
    let follows = status(cluster.node(leader)).await;
    assert_eq!(follows.role, Role::Follower);
    // Not by resigning when its vote was gone.
    assert_eq!(HANDED_OVER.load(Ordering::SeqCst), 1);

    // And the next one is removed, as somebody else wants it.
    let back = change().promote(NodeId(leader));
    make(&cluster, leader, back).await.unwrap();
    until("three voters", async || {
        let seen = members(&cluster, leader).await;
        (seen.committed && role(&seen, leader) == Some(MemberRole::Voter)).then_some(())
    })
    .await;
    let next = cluster.leader().await;
    assert!(next == heir || next == other);
    healthy(&cluster, next).await;
    let removed = make(&cluster, leader, change().remove(NodeId(next)))
        .await
        .unwrap();
    assert!(!removed.configuration.contains(NodeId(next)));
    cluster.node(leader).send(add(1)).await.unwrap().unwrap();
    assert_eq!(HANDED_OVER.load(Ordering::SeqCst), 2);
    // Nobody has waited for an election timeout.
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[actix::test]
async fn a_leader_without_a_healthy_heir_goes_all_the_same() {
    let cluster = quick(2);
    let leader = cluster.leader().await;
    let other = 3 - leader;
    healthy(&cluster, leader).await;
    // It has the vote alone: nobody can take over before the change, and the change takes the last vote.
    make(&cluster, other, change().demote(NodeId(other)))
        .await
        .unwrap();
    for goal in [
        change().remove(NodeId(leader)),
        change().demote(NodeId(leader)).forced(),
    ] {
        assert_eq!(
            make(&cluster, other, goal).await,
            Err(MembershipError::LastVoter)
        );
    }
    let alone = cluster
        .node(other)
        .send(TransferLeadership::default())
        .await
        .unwrap();
    assert_eq!(alone, Err(MembershipError::NoCandidate));
    cluster.shut_down().await;
}

#[actix::test]
async fn any_node_has_the_leadership_handed_over() {
    let cluster = Cluster::start(3, |config: Config| {
        config.election_timeout(Duration::from_secs(6), Duration::from_secs(7))
    });
    let leader = cluster.leader().await;
    let (asked, other) = others(leader);
    let to = |id| TransferLeadership {
        to: Some(NodeId(id)),
    };
    // To itself, to a third one, to who leads already, and to somebody who is none.
    for (at, id, answer) in [
        (asked, asked, Ok(NodeId(asked))),
        (leader, other, Ok(NodeId(other))),
        (asked, other, Ok(NodeId(other))),
        (asked, 9, Err(MembershipError::NoCandidate)),
    ] {
        assert_eq!(
            cluster.node(at).send(to(id)).await.unwrap(),
            answer,
            "{at} {id}"
        );
        if answer.is_ok() {
            assert_eq!(cluster.leader().await, id);
        }
    }
    let anybody = TransferLeadership::default();
    let next = cluster.node(leader).send(anybody).await.unwrap().unwrap();
    assert_ne!(next, NodeId(other));
    assert_eq!(NodeId(cluster.leader().await), next);
    cluster.shut_down().await;
}

#[actix::test]
async fn changes_wait_for_each_other_and_for_a_bound_of_them() {
    let cluster = quick(3);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let (asked, other) = others(leader);
    // All at once, from everywhere: each waits for its turn.
    let mut sent = Vec::new();
    for priority in 1..=20 {
        for at in cluster.ids() {
            let goal = change().priority(NodeId(leader), 100 + priority * 3 + at as u32);
            sent.push(send(cluster.node(at), goal));
        }
    }
    let mut seen = Vec::new();
    for sent in sent {
        seen.push(sent.await.unwrap().unwrap().index.unwrap());
    }
    seen.sort();
    let count = seen.len();
    seen.dedup();
    assert_eq!((seen.len(), count), (60, 60));
    // More than may wait is refused at once, and says nothing of the others.
    let many: Vec<_> = (0..200)
        .map(|n| send(cluster.node(asked), change().priority(NodeId(other), n + 1)))
        .collect();
    let mut busy = 0;
    for sent in many {
        match sent.await.unwrap() {
            Ok(_) => {}
            Err(MembershipError::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    // Those that are made meanwhile leave their places to others.
    assert!(busy >= 100, "{busy}");
    let (mut steps, mut count) = (change(), 0);
    while count <= 1024 {
        (steps, count) = (steps.remove(NodeId(other)), count + 1);
    }
    let error = ChangeError::TooManyMembers(count);
    assert_eq!(
        make(&cluster, asked, steps).await,
        Err(MembershipError::Change(error))
    );
    cluster.shut_down().await;
}

#[actix::test]
async fn without_a_leader_the_answer_comes_in_time_and_says_so() {
    let cluster = quick(3);
    let leader = cluster.leader().await;
    let (left, other) = others(leader);
    for id in [leader, other] {
        cluster.node(id).send(Shutdown).await.unwrap().unwrap();
    }
    until("no leader", async || {
        status(cluster.node(left))
            .await
            .leader
            .is_none()
            .then_some(())
    })
    .await;
    let (began, patience) = (Instant::now(), Duration::from_millis(300));
    let goal = change().remove(NodeId(other)).timeout(patience);
    match make(&cluster, left, goal).await {
        Err(MembershipError::NoLeader { waited }) => assert!(waited >= patience, "{waited:?}"),
        other => panic!("{other:?}"),
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // Who waits when the node ends is told that.
    let waiting = send(cluster.node(left), change().remove(NodeId(other)));
    cluster.node(left).send(Shutdown).await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap(), Err(MembershipError::NodeEnded));
}

#[actix::test]
async fn a_request_outlives_the_leader_that_had_it() {
    let cluster = quick(3);
    let leader = cluster.leader().await;
    let (asked, other) = others(leader);
    healthy(&cluster, leader).await;
    // The leader ends with the question in its mailbox, or on its way: the next one answers.
    let goal = change().priority(NodeId(other), 5);
    let sent = send(cluster.node(asked), goal);
    cluster.node(leader).do_send(Shutdown);
    let changed = sent.await.unwrap().unwrap();
    assert_eq!(changed.configuration.priority(NodeId(other)), 5);
    let late = make(&cluster, asked, change().remove(NodeId(leader)))
        .await
        .unwrap();
    assert_eq!(late.configuration.voters.len(), 2);
    assert!(late.index > Some(LogIndex(1)));
}

#[actix::test]
async fn only_the_leader_says_who_is_healthy() {
    let cluster = quick(3);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let seen = status(cluster.node(leader)).await;
    assert_eq!(seen.tolerance.unwrap().now, 1);
    for member in &seen.members {
        assert_eq!(member.healthy, Some(true), "{member:?}");
    }
    let (follower, _) = others(leader);
    let seen = status(cluster.node(follower)).await;
    assert_eq!(seen.tolerance, None);
    for member in &seen.members {
        assert_eq!(
            (member.role, member.healthy),
            (Some(MemberRole::Voter), None)
        );
    }
    cluster.shut_down().await;
}
