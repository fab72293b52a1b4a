//! A walk over the log that goes on behind what is damaged.

use raft_core::LogIndex;

use crate::{
    StorageError,
    rocks::db::{Database, Runs},
    run::Run,
};
use bytes::Bytes;

/// What the walk comes upon.
pub(super) enum Step {
    /// A run whose frame is as it was written, with its value.
    Run(Run, Bytes),
    /// One value that is not; the error names it.
    Damaged(StorageError),
    /// A stretch of the log that the database cannot read.
    Unreadable {
        /// From this entry on,
        from: LogIndex,
        /// through this one; none if nothing behind it can be read.
        through: Option<LogIndex>,
        /// Why.
        cause: StorageError,
    },
}

/// Hands out all of the log from the run that holds `from` on, until `each` answers that it has enough.
pub(super) fn walk(db: &Database, from: LogIndex, mut each: impl FnMut(Step) -> bool) {
    let mut runs = db.runs(LogIndex(u64::MAX));
    // The run that holds `from` begins at it or before.
    let mut step = read(runs.seek(from));
    if matches!(step, Read::End) {
        step = read(runs.seek_to_first());
    }
    // Behind all that was handed out.
    let mut next = from;
    loop {
        match step {
            Read::End => return,
            Read::Run(run, value) => {
                next = next.max(run.last().next());
                if run.last() >= from && !each(Step::Run(run, value)) {
                    return;
                }
                step = read(runs.next());
            }
            Read::Damaged(error) => {
                if !each(Step::Damaged(error)) {
                    return;
                }
                step = read(runs.next());
            }
            Read::Unreadable(cause) => {
                let found = skip(&mut runs, next);
                let through = found.map(LogIndex::prev);
                let from = next;
                let unreadable = Step::Unreadable {
                    from,
                    through,
                    cause,
                };
                let (true, Some(found)) = (each(unreadable), found) else {
                    return;
                };
                next = found;
                step = read(runs.seek_behind(found));
            }
        }
    }
}

/// What one step of the iterator gave.
enum Read {
    Run(Run, Bytes),
    End,
    Damaged(StorageError),
    Unreadable(StorageError),
}

fn read(found: Result<Option<crate::rocks::db::Found<'_>>, StorageError>) -> Read {
    match found {
        Ok(Some(found)) => Read::Run(found.run, found.to_bytes()),
        Ok(None) => Read::End,
        Err(error @ StorageError::Damaged { .. }) => Read::Damaged(error),
        Err(error) => Read::Unreadable(error),
    }
}

/// The first run that can be read behind a stretch that cannot and begins at `from` at the latest: found from
/// behind, in ever longer leaps, and then back to where the stretch ends.
fn skip(runs: &mut Runs<'_>, from: LogIndex) -> Option<LogIndex> {
    let mut leap: u64 = 1;
    let mut first = loop {
        let at = LogIndex(from.0.checked_add(leap)?);
        match runs.seek_behind(at) {
            Ok(None) => return None,
            Ok(Some(found)) => break found.run.first.index,
            Err(StorageError::Damaged { .. }) => {}
            Err(_) => {}
        }
        leap = leap.checked_mul(2)?;
    };
    while let Ok(Some(found)) = runs.prev() {
        if found.run.first.index < from {
            break;
        }
        first = found.run.first.index;
    }
    Some(first)
}
