//! What operators see of a running node: its view as it changes, its health, its status, its logs' span.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use raft_actor::{
    GetHealth, GetStatus, Health, LogIndex, NodeFailure, NodeId, NodeView, NotReady, PeerState,
    Phase, Propose, RaftActor, Role, Shutdown, StatusChanged, Watch, WatchStatus,
};
use tokio::sync::{Semaphore, watch};

mod support;

use support::{configs, spawn, until};

/// Waits for a view, for 20 seconds.
async fn sees(
    views: &mut watch::Receiver<NodeView>,
    what: &str,
    condition: impl Fn(&NodeView) -> bool,
) -> NodeView {
    let found = tokio::time::timeout(
        Duration::from_secs(20),
        views.wait_for(|view| condition(view)),
    );
    let found = found
        .await
        .unwrap_or_else(|_| panic!("waited too long for {what}"));
    found.unwrap().clone()
}

async fn watch(node: &Addr<RaftActor>) -> watch::Receiver<NodeView> {
    node.send(Watch).await.unwrap()
}

async fn health(node: &Addr<RaftActor>) -> Health {
    node.send(GetHealth).await.unwrap()
}

fn all_but(id: u64) -> BTreeSet<NodeId> {
    (1..=3).filter(|other| *other != id).map(NodeId).collect()
}

#[actix::test]
async fn a_watcher_sees_leaders_members_connections_and_ends() {
    let configs = configs(3);
    let mut nodes = spawn(&configs[..2]);
    let mut views = watch(&nodes[0]).await;
    let forming = sees(&mut views, "who is missing", |view| {
        matches!(&view.phase, Phase::Forming { waiting_for } if waiting_for.len() == 1)
            && view.connected.len() == 1
    });
    let forming = forming.await;
    assert!(
        matches!(forming.phase, Phase::Forming { waiting_for } if waiting_for[0].0 == NodeId(3))
    );
    let waiting = health(&nodes[0]).await;
    assert_eq!(
        waiting.why,
        Some(NotReady::Forming {
            waiting_for: vec![NodeId(3)]
        })
    );
    assert!(waiting.live && !waiting.ready);

    nodes.extend(spawn(&configs[2..]));
    let mut all = vec![views, watch(&nodes[1]).await, watch(&nodes[2]).await];
    let mut leaders = BTreeSet::new();
    for (id, views) in (1..).zip(&mut all) {
        let settled = |view: &NodeView| view.leader.is_some() && view.connected == all_but(id);
        let view = sees(views, "a leader and all connections", settled).await;
        assert_eq!(view.phase, Phase::Running);
        assert_eq!(view.configuration.voters, (1..=3).map(NodeId).collect());
        assert_eq!(view.role == Role::Leader, view.leader == Some(NodeId(id)));
        leaders.extend(view.leader);
    }
    let leader = leaders.pop_last().unwrap();
    assert!(leaders.is_empty(), "{leaders:?} and {leader}");
    for node in &nodes {
        until("all to be ready", async || {
            let health = health(node).await;
            (health
                == Health {
                    live: true,
                    ready: true,
                    leader: Some(leader),
                    why: None,
                })
            .then_some(())
        })
        .await;
    }

    let at = leader.0 as usize - 1;
    let mut own = all.remove(at);
    nodes[at].send(Shutdown).await.unwrap().unwrap();
    let last = own.borrow_and_update().phase.clone();
    assert_eq!(
        last,
        Phase::ShuttingDown,
        "the last word of a node that is shut down"
    );
    assert!(own.changed().await.is_err(), "and then the channel closes");
    for views in &mut all {
        let gone = sees(views, "another leader", |view| {
            view.leader.is_some_and(|other| other != leader) && !view.connected.contains(&leader)
        });
        assert!(gone.await.term.0 >= 2);
    }
}

/// Takes its time, and as much of it as it is allowed.
struct Slow {
    seen: Arc<Mutex<Vec<NodeView>>>,
    may: Arc<Semaphore>,
}

impl Actor for Slow {
    type Context = Context<Self>;
}

impl Handler<StatusChanged> for Slow {
    type Result = ResponseFuture<()>;

    fn handle(
        &mut self,
        StatusChanged(view): StatusChanged,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.seen.lock().unwrap().push(view);
        let may = Arc::clone(&self.may);
        Box::pin(async move { may.acquire().await.unwrap().forget() })
    }
}

#[actix::test]
async fn a_slow_watcher_misses_what_was_between_and_gets_the_newest() {
    let configs = configs(3);
    let mut nodes = spawn(&configs[..1]);
    let (seen, may) = (Arc::default(), Arc::new(Semaphore::new(0)));
    let slow = Slow {
        seen: Arc::clone(&seen),
        may: Arc::clone(&may),
    }
    .start();
    nodes[0].send(WatchStatus(slow.recipient())).await.unwrap();
    until("the first view", async || {
        (!seen.lock().unwrap().is_empty()).then_some(())
    })
    .await;
    nodes.extend(spawn(&configs[1..]));
    // Much happens: connections, the birth, an election.
    let mut views = watch(&nodes[0]).await;
    let settled = |view: &NodeView| view.leader.is_some() && view.connected == all_but(1);
    let newest = sees(&mut views, "a leader", settled).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        seen.lock().unwrap().len(),
        1,
        "nothing is sent before the last is handled"
    );
    may.add_permits(1);
    until("the second view", async || {
        (seen.lock().unwrap().len() >= 2).then_some(())
    })
    .await;
    let second = seen.lock().unwrap()[1].clone();
    assert!(
        second.leader.is_some() && second.connected == newest.connected,
        "{second:?}"
    );
}

#[actix::test]
async fn a_failed_node_says_so_to_watchers_and_is_neither_live_nor_ready() {
    let configs = configs(1);
    let nodes = spawn(&configs);
    let mut views = watch(&nodes[0]).await;
    sees(&mut views, "a leader", |view| view.leader.is_some()).await;
    configs[0].1.fail_write(1);
    nodes[0]
        .send(Propose::new("lost"))
        .await
        .unwrap()
        .unwrap_err();
    let failed = sees(&mut views, "the failure", |view| {
        matches!(view.phase, Phase::Failed(_))
    });
    assert_eq!(failed.await.leader, None);
    let health = health(&nodes[0]).await;
    assert!(!health.live && !health.ready, "{health:?}");
    assert!(
        matches!(health.why, Some(NotReady::Failed(NodeFailure::Storage(_)))),
        "{health:?}"
    );
    nodes[0].send(Shutdown).await.unwrap().unwrap_err();
}

#[actix::test]
async fn the_status_says_how_far_everything_and_everybody_is() {
    let configs = configs(3);
    let nodes = spawn(&configs);
    let committed = nodes[0].send(Propose::new("x")).await.unwrap().unwrap();
    let settled = until("all to have it", async || {
        let mut statuses = Vec::new();
        for node in &nodes {
            statuses.push(node.send(GetStatus).await.unwrap());
        }
        let leader = statuses.iter().find(|status| status.role == Role::Leader)?;
        let progress = |id: u64| leader.members[id as usize - 1].progress.clone();
        let has_all = |id| progress(id).is_none_or(|progress| progress.matched == committed.index);
        ((1..=3).all(has_all)
            && statuses.iter().all(|status| {
                status.durable == committed.index
                    && status.unapplied == 0
                    && status.applied == committed.index
            }))
        .then_some(statuses)
    });
    for status in settled.await {
        assert_eq!(status.last.index, status.durable);
        assert_eq!(
            (status.log_start, status.snapshot),
            (LogIndex::ZERO, LogIndex::ZERO)
        );
        assert_eq!(status.configuration.voters.len(), 3);
        for member in status.members {
            assert_eq!(member.queue.is_some(), member.id != status.id);
            assert_eq!(
                member.progress.is_some(),
                status.role == Role::Leader && member.id != status.id
            );
            if let Some(progress) = member.progress {
                assert_eq!(
                    (progress.state, progress.active),
                    (PeerState::Replicate, true)
                );
                assert_eq!(progress.next, committed.index.next());
                assert!(member.queue.unwrap().frames > 0);
            }
        }
    }
}

/// Lines that were logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn a_nodes_logs_stand_in_its_span() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_env_filter("warn,raft_actor=info")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let mut config = configs(1).remove(0).0;
    config = config.election_timeout(Duration::from_millis(110), Duration::from_millis(130));
    let node = RaftActor::spawn(config).unwrap();
    node.send(Propose::new("x")).await.unwrap().unwrap();
    node.send(Shutdown).await.unwrap().unwrap();
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let last = log
        .lines()
        .find(|line| line.contains("shutting down"))
        .unwrap();
    for field in ["node{", "id=1", "term=1", "role=leader", "cluster="] {
        assert_eq!(last.matches(field).count(), 1, "{field} in {last}");
    }
}
