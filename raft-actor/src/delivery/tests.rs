//! Who is answered what, and when.

use std::sync::{Arc, Mutex};

use raft_core::EntryKind;
use raft_net::Limits;
use raft_storage::MemoryDisk;

use super::*;
use crate::proposals::{Budget, ReplyTo};
use crate::reply::{Later, later};

struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

impl Handler<PartFailed> for Nobody {
    type Result = ();

    fn handle(&mut self, _: PartFailed, _: &mut Self::Context) {}
}

/// Takes an answer as a caller's mailbox would.
#[derive(Message)]
#[rtype(result = "Outcome")]
struct Ask;

/// An actor whose only answer is the one it was made with.
struct Asked(Option<Later<Outcome>>);

impl Actor for Asked {
    type Context = Context<Self>;
}

impl Handler<Ask> for Asked {
    type Result = Later<Outcome>;

    fn handle(&mut self, _: Ask, _: &mut Self::Context) -> Self::Result {
        self.0.take().unwrap()
    }
}

fn delivery() -> Addr<Delivery> {
    let opened = MemoryDisk::new().open(NodeId(1)).unwrap();
    let reads = LogReads::start(opened.store.reader());
    let (applied, _) = watch::channel(LogIndex::ZERO);
    let encoder = FrameEncoder::new(&Limits::default());
    Delivery::new(
        applied,
        reads,
        Nobody.start().recipient(),
        BTreeMap::new(),
        encoder,
    )
    .start()
}

/// A waiter, and the address that tells what it is told.
fn waiter(budget: &Arc<Budget>, timeout: Duration) -> (Waiter, Request<Asked, Ask>) {
    let (reply, answer) = later(|| Err(ProposeError::Unknown(UnknownCause::NodeEnded)));
    let now = Instant::now();
    let permit = budget.take(1).unwrap();
    let waiter = Waiter::new(ReplyTo::Local(answer), now, now + timeout, permit);
    (waiter, Asked(Some(reply)).start().send(Ask))
}

fn commit(term: u64, from: u64, through: u64) -> Commit {
    let entry = |i| {
        Entry::new(
            Term(term),
            LogIndex(i),
            EntryKind::Command,
            Bytes::from_static(b"x"),
        )
    };
    Commit {
        through: LogIndex(through),
        entries: (from..=through).map(entry).collect(),
    }
}

fn await_in(term: u64, first: u64, waiters: Vec<Waiter>) -> Await {
    Await {
        first: LogIndex(first),
        term: Term(term),
        waiters,
    }
}

fn index(outcome: Outcome) -> u64 {
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
        .send(Apply(vec![commit(1, 1, 2), commit(1, 3, 4)]))
        .await
        .unwrap();
    assert_eq!(index(first.1.await.unwrap()), 2);
    assert_eq!(index(second.1.await.unwrap()), 3);
    assert_eq!(index(third.1.await.unwrap()), 4);
    assert_eq!(budget.count(), 0);
}

#[actix::test]
async fn another_terms_entry_in_its_place_supersedes_a_waiter_and_all_behind_it() {
    let (delivery, budget) = (delivery(), Budget::new(9, 99));
    let (first, second, third) = (
        waiter(&budget, LONG),
        waiter(&budget, LONG),
        waiter(&budget, LONG),
    );
    delivery.do_send(await_in(1, 2, vec![first.0, second.0]));
    delivery.do_send(await_in(3, 3, vec![third.0]));
    delivery
        .send(Apply(vec![
            commit(1, 1, 1),
            commit(2, 2, 2),
            commit(3, 3, 3),
        ]))
        .await
        .unwrap();
    assert_eq!(first.1.await.unwrap(), Err(ProposeError::Superseded));
    assert_eq!(second.1.await.unwrap(), Err(ProposeError::Superseded));
    assert_eq!(index(third.1.await.unwrap()), 3);
}

#[actix::test]
async fn a_late_commit_is_unknown_and_leaves_the_others_their_places() {
    let (delivery, budget) = (delivery(), Budget::new(9, 99));
    let (first, second) = (
        waiter(&budget, Duration::from_millis(1)),
        waiter(&budget, LONG),
    );
    delivery.do_send(await_in(1, 1, vec![first.0, second.0]));
    let timed_out = Err(ProposeError::Unknown(UnknownCause::TimedOut));
    assert_eq!(first.1.await.unwrap(), timed_out);
    delivery.do_send(Apply(vec![commit(1, 1, 2)]));
    assert_eq!(index(second.1.await.unwrap()), 2);
}

#[actix::test]
async fn at_the_end_nobody_is_left_waiting() {
    let (delivery, budget) = (delivery(), Budget::new(9, 99));
    let (early, late) = (waiter(&budget, LONG), waiter(&budget, LONG));
    delivery.do_send(await_in(1, 1, vec![early.0]));
    delivery.send(Finish).await.unwrap();
    delivery.do_send(await_in(1, 2, vec![late.0]));
    let ended = Err(ProposeError::Unknown(UnknownCause::NodeEnded));
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
    delivery.send(Apply(vec![commit(1, 1, 500)])).await.unwrap();
    let mut seen = Vec::new();
    for from in [1, 250, 500, 501, 700] {
        let collected = Arc::new(Mutex::new(Vec::new()));
        let to = Collector(Arc::clone(&collected)).start().recipient();
        let subscribe = Subscribe::from_index(LogIndex(from), to);
        assert_eq!(
            delivery.send(subscribe).await.unwrap(),
            Ok(Subscribed {
                next: LogIndex(from)
            })
        );
        seen.push((from, collected));
    }
    delivery
        .send(Apply(vec![commit(1, 501, 1000)]))
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
    let to = Collector(Arc::default()).start().recipient();
    let zero = delivery
        .send(Subscribe::from_index(LogIndex::ZERO, to))
        .await
        .unwrap();
    assert_eq!(zero, Err(SubscribeError::IndexZero));
}
