//! What a node's storage found when it was opened.

use crate::{Entry, HardState, LogId};

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
