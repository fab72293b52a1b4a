//! What a node does for its leader (paper §5.3), and how it votes (§5.2, §5.4.1; thesis §9.6).

use crate::raft::{Raft, RoleState};
use crate::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, DurableMessage, Heartbeat,
    HeartbeatResponse, LogIndex, NodeId, OpenMessage, PreVote, PreVoteResponse, RequestVote, Term,
    Violation, VoteResponse,
};

impl Raft {
    /// Follows the sender of a leader's message of the current term.
    fn follow(&mut self, from: NodeId) -> Result<(), Violation> {
        if let Some(leader) = self.leader
            && leader != from
        {
            return Err(Violation::TwoLeaders {
                leader,
                other: from,
                term: self.term(),
            });
        }
        self.become_follower(self.term(), Some(from));
        Ok(())
    }

    pub(crate) fn append_entries(
        &mut self,
        from: NodeId,
        m: AppendEntries,
    ) -> Result<(), Violation> {
        self.follow(from)?;
        if !is_run(&m) {
            self.ignore(from, "its entries are no run behind prev");
            return Ok(());
        }
        if !self.log.contains(m.prev) {
            let hint = self.log.last_at_most(m.prev.index, m.prev.term);
            let outcome = AppendOutcome::Rejected {
                prev: m.prev.index,
                hint,
            };
            self.answer_append(from, outcome);
            return Ok(());
        }
        // What matches stays as it is: to cut and rewrite it could lose what was acknowledged.
        let new = m
            .entries
            .iter()
            .position(|entry| !self.log.contains(entry.id));
        if let Some(new) = new {
            let first = m.entries[new].id.index;
            if first <= self.log.last().index {
                if first <= self.commit {
                    let (leader, term) = (from, self.term());
                    return Err(Violation::CommittedConflict {
                        leader,
                        term,
                        index: first,
                    });
                }
                self.log.truncate(first);
                self.writes.truncate(first);
                self.gathered.truncate_from = Some(first);
            }
            for entry in &m.entries[new..] {
                self.log.push(entry.clone());
                self.gathered.append.push(entry.clone());
            }
        }
        self.commit = self.commit.max(m.commit.min(m.last_index()));
        self.answer_append(
            from,
            AppendOutcome::Accepted {
                matched: m.last_index(),
            },
        );
        Ok(())
    }

    fn answer_append(&mut self, to: NodeId, outcome: AppendOutcome) {
        let response = AppendResponse {
            term: self.term(),
            outcome,
        };
        self.send_durable(to, DurableMessage::AppendResponse(response));
    }

    pub(crate) fn heartbeat(&mut self, from: NodeId, m: &Heartbeat) -> Result<(), Violation> {
        self.follow(from)?;
        self.commit_through(from, m.commit);
        let response = HeartbeatResponse { term: self.term() };
        self.send(from, OpenMessage::HeartbeatResponse(response));
        Ok(())
    }

    pub(crate) fn commit_advanced(
        &mut self,
        from: NodeId,
        m: &CommitAdvanced,
    ) -> Result<(), Violation> {
        self.follow(from)?;
        self.commit_through(from, m.commit);
        Ok(())
    }

    /// Takes over the leader's commit index, which covers only what this node has acknowledged to it.
    fn commit_through(&mut self, from: NodeId, commit: LogIndex) {
        if commit > self.log.last().index {
            self.ignore(from, "it takes for acknowledged what is not in the log");
            return;
        }
        self.commit = self.commit.max(commit);
    }

    pub(crate) fn pre_vote(&mut self, from: NodeId, m: &PreVote) {
        // Its own leader may ask: then it does not lead any more.
        let free = !self.has_leader() || self.leader == Some(from);
        let granted = m.term > self.term() && m.last >= self.log.last() && free;
        let term = if granted { m.term } else { self.term() };
        self.send(
            from,
            OpenMessage::PreVoteResponse(PreVoteResponse { term, granted }),
        );
    }

    pub(crate) fn request_vote(&mut self, from: NodeId, m: &RequestVote) {
        let free = self.hard_state.voted_for.is_none_or(|to| to == from);
        let granted = free && m.last >= self.log.last();
        if granted {
            debug_assert!(!matches!(
                self.role,
                RoleState::Leader(_) | RoleState::Candidate { .. }
            ));
            self.gathered.hard_state_changed |= self.hard_state.voted_for.is_none();
            self.hard_state.voted_for = Some(from);
            self.role = RoleState::Follower;
            self.reset_election_timer();
        }
        let response = VoteResponse {
            term: self.term(),
            granted,
        };
        self.send_durable(from, DurableMessage::VoteResponse(response));
    }
}

/// Whether the entries follow `prev` without a gap, in terms that never fall and that the leader has seen.
fn is_run(m: &AppendEntries) -> bool {
    let mut before = m.prev;
    for entry in m.entries.iter() {
        let follows = entry.id.index == before.index.next() && entry.id.index > before.index;
        if !follows || entry.id.term < before.term.max(Term(1)) {
            return false;
        }
        before = entry.id;
    }
    before.term <= m.term
}
