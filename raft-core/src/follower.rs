//! What a node does for its leader (paper §5.3), and how it votes (§5.2, §5.4.1; thesis §9.6).

use std::sync::Arc;

use crate::membership::Configuration;
use crate::raft::{Raft, RoleState};
use crate::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, DurableMessage, Entry, EntryKind,
    Heartbeat, HeartbeatResponse, LogIndex, NodeId, OpenMessage, PreVote, PreVoteResponse,
    RequestVote, Violation, VoteResponse,
};

impl Raft {
    /// Follows the sender of a leader's message of the current term.
    pub(crate) fn follow(&mut self, from: NodeId) {
        debug_assert!(self.leader.is_none_or(|leader| leader == from));
        self.heard = self.ticks;
        if let RoleState::PreCandidate { transfer: true, .. } = self.role {
            self.leader = Some(from);
            return;
        }
        self.become_follower(self.term(), Some(from));
    }

    pub(crate) fn append_entries(
        &mut self,
        from: NodeId,
        m: AppendEntries,
    ) -> Result<(), Violation> {
        self.follow(from);
        if self.writes.is_full() {
            return Ok(());
        }
        if m.prev.index < self.log.start().index {
            // A snapshot stands for that part of the log here. It is committed, so the leader has it too.
            let matched = self.commit;
            self.answer_append(from, AppendOutcome::Accepted { matched });
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
            if first <= self.commit && first <= self.log.last().index {
                let (leader, term) = (from, self.term());
                return Err(Violation::CommittedConflict {
                    leader,
                    term,
                    index: first,
                });
            }
            let configurations = configurations_of(&m.entries[new..]);
            let mut changed = !configurations.is_empty();
            if first <= self.log.last().index {
                self.log.truncate(first);
                self.writes.truncate(first);
                changed |= self.roster.truncate(first);
                self.gathered.truncate_from = Some(first);
            }
            self.log.push(Arc::clone(&m.entries), new);
            for (index, configuration) in configurations {
                self.roster.push(index, configuration);
            }
            if changed {
                self.configuration_changed();
            }
            self.gathered.append.push(match new {
                0 => Arc::clone(&m.entries),
                new => Arc::from(&m.entries[new..]),
            });
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

    pub(crate) fn answer_append(&mut self, to: NodeId, outcome: AppendOutcome) {
        let response = AppendResponse {
            term: self.term(),
            outcome,
        };
        self.send_durable(to, DurableMessage::AppendResponse(response));
    }

    pub(crate) fn heartbeat(&mut self, from: NodeId, m: &Heartbeat) {
        self.follow(from);
        self.commit = self.commit.max(m.commit);
        let (term, round) = (self.term(), m.round);
        let response = HeartbeatResponse { term, round };
        self.send(from, OpenMessage::HeartbeatResponse(response));
    }

    pub(crate) fn commit_advanced(&mut self, from: NodeId, m: &CommitAdvanced) {
        self.follow(from);
        self.commit = self.commit.max(m.commit);
    }

    pub(crate) fn pre_vote(&mut self, from: NodeId, m: &PreVote) {
        let free = m.transfer || !self.is_bound(from);
        let granted = m.term > self.term() && m.last >= self.log.last() && free;
        if granted {
            self.make_way(from, m);
        }
        let term = if granted { m.term } else { self.term() };
        self.send(
            from,
            OpenMessage::PreVoteResponse(PreVoteResponse { term, granted }),
        );
    }

    pub(crate) fn request_vote(&mut self, from: NodeId, m: &RequestVote) {
        if self.writes.is_full() {
            return;
        }
        let free = self.hard_state.voted_for.is_none_or(|to| to == from);
        let granted = free && m.last >= self.log.last() && (m.transfer || !self.is_bound(from));
        if granted {
            debug_assert!(!matches!(
                self.role,
                RoleState::Leader(_) | RoleState::Candidate { .. }
            ));
            self.gathered.hard_state_changed |= self.hard_state.voted_for.is_none();
            self.hard_state.voted_for = Some(from);
            self.role = RoleState::Follower;
            self.early = None;
            self.reset_election_timer();
        }
        let response = VoteResponse {
            term: self.term(),
            granted,
        };
        self.send_durable(from, DurableMessage::VoteResponse(response));
    }
}

/// The configurations among `entries`, which are sound, with their positions.
fn configurations_of(entries: &[Entry]) -> Vec<(LogIndex, Configuration)> {
    let of_that_kind = |entry: &&Entry| entry.kind == EntryKind::Configuration;
    let decode = |entry: &Entry| {
        let configuration = Configuration::decode(&entry.data).ok()?;
        Some((entry.id.index, configuration))
    };
    entries
        .iter()
        .filter(of_that_kind)
        .filter_map(decode)
        .collect()
}
