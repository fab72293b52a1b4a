//! One subscriber and where it stands.
//!
//! Each subscription is a task of its own: it waits for its next entry to be applied, takes it from memory
//! or from the log, hands over one batch, and goes on when that is handled. So at most one batch for each
//! subscriber is in memory beyond what all share, and a slow one delays nobody.
//!
//! Whether a batch is handled is looked at when there is another one to hand over: to be woken for it would cost the
//! node's thread as much as the batch itself. Who has a cursor is waited for at once, since that is kept.
//!
//! Invariants:
//! - What is delivered is a function of the log: commands that were applied, each once, in its order. Whether an entry
//!   was applied, or is a copy of one that was, the ledger remembers for as long as the log has the entry.
//! - Where the log does not reach back to, the subscriber is told so before it is handed what comes after.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, MailboxError, Recipient};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, MaybeDone, maybe_done};
use raft_core::{Entry, EntryKind, LogId, LogIndex};
use raft_storage::{LogReads, ReadEntries, Snapshots, StorageError};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::delivery::{Progress, Replica};
use crate::ledger::Request;
use crate::message::{Compacted, SnapshotReader, Subscriber, SubscriptionEnd};
use crate::recent::Recent;
use crate::{Delivered, DeliveredBatch, NodeFailure, snapshot};

/// Events that a subscriber that takes them one by one has unhandled, at most.
const SINGLE_MAX: usize = 64;
/// Events in a batch, at most: so many that who shares a busy thread with what is applied keeps up with it. Who falls behind
/// what is kept in memory has to read the log, and would fall behind all the more.
const BATCH_MAX: usize = 4096;
/// Events in a batch of who has a cursor, and is handed all of the last batch again after a crash.
const CURSOR_BATCH_MAX: usize = 512;
/// Bytes of entries in a batch: the entry that reaches it is the last.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// In the batch of who has a cursor, and for who takes events one by one.
const FEW_BYTES_MAX: usize = 256 << 10;
/// For so long more entries are waited for before it is asked whether the last ones are handled.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What all subscriptions of a node read.
pub(crate) struct Log {
    pub(crate) recent: RefCell<Recent>,
    pub(crate) replica: Rc<RefCell<Replica>>,
    pub(crate) snapshots: Arc<dyn Snapshots>,
    pub(crate) reads: Addr<LogReads>,
    /// The first entry of the log, and the snapshot before it.
    pub(crate) begins: Cell<(LogIndex, LogId)>,
    /// The log's last entry when the node was started: up to there, all may have been delivered before.
    pub(crate) at_start: LogIndex,
    /// How many subscriptions there are.
    pub(crate) subscriptions: Cell<usize>,
    /// What was last made ready for one of several, for those who stand where it stood.
    pub(crate) shared: RefCell<Option<Shared>>,
}

/// Entries made ready for subscribers, none of which is a replay to whom it is handed.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    from: LogIndex,
    last: LogIndex,
    events: Arc<Vec<Delivered>>,
}

pub(crate) struct Subscription {
    pub(crate) to: Subscriber,
    pub(crate) compacted: Option<Recipient<Compacted>>,
    pub(crate) next: LogIndex,
    /// What this node had when the subscription began.
    pub(crate) replays_through: LogIndex,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) log: Rc<Log>,
    pub(crate) ending: Ending,
    /// What it was handed last, and the last entry of that.
    pub(crate) handed: Option<(Handed, LogIndex)>,
    /// Where it stands, for those who measure how far it is behind.
    pub(crate) stands_at: Rc<Cell<LogIndex>>,
}

/// Where a named subscriber has come to. While it lives, nobody else uses the name.
#[derive(Debug)]
pub(crate) struct Cursor(pub(crate) Rc<Cell<LogIndex>>);

impl Cursor {
    /// The first entry that was not handled.
    pub(crate) fn next(&self) -> LogIndex {
        self.0.get().next()
    }
}

/// How a subscription ends, for those on both sides of it.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    cancelled: CancellationToken,
    end: Arc<watch::Sender<Option<SubscriptionEnd>>>,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            cancelled: CancellationToken::new(),
            end: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Ending {
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(crate) async fn wait(&self) -> SubscriptionEnd {
        let mut end = self.end.subscribe();
        let end = end.wait_for(Option::is_some).await;
        end.ok()
            .and_then(|end| *end)
            .unwrap_or(SubscriptionEnd::NodeEnded)
    }

    fn set(&self, end: SubscriptionEnd) {
        self.end.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(end);
            first
        });
    }
}

/// A subscription whose task is gone has ended.
impl Drop for Subscription {
    fn drop(&mut self) {
        let subscriptions = &self.log.subscriptions;
        subscriptions.set(subscriptions.get() - 1);
        if subscriptions.get() < 2 {
            self.log.shared.take();
        }
        self.ending.set(SubscriptionEnd::NodeEnded);
    }
}

/// Why a subscription goes no further.
enum Stop {
    End(SubscriptionEnd),
    Failure(NodeFailure),
}

impl From<SubscriptionEnd> for Stop {
    fn from(end: SubscriptionEnd) -> Self {
        Self::End(end)
    }
}

/// What there is to hand over next.
enum Next {
    Entries {
        /// What the subscriber is handed of them,
        events: Arc<Vec<Delivered>>,
        /// and the last of them; none if there were none.
        last: Option<LogIndex>,
    },
    /// The log begins behind where the subscriber stands.
    Compacted,
}

impl Subscription {
    /// Serves the subscriber until it is gone, does not want any more, or the node ends.
    ///
    /// # Errors
    /// The log cannot be read, which must end the node.
    pub(crate) async fn run(mut self) -> Result<(), NodeFailure> {
        let cancelled = self.ending.cancelled.clone();
        let stop = tokio::select! {
            stop = self.serve() => stop,
            () = cancelled.cancelled() => Stop::End(SubscriptionEnd::Cancelled),
        };
        match stop {
            Stop::End(end) => {
                if let SubscriptionEnd::Compacted { .. } = end {
                    tracing::warn!("a subscription has ended: {end}");
                }
                self.ending.set(end);
                Ok(())
            }
            Stop::Failure(failure) => Err(failure),
        }
    }

    async fn serve(&mut self) -> Stop {
        loop {
            if let Err(stop) = self.hand_over_next().await {
                return stop;
            }
        }
    }

    async fn hand_over_next(&mut self) -> Result<(), Stop> {
        let next = self.next;
        if let Some((mut handed, last)) = self.handed.take() {
            if self.cursor.is_none() {
                let more = self.progress.wait_for(|progress| progress.index >= next);
                // There is more, or not yet, or the node ends: what was handed over is waited for in any case.
                let _ = timeout(LOOK_AGAIN, more).await;
            }
            (&mut handed).await;
            if !matches!(Pin::new(&mut handed).take_output(), Some(Ok(()))) {
                return Err(SubscriptionEnd::SubscriberGone.into());
            }
            self.handled(last);
        }
        let more = self.progress.wait_for(|progress| progress.index >= next);
        more.await.map_err(|_| SubscriptionEnd::NodeEnded)?;
        // Who proposed what was just applied has been answered, and may be about to propose again: that is taken up first.
        yield_now().await;
        let through = self.progress.borrow().index;
        match self.read(through).await? {
            Next::Entries { events, last } => {
                let Some(last) = last else {
                    return Err(SubscriptionEnd::NodeEnded.into());
                };
                match self.hand_over(events) {
                    Some(handed) => {
                        self.handed = Some((handed, last));
                        self.next = last.next();
                    }
                    None => self.handled(last),
                }
                Ok(())
            }
            Next::Compacted => self.jump().await,
        }
    }

    fn handled(&mut self, through: LogIndex) {
        self.next = through.next();
        self.stands_at.set(through);
        if let Some(cursor) = &self.cursor {
            cursor.0.set(through);
        }
    }

    /// The next entries, at least one.
    async fn read(&self, through: LogIndex) -> Result<Next, Stop> {
        let (count_max, bytes_max) = match self.to {
            Subscriber::Single(_) => (SINGLE_MAX, FEW_BYTES_MAX),
            Subscriber::Batched(_) if self.cursor.is_some() => (CURSOR_BATCH_MAX, FEW_BYTES_MAX),
            Subscriber::Batched(_) => (BATCH_MAX, BATCH_BYTES_MAX),
        };
        if self.next < self.log.begins.get().0 {
            return Ok(Next::Compacted);
        }
        if let Some(next) = self.recent(through, count_max, bytes_max) {
            return Ok(next);
        }
        let through = through.min(LogIndex(self.next.0 + count_max as u64 - 1));
        let read = ReadEntries {
            from: self.next,
            through,
            bytes_max,
        };
        match self.log.reads.send(read).await {
            // The ledger forgets what was suppressed before the log's beginning, which may have moved meanwhile.
            Ok(Ok(_)) if self.next < self.log.begins.get().0 => Ok(Next::Compacted),
            Ok(Ok(entries)) => {
                let (events, last) =
                    self.events(entries.len() as u64, |show| entries.iter().for_each(show));
                let events = Arc::new(events);
                Ok(Next::Entries { events, last })
            }
            Ok(Err(StorageError::Compacted { first })) => {
                // The node may hear of it a moment later than the reader.
                let (begins, snapshot) = self.log.begins.get();
                self.log.begins.set((begins.max(first), snapshot));
                Ok(Next::Compacted)
            }
            Ok(Err(StorageError::Closed)) | Err(_) => Err(SubscriptionEnd::NodeEnded.into()),
            Ok(Err(error)) => Err(Stop::Failure(error.into())),
        }
    }

    /// The next entries, if they are still in memory.
    fn recent(&self, through: LogIndex, count_max: usize, bytes_max: usize) -> Option<Next> {
        let shares = matches!(self.to, Subscriber::Batched(_))
            && self.cursor.is_none()
            && self.next > self.replays_through
            && self.log.subscriptions.get() > 1;
        let mut shared = self.log.shared.borrow_mut();
        if let Some(ready) = shared.as_ref().filter(|ready| ready.from == self.next)
            && shares
        {
            // Whoever made it ready stood here at the same progress or an earlier one.
            debug_assert!(ready.last <= through);
            let (events, last) = (Arc::clone(&ready.events), Some(ready.last));
            return Some(Next::Entries { events, last });
        }
        let count = (through.0 + 1 - self.next.0).min(count_max as u64);
        let (events, last) = self.events(count, |show| {
            let recent = self.log.recent.borrow();
            recent.read(self.next, through, count_max, bytes_max, show);
        });
        let (from, last, events) = (self.next, last?, Arc::new(events));
        if shares {
            let events = Arc::clone(&events);
            *shared = Some(Shared { from, last, events });
        }
        let last = Some(last);
        Some(Next::Entries { events, last })
    }

    /// What a subscriber is handed of the entries that `each` shows, about `count`: commands that were applied. And the last
    /// entry that was shown.
    fn events(
        &self,
        count: u64,
        each: impl FnOnce(&mut dyn FnMut(&Entry)),
    ) -> (Vec<Delivered>, Option<LogIndex>) {
        let replica = self.log.replica.borrow();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (mut events, mut last) = (Vec::new(), None);
        let event = |entry: &Entry| {
            let index = entry.id.index;
            if entry.kind != EntryKind::Command || replica.ledger.is_suppressed(index) {
                return None;
            }
            let (Request::Plain { command } | Request::InSession { command, .. }) =
                Request::parse(&entry.data).ok()?.1
            else {
                return None;
            };
            Some(Delivered {
                index,
                term: entry.id.term,
                replay: index <= self.replays_through,
                command: entry.data.slice_ref(command),
            })
        };
        each(&mut |entry| {
            if last.replace(entry.id.index).is_none() {
                events.reserve(count.min(BATCH_MAX));
            }
            if let Some(event) = event(entry) {
                events.push(event);
            }
        });
        (events, last)
    }

    /// Hands over what stands for the beginning of the log.
    async fn jump(&mut self) -> Result<(), Stop> {
        let (first, last) = self.log.begins.get();
        let Some(to) = &self.compacted else {
            return Err(SubscriptionEnd::Compacted { first }.into());
        };
        let from = self.next;
        if !self.log.replica.borrow().has_machine() {
            let gap = Compacted::Gap { from, first };
            if to.send(gap).await.is_err() {
                return Err(SubscriptionEnd::SubscriberGone.into());
            }
            self.handled(first.prev());
            return Ok(());
        }
        if last.index.next() < first || last.index < from {
            // The log's reader knows already that the log begins later, and the node is about to say which snapshot covers
            // the rest. The older one would lead back, or leave a gap.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            return Ok(());
        }
        // Opening a file is quick; what is in it, the subscriber reads on a thread of its own.
        let reading = match snapshot::open(self.log.snapshots.as_ref(), last) {
            Ok(opened) => opened.machine,
            // A newer one may just have taken its place, which the node is about to say.
            Err(_) if self.log.begins.get().1 == last && self.is_gone(last) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                return Ok(());
            }
            Err(_) if self.is_unreadable_now(last) => {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                return Ok(());
            }
            Err(why) => {
                let message = format!("cannot open the snapshot for a subscriber: {why}");
                let index = last.index;
                return Err(Stop::Failure(NodeFailure::StateMachine { index, message }));
            }
        };
        let Some(reading) = reading else {
            return Err(SubscriptionEnd::Compacted { first }.into());
        };
        let snapshot = Compacted::Snapshot(SnapshotReader { last, reading });
        if to.send(snapshot).await.is_err() {
            return Err(SubscriptionEnd::SubscriberGone.into());
        }
        self.handled(last.index);
        Ok(())
    }

    fn is_gone(&self, last: LogId) -> bool {
        let opened = self.log.snapshots.open(last);
        matches!(opened, Err(StorageError::NoSnapshot { .. }))
    }

    /// Whether the system does not open the file for a reason that may pass: too many files are open, say.
    fn is_unreadable_now(&self, last: LogId) -> bool {
        matches!(self.log.snapshots.open(last), Err(StorageError::Io { .. }))
    }

    /// Hands over one batch, if there is anything in it.
    fn hand_over(&self, events: Arc<Vec<Delivered>>) -> Option<Handed> {
        if events.is_empty() {
            return None;
        }
        let handled = match &self.to {
            Subscriber::Batched(to) => to.send(DeliveredBatch(events)).boxed_local(),
            // The mailbox is first in, first out: when the last one is handled, all are.
            Subscriber::Single(to) => {
                let mut events = Arc::unwrap_or_clone(events);
                let last = events.pop()?;
                events.into_iter().for_each(|event| to.do_send(event));
                to.send(last).boxed_local()
            }
        };
        let mut handed = maybe_done(handled);
        // To a full mailbox it is sent when it is looked at.
        let _ = (&mut handed).now_or_never();
        Some(handed)
    }
}

/// What a subscriber was handed, and whether it is handled; an error if the subscriber is gone.
pub(crate) type Handed = MaybeDone<LocalBoxFuture<'static, Result<(), MailboxError>>>;
