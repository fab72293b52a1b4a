//! How a node comes to lead: it asks whether it would be elected (thesis §9.6), and then is (paper §5.2).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::membership::Configuration;
use crate::quorum::{VoteResult, vote_result};
use crate::raft::{Raft, RoleState};
use crate::{
    DurableMessage, HardState, LogIndex, NodeId, OpenMessage, PreVote, PreVoteResponse, Rejection,
    RequestVote, Term, VoteResponse, WriteId,
};

/// The ticks between two early pre-votes are drawn from here up to, but not including,
/// [`EARLY_TICKS_END`]. The first of them is a part of one: with a tick of 10 ms it is up to 20 ms.
const EARLY_TICKS_MIN: u32 = 1;
const EARLY_TICKS_END: u32 = 3;

impl Raft {
    /// A tick of a node that does not lead.
    pub(crate) fn tick_election(&mut self) {
        self.election_elapsed = self.election_elapsed.saturating_add(1);
        if self.election_elapsed >= self.election_timeout {
            self.early = None;
            self.reset_election_timer();
            self.become_pre_candidate();
            return;
        }
        match self.early {
            Some(0 | 1) => self.ask_early(),
            Some(ticks) => self.early = Some(ticks - 1),
            None => {}
        }
    }

    /// Somebody wants this node to stand for election.
    pub(crate) fn campaign(&mut self) {
        let lease = self.config.lease_drift_ticks.is_some();
        if matches!(self.role, RoleState::Leader(_))
            || !self.may_stand()
            || lease && self.heard_lately()
        {
            let id = self.config.id;
            return self.reject(Rejection::NoCandidate(id));
        }
        self.reset_election_timer();
        self.become_pre_candidate();
    }

    /// The process of `peer` is gone. If that was the leader, there is nobody to wait for, unless it was
    /// promised that everybody waits.
    pub(crate) fn peer_gone(&mut self, peer: NodeId) {
        self.peer_unreachable(peer);
        if self.leader == Some(peer) && self.config.lease_drift_ticks.is_none() {
            self.leader = None;
            self.ask_early();
        }
    }

    /// Asks ahead of the timer, and again soon, until the timer takes over.
    fn ask_early(&mut self) {
        self.early = None;
        if self.leader.is_some() || matches!(self.role, RoleState::Candidate { .. }) {
            return;
        }
        self.early = Some(self.rng.between(EARLY_TICKS_MIN, EARLY_TICKS_END));
        self.become_pre_candidate();
    }

    /// Whether this node may lead, and can write down that it votes for itself.
    ///
    /// Who is no voter any more in the latest configuration stands as long as that is not known to be
    /// committed: perhaps nobody else has it, and all who vote lack what this node has (thesis §4.2.2). It
    /// asks those who vote now, and does not count itself.
    fn may_stand(&self) -> bool {
        let votes = |configuration: &Configuration| configuration.votes(self.config.id);
        // A leader appends. A log that ends so high is a liar's work, and what is put behind its end could not be read.
        let room = self.term() < Term::MAX && self.log.last().index <= LogIndex::LIMIT_OF_LEADERS;
        self.roster.possible(self.commit).any(votes) && !self.disk_is_stuck() && room
    }

    /// Asks everybody whether it would get a vote. Neither term nor vote change.
    fn become_pre_candidate(&mut self) {
        self.leader = None;
        if !self.may_stand() {
            self.role = RoleState::Follower;
            return;
        }
        self.ask_for_pre_votes(false);
    }

    fn ask_for_pre_votes(&mut self, transfer: bool) {
        self.role = RoleState::PreCandidate {
            votes: BTreeMap::from([(self.config.id, true)]),
            transfer,
        };
        let message = PreVote {
            term: self.term().next(),
            last: self.log.last(),
            transfer,
        };
        for peer in self.other_voters() {
            self.send(peer, OpenMessage::PreVote(message.clone()));
        }
        self.count_votes();
    }

    /// The leader hands over: nobody need wait for a timer (thesis §3.10). Whether this node is heard by a
    /// majority is asked nevertheless, or it might depose a leader in nobody's place.
    pub(crate) fn timeout_now(&mut self, from: NodeId) {
        self.follow(from);
        if self.may_stand() {
            self.reset_election_timer();
            self.ask_for_pre_votes(true);
        }
    }

    /// Of two who ask at once the one with the shorter log, or else with the higher id, stops asking: both
    /// would get the same pre-votes, and then neither a majority.
    pub(crate) fn make_way(&mut self, other: NodeId, m: &PreVote) {
        let RoleState::PreCandidate { transfer, .. } = self.role else {
            return;
        };
        let theirs = (m.transfer, m.last, Reverse(other));
        if theirs > (transfer, self.log.last(), Reverse(self.config.id)) {
            self.role = RoleState::Follower;
            // To ask again soon would cross with the other's vote for itself.
            self.early = None;
        }
    }

    /// Enters a new term and votes for itself; asks the others once that is durable.
    fn become_candidate(&mut self, transfer: bool) {
        if !self.may_stand() {
            // Its leader went on while it asked.
            self.role = RoleState::Follower;
            return;
        }
        self.reset_election_timer();
        self.early = None;
        self.leader = None;
        self.hard_state = HardState {
            term: self.term().next(),
            voted_for: Some(self.config.id),
        };
        self.gathered.hard_state_changed = true;
        self.role = RoleState::Candidate {
            votes: BTreeMap::new(),
            own_vote: self.writes.next(),
        };
        let message = RequestVote {
            term: self.term(),
            last: self.log.last(),
            transfer,
        };
        for peer in self.other_voters() {
            self.send_durable(peer, DurableMessage::RequestVote(message.clone()));
        }
    }

    /// A candidate's vote for itself counts once it is durable, as everybody's does.
    pub(crate) fn own_vote_persisted(&mut self, through: WriteId) {
        if let RoleState::Candidate { votes, own_vote } = &mut self.role
            && through >= *own_vote
        {
            votes.insert(self.config.id, true);
            self.count_votes();
        }
    }

    pub(crate) fn pre_vote_response(&mut self, from: NodeId, m: &PreVoteResponse) {
        if m.granted && m.term != self.term().next() {
            return; // Granted for another term than the next one: a late answer.
        }
        if let RoleState::PreCandidate { votes, .. } = &mut self.role {
            votes.insert(from, m.granted);
            self.count_votes();
        }
    }

    pub(crate) fn vote_response(&mut self, from: NodeId, m: &VoteResponse) {
        if let RoleState::Candidate { votes, .. } = &mut self.role {
            votes.insert(from, m.granted);
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let roster = self.roster.latest();
        match &self.role {
            RoleState::PreCandidate { votes, transfer } => match vote_result(roster, votes) {
                VoteResult::Won => self.become_candidate(*transfer),
                VoteResult::Lost => {
                    self.role = RoleState::Follower;
                    // Who was told to stand has heard its leader meanwhile, and waits from then on.
                    if self.leader.is_some() {
                        let silent = u32::try_from(self.ticks - self.heard).unwrap_or(u32::MAX);
                        self.election_elapsed = self.election_elapsed.min(silent);
                    }
                }
                VoteResult::Pending => {}
            },
            RoleState::Candidate { votes, .. } => match vote_result(roster, votes) {
                VoteResult::Won => self.become_leader(),
                VoteResult::Lost => self.role = RoleState::Follower,
                VoteResult::Pending => {}
            },
            RoleState::Follower | RoleState::Leader(_) => {}
        }
    }
}
