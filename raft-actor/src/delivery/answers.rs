//! What proposers are told, and which proposals are the node's to deal with.

use std::collections::BTreeMap;
use std::time::Instant;

use raft_core::NodeId;
use raft_net::Answer;

use super::message::Back;
use crate::ledger::Settlement;
use crate::proposals::{Outcome, Proposal, Settled};
use crate::{ProposeError, UnknownCause};

/// What is to be told, gathered while one message is handled.
#[derive(Default)]
pub(super) struct Answers {
    given: Vec<(Proposal, Outcome)>,
    pub(super) back: Vec<Back>,
}

impl Answers {
    /// About so many are going to be given.
    pub(super) fn expect(&mut self, count: usize) {
        self.given.reserve(count);
    }

    pub(super) fn give(&mut self, proposal: Proposal, outcome: Outcome) {
        self.given.push((proposal, outcome));
    }

    /// Answers the callers of this process, all in a row: a caller who is woken by the first finds the next ones when he
    /// looks, and is not put to sleep and woken for each. What peers are to be told is given back.
    pub(super) fn tell(&mut self) -> BTreeMap<NodeId, Vec<Answer>> {
        let mut peers: BTreeMap<NodeId, Vec<Answer>> = BTreeMap::new();
        let now = Instant::now();
        for (proposal, outcome) in std::mem::take(&mut self.given) {
            if let Some((peer, answer)) = proposal.answer_at(outcome, now) {
                peers.entry(peer).or_default().push(answer);
            }
        }
        peers
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
