//! What a node's storage found when it was opened.

use crate::log::Log;
use crate::{Entry, HardState, LogId, LogIndex, Term};

/// What is durable when a node starts, for [`Raft::new`](crate::Raft::new).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The last entry; [`LogId::ZERO`] for an empty log.
    pub last: LogId,
    /// The first entry of each run of entries of one term, in order; empty for an empty log.
    pub terms: Vec<LogId>,
    /// The log's last entries, as many as were cheap to have in memory; possibly none.
    pub tail: Vec<Entry>,
}

impl Recovered {
    /// Describes what cannot be: a node that began with it would lie to its peers.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let Self { last, tail, .. } = self;
        if self.hard_state.term > Term::MAX || last.index >= LogIndex(u64::MAX) {
            return Err(format!(
                "term {} or last entry {last} is beyond any",
                self.hard_state.term
            ));
        }
        if last.term > self.hard_state.term {
            return Err(format!(
                "last entry {last} is newer than term {}",
                self.hard_state.term
            ));
        }
        if (last.term == Term(0)) != (last.index == LogIndex::ZERO) {
            return Err(format!("no entry can be {last}"));
        }
        if tail.len() as u64 > last.index.0 {
            return Err(format!("{} entries end at {last}", tail.len()));
        }
        let log = Log::new(*last, self.terms.clone(), tail.clone());
        log.check()?;
        let indexes = log.tail_first().0..;
        match tail
            .iter()
            .zip(indexes)
            .find(|(entry, index)| entry.id.index != LogIndex(*index) || !log.contains(entry.id))
        {
            Some((entry, index)) => Err(format!("entry {} stands where {index} should", entry.id)),
            None => Ok(()),
        }
    }
}
