//! Virtual time: what happens next. Things that happen at the same moment happen in the order in which
//! they were planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use raft_core::{Envelope, InstallSnapshot, LogIndex, NodeId, RequestId, SnapshotMeta, WriteId};

use crate::machine::Machine;
use crate::node::Ready;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) envelope: Envelope,
    /// Which run of the sender sent it, and which one of the receiver it was for.
    pub(crate) sender_start: u64,
    pub(crate) receiver_start: u64,
    /// How often the link was reset before it was sent.
    pub(crate) connection: u32,
    /// Grows with each message of its link.
    pub(crate) number: u64,
}

/// Something that is going to happen. What is bound to a run of a node comes to nothing if that has ended.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A node's clock reads `clock`.
    Tick { node: usize, start: u64, clock: u64 },
    /// A message arrives.
    Arrive(Box<Frame>),
    /// A disk syncs some of what waits.
    Sync { node: usize, start: u64 },
    /// A node is told that a write is durable.
    Persisted {
        node: usize,
        start: u64,
        through: WriteId,
    },
    /// A node's disk is read for it.
    ReadLog {
        node: usize,
        start: u64,
        request: RequestId,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    },
    /// A state machine takes some of its work.
    Apply { node: usize, start: u64 },
    /// A node's own snapshot is durable.
    SnapshotWritten {
        node: usize,
        start: u64,
        meta: SnapshotMeta,
    },
    /// A snapshot's file is through the network, or not.
    SnapshotArrives(Box<Transfer>),
    /// It is durable at the receiver.
    SnapshotStored(Box<Transfer>),
    /// The sender is told.
    SnapshotSent {
        node: usize,
        start: u64,
        to: NodeId,
        arrived: bool,
    },
    /// A connection is found to be broken; nobody answers the redial if the process is gone, or if the network
    /// refuses it in its place.
    Disconnected {
        node: usize,
        start: u64,
        peer: NodeId,
        refused: bool,
    },
    /// A pause ends.
    Resume { node: usize, start: u64 },
    /// A node is started.
    Start { node: usize },
    /// A client's request arrives at a node.
    Request {
        node: usize,
        client: usize,
        attempt: u64,
    },
    /// A client begins something, or loses its patience.
    ClientWakes { client: usize, attempt: u64 },
    /// A read is answered.
    AnswerRead {
        node: usize,
        start: u64,
        ready: Ready,
    },
    /// Fate strikes, once in each tick of the right time.
    Strike,
}

/// A snapshot on its way.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) from: usize,
    pub(crate) from_start: u64,
    pub(crate) to: usize,
    pub(crate) to_start: u64,
    pub(crate) message: InstallSnapshot,
    pub(crate) machine: Machine,
}

impl Happening {
    /// The run of a node that it is bound to.
    pub(crate) fn bound_to(&self) -> Option<(usize, u64)> {
        match self {
            Self::Tick { node, start, .. }
            | Self::Sync { node, start }
            | Self::Persisted { node, start, .. }
            | Self::ReadLog { node, start, .. }
            | Self::Apply { node, start }
            | Self::SnapshotWritten { node, start, .. }
            | Self::SnapshotSent { node, start, .. }
            | Self::Disconnected { node, start, .. }
            | Self::Resume { node, start }
            | Self::AnswerRead { node, start, .. } => Some((*node, *start)),
            Self::Arrive(_)
            | Self::SnapshotArrives(_)
            | Self::SnapshotStored(_)
            | Self::Start { .. }
            | Self::Request { .. }
            | Self::ClientWakes { .. }
            | Self::Strike => None,
        }
    }

    /// The node whose process is needed, which may be paused.
    pub(crate) fn process(&self) -> Option<usize> {
        match self {
            Self::Tick { node, .. }
            | Self::Sync { node, .. }
            | Self::Persisted { node, .. }
            | Self::ReadLog { node, .. }
            | Self::Apply { node, .. }
            | Self::SnapshotWritten { node, .. }
            | Self::SnapshotSent { node, .. }
            | Self::Disconnected { node, .. }
            | Self::Request { node, .. }
            | Self::AnswerRead { node, .. } => Some(*node),
            Self::Arrive(frame) => Some(frame.envelope.to.0 as usize - 1),
            Self::SnapshotStored(transfer) | Self::SnapshotArrives(transfer) => Some(transfer.to),
            Self::Resume { .. } | Self::Start { .. } | Self::ClientWakes { .. } | Self::Strike => {
                None
            }
        }
    }
}

struct Planned {
    at: u64,
    number: u64,
    what: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        Reverse((self.at, self.number)).cmp(&Reverse((other.at, other.number)))
    }
}

/// What is going to happen.
#[derive(Default)]
pub(crate) struct Plan {
    heap: BinaryHeap<Planned>,
    planned: u64,
}

impl Plan {
    pub(crate) fn at(&mut self, at: u64, what: Happening) {
        self.planned += 1;
        let number = self.planned;
        self.heap.push(Planned { at, number, what });
    }

    pub(crate) fn next(&mut self) -> Option<(u64, Happening)> {
        self.heap.pop().map(|planned| (planned.at, planned.what))
    }
}
