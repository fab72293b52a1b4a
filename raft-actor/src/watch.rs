//! Being told when something about a node changes, instead of asking again and again.
//!
//! Invariant: a watcher holds nobody up and takes no memory. There is one value; who is slow finds the newest
//! one and has missed those between.

use std::collections::BTreeSet;

use actix::prelude::*;
use raft_core::membership::Configuration;
use raft_core::{NodeId, Role, Term};
use tokio::sync::watch::Receiver;

use crate::{Phase, RaftActor};

/// What about a node changes seldom and matters at once: who leads, who is there, whether it takes part.
///
/// Indexes and queues change all the time, and are in [`NodeStatus`](crate::NodeStatus).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Whether the node takes part.
    pub phase: Phase,
    /// What it is in the current term; a follower while it does not take part.
    pub role: Role,
    /// The current term; 0 while it does not take part.
    pub term: Term,
    /// The leader, where it is known.
    pub leader: Option<NodeId>,
    /// Who decides and who is fed: the last configuration in the log, committed or not.
    pub configuration: Configuration,
    /// To whom the node has a connection; itself is not among them.
    pub connected: BTreeSet<NodeId>,
}

impl NodeView {
    /// Of a node that has not begun.
    pub(crate) fn unborn() -> Self {
        Self {
            phase: Phase::Forming {
                waiting_for: Vec::new(),
            },
            role: Role::Follower,
            term: Term::default(),
            leader: None,
            configuration: Configuration::default(),
            connected: BTreeSet::new(),
        }
    }
}

/// Watch the node: the answer has the newest [`NodeView`] at any time, and can be waited on for the next
/// one. A change is seen within 10 ms. The channel closes when the node has been shut down; one that failed
/// stays, and says so.
///
/// ```
/// # use actix::prelude::*;
/// # use raft_actor::{Config, MemoryDisk, NodeId, RaftActor, Watch};
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = Config::new(NodeId(1)).peers([(NodeId(1), "127.0.0.1:12345")]).memory(MemoryDisk::new());
/// let raft = RaftActor::spawn(config)?;
/// let mut node = raft.send(Watch).await?;
/// let view = node.wait_for(|view| view.leader.is_some()).await?.clone();
/// println!("node {} leads term {}", view.leader.unwrap_or_default(), view.term);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Receiver<NodeView>")]
pub struct Watch;

/// Be sent [`StatusChanged`] now, and whenever the node's [`NodeView`] has changed. The next is sent when
/// the one before is handled, and has the newest view: who is slow misses what was between. It ends with
/// the recipient, or with the node.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct WatchStatus(pub Recipient<StatusChanged>);

/// The node's view has changed; this is the new one.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct StatusChanged(pub NodeView);

impl Handler<Watch> for RaftActor {
    type Result = MessageResult<Watch>;

    fn handle(&mut self, _: Watch, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        MessageResult(self.observed.subscribe())
    }
}

impl Handler<WatchStatus> for RaftActor {
    type Result = ();

    fn handle(&mut self, WatchStatus(to): WatchStatus, ctx: &mut Self::Context) {
        self.breathe(ctx);
        actix_rt::spawn(tell(self.observed.subscribe(), to));
    }
}

/// Tells one watcher until it, or the node, is gone.
async fn tell(mut views: Receiver<NodeView>, to: Recipient<StatusChanged>) {
    loop {
        let view = views.borrow_and_update().clone();
        if to.send(StatusChanged(view)).await.is_err() || views.changed().await.is_err() {
            return;
        }
    }
}
