//! Nodes held by programs without actix: the same nodes, sockets and disks of memory as in `cluster.rs`.

#![allow(clippy::unwrap_used)]

#[path = "support/ports.rs"]
mod ports;

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use raft_actor::{
    ApplyError, At, Cancellation, Capture, CommandError, Config, Event, Events, LogIndex,
    MemoryDisk, NodeEnded, NodeFailure, NodeId, NodeView, OpenSession, Phase, Position, Propose,
    ProposeError, Raft, ReadError, Role, Session, Snapshots, StartError, StateMachine,
    SubscribeError, SubscriptionEnd, UnknownCause, capture, restored,
};

use ports::free_port;

/// Adds numbers, refuses 13, and stops the system it runs in at 99.
#[derive(Default)]
struct Sum {
    sum: u64,
    applied: u64,
}

impl StateMachine for Sum {
    type Command = u64;
    type Response = u64;

    fn apply(&mut self, _: At, command: u64) -> Result<u64, ApplyError> {
        match command {
            13 => return Err(ApplyError::new("bad luck")),
            66 => panic!("66"),
            99 => actix::System::current().stop(),
            _ => {}
        }
        self.sum += command;
        self.applied += 1;
        Ok(self.sum)
    }

    fn snapshot(&self) -> Capture {
        capture((self.sum, self.applied))
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        (self.sum, self.applied) = restored(from)?;
        Ok(())
    }
}

struct Plan {
    peers: Vec<(NodeId, String)>,
    disks: Vec<MemoryDisk>,
}

impl Plan {
    fn new(size: u64) -> Self {
        let addresses = (0..size).map(|_| format!("127.0.0.1:{}", free_port()));
        Self {
            peers: (1..=size).map(NodeId).zip(addresses).collect(),
            disks: (0..size).map(|_| MemoryDisk::new()).collect(),
        }
    }

    fn config(&self, id: u64) -> Config {
        Config::new(NodeId(id))
            .peers(self.peers.clone())
            .memory(self.disks[id as usize - 1].clone())
    }

    async fn start(&self, id: u64) -> Raft {
        Raft::start(self.config(id)).await.unwrap()
    }

    async fn start_sum(&self, id: u64) -> Raft {
        let started = Raft::start_with(self.config(id), Sum::default());
        started.await.unwrap()
    }
}

async fn three() -> Vec<Raft> {
    let plan = Plan::new(3);
    vec![
        plan.start(1).await,
        plan.start(2).await,
        plan.start(3).await,
    ]
}

async fn three_sums() -> (Plan, Vec<Raft>) {
    let plan = Plan::new(3);
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(plan.start_sum(id).await);
    }
    (plan, nodes)
}

async fn one() -> (Plan, Raft) {
    let plan = Plan::new(1);
    let raft = plan.start(1).await;
    (plan, raft)
}

/// No wait of these tests is allowed to be longer.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = tokio::time::timeout(Duration::from_secs(20), what);
    limit.await.expect("it ends within 20 s")
}

async fn leader(nodes: &[Raft]) -> usize {
    let find = async {
        loop {
            for (at, node) in nodes.iter().enumerate() {
                if matches!(node.status().await, Ok(status) if status.role == Role::Leader) {
                    return at;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(find).await
}

async fn next(events: &mut Events) -> (LogIndex, String) {
    match soon(events.recv()).await.unwrap() {
        Event::Delivered(event) => {
            let text = String::from_utf8_lossy(&event.command).into_owned();
            (event.index, text)
        }
        other => panic!("{other:?}"),
    }
}

async fn take(events: &mut Events, count: usize) -> Vec<(LogIndex, String)> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(events).await);
    }
    taken
}

#[test]
fn a_handle_goes_anywhere() {
    fn anywhere<T: Send + Sync + 'static>(_: &T) {}
    fn task<F: Future + Send + 'static>(_: F) {}
    fn cases(raft: Raft, events: Events, session: Session) {
        anywhere(&raft.clone());
        anywhere(&session.clone());
        anywhere(&events);
        task(async move {
            let _ = raft.read(|sum: &Sum| sum.sum).await;
            let _ = raft.propose_batch(["a"]).await;
            let _ = raft.channels(Position::Now).await;
            let _ = raft.shutdown().await;
            let _ = session.propose("a").await;
            let _ = session.close().await;
            events.close().await;
        });
    }
    let _ = cases;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_deliver_in_one_order() {
    let nodes = three().await;
    let mut committed = Vec::new();
    let tasks: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(n, node)| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                for i in 0..30 {
                    let text = format!("{n}-{i}");
                    done.push((node.propose(text.clone()).await.unwrap().index, text));
                }
                let texts: Vec<_> = (0..30).map(|i| format!("{n}-batch-{i}")).collect();
                let outcomes = node.propose_batch(texts.clone()).await;
                assert_eq!(outcomes.len(), 30);
                done.extend(outcomes.into_iter().map(|o| o.unwrap().index).zip(texts));
                done
            })
        })
        .collect();
    for task in tasks {
        committed.extend(soon(task).await.unwrap());
    }
    committed.sort();
    for node in &nodes {
        let mut events = node.subscribe(Position::Start).await.unwrap();
        assert_eq!(take(&mut events, 180).await, committed);
        let index = committed[100].0;
        let mut events = node.subscribe(Position::Index(index)).await.unwrap();
        assert_eq!(events.first(), index);
        assert_eq!(next(&mut events).await, committed[100]);
        // This node may learn a moment later than the proposers what is committed.
        assert!(node.read_index().await.unwrap() >= committed[179].0);
        let mut events = node.subscribe(Position::Now).await.unwrap();
        assert!(events.first() > committed[179].0);
        let late = node.propose("late").await.unwrap();
        assert_eq!(next(&mut events).await, (late.index, "late".to_owned()));
    }
    let zero = nodes[0].subscribe(Position::Index(LogIndex(0))).await;
    assert_eq!(zero.map(drop).unwrap_err(), SubscribeError::IndexZero);

    let leads = leader(&nodes).await;
    let (to, other) = (NodeId(leads as u64 % 3 + 1), nodes[(leads + 1) % 3].clone());
    let next_id = NodeId((leads as u64 + 1) % 3 + 1);
    assert_ne!(to, next_id);
    // Who does not lead has the leader do it.
    assert_eq!(soon(other.transfer_leadership(next_id)).await, Ok(next_id));
    nodes[leads].propose("under another").await.unwrap();
    let mut watched = Vec::new();
    for node in &nodes {
        let mut views = node.watch().await.unwrap();
        let leads = |view: &NodeView| view.leader == Some(next_id);
        soon(views.wait_for(leads)).await.unwrap();
        assert!(node.health().await.unwrap().live);
        watched.push(views);
    }
    for (node, mut views) in nodes.iter().zip(watched) {
        soon(node.shutdown()).await.unwrap();
        soon(async { while views.changed().await.is_ok() {} }).await;
        assert_eq!(node.health().await, Err(NodeEnded));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_machine_is_applied_to_read_and_handed_over_as_a_snapshot() {
    let plan = Plan::new(1);
    let snapshots = Snapshots {
        every_entries: 0,
        every_bytes: 0,
        margin_entries: 0,
    };
    let config = plan.config(1).snapshots(snapshots);
    let raft = Raft::start_with(config.clone(), Sum::default())
        .await
        .unwrap();
    assert_eq!(raft.apply::<Sum>(&40).await, Ok(40));
    let committed = raft.propose(Propose::of(&2_u64).unwrap()).await.unwrap();
    assert_eq!(committed.response_as::<u64>(), Ok(42));
    let read = raft.read(|sum: &Sum| sum.sum).await.unwrap();
    assert!(read.value == 42 && read.index >= committed.index);
    assert_eq!(
        raft.read_stale(|sum: &Sum| sum.applied)
            .await
            .unwrap()
            .value,
        2
    );
    let other = raft.read(|text: &String| text.len()).await;
    assert_eq!(other, Err(ReadError::NoSuchMachine));
    let refused = raft.apply::<Sum>(&13).await.unwrap_err();
    assert!(
        matches!(
            &refused,
            CommandError::Propose(ProposeError::Refused { .. })
        ),
        "{refused}"
    );

    let last = soon(raft.take_snapshot()).await.unwrap();
    assert_eq!(raft.apply::<Sum>(&8).await, Ok(50));
    // What is still in memory would be handed over from there.
    soon(raft.shutdown()).await.unwrap();
    let raft = Raft::start_with(config, Sum::default()).await.unwrap();
    let mut events = raft.subscribe(Position::Start).await.unwrap();
    let Ok(Event::Snapshot(mut snapshot)) = soon(events.recv()).await else {
        panic!("the beginning is compacted")
    };
    assert_eq!(snapshot.last(), last);
    let mut replica = Sum::default();
    replica.restore(&mut snapshot).unwrap();
    assert_eq!((replica.sum, snapshot.read(&mut [0]).unwrap()), (42, 0));
    let Ok(Event::Delivered(event)) = soon(events.recv()).await else {
        panic!("the rest is in the log")
    };
    assert!(event.index > last.index);

    let (_, mut receiver) = raft.channels(Position::Start).await.unwrap();
    let end = SubscriptionEnd::Compacted {
        first: last.index.next(),
    };
    assert_eq!(soon(receiver.recv()).await, Err(end));
    assert_eq!(soon(receiver.recv()).await, Err(end));
    soon(raft.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_state_machine_what_is_compacted_is_a_gap() {
    let plan = Plan::new(1);
    let config = plan.config(1).retention(1);
    let raft = Raft::start(config.clone()).await.unwrap();
    for text in ["one", "two"] {
        raft.propose(text).await.unwrap();
    }
    let last = soon(raft.take_snapshot()).await.unwrap();
    soon(raft.shutdown()).await.unwrap();
    let raft = Raft::start(config).await.unwrap();
    let three = raft.propose("three").await.unwrap();
    let mut events = raft.subscribe(Position::Start).await.unwrap();
    let Ok(Event::Gap { from, first }) = soon(events.recv()).await else {
        panic!("the beginning is compacted")
    };
    // The entry of "two" is kept.
    assert_eq!((from, first), (LogIndex(1), last.index));
    assert_eq!(next(&mut events).await, (last.index, "two".to_owned()));
    assert_eq!(next(&mut events).await, (three.index, "three".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_reason() {
    let (_plan, raft) = one().await;
    raft.propose("one").await.unwrap();
    let events = raft.subscribe(Position::Start).await.unwrap();
    let (handed, mut handing) = tokio::sync::mpsc::unbounded_channel();
    let events = events.inspect(move |_| {
        let _ = handed.send(());
    });
    let collecting = tokio::spawn(events.collect::<Vec<_>>());
    // What was not handed over when the node ends is not.
    soon(handing.recv()).await.unwrap();
    let mut failing = raft.subscribe(Position::Start).await.unwrap();
    assert!(matches!(
        failing.try_next().await,
        Ok(Some(Event::Delivered(_)))
    ));
    soon(raft.shutdown()).await.unwrap();
    let items = soon(collecting).await.unwrap();
    assert!(matches!(items[0], Ok(Event::Delivered(_))));
    assert_eq!(items[1].as_ref().unwrap_err(), &SubscriptionEnd::NodeEnded);
    assert_eq!(items.len(), 2);
    for _ in 0..2 {
        let end = soon(failing.recv()).await.unwrap_err();
        assert_eq!(end, SubscriptionEnd::NodeEnded);
    }
    let gone = raft.subscribe(Position::Start).await;
    assert_eq!(gone.map(drop).unwrap_err(), SubscribeError::NodeEnded);
}

/// Nothing runs ahead of a reader that does not come back: what it was not handed, and the batch that it is in the middle
/// of, are not handled, so its cursor is before them. With a relay that answers at once, this fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_follows_what_the_reader_came_back_from() {
    let (plan, raft) = one().await;
    let texts: Vec<_> = (0..2000).map(|i| i.to_string()).collect();
    for outcome in raft.propose_batch(texts.clone()).await {
        outcome.unwrap();
    }
    let cursor = || Position::Cursor("reader".to_owned());
    let mut events = raft.subscribe(cursor()).await.unwrap();
    let taken: Vec<_> = take(&mut events, 700).await;
    assert_eq!(taken[699].1, "699");
    // As long as it would take to run ahead.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let used = raft.subscribe(cursor()).await.map(drop).unwrap_err();
    assert_eq!(used, SubscribeError::CursorInUse("reader".to_owned()));
    soon(events.close()).await;

    let mut events = raft.subscribe(cursor()).await.unwrap();
    let (_, again) = next(&mut events).await;
    let again: usize = again.parse().unwrap();
    assert!((1..700).contains(&again), "from {again} on again");
    assert!(
        again <= 512,
        "the first batch alone was come back from: {again}"
    );
    let rest = take(&mut events, 1999 - again).await;
    assert_eq!(rest.last().unwrap().1, "1999");
    // It comes back from the last one, for one that is not there yet.
    let pending = tokio::time::timeout(Duration::from_millis(200), events.recv()).await;
    assert!(pending.is_err());
    drop(events);
    soon(raft.shutdown()).await.unwrap();

    let raft = plan.start(1).await;
    let mut events = raft.subscribe(cursor()).await.unwrap();
    raft.propose("new").await.unwrap();
    assert_eq!(next(&mut events).await.1, "new");
    soon(events.close()).await;
    raft.forget_cursor("reader").await.unwrap();
    let mut events = raft.subscribe(cursor()).await.unwrap();
    assert_eq!(next(&mut events).await.1, "0");
}

/// More than one session names: the node opens another one for the rest, and nothing overtakes anything meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn more_is_under_way_than_a_session_has_names_for() {
    const BATCHES: usize = 3;
    const BATCH: usize = 30_000;
    let plan = Plan::new(1);
    let config = plan.config(1).proposals_max(BATCHES * BATCH, 64 << 20);
    let config = config.election_timeout(Duration::from_secs(5), Duration::from_secs(6));
    let raft = Raft::start(config).await.unwrap();
    raft.propose("first").await.unwrap();
    // None of them is acknowledged before all are under way.
    plan.disks[0].hold();
    let batches: Vec<_> = (0..BATCHES)
        .map(|batch| {
            let raft = raft.clone();
            let texts = (0..BATCH).map(move |i| format!("{batch}-{i}"));
            tokio::spawn(async move { raft.propose_batch(texts).await })
        })
        .collect();
    let all_wait = async {
        while raft.status().await.unwrap().proposals_waiting < BATCHES * BATCH {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(all_wait).await;
    plan.disks[0].release();
    let mut all = BTreeSet::new();
    for batch in batches {
        let mut last = LogIndex(0);
        for outcome in soon(batch).await.unwrap() {
            let index = outcome.unwrap().index;
            assert!(index > last && all.insert(index));
            last = index;
        }
    }
    assert_eq!(all.len(), BATCHES * BATCH);
    let (first, last) = (all.first().unwrap(), all.last().unwrap());
    assert!(
        last.0 - first.0 >= all.len() as u64,
        "no other session was opened between them"
    );
    let mut events = raft.subscribe(Position::Start).await.unwrap();
    let texts: BTreeSet<_> = take(&mut events, 1 + BATCHES * BATCH)
        .await
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert_eq!(texts.len(), 1 + BATCHES * BATCH, "each once");
    soon(raft.shutdown()).await.unwrap();
}

/// The reader who does not read costs the others nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_holds_up_nobody() {
    let (_plan, raft) = one().await;
    let mut idle = raft.subscribe(Position::Start).await.unwrap();
    let mut events = raft.subscribe(Position::Start).await.unwrap();
    for round in 0..5 {
        let texts: Vec<_> = (0..1000).map(|i| format!("{round}-{i}")).collect();
        for outcome in raft.propose_batch(texts).await {
            outcome.unwrap();
        }
        assert_eq!(take(&mut events, 1000).await[999].1, format!("{round}-999"));
    }
    assert_eq!(take(&mut idle, 5000).await[4999].1, "4-999");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_lets_the_node_go() {
    let (plan, raft) = one().await;
    raft.propose("kept").await.unwrap();
    let events = raft.subscribe(Position::Start).await.unwrap();
    let addr = raft.addr().clone();
    drop(raft.clone());
    drop(raft);
    // The stream is a handle too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(addr.connected());
    let error = Raft::start(plan.config(1)).await.map(drop).unwrap_err();
    assert!(matches!(error, StartError::Open(_)), "{error}");
    drop(events);
    let ended = async {
        while addr.connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(ended).await;
    let raft = plan.start(1).await;
    let mut events = raft.subscribe(Position::Start).await.unwrap();
    assert_eq!(next(&mut events).await.1, "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_shut_down_says_so_to_all() {
    let (_plan, raft) = one().await;
    let session = raft.open_session(OpenSession::new()).await.unwrap();
    let waiting = tokio::spawn({
        let raft = raft.clone();
        async move { raft.ended().await }
    });
    soon(raft.shutdown()).await.unwrap();
    soon(waiting).await.unwrap().unwrap();
    soon(raft.shutdown()).await.unwrap();
    soon(raft.ended()).await.unwrap();
    assert_eq!(raft.status().await, Err(NodeEnded));
    assert_eq!(raft.propose("no").await, Err(ProposeError::ShuttingDown));
    assert_eq!(session.propose("no").await, Err(ProposeError::ShuttingDown));
    assert_eq!(raft.propose_batch(["no", "no"]).await.len(), 2);
    assert_eq!(raft.read_index().await, Err(ReadError::NodeEnded));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_the_end_is_answered() {
    let (_plan, raft) = one().await;
    let last = raft.propose("one").await.unwrap();
    let both = async { tokio::join!(raft.read_index(), raft.shutdown()) };
    let (read, end) = soon(both).await;
    assert!(read.unwrap() >= last.index);
    end.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_node_says_why_and_lets_its_disk_go_with_its_handle() {
    let plan = Plan::new(1);
    let raft = plan.start_sum(1).await;
    let error = raft.apply::<Sum>(&66).await.unwrap_err();
    assert!(
        matches!(&error, CommandError::Propose(ProposeError::Unknown { .. })),
        "{error}"
    );
    for _ in 0..2 {
        let failure = soon(raft.ended()).await.unwrap_err();
        assert!(
            matches!(failure, NodeFailure::StateMachinePanicked { .. }),
            "{failure}"
        );
    }
    let phase = raft.status().await.unwrap().phase;
    assert!(matches!(phase, Phase::Failed(_)), "{phase:?}");
    let failure = soon(raft.shutdown()).await.unwrap_err();
    assert_eq!(failure, soon(raft.ended()).await.unwrap_err());
    assert_eq!(failure, soon(raft.shutdown()).await.unwrap_err());
    plan.start(1).await;
}

/// The worst that can be done to it: somebody stops the system under everybody who waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_system_ends_every_wait() {
    let plan = Plan::new(1);
    let raft = plan.start_sum(1).await;
    raft.apply::<Sum>(&1).await.unwrap();
    let mut events = raft.subscribe(Position::Now).await.unwrap();
    let mut handed = raft.subscribe(Position::Start).await.unwrap();
    next(&mut handed).await;
    let ended = tokio::spawn({
        let raft = raft.clone();
        async move { raft.ended().await }
    });
    plan.disks[0].hold();
    let waiting = tokio::spawn({
        let raft = raft.clone();
        async move { raft.apply::<Sum>(&99).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let session = raft.resume_session(raft_actor::SessionId(1), 1);
    let behind = tokio::spawn(async move { session.propose("behind").await });
    plan.disks[0].release();
    let error = soon(waiting).await.unwrap();
    assert!(
        matches!(
            &error,
            Err(CommandError::Propose(ProposeError::Unknown {
                cause: UnknownCause::NodeEnded,
                ..
            })) | Ok(100)
        ),
        "{error:?}"
    );
    soon(behind).await.unwrap().unwrap_err();
    soon(ended).await.unwrap().unwrap_err();
    loop {
        match soon(events.recv()).await {
            Ok(_) => {}
            Err(end) => break assert_eq!(end, SubscriptionEnd::NodeEnded),
        }
    }
    while soon(handed.recv()).await.is_ok() {}
    soon(raft.shutdown()).await.unwrap_err();
    soon(raft.read(|sum: &Sum| sum.sum)).await.unwrap_err();
    // Its address and its folder are free, though there are handles.
    plan.start_sum(1).await;
}

/// Nine clients' worth of additions, outstanding together, while leaders end: each is applied once.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_retries_across_its_leaders_end() {
    let (plan, mut nodes) = three_sums().await;
    let leads = leader(&nodes).await;
    let at = (leads + 1) % 3;
    let session = nodes[at].open_session(OpenSession::new()).await.unwrap();
    let patient = |n: u64| Propose::of(&n).unwrap().timeout(Duration::from_secs(20));
    let clients: Vec<_> = (0..9)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..50 {
                    let committed = session.propose(patient(1)).await.unwrap();
                    answers.push(committed.response_as::<u64>().unwrap());
                }
                answers
            })
        })
        .collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let leads = leader(&nodes).await;
        if leads == at {
            continue;
        }
        soon(nodes[leads].shutdown()).await.unwrap();
        nodes[leads] = plan.start_sum(leads as u64 + 1).await;
    }
    let mut answers = BTreeSet::new();
    for client in clients {
        answers.extend(
            tokio::time::timeout(Duration::from_secs(60), client)
                .await
                .unwrap()
                .unwrap(),
        );
    }
    // No answer twice, and none left out: each addition was one.
    assert!(answers.into_iter().eq(1..=450));
    assert_eq!((session.low(), session.outstanding()), (451, vec![]));
    for node in &nodes {
        let read = node.read(|sum: &Sum| (sum.sum, sum.applied)).await.unwrap();
        assert_eq!(read.value, (450, 450));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_in_the_next_life_of_its_client() {
    let (_plan, nodes) = three_sums().await;
    let session = nodes[0].open_session(OpenSession::new()).await.unwrap();
    assert_eq!(session.apply::<Sum>(&5).await, Ok(5));
    let kept = [session.reserve(), session.reserve(), session.reserve()];
    assert_eq!((kept, session.low()), ([2, 3, 4], 2));
    // The middle one is applied; then the client forgets everything but what it kept.
    let second = Propose::of(&20_u64).unwrap();
    let first_life = session.propose_as(3, second.clone()).await.unwrap();
    let (id, low) = (session.id(), session.low());
    drop(session);

    let session = nodes[1].resume_session(id, low);
    assert_eq!(session.resolve(2).await, Ok(None));
    // Out of order: those before are not forgotten by that.
    assert_eq!(session.propose_as(3, second).await, Ok(first_life.clone()));
    assert_eq!(session.outstanding(), [2]);
    assert_eq!(session.resolve(3).await, Ok(Some(first_life)));
    let first = Propose::of(&10_u64).unwrap();
    let committed = session.propose_as(2, first.clone()).await.unwrap();
    assert_eq!(committed.response_as::<u64>(), Ok(35));
    assert!(matches!(
        session.cancel(2).await,
        Ok(Cancellation::Applied(_))
    ));
    assert_eq!(session.cancel(4).await, Ok(Cancellation::Cancelled));
    let cancelled = session.propose_as(4, first.clone()).await;
    assert_eq!(cancelled, Err(ProposeError::Cancelled));
    assert_eq!((session.low(), session.outstanding()), (5, vec![]));
    assert_eq!(session.apply::<Sum>(&1).await, Ok(36));
    let done = session.propose_as(2, first.clone()).await.unwrap_err();
    assert!(matches!(done, ProposeError::Done(_)), "{done}");
    let zero = session.propose_as(0, first.clone()).await;
    assert_eq!(zero, Err(ProposeError::SequenceZero));
    let far = session
        .propose_as(1 << 40, first.clone())
        .await
        .unwrap_err();
    assert!(matches!(far, ProposeError::BeyondWindow(_)), "{far}");

    let id = session.id();
    session.clone().close().await.unwrap();
    let closed = session.propose(first).await;
    assert_eq!(closed, Err(ProposeError::SessionExpired(id)));
}

/// What may have been sent by an earlier life is not called certainly not applied by a node that was too busy to look.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_life_may_have_sent_is_unknown_until_the_cluster_says() {
    let plan = Plan::new(1);
    let raft = Raft::start(plan.config(1).proposals_max(1, 1 << 20))
        .await
        .unwrap();
    let session = raft.open_session(OpenSession::new()).await.unwrap();
    let resumed = raft.resume_session(session.id(), 1);
    plan.disks[0].hold();
    let waiting = tokio::spawn({
        let raft = raft.clone();
        async move { raft.propose("takes the only place").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let short = Propose::new("x").timeout(Duration::from_millis(200));
    let since = Instant::now();
    assert_eq!(
        session.propose(short.clone()).await,
        Err(ProposeError::Busy)
    );
    assert!(
        since.elapsed() >= Duration::from_millis(150),
        "it tried for as long as it might"
    );
    assert_eq!(session.low(), 2);
    let unknown = resumed.propose(short).await.unwrap_err();
    assert!(
        matches!(unknown, ProposeError::Unknown { id: Some(_), .. }),
        "{unknown}"
    );
    assert_eq!(resumed.outstanding(), [1]);
    // With the place free again, the same session gets through by itself.
    let patient = tokio::spawn(async move { resumed.propose_as(1, "x").await });
    plan.disks[0].release();
    soon(waiting).await.unwrap().unwrap();
    soon(patient).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_into_one_channel_comes_out_of_all() {
    let plan = Plan::new(3);
    let mut nodes = Vec::new();
    for id in 1..=3 {
        // Less room than there are commands under way: the channel tries again.
        let config = plan
            .config(id)
            .proposals_max(16, 1 << 20)
            .command_bytes_max(100);
        nodes.push(Raft::start(config).await.unwrap());
    }
    let mut receivers = Vec::new();
    let mut senders = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let (sender, receiver) = node.channels(Position::Start).await.unwrap();
        receivers.push(receiver);
        senders.push(tokio::spawn(async move {
            for i in 0..200 {
                sender.send(format!("{n}-{i}")).await.unwrap();
            }
            sender
        }));
    }
    let mut orders = Vec::new();
    for receiver in &mut receivers {
        let mut order = Vec::new();
        for _ in 0..600 {
            let delivered = soon(receiver.recv()).await.unwrap();
            order.push(String::from_utf8_lossy(&delivered.command).into_owned());
        }
        orders.push(order);
    }
    assert!(orders[0] == orders[1] && orders[1] == orders[2]);
    let all: BTreeSet<_> = orders[0].iter().collect();
    assert_eq!(all.len(), 600, "each once");
    let mut kept = Vec::new();
    for sender in senders {
        kept.push(sender.await.unwrap());
    }
    let error = kept[0].send(vec![0; 101]).await.unwrap_err();
    assert_eq!(error, ProposeError::TooLarge { len: 101, max: 100 });
    // The channel is the last that holds the node, and what is in it is not lost with it.
    let addr = nodes[0].addr().clone();
    nodes.remove(0);
    receivers.remove(0);
    kept[0].send("last").await.unwrap();
    kept.remove(0);
    let last = soon(receivers[0].recv()).await.unwrap();
    assert_eq!(&last.command[..], b"last");
    soon(async {
        while addr.connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    soon(nodes[0].shutdown()).await.unwrap();
    let ended = async { while kept[0].send("no").await.is_ok() {} };
    soon(ended).await;
}

/// No runtime anywhere in the program: what needs a clock has the system's.
#[test]
fn no_runtime_is_needed() {
    futures_executor::block_on(async {
        let plan = Plan::new(1);
        let config = plan.config(1).proposals_max(1, 1 << 20);
        let raft = Raft::start_with(config, Sum::default()).await.unwrap();
        let mut events = raft.subscribe(Position::Start).await.unwrap();
        let session = raft.open_session(OpenSession::new()).await.unwrap();
        assert_eq!(session.apply::<Sum>(&1).await, Ok(1));
        // One place for three: two are busy, and wait for it.
        let (a, b, c) = futures_util::join!(
            session.apply::<Sum>(&1),
            session.apply::<Sum>(&1),
            session.apply::<Sum>(&1)
        );
        assert_eq!(
            BTreeSet::from([a.unwrap(), b.unwrap(), c.unwrap()]),
            BTreeSet::from([2, 3, 4])
        );
        for _ in 0..4 {
            assert!(matches!(events.recv().await, Ok(Event::Delivered(_))));
        }
        assert_eq!(raft.read(|sum: &Sum| sum.sum).await.unwrap().value, 4);
        raft.take_snapshot().await.unwrap();
        let (sender, mut receiver) = raft.channels(Position::Now).await.unwrap();
        sender
            .send(rmp_serde::to_vec_named(&5_u64).unwrap())
            .await
            .unwrap();
        receiver.recv().await.unwrap();
        raft.shutdown().await.unwrap();
        raft.ended().await.unwrap();
    });
}

/// A runtime of one thread is not blocked by a start, nor a start by it.
#[tokio::test]
async fn a_start_blocks_nobody() {
    let (plan, raft) = one().await;
    let (second, ()) = tokio::join!(Raft::start(plan.config(1)), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    assert!(matches!(second.map(drop), Err(StartError::Open(_))));
    let no_folder = Raft::start(Config::new(NodeId(1)))
        .await
        .map(drop)
        .unwrap_err();
    assert!(matches!(no_folder, StartError::Config(_)), "{no_folder}");
    raft.shutdown().await.unwrap();
    // A start that is given up leaves nothing behind.
    let given_up = tokio::time::timeout(Duration::ZERO, Raft::start(plan.config(1)));
    drop(given_up.await);
    let again = async {
        loop {
            match Raft::start(plan.config(1)).await {
                Ok(raft) => return raft,
                Err(StartError::Open(_) | StartError::Listen(_)) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(again).await.propose("here").await.unwrap();
}
