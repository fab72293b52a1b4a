//! Handing the leadership over (thesis §3.10) before the node is shut down, and noting how any handover ended.

use actix::prelude::*;
use raft_core::{Input, NodeId, Role};

use crate::node::{Life, Node};
use crate::observe::raft_of;

impl Node {
    /// A handover is over: the other node leads, or nothing has come of it.
    pub(crate) fn transfer_ended(&mut self, to: NodeId) {
        let raft = raft_of(&self.life);
        let still_leads = raft.is_some_and(|raft| raft.role() == Role::Leader);
        tracing::info!(%to, still_leads, "the handover has ended");
        self.changes.transfer_ended(to, still_leads);
    }

    /// Begins to hand over before the node ends. False if there is nothing to hand over, or nobody to.
    pub(crate) fn hand_over_at_the_end(&mut self, ctx: &mut Context<Self>) -> bool {
        let leads = matches!(
            &self.life,
            Life::Draining { raft: Some(raft), .. } if raft.role() == Role::Leader
        );
        leads
            && self.peers.values().any(|peer| peer.connected)
            && self
                .take_in(Input::TransferLeadership { to: None }, ctx)
                .is_none()
    }

    /// Whether somebody else leads by now.
    pub(crate) fn has_handed_over(&self) -> bool {
        match &self.life {
            Life::Draining {
                raft: Some(raft), ..
            } => raft.leader().is_some_and(|leader| leader != self.id),
            _ => true,
        }
    }
}
