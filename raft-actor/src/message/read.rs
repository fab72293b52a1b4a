//! Reads: of the state machine, and of how far one must have applied to read by oneself.

use std::time::Duration;

use actix::Message;
use raft_core::LogIndex;

use crate::ReadError;

/// How fresh a read is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// It sees everything that was acknowledged, by any node to anybody, before the read began. Costs a round trip
    /// to a majority, which all reads of the moment share, and no entry of the log (thesis §6.4); on a node that does not
    /// lead, a question to the leader as well. Where [`Config::lease_reads`](crate::Config::lease_reads) allows it, a leader
    /// answers without the round trip, as long as it holds a lease.
    #[default]
    Linearizable,
    /// It sees what this node has applied, however long ago that was. Costs nothing, and never waits.
    Stale,
}

/// Read the state machine of this node, on the thread that applies its commands.
///
/// ```no_run
/// # use actix::Addr;
/// # use raft_actor::{RaftActor, Read};
/// # struct Store(std::collections::BTreeMap<String, u64>);
/// # async fn example(raft: Addr<RaftActor>) -> anyhow::Result<()> {
/// let read = raft.send(Read::new(|store: &Store| store.0.get("answer").copied())).await??;
/// println!("{:?}, as of entry {}", read.value, read.index);
/// # Ok(())
/// # }
/// ```
pub struct Read<S, R> {
    pub(crate) consistency: Consistency,
    pub(crate) timeout: Option<Duration>,
    pub(crate) read: Box<dyn FnOnce(&S) -> R + Send>,
}

impl<S: 'static, R: Send + 'static> Read<S, R> {
    /// Calls `read` with the state machine. It should be quick: nothing is applied meanwhile.
    #[must_use]
    pub fn new(read: impl FnOnce(&S) -> R + Send + 'static) -> Self {
        Self {
            consistency: Consistency::default(),
            timeout: None,
            read: Box::new(read),
        }
    }

    /// With this consistency instead of [`Linearizable`](Consistency::Linearizable).
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// Waits for this long, a day at most, instead of
    /// [`Config::propose_timeout`](crate::Config::propose_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl<S: 'static, R: Send + 'static> Message for Read<S, R> {
    type Result = Result<ReadValue<R>, ReadError>;
}

/// What a [`Read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadValue<R> {
    /// What it computed.
    pub value: R,
    /// The last entry that had been applied.
    pub index: LogIndex,
}

/// Wait until this node has applied all that was acknowledged, anywhere, before this was asked. The answer is the last
/// entry that it has applied then: a subscriber that has been handed everything up to it may answer a linearizable
/// read from a state of its own. [`Consistency::Stale`] answers at once.
#[derive(Clone, Copy, Debug, Default, Message)]
#[rtype(result = "Result<LogIndex, ReadError>")]
pub struct ReadIndex {
    pub(crate) consistency: Consistency,
    pub(crate) timeout: Option<Duration>,
}

impl ReadIndex {
    /// A linearizable one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Read::consistency`].
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// As [`Read::timeout`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}
