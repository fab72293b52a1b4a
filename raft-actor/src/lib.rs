//! A durable, totally ordered log that a program spawns as an actor.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod birth;
mod clock;
mod config;
mod delivery;
mod door;
mod error;
mod front;
mod intake;
mod life;
mod message;
mod node;
mod parts;
mod proposals;
mod recent;
mod reply;
mod spawn;
mod status;
mod subscription;
mod turn;

pub use config::{Config, ConfigError};
pub use error::{NodeFailure, ProposeError, StartError, SubscribeError, UnknownCause};
pub use front::RaftActor;
pub use message::{
    Committed, Delivered, DeliveredBatch, Ended, GetStatus, Propose, Shutdown, Subscribe,
    Subscribed, Subscriber,
};
pub use raft_core::{ClusterId, Incarnation, LogId, LogIndex, NodeId, Role, Term, Violation};
pub use raft_net::{ListenError, Refusal};
pub use raft_storage::{MemoryDisk, OpenError, StorageError};
pub use status::{MemberStatus, NodeStatus, Phase};

/// The example of the README is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
