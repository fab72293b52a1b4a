//! Adding a node that waits to be asked.

use std::time::Duration;

use actix::Message;
use raft_core::NodeId;

use crate::MembershipError;

/// Add the node that waits at an address: it runs [`RaftActor::join`](crate::RaftActor::join) with no addresses, and is
/// told by any member whom to join. The answer is its id, and comes when its membership is committed as far as the node
/// that was asked knows. From then on it catches up, and votes when it has, unless it is to stay a learner.
///
/// ```
/// # use raft_actor::{Invite, NodeId};
/// let invite = Invite::new("10.0.0.4:7001").replacing(NodeId(2));
/// # let _ = invite;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "Result<NodeId, MembershipError>")]
pub struct Invite {
    pub(crate) address: String,
    pub(crate) learner: bool,
    pub(crate) replacing: Option<NodeId>,
    pub(crate) timeout: Duration,
}

impl Invite {
    /// The node at `address` (`host:port`), to vote once it has caught up, within a minute.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            learner: false,
            replacing: None,
            timeout: Duration::from_secs(60),
        }
    }

    /// It stays a learner.
    #[must_use]
    pub fn learner(mut self, on: bool) -> Self {
        self.learner = on;
        self
    }

    /// It takes the place of `node`, which must not be alive, and is removed by the same entry.
    #[must_use]
    pub fn replacing(mut self, node: NodeId) -> Self {
        self.replacing = Some(node);
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
