//! The beginnings of snapshots: of those that come in, and of those whose transfer broke off.
//!
//! Invariants: a sink is handed the chunks of its offer in order, each once and of the right length; of what
//! broke off there is at most one of each peer, so many in all and for so long as [`Limits`] say; a file is
//! never removed on the thread of the node, which dropping a sink may do; after `close` nothing is kept.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft_core::NodeId;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::wire::SnapshotFrame;
use super::{ChunkSink, NotTaken, SnapshotOffer, WhyNotTaken};
use crate::Limits;

/// What has come of a snapshot.
pub(super) struct Begun {
    pub(super) sink: Box<dyn ChunkSink>,
    /// The chunk that comes next.
    pub(super) next: u64,
}

impl Begun {
    /// Takes the frame that follows, which must be the next chunk of `offer`; gives its length.
    pub(super) fn take(
        &mut self,
        offer: &SnapshotOffer,
        frame: SnapshotFrame,
    ) -> Result<u64, NotTaken> {
        let SnapshotFrame::Chunk { number, data } = frame else {
            return Err(NotTaken::new(WhyNotTaken::Malformed, "not a chunk"));
        };
        let next = self.next;
        if number != next {
            let text = format_args!("chunk {number} came, {next} is the next one");
            return Err(NotTaken::new(WhyNotTaken::OutOfOrder, text));
        }
        let (len, expected) = (data.len(), offer.chunk_len(number));
        if len as u64 != expected {
            let text = format_args!("chunk {number} has {len} bytes instead of {expected}");
            return Err(NotTaken::new(WhyNotTaken::WrongLength, text));
        }
        let written = self.sink.write(&data);
        written.map_err(|error| NotTaken::new(WhyNotTaken::Failed, error))?;
        self.next += 1;
        Ok(expected)
    }
}

struct Kept {
    from: NodeId,
    offer: SnapshotOffer,
    begun: Begun,
    until: Instant,
}

#[derive(Default)]
struct State {
    /// The oldest first.
    kept: Vec<Kept>,
    closed: bool,
}

pub(super) struct Shelf {
    max: usize,
    timeout: Duration,
    state: Mutex<State>,
    added: Notify,
}

impl Shelf {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max: limits.snapshots_kept_max,
            timeout: limits.snapshot_kept_timeout,
            state: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// Keeps what has come; for it the oldest may be dropped. Called on the thread of a transfer.
    pub(super) fn keep(&self, from: NodeId, offer: SnapshotOffer, begun: Begun) {
        let kept = Kept {
            from,
            offer,
            begun,
            until: Instant::now() + self.timeout,
        };
        let mut state = self.state();
        if state.closed || self.max == 0 {
            drop(state);
            return; // And `kept` goes with the lock released.
        }
        let too_many = state.kept.len() >= self.max;
        let oldest = too_many.then(|| state.kept.remove(0));
        state.kept.push(kept);
        drop(state);
        drop(oldest);
        self.added.notify_one();
    }

    /// What has come of this offer. What is kept of another one by the same node is dropped: it has something
    /// newer. Called on the thread of a transfer.
    pub(super) fn take(&self, from: NodeId, offer: &SnapshotOffer) -> Option<Begun> {
        let mut state = self.state();
        let at = state.kept.iter().position(|kept| kept.from == from)?;
        let kept = state.kept.remove(at);
        drop(state);
        offer.continues(&kept.offer).then_some(kept.begun)
    }

    /// Drops each that has been kept long enough, for as long as this is waited for.
    pub(super) async fn expire(&self) -> Infallible {
        loop {
            let until = self.state().kept.first().map(|kept| kept.until);
            let Some(until) = until else {
                self.added.notified().await;
                continue;
            };
            sleep_until(until).await;
            if let Some(expired) = self.take_older(until) {
                tracing::info!(peer = %expired.from, "gave up on a snapshot that broke off");
                spawn_blocking(move || drop(expired));
            }
        }
    }

    /// The oldest, if it is to be kept no longer than `until`.
    fn take_older(&self, until: Instant) -> Option<Kept> {
        let mut state = self.state();
        let expired = state.kept.first().is_some_and(|kept| kept.until <= until);
        expired.then(|| state.kept.remove(0))
    }

    /// Keeps nothing any more.
    pub(super) async fn close(&self) {
        let all = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.kept)
        };
        if !all.is_empty() {
            // If dropping one panics, so be it.
            let _ = spawn_blocking(move || drop(all)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, what is there is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
