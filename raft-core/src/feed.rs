//! How a leader feeds its followers: entries from memory, entries from disk, and who needs a snapshot
//! (paper §5.3, §7).

use std::sync::Arc;

use crate::leader::Leading;
use crate::progress::Progress;
use crate::raft::{Raft, RoleState};
use crate::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, Effect, Entry, Heartbeat,
    HeartbeatResponse, LogId, LogIndex, NodeId, OpenMessage, PeerState, ReadFailure, RequestId,
    Violation,
};

impl Raft {
    /// Begins a round of heartbeats.
    pub(crate) fn heartbeat_all(&mut self) {
        let (term, commit) = (self.term(), self.commit);
        let round = self.next_round();
        let Some(leading) = self.leading() else {
            return;
        };
        let mut heartbeats = Vec::with_capacity(leading.peers.len());
        for (id, peer) in &mut leading.peers {
            let commit = commit.min(peer.matched);
            peer.commit_told = peer.commit_told.max(commit);
            if peer.departing.is_some_and(|index| commit >= index) {
                peer.departing_round.get_or_insert(round);
            }
            let heartbeat = Heartbeat {
                term,
                commit,
                round,
            };
            heartbeats.push((*id, heartbeat));
        }
        for (to, heartbeat) in heartbeats {
            self.send(to, OpenMessage::Heartbeat(heartbeat));
        }
        self.count_rounds();
    }

    pub(crate) fn heartbeat_response(&mut self, from: NodeId, m: &HeartbeatResponse) {
        let (last, patience) = (
            self.log.last().index,
            self.config.election_timeout_ticks_min,
        );
        let (ticks, heartbeat_ticks) = (self.ticks, u64::from(self.config.heartbeat_ticks));
        let Some(peer) = self.peer(from) else {
            return;
        };
        peer.active = true;
        if m.round.0 == 0 {
            return; // It told its term, which is this one by now.
        }
        peer.resume();
        peer.catch_up(last, patience);
        // Reads begin rounds of their own; to look once in a heartbeat's time is enough.
        let (before, since) = peer.matched_before;
        let due = ticks - since >= heartbeat_ticks;
        if due {
            peer.matched_before = (peer.matched, ticks);
        }
        // While its next entries are read there is nothing to miss.
        let stuck = due && peer.matched == before && peer.reading.is_none();
        let news = m.round > peer.round;
        peer.round = peer.round.max(m.round);
        if peer.state == PeerState::Replicate && peer.matched < last && stuck {
            // Nothing was acknowledged for a heartbeat: ask whether what was sent has arrived. A slow
            // disk answers that it has, a gap that it has not.
            let next = peer.next;
            self.ask(from, next);
        }
        self.feed(from);
        if news {
            self.count_rounds();
        }
    }

    /// Asks with an empty AppendEntries whether the follower has all before `next`.
    fn ask(&mut self, to: NodeId, next: LogIndex) {
        if next.prev() >= self.log.start().index {
            self.send_append(to, next, Arc::from([]));
        } else if let Some(peer) = self.peer(to) {
            peer.probe(next);
        }
    }

    pub(crate) fn append_response(&mut self, from: NodeId, m: &AppendResponse) {
        let (last, start) = (self.log.last().index, self.log.start().index);
        let patience = self.config.election_timeout_ticks_min;
        let Some(peer) = self.peer(from) else {
            return;
        };
        peer.active = true;
        match m.outcome {
            AppendOutcome::Accepted { matched } => {
                let news = peer.accepted(matched, start);
                peer.catch_up(last, patience);
                if news {
                    self.advance_commit();
                    self.hand_over_if_ready(from);
                }
            }
            AppendOutcome::Rejected { prev, hint } => {
                let late = match peer.state {
                    PeerState::Probe => prev.next() != peer.next,
                    PeerState::Replicate => prev >= peer.next,
                    PeerState::Snapshot => true,
                };
                if late || prev <= peer.matched {
                    return;
                }
                let common = if hint.index < start {
                    hint.index.next() // A snapshot it will be.
                } else {
                    let common = self.log.last_at_most(hint.index, hint.term);
                    common.index.next().min(prev)
                };
                if let Some(peer) = self.peer(from) {
                    peer.probe(common);
                }
            }
        }
        self.feed(from);
    }

    pub(crate) fn peer_unreachable(&mut self, id: NodeId) {
        if let Some(peer) = self.peer(id)
            && peer.state == PeerState::Replicate
        {
            peer.probe(peer.matched.next());
        }
    }

    /// What `id` has acknowledged it does not have any more.
    pub(crate) fn peer_forgot(&mut self, id: NodeId) {
        let last = self.log.last().index;
        if let Some(peer) = self.peer(id) {
            let (departing, joins) = (peer.departing, peer.joins);
            *peer = Progress::new(last);
            (peer.departing, peer.joins) = (departing, joins);
            self.feed(id);
        }
    }

    /// Tells each follower how far its log is committed, if nothing else in this step has.
    ///
    /// While more is on its way this says nothing: the next entries, the commit of these, or a heartbeat will, and under load
    /// that is a message less for each batch and follower.
    pub(crate) fn tell_commit(&mut self) {
        let (term, commit) = (self.term(), self.commit);
        let is_all = commit == self.log.last().index;
        let Some(leading) = self.leading() else {
            return;
        };
        leading.slice = None;
        if !is_all {
            return;
        }
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

    /// Tells `id` how far its log is committed, as a heartbeat would.
    pub(crate) fn tell_commit_to(&mut self, id: NodeId) {
        let (term, commit) = (self.term(), self.commit);
        let Some(peer) = self.peer(id) else { return };
        let commit = commit.min(peer.matched);
        if commit > peer.commit_told {
            peer.commit_told = commit;
            let message = CommitAdvanced { term, commit };
            self.send(id, OpenMessage::CommitAdvanced(message));
        }
    }

    pub(crate) fn feed_all(&mut self) {
        let Some(leading) = self.leading() else {
            return;
        };
        // Message by message over all of them, and not peer by peer: who lacks the same gets the same slice, and the same frame.
        let mut lacking: Vec<NodeId> = leading.peers.keys().copied().collect();
        while !lacking.is_empty() {
            lacking.retain(|peer| self.feed_one(*peer));
        }
    }

    /// Sends a follower what it lacks, as far as its limits allow.
    pub(crate) fn feed(&mut self, to: NodeId) {
        while self.feed_one(to) {}
    }

    /// Sends a follower the next message of what it lacks. Says whether there may be more to send.
    fn feed_one(&mut self, to: NodeId) -> bool {
        let (inflight_max, inflight_bytes_max) =
            (self.config.inflight_max, self.config.inflight_bytes_max);
        let (last, tail_first) = (self.log.last().index, self.log.tail_first());
        let start = self.log.start().index;
        let request = RequestId(self.reads.0 + 1);
        let Some(peer) = self.peer(to) else {
            return false;
        };
        if peer.reading.is_some() || !peer.has_room(inflight_max, inflight_bytes_max) {
            return false;
        }
        let next = peer.next;
        if next > last && peer.state == PeerState::Replicate {
            return false;
        }
        if next.prev() < start {
            self.send_snapshot(to);
            return false;
        }
        if next < tail_first.min(last.next()) {
            peer.reading = Some((request, next));
            self.reads = request;
            self.read(request, next, tail_first.prev());
            return false;
        }
        let entries = self.slice(next);
        self.send_append(to, next, entries);
        true
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
        let slice = self.log.slice(next, last, entries_max, bytes_max);
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
        if let Some(peer) = self.peer(to) {
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
        let start = self.log.start().index;
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
        if from != Some(next) || next.prev() < start {
            // A late acknowledgement has shown that the follower has more than was thought, or the range
            // was compacted away.
            self.feed(to);
            return Ok(());
        }
        let mut entries = result.map_err(|failure| Violation::Log(failure.to_string()))?;
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
