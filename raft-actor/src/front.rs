//! `RaftActor`: what users talk to.
//!
//! It stands before the [`Node`] so that a flood of messages, which actix puts into a mailbox without a
//! bound and drains without a pause, meets an actor that only counts and refuses: the protocol, its timers
//! and its connections go on behind it.
//!
//! Invariants:
//! - After [`MESSAGES_MAX`] messages in a row it lets everybody else on its thread run.
//! - If the node's actor dies, this one notices, says so to all who wait or ask, and lets go of the parts.

use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;

use crate::delivery::Delivery;
use crate::door::{Door, Entering, Knock};
use crate::leaving::LeaveAndTell;
use crate::node::{Ending, Node};
use crate::observe::Observed;
use crate::parts::{Parts, died};
use crate::reads::{Ask, Reading};
use crate::reply::Later;
use crate::{
    Cancel, ChangeMembership, CloseSession, Committed, Ended, ForgetCursor, GetMembers, GetStatus,
    Invite, Leave, MembershipError, NodeFailure, NodeStatus, OpenSession, Phase, Propose,
    ProposeBatch, ProposeError, Read, ReadIndex, Resolve, Shutdown, SnapshotError, Subscribe,
    SubscribeError, TakeSnapshot, TransferLeadership,
};

/// Messages that are handled before the thread's other tasks get a turn.
const MESSAGES_MAX: usize = 512;
/// How often it looks whether the node lives.
const WATCH: Duration = Duration::from_millis(100);

/// A node of a cluster. Spawn one with [`RaftActor::spawn`].
pub struct RaftActor {
    pub(crate) node: Addr<Node>,
    pub(crate) delivery: Addr<Delivery>,
    pub(crate) door: Rc<Door>,
    pub(crate) reading: Reading,
    pub(crate) parts: Parts,
    /// What is said of a node that cannot speak for itself any more.
    pub(crate) last_status: NodeStatus,
    pub(crate) observed: Rc<Observed>,
    pub(crate) in_a_row: usize,
    pub(crate) has_own_thread: bool,
}

/// The node has ended: end its actors, and their thread if it is theirs alone.
#[derive(Message)]
#[rtype(result = "()")]
struct Gone;

/// Told to the actors behind this one where their thread goes on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

impl Actor for RaftActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The door has the bounds. Beyond a capacity, actix parks each sender: two allocations and a queue of its own, for
        // every proposal, and none of them is refused by it.
        ctx.set_mailbox_capacity(0);
        ctx.run_interval(WATCH, |front, _| front.watch_node());
    }
}

impl RaftActor {
    /// Lets everybody else run after many messages in a row.
    pub(crate) fn breathe(&mut self, ctx: &mut Context<Self>) {
        self.in_a_row += 1;
        if self.in_a_row >= MESSAGES_MAX {
            self.in_a_row = 0;
            self.watch_node();
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
    }

    /// Takes over for a node whose actor has died. One that is being shut down ends by itself, and the
    /// handler of [`Shutdown`] sees to it.
    pub(crate) fn watch_node(&mut self) {
        if self.node.connected() || !self.door.is_open() {
            return;
        }
        let failure = NodeFailure::PartStopped("the node's actor");
        tracing::error!(node = %self.last_status.id, "the node has failed: {failure}");
        self.observed.died(failure.clone());
        self.door.fail(failure);
        drop(self.door.take());
        let parts = self.parts.clone();
        actix_rt::spawn(async move {
            if let Err(error) = parts.let_go().await {
                tracing::error!("letting go of a dead node's parts: {error}");
            }
        });
    }
}

/// What came in through the door, and whether the node must be told.
fn entered<R>(front: &mut RaftActor, (reply, knock): (R, bool), ctx: &mut Context<RaftActor>) -> R {
    if knock {
        front.node.do_send(Knock);
    }
    front.breathe(ctx);
    reply
}

/// A read, which the node is asked to confirm.
fn asked<R>(
    front: &mut RaftActor,
    (reply, ask): (R, Option<Ask>),
    ctx: &mut Context<RaftActor>,
) -> R {
    if let Some(ask) = ask {
        front.node.do_send(ask);
    }
    front.breathe(ctx);
    reply
}

impl Handler<Propose> for RaftActor {
    type Result = Entering;

    fn handle(&mut self, message: Propose, ctx: &mut Self::Context) -> Self::Result {
        let reply = self.door.enter(message);
        entered(self, reply, ctx)
    }
}

impl Handler<ProposeBatch> for RaftActor {
    type Result = Later<Vec<Result<Committed, ProposeError>>>;

    fn handle(&mut self, message: ProposeBatch, ctx: &mut Self::Context) -> Self::Result {
        let reply = self.door.enter_batch(message);
        entered(self, reply, ctx)
    }
}

impl Handler<OpenSession> for RaftActor {
    type Result = Later<<OpenSession as Message>::Result>;

    fn handle(&mut self, message: OpenSession, ctx: &mut Self::Context) -> Self::Result {
        let reply = self.door.enter_open(message);
        entered(self, reply, ctx)
    }
}

impl Handler<CloseSession> for RaftActor {
    type Result = Later<<CloseSession as Message>::Result>;

    fn handle(&mut self, message: CloseSession, ctx: &mut Self::Context) -> Self::Result {
        let reply = self.door.enter_close(message);
        entered(self, reply, ctx)
    }
}

impl Handler<Cancel> for RaftActor {
    type Result = Later<<Cancel as Message>::Result>;

    fn handle(&mut self, message: Cancel, ctx: &mut Self::Context) -> Self::Result {
        let reply = self.door.enter_cancel(message);
        entered(self, reply, ctx)
    }
}

impl<S: 'static, R: Send + 'static> Handler<Read<S, R>> for RaftActor {
    type Result = Later<<Read<S, R> as Message>::Result>;

    fn handle(&mut self, message: Read<S, R>, ctx: &mut Self::Context) -> Self::Result {
        let reply = self.reading.read(message);
        asked(self, reply, ctx)
    }
}

impl Handler<ReadIndex> for RaftActor {
    type Result = Later<<ReadIndex as Message>::Result>;

    fn handle(&mut self, message: ReadIndex, ctx: &mut Self::Context) -> Self::Result {
        let reply = self.reading.read_index(message);
        asked(self, reply, ctx)
    }
}

impl Handler<Resolve> for RaftActor {
    type Result = Later<<Resolve as Message>::Result>;

    fn handle(&mut self, message: Resolve, ctx: &mut Self::Context) -> Self::Result {
        let reply = self.reading.resolve(message);
        asked(self, reply, ctx)
    }
}

impl Handler<TakeSnapshot> for RaftActor {
    type Result = ResponseFuture<<TakeSnapshot as Message>::Result>;

    fn handle(&mut self, message: TakeSnapshot, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.node.send(message);
        Box::pin(async move { sent.await.unwrap_or(Err(SnapshotError::NodeEnded)) })
    }
}

impl Handler<TransferLeadership> for RaftActor {
    type Result = ResponseFuture<<TransferLeadership as Message>::Result>;

    fn handle(&mut self, message: TransferLeadership, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.node.send(message);
        Box::pin(async move { sent.await.unwrap_or(Err(MembershipError::NodeEnded)) })
    }
}

impl Handler<ChangeMembership> for RaftActor {
    type Result = ResponseFuture<<ChangeMembership as Message>::Result>;

    fn handle(&mut self, message: ChangeMembership, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.node.send(message);
        Box::pin(async move { sent.await.unwrap_or(Err(MembershipError::NodeEnded)) })
    }
}

impl Handler<Invite> for RaftActor {
    type Result = ResponseFuture<<Invite as Message>::Result>;

    fn handle(&mut self, message: Invite, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.node.send(message);
        Box::pin(async move { sent.await.unwrap_or(Err(MembershipError::NodeEnded)) })
    }
}

impl Handler<Leave> for RaftActor {
    type Result = ResponseFuture<<Leave as Message>::Result>;

    fn handle(&mut self, message: Leave, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let (sent, front) = (self.node.send(message), ctx.address());
        Box::pin(async move {
            let left = sent.await.unwrap_or(Err(MembershipError::NodeEnded));
            if left.is_ok() {
                front.do_send(Gone);
            }
            left
        })
    }
}

impl Handler<LeaveAndTell> for RaftActor {
    type Result = ();

    fn handle(&mut self, message: LeaveAndTell, ctx: &mut Self::Context) {
        self.breathe(ctx);
        self.node.do_send(message);
    }
}

impl Handler<GetMembers> for RaftActor {
    type Result = ResponseFuture<<GetMembers as Message>::Result>;

    fn handle(&mut self, message: GetMembers, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.node.send(message);
        Box::pin(async move { sent.await.unwrap_or(Err(MembershipError::NodeEnded)) })
    }
}

impl Handler<ForgetCursor> for RaftActor {
    type Result = ResponseFuture<<ForgetCursor as Message>::Result>;

    fn handle(&mut self, message: ForgetCursor, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.delivery.send(message);
        Box::pin(async move { sent.await.unwrap_or(Err(SubscribeError::NodeEnded)) })
    }
}

impl Handler<Subscribe> for RaftActor {
    type Result = ResponseFuture<<Subscribe as Message>::Result>;

    fn handle(&mut self, message: Subscribe, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.delivery.send(message);
        Box::pin(async move { sent.await.unwrap_or(Err(SubscribeError::NodeEnded)) })
    }
}

impl Handler<GetStatus> for RaftActor {
    type Result = ResponseFuture<NodeStatus>;

    fn handle(&mut self, message: GetStatus, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.node.send(message);
        let failure = self.door.failure();
        let mut last = self.last_status.clone();
        Box::pin(async move {
            sent.await.unwrap_or_else(|_| {
                let died = NodeFailure::PartStopped("the node's actor");
                last.phase = Phase::Failed(failure.unwrap_or(died));
                last
            })
        })
    }
}

impl Handler<Ended> for RaftActor {
    type Result = ResponseFuture<Ending>;

    fn handle(&mut self, message: Ended, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        let sent = self.node.send(message);
        Box::pin(async move { sent.await.unwrap_or_else(|_| died()) })
    }
}

impl Handler<Shutdown> for RaftActor {
    type Result = ResponseFuture<Ending>;

    fn handle(&mut self, message: Shutdown, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        self.door.shut();
        let (sent, parts, front) = (self.node.send(message), self.parts.clone(), ctx.address());
        Box::pin(async move {
            let ending = match sent.await {
                Ok(ending) => ending,
                // Nobody else lets go of a dead node's parts, or it has been done already.
                Err(_) => parts.let_go().await.and_then(|()| died()),
            };
            front.do_send(Gone);
            ending
        })
    }
}

impl Handler<Gone> for RaftActor {
    type Result = ();

    fn handle(&mut self, _: Gone, ctx: &mut Self::Context) {
        ctx.stop();
        if self.has_own_thread {
            Arbiter::current().stop();
        } else {
            self.node.do_send(Stop);
            self.delivery.do_send(Stop);
        }
    }
}
