//! The entries of a folder, one after the other.

use std::path::Path;

use raft_core::{Entry, LogIndex};

use super::{
    OfflineError,
    moment::sight,
    walk::{Step, walk},
};
use crate::{OpenError, StorageError, error::Item, run};

/// Which entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// From this one on, or from the first one behind it that the log holds.
    pub from: LogIndex,
    /// Through this one, or to the end.
    pub through: LogIndex,
}

/// Hands out the entries in `range`, in order, until `each` answers that it has enough. A run of them is in
/// memory at a time, never more.
///
/// # Errors
/// As [`OfflineError`] says; and the first damaged entry, behind those that were handed out before it.
pub fn entries(
    dir: &Path,
    range: Range,
    mut each: impl FnMut(Entry) -> bool,
) -> Result<(), OfflineError> {
    let Some((db, found, _)) = sight(dir)??.content else {
        return Ok(());
    };
    let first = range.from.max(found.shape.start().index.next());
    if first > range.through.min(found.shape.last().index) {
        return Ok(());
    }
    let mut failed: Option<StorageError> = None;
    walk(&db, first, |step| {
        let (run, value) = match step {
            Step::Run(run, value) => (run, value),
            Step::Damaged(error) | Step::Unreadable { cause: error, .. } => {
                failed = Some(error);
                return false;
            }
        };
        let mut more = true;
        let decoded = run::decode(run, &value, first, |entry| {
            more = entry.id.index <= range.through && each(entry);
            more
        });
        failed = decoded
            .err()
            .map(|damage| db.damaged(Item::Run(run.first.index), damage));
        more && failed.is_none()
    });
    match failed {
        Some(error) => Err(OpenError::from(error).in_folder(dir).into()),
        None => Ok(()),
    }
}
