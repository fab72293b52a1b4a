//! One subscriber and where it stands.
//!
//! Each subscription is a task of its own: it waits for its next entry to be applied, takes it from memory
//! or from the log, hands over one batch, and goes on when that is handled. So at most one batch for each
//! subscriber is in memory beyond what all share, and a slow one delays nobody.

use std::cell::RefCell;
use std::rc::Rc;

use actix::{Addr, Recipient};
use raft_core::{Entry, EntryKind, LogIndex};
use raft_storage::{LogReads, ReadEntries, StorageError};
use tokio::sync::watch;

use crate::message::Subscriber;
use crate::recent::Recent;
use crate::{Delivered, DeliveredBatch};

/// Events that a subscriber that takes them one by one has unhandled, at most.
const SINGLE_MAX: usize = 64;
/// Events in a batch, at most.
const BATCH_MAX: usize = 512;
/// Bytes of entries in either: the entry that reaches it is the last.
const BATCH_BYTES_MAX: usize = 256 << 10;

pub(crate) struct Subscription {
    pub(crate) to: Subscriber,
    pub(crate) next: LogIndex,
    pub(crate) applied: watch::Receiver<LogIndex>,
    pub(crate) recent: Rc<RefCell<Recent>>,
    pub(crate) reads: Addr<LogReads>,
}

impl Subscription {
    /// Serves the subscriber until it is gone or the node ends.
    ///
    /// # Errors
    /// The log cannot be read, which must end the node.
    pub(crate) async fn run(mut self) -> Result<(), StorageError> {
        loop {
            let next = self.next;
            let Ok(through) = self
                .applied
                .wait_for(|applied| *applied >= next)
                .await
                .map(|at| *at)
            else {
                return Ok(());
            };
            let Some(entries) = self.read(through).await? else {
                return Ok(());
            };
            let Some(last) = entries.last() else {
                return Ok(());
            };
            self.next = last.id.index.next();
            let events: Vec<Delivered> = entries.into_iter().filter_map(delivered).collect();
            if !events.is_empty() && !self.hand_over(events).await {
                return Ok(());
            }
        }
    }

    /// The next entries, at least one; nothing when the node ends.
    async fn read(&self, through: LogIndex) -> Result<Option<Vec<Entry>>, StorageError> {
        let count_max = match self.to {
            Subscriber::Single(_) => SINGLE_MAX,
            Subscriber::Batched(_) => BATCH_MAX,
        };
        let entries = self
            .recent
            .borrow()
            .read(self.next, through, count_max, BATCH_BYTES_MAX);
        if !entries.is_empty() {
            return Ok(Some(entries));
        }
        let through = through.min(LogIndex(self.next.0 + count_max as u64 - 1));
        let read = ReadEntries {
            from: self.next,
            through,
            bytes_max: BATCH_BYTES_MAX,
        };
        match self.reads.send(read).await {
            Ok(Ok(entries)) => Ok(Some(entries)),
            Ok(Err(StorageError::Closed)) | Err(_) => Ok(None),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Hands over one batch and waits until it is handled. False if the subscriber is gone.
    async fn hand_over(&self, events: Vec<Delivered>) -> bool {
        match &self.to {
            Subscriber::Batched(to) => to.send(DeliveredBatch(events)).await.is_ok(),
            Subscriber::Single(to) => hand_over_each(to, events).await,
        }
    }
}

/// Puts all events into the mailbox and waits for the last one: the mailbox is first in, first out, so all
/// are handled by then, and it holds at most one batch of this subscription.
async fn hand_over_each(to: &Recipient<Delivered>, events: Vec<Delivered>) -> bool {
    let mut events = events.into_iter();
    let Some(last) = events.next_back() else {
        return true;
    };
    for event in events {
        to.do_send(event);
    }
    to.send(last).await.is_ok()
}

/// What a subscriber is handed of an entry: commands only.
fn delivered(entry: Entry) -> Option<Delivered> {
    (entry.kind == EntryKind::Command).then_some(Delivered {
        index: entry.id.index,
        term: entry.id.term,
        command: entry.data,
    })
}
