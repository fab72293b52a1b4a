//! Who is answered what, and when.

use std::sync::Mutex;

use bytes::Bytes;
use raft_core::{Commit, EntryKind, Term};
use raft_net::Limits;
use raft_storage::MemoryDisk;

use super::*;
use crate::ledger::{Request as Asked, Settlement};
use crate::proposals::{Budget, ReplyTo, Waiter};
use crate::reply::{Later, later};
use crate::{Committed, ProposeError};

/// Plays the node: keeps what it is told.
#[derive(Clone, Default)]
struct Node(Arc<Mutex<Vec<Back>>>);

impl Actor for Node {
    type Context = Context<Self>;
}

impl Handler<PartFailed> for Node {
    type Result = ();

    fn handle(&mut self, _: PartFailed, _: &mut Self::Context) {}
}

impl Handler<Told> for Node {
    type Result = ();

    fn handle(&mut self, told: Told, _: &mut Self::Context) {
        if let Told::Back(back) = told {
            self.0.lock().unwrap().extend(back);
        }
    }
}

impl Handler<raft_storage::Written> for Node {
    type Result = ();

    fn handle(&mut self, _: raft_storage::Written, _: &mut Self::Context) {}
}

type Told1 = Result<Committed, ProposeError>;

/// Takes an answer as a caller's mailbox would.
#[derive(Message)]
#[rtype(result = "Told1")]
struct Ask;

/// An actor whose only answer is the one it was made with.
struct Caller(Option<Later<Told1>>);

impl Actor for Caller {
    type Context = Context<Self>;
}

impl Handler<Ask> for Caller {
    type Result = Later<Told1>;

    fn handle(&mut self, _: Ask, _: &mut Self::Context) -> Self::Result {
        self.0.take().unwrap()
    }
}

fn delivery_of(node: &Node) -> Addr<Delivery> {
    delivery_with(node, MemoryDisk::new().open(Some(NodeId(1))).unwrap())
}

fn delivery_with(node: &Node, opened: raft_storage::Opened) -> Addr<Delivery> {
    let (reads, snapshots) = (
        LogReads::start(opened.store.reader()),
        opened.store.snapshots(),
    );
    let node = node.clone().start();
    let storage = LogStorage::start_here(opened.store, node.clone().recipient()).addr;
    let making = Making {
        id: NodeId(1),
        replica: Replica::new(None),
        progress: watch::channel(Progress::default()).0,
        lag: Arc::new(Lag::new(1 << 20)),
        reads,
        storage,
        snapshots,
        node: node.clone().recipient(),
        failed: node.recipient(),
        encoder: FrameEncoder::new(&Limits::default()),
        first: LogIndex(1),
        snapshot: LogId::ZERO,
        last: LogIndex::ZERO,
        cursors: BTreeMap::new(),
    };
    Delivery::new(making, Thread::Nodes).start()
}

fn delivery() -> Addr<Delivery> {
    delivery_of(&Node::default())
}

/// A proposal without a name, and the address that tells what it is told.
fn waiter(budget: &Arc<Budget>, timeout: Duration) -> (Proposal, Request<Caller, Ask>) {
    let (reply, answer) = later(|| {
        let (cause, id) = (UnknownCause::NodeEnded, None);
        Err(ProposeError::Unknown { cause, id })
    });
    let now = Instant::now();
    let permit = budget.take(1).unwrap();
    let waiter = Waiter::new(ReplyTo::Propose(answer), now, now + timeout, permit);
    let command = Bytes::from_static(b"x");
    let mut proposal = Proposal::new(Asked::Plain { command }, waiter);
    proposal.copies = 1;
    (proposal, Caller(Some(reply)).start().send(Ask))
}

fn unknown(cause: UnknownCause) -> Told1 {
    Err(ProposeError::Unknown { cause, id: None })
}

fn commit(term: u64, from: u64, through: u64) -> Commit {
    let mut data = Vec::new();
    let command = Bytes::from_static(b"x");
    Asked::Plain { command }.encode_into(0, &mut data);
    let data = Bytes::from(data);
    let entry = |i| {
        let (term, index) = (Term(term), LogIndex(i));
        Entry::new(term, index, EntryKind::Command, data.clone())
    };
    Commit {
        through: LogIndex(through),
        entries: (from..=through).map(entry).collect(),
    }
}

fn await_in(term: u64, first: u64, proposals: Vec<Proposal>) -> Await {
    Await {
        first: LogIndex(first),
        term: Term(term),
        proposals,
    }
}

fn index(outcome: Told1) -> u64 {
    outcome.unwrap().index.0
}

const LONG: Duration = Duration::from_secs(60);

#[actix::test]
async fn each_waiter_is_told_its_own_index() {
    let (delivery, budget) = (delivery(), Budget::new(9, 99));
    let (first, second, third) = (
        waiter(&budget, LONG),
        waiter(&budget, LONG),
        waiter(&budget, LONG),
    );
    delivery.do_send(await_in(1, 2, vec![first.0, second.0]));
    delivery.do_send(await_in(1, 4, vec![third.0]));
    delivery
        .send(Apply::Commits(vec![commit(1, 1, 2), commit(1, 3, 4)]))
        .await
        .unwrap();
    assert_eq!(index(first.1.await.unwrap()), 2);
    assert_eq!(index(second.1.await.unwrap()), 3);
    assert_eq!(index(third.1.await.unwrap()), 4);
    assert_eq!(budget.count(), 0);
}

#[actix::test]
async fn another_terms_entry_in_its_place_supersedes_a_waiter_and_all_behind_it() {
    let node = Node::default();
    let (delivery, budget) = (delivery_of(&node), Budget::new(9, 99));
    let (first, second, third) = (
        waiter(&budget, LONG),
        waiter(&budget, LONG),
        waiter(&budget, LONG),
    );
    delivery.do_send(await_in(1, 2, vec![first.0, second.0]));
    delivery.do_send(await_in(3, 3, vec![third.0]));
    delivery
        .send(Apply::Commits(vec![
            commit(1, 1, 1),
            commit(2, 2, 2),
            commit(3, 3, 3),
        ]))
        .await
        .unwrap();
    assert_eq!(index(third.1.await.unwrap()), 3);
    // The node decides what becomes of them.
    for _ in 0..100 {
        if node.0.lock().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let back = std::mem::take(&mut *node.0.lock().unwrap());
    let superseded = |back: &Back| matches!(back, Back::Superseded(_));
    assert!(back.len() == 2 && back.iter().all(superseded));
    drop(back);
    assert!(first.1.await.unwrap().is_err() && second.1.await.unwrap().is_err());
}

#[actix::test]
async fn a_late_commit_is_unknown_and_leaves_the_others_their_places() {
    let (delivery, budget) = (delivery(), Budget::new(9, 99));
    let (first, second) = (
        waiter(&budget, Duration::from_millis(1)),
        waiter(&budget, LONG),
    );
    delivery.do_send(await_in(1, 1, vec![first.0, second.0]));
    let timed_out = unknown(UnknownCause::TimedOut);
    assert_eq!(first.1.await.unwrap(), timed_out);
    delivery.do_send(Apply::Commits(vec![commit(1, 1, 2)]));
    assert_eq!(index(second.1.await.unwrap()), 2);
}

#[actix::test]
async fn at_the_end_nobody_is_left_waiting() {
    let (delivery, budget) = (delivery(), Budget::new(9, 99));
    let (early, late) = (waiter(&budget, LONG), waiter(&budget, LONG));
    delivery.do_send(await_in(1, 1, vec![early.0]));
    delivery.send(Finish).await.unwrap();
    delivery.do_send(await_in(1, 2, vec![late.0]));
    let ended = unknown(UnknownCause::NodeEnded);
    assert_eq!(early.1.await.unwrap(), ended);
    assert_eq!(late.1.await.unwrap(), ended);
    assert_eq!(budget.count(), 0);
}

/// Remembers what it is handed.
struct Collector(Arc<Mutex<Vec<u64>>>);

impl Actor for Collector {
    type Context = Context<Self>;
}

impl Handler<crate::Delivered> for Collector {
    type Result = ();

    fn handle(&mut self, event: crate::Delivered, _: &mut Self::Context) {
        self.0.lock().unwrap().push(event.index.0);
    }
}

#[actix::test]
async fn subscribers_from_anywhere_are_handed_everything_once_in_order() {
    let delivery = delivery();
    delivery
        .send(Apply::Commits(vec![commit(1, 1, 500)]))
        .await
        .unwrap();
    let mut seen = Vec::new();
    for from in [1, 250, 500, 501, 700] {
        let collected = Arc::new(Mutex::new(Vec::new()));
        let to = Collector(Arc::clone(&collected))
            .start()
            .recipient::<crate::Delivered>();
        let subscribe = Subscribe::from_index(LogIndex(from), to);
        let subscribed = delivery.send(subscribe).await.unwrap().unwrap();
        assert_eq!(subscribed.next, LogIndex(from));
        seen.push((from, collected));
    }
    delivery
        .send(Apply::Commits(vec![commit(1, 501, 1000)]))
        .await
        .unwrap();
    for (from, collected) in seen {
        for _ in 0..500 {
            if collected.lock().unwrap().last() == Some(&1000) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            *collected.lock().unwrap(),
            (from..=1000).collect::<Vec<_>>()
        );
    }
    let to = Collector(Arc::default())
        .start()
        .recipient::<crate::Delivered>();
    let zero = delivery
        .send(Subscribe::from_index(LogIndex::ZERO, to))
        .await
        .unwrap();
    assert_eq!(zero.unwrap_err(), SubscribeError::IndexZero);
}

/// Copies of a proposal in session 1, which the first entry opens. All but the first copy are suppressed.
fn copies(from: u64, through: u64) -> Commit {
    let session = crate::SessionId(1);
    let entry = |i| {
        let mut data = Vec::new();
        let request = match i {
            1 => Asked::Open { timeout_ms: 60_000 },
            _ => Asked::InSession {
                id: crate::ProposalId {
                    session,
                    sequence: 1,
                },
                low: 1,
                command: Bytes::from_static(b"x"),
            },
        };
        request.encode_into(0, &mut data);
        let (term, index) = (Term(1), LogIndex(i));
        Entry::new(term, index, EntryKind::Command, Bytes::from(data))
    };
    Commit {
        through: LogIndex(through),
        entries: (from..=through).map(entry).collect(),
    }
}

impl Handler<crate::Compacted> for Collector {
    type Result = ();

    fn handle(&mut self, compacted: crate::Compacted, _: &mut Self::Context) {
        if let crate::Compacted::Gap { first, .. } = compacted {
            self.0.lock().unwrap().push(first.0 * 1000);
        }
    }
}

async fn collected(delivery: &Addr<Delivery>, from: u64, through: u64) -> Vec<u64> {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let to = Collector(Arc::clone(&collected)).start();
    let subscribe =
        Subscribe::from_index(LogIndex(from), to.clone().recipient::<crate::Delivered>());
    let subscribe = subscribe.or_compacted(to.recipient());
    delivery.send(subscribe).await.unwrap().unwrap();
    for _ in 0..500 {
        if collected.lock().unwrap().last() == Some(&through) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    collected.lock().unwrap().clone()
}

#[actix::test]
async fn what_was_suppressed_is_not_delivered_out_of_memory_behind_a_compaction() {
    let delivery = delivery();
    delivery
        .send(Apply::Commits(vec![copies(1, 9), commit(1, 10, 10)]))
        .await
        .unwrap();
    assert_eq!(collected(&delivery, 1, 10).await, [2, 10]);
    let begins = LogBegins {
        first: LogIndex(8),
        snapshot: LogId::new(Term(1), LogIndex(9)),
    };
    delivery.send(begins).await.unwrap();
    assert_eq!(collected(&delivery, 2, 10).await, [8_000, 10]);
}

#[actix::test]
async fn nothing_of_a_log_that_a_snapshot_replaced_is_delivered() {
    let opened = MemoryDisk::new().open(Some(NodeId(1))).unwrap();
    let snapshots = opened.store.snapshots();
    // Another node's snapshot, whose log began behind all copies.
    let mut theirs = Replica::new(None);
    for entry in copies(1, 20).entries.iter() {
        theirs.apply(entry).unwrap();
    }
    theirs.log_begins_at(LogIndex(20));
    let last = theirs.applied();
    let configuration = raft_core::membership::Configuration::of([NodeId(1)]);
    let meta = SnapshotMeta {
        last,
        configuration: Arc::new(configuration),
    };
    let captured = theirs.capture().unwrap();
    captured.write(snapshots.as_ref(), &meta).unwrap();

    let delivery = delivery_with(&Node::default(), opened);
    delivery
        .send(Apply::Commits(vec![copies(1, 9)]))
        .await
        .unwrap();
    delivery.send(Apply::Restore(meta)).await.unwrap();
    delivery
        .send(Apply::Commits(vec![commit(1, 21, 21)]))
        .await
        .unwrap();
    assert_eq!(collected(&delivery, 3, 21).await, [21_000, 21]);
}

#[actix::test]
async fn that_a_copy_is_refused_is_no_outcome_while_another_may_be_applied() {
    let budget = Budget::new(9, 99);
    for (copies, settlement, is_known) in [
        (1, Settlement::BeyondWindow { low: 1 }, true),
        (2, Settlement::BeyondWindow { low: 1 }, false),
        (2, Settlement::Cancelled { at: LogId::ZERO }, true),
    ] {
        let (mut proposal, told) = waiter(&budget, LONG);
        proposal.copies = copies;
        let at = LogId::ZERO;
        proposal.answer(Ok(Settled { at, settlement }));
        let told = told.await.unwrap().unwrap_err();
        assert_eq!(told.is_certainly_not_applied(), is_known, "{told}");
    }
}
