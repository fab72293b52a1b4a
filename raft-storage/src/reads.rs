//! The actor that reads old entries, on a thread of its own, so that no read delays a write.
//!
//! Invariant: it changes nothing, so it may end and be started again at any time.

use std::sync::Arc;

use actix::{Actor, Addr, Arbiter, Context, Handler, Message};
use raft_core::{Entry, LogIndex};

use crate::{LogReader, StorageError};

/// Reads entries that are no longer in memory. Ends, and its thread with it, when its last address is gone.
pub struct LogReads {
    reader: Arc<dyn LogReader>,
}

impl LogReads {
    /// Starts the actor on a thread of its own. Needs a running actor system.
    #[must_use]
    pub fn start(reader: Arc<dyn LogReader>) -> Addr<Self> {
        let arbiter = Arbiter::new();
        Self::start_in_arbiter(&arbiter.handle(), |_| Self { reader })
    }
}

impl Actor for LogReads {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        Arbiter::current().stop();
    }
}

/// Asks for entries; answered as [`LogReader::read`] says. Who asks bounds how many questions are under way.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<Entry>, StorageError>")]
pub struct ReadEntries {
    /// The first entry.
    pub from: LogIndex,
    /// The last one that is wanted.
    pub through: LogIndex,
    /// Stop after the entry with which the sum of [`Entry::size_bytes`] reaches this.
    pub bytes_max: usize,
}

impl Handler<ReadEntries> for LogReads {
    type Result = Result<Vec<Entry>, StorageError>;

    fn handle(&mut self, read: ReadEntries, _: &mut Self::Context) -> Self::Result {
        self.reader.read(read.from, read.through, read.bytes_max)
    }
}
