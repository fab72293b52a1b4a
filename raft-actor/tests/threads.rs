//! Where a node applies and hands over: on the thread that the program says.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_actor::{
    ApplyError, At, Capture, Config, DeliveredBatch, GetStatus, MemoryDisk, NodeFailure, NodeId,
    Phase, Propose, RaftActor, Role, Shutdown, StateMachine, Subscribe, capture,
};

/// What was applied or handed over, and on which threads.
type Seen = Arc<Mutex<Vec<(String, ThreadId)>>>;

struct Subscriber(Seen);

impl Actor for Subscriber {
    type Context = Context<Self>;
}

impl Handler<DeliveredBatch> for Subscriber {
    type Result = ();

    fn handle(&mut self, DeliveredBatch(events): DeliveredBatch, _: &mut Self::Context) {
        let text = |command: &[u8]| String::from_utf8(command.to_vec()).unwrap();
        let seen = events
            .iter()
            .map(|event| (text(&event.command), thread::current().id()));
        self.0.lock().unwrap().extend(seen);
    }
}

/// Writes down what it is to apply.
struct Diary(Seen);

impl StateMachine for Diary {
    type Command = String;
    type Response = ();

    fn apply(&mut self, _: At, command: String) -> Result<(), ApplyError> {
        let seen = (command, thread::current().id());
        self.0.lock().unwrap().push(seen);
        Ok(())
    }

    fn snapshot(&self) -> Capture {
        capture(())
    }

    fn restore(&mut self, _: &mut dyn std::io::Read) -> std::io::Result<()> {
        Ok(())
    }
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The thread of an arbiter.
async fn id(arbiter: &ArbiterHandle) -> ThreadId {
    let (tell, told) = tokio::sync::oneshot::channel();
    assert!(arbiter.spawn_fn(move || tell.send(thread::current().id()).unwrap()));
    told.await.unwrap()
}

#[actix::test]
async fn nodes_share_a_thread_for_what_they_hand_over_and_leave_it_as_it_was() {
    let there = Arbiter::new().handle();
    let peers: Vec<_> = (1..=3)
        .map(|id| (NodeId(id), format!("memory/deliver-on:{id}")))
        .collect();
    let (mut nodes, mut all) = (Vec::new(), Vec::new());
    for id in 1..=3 {
        let config = Config::new(NodeId(id)).peers(peers.clone());
        let config = config.memory(MemoryDisk::new()).here();
        let node = RaftActor::spawn(config.deliver_on(there.clone())).unwrap();
        let seen = Seen::default();
        let subscriber = Subscriber(Arc::clone(&seen));
        let subscriber = Subscriber::start_in_arbiter(&there, |_| subscriber);
        let subscribe = Subscribe::from_start(subscriber.recipient::<DeliveredBatch>());
        node.send(subscribe).await.unwrap().unwrap();
        nodes.push(node);
        all.push(seen);
    }
    let mut expected = Vec::new();
    for n in 0..90 {
        let text = n.to_string();
        let proposed = nodes[n % 3].send(Propose::new(text.clone()));
        proposed.await.unwrap().unwrap();
        expected.push((text, id(&there).await));
    }
    for seen in &all {
        let handed_over = async || (seen.lock().unwrap().len() >= 90).then_some(());
        until("the deliveries", handed_over).await;
        assert_eq!(*seen.lock().unwrap(), expected);
    }
    for node in nodes {
        node.send(Shutdown).await.unwrap().unwrap();
    }
    assert_eq!(id(&there).await, expected[0].1, "it goes on without them");
}

#[actix::test]
async fn a_state_machine_is_run_there_and_ends_with_it() {
    let there = Arbiter::new();
    let config = Config::new(NodeId(1)).peers([(NodeId(1), "memory/deliver-on-machine:1")]);
    let config = config
        .memory(MemoryDisk::new())
        .deliver_on(there.handle())
        .propose_timeout(Duration::from_secs(5));
    let seen = Seen::default();
    let node = RaftActor::spawn_with(config, Diary(Arc::clone(&seen))).unwrap();
    let command = rmp_serde::to_vec("one").unwrap();
    node.send(Propose::new(command)).await.unwrap().unwrap();
    let expected = ("one".to_owned(), id(&there.handle()).await);
    assert_eq!(*seen.lock().unwrap(), [expected]);
    there.stop();
    let failed = async || match node.send(GetStatus).await.unwrap().phase {
        Phase::Failed(failure) => Some(failure),
        _ => None,
    };
    let failure = until("the node's failure", failed).await;
    assert_eq!(failure, NodeFailure::PartStopped("delivery"));
    let refused = node.send(Propose::new("two")).await.unwrap();
    assert!(refused.is_err());
}

#[actix::test]
async fn a_thread_that_is_not_there_any_more_is_told() {
    let there = Arbiter::new();
    let gone = there.handle();
    there.stop();
    there.join().unwrap();
    let config = Config::new(NodeId(1)).peers([(NodeId(1), "memory/deliver-on-none:1")]);
    let config = config.memory(MemoryDisk::new()).deliver_on(gone);
    let node = RaftActor::spawn(config).unwrap();
    let failed = async || match node.send(GetStatus).await.unwrap().phase {
        Phase::Failed(failure) => Some(failure),
        _ => None,
    };
    let failure = until("the node's failure", failed).await;
    assert_eq!(failure, NodeFailure::PartStopped("delivery"));
    let refused = node.send(Propose::new("one")).await.unwrap();
    assert!(refused.is_err());
    let ended = node.send(Shutdown).await.unwrap();
    assert_eq!(ended, Err(NodeFailure::PartStopped("delivery")));
}

#[actix::test]
async fn what_a_node_leaves_there_when_its_own_thread_ends_ends_too() {
    let (there, home) = (Arbiter::new(), Arbiter::new());
    let config = Config::new(NodeId(1)).peers([(NodeId(1), "memory/deliver-on-left:1")]);
    let config = config
        .memory(MemoryDisk::new())
        .here()
        .deliver_on(there.handle());
    let seen = Seen::default();
    let diary = Diary(Arc::clone(&seen));
    let (tell, told) = tokio::sync::oneshot::channel();
    assert!(home.spawn(async move {
        let node = RaftActor::spawn_with(config, diary).unwrap();
        let command = rmp_serde::to_vec("one").unwrap();
        node.send(Propose::new(command)).await.unwrap().unwrap();
        // Nobody has it shut down.
        tell.send(node.downgrade()).unwrap();
    }));
    let node = told.await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
    home.stop();
    home.join().unwrap();
    assert!(node.upgrade().is_none_or(|node| !node.connected()));
    let dropped = async || (Arc::strong_count(&seen) == 1).then_some(());
    until("the state machine's end", dropped).await;
    id(&there.handle()).await;
}

#[actix::test]
async fn who_syncs_inline_is_deaf_while_its_disk_hangs_and_others_lead() {
    let peers: Vec<_> = (1..=3)
        .map(|id| (NodeId(id), format!("memory/inline:{id}")))
        .collect();
    let disks = [(); 3].map(|()| MemoryDisk::new());
    let start = |(id, disk): (u64, &MemoryDisk)| {
        let config = Config::new(NodeId(id)).peers(peers.clone());
        let config = config.propose_timeout(Duration::from_secs(60));
        RaftActor::spawn(config.memory(disk.clone()).sync_inline(true)).unwrap()
    };
    let nodes: Vec<_> = (1..).zip(&disks).map(start).collect();
    nodes[0].send(Propose::new("one")).await.unwrap().unwrap();
    let leader_of = async |among: &[usize]| {
        for at in among {
            let status = nodes[*at].send(GetStatus).await.unwrap();
            if status.role == Role::Leader {
                return Some(*at);
            }
        }
        None
    };
    let leads = until("a leader", || leader_of(&[0, 1, 2])).await;
    let others: Vec<_> = (0..3).filter(|at| *at != leads).collect();
    disks[leads].hold();
    let hangs = nodes[leads].send(Propose::new("two"));
    let disk = disks[leads].clone();
    let held = tokio::task::spawn_blocking(move || disk.wait_until_held());
    held.await.unwrap();
    until("another leader", || leader_of(&others)).await;
    let next = nodes[others[0]].send(Propose::new("three"));
    let committed = next.await.unwrap().unwrap();
    let status = nodes[leads].send(GetStatus);
    let deaf = tokio::time::timeout(Duration::from_millis(100), status).await;
    assert!(deaf.is_err(), "its thread waits for the disk: {deaf:?}");
    disks[leads].release();
    let late = tokio::time::timeout(Duration::from_secs(20), hangs).await;
    late.unwrap().unwrap().unwrap();
    let caught_up = async || {
        let status = nodes[leads].send(GetStatus).await.unwrap();
        (status.applied >= committed.index).then_some(())
    };
    until("what was committed meanwhile", caught_up).await;
    for node in nodes {
        node.send(Shutdown).await.unwrap().unwrap();
    }
}
