//! How a node comes into a cluster: it founds one, or asks to be let into one.
//!
//! A node that is given its id has none before: what it asks travels on visits (raft-net's `visit.rs`), and it becomes a
//! [`Node`](crate::node::Node) when it has been told its id and has that on its disk. `prelude.rs` is its side, `host.rs`
//! and `tending.rs` the leader's, `message.rs` what they say.
//!
//! Invariants:
//! - Who joins is known by its data folder alone. Whoever asks again with the same one is told the same id, so that a
//!   join may break off anywhere, and be repeated.
//! - An id is told only when the entry that gives it is committed: one whose entry was cut off was never anybody's.
//! - Nobody is in a configuration whom the leader has not reached, just before, where it says that it is.
//! - Nothing of a visitor reaches the protocol.

mod error;
mod host;
mod invite;
mod message;
mod prelude;
mod search;
mod tending;

pub use error::JoinError;
pub(crate) use host::Hosting;
pub(crate) use invite::Invitation;
pub(crate) use search::Search;
