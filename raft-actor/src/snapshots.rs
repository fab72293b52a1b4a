//! A node that takes no snapshots says so to those who offer one.

use actix::prelude::*;
use raft_core::NodeId;
use raft_net::{ChunkSink, SnapshotArrived, SnapshotOffer, SnapshotReceiver};

use crate::node::Node;

/// Takes none.
pub(crate) struct NoSnapshots;

impl SnapshotReceiver for NoSnapshots {
    fn begin(&self, _: NodeId, _: &SnapshotOffer) -> Result<Box<dyn ChunkSink>, String> {
        Err("this node takes no snapshots".to_owned())
    }
}

impl Handler<SnapshotArrived> for Node {
    type Result = bool;

    fn handle(&mut self, _: SnapshotArrived, _: &mut Self::Context) -> bool {
        false
    }
}
