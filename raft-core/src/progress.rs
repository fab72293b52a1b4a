//! What a leader knows of one follower.
//!
//! ```text
//!            accepted                        entries keep flowing,
//!   Probe ------------> Replicate            `next` runs ahead of `matched`
//!     ^                     |
//!     +---------------------+
//!      refused, unreachable
//! ```
//!
//! Invariant: `matched < next`, and `matched` never moves down within a term: acknowledgements that come
//! late or twice change nothing.
//! A refusal that comes late may cost a few messages, but nothing at or below `matched` is asked again.

use std::collections::VecDeque;

use crate::{LogIndex, PeerState, RequestId};

#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) state: PeerState,
    pub(crate) matched: LogIndex,
    pub(crate) next: LogIndex,
    /// In Probe: a message is on its way, and nothing is sent until it is answered or a heartbeat is.
    pub(crate) paused: bool,
    /// The read of the disk that has to come back before more can be sent, and where it begins.
    pub(crate) reading: Option<(RequestId, LogIndex)>,
    /// The highest commit index that the follower has been told and could take.
    pub(crate) commit_told: LogIndex,
    /// Whether it has said anything since the last check of the quorum.
    pub(crate) active: bool,
    /// `matched` when the last heartbeat was answered: if it has not moved since, messages may be lost.
    pub(crate) matched_at_heartbeat: LogIndex,
    inflight: VecDeque<(LogIndex, usize)>,
    inflight_bytes: usize,
}

impl Progress {
    /// A follower of which nothing is known, to be probed at the end of the log.
    pub(crate) fn new(next: LogIndex) -> Self {
        Self {
            state: PeerState::Probe,
            matched: LogIndex::ZERO,
            next,
            paused: false,
            reading: None,
            commit_told: LogIndex::ZERO,
            active: false,
            matched_at_heartbeat: LogIndex::ZERO,
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
        }
    }

    /// The follower has acknowledged everything through `matched`. Says whether that was news.
    pub(crate) fn accepted(&mut self, matched: LogIndex) -> bool {
        while let Some((last, bytes)) = self.inflight.front().copied()
            && last <= matched
        {
            self.inflight.pop_front();
            self.inflight_bytes -= bytes;
        }
        let news = matched > self.matched;
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched.next());
        if self.state == PeerState::Probe && self.next == self.matched.next() {
            self.state = PeerState::Replicate;
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
        self.inflight.clear();
        self.inflight_bytes = 0;
    }
}
