//! Handing the leadership over (thesis §3.10), because somebody wants it, or because a voter of higher
//! priority is close behind.
//!
//! Invariants:
//! - From its beginning to its end the leader takes neither proposals nor changes nor reads; it always ends,
//!   after an election timeout at the latest.
//! - TimeoutNow goes only to a voter that has the leader's whole log. Whoever was sent one may be elected
//!   while others hear this leader, however late it arrives; so from then on there is no lease in this term.
//! - Its receiver asks for pre-votes first, and goes on asking although it hears the leader: a target that
//!   nobody else hears deposes nobody.

use crate::raft::{Raft, RoleState};
use crate::{Effect, NodeId, OpenMessage, PeerState, Rejection, TimeoutNow};

/// A transfer that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    elapsed: u32,
    /// Ticks until TimeoutNow is repeated, once the target had the whole log.
    repeat: Option<u32>,
}

/// Checks of the quorum between the first two offers of the leadership to a voter of higher priority.
const OFFER_WAIT: u32 = 10;

/// How often that is doubled: an offer of which nothing comes costs an election timeout without writes.
const OFFERS_DOUBLED: u32 = 5;

impl Raft {
    pub(crate) fn transfer_target(&self) -> Option<NodeId> {
        match &self.role {
            RoleState::Leader(leading) => leading.transfer.as_ref().map(|transfer| transfer.to),
            _ => None,
        }
    }

    pub(crate) fn transfer_leadership(&mut self, to: Option<NodeId>) {
        let leader = self.leader;
        if !matches!(self.role, RoleState::Leader(_)) {
            return self.reject(Rejection::NotLeader { leader });
        }
        if let Some(to) = self.transfer_target() {
            return self.reject(Rejection::Transferring { to });
        }
        if !self.has_committed_in_its_term() {
            return self.reject(Rejection::NotReady);
        }
        if self.change_is_under_way() {
            return self.reject(Rejection::ChangeUnderWay);
        }
        match to.or_else(|| self.best_successor()) {
            Some(to) if to != self.config.id && self.roster.latest().voters.contains(&to) => {
                self.begin_transfer(to);
            }
            other => {
                let id = other.unwrap_or(self.config.id);
                self.reject(Rejection::NoCandidate(id));
            }
        }
    }

    /// The voter that is elected most easily: with the longest log, then of the highest priority.
    pub(crate) fn most_advanced_voter(&self) -> Option<NodeId> {
        let RoleState::Leader(leading) = &self.role else {
            return None;
        };
        let roster = self.roster.latest();
        let voters = leading
            .peers
            .iter()
            .filter(|(id, _)| roster.voters.contains(id));
        let best = voters.max_by_key(|(id, peer)| {
            let heard = peer.heard || peer.active;
            let first = std::cmp::Reverse(**id);
            (peer.matched, heard, roster.priority(**id), first)
        });
        best.map(|(id, _)| *id)
    }

    /// The voter to whom a handover takes least: one that is fed and was heard, of the highest priority, then
    /// with the longest log.
    fn best_successor(&self) -> Option<NodeId> {
        let RoleState::Leader(leading) = &self.role else {
            return None;
        };
        let roster = self.roster.latest();
        let voters = leading
            .peers
            .iter()
            .filter(|(id, _)| roster.voters.contains(id));
        let fed = voters
            .filter(|(_, peer)| peer.state == PeerState::Replicate && (peer.heard || peer.active));
        let best = fed.max_by_key(|(id, peer)| {
            let first = std::cmp::Reverse(**id);
            (roster.priority(**id), peer.matched, first)
        });
        best.map(|(id, _)| *id)
    }

    fn begin_transfer(&mut self, to: NodeId) {
        if let Some(leading) = self.leading() {
            leading.transfer = Some(Transfer {
                to,
                elapsed: 0,
                repeat: None,
            });
        }
        self.fail_waiting_reads(Rejection::Transferring { to });
        self.hand_over_if_ready(to);
        self.feed(to);
    }

    /// Sends TimeoutNow to `to`, if the leadership goes there and it has the whole log.
    pub(crate) fn hand_over_if_ready(&mut self, to: NodeId) {
        let (term, last) = (self.term(), self.log.last().index);
        let repeat = self.config.heartbeat_ticks;
        let Some(leading) = self.leading() else {
            return;
        };
        let Some(transfer) = &mut leading.transfer else {
            return;
        };
        let matched = leading.peers.get(&to).map(|peer| peer.matched);
        if transfer.to != to || matched != Some(last) || transfer.repeat.is_some_and(|t| t > 0) {
            return;
        }
        transfer.repeat = Some(repeat);
        leading.rounds.renounce_lease();
        self.send(to, OpenMessage::TimeoutNow(TimeoutNow { term }));
    }

    /// TimeoutNow may be lost, and the target may never be elected.
    pub(crate) fn tick_transfer(&mut self) {
        let patience = self.config.election_timeout_ticks_min;
        let Some(leading) = self.leading() else {
            return;
        };
        let Some(transfer) = &mut leading.transfer else {
            return;
        };
        let to = transfer.to;
        transfer.elapsed += 1;
        if transfer.elapsed >= patience {
            leading.transfer = None;
            self.gathered.effects.push(Effect::TransferEnded { to });
            return;
        }
        if let Some(ticks) = &mut transfer.repeat {
            *ticks = ticks.saturating_sub(1);
        }
        self.hand_over_if_ready(to);
    }

    /// At each check of the quorum: hands over to a voter of higher priority that was heard and is close
    /// behind.
    pub(crate) fn offer_leadership(&mut self) {
        let last = self.log.last().index;
        let roster = self.roster.latest();
        let own = roster.priority(self.config.id);
        if roster.priorities.values().all(|priority| *priority <= own)
            || self.transfer_target().is_some()
            || self.change_is_under_way()
        {
            return;
        }
        let RoleState::Leader(leading) = &self.role else {
            return;
        };
        let better = leading.peers.iter().filter(|(id, peer)| {
            roster.voters.contains(id)
                && roster.priority(**id) > own
                && peer.state == PeerState::Replicate
                && peer.heard
                && last.0 - peer.matched.0 <= self.config.append_entries_max as u64
        });
        let best = better.max_by_key(|(id, _)| roster.priority(**id));
        let Some(to) = best.map(|(id, _)| *id) else {
            return;
        };
        let Some(leading) = self.leading() else {
            return;
        };
        match leading.offer_wait.checked_sub(1) {
            Some(wait) => leading.offer_wait = wait,
            None => {
                leading.offer_wait = OFFER_WAIT << leading.offers.min(OFFERS_DOUBLED);
                leading.offers += 1;
                self.begin_transfer(to);
            }
        }
    }
}
