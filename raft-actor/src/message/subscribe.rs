//! Subscriptions: what was committed, handed over in order.

use std::io;
use std::sync::Arc;

use actix::{Message, Recipient};
use bytes::Bytes;
use raft_core::{LogId, LogIndex, Term};

use crate::SubscribeError;
use crate::snapshot::Reading;
use crate::subscription::Ending;

/// A committed command, handed to a subscriber: each once for each subscription, in the order of the log,
/// which is the same on every node.
///
/// Indexes grow but are not consecutive: the log holds entries of its own beside commands, and copies of commands that
/// were applied before.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Delivered {
    /// The command's place in the log.
    pub index: LogIndex,
    /// The term in which it got there.
    pub term: Term,
    /// Whether this node had it before the subscription began, so that it may have been delivered here before. A
    /// command that is no replay was certainly not.
    pub replay: bool,
    /// The command.
    pub command: Bytes,
}

/// Several [`Delivered`] at once, for those who want speed. Subscribers who stand at the same place share them;
/// [`Arc::unwrap_or_clone`] makes them one's own.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct DeliveredBatch(pub Arc<Vec<Delivered>>);

/// The commands that a subscriber would be handed next are not in the log any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Compacted {
    /// This stands for them: the state of the state machine, as of the entry before the next that is delivered.
    Snapshot(SnapshotReader),
    /// Nothing does, since the program has no state machine, and keeps the log only as far as it was
    /// [told to](crate::Config::retention). What is delivered next is at `first` or behind it.
    Gap {
        /// The first entry that is lost to this subscriber.
        from: LogIndex,
        /// The first one that is there.
        first: LogIndex,
    },
}

/// The state machine's bytes in a snapshot, read from the disk as they are asked for: wrap it into nothing. The
/// snapshot stays readable as long as this lives.
pub struct SnapshotReader {
    pub(crate) last: LogId,
    pub(crate) reading: Reading,
}

impl SnapshotReader {
    /// The last entry that the state includes.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.last
    }
}

impl io::Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reading.read(buffer)
    }
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// Be handed committed commands from a position on.
///
/// A subscriber is sent at most 64 events (one batch) beyond what it has handled: one that is slow falls
/// behind by itself, is served from the log on disk, and holds up nobody. An event is handled when its
/// handler returns; where handlers return futures, a batch is handled when the last event's is done. The subscription ends with the
/// subscriber, with the node, or when it is [cancelled](Subscribed::cancel).
///
/// If the log does not reach back to where the subscriber stands, at its start or because it fell behind a compaction, it
/// is handed a [`Compacted`] in place of what is missing, where it [takes](Self::or_compacted) that. Otherwise it cannot
/// begin ([`SubscribeError::Compacted`]), or ends ([`SubscriptionEnd::Compacted`]).
#[derive(Message)]
#[rtype(result = "Result<Subscribed, SubscribeError>")]
pub struct Subscribe {
    pub(crate) from: Start,
    pub(crate) to: Subscriber,
    pub(crate) compacted: Option<Recipient<Compacted>>,
}

/// Where a subscription starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Index(LogIndex),
    Now,
    Cursor(String),
}

/// Who is handed what is committed, one by one or in batches. Any recipient of either turns into one.
pub enum Subscriber {
    /// Takes [`Delivered`].
    Single(Recipient<Delivered>),
    /// Takes [`DeliveredBatch`].
    Batched(Recipient<DeliveredBatch>),
}

impl From<Recipient<Delivered>> for Subscriber {
    fn from(recipient: Recipient<Delivered>) -> Self {
        Self::Single(recipient)
    }
}

impl From<Recipient<DeliveredBatch>> for Subscriber {
    fn from(recipient: Recipient<DeliveredBatch>) -> Self {
        Self::Batched(recipient)
    }
}

impl Subscribe {
    fn starting(from: Start, to: impl Into<Subscriber>) -> Self {
        Self {
            from,
            to: to.into(),
            compacted: None,
        }
    }

    /// Every command since the cluster was born, and then each as it is committed.
    #[must_use]
    pub fn from_start(to: impl Into<Subscriber>) -> Self {
        Self::from_index(LogIndex(1), to)
    }

    /// Every command from `index` on. To go on after a restart, ask for the one behind the last that was
    /// handled.
    #[must_use]
    pub fn from_index(index: LogIndex, to: impl Into<Subscriber>) -> Self {
        Self::starting(Start::Index(index), to)
    }

    /// Only what this node has not applied yet; [`Subscribed::next`] says from where. A node that was just
    /// started has applied nothing before a leader tells it how far the log is committed: to it, the history
    /// is still to come.
    #[must_use]
    pub fn from_now(to: impl Into<Subscriber>) -> Self {
        Self::starting(Start::Now, to)
    }

    /// From where the subscriber of this name has come to on this node; from the start if there was none yet. The node
    /// keeps the cursor: it follows what was handled within half a second, and at the node's
    /// [`Shutdown`](crate::Shutdown) to the end. So what was handled last may be handed over again after a crash
    /// (at least once), and nothing is left out. A name has 1 to 255 bytes, and a node keeps up to 1,000 of them; one
    /// subscription uses it at a time.
    #[must_use]
    pub fn from_cursor(name: impl Into<String>, to: impl Into<Subscriber>) -> Self {
        Self::starting(Start::Cursor(name.into()), to)
    }

    /// Who is handed what stands for commands that the log does not hold any more. The next command is delivered
    /// when that is handled.
    #[must_use]
    pub fn or_compacted(mut self, to: Recipient<Compacted>) -> Self {
        self.compacted = Some(to);
        self
    }
}

/// A subscription has begun. It goes on whether this is kept or not.
#[derive(Debug)]
pub struct Subscribed {
    /// Nothing before this index will be delivered, and everything from it on.
    pub next: LogIndex,
    pub(crate) ending: Ending,
}

impl Subscribed {
    /// Ends the subscription. What is on its way to the subscriber still arrives.
    pub fn cancel(&self) {
        self.ending.cancel();
    }

    /// Waits for the subscription's end.
    pub async fn ended(&self) -> SubscriptionEnd {
        self.ending.wait().await
    }
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionEnd {
    /// The subscriber's actor has ended.
    #[error("the subscriber is gone")]
    SubscriberGone,
    /// It was cancelled.
    #[error("the subscription was cancelled")]
    Cancelled,
    /// The log was compacted past a subscriber that does not take [`Compacted`].
    #[error("the log was compacted past the subscriber: it begins at {first}")]
    Compacted {
        /// The first entry that is there.
        first: LogIndex,
    },
    /// The node has ended.
    #[error("the node has ended")]
    NodeEnded,
}

/// Forget a named cursor.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), SubscribeError>")]
pub struct ForgetCursor(pub String);
