//! The answers of applied commands, kept for clients that ask again: of all sessions together, within a bound.
//!
//! Invariants:
//! - Which answers are kept is a function of the log: the oldest index goes first, whoever it belongs to.
//! - An empty answer is not here: its outcome says so by itself ([`window`](super::window)).
//! - An answer is a copy of exactly its length, and holds no larger buffer of its maker's in memory.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use raft_core::LogIndex;

/// What a state machine answered: its response, or why it refused the command.
pub(crate) type Answer = Result<Bytes, Arc<str>>;

/// The bytes of a response, or of a refusal's text.
pub(super) fn bytes(answer: &Answer) -> &[u8] {
    match answer {
        Ok(response) => response,
        Err(refusal) => refusal.as_bytes(),
    }
}

/// Whether an answer is what an outcome without one means.
pub(super) fn is_empty(answer: &Answer) -> bool {
    answer.as_ref().is_ok_and(Bytes::is_empty)
}

/// All kept answers cost this at most, each with its overhead.
pub(crate) const ANSWERS_BYTES_MAX: usize = 64 << 20;

/// What an answer costs beside its bytes: its place in the tree, which may be half empty, and its allocation.
pub(crate) const ANSWER_OVERHEAD_BYTES: usize = 112;

/// An answer that a clone of the ledger, for a snapshot, shares at the cost of a count.
type Kept = Result<Arc<[u8]>, Arc<str>>;

fn len(kept: &Kept) -> usize {
    kept.as_ref()
        .map_or_else(|refusal| refusal.len(), |response| response.len())
}

#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    by_index: BTreeMap<LogIndex, Kept>,
    bytes: usize,
}

impl Answers {
    pub(super) fn get(&self, index: LogIndex) -> Option<Answer> {
        let kept = self.by_index.get(&index)?;
        Some(kept.clone().map(Bytes::from_owner))
    }

    /// Keeps the answer of the entry at `index`, and drops as many of the oldest as that takes. One that is
    /// larger than the bound by itself is not kept, at nobody's cost.
    pub(super) fn keep(&mut self, index: LogIndex, answer: &Answer) {
        let cost = cost(answer);
        if cost > ANSWERS_BYTES_MAX {
            return;
        }
        while self.bytes + cost > ANSWERS_BYTES_MAX
            && let Some((_, dropped)) = self.by_index.pop_first()
        {
            self.bytes -= len(&dropped) + ANSWER_OVERHEAD_BYTES;
        }
        self.bytes += cost;
        let own = match answer {
            Ok(response) => Ok(Arc::from(&response[..])),
            Err(refusal) => Err(Arc::clone(refusal)),
        };
        self.by_index.insert(index, own);
    }

    /// Nobody asks for it any more.
    pub(super) fn release(&mut self, index: LogIndex) {
        if let Some(released) = self.by_index.remove(&index) {
            self.bytes -= len(&released) + ANSWER_OVERHEAD_BYTES;
        }
    }

    /// What all kept answers cost.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What keeping an answer costs.
pub(super) fn cost(answer: &Answer) -> usize {
    bytes(answer).len() + ANSWER_OVERHEAD_BYTES
}
