//! Nodes that go for good, as they want it or as others do: real actors and sockets, disks of memory.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use raft_actor::{
    ChangeMembership, Config, Ended, GetHealth, GetMembers, Leave, MemberRole, MembershipError,
    NodeFailure, NodeId, NotReady, Phase, ProposeError, Shutdown, StartError, Step,
};

use support::{Cluster, add, send, status, until};

fn quick(config: Config) -> Config {
    let (min, max) = (Duration::from_millis(200), Duration::from_millis(400));
    config
        .heartbeat_interval(Duration::from_millis(30))
        .election_timeout(min, max)
}

/// So long that nobody stands by itself.
fn patient(config: Config) -> Config {
    config.election_timeout(Duration::from_secs(6), Duration::from_secs(7))
}

async fn healthy(cluster: &Cluster, at: u64) {
    until("everybody is healthy", async || {
        let members = cluster.node(at).send(GetMembers).await.unwrap().ok()?;
        members.tolerance?.why.is_empty().then_some(())
    })
    .await;
}

/// The members as the leader says, asked of `at`.
async fn members(cluster: &Cluster, at: u64) -> Vec<u64> {
    let members = cluster.node(at).send(GetMembers).await.unwrap().unwrap();
    let members = members.members.iter();
    // Who leaves is told that it has left.
    let stay = members.filter(|member| member.role != Some(MemberRole::Leaving));
    stay.map(|member| member.id.0).collect()
}

/// The leader does not feed `gone` any more, who has not come to be told that it is none of them.
async fn nobody_is_told_any_more(cluster: &Cluster, leader: u64, gone: u64) {
    until("the leader gives it up", async || {
        let seen = status(cluster.node(leader)).await;
        seen.members
            .iter()
            .all(|member| member.id != NodeId(gone))
            .then_some(())
    })
    .await;
}

/// How the node ends, which it must soon.
fn ended(cluster: &Cluster, id: u64) -> impl Future<Output = Result<(), NodeFailure>> + use<> {
    let ended = send(cluster.node(id), Ended);
    async move {
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
        ended.expect("it does not end").unwrap()
    }
}

async fn leave(cluster: &Cluster, id: u64) -> Result<(), MembershipError> {
    cluster.node(id).send(Leave::default()).await.unwrap()
}

/// Its folder says that it has left.
fn is_departed(cluster: &Cluster, id: u64) {
    match cluster.try_spawn(id) {
        Err(StartError::Departed { node }) => assert_eq!(node, Some(NodeId(id))),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it starts"),
    }
}

#[actix::test]
async fn all_leave_but_the_last_voter() {
    let cluster = Cluster::start(3, quick);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let (follower, last) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    for n in 1..=10 {
        let sent = cluster.node(follower).send(add(n)).await;
        sent.unwrap().unwrap();
    }
    let end = ended(&cluster, follower);
    leave(&cluster, follower).await.unwrap();
    assert_eq!(end.await, Ok(()));
    until("its actor is gone", async || {
        (!cluster.node(follower).connected()).then_some(())
    })
    .await;
    is_departed(&cluster, follower);
    // The others know when it goes.
    let mut left = vec![leader, last];
    left.sort();
    assert_eq!(members(&cluster, last).await, left);
    cluster.node(last).send(add(1)).await.unwrap().unwrap();

    // Now the leader, whom the last one follows; and that one cannot leave.
    leave(&cluster, leader).await.unwrap();
    is_departed(&cluster, leader);
    until("the last one leads", async || {
        let seen = status(cluster.node(last)).await;
        (seen.leader == Some(NodeId(last))).then_some(())
    })
    .await;
    assert_eq!(leave(&cluster, last).await, Err(MembershipError::LastVoter));
    // It stays, and takes part as before.
    assert_eq!(status(cluster.node(last)).await.phase, Phase::Running);
    cluster.node(last).send(add(1)).await.unwrap().unwrap();
    assert_eq!(cluster.state(last).await, (57, 12));
    assert_eq!(members(&cluster, last).await, [last]);
    cluster.node(last).send(Shutdown).await.unwrap().unwrap();
    let again = cluster.try_spawn(last).unwrap();
    again.send(Shutdown).await.unwrap().unwrap();
}

#[actix::test]
async fn a_leader_that_leaves_keeps_nobody_waiting() {
    let cluster = Cluster::start(3, patient);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let other = leader % 3 + 1;
    let began = Instant::now();
    let left = send(cluster.node(leader), Leave::default());
    while !left.is_finished() {
        cluster.node(other).send(add(1)).await.unwrap().unwrap();
    }
    left.await.unwrap().unwrap();
    cluster.node(other).send(add(1)).await.unwrap().unwrap();
    // An election timeout is six seconds.
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    is_departed(&cluster, leader);
}

#[actix::test]
async fn whoever_leaves_takes_nothing_more_in_and_says_so() {
    let cluster = Cluster::start(3, patient);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let (leaves, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    // Nobody decides any more: so it waits, and can be looked at.
    for id in [leader, other] {
        cluster.node(id).do_send(Shutdown);
    }
    until("the others are gone", async || {
        let seen = status(cluster.node(leaves)).await;
        (seen
            .members
            .iter()
            .filter(|member| member.connected)
            .count()
            == 1)
            .then_some(())
    })
    .await;
    let patience = Duration::from_secs(3);
    let timeout = Some(patience);
    let began = Instant::now();
    let left = send(cluster.node(leaves), Leave { timeout });
    until("it is leaving", async || {
        let seen = status(cluster.node(leaves)).await;
        (seen.phase == Phase::Leaving).then_some(())
    })
    .await;
    let health = cluster.node(leaves).send(GetHealth).await.unwrap();
    assert_eq!((health.live, health.why), (true, Some(NotReady::Leaving)));
    let refused = cluster.node(leaves).send(add(1)).await.unwrap();
    assert_eq!(refused, Err(ProposeError::ShuttingDown));
    // Who asks again waits with the first.
    let again = send(cluster.node(leaves), Leave::default());
    for answer in [left, again] {
        let answer = answer.await.unwrap();
        assert!(
            matches!(
                answer,
                Err(MembershipError::NoLeader { .. } | MembershipError::TimedOut { .. })
            ),
            "{answer:?}"
        );
    }
    assert!(began.elapsed() < patience + Duration::from_secs(5));
    // It takes part as before.
    let seen = status(cluster.node(leaves)).await;
    assert_eq!(seen.phase, Phase::Running);
    let timeout = Some(Duration::ZERO);
    assert!(
        cluster
            .node(leaves)
            .send(Leave { timeout })
            .await
            .unwrap()
            .is_err()
    );
    let waits = send(cluster.node(leaves), add(1));
    let leaving = send(cluster.node(leaves), Leave::default());
    cluster.node(leaves).send(Shutdown).await.unwrap().unwrap();
    assert_eq!(leaving.await.unwrap(), Err(MembershipError::NodeEnded));
    assert!(waits.await.unwrap().is_err());
}

#[actix::test]
async fn who_was_removed_ends_and_stays_so() {
    let mut cluster = Cluster::start(3, quick);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let (gone, away) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let cluster_id = status(cluster.node(leader)).await.cluster;
    let end = ended(&cluster, gone);
    let remove = ChangeMembership::new().remove(NodeId(gone));
    cluster.node(leader).send(remove).await.unwrap().unwrap();
    let removed = NodeFailure::Removed {
        cluster: cluster_id,
    };
    assert_eq!(end.await, Err(removed.clone()));
    let seen = status(cluster.node(gone)).await;
    assert_eq!(seen.phase, Phase::Failed(removed.clone()));
    assert_eq!(
        leave(&cluster, gone).await,
        Err(MembershipError::Failed(removed.clone()))
    );
    let shut_down = cluster.node(gone).send(Shutdown).await.unwrap();
    assert_eq!(shut_down, Err(removed.clone()));
    is_departed(&cluster, gone);

    // One that was away when it was removed knows nothing of it: it is told, although it had taken part.
    cluster.node(away).send(Shutdown).await.unwrap().unwrap();
    let remove = ChangeMembership::new().remove(NodeId(away)).forced();
    cluster.node(leader).send(remove).await.unwrap().unwrap();
    nobody_is_told_any_more(&cluster, leader, away).await;
    let again = cluster.spawn(away);
    cluster.nodes[away as usize - 1] = again;
    let told = ended(&cluster, away).await;
    assert_eq!(told, Err(removed.clone()));
    cluster
        .node(away)
        .send(Shutdown)
        .await
        .unwrap()
        .unwrap_err();
    is_departed(&cluster, away);
    cluster.node(leader).send(add(1)).await.unwrap().unwrap();
    cluster.node(leader).send(Shutdown).await.unwrap().unwrap();
}

#[actix::test]
async fn a_process_that_ended_in_the_midst_leaves_when_it_is_asked_again() {
    let mut cluster = Cluster::start(3, quick);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let leaves = leader % 3 + 1;
    // Its removal is committed, and its process ends before that is on its disk.
    cluster.node(leaves).send(Shutdown).await.unwrap().unwrap();
    let remove = ChangeMembership::new().remove(NodeId(leaves));
    cluster.node(leader).send(remove).await.unwrap().unwrap();
    nobody_is_told_any_more(&cluster, leader, leaves).await;
    let again = cluster.spawn(leaves);
    cluster.nodes[leaves as usize - 1] = again;
    // Perhaps it learns from the others that it is gone before the question is there.
    match leave(&cluster, leaves).await {
        Ok(()) | Err(MembershipError::Failed(NodeFailure::Removed { .. })) => {}
        Err(error) => panic!("{error}"),
    }
    until("its folder is free", async || {
        match cluster.try_spawn(leaves) {
            Err(StartError::Departed { .. }) => Some(()),
            _ => None,
        }
    })
    .await;
    cluster.node(leader).send(add(1)).await.unwrap().unwrap();
}

#[actix::test]
async fn a_learner_leaves_and_a_removed_leader_ends() {
    let cluster = Cluster::start(4, quick);
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    let learner = leader % 4 + 1;
    let demote = ChangeMembership::new().demote(NodeId(learner));
    cluster.node(leader).send(demote).await.unwrap().unwrap();
    leave(&cluster, learner).await.unwrap();
    is_departed(&cluster, learner);

    let leader = {
        let seen = status(cluster.node(leader)).await;
        seen.leader.unwrap().0
    };
    let other = cluster
        .ids()
        .find(|id| ![leader, learner].contains(id))
        .unwrap();
    let end = ended(&cluster, leader);
    let remove = ChangeMembership::new().remove(NodeId(leader));
    cluster.node(other).send(remove).await.unwrap().unwrap();
    let ended = end.await.unwrap_err();
    assert!(matches!(ended, NodeFailure::Removed { .. }), "{ended}");
    cluster
        .node(leader)
        .send(Shutdown)
        .await
        .unwrap()
        .unwrap_err();
    is_departed(&cluster, leader);
    cluster.node(other).send(add(1)).await.unwrap().unwrap();
}

#[actix::test]
async fn each_step_of_a_leave_is_called_at_its_place() {
    static SEEN: Mutex<Vec<Step>> = Mutex::new(Vec::new());
    fn seen(step: Step) {
        SEEN.lock().unwrap().push(step);
    }
    let cluster = Cluster::start(3, |config| quick(config).at_step(seen));
    let leader = cluster.leader().await;
    healthy(&cluster, leader).await;
    SEEN.lock().unwrap().clear();
    leave(&cluster, leader).await.unwrap();
    let seen: Vec<Step> = SEEN.lock().unwrap().clone();
    let place = |step| {
        seen.iter()
            .position(|seen| *seen == step)
            .unwrap_or_else(|| panic!("{step:?} {seen:?}"))
    };
    let order = [
        Step::LeaveAsked,
        Step::LeaveTransferred,
        Step::LeaveAppended,
        Step::LeaveCommitted,
        Step::LeaveRecorded,
    ];
    let places: Vec<usize> = order.into_iter().map(place).collect();
    assert!(places.is_sorted(), "{seen:?}");
    let distinct: BTreeSet<usize> = places.into_iter().collect();
    assert_eq!(distinct.len(), order.len());
}

/// The handle's side of it: its thread and its system end with the node.
#[test]
fn a_handle_whose_node_has_left_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let configs = support::configs(3);
        let mut nodes = Vec::new();
        for (config, _) in &configs {
            nodes.push(
                raft_actor::Raft::start(quick(config.clone()))
                    .await
                    .unwrap(),
            );
        }
        until("all are healthy", async || {
            let members = nodes[0].members().await.ok()?;
            members.tolerance?.why.is_empty().then_some(())
        })
        .await;
        nodes[1].leave().await.unwrap();
        assert_eq!(nodes[1].ended().await, Ok(()));
        assert_eq!(nodes[1].leave().await, Err(MembershipError::NodeEnded));
        let (config, _) = &configs[1];
        let again = raft_actor::Raft::start(config.clone()).await.map(drop);
        assert!(
            matches!(again, Err(StartError::Departed { .. })),
            "{again:?}"
        );
        nodes[0].propose("on").await.unwrap();
        for at in [0, 2] {
            nodes[at].shutdown().await.unwrap();
            assert_eq!(nodes[at].leave().await, Err(MembershipError::NodeEnded));
        }
    });
}
