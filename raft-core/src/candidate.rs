//! How a node comes to lead: it asks whether it would be elected (thesis §9.6), and then is (paper §5.2).

use std::collections::BTreeMap;

use crate::quorum::{VoteResult, vote_result};
use crate::raft::{Raft, RoleState};
use crate::{
    DurableMessage, HardState, NodeId, OpenMessage, PreVote, PreVoteResponse, RequestVote,
    VoteResponse, WriteId,
};

impl Raft {
    /// Asks everybody whether it would get a vote. Neither term nor vote change.
    pub(crate) fn become_pre_candidate(&mut self) {
        self.reset_election_timer();
        self.leader = None;
        self.role = RoleState::PreCandidate {
            votes: BTreeMap::from([(self.config.id, true)]),
        };
        let message = PreVote {
            term: self.term().next(),
            last: self.log.last(),
        };
        for peer in self.peers() {
            self.send(peer, OpenMessage::PreVote(message.clone()));
        }
        self.count_votes();
    }

    /// Enters a new term and votes for itself; asks the others once that is durable.
    fn become_candidate(&mut self) {
        self.reset_election_timer();
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
        };
        for peer in self.peers() {
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
        if let RoleState::PreCandidate { votes } = &mut self.role {
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
        match &self.role {
            RoleState::PreCandidate { votes } => match vote_result(&self.config.voters, votes) {
                VoteResult::Won => self.become_candidate(),
                VoteResult::Lost => self.role = RoleState::Follower,
                VoteResult::Pending => {}
            },
            RoleState::Candidate { votes, .. } => match vote_result(&self.config.voters, votes) {
                VoteResult::Won => self.become_leader(),
                VoteResult::Lost => self.role = RoleState::Follower,
                VoteResult::Pending => {}
            },
            RoleState::Follower | RoleState::Leader(_) => {}
        }
    }
}
