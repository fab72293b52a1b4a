//! State machines in whole nodes: answers, snapshots, subscriptions across compactions, failures by name.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_actor::{
    Consistency, Delivered, Ended, LogIndex, NodeFailure, NodeId, Propose, ProposeError, Read,
    Shutdown, Snapshots, Subscribe, SubscribeError, TakeSnapshot, TransferLeadership,
};
use support::{Adder, Cluster, Collector, Command, Stood, add, has, send, status, until};

/// No snapshot but when asked, and no margin.
fn asked_only() -> Snapshots {
    Snapshots {
        every_entries: 0,
        every_bytes: 0,
        margin_entries: 0,
    }
}

fn sum(outcome: Result<raft_actor::Committed, ProposeError>) -> u64 {
    let response: (u64, serde_bytes::ByteBuf) = outcome.unwrap().response_as().unwrap();
    response.0
}

#[actix::test]
async fn every_node_answers_as_the_machine_does_and_all_states_are_equal() {
    let cluster = Cluster::start(3, |config| config);
    for (id, total) in cluster.ids().zip([1, 3, 6]) {
        let outcome = cluster.node(id).send(add(id)).await.unwrap();
        assert_eq!(sum(outcome), total);
        let refused = Propose::of(&Command::Refuse).unwrap();
        for (proposed, expected) in [
            (refused, "not this"),
            (Propose::new(vec![0xc1]), "it is no command of this program"),
        ] {
            match cluster.node(id).send(proposed).await.unwrap() {
                Err(ProposeError::Refused { reason, .. }) => {
                    assert_eq!(reason.reason(), expected);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    for id in cluster.ids() {
        assert_eq!(cluster.state(id).await, (6, 3));
    }
    cluster.shut_down().await;
}

#[actix::test]
async fn responses_of_any_length_reach_who_proposed_elsewhere() {
    let cluster = Cluster::start(3, |config| config.propose_timeout(Duration::from_secs(60)));
    let follower = cluster.follower().await;
    // Together more than a frame may have.
    let long = |len| {
        let proposed = Propose::of(&Command::Long(len)).unwrap();
        send(cluster.node(follower), proposed)
    };
    let began = Instant::now();
    let many: Vec<_> = (0..400).map(|_| long(40_000)).collect();
    for outcome in many {
        assert!(outcome.await.unwrap().unwrap().response.len() > 40_000);
    }
    // And alone more than a frame may have: that it was applied is told.
    match long(8 << 20).await.unwrap() {
        Err(ProposeError::ResponseForgotten { .. }) => {}
        other => panic!("{:?}", other.map(|committed| committed.index)),
    }
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "answers were lost"
    );
    assert_eq!(cluster.state(follower).await, (0, 401));
    cluster.shut_down().await;
}

#[actix::test]
async fn a_node_comes_back_from_its_snapshot_and_the_log_behind_it() {
    let mut cluster = Cluster::start(1, |config| config.snapshots(asked_only()));
    for n in 1..=20 {
        cluster.node(1).send(add(n)).await.unwrap().unwrap();
    }
    let last = cluster.node(1).send(TakeSnapshot).await.unwrap().unwrap();
    let again = cluster.node(1).send(TakeSnapshot).await.unwrap();
    assert_eq!(again, Err(raft_actor::SnapshotError::NothingNew));
    for n in 21..=30 {
        cluster.node(1).send(add(n)).await.unwrap().unwrap();
    }
    cluster.restart(1).await;
    assert_eq!(cluster.state(1).await, (465, 30));

    // The log begins behind the snapshot.
    let collector = Collector::default();
    let (log, compacted) = (Arc::clone(&collector.log), Arc::clone(&collector.compacted));
    let to = collector.start();
    let from_start = Subscribe::from_start(to.clone().recipient::<Delivered>());
    let refused = cluster.node(1).send(from_start).await.unwrap();
    let first = last.index.next();
    assert_eq!(refused.unwrap_err(), SubscribeError::Compacted { first });
    let from_start = Subscribe::from_start(to.clone().recipient::<Delivered>());
    let from_start = from_start.or_compacted(to.recipient());
    cluster.node(1).send(from_start).await.unwrap().unwrap();
    has(&log, 10).await;
    let stood = Stood::State {
        last: last.index.0,
        sum: 210,
    };
    assert_eq!(*compacted.lock().unwrap(), [stood]);
    assert!(log.lock().unwrap()[0].0 > last.index.0);
    cluster.shut_down().await;
}

#[actix::test]
async fn a_node_that_was_away_is_sent_the_snapshot_and_goes_on() {
    let policy = Snapshots {
        every_entries: 50,
        every_bytes: 0,
        margin_entries: 5,
    };
    let mut cluster = Cluster::start(3, move |config| config.snapshots(policy));
    let led = cluster.leader().await;
    cluster.node(led).send(add(1)).await.unwrap().unwrap();
    let away = led % 3 + 1;
    cluster.node(away).send(Shutdown).await.unwrap().unwrap();
    // A leader keeps what somebody lacks whom it has heard. The next one has not.
    let here = (cluster.ids())
        .find(|id| *id != away && *id != led)
        .unwrap();
    let next = here;
    let to = Some(NodeId(next));
    let handed = cluster.node(led).send(TransferLeadership { to }).await;
    assert_eq!(handed.unwrap(), Ok(NodeId(next)));
    for _ in 0..300 {
        cluster.node(here).send(add(1)).await.unwrap().unwrap();
    }
    let subscribe_from = async |index| {
        let to = Collector::default().start().recipient::<Delivered>();
        let subscribe = Subscribe::from_index(LogIndex(index), to);
        cluster.node(next).send(subscribe).await.unwrap()
    };
    until("a compaction of what the node lacks", async || {
        subscribe_from(200).await.is_err().then_some(())
    })
    .await;
    cluster.nodes[away as usize - 1] = cluster.spawn(away);
    // A subscriber that stands before the snapshot.
    let collector = Collector::default();
    let (log, compacted) = (Arc::clone(&collector.log), Arc::clone(&collector.compacted));
    let to = collector.start();
    let from_start = Subscribe::from_start(to.clone().recipient::<Delivered>());
    let from_start = from_start.or_compacted(to.recipient());
    cluster.node(away).send(from_start).await.unwrap().unwrap();
    assert_eq!(cluster.state(away).await, (301, 301));
    for _ in 0..30 {
        cluster.node(away).send(add(1)).await.unwrap().unwrap();
    }
    for id in cluster.ids() {
        assert_eq!(cluster.state(id).await, (331, 331));
    }
    let all = async || {
        // What the last state stands for, and what came behind it, is everything.
        let stood = compacted.lock().unwrap().last().cloned();
        let Some(Stood::State { last, sum }) = stood else {
            return None;
        };
        let behind = log
            .lock()
            .unwrap()
            .iter()
            .filter(|(i, _)| *i > last)
            .count() as u64;
        (sum + behind == 331).then_some(())
    };
    until("the subscriber to see everything", all).await;
    let indexes: Vec<_> = log
        .lock()
        .unwrap()
        .iter()
        .map(|(index, _)| *index)
        .collect();
    assert!(indexes.is_sorted_by(|a, b| a < b), "{indexes:?}");
    cluster.shut_down().await;
}

#[actix::test]
async fn without_a_machine_the_log_is_kept_as_far_as_told_and_a_gap_is_said() {
    let policy = Snapshots {
        every_entries: 40,
        every_bytes: 0,
        margin_entries: 0,
    };
    let mut cluster = Cluster::start_with(
        1,
        move |config| config.snapshots(policy).retention(10),
        |_| None,
    );
    for n in 0..100 {
        let proposed = Propose::new(format!("{n}"));
        cluster.node(1).send(proposed).await.unwrap().unwrap();
    }
    let first = until("a compaction", async || {
        let to = Collector::default().start().recipient::<Delivered>();
        match cluster
            .node(1)
            .send(Subscribe::from_start(to))
            .await
            .unwrap()
        {
            Err(SubscribeError::Compacted { first }) => Some(first.0),
            _ => None,
        }
    })
    .await;
    assert!((30..=100).contains(&first), "{first}");
    // Nor is it in memory.
    cluster.restart(1).await;
    let collector = Collector::default();
    let (log, compacted) = (Arc::clone(&collector.log), Arc::clone(&collector.compacted));
    let to = collector.start();
    let from_start = Subscribe::from_start(to.clone().recipient::<Delivered>());
    let from_start = from_start.or_compacted(to.recipient());
    cluster.node(1).send(from_start).await.unwrap().unwrap();
    until("the last one", async || {
        let last = log.lock().unwrap().last().cloned();
        last.is_some_and(|(_, command)| command == "99")
            .then_some(())
    })
    .await;
    let gaps = compacted.lock().unwrap().clone();
    let [Stood::Gap { from: 1, first }] = gaps[..] else {
        panic!("{gaps:?}");
    };
    assert!(log.lock().unwrap()[0].0 >= first);
    cluster.shut_down().await;
}

#[actix::test]
async fn a_cursor_goes_on_where_it_was_across_restarts() {
    let mut cluster = Cluster::start(1, |config| config);
    let mut all = Vec::new();
    for round in 0..3 {
        let collector = Collector::default();
        let log = Arc::clone(&collector.log);
        let to = collector.start().recipient::<Delivered>();
        let subscribe = Subscribe::from_cursor("mine", to);
        cluster.node(1).send(subscribe).await.unwrap().unwrap();
        let other = Collector::default().start().recipient::<Delivered>();
        let again = cluster.node(1).send(Subscribe::from_cursor("mine", other));
        let in_use = SubscribeError::CursorInUse("mine".to_owned());
        assert_eq!(again.await.unwrap().unwrap_err(), in_use);
        for _ in 0..10 {
            cluster.node(1).send(add(round)).await.unwrap().unwrap();
        }
        has(&log, 10).await;
        cluster.restart(1).await;
        all.extend(log.lock().unwrap().iter().map(|(index, _)| *index));
    }
    // At the end of a node in order, the cursor is kept to the end, but for what its last answer was under way for.
    assert!(all.len() >= 30 && all.len() <= 35, "{all:?}");
    all.dedup();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 30);
    cluster.shut_down().await;
}

#[actix::test]
async fn a_replica_that_differs_ends_by_name_within_a_second_and_the_others_go_on() {
    let lies: [Arc<AtomicBool>; 3] = Default::default();
    let making = {
        let lies = lies.clone();
        move |id: u64| {
            let lies = Arc::clone(&lies[id as usize - 1]);
            Some(Adder {
                lies,
                ..Adder::default()
            })
        }
    };
    let cluster = Cluster::start_with(3, |config| config, making);
    let leader = cluster.leader().await;
    cluster.node(leader).send(add(1)).await.unwrap().unwrap();
    let liar = cluster.follower().await;
    lies[liar as usize - 1].store(true, Ordering::SeqCst);
    let ended = cluster.node(liar).send(Ended);
    cluster.node(leader).send(add(1)).await.unwrap().unwrap();
    let began = Instant::now();
    match ended.await.unwrap() {
        Err(NodeFailure::Diverged { .. }) => {}
        other => panic!("{other:?}"),
    }
    // A second, and what this machine may be busy with otherwise.
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let others: Vec<_> = cluster.ids().filter(|id| *id != liar).collect();
    for id in &others {
        cluster.node(*id).send(add(1)).await.unwrap().unwrap();
    }
    assert_eq!(cluster.state(others[0]).await, (4, 4));
    assert_eq!(cluster.state(others[1]).await, (4, 4));
    for id in others {
        cluster.node(id).send(Shutdown).await.unwrap().unwrap();
    }
}

#[actix::test]
async fn a_panic_in_the_machine_ends_the_node_by_name() {
    let cluster = Cluster::start(1, |config| config);
    cluster.node(1).send(add(1)).await.unwrap().unwrap();
    let ended = cluster.node(1).send(Ended);
    let panics = Propose::of(&Command::Panic).unwrap();
    let outcome = cluster.node(1).send(panics).await.unwrap();
    assert!(
        matches!(outcome, Err(ProposeError::Unknown { .. })),
        "{outcome:?}"
    );
    match ended.await.unwrap() {
        Err(NodeFailure::StateMachinePanicked { message, .. }) => {
            assert!(message.contains("what was that"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let refused = cluster.node(1).send(add(1)).await.unwrap();
    assert!(
        matches!(refused, Err(ProposeError::Failed(_))),
        "{refused:?}"
    );
}

#[actix::test]
async fn a_panic_in_a_read_is_its_answer_and_nothing_else() {
    let cluster = Cluster::start(1, |config| config);
    cluster.node(1).send(add(1)).await.unwrap().unwrap();
    let read = Read::new(|_: &Adder| -> u64 { panic!("no") });
    let answer = cluster.node(1).send(read).await.unwrap();
    assert!(
        matches!(answer, Err(raft_actor::ReadError::Panicked(_))),
        "{answer:?}"
    );
    assert_eq!(cluster.state(1).await, (1, 1));
    cluster.shut_down().await;
}

#[actix::test]
async fn a_slow_machine_makes_its_leader_busy_and_loses_nothing() {
    let cluster = Cluster::start(1, |config| {
        let config = config
            .command_bytes_max(1 << 10)
            .unapplied_bytes_max(1 << 10);
        config.propose_timeout(Duration::from_secs(60))
    });
    cluster.node(1).send(add(1)).await.unwrap().unwrap();
    let slow = || Propose::of(&Command::Sleep(2)).unwrap();
    let mut outcomes = Vec::new();
    // In waves: what comes at once is taken at once.
    for _ in 0..10 {
        outcomes.extend((0..100).map(|_| send(cluster.node(1), slow())));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let (mut applied, mut busy) = (1, 0);
    for outcome in outcomes {
        match outcome.await.unwrap() {
            Ok(_) => applied += 1,
            Err(ProposeError::Busy) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(applied > 1 && busy > 0, "{applied} applied, {busy} refused");
    assert_eq!(cluster.state(1).await.1, applied);
    until("it to take proposals again", async || {
        cluster.node(1).send(add(1)).await.unwrap().ok()
    })
    .await;
    cluster.shut_down().await;
}

#[actix::test]
async fn a_machine_with_its_own_disk_goes_on_where_that_stands() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let writes_left = Arc::new(AtomicU64::new(u64::MAX));
    let calls = Arc::new(AtomicU64::new(0));
    let making = {
        let (writes_left, calls) = (Arc::clone(&writes_left), Arc::clone(&calls));
        move |_| {
            Some(Adder {
                file: Some(file.clone()),
                writes_left: Some(Arc::clone(&writes_left)),
                calls: Arc::clone(&calls),
                ..Adder::default()
            })
        }
    };
    let mut cluster = Cluster::start_with(1, |c| c.snapshots(asked_only()), making);
    for n in 1..=20 {
        cluster.node(1).send(add(n)).await.unwrap().unwrap();
    }
    // Equal to the log: nothing is applied again.
    cluster.restart(1).await;
    assert_eq!(cluster.state(1).await, (210, 20));
    assert_eq!(calls.load(Ordering::SeqCst), 20);
    // Behind it: what is missing is applied, and that only.
    writes_left.store(0, Ordering::SeqCst);
    for n in 21..=30 {
        cluster.node(1).send(add(n)).await.unwrap().unwrap();
    }
    cluster.restart(1).await;
    assert_eq!(cluster.state(1).await, (465, 30));
    assert_eq!(calls.load(Ordering::SeqCst), 40);
    // Behind a snapshot that took the log's place: the snapshot.
    cluster.node(1).send(TakeSnapshot).await.unwrap().unwrap();
    cluster.restart(1).await;
    assert_eq!(cluster.state(1).await, (465, 30));
    assert_eq!(calls.load(Ordering::SeqCst), 40);
    writes_left.store(u64::MAX, Ordering::SeqCst);
    cluster.node(1).send(add(35)).await.unwrap().unwrap();
    cluster.restart(1).await;
    assert_eq!(cluster.state(1).await, (500, 31));
    assert_eq!(calls.load(Ordering::SeqCst), 41);
    cluster.shut_down().await;
}

#[actix::test]
async fn a_disk_that_is_ahead_of_the_log_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let making = move |_| {
        let file = Some(file.clone());
        Some(Adder {
            file,
            ..Adder::default()
        })
    };
    let cluster = Cluster::start_with(1, |config| config, making);
    for n in 1..=5 {
        cluster.node(1).send(add(n)).await.unwrap().unwrap();
    }
    let applied = status(cluster.node(1)).await.applied;
    cluster.node(1).send(Shutdown).await.unwrap().unwrap();
    cluster.disks[0].lose_from(LogIndex(applied.0 - 1));
    let config = raft_actor::Config::new(NodeId(1))
        .peers([(NodeId(1), "127.0.0.1:1")])
        .memory(cluster.disks[0].clone());
    let machine = Adder {
        file: Some(dir.path().join("state")),
        ..Adder::default()
    };
    let error = raft_actor::RaftActor::spawn_with(config, machine).unwrap_err();
    assert!(
        matches!(error, raft_actor::StartError::OwnDisk(_)),
        "{error}"
    );
}

#[actix::test]
async fn the_leadership_is_handed_over_when_asked_and_at_a_shutdown() {
    let mut cluster = Cluster::start(3, |config| {
        let (min, max) = (Duration::from_secs(6), Duration::from_secs(7));
        // So long that nobody stands by itself: who leads next was handed it.
        config.election_timeout(min, max)
    });
    let leader = cluster.leader().await;
    let to = NodeId(leader % 3 + 1);
    let transfer = TransferLeadership { to: Some(to) };
    let handed = cluster.node(leader).send(transfer).await.unwrap();
    assert_eq!(handed, Ok(to));
    assert_eq!(cluster.leader().await, to.0);
    cluster.node(leader).send(add(1)).await.unwrap().unwrap();

    let began = Instant::now();
    cluster.restart(to.0).await;
    let next = cluster.leader().await;
    assert!(next != to.0);
    // Nobody has waited for an election timeout.
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(cluster.state(to.0).await, (1, 1));
    cluster.shut_down().await;
}

#[actix::test]
async fn a_stale_read_does_not_wait_for_a_majority() {
    let cluster = Cluster::start(3, |config| config.propose_timeout(Duration::from_secs(2)));
    let leader = cluster.leader().await;
    cluster.node(leader).send(add(3)).await.unwrap().unwrap();
    cluster.state(leader % 3 + 1).await;
    for id in cluster.ids().filter(|id| *id != leader % 3 + 1) {
        cluster.node(id).send(Shutdown).await.unwrap().unwrap();
    }
    let alone = cluster.node(leader % 3 + 1);
    let read = || Read::new(|adder: &Adder| adder.state.sum);
    let stale = alone.send(read().consistency(Consistency::Stale));
    assert_eq!(stale.await.unwrap().unwrap().value, 3);
    let fresh = alone.send(read()).await.unwrap();
    assert!(fresh.is_err(), "{fresh:?}");
    alone.send(Shutdown).await.unwrap().unwrap();
}
