//! Every proposal has one outcome: sessions, retries, cancellations, and what reads see of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use raft_actor::{
    Cancel, Cancellation, CloseSession, Committed, Delivered, GetStatus, OpenSession, ProposalId,
    Propose, ProposeBatch, ProposeError, RaftActor, Read, ReadIndex, Resolve, Role, SessionId,
    Snapshots, Subscribe, TakeSnapshot, TransferLeadership,
};
use support::{Adder, Cluster, Collector, add, has, send, status, until};

fn asked_only() -> Snapshots {
    Snapshots {
        every_entries: 0,
        every_bytes: 0,
        margin_entries: 0,
    }
}

fn id(session: SessionId, sequence: u64) -> ProposalId {
    ProposalId { session, sequence }
}

async fn open(node: &Addr<RaftActor>) -> SessionId {
    node.send(OpenSession::new()).await.unwrap().unwrap()
}

type Outcome = Result<Committed, ProposeError>;

async fn propose(node: &Addr<RaftActor>, name: ProposalId, n: u64) -> Outcome {
    node.send(add(n).with_id(name)).await.unwrap()
}

async fn resolve(
    node: &Addr<RaftActor>,
    name: ProposalId,
) -> Result<Option<Committed>, ProposeError> {
    node.send(Resolve(name)).await.unwrap()
}

#[actix::test]
async fn a_proposal_is_answered_alike_from_everywhere_and_for_ever() {
    let mut cluster = Cluster::start(3, |config| config.snapshots(asked_only()));
    let session = open(cluster.node(2)).await;
    let mut first = Vec::new();
    // Out of their order.
    for sequence in [3, 1, 2] {
        let node = cluster.node(sequence);
        first.push((
            sequence,
            propose(node, id(session, sequence), sequence)
                .await
                .unwrap(),
        ));
    }
    let again = async |cluster: &Cluster, when: &str| {
        for node in cluster.ids() {
            for (sequence, committed) in &first {
                // Whatever the copy says, the first one counts.
                let name = id(session, *sequence);
                let repeated = propose(cluster.node(node), name, 1000).await;
                assert_eq!(repeated.as_ref(), Ok(committed), "node {node}, {when}");
                let resolved = resolve(cluster.node(node), name).await;
                assert_eq!(resolved, Ok(Some(committed.clone())), "node {node}, {when}");
            }
            assert_eq!(cluster.state(node).await, (6, 3), "node {node}, {when}");
        }
    };
    again(&cluster, "at once").await;
    let leader = cluster.leader().await;
    let handed = cluster.node(leader).send(TransferLeadership { to: None });
    handed.await.unwrap().unwrap();
    again(&cluster, "with another leader").await;
    for node in cluster.ids() {
        cluster.restart(node).await;
    }
    again(&cluster, "after a restart of all").await;
    for node in cluster.ids() {
        cluster
            .node(node)
            .send(TakeSnapshot)
            .await
            .unwrap()
            .unwrap();
        cluster.restart(node).await;
    }
    again(&cluster, "after a restart from snapshots").await;

    // What the client is done with is forgotten, and what it is not is not.
    let done = add(5).with_id(id(session, 4)).done_below(3);
    cluster.node(1).send(done).await.unwrap().unwrap();
    let forgotten = propose(cluster.node(1), id(session, 2), 1000).await;
    assert_eq!(forgotten, Err(ProposeError::Done(id(session, 2))));
    let kept = propose(cluster.node(1), id(session, 3), 1000).await;
    assert_eq!(kept.unwrap().index, first[0].1.index);
    assert_eq!(cluster.state(2).await, (11, 4));
    cluster.shut_down().await;
}

#[actix::test]
async fn copies_are_delivered_neither_live_nor_when_the_log_is_read_again() {
    let mut cluster = Cluster::start(1, |config| {
        let margin_entries = 1000;
        let snapshots = Snapshots {
            margin_entries,
            ..asked_only()
        };
        config.snapshots(snapshots)
    });
    let session = open(cluster.node(1)).await;
    let collect = async |node: &Addr<RaftActor>| {
        let collector = Collector::default();
        let log = Arc::clone(&collector.log);
        let to = collector.start().recipient::<Delivered>();
        node.send(Subscribe::from_start(to)).await.unwrap().unwrap();
        log
    };
    let live = collect(cluster.node(1)).await;
    for sequence in 1..=20 {
        for _ in 0..3 {
            let name = id(session, sequence);
            propose(cluster.node(1), name, sequence).await.unwrap();
        }
    }
    cluster.node(1).send(add(0)).await.unwrap().unwrap();
    has(&live, 21).await;
    let live = live.lock().unwrap().clone();
    assert_eq!(live.len(), 21);
    let read_again = async |cluster: &Cluster, when: &str| {
        cluster.state(1).await;
        let log = collect(cluster.node(1)).await;
        has(&log, 21).await;
        cluster
            .node(1)
            .send(ReadIndex::new())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*log.lock().unwrap(), live, "{when}");
    };
    read_again(&cluster, "at once").await;
    cluster.restart(1).await;
    read_again(&cluster, "after a restart").await;
    cluster.node(1).send(TakeSnapshot).await.unwrap().unwrap();
    cluster.restart(1).await;
    read_again(
        &cluster,
        "after a restart from a snapshot, with the log before it",
    )
    .await;
    cluster.shut_down().await;
}

#[actix::test]
async fn a_cancelled_proposal_is_never_applied_and_an_applied_one_is_not_cancelled() {
    let cluster = Cluster::start(3, |config| config);
    let session = open(cluster.node(1)).await;
    let (early, late) = (id(session, 1), id(session, 2));
    assert_eq!(resolve(cluster.node(2), early).await, Ok(None));
    let cancelled = cluster.node(2).send(Cancel(early)).await.unwrap();
    assert_eq!(cancelled, Ok(Cancellation::Cancelled));
    for node in cluster.ids() {
        let outcome = propose(cluster.node(node), early, 1).await;
        assert_eq!(outcome, Err(ProposeError::Cancelled));
        let resolved = resolve(cluster.node(node), early).await;
        assert_eq!(resolved, Err(ProposeError::Cancelled));
    }
    let applied = propose(cluster.node(3), late, 2).await.unwrap();
    let too_late = cluster.node(1).send(Cancel(late)).await.unwrap();
    assert_eq!(too_late, Ok(Cancellation::Applied(applied)));
    assert_eq!(cluster.state(1).await, (2, 1));

    cluster
        .node(1)
        .send(CloseSession(session))
        .await
        .unwrap()
        .unwrap();
    let outcome = propose(cluster.node(2), id(session, 3), 1).await;
    assert_eq!(outcome, Err(ProposeError::SessionExpired(session)));
    let none = propose(cluster.node(2), id(session, 0), 1).await;
    assert_eq!(none, Err(ProposeError::SequenceZero));
    assert_eq!(cluster.state(1).await, (2, 1));
    cluster.shut_down().await;
}

#[actix::test]
async fn a_session_expires_by_the_logs_time_and_a_used_one_does_not() {
    let cluster = Cluster::start(1, |config| config);
    let node = cluster.node(1);
    let short = OpenSession::new().expires_after(Duration::from_secs(1));
    let (used, unused) = (
        node.send(short).await.unwrap().unwrap(),
        node.send(short).await.unwrap().unwrap(),
    );
    let last = propose(node, id(unused, 1), 1).await.unwrap();
    for sequence in 1..=8 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        propose(node, id(used, sequence), 1).await.unwrap();
    }
    // Nothing resends it by itself, and nothing says that it was not applied.
    let expired = propose(node, id(unused, 1), 1).await.unwrap_err();
    assert_eq!(expired, ProposeError::SessionExpired(unused));
    assert!(!expired.is_certainly_not_applied());
    assert_eq!(resolve(node, id(unused, 1)).await, Err(expired));
    assert!(last.index.0 > 0);
    assert_eq!(cluster.state(1).await, (9, 9));
    cluster.shut_down().await;
}

#[actix::test]
async fn a_sequence_beyond_the_window_is_refused_until_the_low_is_raised() {
    let cluster = Cluster::start(1, |config| config);
    let session = open(cluster.node(1)).await;
    let far = id(session, 65_537);
    let beyond = propose(cluster.node(1), far, 1).await;
    assert_eq!(beyond, Err(ProposeError::BeyondWindow(far)));
    propose(cluster.node(1), id(session, 65_536), 2)
        .await
        .unwrap();
    let raised = add(1).with_id(far).done_below(2);
    cluster.node(1).send(raised).await.unwrap().unwrap();
    assert_eq!(cluster.state(1).await, (3, 2));
    cluster.shut_down().await;
}

/// Its time is its own, however long ago somebody came in before it: the node itself, which opened its session for the first.
#[actix::test]
async fn a_proposal_after_a_long_pause_has_all_its_time() {
    let timeout = Duration::from_secs(3);
    let cluster = Cluster::start(1, |config| config.propose_timeout(Duration::from_secs(3)));
    cluster.node(1).send(add(1)).await.unwrap().unwrap();
    tokio::time::sleep(timeout + Duration::from_millis(500)).await;
    cluster.node(1).send(add(2)).await.unwrap().unwrap();
    cluster.shut_down().await;
}

#[actix::test]
async fn a_batch_has_an_outcome_for_each_in_its_order() {
    let cluster = Cluster::start(3, |config| config);
    let follower = cluster.follower().await;
    let session = open(cluster.node(1)).await;
    let long = Propose::new(vec![0; 2 << 20]);
    let named = || add(7).with_id(id(session, 1));
    let batch = vec![
        add(1),
        long,
        named(),
        add(2),
        named(),
        add(3).without_session(),
    ];
    let outcomes = cluster
        .node(follower)
        .send(ProposeBatch(batch))
        .await
        .unwrap();
    assert_eq!(outcomes.len(), 6);
    assert!(matches!(outcomes[1], Err(ProposeError::TooLarge { .. })));
    assert_eq!(outcomes[2], outcomes[4]);
    let indexes: Vec<_> = [0, 2, 3, 5]
        .map(|at: usize| outcomes[at].as_ref().unwrap().index)
        .into();
    assert!(indexes.iter().all(|index| index.0 > 0));
    let none = cluster.node(follower).send(ProposeBatch(Vec::new()));
    assert_eq!(none.await.unwrap(), []);
    assert_eq!(cluster.state(1).await, (13, 4));
    cluster.shut_down().await;
}

#[actix::test]
async fn what_is_proposed_once_is_applied_once_while_leaders_come_and_go() {
    let mut cluster = Cluster::start(3, |config| {
        let (min, max) = (Duration::from_millis(300), Duration::from_millis(600));
        config
            .election_timeout(min, max)
            .propose_timeout(Duration::from_secs(50))
    });
    cluster.leader().await;
    let mut expected = BTreeMap::new();
    let (mut next, mut total) = (0u64, 0);
    for round in 0..6 {
        let leader = cluster.leader().await;
        let mut under_way = Vec::new();
        let stays: Vec<_> = cluster.ids().filter(|node| *node != leader).collect();
        for _ in 0..100 {
            next += 1;
            let node = cluster.node(stays[next as usize % 2]);
            under_way.push((next, send(node, add(next))));
        }
        if round % 2 == 0 {
            cluster.restart(leader).await;
        } else {
            // Without a word: the power goes.
            cluster.disks[leader as usize - 1].crash();
            until("it to fail", async || {
                let status = status(cluster.node(leader)).await;
                matches!(status.phase, raft_actor::Phase::Failed(_)).then_some(())
            })
            .await;
            cluster
                .node(leader)
                .send(raft_actor::Shutdown)
                .await
                .unwrap()
                .unwrap_err();
            cluster.nodes[leader as usize - 1] = cluster.spawn(leader);
        }
        for (n, outcome) in under_way {
            let committed = outcome.await.unwrap().unwrap();
            total += n;
            expected.insert(committed.index.0, n);
        }
    }
    assert_eq!(expected.len() as u64, next, "two were told the same index");
    for node in cluster.ids() {
        assert_eq!(cluster.state(node).await, (total, next), "node {node}");
        let collector = Collector::default();
        let log = Arc::clone(&collector.log);
        let to = collector.start().recipient::<Delivered>();
        let subscribe = Subscribe::from_start(to);
        cluster.node(node).send(subscribe).await.unwrap().unwrap();
        has(&log, next as usize).await;
        let delivered = log.lock().unwrap().clone();
        let indexes: Vec<_> = delivered.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, expected.keys().copied().collect::<Vec<_>>());
    }
    cluster.shut_down().await;
}

async fn reads_see_what_was_acknowledged(cluster: &Cluster) {
    let mut total = 0;
    for round in 1..=60u64 {
        let writer = cluster.node(round % 3 + 1);
        writer.send(add(round)).await.unwrap().unwrap();
        total += round;
        let read = || Read::new(|adder: &Adder| adder.state.sum);
        let reads: Vec<_> = cluster.nodes.iter().map(|node| node.send(read())).collect();
        for read in reads {
            assert_eq!(read.await.unwrap().unwrap().value, total);
        }
        if round % 20 == 0 {
            let leader = cluster.leader().await;
            let handed = cluster.node(leader).send(TransferLeadership { to: None });
            handed.await.unwrap().unwrap();
        }
    }
}

#[actix::test]
async fn linearizable_reads_on_any_node_see_what_was_acknowledged() {
    let cluster = Cluster::start(3, |config| config);
    reads_see_what_was_acknowledged(&cluster).await;
    cluster.shut_down().await;
}

#[actix::test]
async fn reads_by_lease_see_it_too() {
    let cluster = Cluster::start(3, |config| config.lease_reads(Duration::from_millis(50)));
    reads_see_what_was_acknowledged(&cluster).await;
    cluster.shut_down().await;
}

#[actix::test]
async fn a_leader_that_is_busy_while_it_needs_a_session_goes_on() {
    let cluster = Cluster::start(3, |config| {
        config
            .election_timeout(Duration::from_secs(5), Duration::from_secs(6))
            .propose_timeout(Duration::from_secs(60))
            .proposals_max(65_536, 256 << 20)
    });
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let first = node.send(Propose::new("x").without_session());
    assert!(first.await.unwrap().is_err());
    let others: Vec<_> = cluster.ids().filter(|id| *id != leader).collect();
    for other in &others {
        cluster.disks[*other as usize - 1].hold();
    }
    // More than may be uncommitted.
    let flood: Vec<_> = (0..80)
        .map(|_| send(node, Propose::new(vec![1; 1 << 20]).without_session()))
        .collect();
    until("Busy", async || {
        let small = node.send(Propose::new("x").without_session());
        let outcome = tokio::time::timeout(Duration::from_millis(100), small).await;
        matches!(outcome, Ok(Ok(Err(ProposeError::Busy)))).then_some(())
    })
    .await;
    let named = send(node, add(1));
    for _ in 0..20 {
        // A thread on which nobody else gets a turn is given up by its own protocol after an election timeout.
        let asked = tokio::time::timeout(Duration::from_secs(3), node.send(GetStatus)).await;
        let status = asked.expect("the node does not answer any more").unwrap();
        assert_eq!(status.role, Role::Leader);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for other in &others {
        cluster.disks[*other as usize - 1].release();
    }
    named.await.unwrap().unwrap();
    for outcome in flood {
        // They are no commands of the machine.
        assert!(outcome.await.unwrap().is_err());
    }
    cluster.shut_down().await;
}
