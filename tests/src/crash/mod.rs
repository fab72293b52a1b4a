//! Crashes on purpose: processes killed while they write, disks that forget, tear, rot, fail, stall and fill up.
//!
//! Read in this order:
//!
//! - [`held`] what a store must hold, and what a writer does to it;
//! - [`writer`] the process that writes what nodes write, and says each step before and after it;
//! - [`watch`] its harness's view of it: what was acknowledged, and what is under way;
//! - [`check`] a process that opens a folder and reads all of it;
//! - [`verdict`] what was found against what must be there;
//! - [`disk`] a disk that forgets what was not synced, [`forgetful`] the same as a file system, [`mounts`] what
//!   keeps mounts from outliving the program;
//! - [`wal`] where the last record of a log file lies, [`harm`] damages of files;
//! - [`node`] a whole node that proposes to itself, [`strace`] the system calls of it that fail.

pub mod check;
pub mod disk;
pub mod forgetful;
pub mod harm;
pub mod held;
pub mod mounts;
pub mod node;
pub mod strace;
pub mod verdict;
pub mod wal;
pub mod watch;
pub mod writer;
