//! Whole nodes in one process: real actors, real sockets but for one test, and disks of memory that can lose power.

#![allow(clippy::unwrap_used)]

#[path = "support/ports.rs"]
mod ports;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_actor::{
    Config, Delivered, DeliveredBatch, Ended, GetStatus, LogIndex, MemberStatus, MemoryDisk,
    NodeFailure, NodeId, NodeStatus, Phase, Propose, ProposeError, RaftActor, Refusal, Role,
    Shutdown, StartError, Subscribe,
};

use ports::free_port;

type Log = Arc<Mutex<Vec<(u64, String)>>>;

/// Remembers what it is handed.
struct Collector(Log);

impl Actor for Collector {
    type Context = Context<Self>;
}

impl Handler<Delivered> for Collector {
    type Result = ();

    fn handle(&mut self, event: Delivered, _: &mut Self::Context) {
        let text = String::from_utf8_lossy(&event.command).into_owned();
        self.0.lock().unwrap().push((event.index.0, text));
    }
}

impl Handler<DeliveredBatch> for Collector {
    type Result = ();

    fn handle(&mut self, DeliveredBatch(events): DeliveredBatch, ctx: &mut Self::Context) {
        for event in Arc::unwrap_or_clone(events) {
            self.handle(event, ctx);
        }
    }
}

struct Cluster {
    peers: Vec<(NodeId, String)>,
    disks: Vec<MemoryDisk>,
    nodes: Vec<Addr<RaftActor>>,
}

impl Cluster {
    fn new(size: u64) -> Self {
        Self::at((0..size).map(|_| format!("127.0.0.1:{}", free_port())))
    }

    fn at(addresses: impl Iterator<Item = String>) -> Self {
        let peers: Vec<_> = (1..).map(NodeId).zip(addresses).collect();
        let size = peers.len();
        let disks = (0..size).map(|_| MemoryDisk::new()).collect();
        Self {
            peers,
            disks,
            nodes: Vec::new(),
        }
    }

    fn config(&self, id: u64) -> Config {
        let disk = self.disks[id as usize - 1].clone();
        Config::new(NodeId(id))
            .peers(self.peers.clone())
            .memory(disk)
    }

    fn spawn(&self, id: u64) -> Addr<RaftActor> {
        RaftActor::spawn(self.config(id)).unwrap()
    }

    async fn start(size: u64) -> Self {
        Self::new(size).spawned()
    }

    fn spawned(mut self) -> Self {
        let size = self.peers.len() as u64;
        self.nodes = (1..=size).map(|id| self.spawn(id)).collect();
        self
    }

    fn node(&self, id: u64) -> &Addr<RaftActor> {
        &self.nodes[id as usize - 1]
    }

    async fn leader(&self) -> u64 {
        let statuses = until("a leader that all follow", async || {
            let mut statuses = Vec::new();
            for node in &self.nodes {
                match node.send(GetStatus).await {
                    Ok(status) if matches!(status.phase, Phase::Running) => statuses.push(status),
                    _ => {}
                }
            }
            let leader = statuses
                .iter()
                .find(|status| status.role == Role::Leader)?
                .id;
            statuses
                .iter()
                .all(|status| status.leader == Some(leader))
                .then_some(statuses)
        });
        statuses
            .await
            .iter()
            .find(|status| status.role == Role::Leader)
            .unwrap()
            .id
            .0
    }
}

/// A cluster does not outlive its test: it would take the processor from those that still run.
impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.do_send(Shutdown);
        }
    }
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn status(node: &Addr<RaftActor>) -> NodeStatus {
    node.send(GetStatus).await.unwrap()
}

async fn collect(node: &Addr<RaftActor>) -> Log {
    let log = Log::default();
    let to = Collector(Arc::clone(&log)).start();
    node.send(Subscribe::from_start(to.recipient::<Delivered>()))
        .await
        .unwrap()
        .unwrap();
    log
}

async fn has(log: &Log, count: usize) {
    let counted = async || (log.lock().unwrap().len() >= count).then_some(());
    until(&format!("{count} deliveries"), counted).await;
}

#[actix::test]
async fn a_single_node_commits_and_remembers() {
    let mut cluster = Cluster::start(1).await;
    let first = cluster
        .node(1)
        .send(Propose::new("one"))
        .await
        .unwrap()
        .unwrap();
    let second = cluster
        .node(1)
        .send(Propose::new("two"))
        .await
        .unwrap()
        .unwrap();
    assert!(first.index < second.index);
    cluster.node(1).send(Shutdown).await.unwrap().unwrap();

    cluster.nodes = vec![cluster.spawn(1)];
    let log = collect(cluster.node(1)).await;
    has(&log, 2).await;
    let expected = [
        (first.index.0, "one".to_owned()),
        (second.index.0, "two".to_owned()),
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    cluster.node(1).send(Shutdown).await.unwrap().unwrap();
}

#[actix::test]
async fn every_node_takes_proposals_and_all_are_handed_one_order() {
    one_order(Cluster::start(3).await).await;
}

#[actix::test]
async fn without_a_wire_they_do_too() {
    let cluster = Cluster::at((1..=3).map(|port| format!("memory/one-order:{port}")));
    one_order(cluster.spawned()).await;
}

/// And the thread goes on when they have ended, without anything of theirs left on it.
#[actix::test]
async fn on_one_thread_they_do_too() {
    let mut cluster = Cluster::at((1..=3).map(|port| format!("memory/one-thread:{port}")));
    let spawn = |cluster: &Cluster, id| {
        let disk = cluster.disks[id as usize - 1].clone();
        RaftActor::spawn(cluster.config(id).memory(disk).here()).unwrap()
    };
    cluster.nodes = (1..=3).map(|id| spawn(&cluster, id)).collect();
    let nodes = cluster.nodes.clone();
    one_order(std::mem::replace(&mut cluster, Cluster::new(0))).await;
    for node in nodes {
        let stopped = async || (!node.connected()).then_some(());
        until("the end of an actor", stopped).await;
    }

    let disk = MemoryDisk::new();
    let config = || Config::new(NodeId(1)).peers([(NodeId(1), "memory/one-thread:1")]);
    for time in 1..=2 {
        let node = RaftActor::spawn(config().memory(disk.clone()).here()).unwrap();
        let committed = node.send(Propose::new("again")).await.unwrap().unwrap();
        let log = collect(&node).await;
        has(&log, time).await;
        assert_eq!(log.lock().unwrap().last().unwrap().0, committed.index.0);
        node.send(Shutdown).await.unwrap().unwrap();
    }
}

/// The log of a folder has its own thread then, or is synced on the node's; and is there again after a restart.
#[cfg(feature = "rocksdb")]
#[actix::test]
async fn on_one_thread_with_a_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config::new(NodeId(1)).peers([(NodeId(1), "memory/one-thread-disk:1")]);
    for time in 1..=4 {
        let inline = config().sync_inline(time % 2 == 0);
        let node = RaftActor::spawn(inline.data_dir(folder.path()).here()).unwrap();
        node.send(Propose::new("again")).await.unwrap().unwrap();
        has(&collect(&node).await, time).await;
        node.send(Shutdown).await.unwrap().unwrap();
    }
}

async fn one_order(cluster: Cluster) {
    let mut logs = Vec::new();
    for node in &cluster.nodes {
        logs.push(collect(node).await);
    }
    // Before there is a leader, from everywhere, all at once.
    let mut sent = Vec::new();
    for i in 0..100 {
        for (n, node) in cluster.nodes.iter().enumerate() {
            sent.push((
                format!("{n}-{i}"),
                node.send(Propose::new(format!("{n}-{i}"))),
            ));
        }
    }
    let mut committed = Vec::new();
    for (text, outcome) in sent {
        committed.push((outcome.await.unwrap().unwrap().index.0, text));
    }
    committed.sort();
    for log in &logs {
        has(log, committed.len()).await;
        assert_eq!(*log.lock().unwrap(), committed);
    }
    let clusters: Vec<_> = [1, 2, 3].map(|id| cluster.node(id).send(GetStatus)).into();
    let mut ids = Vec::new();
    for status in clusters {
        ids.push(status.await.unwrap().cluster.unwrap());
    }
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    for node in &cluster.nodes {
        node.send(Shutdown).await.unwrap().unwrap();
    }
}

#[actix::test]
async fn batched_subscribers_are_handed_the_same() {
    let cluster = Cluster::start(1).await;
    let subscribe = async || {
        let log = Log::default();
        let to = Collector(Arc::clone(&log)).start();
        let subscribe = Subscribe::from_start(to.recipient::<DeliveredBatch>());
        cluster.node(1).send(subscribe).await.unwrap().unwrap();
        log
    };
    // Those who are there from the beginning share what they are handed.
    let mut logs = [subscribe().await, subscribe().await, subscribe().await].to_vec();
    let sent: Vec<_> = (0..2000)
        .map(|i| {
            (
                i.to_string(),
                cluster.node(1).send(Propose::new(i.to_string())),
            )
        })
        .collect();
    let mut committed = Vec::new();
    for (text, outcome) in sent {
        committed.push((outcome.await.unwrap().unwrap().index.0, text));
    }
    committed.sort();
    logs.push(subscribe().await);
    for log in logs {
        has(&log, 2000).await;
        assert!(
            *log.lock().unwrap() == committed,
            "another order than was committed"
        );
    }
    cluster.node(1).send(Shutdown).await.unwrap().unwrap();
}

#[actix::test]
async fn a_cluster_is_not_born_before_all_have_answered() {
    let mut cluster = Cluster::new(3);
    cluster.nodes = [1, 2].map(|id| cluster.spawn(id)).into();
    until("node 1 to wait for node 3 alone", async || {
        let Phase::Forming { waiting_for } = status(cluster.node(1)).await.phase else {
            return None;
        };
        waiting_for
            .iter()
            .map(|(id, _)| *id)
            .eq([NodeId(3)])
            .then_some(())
    })
    .await;
    let propose = Propose::new("too early").timeout(Duration::from_millis(300));
    let error = cluster.node(1).send(propose).await.unwrap().unwrap_err();
    assert!(matches!(error, ProposeError::NoLeader { .. }), "{error}");
    assert!(error.is_certainly_not_applied());

    cluster.nodes.push(cluster.spawn(3));
    let log = collect(cluster.node(2)).await;
    cluster
        .node(1)
        .send(Propose::new("now"))
        .await
        .unwrap()
        .unwrap();
    has(&log, 1).await;
    assert_eq!(log.lock().unwrap()[0].1, "now");
}

#[actix::test]
async fn a_node_whose_disk_was_lost_takes_no_part() {
    let mut cluster = Cluster::start(3).await;
    cluster
        .node(1)
        .send(Propose::new("kept"))
        .await
        .unwrap()
        .unwrap();
    let victim = (1..=3).find(|id| *id != 1).unwrap();
    cluster.node(victim).send(Shutdown).await.unwrap().unwrap();
    cluster.disks[victim as usize - 1] = MemoryDisk::new();
    let wiped = cluster.spawn(victim);
    let failure = wiped.send(Ended).await.unwrap().unwrap_err();
    assert!(failure.to_string().contains("wiped"), "{failure}");
    assert!(matches!(status(&wiped).await.phase, Phase::Failed(_)));
    let error = wiped.send(Propose::new("no")).await.unwrap().unwrap_err();
    assert!(matches!(error, ProposeError::Failed(_)), "{error}");
    cluster
        .node(1)
        .send(Propose::new("goes on"))
        .await
        .unwrap()
        .unwrap();
}

#[actix::test]
async fn a_failing_disk_ends_the_leader_by_name_and_the_others_go_on() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.disks[leader as usize - 1].crash();
    let outcome = cluster
        .node(leader)
        .send(Propose::new("lost or not").without_session())
        .await
        .unwrap();
    // It may have noticed by itself.
    let known = matches!(
        outcome,
        Ok(_) | Err(ProposeError::Unknown { .. } | ProposeError::Failed(_))
    );
    assert!(known, "{outcome:?}");
    cluster.node(leader).send(Ended).await.unwrap().unwrap_err();
    let other = (1..=3).find(|id| *id != leader).unwrap();
    // Before it hears that the leader is gone, it would forward to it, and never know what came of that.
    until("the news", async || {
        let behind = status(cluster.node(other)).await.members;
        let gone = |member: &MemberStatus| member.id == NodeId(leader) && !member.connected;
        behind.iter().any(gone).then_some(())
    })
    .await;
    cluster
        .node(other)
        .send(Propose::new("goes on"))
        .await
        .unwrap()
        .unwrap();
}

/// The disk confirms nothing and fails nothing. Without the step-down the leader's heartbeats would go on, and
/// everybody would wait for it.
#[actix::test]
async fn a_leader_whose_disk_hangs_makes_room_and_all_who_wait_are_answered() {
    let cluster = Cluster::start(3).await;
    let stuck = cluster.leader().await;
    let others = (1..=3).filter(|id| *id != stuck).collect::<Vec<_>>();
    cluster.disks[stuck as usize - 1].hold();
    let since = Instant::now();
    let patient = Propose::new("at the stuck leader").timeout(Duration::from_secs(60));
    let held = cluster.node(stuck).send(patient);
    let new = until("another leader", async || {
        for id in &others {
            if status(cluster.node(*id)).await.role == Role::Leader {
                return Some(*id);
            }
        }
        None
    })
    .await;
    // An election timeout, which is at most a second, is waited for the disk, and another for the leader.
    assert!(
        since.elapsed() < Duration::from_secs(6),
        "{:?}",
        since.elapsed()
    );
    // Whoever proposes: the node with the stuck disk forwards, as all do.
    for node in &cluster.nodes {
        node.send(Propose::new("goes on")).await.unwrap().unwrap();
    }
    let behind = status(cluster.node(stuck)).await;
    assert_eq!(
        (behind.role, behind.leader),
        (Role::Follower, Some(NodeId(new)))
    );

    cluster.disks[stuck as usize - 1].release();
    let committed = held.await.unwrap().unwrap();
    for node in &cluster.nodes {
        let log = collect(node).await;
        has(&log, 4).await;
        // Whether it comes before what the others proposed meanwhile is left to chance: its node had to find the
        // new leader first.
        let held = (committed.index.0, "at the stuck leader".to_owned());
        assert!(log.lock().unwrap().contains(&held));
    }
}

#[actix::test]
async fn what_is_too_large_or_too_much_is_refused_at_once() {
    let mut cluster = Cluster::new(1);
    let config = cluster.config(1).command_bytes_max(10).proposals_max(2, 20);
    cluster.nodes = vec![RaftActor::spawn(config).unwrap()];
    let node = cluster.node(1);
    node.send(Propose::new("0123456789"))
        .await
        .unwrap()
        .unwrap();
    let error = node
        .send(Propose::new("0123456789a"))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error, ProposeError::TooLarge { len: 11, max: 10 });
    cluster.disks[0].hold();
    let (first, second) = (node.send(Propose::new("1")), node.send(Propose::new("2")));
    let third = node.send(Propose::new("3"));
    assert_eq!(third.await.unwrap().unwrap_err(), ProposeError::Busy);
    cluster.disks[0].release();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[actix::test]
async fn a_command_at_the_limit_reaches_every_node_from_every_node() {
    let cluster = Cluster::start(3).await;
    let logs = [
        collect(cluster.node(1)).await,
        collect(cluster.node(2)).await,
        collect(cluster.node(3)).await,
    ];
    let text = "x".repeat(1 << 20);
    for node in &cluster.nodes {
        node.send(Propose::new(text.clone()))
            .await
            .unwrap()
            .unwrap();
    }
    for log in logs {
        has(&log, 3).await;
        assert!(
            log.lock()
                .unwrap()
                .iter()
                .all(|(_, delivered)| *delivered == text)
        );
    }
}

/// Takes a second for each event.
struct Slow;

impl Actor for Slow {
    type Context = Context<Self>;
}

impl Handler<Delivered> for Slow {
    type Result = ();

    fn handle(&mut self, _: Delivered, _: &mut Self::Context) {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[actix::test]
async fn a_slow_subscriber_holds_up_nobody() {
    let cluster = Cluster::start(1).await;
    let elsewhere = Arbiter::new();
    let slow = Slow::start_in_arbiter(&elsewhere.handle(), |_| Slow);
    cluster
        .node(1)
        .send(Subscribe::from_start(slow.recipient::<Delivered>()))
        .await
        .unwrap()
        .unwrap();
    let log = collect(cluster.node(1)).await;
    let start = Instant::now();
    for i in 0..500 {
        cluster
            .node(1)
            .send(Propose::new(format!("{i}")))
            .await
            .unwrap()
            .unwrap();
    }
    has(&log, 500).await;
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    elsewhere.stop();
}

#[actix::test]
async fn shutdown_answers_everybody_and_frees_the_address_and_the_disk() {
    let mut cluster = Cluster::start(1).await;
    cluster
        .node(1)
        .send(Propose::new("before"))
        .await
        .unwrap()
        .unwrap();
    cluster.disks[0].hold();
    let waiting = cluster.node(1).send(Propose::new("under way"));
    let ended = cluster.node(1).send(Ended);
    let shutdown = cluster.node(1).send(Shutdown);
    let refused = cluster.node(1).send(Propose::new("too late"));
    assert_eq!(refused.await.unwrap(), Err(ProposeError::ShuttingDown));
    cluster.disks[0].release();
    shutdown.await.unwrap().unwrap();
    ended.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();

    cluster.nodes = vec![cluster.spawn(1)];
    let log = collect(cluster.node(1)).await;
    has(&log, 2).await;
    let error = RaftActor::spawn(cluster.config(1)).map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::Open(_)), "{error}");
    cluster.disks[0] = MemoryDisk::new();
    let error = RaftActor::spawn(cluster.config(1)).map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::Listen(_)), "{error}");
    cluster.node(1).send(Shutdown).await.unwrap().unwrap();
}

/// What comes while a batch is on its way is left to gather, but not by a node that ends.
#[actix::test]
async fn what_was_proposed_before_a_shutdown_is_sent_before_it() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    node.send(Propose::new("first")).await.unwrap().unwrap();
    let disk = cluster.disks[0].clone();
    disk.hold();
    let under_way = node.send(Propose::new("under way"));
    let held = disk.clone();
    let waits = actix_rt::task::spawn_blocking(move || held.wait_until_held());
    let under_way = actix_rt::spawn(under_way);
    waits.await.unwrap();
    let gathers = actix_rt::spawn(node.send(Propose::new("gathers")));
    actix_rt::time::sleep(Duration::from_millis(2)).await;
    let end = actix_rt::spawn(node.send(Shutdown));
    actix_rt::time::sleep(Duration::from_millis(2)).await;
    disk.release();
    under_way.await.unwrap().unwrap().unwrap();
    gathers.await.unwrap().unwrap().unwrap();
    end.await.unwrap().unwrap().unwrap();
}

#[actix::test]
async fn a_subscriber_from_now_sees_nothing_older() {
    let cluster = Cluster::start(1).await;
    let old = cluster
        .node(1)
        .send(Propose::new("old"))
        .await
        .unwrap()
        .unwrap();
    let log = Log::default();
    let to = Collector(Arc::clone(&log)).start();
    let subscribe = Subscribe::from_now(to.recipient::<Delivered>());
    let subscribed = cluster.node(1).send(subscribe).await.unwrap().unwrap();
    assert_eq!(subscribed.next, LogIndex(old.index.0 + 1));
    cluster
        .node(1)
        .send(Propose::new("new"))
        .await
        .unwrap()
        .unwrap();
    has(&log, 1).await;
    assert_eq!(log.lock().unwrap()[0].1, "new");
}

/// Proposals whose answers nobody waits for, as fast as one thread can make them.
#[actix::test]
async fn a_flood_of_proposals_starves_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.nodes = (1..=3)
        .map(|id| {
            // Shorter than the flood, and longer than a busy machine lets a thread wait.
            let timeout = (Duration::from_secs(2), Duration::from_millis(2500));
            let config = cluster.config(id).election_timeout(timeout.0, timeout.1);
            RaftActor::spawn(config.proposals_max(64, 1 << 20)).unwrap()
        })
        .collect();
    let leader = cluster.leader().await;
    let before = status(cluster.node(leader)).await;
    let flooded = cluster.node(leader).clone();
    let flood = std::thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            for _ in 0..100 {
                flooded.do_send(Propose::new("flood"));
            }
        }
    });
    let other = (1..=3).find(|id| *id != leader).unwrap();
    while !flood.is_finished() {
        let start = Instant::now();
        let outcome = cluster
            .node(other)
            .send(Propose::new("from elsewhere"))
            .await
            .unwrap();
        assert!(
            matches!(outcome, Ok(_) | Err(ProposeError::Busy)),
            "{outcome:?}"
        );
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
    let after = status(cluster.node(other)).await;
    assert_eq!(
        (after.leader, after.term),
        (Some(NodeId(leader)), before.term)
    );
    assert!(
        after.commit.0 > before.commit.0 + 100,
        "{before:?} {after:?}"
    );
}

#[actix::test]
async fn a_timeout_without_an_end_is_a_day() {
    let cluster = Cluster::start(1).await;
    let propose = Propose::new("patient").timeout(Duration::MAX);
    cluster.node(1).send(propose).await.unwrap().unwrap();
}

#[actix::test]
async fn a_node_can_be_started_again_at_once() {
    let cluster = Cluster::new(1);
    for i in 0..20 {
        let node = cluster.spawn(1);
        node.send(Propose::new(format!("{i}")))
            .await
            .unwrap()
            .unwrap();
        node.send(Shutdown).await.unwrap().unwrap();
    }
}

#[actix::test]
async fn a_node_that_comes_back_at_another_port_is_found() {
    let mut cluster = Cluster::start(3).await;
    let before = cluster.node(1).send(Propose::new("before"));
    before.await.unwrap().unwrap();
    cluster.node(3).send(Shutdown).await.unwrap().unwrap();
    // Its own list is changed, and nobody else's.
    let moved = format!("127.0.0.1:{}", free_port());
    let mut peers = cluster.peers.clone();
    peers[2].1.clone_from(&moved);
    cluster.nodes[2] = RaftActor::spawn(cluster.config(3).peers(peers)).unwrap();
    let log = collect(cluster.node(3)).await;
    let after = cluster.node(1).send(Propose::new("after"));
    after.await.unwrap().unwrap();
    has(&log, 2).await;
    for id in [1, 2] {
        until("it to be found", async || {
            let member = status(cluster.node(id)).await.members.remove(2);
            (member.connected && member.address == moved).then_some(())
        })
        .await;
    }
}

#[actix::test]
async fn nodes_with_different_lists_are_not_born_together() {
    let cluster = Cluster::new(3);
    let short = cluster.config(1).peers(cluster.peers[..2].to_vec());
    let first = RaftActor::spawn(short).unwrap();
    let second = cluster.spawn(2);
    let _third = cluster.spawn(3);
    let failure = first.send(Ended).await.unwrap().unwrap_err();
    assert!(failure.to_string().contains("same list"), "{failure}");
    let Phase::Forming { waiting_for } = status(&second).await.phase else {
        panic!("node 2 takes part without node 1")
    };
    assert_eq!(waiting_for[0].0, NodeId(1));
}

/// The leader's disk is slow; the forwarder ends and comes back meanwhile. Its new life must not take the
/// answer to its old one's proposal for its own.
#[actix::test]
async fn an_answer_to_an_earlier_life_is_nobodys() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let forwarder = (1..=3).find(|id| *id != leader).unwrap();
    let third = 6 - leader - forwarder;
    cluster.node(third).send(Shutdown).await.unwrap().unwrap();
    cluster.disks[leader as usize - 1].hold();
    let old = cluster
        .node(forwarder)
        .send(Propose::new("old life").without_session());
    let held = cluster.disks[leader as usize - 1].clone();
    tokio::task::spawn_blocking(move || held.wait_until_held())
        .await
        .unwrap();
    cluster
        .node(forwarder)
        .send(Shutdown)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(
        old.await.unwrap(),
        Err(ProposeError::Unknown { .. })
    ));
    cluster.nodes[forwarder as usize - 1] = cluster.spawn(forwarder);
    let new = cluster
        .node(forwarder)
        .send(Propose::new("new life").without_session());
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.disks[leader as usize - 1].release();
    let outcome = new.await.unwrap();
    let log = collect(cluster.node(leader)).await;
    if let Ok(committed) = outcome {
        until("the new life's command", async || {
            let log = log.lock().unwrap();
            log.iter()
                .any(|(index, text)| *index == committed.index.0 && text == "new life")
                .then_some(())
        })
        .await;
    }
}

#[test]
fn outside_a_system_the_start_says_so() {
    let cluster = Cluster::new(1);
    let error = RaftActor::spawn(cluster.config(1)).map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::NoSystem), "{error}");
}

impl Cluster {
    /// Ends node `id`, takes the end of its log from `from` on, as no disk should, and starts it again.
    async fn lose_and_spawn(&self, id: u64, from: LogIndex) -> Addr<RaftActor> {
        // A node that has failed says so once more.
        let _ = self.node(id).send(Shutdown).await.unwrap();
        self.disks[id as usize - 1].lose_from(from);
        self.spawn(id)
    }

    /// Ends node `id`, which leads, as a power loss would: whom it would have handed over to is left to chance.
    async fn end_without_handover(&self, id: u64) {
        self.disks[id as usize - 1].crash();
        let write = Propose::new("finds out").without_session();
        let _ = self.node(id).send(write).await.unwrap();
        self.node(id).send(Ended).await.unwrap().unwrap_err();
    }

    /// Proposes at node `at`, and waits until node `id` knows that what it acknowledged of it is committed.
    async fn acknowledged_by(&self, id: u64, at: u64, command: &str) -> LogIndex {
        let proposed = self.node(at).send(Propose::new(command.to_owned()));
        let index = proposed.await.unwrap().unwrap().index;
        until("the acknowledgement to be known", async || {
            (status(self.node(id)).await.commit >= index).then_some(())
        })
        .await;
        index
    }
}

async fn lost_by(node: &Addr<RaftActor>) -> (NodeId, Refusal) {
    let ended = tokio::time::timeout(Duration::from_secs(10), node.send(Ended));
    let ended = ended.await.expect("it ends by itself");
    let failure = ended.unwrap().unwrap_err();
    assert!(
        failure.to_string().contains("has lost synced writes"),
        "{failure}"
    );
    let phase = status(node).await.phase;
    assert_eq!(phase, Phase::Failed(failure.clone()));
    match failure {
        NodeFailure::LostAcknowledged { peer, refusal } => (peer, *refusal),
        failure => panic!("{failure}"),
    }
}

#[actix::test]
async fn a_node_whose_disk_lost_what_it_acknowledged_is_told_so_and_ends() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let victim = leader % 3 + 1;
    let index = cluster.acknowledged_by(victim, leader, "kept").await;
    let before = status(cluster.node(leader)).await;
    for _ in 0..2 {
        // It is told again at the next start, and whatever the disk still holds.
        let damaged = cluster.lose_and_spawn(victim, index).await;
        let (witness, refusal) = lost_by(&damaged).await;
        assert_eq!(witness, NodeId(leader));
        let Refusal::LostAcknowledged {
            node,
            term,
            acknowledged,
            found_term,
            found,
        } = refusal
        else {
            panic!("{refusal}")
        };
        assert_eq!((node, acknowledged), (NodeId(victim), index));
        assert_eq!((term, found_term), (before.term, before.term));
        assert_eq!(found.index.0, index.0 - 1);
        cluster.nodes[victim as usize - 1] = damaged;
    }
    let propose = Propose::new("goes on");
    cluster.node(leader).send(propose).await.unwrap().unwrap();
    let after = status(cluster.node(leader)).await;
    assert_eq!(
        (after.role, after.term),
        (Role::Leader, before.term),
        "what was refused has not reached the protocol"
    );
}

#[actix::test]
async fn a_restart_that_lost_nothing_is_not_refused() {
    let mut cluster = Cluster::start(3).await;
    for round in 0..4 {
        let leader = cluster.leader().await;
        // A follower, then the leader.
        let id = if round % 2 == 0 {
            leader % 3 + 1
        } else {
            leader
        };
        cluster
            .acknowledged_by(leader % 3 + 1, leader, "kept")
            .await;
        if round < 2 {
            cluster.node(id).send(Shutdown).await.unwrap().unwrap();
        } else {
            cluster.disks[id as usize - 1].crash();
            let _ = cluster.node(id).send(Propose::new("notices")).await;
            cluster.node(id).send(Shutdown).await.unwrap().unwrap_err();
        }
        cluster.nodes[id as usize - 1] = cluster.spawn(id);
    }
    cluster.leader().await;
    for node in &cluster.nodes {
        assert_eq!(status(node).await.phase, Phase::Running);
    }
}

/// Node 2 has acknowledged to node 1 what no majority had, and nodes 3 to 5 elect somebody who lacks it.
#[actix::test]
async fn what_a_later_leader_cut_is_not_missed() {
    let mut cluster = Cluster::new(5);
    let ms = Duration::from_millis;
    let spawn = |cluster: &Cluster, id: u64, min: u64, max: u64| {
        let config = cluster.config(id).heartbeat_interval(ms(20));
        RaftActor::spawn(config.election_timeout(ms(min), ms(max))).unwrap()
    };
    cluster.nodes = (1..=5)
        .map(|id| match id {
            1 => spawn(&cluster, id, 400, 500),
            _ => spawn(&cluster, id, 6000, 7000),
        })
        .collect();
    assert_eq!(cluster.leader().await, 1);
    let kept = cluster.acknowledged_by(2, 1, "kept").await;
    for id in 3..=5 {
        cluster.node(id).send(Shutdown).await.unwrap().unwrap();
    }
    // Node 1 counts what node 2 acknowledges, and does not stand again while its disk hangs.
    cluster.disks[0].hold();
    let cut: Vec<_> = (0..5)
        .map(|_| {
            cluster
                .node(1)
                .send(Propose::new("to be cut").without_session())
        })
        .collect();
    until("all to arrive", async || {
        (status(cluster.node(2)).await.last.index.0 >= kept.0 + 5).then_some(())
    })
    .await;
    until("node 1 to make room", async || {
        (status(cluster.node(1)).await.role != Role::Leader).then_some(())
    })
    .await;
    for id in 3..=5 {
        cluster.nodes[id as usize - 1] = spawn(&cluster, id, 200, 300);
    }
    until("a leader that lacks it", async || {
        for id in 3..=5 {
            if status(cluster.node(id)).await.role == Role::Leader {
                return Some(());
            }
        }
        None
    })
    .await;
    cluster.disks[0].release();
    for outcome in cut {
        assert!(outcome.await.unwrap().is_err());
    }
    let new = cluster.leader().await;
    until("it to be cut", async || {
        (status(cluster.node(2)).await.last.index.0 < kept.0 + 5).then_some(())
    })
    .await;
    for _ in 0..2 {
        cluster.node(2).send(Shutdown).await.unwrap().unwrap();
        cluster.nodes[1] = spawn(&cluster, 2, 6000, 7000);
        until("all to be connected with it", async || {
            let members = status(cluster.node(2)).await.members;
            members.iter().all(|member| member.connected).then_some(())
        })
        .await;
        let last = status(cluster.node(2)).await.last.index;
        assert!(last.0 < kept.0 + 5, "as short as it was cut: {last}");
    }
    cluster.acknowledged_by(2, new, "goes on").await;
}

/// The new leader has heard nothing of the log that was lost; the old one has, and it was committed.
#[actix::test]
async fn who_led_remembers_what_was_acknowledged_and_committed() {
    let mut cluster = Cluster::new(3);
    let ms = Duration::from_millis;
    // Node 3 votes, and hardly ever stands.
    let timeouts = [(200, 300), (1000, 1200), (1000, 3_600_000)];
    let spawn = |cluster: &Cluster, id: u64| {
        let (min, max) = timeouts[id as usize - 1];
        let config = cluster.config(id).election_timeout(ms(min), ms(max));
        let config = config.early_campaign(false);
        RaftActor::spawn(config.heartbeat_interval(ms(20))).unwrap()
    };
    cluster.nodes = (1..=3).map(|id| spawn(&cluster, id)).collect();
    assert_eq!(cluster.leader().await, 1);
    // Node 2 leads, and node 1 acknowledges to it.
    cluster.end_without_handover(1).await;
    let leads = async |cluster: &Cluster, id: u64| {
        until("the next leader", async || {
            (status(cluster.node(id)).await.role == Role::Leader).then_some(())
        })
        .await;
    };
    leads(&cluster, 2).await;
    cluster.nodes[0] = spawn(&cluster, 1);
    let index = cluster.acknowledged_by(1, 2, "kept").await;
    until("the leader to know that too", async || {
        (status(cluster.node(2)).await.commit >= index).then_some(())
    })
    .await;
    // Node 2's disk hangs, and node 1 leads in its place.
    cluster.disks[1].hold();
    let stuck = cluster.node(2).send(Propose::new("later"));
    leads(&cluster, 1).await;
    cluster.disks[1].release();
    stuck.await.unwrap().unwrap();
    cluster.leader().await;
    cluster.end_without_handover(1).await;
    cluster.disks[0].lose_from(index);
    let damaged = spawn(&cluster, 1);
    let (witness, refusal) = lost_by(&damaged).await;
    assert_eq!(witness, NodeId(2), "{refusal}");
    let Refusal::LostAcknowledged {
        acknowledged,
        term,
        found_term,
        ..
    } = refusal
    else {
        panic!("{refusal}")
    };
    assert!(acknowledged >= index, "{refusal}");
    assert!(found_term >= term, "{refusal}");
}

/// Two born nodes, and something at the third's address that answers nothing. Node 1 stands at once; node 2 may
/// not vote before it has asked whether its disk has lost anything, or has waited long enough.
#[actix::test]
async fn nobody_votes_before_it_has_asked_or_waited() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    for node in &cluster.nodes {
        node.send(Shutdown).await.unwrap().unwrap();
    }
    let _silent = TcpListener::bind(&cluster.peers[2].1).unwrap();
    let ms = Duration::from_millis;
    let slow = cluster.config(2).election_timeout(ms(2000), ms(3000));
    let since = Instant::now();
    let slow = RaftActor::spawn(slow).unwrap();
    let eager = cluster
        .config(1)
        .heartbeat_interval(ms(20))
        .election_timeout(ms(100), ms(200));
    cluster.nodes = vec![RaftActor::spawn(eager).unwrap(), slow];
    // As a rule node 1, which asks again and again; node 2 if its timer ends first, and that is no earlier.
    cluster.leader().await;
    let waited = since.elapsed();
    assert!(waited > ms(1900), "{waited:?}");
}

/// Three of five must have it, and one of them has lost it.
#[actix::test]
async fn what_a_lost_disk_had_acknowledged_is_not_counted() {
    let mut cluster = Cluster::new(5);
    let ms = Duration::from_millis;
    let spawn = |cluster: &Cluster, id: u64| {
        // Node 1 leads, and leads on for a while when it hears from few.
        let (min, max) = if id == 1 {
            (3000, 3500)
        } else {
            (20_000, 30_000)
        };
        let config = cluster.config(id).heartbeat_interval(ms(20));
        RaftActor::spawn(config.election_timeout(ms(min), ms(max))).unwrap()
    };
    cluster.nodes = (1..=5).map(|id| spawn(&cluster, id)).collect();
    assert_eq!(cluster.leader().await, 1);
    let kept = cluster.acknowledged_by(2, 1, "kept").await;
    for id in 3..=5 {
        cluster.node(id).send(Shutdown).await.unwrap().unwrap();
    }
    let outcome = cluster.node(1).send(Propose::new("on two of five"));
    until("it to arrive", async || {
        (status(cluster.node(2)).await.last.index > kept).then_some(())
    })
    .await;
    tokio::time::sleep(ms(50)).await;
    cluster.node(2).send(Shutdown).await.unwrap().unwrap();
    cluster.disks[1].lose_from(LogIndex(kept.0 + 1));
    let damaged = spawn(&cluster, 2);
    assert_eq!(lost_by(&damaged).await.0, NodeId(1));

    cluster.nodes[2] = spawn(&cluster, 3);
    until("it to arrive at the third", async || {
        (status(cluster.node(3)).await.last.index > kept).then_some(())
    })
    .await;
    tokio::time::sleep(ms(200)).await;
    let leader = status(cluster.node(1)).await;
    assert_eq!(leader.role, Role::Leader);
    assert_eq!(leader.commit, kept, "two have it");
    cluster.nodes[3] = spawn(&cluster, 4);
    assert!(outcome.await.unwrap().unwrap().index > kept);
}

/// Long enough for a test to tell an election that waits for it from one that does not.
const PATIENT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(4));
const EARLY: Duration = Duration::from_secs(2);

impl Cluster {
    /// Three nodes with patience, each of which reaches the others as `routes` says.
    async fn start_patient(early: bool, routes: impl Fn(u64, u64, &str) -> String) -> Self {
        let mut cluster = Self::new(3);
        let spawn = |id: u64| {
            let route = |(to, address): &(NodeId, String)| (*to, routes(id, to.0, address));
            let peers: Vec<_> = cluster.peers.iter().map(route).collect();
            let config = cluster.config(id).peers(peers);
            let config = config
                .election_timeout(PATIENT.0, PATIENT.1)
                .early_campaign(early);
            RaftActor::spawn(config).unwrap()
        };
        cluster.nodes = (1..=3).map(spawn).collect();
        cluster
    }

    /// Ends the leader as its process's death would; says who it was, and since when it does not lead.
    async fn lose_leader(&self) -> (NodeId, Instant) {
        let leader = self.leader().await;
        // A connection must have lived for a while to be dialled again at once.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let since = Instant::now();
        self.end_without_handover(leader).await;
        (NodeId(leader), since)
    }
}

fn direct(_: u64, _: u64, address: &str) -> String {
    address.to_owned()
}

#[actix::test]
async fn a_leader_that_is_gone_is_replaced_without_waiting_for_the_clock() {
    let cluster = Cluster::start_patient(true, direct).await;
    let (gone, since) = cluster.lose_leader().await;
    let others = || (1..=3).filter(|id| NodeId(*id) != gone);
    until("another leader", async || {
        for id in others() {
            let leader = status(cluster.node(id)).await.leader;
            leader.filter(|leader| *leader != gone)?;
        }
        Some(())
    })
    .await;
    let took = since.elapsed();
    assert!(took < EARLY, "{took:?}");
}

#[actix::test]
async fn with_the_early_campaign_switched_off_everybody_waits() {
    let cluster = Cluster::start_patient(false, direct).await;
    let (gone, since) = cluster.lose_leader().await;
    tokio::time::sleep(EARLY.saturating_sub(since.elapsed())).await;
    for id in (1..=3).filter(|id| NodeId(*id) != gone) {
        assert_eq!(status(cluster.node(id)).await.leader, Some(gone));
    }
}

/// From one node to another, as long as it is not told to break all that it carries.
fn route(to: String, breaks: &tokio::sync::broadcast::Sender<()>) -> String {
    let port = free_port();
    let breaks = breaks.clone();
    actix::spawn(async move {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.unwrap();
        loop {
            let Ok((mut near, _)) = listener.accept().await else {
                return;
            };
            let (to, mut broken) = (to.clone(), breaks.subscribe());
            actix::spawn(async move {
                let Ok(mut far) = tokio::net::TcpStream::connect(to).await else {
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = broken.recv() => {}
                }
            });
        }
    });
    format!("127.0.0.1:{port}")
}

#[actix::test]
async fn a_link_that_breaks_deposes_nobody() {
    let breaks = tokio::sync::broadcast::channel(64).0;
    let routes = |from: u64, to: u64, address: &str| match from == to {
        true => address.to_owned(),
        false => route(address.to_owned(), &breaks),
    };
    let cluster = Cluster::start_patient(true, routes).await;
    let leader = cluster.leader().await;
    let before = status(cluster.node(leader)).await;
    let is_whole = |node: &NodeStatus| {
        let mut others = node.members.iter().filter(|member| member.id != node.id);
        others.all(|member| member.connected)
    };
    for _ in 0..5 {
        breaks.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until("the connections to be there again", async || {
        for id in 1..=3 {
            is_whole(&status(cluster.node(id)).await).then_some(())?;
        }
        Some(())
    })
    .await;
    for id in 1..=3 {
        let after = status(cluster.node(id)).await;
        assert_eq!(
            (after.term, after.leader),
            (before.term, Some(NodeId(leader)))
        );
    }
    let went_on = cluster.node(leader % 3 + 1).send(Propose::new("goes on"));
    went_on.await.unwrap().unwrap();
}
