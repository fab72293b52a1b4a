//! What a leader does: it appends, and counts what is durable (paper §5.3, §5.4). How it feeds its
//! followers is in `feed`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::progress::Progress;
use crate::quorum::{VoteResult, committed_index, vote_result};
use crate::raft::{Raft, RoleState};
use crate::reads::Rounds;
use crate::transfer::Transfer;
use crate::{
    Effect, Entry, EntryKind, LogId, LogIndex, NodeId, PeerStatus, Rejection, Round, StepDown,
};

/// What only a leader knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Leading {
    pub(crate) peers: BTreeMap<NodeId, Progress>,
    heartbeat_elapsed: u32,
    quorum_elapsed: u32,
    uncommitted_bytes: usize,
    /// The slice that was sent last in this step: peers at the same position are sent the same one.
    pub(crate) slice: Option<Arc<[Entry]>>,
    pub(crate) rounds: Rounds,
    pub(crate) transfer: Option<Transfer>,
    /// Checks of the quorum before the leadership is offered to a voter of higher priority again.
    pub(crate) offer_wait: u32,
    /// How often it was offered.
    pub(crate) offers: u32,
}

impl Raft {
    pub(crate) fn leading(&mut self) -> Option<&mut Leading> {
        match &mut self.role {
            RoleState::Leader(leading) => Some(leading),
            _ => None,
        }
    }

    pub(crate) fn peer(&mut self, id: NodeId) -> Option<&mut Progress> {
        self.leading()
            .and_then(|leading| leading.peers.get_mut(&id))
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
            active: peer.active || peer.heard,
            rounds: peer.catch_up.rounds,
        };
        leading.peers.iter().map(status).collect()
    }

    /// Leads, and begins with an entry of its own term, without which nothing older could be committed
    /// (paper §5.4.2, §8).
    pub(crate) fn become_leader(&mut self) {
        let next = self.log.last().index.next();
        let mut members = self.roster.latest().members();
        members.remove(&self.config.id);
        let peers = members
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
        self.early = None;
        match &self.config.birth {
            Some(birth) if self.log.last() == LogId::ZERO => {
                let birth = birth.clone();
                self.append(EntryKind::Birth, vec![birth]);
            }
            _ => self.append(EntryKind::Noop, vec![Bytes::new()]),
        }
        self.feed_all();
    }

    /// Leads no more: who waits for it is told, and the rest is forgotten.
    pub(crate) fn leave_office(&mut self, why: StepDown) {
        let role = std::mem::replace(&mut self.role, RoleState::Follower);
        let RoleState::Leader(leading) = role else {
            return;
        };
        let effects = &mut self.gathered.effects;
        effects.extend(leading.transfer.map(|t| Effect::TransferEnded { to: t.to }));
        let reads = leading.rounds.into_own_reads();
        if !reads.is_empty() {
            let reason = Rejection::NotLeader { leader: None };
            effects.push(Effect::ReadFailed { reads, reason });
        }
        effects.push(Effect::SteppedDown(why));
    }

    /// Appends an entry of `kind` for each of `data`, as one run.
    pub(crate) fn append(&mut self, kind: EntryKind, data: Vec<Bytes>) {
        let (term, mut index) = (self.term(), self.log.last().index);
        let (entries_max, bytes_max) =
            (self.config.append_entries_max, self.config.append_bytes_max);
        let mut bytes = 0;
        let entries = data.into_iter().map(|data| {
            index = index.next();
            let entry = Entry::new(term, index, kind, data);
            bytes += entry.size_bytes();
            entry
        });
        let run: Arc<[Entry]> = entries.collect();
        self.log.push(Arc::clone(&run), 0);
        if let Some(leading) = self.leading() {
            leading.uncommitted_bytes += bytes;
            // What fits one message goes out as it is.
            if run.len() <= entries_max && bytes <= bytes_max {
                leading.slice = Some(Arc::clone(&run));
            }
        }
        self.gathered.append.push(run);
    }

    pub(crate) fn propose(&mut self, commands: Vec<Bytes>) {
        let (term, leader, bytes_max) =
            (self.term(), self.leader, self.config.uncommitted_bytes_max);
        let Some(leading) = self.leading() else {
            return self.reject(Rejection::NotLeader { leader });
        };
        if let Some(Transfer { to, .. }) = leading.transfer {
            return self.reject(Rejection::Transferring { to });
        }
        if leading.uncommitted_bytes >= bytes_max {
            return self.reject(Rejection::Busy);
        }
        let (first, count) = (self.log.last().index.next(), commands.len());
        if count > 0 {
            self.append(EntryKind::Command, commands);
        }
        self.gathered
            .effects
            .push(Effect::Appended { first, term, count });
        self.feed_all();
    }

    pub(crate) fn tick_leader(&mut self) {
        let heartbeat_ticks = self.config.heartbeat_ticks;
        let quorum_ticks = self.config.election_timeout_ticks_min;
        if self.disk_is_stuck() {
            // Heartbeats would go on, and nobody could lead who can still write.
            return self.step_down(StepDown::StuckDisk);
        }
        let Some(leading) = self.leading() else {
            return;
        };
        for peer in leading.peers.values_mut() {
            peer.catch_up.ticks = peer.catch_up.ticks.saturating_add(1);
        }
        leading.quorum_elapsed += 1;
        let check_quorum = leading.quorum_elapsed >= quorum_ticks;
        leading.heartbeat_elapsed += 1;
        let heartbeat = leading.heartbeat_elapsed >= heartbeat_ticks;
        if check_quorum {
            leading.quorum_elapsed = 0;
            if !self.heard_from_a_quorum() {
                // No majority would notice what this leader does (check-quorum, thesis §6.2).
                return self.step_down(StepDown::NoQuorum);
            }
            self.offer_leadership();
        }
        self.tick_transfer();
        self.tick_departing();
        self.tick_rounds();
        if heartbeat {
            if let Some(leading) = self.leading() {
                leading.heartbeat_elapsed = 0;
            }
            self.heartbeat_all();
        }
    }

    /// Whether a majority has said anything since the last time that this was asked.
    fn heard_from_a_quorum(&mut self) -> bool {
        let own = self.config.id;
        let Some(leading) = self.leading() else {
            return false;
        };
        let peers = leading.peers.iter_mut();
        let active = peers.filter_map(|(id, peer)| {
            peer.heard = std::mem::take(&mut peer.active);
            peer.heard.then_some((*id, true))
        });
        let heard = active.chain([(own, true)]).collect();
        vote_result(self.roster.latest(), &heard) == VoteResult::Won
    }

    /// Commits what a majority has durable, if the last of it is of this term (paper §5.4.2).
    pub(crate) fn advance_commit(&mut self) {
        let index = self.committed_if(self.writes.durable());
        if index > self.commit {
            let first = !self.has_committed_in_its_term();
            let committed_bytes = self.log.tail_bytes_between(self.commit, index);
            self.commit = index;
            if let Some(leading) = self.leading() {
                leading.uncommitted_bytes -= committed_bytes;
            }
            if first {
                self.begin_round();
            }
        }
    }

    /// How far all is committed, for a leader whose own log is durable through `own`; no further than before, if the last of
    /// it is not of this term, or for who does not lead.
    pub(crate) fn committed_if(&self, own: LogIndex) -> LogIndex {
        let RoleState::Leader(leading) = &self.role else {
            return self.commit;
        };
        let index = committed_index(self.roster.latest(), |id| {
            if id == self.config.id {
                own
            } else {
                let peer = leading.peers.get(&id);
                peer.map_or(LogIndex::ZERO, |peer| peer.matched)
            }
        });
        let counts = index > self.commit && self.log.term_at(index) == Some(self.term());
        if counts { index } else { self.commit }
    }

    /// Whether an entry of this leader's term is committed. Before, it does not know how far the log is.
    pub(crate) fn has_committed_in_its_term(&self) -> bool {
        self.log.term_at(self.commit) == Some(self.term())
    }
}

/// A round's number where the arithmetic of majorities wants an index.
pub(crate) fn as_index(round: Round) -> LogIndex {
    LogIndex(round.0)
}
