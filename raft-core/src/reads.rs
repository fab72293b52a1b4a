//! Linearizable reads without a log entry: ReadIndex and leases (thesis §6.4).
//!
//! A read may be answered once the state is applied up to what was committed when the read came in, as the
//! leader of that moment knew it. The leader shows that it was one by a round of heartbeats: whoever answers
//! had entered no higher term by then, and a majority of such answers leaves none to elect another before. A follower's
//! question says the same of the follower, so that with three voters it is answered at once.
//!
//! Invariants:
//! - No read is answered before an entry of the leader's own term is committed.
//! - A round answers only the reads that were there when it began, with the commit index of its beginning.
//! - A batch's name is never used again (see [`ReadBatch`]), and a batch is not changed once it was sent.
//! - Every read is answered: by [`Effect::ReadReady`] or [`Effect::ReadFailed`], after the longest election
//!   timeout at the latest.
//!
//! **Leases.** With [`Config::lease_drift_ticks`](crate::Config::lease_drift_ticks) set, whoever has answered
//! a heartbeat helps nobody else for the shortest election timeout, whatever terms it hears of; so a leader
//! may answer for that long, less the drift and a tick, counted from the beginning of the last round that a majority
//! answered. It gives the lease up for good before its first TimeoutNow, and begins a new one with each
//! configuration.

use std::collections::VecDeque;

use crate::leader::as_index;
use crate::quorum::committed_index;
use crate::raft::{Raft, RoleState};
use crate::{
    Effect, LogIndex, NodeId, OpenMessage, ReadBatch, ReadId, ReadIndex, ReadIndexResponse,
    ReadReady, Rejection, Round,
};

/// Who waits for a leader's confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Own(ReadId),
    Follower(NodeId, ReadBatch),
}

/// A leader's rounds of heartbeats, and the reads that wait for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rounds {
    /// The last round that began.
    last: Round,
    /// The clock at the beginning of each round that no majority has answered yet, and of the last one that
    /// one has.
    began: VecDeque<(Round, u64)>,
    /// The clock at the beginning of the last round that a majority has answered.
    lease_from: Option<u64>,
    renounced: bool,
    /// Reads that no round answers yet, and since which tick the first of them waits.
    waiting: Vec<Reader>,
    waiting_since: u64,
    /// The round that answers reads, which, with what index, and since which tick.
    asked: Option<Asked>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    round: Round,
    index: LogIndex,
    readers: Vec<Reader>,
    since: u64,
}

impl Rounds {
    /// There is no lease in this term any more.
    pub(crate) fn renounce_lease(&mut self) {
        self.renounced = true;
        self.lease_from = None;
    }

    /// The lease begins anew with the rounds that begin from now on.
    pub(crate) fn forget_lease(&mut self) {
        self.lease_from = None;
        self.began.clear();
    }

    /// The leader's own reads, which nobody will confirm now.
    pub(crate) fn into_own_reads(self) -> Vec<ReadId> {
        let asked = self.asked.map(|asked| asked.readers).unwrap_or_default();
        own(asked.into_iter().chain(self.waiting))
    }
}

fn own(readers: impl IntoIterator<Item = Reader>) -> Vec<ReadId> {
    let own = |reader| match reader {
        Reader::Own(read) => Some(read),
        Reader::Follower(..) => None,
    };
    readers.into_iter().filter_map(own).collect()
}

/// What a follower asks its leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asking {
    last: ReadBatch,
    /// The batch that was sent, and has no answer yet.
    sent: Vec<ReadId>,
    /// Since which tick the first of them waits.
    sent_since: u64,
    /// Ticks until it is sent again.
    repeat: u32,
    /// Reads for the next one, and since which tick the first of them waits.
    waiting: Vec<ReadId>,
    waiting_since: u64,
}

impl Asking {
    pub(crate) fn new(start: u64) -> Self {
        Self {
            last: ReadBatch { start, number: 0 },
            sent: Vec::new(),
            sent_since: 0,
            repeat: 0,
            waiting: Vec::new(),
            waiting_since: 0,
        }
    }
}

impl Raft {
    /// A read of this node.
    pub(crate) fn read_index(&mut self, read: ReadId) {
        let (leader, reads_max) = (self.leader, self.config.reads_max);
        let lease = self.lease_until().filter(|until| self.clock < *until);
        if let Some(to) = self.transfer_target() {
            return self.fail_reads(vec![read], Rejection::Transferring { to });
        }
        if let Some(until) = lease {
            return self.gathered.effects.push(Effect::ReadReady(ReadReady {
                reads: vec![read],
                index: self.commit,
                lease_until_ticks: Some(until),
            }));
        }
        if self.leading().is_some() {
            return self.wait_for_round(Reader::Own(read));
        }
        if leader.is_none() {
            return self.fail_reads(vec![read], Rejection::NotLeader { leader });
        }
        if self.asking.sent.len() + self.asking.waiting.len() >= reads_max {
            return self.fail_reads(vec![read], Rejection::Busy);
        }
        if self.asking.waiting.is_empty() {
            self.asking.waiting_since = self.ticks;
        }
        self.asking.waiting.push(read);
        self.ask_leader();
    }

    fn fail_reads(&mut self, reads: Vec<ReadId>, reason: Rejection) {
        if !reads.is_empty() {
            let effect = Effect::ReadFailed { reads, reason };
            self.gathered.effects.push(effect);
        }
    }

    // The follower's side.

    /// Sends what waits as one batch, unless one is on its way.
    fn ask_leader(&mut self) {
        let asking = &mut self.asking;
        if !asking.sent.is_empty() || asking.waiting.is_empty() {
            return;
        }
        asking.sent = std::mem::take(&mut asking.waiting);
        asking.sent_since = asking.waiting_since;
        asking.last.number += 1;
        self.send_question();
    }

    fn send_question(&mut self) {
        self.asking.repeat = self.config.heartbeat_ticks;
        let (term, batch) = (self.term(), self.asking.last);
        if let Some(leader) = self.leader {
            self.send(leader, OpenMessage::ReadIndex(ReadIndex { term, batch }));
        }
    }

    /// Question or answer may be lost; the question is the same when it is asked again.
    pub(crate) fn tick_questions(&mut self) {
        if self.asking.sent.is_empty() {
            return;
        }
        self.asking.repeat = self.asking.repeat.saturating_sub(1);
        let (ticks, patience) = (
            self.ticks,
            u64::from(self.config.election_timeout_ticks_max),
        );
        let asking = &mut self.asking;
        if ticks - asking.sent_since >= patience {
            let mut reads = std::mem::take(&mut asking.sent);
            if ticks - asking.waiting_since >= patience {
                reads.append(&mut asking.waiting);
            }
            self.fail_reads(reads, Rejection::ReadTimedOut);
            self.ask_leader();
        } else if self.asking.repeat == 0 {
            self.send_question();
        }
    }

    /// The leader that was asked is none any more, or this node leads: whoever waits is to ask again.
    pub(crate) fn forget_questions(&mut self) {
        let mut reads = std::mem::take(&mut self.asking.sent);
        reads.append(&mut self.asking.waiting);
        let leader = self.leader;
        self.fail_reads(reads, Rejection::NotLeader { leader });
    }

    pub(crate) fn question_answered(&mut self, from: NodeId, m: &ReadIndexResponse) {
        if self.leader != Some(from) || m.batch != self.asking.last || self.asking.sent.is_empty() {
            return; // Late, or twice.
        }
        let reads = std::mem::take(&mut self.asking.sent);
        match m.index {
            Some(index) => self.gathered.effects.push(Effect::ReadReady(ReadReady {
                reads,
                index,
                lease_until_ticks: None,
            })),
            None => self.fail_reads(reads, Rejection::ReadsRefused),
        }
        self.ask_leader();
    }

    // The leader's side.

    /// A follower asks for its reads.
    pub(crate) fn follower_reads(&mut self, from: NodeId, m: &ReadIndex) {
        let transferring = self.transfer_target().is_some();
        let Some(leading) = self.leading() else {
            return;
        };
        let reader = Reader::Follower(from, m.batch);
        if transferring {
            return self.answer_reader(from, m.batch, None);
        }
        if !leading.peers.contains_key(&from) {
            return;
        }
        if self.needs_nobody_beside(from) {
            self.tell_commit_to(from);
            return self.answer_reader(from, m.batch, Some(self.commit));
        }
        let Some(leading) = self.leading() else {
            return;
        };
        let rounds = &mut leading.rounds;
        let mut asked = rounds.asked.iter().flat_map(|asked| &asked.readers);
        if asked.any(|other| *other == reader) {
            return;
        }
        // A node has one question at a time: what waits of it is the same one, or one that it gave up.
        let others = |other: &Reader| !matches!(other, Reader::Follower(id, _) if *id == from);
        rounds.waiting.retain(others);
        self.wait_for_round(reader);
    }

    /// Whether a question of `from` is all the round that its reads need. It was sent after they came in, by a node that
    /// had entered no higher term by then, just as an answer to a heartbeat is: of three voters, leader and asker are a
    /// majority.
    fn needs_nobody_beside(&self, from: NodeId) -> bool {
        let both = |id| LogIndex(u64::from(id == self.config.id || id == from));
        self.has_committed_in_its_term()
            && committed_index(self.roster.latest(), both) > LogIndex(0)
    }

    fn answer_reader(&mut self, to: NodeId, batch: ReadBatch, index: Option<LogIndex>) {
        let term = self.term();
        let response = ReadIndexResponse { term, batch, index };
        self.send(to, OpenMessage::ReadIndexResponse(response));
    }

    fn wait_for_round(&mut self, reader: Reader) {
        let (reads_max, ticks) = (self.config.reads_max, self.ticks);
        let Some(leading) = self.leading() else {
            return;
        };
        let rounds = &mut leading.rounds;
        let asked = rounds.asked.as_ref().map_or(0, |asked| asked.readers.len());
        if rounds.waiting.len() + asked >= reads_max {
            return match reader {
                Reader::Own(read) => self.fail_reads(vec![read], Rejection::Busy),
                Reader::Follower(to, batch) => self.answer_reader(to, batch, None),
            };
        }
        if rounds.waiting.is_empty() {
            rounds.waiting_since = ticks;
        }
        rounds.waiting.push(reader);
        self.begin_round();
    }

    /// Begins a round for the reads that wait, unless one is under way, or nothing of this term is
    /// committed.
    pub(crate) fn begin_round(&mut self) {
        if !self.has_committed_in_its_term() {
            return;
        }
        let index = self.commit;
        let Some(leading) = self.leading() else {
            return;
        };
        let rounds = &mut leading.rounds;
        if rounds.asked.is_some() || rounds.waiting.is_empty() {
            return;
        }
        rounds.asked = Some(Asked {
            round: Round(rounds.last.0 + 1),
            index,
            readers: std::mem::take(&mut rounds.waiting),
            since: rounds.waiting_since,
        });
        self.heartbeat_all();
    }

    /// The round that began last; 0 if none has.
    pub(crate) fn round_in_progress(&self) -> Round {
        match &self.role {
            RoleState::Leader(leading) => leading.rounds.last,
            _ => Round(0),
        }
    }

    /// Names a new round, which begins now.
    pub(crate) fn next_round(&mut self) -> Round {
        let (clock, leases) = (self.clock, self.config.lease_drift_ticks.is_some());
        let lease_max = u64::from(self.config.election_timeout_ticks_min);
        let Some(leading) = self.leading() else {
            return Round(0);
        };
        let rounds = &mut leading.rounds;
        rounds.last.0 += 1;
        if leases && !rounds.renounced {
            rounds.began.push_back((rounds.last, clock));
            // What nobody answered for longer than any lease lasts begins none.
            while let Some((_, began)) = rounds.began.front()
                && clock - began > lease_max
            {
                rounds.began.pop_front();
            }
        }
        rounds.last
    }

    /// Sees which rounds a majority has answered, and answers the reads that waited for that.
    pub(crate) fn count_rounds(&mut self) {
        let own_id = self.config.id;
        let RoleState::Leader(leading) = &mut self.role else {
            return;
        };
        let (rounds, peers) = (&mut leading.rounds, &leading.peers);
        let answered = committed_index(self.roster.latest(), |id| {
            let of = |peer: &crate::progress::Progress| as_index(peer.round);
            if id == own_id {
                as_index(rounds.last)
            } else {
                peers.get(&id).map_or(LogIndex::ZERO, of)
            }
        });
        let answered = Round(answered.0);
        while let Some((round, clock)) = rounds.began.front().copied()
            && round <= answered
        {
            rounds.began.pop_front();
            rounds.lease_from = Some(clock);
        }
        if rounds
            .asked
            .as_ref()
            .is_none_or(|asked| asked.round > answered)
        {
            return;
        }
        if let Some(asked) = rounds.asked.take() {
            let index = Some(asked.index);
            for reader in &asked.readers {
                if let Reader::Follower(to, batch) = *reader {
                    self.answer_reader(to, batch, index);
                }
            }
            let reads = own(asked.readers);
            if !reads.is_empty() {
                self.gathered.effects.push(Effect::ReadReady(ReadReady {
                    reads,
                    index: asked.index,
                    lease_until_ticks: None,
                }));
            }
        }
        self.begin_round();
    }

    /// No read waits longer than the longest election timeout.
    pub(crate) fn tick_rounds(&mut self) {
        let (ticks, patience) = (
            self.ticks,
            u64::from(self.config.election_timeout_ticks_max),
        );
        let Some(leading) = self.leading() else {
            return;
        };
        let rounds = &mut leading.rounds;
        let mut late = Vec::new();
        if rounds
            .asked
            .as_ref()
            .is_some_and(|asked| ticks - asked.since >= patience)
        {
            late.extend(
                rounds
                    .asked
                    .take()
                    .into_iter()
                    .flat_map(|asked| asked.readers),
            );
        }
        if !rounds.waiting.is_empty() && ticks - rounds.waiting_since >= patience {
            late.append(&mut rounds.waiting);
        }
        if !late.is_empty() {
            self.fail_reads(own(late), Rejection::ReadTimedOut);
            self.begin_round();
        }
    }

    /// Whoever waits is to ask again; the leadership is on its way elsewhere.
    pub(crate) fn fail_waiting_reads(&mut self, reason: Rejection) {
        let Some(leading) = self.leading() else {
            return;
        };
        let rounds = &mut leading.rounds;
        let asked = rounds.asked.take().map(|asked| asked.readers);
        let mut readers = asked.unwrap_or_default();
        readers.append(&mut rounds.waiting);
        for reader in &readers {
            if let Reader::Follower(to, batch) = *reader {
                self.answer_reader(to, batch, None);
            }
        }
        self.fail_reads(own(readers), reason);
    }

    /// Up to which reading of its clock this leader may answer by itself.
    pub(crate) fn lease_until(&self) -> Option<u64> {
        let drift = self.config.lease_drift_ticks?;
        let RoleState::Leader(leading) = &self.role else {
            return None;
        };
        if leading.rounds.renounced || !self.has_committed_in_its_term() {
            return None;
        }
        // Who answered between two of its ticks promised a part of a tick less than the timeout.
        let lease = self
            .config
            .election_timeout_ticks_min
            .saturating_sub(drift + 1);
        leading
            .rounds
            .lease_from
            .map(|from| from.saturating_add(u64::from(lease)))
    }
}
