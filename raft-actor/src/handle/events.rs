//! `Events`: a subscription as a stream.
//!
//! A private actor in the system takes the subscription's batches, hands each on, and has handled it when the
//! program comes back for more. So the program sets the pace, one batch at a time.
//!
//! Invariants:
//! - At most one batch is between the subscription and the program.
//! - What the program was not handed, or has not come back from, is not handled: a batch that is dropped never is.
//! - The stream ends, with a reason, when its subscription or the system does.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Polling, Poll, ready};

use actix::prelude::*;
use futures_util::Stream;
use raft_core::LogIndex;
use tokio::sync::{mpsc, oneshot};

use super::Raft;
use crate::{
    Compacted, Delivered, DeliveredBatch, SnapshotReader, Subscribe, SubscribeError, Subscribed,
    SubscriptionEnd,
};

/// Where a subscription starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// With the first command of the cluster; see [`Subscribe::from_start`].
    Start,
    /// With this entry; see [`Subscribe::from_index`].
    Index(LogIndex),
    /// With the next command; see [`Subscribe::from_now`].
    Now,
    /// Where the reader of this name has come to on this node; see [`Subscribe::from_cursor`].
    Cursor(String),
}

/// What a subscriber is handed.
#[derive(Debug)]
pub enum Event {
    /// A command.
    Delivered(Delivered),
    /// The commands that would come next are not in the log any more. This is the state that they made: wrap it into nothing
    /// and read it, or ask a [`StateMachine`](crate::StateMachine) to restore from it.
    Snapshot(SnapshotReader),
    /// The commands from `from` on are not in the log any more, and nothing stands for them: the program has no state
    /// machine. The next command is at `first` or behind it.
    Gap {
        /// The first entry that is lost to this subscriber.
        from: LogIndex,
        /// The first one that is there.
        first: LogIndex,
    },
}

/// What is committed, in order: a subscription of [`Raft::subscribe`].
///
/// Take events out with [`recv`](Self::recv), or as a [`Stream`] of `Result<Event, SubscriptionEnd>`, whose only error is
/// its last item. An event counts as handled when the program comes back for the one behind it: a named cursor
/// moves only then, by batches of up to 512 events or 256 KiB (without a cursor 4,096 or 1 MiB), so a program that ends in the middle of a batch is handed
/// the whole batch again.
///
/// One batch at most waits in here, and nothing is read ahead of it: a program that is slow falls behind by itself, and
/// holds up nobody. Dropped, it ends the subscription. The node lives at least as long as this does.
pub struct Events {
    subscribed: Subscribed,
    batches: mpsc::Receiver<Batch>,
    current: Option<Batch>,
    ending: Option<Pin<Box<dyn Future<Output = SubscriptionEnd> + Send + Sync>>>,
    end: Option<SubscriptionEnd>,
    /// The end was an item of the stream.
    told: bool,
    _raft: Raft,
}

/// Events on their way to the program.
struct Batch {
    events: VecDeque<Event>,
    /// Told when the program comes back from the last one; dropped before, they are not handled.
    handled: oneshot::Sender<()>,
}

impl Events {
    pub(super) async fn of(raft: &Raft, from: Position) -> Result<Self, SubscribeError> {
        let (sender, batches) = mpsc::channel(1);
        let relay = Relay::start_in_arbiter(&raft.running.arbiter, |_| Relay(sender));
        let to = relay.clone().recipient::<DeliveredBatch>();
        let subscribe = match from {
            Position::Start => Subscribe::from_start(to),
            Position::Index(index) => Subscribe::from_index(index, to),
            Position::Now => Subscribe::from_now(to),
            Position::Cursor(name) => Subscribe::from_cursor(name, to),
        };
        let subscribe = subscribe.or_compacted(relay.recipient());
        let sent = raft.addr().send(subscribe).await;
        Ok(Self {
            subscribed: sent.unwrap_or(Err(SubscribeError::NodeEnded))?,
            batches,
            current: None,
            ending: None,
            end: None,
            told: false,
            _raft: raft.clone(),
        })
    }

    /// Nothing before this entry is handed over, and every command from it on.
    #[must_use]
    pub fn first(&self) -> LogIndex {
        self.subscribed.next
    }

    /// Waits for the next event. A wait that is given up takes nothing out.
    ///
    /// # Errors
    /// The subscription has ended, and says why, as often as it is asked.
    pub async fn recv(&mut self) -> Result<Event, SubscriptionEnd> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Ends the subscription, and waits until that is done, so that its cursor can be used again.
    pub async fn close(self) {
        self.subscribed.cancel();
        self.subscribed.ended().await;
    }

    /// The reader goes no further, for a reason of its own.
    pub(super) fn end_with(&mut self, end: SubscriptionEnd) {
        self.subscribed.cancel();
        self.current = None;
        self.end = Some(end);
    }

    fn poll_recv(&mut self, cx: &mut Polling<'_>) -> Poll<Result<Event, SubscriptionEnd>> {
        if let Some(end) = self.end {
            return Poll::Ready(Err(end));
        }
        loop {
            if let Some(batch) = &mut self.current {
                if let Some(event) = batch.events.pop_front() {
                    return Poll::Ready(Ok(event));
                }
                // The program has come back from the last one.
                if let Some(batch) = self.current.take() {
                    let _ = batch.handled.send(());
                }
            }
            if let Some(batch) = ready!(self.batches.poll_recv(cx)) {
                self.current = Some(batch);
                continue;
            }
            let end = ready!(self.poll_end(cx));
            self.end = Some(end);
            return Poll::Ready(Err(end));
        }
    }

    /// The subscription has let go of its actor, and says why, or the system's thread has ended, and nobody does.
    fn poll_end(&mut self, cx: &mut Polling<'_>) -> Poll<SubscriptionEnd> {
        let ending = &self.subscribed.ending;
        let wait = self.ending.get_or_insert_with(|| {
            let ending = ending.clone();
            ending.cancel();
            Box::pin(async move { ending.wait().await })
        });
        wait.as_mut().poll(cx).map(|end| match end {
            // It was cancelled here, or found the actor gone, because the system has ended.
            SubscriptionEnd::Cancelled | SubscriptionEnd::SubscriberGone => {
                SubscriptionEnd::NodeEnded
            }
            end => end,
        })
    }
}

impl Stream for Events {
    type Item = Result<Event, SubscriptionEnd>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Polling<'_>) -> Poll<Option<Self::Item>> {
        if self.told {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_recv(cx));
        self.told = next.is_err();
        Poll::Ready(Some(next))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.subscribed.cancel();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("subscribed", &self.subscribed)
            .finish_non_exhaustive()
    }
}

/// Takes batches for a program that is no actor.
struct Relay(mpsc::Sender<Batch>);

impl Actor for Relay {
    type Context = Context<Self>;
}

impl Relay {
    /// Hands a batch on; done when it is handled, and never if it will not be.
    fn hand_on(&self, events: VecDeque<Event>) -> ResponseActFuture<Self, ()> {
        let (handled, wait) = oneshot::channel();
        let to = self.0.clone();
        let handing =
            async move { to.send(Batch { events, handled }).await.is_ok() && wait.await.is_ok() };
        let handing = handing.into_actor(self).then(|handled, relay, ctx| {
            if !handled {
                ctx.stop();
            }
            let done = async move {
                if !handled {
                    pending::<()>().await;
                }
            };
            done.into_actor(relay)
        });
        Box::pin(handing)
    }
}

impl Handler<DeliveredBatch> for Relay {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(
        &mut self,
        DeliveredBatch(events): DeliveredBatch,
        _: &mut Self::Context,
    ) -> Self::Result {
        let events = Arc::unwrap_or_clone(events);
        self.hand_on(events.into_iter().map(Event::Delivered).collect())
    }
}

impl Handler<Compacted> for Relay {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, compacted: Compacted, _: &mut Self::Context) -> Self::Result {
        let event = match compacted {
            Compacted::Snapshot(snapshot) => Event::Snapshot(snapshot),
            Compacted::Gap { from, first } => Event::Gap { from, first },
        };
        self.hand_on(VecDeque::from([event]))
    }
}
