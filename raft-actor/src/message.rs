//! What a node is told, and what it tells.

pub(crate) mod change;
mod invite;
mod propose;
mod read;
mod subscribe;

use actix::Message;
use raft_core::LogId;

use crate::{NodeFailure, NodeStatus, SnapshotError};

pub use change::{ChangeMembership, Changed, GetMembers, Leave, TransferLeadership};
pub use invite::Invite;
pub(crate) use propose::Naming;
pub use propose::{
    Cancel, Cancellation, CloseSession, Committed, OpenSession, Propose, ProposeBatch, Resolve,
};
pub use read::{Consistency, Read, ReadIndex, ReadValue};
pub(crate) use subscribe::Start;
pub use subscribe::{
    Compacted, Delivered, DeliveredBatch, ForgetCursor, SnapshotReader, Subscribe, Subscribed,
    Subscriber, SubscriptionEnd,
};

/// How does the node see itself and its cluster?
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "NodeStatus")]
pub struct GetStatus;

/// Take a snapshot of what this node has applied, and let the log begin behind it, but for a margin. Nodes do so by
/// themselves ([`Config::snapshots`](crate::Config::snapshots)). The answer is the last entry that it covers, and comes
/// when it is durable.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<LogId, SnapshotError>")]
pub struct TakeSnapshot;

/// End the node in order: a leader hands over first; no more proposals are taken, those that wait are given a second to
/// be committed, each gets its outcome, cursors are kept, the log is closed. The answer comes when the data folder is
/// free again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), NodeFailure>")]
pub struct Shutdown;

/// Wait for the node's end: `Ok` after [`Shutdown`] or [`Leave`], an error if it failed. A program that depends on its
/// node ends with it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), NodeFailure>")]
pub struct Ended;
