//! Named cursors: how far subscribers have come, kept across restarts of the node.
//!
//! Invariant: a cursor on the disk is never beyond what its subscriber has handled.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::LogIndex;
use raft_storage::{LogStorage, Record};

use crate::SubscribeError;
use crate::subscription::Cursor;

/// How often cursors that moved are kept. Each time is a sync of its own.
const EVERY: Duration = Duration::from_millis(500);
/// The bounds of the storage.
const NAME_BYTES_MAX: usize = 255;
const COUNT_MAX: usize = 1000;

/// See the [module](self).
pub(crate) struct Cursors {
    cursors: BTreeMap<String, Kept>,
    storage: Addr<LogStorage>,
    kept_at: Instant,
}

struct Kept {
    at: Rc<Cell<LogIndex>>,
    /// What the disk has; none if it has not heard of this one.
    on_disk: Option<LogIndex>,
}

impl Cursors {
    pub(crate) fn new(cursors: BTreeMap<String, LogIndex>, storage: Addr<LogStorage>) -> Self {
        let kept = |(name, at): (String, LogIndex)| {
            let kept = Kept {
                at: Rc::new(Cell::new(at)),
                on_disk: Some(at),
            };
            (name, kept)
        };
        Self {
            cursors: cursors.into_iter().map(kept).collect(),
            storage,
            kept_at: Instant::now(),
        }
    }

    /// The cursor of this name, for one subscription.
    pub(crate) fn take(&mut self, name: &str) -> Result<Cursor, SubscribeError> {
        let refused = |why: String| SubscribeError::Cursor {
            name: name.to_owned(),
            why,
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let len = name.len();
            return Err(refused(format!(
                "its name has {len} bytes; it must be from 1 to {NAME_BYTES_MAX}"
            )));
        }
        if !self.cursors.contains_key(name) && self.cursors.len() >= COUNT_MAX {
            return Err(refused(format!("there are {COUNT_MAX} already")));
        }
        let kept = self.cursors.entry(name.to_owned()).or_insert_with(|| Kept {
            at: Rc::new(Cell::new(LogIndex::ZERO)),
            on_disk: None,
        });
        if Rc::strong_count(&kept.at) > 1 {
            return Err(SubscribeError::CursorInUse(name.to_owned()));
        }
        Ok(Cursor(Rc::clone(&kept.at)))
    }

    /// Forgets the cursor of this name.
    pub(crate) fn forget(&mut self, name: String) -> ResponseFuture<Result<(), SubscribeError>> {
        let in_use = |kept: &Kept| Rc::strong_count(&kept.at) > 1;
        if self.cursors.get(&name).is_some_and(in_use) {
            return Box::pin(std::future::ready(Err(SubscribeError::CursorInUse(name))));
        }
        if self.cursors.remove(&name).is_none() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let sent = self.storage.send(Record {
            cursors: [(name.clone(), None)].into(),
            ..Record::default()
        });
        Box::pin(async move {
            match sent.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(SubscribeError::Cursor {
                    name,
                    why: error.to_string(),
                }),
                Err(_) => Err(SubscribeError::NodeEnded),
            }
        })
    }

    /// What the disk does not have yet.
    fn moved(&mut self) -> BTreeMap<String, Option<LogIndex>> {
        let mut moved = BTreeMap::new();
        for (name, kept) in &mut self.cursors {
            let at = kept.at.get();
            if kept
                .on_disk
                .map_or(at > LogIndex::ZERO, |on_disk| on_disk != at)
            {
                kept.on_disk = Some(at);
                moved.insert(name.clone(), Some(at));
            }
        }
        moved
    }

    fn record(&mut self) -> Option<Request<LogStorage, Record>> {
        let cursors = self.moved();
        let record = Record {
            cursors,
            ..Record::default()
        };
        (!record.cursors.is_empty()).then(|| self.storage.send(record))
    }

    /// Keeps those that moved, now and then.
    pub(crate) fn keep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.kept_at) < EVERY {
            return;
        }
        self.kept_at = now;
        if let Some(sent) = self.record() {
            // A storage that cannot keep them has failed, and says so to the node.
            actix_rt::spawn(async move { drop(sent.await) });
        }
    }

    /// Keeps all that moved, before the node ends.
    pub(crate) fn keep_all(&mut self) -> impl Future<Output = ()> + use<> {
        let sent = self.record();
        async move {
            if let Some(sent) = sent {
                // A storage that cannot has said so to the node.
                drop(sent.await);
            }
        }
    }
}
