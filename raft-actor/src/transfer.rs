//! Handing the leadership over (thesis §3.10): asked for, or before the node is shut down.

use actix::prelude::*;
use raft_core::{Input, NodeId, Rejection, Role};

use crate::node::{Life, Node};
use crate::reply::{Answer, Later, later};
use crate::turn::Proposed;
use crate::{TransferError, TransferLeadership};

/// Who waits for a handover.
#[derive(Default)]
pub(crate) struct Transfers(Vec<Answer<Result<NodeId, TransferError>>>);

impl Transfers {
    /// Ends all that is here.
    pub(crate) fn end(&mut self) {
        self.give(&Err(TransferError::NodeEnded));
    }

    fn give(&mut self, result: &Result<NodeId, TransferError>) {
        for answer in self.0.drain(..) {
            answer.give(result.clone());
        }
    }
}

impl Node {
    /// Begins a handover. Says why it cannot begin.
    fn hand_over(&mut self, to: Option<NodeId>, ctx: &mut Context<Self>) -> Option<TransferError> {
        let leader = match &self.life {
            Life::Running(raft)
            | Life::Draining {
                raft: Some(raft), ..
            } => raft.leader(),
            _ => return Some(TransferError::NodeEnded),
        };
        match self.step(Input::TransferLeadership { to }, ctx) {
            Some(Proposed::Rejected(Rejection::NoCandidate(_))) => Some(TransferError::NoCandidate),
            Some(Proposed::Rejected(Rejection::Transferring { .. })) => {
                Some(TransferError::UnderWay)
            }
            Some(Proposed::Rejected(_)) => Some(TransferError::NotLeader { leader }),
            _ => None,
        }
    }

    /// A handover is over: the other node leads, or nothing has come of it.
    pub(crate) fn transfer_ended(&mut self, to: NodeId) {
        let still_leads = match &self.life {
            Life::Running(raft)
            | Life::Draining {
                raft: Some(raft), ..
            } => raft.role() == Role::Leader,
            _ => false,
        };
        tracing::info!(%to, still_leads, "the handover has ended");
        if still_leads {
            self.transfers.give(&Err(TransferError::Failed { to }));
        } else {
            self.transfers.give(&Ok(to));
        }
    }

    /// Begins to hand over before the node ends. False if there is nothing to hand over, or nobody to.
    pub(crate) fn hand_over_at_the_end(&mut self, ctx: &mut Context<Self>) -> bool {
        let leads = matches!(
            &self.life,
            Life::Draining { raft: Some(raft), .. } if raft.role() == Role::Leader
        );
        leads
            && self.peers.values().any(|peer| peer.connected)
            && self.hand_over(None, ctx).is_none()
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

impl Handler<TransferLeadership> for Node {
    type Result = Later<Result<NodeId, TransferError>>;

    fn handle(&mut self, message: TransferLeadership, ctx: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        let (later, answer) = later(|| Err(TransferError::NodeEnded));
        self.transfers.0.push(answer);
        let began = self.hand_over(message.to, ctx);
        if let Some(error) = began
            && let Some(answer) = self.transfers.0.pop()
        {
            answer.give(Err(error));
        }
        self.end_turn(ctx);
        later
    }
}
