//! What a node has written: what its disk holds, or will hold when all that is under way is done.

use std::collections::VecDeque;

use raft_core::membership::Configuration;
use raft_core::{
    AppendOutcome, DurableMessage, Entry, EntryKind, HardState, LogId, LogIndex, NodeId, Persist,
    Recovered, SnapshotMeta,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) hard_state: HardState,
    pub(super) snapshot: Option<SnapshotMeta>,
    pub(super) start: LogId,
    /// What lies behind `start`.
    pub(super) entries: VecDeque<Entry>,
}

impl Written {
    pub(super) fn last(&self) -> LogId {
        self.entries.back().map_or(self.start, |entry| entry.id)
    }

    pub(super) fn get(&self, index: LogIndex) -> Option<&Entry> {
        let behind = index.0.checked_sub(self.start.index.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(behind).ok()?)
    }

    pub(super) fn id_at(&self, index: LogIndex) -> Option<LogId> {
        if index == self.start.index {
            return Some(self.start);
        }
        self.get(index).map(|entry| entry.id)
    }

    /// Writes it, and sees that no store would refuse it.
    pub(super) fn write(&mut self, persist: &Persist) {
        if let Some(new) = persist.hard_state {
            let old = std::mem::replace(&mut self.hard_state, new);
            let same = new.term == old.term;
            assert!(new.term >= old.term, "a term goes back");
            assert!(
                !same || old.voted_for.is_none() || old.voted_for == new.voted_for,
                "a vote is taken back"
            );
        }
        if let Some(write) = &persist.snapshot {
            if write.replaces_log {
                self.entries.clear();
                self.start = write.log_start;
            }
            assert_eq!(self.id_at(write.log_start.index), Some(write.log_start));
            while self.start.index < write.log_start.index {
                self.start = self.entries.pop_front().expect("it is in the log").id;
            }
            let last = write.snapshot.last;
            assert_eq!(
                self.id_at(last.index),
                Some(last),
                "a snapshot of another log"
            );
            self.snapshot = Some(write.snapshot.clone());
        }
        if let Some(from) = persist.truncate_from {
            let covered = self
                .snapshot
                .as_ref()
                .map_or(LogIndex::ZERO, |s| s.last.index);
            assert!(from > covered, "a snapshot's end is cut off");
            while self.last().index >= from && self.entries.pop_back().is_some() {}
        }
        for entry in persist.append.iter() {
            let last = self.last();
            assert!(entry.id.index == last.index.next() && entry.id.term >= last.term);
            if entry.kind == EntryKind::Configuration {
                Configuration::decode(&entry.data).expect("what is in the log can be read");
            }
            self.entries.push_back(entry.clone());
        }
        assert!(self.last().term <= self.hard_state.term);
    }

    /// Whether the disk is what a message that leaves it says.
    pub(super) fn bears_out(&self, node: NodeId, to: NodeId, message: &DurableMessage) {
        assert_ne!(to, node);
        assert_eq!(message.term(), self.hard_state.term, "{message:?}");
        let vote = self.hard_state.voted_for;
        match message {
            DurableMessage::RequestVote(m) => {
                assert_eq!((vote, m.last), (Some(node), self.last()));
            }
            DurableMessage::VoteResponse(m) => assert!(!m.granted || vote == Some(to)),
            DurableMessage::AppendResponse(m) => {
                if let AppendOutcome::Accepted { matched } = m.outcome {
                    assert!(
                        matched <= self.last().index,
                        "acknowledged what is not there"
                    );
                }
            }
        }
    }

    /// What a store says of it at a start, with at most `tail` entries in memory.
    pub(super) fn recovered(&self, applied: LogIndex, tail: usize) -> Recovered {
        let mut terms: Vec<LogId> = Vec::new();
        let mut configurations = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|last| last.term != entry.id.term) {
                terms.push(entry.id);
            }
            if entry.kind == EntryKind::Configuration {
                let configuration = Configuration::decode(&entry.data);
                configurations.push((entry.id.index, configuration.expect("checked")));
            }
        }
        let skip = self.entries.len().saturating_sub(tail);
        Recovered {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            log_start: self.start,
            last: self.last(),
            terms,
            configurations,
            tail: self.entries.iter().skip(skip).cloned().collect(),
            applied,
        }
    }
}
