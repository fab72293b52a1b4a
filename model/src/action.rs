//! What can happen next, as the model chooses it and as a counterexample tells it.

use std::fmt;

use raft_core::NodeId;

use crate::packet::Packet;

/// One thing that can happen next.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// A packet is delivered.
    Deliver(Packet),
    /// A packet is delivered, and will be once more.
    Duplicate(Packet),
    /// A snapshot is lost, and its sender is told.
    LoseSnapshot(Packet),
    /// The first writes of a node, so many, become durable.
    Sync(NodeId, usize),
    /// A node crashes; of its pending writes it finds the first, so many.
    Crash(NodeId, usize),
    /// A node's election timer runs out.
    Campaign(NodeId),
    /// A leader's heartbeat is due.
    Tick(NodeId),
    /// A command is proposed to a leader.
    Propose(NodeId),
    /// A read that a node asked of its own log comes back.
    AnswerRead(NodeId),
    /// A node's snapshot of all that it has applied is durable.
    TakeSnapshot(NodeId),
    /// A leader is asked for a change, by its place in the scene's list.
    Change(NodeId, usize),
    /// A leader is asked to hand over.
    Transfer(NodeId, NodeId),
    /// A node is asked for a read.
    Read(NodeId),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(packet) => write!(f, "deliver {packet:?}"),
            Self::Duplicate(packet) => write!(f, "deliver, and keep, {packet:?}"),
            Self::LoseSnapshot(packet) => write!(f, "lose {packet:?}"),
            Self::Sync(node, count) => write!(f, "node {node} makes {count} writes durable"),
            Self::Crash(node, 0) => write!(f, "node {node} crashes, and starts again"),
            Self::Crash(node, keep) => {
                write!(
                    f,
                    "node {node} crashes, finds {keep} unsynced writes, and starts again"
                )
            }
            Self::Campaign(node) => write!(f, "node {node} campaigns"),
            Self::Tick(node) => write!(f, "a heartbeat of node {node} is due"),
            Self::Propose(node) => write!(f, "a command is proposed to node {node}"),
            Self::AnswerRead(node) => write!(f, "node {node} reads its log"),
            Self::TakeSnapshot(node) => write!(f, "node {node} takes a snapshot"),
            Self::Change(node, which) => write!(f, "node {node} is asked for change {which}"),
            Self::Transfer(node, to) => write!(f, "node {node} is asked to hand over to {to}"),
            Self::Read(node) => write!(f, "node {node} is asked for a read"),
        }
    }
}
