//! What is known of one session's proposals: a ring of outcomes from the client's lowest outstanding sequence on.
//!
//! Invariants:
//! - `low` never goes back, and is at least 1.
//! - `outcomes[i]` is that of sequence `low + i`; at most [`WINDOW`] of them, and the last one is settled: what
//!   was never seen takes room only below something that was.

use std::collections::VecDeque;

use raft_core::LogId;

/// How many sequences from a session's low on can have an outcome.
pub(crate) const WINDOW: u64 = 65_536;

/// Outcomes for which a session keeps room without needing it.
const ROOM_KEPT: usize = 64;

/// What became of a proposal, as long as its session remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ran at `at`.
    Applied {
        at: LogId,
        /// The answer was not empty: it is among the kept ones, or was dropped from them.
        answered: bool,
    },
    /// It was cancelled at `at`, before it ran.
    Cancelled { at: LogId },
}

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below low.
    Below,
    /// Within the window.
    Within {
        /// How many sequences from low on.
        offset: usize,
        outcome: Option<Outcome>,
    },
    /// Too far ahead.
    Beyond,
}

#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) low: u64,
    pub(super) outcomes: VecDeque<Option<Outcome>>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            low: 1,
            outcomes: VecDeque::new(),
        }
    }

    pub(super) fn place(&self, sequence: u64) -> Place {
        match sequence.checked_sub(self.low) {
            None => Place::Below,
            Some(ahead) if ahead >= WINDOW => Place::Beyond,
            Some(ahead) => {
                let offset = ahead as usize;
                let outcome = self.outcomes.get(offset).copied().flatten();
                Place::Within { offset, outcome }
            }
        }
    }

    /// Writes down what became of the sequence at `offset`.
    pub(super) fn settle(&mut self, offset: usize, outcome: Outcome) {
        if offset == self.outcomes.len() {
            self.outcomes.push_back(Some(outcome));
            return;
        }
        if offset > self.outcomes.len() {
            self.outcomes.resize(offset + 1, None);
        }
        self.outcomes[offset] = Some(outcome);
    }

    /// Raises low to `low`, if that is higher, and forgets the outcomes below: each of them is told.
    pub(super) fn raise_low(&mut self, low: u64, forgotten: impl FnMut(Outcome)) {
        let Some(up) = low.checked_sub(self.low).filter(|up| *up > 0) else {
            return;
        };
        self.low = low;
        let up = usize::try_from(up).unwrap_or(usize::MAX);
        let gone = self.outcomes.drain(..up.min(self.outcomes.len()));
        gone.flatten().for_each(forgotten);
        // A burst must not hold its room for ever. One of everyday length may: it comes again with the next batch.
        if self.outcomes.capacity() > ROOM_KEPT.max(4 * self.outcomes.len()) {
            self.outcomes
                .shrink_to(ROOM_KEPT.max(2 * self.outcomes.len()));
        }
    }
}
