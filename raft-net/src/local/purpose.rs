//! Who dialled a connection, and what for.

use raft_core::NodeId;

use crate::header::FrameKind;

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// We did, and wanted this node.
    Dialled(NodeId),
    /// The other side did.
    Accepted,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The peer's main connection, by which it counts as connected.
    Main,
    /// The peer's votes and heartbeats.
    Urgent,
    /// One snapshot.
    Snapshot,
}

impl Purpose {
    /// The kinds of frames that a connection may begin with.
    pub(crate) const HELLOS: [FrameKind; 3] = [
        FrameKind::Hello,
        FrameKind::UrgentHello,
        FrameKind::SnapshotHello,
    ];

    /// What a connection that begins so is for.
    pub(crate) fn of(hello: FrameKind) -> Self {
        match hello {
            FrameKind::UrgentHello => Self::Urgent,
            FrameKind::SnapshotHello => Self::Snapshot,
            _ => Self::Main,
        }
    }

    /// The kind of frame by which the dialling side says so.
    pub(crate) fn hello(self) -> FrameKind {
        match self {
            Self::Main => FrameKind::Hello,
            Self::Urgent => FrameKind::UrgentHello,
            Self::Snapshot => FrameKind::SnapshotHello,
        }
    }
}
