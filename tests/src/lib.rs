//! The harness: clusters of real demo-chat processes, driven, killed, and held to what they said.
//!
//! Read in this order:
//!
//! - [`programs`] where demo-chat is, and how a process is started so that it ends with its parent;
//! - [`output`] what a node prints, parsed as it comes, with waits that are always bounded;
//! - [`node`] one process: a life of a node, from its start to its end;
//! - [`cluster`] several nodes with ports and folders of their own, on disk until all went well;
//! - [`load`] messages from many nodes at once;
//! - [`audit`] what was sent and answered against what was delivered: the verdict;
//! - [`linear`] whether what clients saw of registers could have happened one operation at a time;
//! - [`api`] a small replicated program, its clients, and what befalls both;
//! - [`crash`] one folder at a time, on disks that forget, tear, rot, fail and fill up;
//! - [`figures`] the numbers that a run is judged by, printed and written to a file.
//!
//! Invariants:
//!
//! - no wait is unbounded, and one that ends in vain says what for, with the last lines of the node's log;
//! - no process outlives the program that started it, however that one ends;
//! - no message text is sent twice, so that what is delivered names its own sending.

pub mod api;
pub mod audit;
pub mod cluster;
pub mod crash;
pub mod figures;
pub mod linear;
pub mod load;
pub mod node;
pub mod output;
pub mod programs;
pub mod random;

/// The Rust of the documents is compiled, and run where they do not say otherwise. The README's is, in raft-actor.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../docs/durability.md")]
    struct Durability;
    #[doc = include_str!("../../docs/from-raft-lite.md")]
    struct FromRaftLite;
    #[doc = include_str!("../../docs/from-riteraft.md")]
    struct FromRiteraft;
    #[doc = include_str!("../../docs/from-openraft.md")]
    struct FromOpenraft;
}
