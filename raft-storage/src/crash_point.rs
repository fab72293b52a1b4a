//! Places where a test can cut the power: from there on nothing of the call is carried out.
//!
//! Outside this crate's own tests a crash point is nothing at all.

use crate::StorageError;

/// A step behind which a test may stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// The data folder is made and locked; nothing is in it.
    FolderMade,
    /// The mark is made; there is no database.
    MarkMade,
    /// The database is made; it does not say whose it is.
    DatabaseMade,
    /// The database says whose it is; the mark does not know yet.
    IdentityWritten,
    /// The database says whose it is since it was given; the mark says that it is nobody's.
    NodeWritten,
    /// The mark is lowered; the log is not cut yet.
    MarkLowered,
    /// The batch is in the database; the mark does not know yet.
    BatchWritten,
}

#[cfg(test)]
thread_local! {
    static STOP_AT: std::cell::Cell<Option<CrashPoint>> = const { std::cell::Cell::new(None) };
}

/// Lets this thread's next call stop at `point`.
#[cfg(test)]
pub(crate) fn stop_at(point: CrashPoint) {
    STOP_AT.set(Some(point));
}

/// Goes on, unless a test wants the power cut here.
pub(crate) fn reached(point: CrashPoint) -> Result<(), StorageError> {
    #[cfg(test)]
    if STOP_AT.get() == Some(point) {
        STOP_AT.set(None);
        return Err(StorageError::Injected);
    }
    let _ = point;
    Ok(())
}
