//! What a leader does: it appends, feeds its followers, and counts what is durable (paper §5.3, §5.4).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::progress::Progress;
use crate::quorum::{committed_index, majority};
use crate::raft::{Raft, RoleState};
use crate::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, Effect, Entry, EntryKind,
    Heartbeat, LogId, LogIndex, NodeId, OpenMessage, PeerState, PeerStatus, ReadFailure, Rejection,
    RequestId, Violation,
};

/// What only a leader knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leading {
    pub(crate) peers: BTreeMap<NodeId, Progress>,
    heartbeat_elapsed: u32,
    quorum_elapsed: u32,
    uncommitted_bytes: usize,
    /// The slice that was sent last in this step: peers at the same position are sent the same one.
    slice: Option<Arc<[Entry]>>,
}

impl Raft {
    fn leading(&mut self) -> Option<&mut Leading> {
        match &mut self.role {
            RoleState::Leader(leading) => Some(leading),
            _ => None,
        }
    }

    pub(crate) fn peer_statuses(&self) -> Vec<PeerStatus> {
        let RoleState::Leader(leading) = &self.role else {
            return Vec::new();
        };
        let status = |(id, peer): (&NodeId, &Progress)| PeerStatus {
            id: *id,
            state: peer.state,
            matched: peer.matched,
            next: peer.next,
            inflight: peer.inflight(),
            active: peer.active,
        };
        leading.peers.iter().map(status).collect()
    }

    /// Leads, and begins with an entry of its own term, without which nothing older could be committed
    /// (paper §5.4.2, §8).
    pub(crate) fn become_leader(&mut self) {
        let next = self.log.last().index.next();
        let peers = self
            .peers()
            .into_iter()
            .map(|id| (id, Progress::new(next)))
            .collect();
        let uncommitted_bytes = self
            .log
            .tail_bytes_between(self.commit, self.log.last().index);
        self.role = RoleState::Leader(Leading {
            peers,
            uncommitted_bytes,
            ..Leading::default()
        });
        self.leader = Some(self.config.id);
        match &self.config.birth {
            Some(birth) if self.log.last() == LogId::ZERO => {
                let birth = birth.clone();
                self.append(EntryKind::Birth, birth);
            }
            _ => self.append(EntryKind::Noop, Bytes::new()),
        }
        self.feed_all();
    }

    fn append(&mut self, kind: EntryKind, data: Bytes) {
        let entry = Entry::new(self.term(), self.log.last().index.next(), kind, data);
        if let Some(leading) = self.leading() {
            leading.uncommitted_bytes += entry.size_bytes();
        }
        self.log.push(entry.clone());
        self.gathered.append.push(entry);
    }

    pub(crate) fn propose(&mut self, commands: Vec<Bytes>) {
        let (term, leader, bytes_max) =
            (self.term(), self.leader, self.config.uncommitted_bytes_max);
        let Some(leading) = self.leading() else {
            let rejection = Rejection::NotLeader { leader };
            return self.gathered.effects.push(Effect::Rejected(rejection));
        };
        if leading.uncommitted_bytes >= bytes_max {
            return self
                .gathered
                .effects
                .push(Effect::Rejected(Rejection::Busy));
        }
        let (first, count) = (self.log.last().index.next(), commands.len());
        for command in commands {
            self.append(EntryKind::Command, command);
        }
        self.gathered
            .effects
            .push(Effect::Appended { first, term, count });
        self.feed_all();
    }

    pub(crate) fn tick_leader(&mut self) {
        let (term, commit) = (self.term(), self.commit);
        let heartbeat_ticks = self.config.heartbeat_ticks;
        let quorum_ticks = self.config.election_timeout_ticks_min;
        let needed = majority(self.config.voters.len());
        let Some(leading) = self.leading() else {
            return;
        };

        leading.quorum_elapsed += 1;
        if leading.quorum_elapsed >= quorum_ticks {
            leading.quorum_elapsed = 0;
            let mut active = 1;
            for peer in leading.peers.values_mut() {
                active += usize::from(std::mem::take(&mut peer.active));
            }
            if active < needed {
                // No majority would notice what this leader does (check-quorum, thesis §6.2).
                return self.become_follower(term, None);
            }
        }
        leading.heartbeat_elapsed += 1;
        if leading.heartbeat_elapsed >= heartbeat_ticks {
            leading.heartbeat_elapsed = 0;
            let mut heartbeats = Vec::with_capacity(leading.peers.len());
            for (id, peer) in &mut leading.peers {
                let commit = commit.min(peer.matched);
                peer.commit_told = peer.commit_told.max(commit);
                heartbeats.push((*id, Heartbeat { term, commit }));
            }
            for (to, heartbeat) in heartbeats {
                self.send(to, OpenMessage::Heartbeat(heartbeat));
            }
        }
    }

    pub(crate) fn heartbeat_response(&mut self, from: NodeId) {
        let last = self.log.last().index;
        let Some(peer) = self
            .leading()
            .and_then(|leading| leading.peers.get_mut(&from))
        else {
            return;
        };
        peer.active = true;
        peer.paused = false;
        // While its next entries are read there is nothing to miss.
        let stuck = peer.matched == peer.matched_at_heartbeat && peer.reading.is_none();
        peer.matched_at_heartbeat = peer.matched;
        if peer.state == PeerState::Replicate && peer.matched < last && stuck {
            // Nothing was acknowledged for a heartbeat: ask whether what was sent has arrived. A slow
            // disk answers that it has, a gap that it has not.
            let next = peer.next;
            self.send_append(from, next, Arc::from([]));
        }
        self.feed(from);
    }

    pub(crate) fn append_response(&mut self, from: NodeId, m: &AppendResponse) {
        let last = self.log.last().index;
        let Some(peer) = self
            .leading()
            .and_then(|leading| leading.peers.get_mut(&from))
        else {
            return;
        };
        peer.active = true;
        match m.outcome {
            AppendOutcome::Accepted { matched } if matched > last => {
                return self.ignore(from, "it acknowledges what was never sent");
            }
            AppendOutcome::Accepted { matched } => {
                if peer.accepted(matched) {
                    self.advance_commit();
                }
            }
            AppendOutcome::Rejected { prev, hint } => {
                let late = match peer.state {
                    PeerState::Probe => prev.next() != peer.next,
                    PeerState::Replicate => prev >= peer.next,
                };
                if late || prev <= peer.matched {
                    return;
                }
                let common = self
                    .log
                    .last_at_most(hint.index, hint.term)
                    .index
                    .next()
                    .min(prev);
                if let Some(peer) = self
                    .leading()
                    .and_then(|leading| leading.peers.get_mut(&from))
                {
                    peer.probe(common);
                }
            }
        }
        self.feed(from);
    }

    pub(crate) fn peer_unreachable(&mut self, id: NodeId) {
        if let Some(peer) = self
            .leading()
            .and_then(|leading| leading.peers.get_mut(&id))
            && peer.state == PeerState::Replicate
        {
            peer.probe(peer.matched.next());
        }
    }

    /// Commits what a majority has durable, if the last of it is of this term (paper §5.4.2).
    pub(crate) fn advance_commit(&mut self) {
        let RoleState::Leader(leading) = &self.role else {
            return;
        };
        let index = committed_index(&self.config.voters, |id| {
            if id == self.config.id {
                self.writes.durable()
            } else {
                leading
                    .peers
                    .get(&id)
                    .map_or(LogIndex::ZERO, |peer| peer.matched)
            }
        });
        if index > self.commit && self.log.term_at(index) == Some(self.term()) {
            let committed_bytes = self.log.tail_bytes_between(self.commit, index);
            self.commit = index;
            if let Some(leading) = self.leading() {
                leading.uncommitted_bytes -= committed_bytes;
            }
        }
    }

    /// Tells each follower how far its log is committed, if nothing else in this step has.
    pub(crate) fn tell_commit(&mut self) {
        let (term, commit) = (self.term(), self.commit);
        let Some(leading) = self.leading() else {
            return;
        };
        leading.slice = None;
        let mut told = Vec::new();
        for (id, peer) in &mut leading.peers {
            let commit = commit.min(peer.matched);
            if commit > peer.commit_told {
                peer.commit_told = commit;
                told.push((*id, CommitAdvanced { term, commit }));
            }
        }
        for (to, message) in told {
            self.send(to, OpenMessage::CommitAdvanced(message));
        }
    }

    fn feed_all(&mut self) {
        for peer in self.peers() {
            self.feed(peer);
        }
    }

    /// Sends a follower what it lacks, as far as its limits allow.
    fn feed(&mut self, to: NodeId) {
        loop {
            let (inflight_max, inflight_bytes_max) =
                (self.config.inflight_max, self.config.inflight_bytes_max);
            let (last, tail_first) = (self.log.last().index, self.log.tail_first());
            let request = RequestId(self.reads.0 + 1);
            let Some(leading) = self.leading() else {
                return;
            };
            let Some(peer) = leading.peers.get_mut(&to) else {
                return;
            };
            if peer.reading.is_some() || !peer.has_room(inflight_max, inflight_bytes_max) {
                return;
            }
            let next = peer.next;
            if next > last && peer.state == PeerState::Replicate {
                return;
            }
            if next < tail_first.min(last.next()) {
                peer.reading = Some((request, next));
                self.reads = request;
                return self.read(request, next, tail_first.prev());
            }
            let entries = self.slice(next);
            self.send_append(to, next, entries);
        }
    }

    /// Asks for what one message may carry of the entries on disk.
    fn read(&mut self, request: RequestId, from: LogIndex, through: LogIndex) {
        let entries_max = self.config.append_entries_max as u64;
        self.gathered.effects.push(Effect::Read {
            request,
            from,
            through: through.min(LogIndex(from.0.saturating_add(entries_max - 1))),
            bytes_max: self.config.append_bytes_max,
        });
    }

    /// The entries from `next` on that one message may carry.
    fn slice(&mut self, next: LogIndex) -> Arc<[Entry]> {
        if let RoleState::Leader(Leading {
            slice: Some(slice), ..
        }) = &self.role
            && slice.first().is_some_and(|entry| entry.id.index == next)
        {
            return Arc::clone(slice);
        }
        let last = self.log.last().index;
        if next > last {
            return Arc::from([]);
        }
        let (entries_max, bytes_max) =
            (self.config.append_entries_max, self.config.append_bytes_max);
        let slice: Arc<[Entry]> = Arc::from(self.log.slice(next, last, entries_max, bytes_max));
        if let Some(leading) = self.leading() {
            leading.slice = Some(Arc::clone(&slice));
        }
        slice
    }

    /// Sends `entries`, which begin at `next`. Empty ones ask whether the follower has all before it.
    fn send_append(&mut self, to: NodeId, next: LogIndex, entries: Arc<[Entry]>) {
        let (term, commit) = (self.term(), self.commit);
        let prev = LogId::new(
            self.log.term_at(next.prev()).unwrap_or_default(),
            next.prev(),
        );
        let message = AppendEntries {
            term,
            prev,
            entries,
            commit,
        };
        let bytes = message.entries.iter().map(Entry::size_bytes).sum();
        if let Some(peer) = self
            .leading()
            .and_then(|leading| leading.peers.get_mut(&to))
        {
            // In Probe nothing more goes out until this is answered; an empty one is counted too.
            if peer.state == PeerState::Probe || !message.entries.is_empty() {
                peer.sent(message.last_index(), bytes);
            }
            peer.commit_told = peer.commit_told.max(commit.min(message.last_index()));
        }
        self.send(to, OpenMessage::AppendEntries(message));
    }

    pub(crate) fn entries_read(
        &mut self,
        request: RequestId,
        result: Result<Vec<Entry>, ReadFailure>,
    ) -> Result<(), Violation> {
        let asked = self.leading().and_then(|leading| {
            let mut peers = leading.peers.iter_mut();
            peers.find(|(_, peer)| peer.reading.is_some_and(|(id, _)| id == request))
        });
        let Some((&to, peer)) = asked else {
            // It lost its office since, or looks elsewhere for the common end: the range may be gone.
            return Ok(());
        };
        let from = peer.reading.take().map(|(_, from)| from);
        let next = peer.next;
        let mut entries = result.map_err(|failure| Violation::Log(failure.to_string()))?;
        if from != Some(next) {
            // A late acknowledgement has shown that the follower has more than was thought.
            self.feed(to);
            return Ok(());
        }
        entries.truncate(self.config.append_entries_max);
        let mut expected = next;
        for entry in &entries {
            if entry.id.index != expected || !self.log.contains(entry.id) {
                let what = format!(
                    "the log on disk has {} where {expected} should be",
                    entry.id
                );
                return Err(Violation::Log(what));
            }
            expected = expected.next();
        }
        if entries.is_empty() {
            return Err(Violation::Log(format!(
                "the log on disk has nothing at {next}"
            )));
        }
        self.send_append(to, next, Arc::from(entries));
        self.feed(to);
        Ok(())
    }
}
