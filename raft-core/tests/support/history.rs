//! All that was ever claimed, and what must hold of it over the whole history (paper, figure 3).

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Commit, DurableMessage, Entry, LogId, LogIndex, NodeId, Term, VoteResponse,
};

use super::disk::Disk;

/// What was seen of a run so far.
#[derive(Default)]
pub(crate) struct History {
    leaders: BTreeMap<Term, NodeId>,
    /// Each leader's log, as it grew.
    leader_logs: BTreeMap<Term, Vec<LogId>>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Each entry that any node ever had, with the one before it.
    entries: BTreeMap<LogId, (LogId, Bytes)>,
    /// The committed sequence, each entry with the term whose leader committed it.
    committed: Vec<(LogId, Term)>,
}

impl History {
    pub(crate) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    pub(crate) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// Whether `node` was seen to be elected in `term`.
    pub(crate) fn leads(&self, node: NodeId, term: Term) -> bool {
        self.leaders.get(&term) == Some(&node)
    }

    /// Log Matching (§5.3): an entry is everywhere preceded by the same entry, and so by the same log.
    pub(crate) fn appended(&mut self, node: NodeId, before: LogId, entry: &Entry) {
        let seen = self
            .entries
            .entry(entry.id)
            .or_insert_with(|| (before, entry.data.clone()));
        assert_eq!(
            *seen,
            (before, entry.data.clone()),
            "log matching: entry {} of node {node}",
            entry.id
        );
    }

    /// Election Safety (§5.2) and Leader Completeness (§5.4).
    pub(crate) fn became_leader(&mut self, node: NodeId, term: Term, log: &[LogId]) {
        let other = self.leaders.insert(term, node);
        assert_eq!(
            other, None,
            "election safety: {node} is elected in term {term} too"
        );
        for (index, (id, by)) in self.committed.iter().enumerate() {
            assert!(
                *by >= term || log.get(index) == Some(id),
                "leader completeness: {node} leads term {term} without committed {id}"
            );
        }
        self.leader_logs.insert(term, log.to_vec());
    }

    /// Leader Append-Only (§5.3).
    pub(crate) fn leader_appended(&mut self, term: Term, id: LogId) {
        let log = self.leader_logs.entry(term).or_default();
        assert_eq!(log.len() as u64 + 1, id.index.0, "leader append-only");
        log.push(id);
    }

    /// A leader's commit index moved. `holders` counts the disks that have an entry.
    pub(crate) fn leader_committed(
        &mut self,
        term: Term,
        through: LogIndex,
        majority: usize,
        holders: impl Fn(LogId) -> usize,
    ) {
        let log = &self.leader_logs[&term];
        while self.committed() < through.0 {
            let id = log[self.committed.len()];
            assert!(
                holders(id) >= majority,
                "{id} is committed, and on too few disks"
            );
            self.committed.push((id, term));
        }
        let last = self.committed[through.0 as usize - 1].0;
        assert_eq!(last, log[through.0 as usize - 1], "committed twice");
    }

    /// State Machine Safety (§5.4.3), and nothing handed out that is not durable here.
    pub(crate) fn handed_out(&self, node: NodeId, after: LogIndex, commit: &Commit, disk: &Disk) {
        assert!(commit.through > after, "{node} hands out nothing new");
        let log = &disk.log;
        for index in after.0..commit.through.0 {
            let id = log.get(index as usize).map(|entry| entry.id);
            assert!(
                id.is_some(),
                "{node} hands out {} before it is durable",
                index + 1
            );
            let committed = self.committed.get(index as usize).map(|(id, _)| *id);
            assert_eq!(
                id,
                committed,
                "state machine safety: {node} at {}",
                index + 1
            );
        }
        let through = commit.through.0 as usize;
        let in_memory = &log[through - commit.entries.len()..through];
        assert_eq!(
            &*commit.entries, in_memory,
            "{node} hands out other entries"
        );
        assert!(commit.entries.len() as u64 <= commit.through.0 - after.0);
    }

    /// What a message claims at its release is on its sender's disk, and no vote is given twice.
    pub(crate) fn released(
        &mut self,
        node: NodeId,
        to: NodeId,
        message: &DurableMessage,
        disk: &Disk,
    ) {
        let term = message.term();
        let durable = disk.hard_state;
        assert!(
            term <= durable.term,
            "{node} speaks of term {term} before it is durable"
        );
        let vote = match message {
            DurableMessage::RequestVote(m) => {
                assert_eq!(
                    disk.term_at(m.last.index),
                    Some(m.last.term),
                    "{node}'s last"
                );
                Some(node)
            }
            DurableMessage::VoteResponse(VoteResponse { granted: true, .. }) => Some(to),
            DurableMessage::VoteResponse(_) => None,
            DurableMessage::AppendResponse(m) => {
                if let AppendOutcome::Accepted { matched } = m.outcome
                    && let Some(at) = matched.0.checked_sub(1)
                {
                    let acknowledged = self.leader_logs[&term].get(at as usize).copied();
                    let held = disk.log.get(at as usize).map(|entry| entry.id);
                    assert!(
                        held.is_some() && held == acknowledged,
                        "{node} acknowledges {matched} of term {term}, and has {held:?}"
                    );
                }
                None
            }
        };
        if let Some(vote) = vote {
            let on_disk = durable.term > term || durable.voted_for == Some(vote);
            assert!(
                on_disk,
                "{node} votes for {vote} in term {term} before it is durable"
            );
            let before = *self.votes.entry((node, term)).or_insert(vote);
            assert_eq!(before, vote, "{node} votes twice in term {term}");
        }
    }
}
