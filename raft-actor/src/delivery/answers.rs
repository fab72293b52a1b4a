//! What proposers are told, and which proposals are the node's to deal with.

use std::collections::BTreeMap;

use raft_core::NodeId;
use raft_net::Answer;

use super::message::Back;
use crate::ledger::Settlement;
use crate::proposals::{OneLook, Outcome, Proposal, Settled};
use crate::{ProposeError, UnknownCause};

/// Answers the callers of this process, and gathers what others are to be told.
///
/// It is done in a row, when there is nothing else to do: a caller who is woken by the first answer finds the next ones
/// when he looks, and is not put to sleep and woken for each.
pub(super) struct Answers {
    clock: OneLook,
    /// For peers, about what they forwarded.
    pub(super) peers: BTreeMap<NodeId, Vec<Answer>>,
    /// For the node.
    pub(super) back: Vec<Back>,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self {
            clock: OneLook::new(),
            peers: BTreeMap::new(),
            back: Vec::new(),
        }
    }

    pub(super) fn give(&mut self, proposal: Proposal, outcome: Outcome) {
        if let Some((peer, answer)) = proposal.answer_at(outcome, &mut self.clock) {
            self.peers.entry(peer).or_default().push(answer);
        }
    }

    pub(super) fn settled(&mut self, proposal: Proposal, settled: Settled) {
        let may_go_on = proposal.ticket.is_some()
            && matches!(
                settled.settlement,
                Settlement::SessionExpired | Settlement::BeyondWindow { .. }
            );
        if may_go_on {
            self.back.push(Back::Settled(proposal, settled));
        } else {
            self.give(proposal, Ok(settled));
        }
    }

    pub(super) fn superseded(&mut self, proposal: Proposal) {
        if proposal.is_of_peer() {
            self.give(proposal, Err(ProposeError::Superseded));
        } else {
            self.back.push(Back::Superseded(proposal));
        }
    }

    pub(super) fn unsure(&mut self, proposal: Proposal, cause: UnknownCause) {
        if proposal.may_be_sent_again() {
            self.back.push(Back::Unsure(proposal));
        } else {
            let error = proposal.unknown(cause);
            self.give(proposal, Err(error));
        }
    }

    pub(super) fn late(&mut self, proposal: Proposal) {
        let error = proposal.unknown(UnknownCause::TimedOut);
        self.give(proposal, Err(error));
    }
}
