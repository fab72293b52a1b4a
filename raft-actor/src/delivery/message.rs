//! What [`Delivery`](super::Delivery) is told, and what it tells the node.

use std::collections::{BTreeMap, BTreeSet};

use actix::Message;
use raft_core::{ClusterId, Commit, LogId, LogIndex, NodeId, SnapshotMeta, Term};
use raft_net::PeerSender;
use tokio::sync::OwnedSemaphorePermit;

use super::reads::ReadJob;
use crate::NodeFailure;
use crate::proposals::{Proposal, Settled};
use crate::snapshot::Captured;

/// Tells a node that a part of it cannot go on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PartFailed(pub(crate) NodeFailure);

/// Proposals that a leader has appended: from `first` on, in `term`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Await {
    pub(crate) first: LogIndex,
    pub(crate) term: Term,
    pub(crate) proposals: Vec<Proposal>,
}

/// Something for the state, in the order of the log.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum Apply {
    /// The log is committed further.
    Commits(Vec<Commit>),
    /// A snapshot takes the place of the state, and of all that was handed over before.
    Restore(SnapshotMeta),
}

/// What this node is for its cluster now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Office {
    pub(crate) leads: bool,
}

/// Whom this node deals with now.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Circle {
    /// The others, to tell them something.
    pub(crate) senders: BTreeMap<NodeId, PeerSender>,
    /// A majority of these decides whose state is right.
    pub(crate) voters: BTreeSet<NodeId>,
}

/// The log begins at this entry now, and this is the snapshot before it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LogBegins {
    pub(crate) first: LogIndex,
    pub(crate) snapshot: LogId,
}

/// A peer said its digest.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PeerDigest {
    pub(crate) from: NodeId,
    pub(crate) index: LogIndex,
    pub(crate) digest: u128,
    pub(crate) announced: bool,
    /// One of the peer's [`DIGESTS_MAX`](crate::node::DIGESTS_MAX) on their way.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// The state is to be captured for a snapshot.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CaptureState;

/// The node ends: whoever still waits is answered. The answer comes when the cursors are kept.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Finish;

/// What the node is told by `Delivery`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum Told {
    /// These are for the node to deal with: their entries were superseded, or this node leads no more and does not
    /// know, or they have an outcome that may be none yet.
    Back(Vec<Back>),
    /// A state for a snapshot.
    Captured(Box<Captured>),
    /// A snapshot was restored, and said which cluster it is of.
    Cluster(ClusterId),
    /// These reads must be asked again: their lease is over.
    Reads(Vec<ReadJob>),
}

/// A proposal that `Delivery` gives back.
pub(crate) enum Back {
    Superseded(Proposal),
    Unsure(Proposal),
    Settled(Proposal, Settled),
}

/// How far the state has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) index: LogIndex,
    /// The log's time as of that entry.
    pub(crate) time_ms: u64,
}
