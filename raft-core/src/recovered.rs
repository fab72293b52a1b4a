//! What a node's storage found when it was opened.

use crate::log::Log;
use crate::membership::Configuration;
use crate::{Entry, HardState, LogId, LogIndex, SnapshotMeta, Term};

/// What is durable when a node starts, for [`Raft::new`](crate::Raft::new).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Term and vote.
    pub hard_state: HardState,
    /// The snapshot that this node starts from, whose state the caller has restored.
    pub snapshot: Option<SnapshotMeta>,
    /// The last entry that the log does not hold any more; [`LogId::ZERO`] if it holds all. At or before
    /// the snapshot's last.
    pub log_start: LogId,
    /// The last entry; `log_start` for an empty log.
    pub last: LogId,
    /// The first entry of each run of entries of one term, in order; empty for an empty log.
    pub terms: Vec<LogId>,
    /// The configurations in the log with their positions, in order; those at or before `log_start` or the
    /// snapshot's last may be missing.
    pub configurations: Vec<(LogIndex, Configuration)>,
    /// The log's last entries, as many as were cheap to have in memory; possibly none.
    pub tail: Vec<Entry>,
    /// How far the caller's state is applied already: at least what the snapshot covers, and more if the
    /// state has a disk of its own. What is handed out begins behind it.
    pub applied: LogIndex,
}

impl Recovered {
    /// Describes what cannot be: a node that began with it would lie to its peers.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let Self {
            last,
            tail,
            log_start,
            ..
        } = self;
        let snapshot = self.snapshot.as_ref().map_or(LogId::ZERO, |s| s.last);
        let term = self.hard_state.term;
        if term > Term::MAX || last.index > LogIndex::LIMIT {
            return Err(format!("term {term} or last entry {last} is beyond any"));
        }
        if last.term > term {
            return Err(format!("last entry {last} is newer than term {term}"));
        }
        for id in [last, log_start, &snapshot] {
            if (id.term == Term(0)) != (id.index == LogIndex::ZERO) {
                return Err(format!("no entry can be {id}"));
            }
        }
        if log_start.index > snapshot.index {
            return Err(format!(
                "the log begins behind {log_start}, and the snapshot covers {snapshot}"
            ));
        }
        if last < &snapshot {
            return Err(format!(
                "the log ends at {last}, and the snapshot covers {snapshot}"
            ));
        }
        if self.applied > last.index {
            return Err(format!(
                "entry {} is applied, and the log ends at {last}",
                self.applied
            ));
        }
        if (tail.len() as u64) > last.index.0 - log_start.index.0.min(last.index.0) {
            return Err(format!("{} entries end at {last}", tail.len()));
        }
        let log = Log::new(*log_start, *last, self.terms.clone(), tail.clone());
        log.check()?;
        if !log.contains(snapshot) {
            return Err(format!(
                "the log does not hold {snapshot}, which the snapshot covers"
            ));
        }
        let indexes = log.tail_first().0..;
        let misplaced = |(entry, index): &(&Entry, u64)| {
            entry.id.index != LogIndex(*index) || !log.contains(entry.id)
        };
        if let Some((entry, index)) = tail.iter().zip(indexes).find(misplaced) {
            return Err(format!("entry {} stands where {index} should", entry.id));
        }
        let positions: Vec<LogIndex> = self.configurations.iter().map(|(at, _)| *at).collect();
        let ordered = positions.windows(2).all(|two| two[0] < two[1]);
        let within = positions.last().is_none_or(|at| *at <= last.index);
        let valid = |c: &Configuration| c.validate().is_none();
        let known = self.configurations.iter().all(|(_, c)| valid(c));
        if !ordered
            || !within
            || !known
            || !self
                .snapshot
                .as_ref()
                .is_none_or(|s| valid(&s.configuration))
        {
            return Err(format!("no configurations can stand at {positions:?}"));
        }
        Ok(())
    }
}
