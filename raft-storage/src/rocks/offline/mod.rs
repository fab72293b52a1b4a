//! Data folders without their nodes: for looking into one, checking, copying and repairing it.
//!
//! What `raftctl` does is done here; it only reads arguments and prints.
//!
//! | call | may the node run | changes the folder |
//! |---|---|---|
//! | [`status`], [`entries`], [`verify`], [`export`] | yes | not a byte |
//! | [`backup`] | yes | not a byte; it makes another one |
//! | [`Import::plan`], [`Recovery::plan`] | yes | not a byte |
//! | [`Import::carry_out`], [`Recovery::carry_out`] | no | in one synced write, or not at all |
//!
//! Invariants:
//! - What only reads opens the database read-only and takes no lock, so that it neither stops a node nor keeps
//!   one from starting.
//! - What is read of a running node's folder is of one moment: a reading during which the node took a log file
//!   away does not count, and is done again, a bounded number of times.
//! - What writes holds the folder's lock, and judges the folder as [`open_rocksdb`](crate::open_rocksdb) does
//!   before it writes.

mod backup;
mod entries;
mod error;
mod export;
mod import;
mod moment;
mod recover;
mod status;
mod verify;
mod walk;

pub use crate::folder::Use;
pub use backup::{Copied, backup};
pub use entries::{Range, entries};
pub use error::OfflineError;
pub use export::{Export, Exported, Form, export};
pub use import::{Effect, Import};
pub use recover::{Recovered, Recovery, cluster_after};
pub use status::{
    Content, DiskUse, ForcedStatus, MarkStatus, SnapshotStatus, Status, TermRange, status,
};
pub use verify::{Checked, Problem, Report, verify};

#[cfg(test)]
mod tests;
