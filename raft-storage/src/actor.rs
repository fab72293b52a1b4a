//! The actor that writes the log, on a thread of its own that does nothing else, unless it is started where others work.
//!
//! It blocks on the sync. What comes in meanwhile waits in its mailbox, and is the next batch: a group
//! commit without a timer. The batch is closed when the mailbox is empty, or when it is large enough, since
//! under a flood the mailbox is never empty.
//!
//! Invariants:
//! - [`Withheld::release`](raft_core::Withheld::release) is called in one place, behind the sync.
//! - Writes are carried out and answered in the order in which they came. Every write is answered, alone or
//!   by a later one's [`Written`].
//! - A failure is told once, and nothing after it is written, answered or released. The actor is never
//!   supervised: who wants to go on opens the store again.
//!
//! Bounds: what waits here is what the core has under way, which the core bounds in bytes.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, Addr, Arbiter, AsyncContext, Context, Handler, Message, Recipient,
};
use raft_core::{DurableMessage, NodeId, Persist, Withheld, WriteId};

use crate::{Batch, LogStore, Record, StorageError};

/// A batch with so many bytes of entries is written though more waits.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How often the store is told to settle while nobody writes.
const SETTLE_EVERY: Duration = Duration::from_millis(500);

/// A write that takes so long is told in the log: as long as the shortest election timeout that is usual.
const LONG: Duration = Duration::from_millis(500);

/// Writes the log. [`Write`] it is told with `do_send`; a `send` whose future is dropped takes the message
/// back, which is fatal for a vote.
pub struct LogStorage {
    /// None once it is closed.
    store: Option<Box<dyn LogStore>>,
    listener: Box<dyn WriteListener>,
    pending: Pending,
    /// Whether a [`Flush`] is on its way.
    flush_notified: bool,
    failed: Option<StorageError>,
    has_own_thread: bool,
}

/// The running actor.
#[derive(Clone, Debug)]
pub struct LogStorageHandle {
    /// Where it takes [`Write`], [`Record`] and [`Close`].
    pub addr: Addr<LogStorage>,
}

/// Makes all of this durable, in order. The answer is [`Written`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Write(pub Vec<Persist>);

/// Hears what has become of the writes, on the thread that writes them and behind the sync: what it does keeps the next
/// batch waiting. A recipient of [`Written`] is one.
pub trait WriteListener: Send {
    /// Takes in what there is to say. An error is the last.
    fn hear(&mut self, written: Written);

    /// Whether there is still somebody to write for.
    fn is_there(&self) -> bool;
}

impl WriteListener for Recipient<Written> {
    fn hear(&mut self, written: Written) {
        self.do_send(written);
    }

    fn is_there(&self) -> bool {
        self.connected()
    }
}

/// What has become of the writes.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Written(pub Result<Durable, StorageError>);

/// All writes up to and including `through` are durable.
#[derive(Clone, Debug)]
pub struct Durable {
    /// For [`Input::Persisted`](raft_core::Input::Persisted).
    pub through: WriteId,
    /// What may now be said, in order, each with its receiver.
    pub messages: Vec<(NodeId, DurableMessage)>,
}

/// Writes what waits, closes the store and ends the actor and its thread. When it is answered, with
/// whatever answer, the data folder is free and can be opened again at once. A
/// [`MailboxError`](actix::MailboxError) means that the actor had ended before, and the folder is free too.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct Close;

/// Comes when the mailbox is empty.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

/// The writes that wait for the next sync.
#[derive(Default)]
struct Pending {
    batch: Batch,
    through: Option<WriteId>,
    then: Vec<Withheld>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, persist: Persist) {
        if let Some(from) = persist.takes_back_from() {
            for withheld in &mut self.then {
                withheld.drop_claims_from(from);
            }
        }
        self.bytes += persist
            .append
            .iter()
            .map(raft_core::Entry::size_bytes)
            .sum::<usize>();
        if let Some(write) = persist.snapshot {
            self.batch.push_snapshot(*write);
        }
        self.batch
            .push(persist.hard_state, persist.truncate_from, persist.append);
        self.through = Some(persist.write);
        self.then.push(persist.then);
    }
}

impl LogStorage {
    /// Starts the actor on a thread of its own. `listener` hears of every write. Needs a running actor system.
    ///
    /// It ends with [`Close`]; when its last address is gone; when the listener is not there any more; and with the
    /// system. Whichever it is, the store is closed in an orderly way.
    #[must_use]
    pub fn start(
        store: Box<dyn LogStore>,
        listener: impl WriteListener + 'static,
    ) -> LogStorageHandle {
        let arbiter = Arbiter::new();
        let addr = Self::start_in_arbiter(&arbiter.handle(), |_| {
            Self::new(store, Box::new(listener), true)
        });
        LogStorageHandle { addr }
    }

    /// Starts the actor on this thread, which it blocks on each sync: for few writers, whom waking another thread would cost
    /// more, and for simulations, where virtual time must not pass while another thread works.
    #[must_use]
    pub fn start_here(
        store: Box<dyn LogStore>,
        listener: impl WriteListener + 'static,
    ) -> LogStorageHandle {
        let addr = Self::new(store, Box::new(listener), false).start();
        LogStorageHandle { addr }
    }

    fn new(
        store: Box<dyn LogStore>,
        listener: Box<dyn WriteListener>,
        has_own_thread: bool,
    ) -> Self {
        Self {
            store: Some(store),
            listener,
            pending: Pending::default(),
            flush_notified: false,
            failed: None,
            has_own_thread,
        }
    }

    /// Makes all that waits durable, then releases what waited for it.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        let Pending {
            batch,
            through,
            then,
            ..
        } = std::mem::take(&mut self.pending);
        let Some(through) = through else { return };
        let began = Instant::now();
        if self.attempt(|store| store.write(&batch)).is_err() {
            return;
        }
        let took = began.elapsed();
        if took >= LONG {
            tracing::warn!(?took, "a write of the log took long: is the disk stuck?");
        }
        let messages = then.into_iter().flat_map(Withheld::release).collect();
        self.tell(Ok(Durable { through, messages }));
        self.end_if_alone(ctx);
    }

    /// Calls the store; the first failure, or panic, is told and is the last call.
    fn attempt(
        &mut self,
        call: impl FnOnce(&mut dyn LogStore) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some(store) = &mut self.store else {
            return Err(StorageError::Closed);
        };
        let result = guarded(|| call(store.as_mut()));
        if let Err(error) = &result {
            tracing::error!(%error, "the log can no longer be written");
            self.failed = Some(error.clone());
            self.tell(Err(error.clone()));
        }
        result
    }

    fn tell(&mut self, result: Result<Durable, StorageError>) {
        self.listener.hear(Written(result));
    }

    /// Lets go of the store.
    fn close(&mut self) -> Result<(), StorageError> {
        let Some(mut store) = self.store.take() else {
            return Err(StorageError::Closed);
        };
        let closed = guarded(|| store.close());
        let dropped = guarded(|| {
            drop(store);
            Ok(())
        });
        self.failed.clone().map_or(closed.and(dropped), Err)
    }

    /// Nobody is left to release messages to, or to write for: the node is gone, and so is the reason to
    /// go on. (An actor with a timer does not end by itself when its last address is gone.)
    fn end_if_alone(&mut self, ctx: &mut Context<Self>) {
        if !self.listener.is_there() || !ctx.connected() {
            ctx.stop();
        }
    }
}

/// Turns a panic into an error.
fn guarded(call: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let message = panic_message(panic.as_ref());
        Err(StorageError::Panicked(message.to_owned()))
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

impl Actor for LogStorage {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Under a flood of writes this never fires; then the store settles within its writes.
        ctx.run_interval(SETTLE_EVERY, |actor, ctx| {
            let _ = actor.attempt(|store| store.settle());
            actor.end_if_alone(ctx);
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if self.store.is_some()
            && let Err(error) = self.close()
        {
            tracing::warn!(%error, "the store did not close cleanly");
        }
        if self.has_own_thread {
            Arbiter::current().stop();
        }
    }
}

impl Drop for LogStorage {
    /// A panic of this actor, or the end of its thread, must not look like a slow disk.
    fn drop(&mut self) {
        if self.store.is_some() && self.failed.is_none() {
            self.tell(Err(StorageError::Ended));
        }
    }
}

impl Handler<Write> for LogStorage {
    type Result = ();

    fn handle(&mut self, Write(persists): Write, ctx: &mut Self::Context) {
        if self.failed.is_some() {
            return;
        }
        for persist in persists {
            self.pending.push(persist);
        }
        if self.pending.bytes >= BATCH_BYTES_MAX {
            self.flush(ctx);
        } else if !self.flush_notified {
            self.flush_notified = true;
            ctx.notify(Flush);
        }
    }
}

impl Handler<Flush> for LogStorage {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.flush_notified = false;
        self.flush(ctx);
    }
}

impl Handler<Record> for LogStorage {
    type Result = Result<(), StorageError>;

    fn handle(&mut self, record: Record, ctx: &mut Self::Context) -> Self::Result {
        self.flush(ctx);
        self.attempt(|store| store.record(&record))
    }
}

impl Handler<Close> for LogStorage {
    type Result = Result<(), StorageError>;

    fn handle(&mut self, _: Close, ctx: &mut Self::Context) -> Self::Result {
        self.flush(ctx);
        let result = self.close();
        ctx.stop();
        result
    }
}

#[cfg(test)]
mod tests;
