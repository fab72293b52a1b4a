//! What a leader knows of one follower.
//!
//! ```text
//!            accepted                        entries keep flowing,
//!   Probe ------------> Replicate            `next` runs ahead of `matched`
//!    ^ ^                    |
//!    | +--------------------+
//!    |  refused, unreachable
//!    |                                       accepted beyond the log's start:
//!    +---------------- Snapshot ---------->  Replicate
//!     its transfer ended  ^
//!                         |
//!                         +-- from either, when `next` is compacted away
//! ```
//!
//! Invariant: `matched < next`, and `matched` never moves down within a term: acknowledgements that come
//! late or twice change nothing.
//! A refusal that comes late may cost a few messages, but nothing at or below `matched` is asked again.

use std::collections::VecDeque;

use crate::{LogIndex, PeerState, RequestId, Round};

/// How often the wait for another try with a snapshot is doubled.
const FAILURES_DOUBLED: u32 = 7;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    pub(crate) state: PeerState,
    pub(crate) matched: LogIndex,
    pub(crate) next: LogIndex,
    /// In Probe: a message is on its way, and nothing is sent until it is answered or a heartbeat is.
    pub(crate) paused: bool,
    /// Answers to heartbeats that do not end that pause, because snapshots sent to it came to nothing, and how
    /// many did.
    pub(crate) patience: u32,
    pub(crate) failures: u32,
    /// The read of the disk that has to come back before more can be sent, and where it begins.
    pub(crate) reading: Option<(RequestId, LogIndex)>,
    /// The highest commit index that the follower has been told and could take.
    pub(crate) commit_told: LogIndex,
    /// The last round of heartbeats that it answered.
    pub(crate) round: Round,
    /// Whether it has said anything since the last check of the quorum.
    pub(crate) active: bool,
    /// `matched` when it was last looked at, and the tick of that: if it has not moved for a heartbeat's
    /// time, messages may be lost.
    pub(crate) matched_before: (LogIndex, u64),
    pub(crate) catch_up: CatchUp,
    /// Whether the last check of the quorum found that it had said anything.
    pub(crate) heard: bool,
    /// Whether the configuration says that it joins.
    pub(crate) joins: bool,
    /// It is no member any more since the configuration at this index, and is fed until it knows.
    pub(crate) departing: Option<LogIndex>,
    /// Ticks that it has been so since that was committed.
    pub(crate) departing_ticks: u32,
    /// The first round of heartbeats that told it so.
    pub(crate) departing_round: Option<Round>,
    inflight: VecDeque<(LogIndex, usize)>,
    inflight_bytes: usize,
}

/// Rounds of catching up (thesis §4.2.1): each ends when the follower has all that the log held when the
/// round began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CatchUp {
    target: LogIndex,
    pub(crate) ticks: u32,
    pub(crate) rounds: u32,
    /// Whether its last round was shorter than an election timeout.
    pub(crate) done: bool,
}

impl Progress {
    /// A follower of which nothing is known, to be probed at the end of the log.
    pub(crate) fn new(next: LogIndex) -> Self {
        Self {
            state: PeerState::Probe,
            matched: LogIndex::ZERO,
            next,
            paused: false,
            patience: 0,
            failures: 0,
            reading: None,
            commit_told: LogIndex::ZERO,
            round: Round(0),
            active: false,
            matched_before: (LogIndex::ZERO, 0),
            catch_up: CatchUp {
                target: next.prev(),
                ticks: 0,
                rounds: 0,
                done: false,
            },
            heard: false,
            joins: false,
            departing: None,
            departing_ticks: 0,
            departing_round: None,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// Messages that are not answered.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Whether another message with entries may be sent.
    pub(crate) fn has_room(&self, inflight_max: usize, inflight_bytes_max: usize) -> bool {
        match self.state {
            PeerState::Probe => !self.paused,
            PeerState::Replicate => {
                self.inflight.len() < inflight_max && self.inflight_bytes < inflight_bytes_max
            }
            PeerState::Snapshot => false,
        }
    }

    /// Entries through `last`, of `bytes`, were sent.
    pub(crate) fn sent(&mut self, last: LogIndex, bytes: usize) {
        match self.state {
            PeerState::Probe => self.paused = true,
            PeerState::Replicate => {
                self.next = last.next();
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
            }
            PeerState::Snapshot => {}
        }
    }

    /// The follower has acknowledged everything through `matched`; the leader's log begins behind `start`.
    /// Says whether that was news.
    pub(crate) fn accepted(&mut self, matched: LogIndex, start: LogIndex) -> bool {
        while let Some((last, bytes)) = self.inflight.front().copied()
            && last <= matched
        {
            self.inflight.pop_front();
            self.inflight_bytes -= bytes;
        }
        let news = matched > self.matched;
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        let found = match self.state {
            PeerState::Probe => self.next == self.matched.next(),
            PeerState::Replicate => false,
            PeerState::Snapshot => self.matched >= start,
        };
        if found {
            self.state = PeerState::Replicate;
            self.next = self.matched.next();
            self.paused = false;
        }
        news
    }

    /// Looks for the common end again, from `next` on.
    pub(crate) fn probe(&mut self, next: LogIndex) {
        self.state = PeerState::Probe;
        self.next = next.max(self.matched.next());
        self.paused = false;
        self.reading = None;
        self.catch_up.done = false;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// Can be helped by nothing but a snapshot.
    pub(crate) fn wait_for_snapshot(&mut self) {
        self.probe(self.next);
        self.state = PeerState::Snapshot;
    }

    /// The transfer of its snapshot is over; an acknowledgement may still come. It is probed behind `arrived`,
    /// the last entry of what it has now, or where it was, when it has answered the next heartbeat, and later
    /// each time that it did not arrive.
    pub(crate) fn snapshot_sent(&mut self, arrived: Option<LogIndex>) {
        if self.state == PeerState::Snapshot {
            self.probe(arrived.map_or(self.next, LogIndex::next));
            self.paused = true;
            match arrived {
                Some(_) => self.failures = 0,
                None => {
                    self.patience = (1 << self.failures) - 1;
                    self.failures = (self.failures + 1).min(FAILURES_DOUBLED);
                }
            }
        }
    }

    /// It answered a heartbeat: what it was asked last may be lost.
    pub(crate) fn resume(&mut self) {
        match self.patience.checked_sub(1) {
            Some(patience) => self.patience = patience,
            None => self.paused = false,
        }
    }

    /// Begins to catch up with a log that ends at `last`.
    pub(crate) fn begin_to_catch_up(&mut self, last: LogIndex) {
        self.catch_up = CatchUp {
            target: last,
            ticks: 0,
            rounds: 0,
            done: false,
        };
    }

    /// Counts a round if one is over; the next one ends at `last`. `ticks_max` is how long the last round
    /// may take.
    pub(crate) fn catch_up(&mut self, last: LogIndex, ticks_max: u32) {
        if self.matched < self.catch_up.target || self.state != PeerState::Replicate {
            return;
        }
        self.catch_up.done = self.catch_up.ticks < ticks_max;
        self.catch_up.rounds = self.catch_up.rounds.saturating_add(1);
        self.catch_up.target = last;
        self.catch_up.ticks = 0;
    }
}
