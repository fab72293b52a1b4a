//! Snapshots: the state that stands for the beginning of the log (paper §7, thesis §5).
//!
//! The core never sees a snapshot's bytes. The caller takes one of the applied state and says so; a leader
//! asks for one to be sent to a follower whose next entry is gone; the file travels apart from the
//! messages, and reaches the follower's core when it is durable there.

use std::collections::btree_map::Entry;

use crate::membership::Configuration;
use crate::raft::{Raft, RoleState};
use crate::{
    AppendOutcome, Effect, InstallSnapshot, LogId, LogIndex, NodeId, SnapshotMeta, SnapshotWrite,
    Term,
};

impl Raft {
    /// The caller has a snapshot of what was handed out. The log keeps a margin before it.
    pub(crate) fn snapshot_taken(&mut self, snapshot: SnapshotMeta) {
        let last = snapshot.last;
        if self.snapshot_at(last.index).as_ref() != Some(&snapshot) {
            return;
        }
        let start = self.compaction_limit(last.index);
        self.log.compact(start.max(self.log.start().index));
        self.roster.compact(last.index);
        self.snapshot = Some(snapshot.clone());
        self.gathered.snapshot = Some(Box::new(SnapshotWrite {
            snapshot,
            log_start: self.log.start(),
            replaces_log: false,
        }));
    }

    /// How far the log may go when a snapshot covers it through `last`: a margin is kept, and what followers
    /// that are heard still lack, or else a log that grows faster than a snapshot travels would leave them
    /// behind for ever.
    fn compaction_limit(&self, last: LogIndex) -> LogIndex {
        let margin = LogIndex(last.0.saturating_sub(self.config.compaction_margin_entries));
        let held = LogIndex(
            last.0
                .saturating_sub(self.config.compaction_hold_entries_max),
        );
        let RoleState::Leader(leading) = &self.role else {
            return margin;
        };
        let heard = leading
            .peers
            .iter()
            .filter(|(_, peer)| peer.heard || peer.active);
        let needed = heard.map(|(id, peer)| {
            let sending = self.sending.get(id).copied().unwrap_or_default();
            peer.matched.max(sending)
        });
        needed.filter(|at| *at >= held).fold(margin, LogIndex::min)
    }

    /// Sends a follower the snapshot, without which nothing helps it, unless one is on its way.
    pub(crate) fn send_snapshot(&mut self, to: NodeId) {
        let term = self.term();
        let Some(snapshot) = self.snapshot.clone() else {
            return;
        };
        let last = snapshot.last.index;
        let Some(peer) = self.peer(to) else {
            return;
        };
        peer.wait_for_snapshot();
        if let Entry::Vacant(sending) = self.sending.entry(to) {
            sending.insert(last);
            let message = InstallSnapshot { term, snapshot };
            let effect = Effect::SendSnapshot { to, message };
            self.gathered.effects.push(effect);
        }
    }

    pub(crate) fn snapshot_sent(&mut self, to: NodeId, arrived: bool) {
        let Some(last) = self.sending.remove(&to) else {
            return;
        };
        if let Some(peer) = self.peer(to) {
            peer.snapshot_sent(arrived.then_some(last));
        }
    }

    pub(crate) fn snapshot_received(&mut self, from: NodeId, m: &InstallSnapshot) {
        if let Err(reason) = self.judge_snapshot(from, m) {
            return self.ignore(from, reason);
        }
        if m.term > self.term() {
            self.become_follower(m.term, None);
        } else if m.term < self.term() {
            return self.tell_term(from);
        }
        self.follow(from);
        if self.writes.is_full() {
            return;
        }
        let last = m.snapshot.last;
        if last.index <= self.commit || self.log.contains(last) {
            // Nothing to install: what it stands for is in this log, and committed.
            self.commit = self.commit.max(last.index);
            let matched = self.commit;
            return self.answer_append(from, AppendOutcome::Accepted { matched });
        }
        self.install(m.snapshot.clone());
        let matched = last.index;
        self.answer_append(from, AppendOutcome::Accepted { matched });
    }

    /// Puts `snapshot` in the place of the whole log, which contradicts it or ends before it.
    fn install(&mut self, snapshot: SnapshotMeta) {
        let SnapshotMeta {
            last,
            configuration,
        } = snapshot.clone();
        // Nothing that was begun before may confirm what is behind the commit index: that was another log.
        self.writes.truncate(self.commit.next());
        self.log.reset(last);
        let changed = *self.roster.latest() != configuration;
        self.roster.reset(last.index, configuration);
        if changed {
            self.configuration_changed();
        }
        self.commit = last.index;
        self.snapshot = Some(snapshot.clone());
        self.restoring = Some((self.writes.next(), snapshot.clone()));
        self.gathered.snapshot = Some(Box::new(SnapshotWrite {
            snapshot,
            log_start: last,
            replaces_log: true,
        }));
    }
}

impl InstallSnapshot {
    /// Whether a leader that works could have sent it. The core ignores what is not; who moves the files
    /// may ask before a byte of one has moved.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let SnapshotMeta {
            last,
            configuration,
        } = &self.snapshot;
        let term = Term(1)..=Term::MAX;
        term.contains(&self.term)
            && term.contains(&last.term)
            && last.term <= self.term
            && last.index > LogId::ZERO.index
            && last.index <= LogIndex::LIMIT
            && **configuration != Configuration::default()
            && configuration.validate().is_none()
    }
}
