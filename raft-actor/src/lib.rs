//! A durable, totally ordered log that a program spawns as an actor.
mod config;
mod error;
mod message;
mod status;

pub use config::{Config, ConfigError};
pub use error::{NodeFailure, ProposeError, StartError, SubscribeError, UnknownCause};
pub use message::{
    Committed, Delivered, DeliveredBatch, Ended, GetStatus, IntoSubscriber, Propose, Shutdown,
    Subscribe, Subscribed,
};
pub use raft_core::{ClusterId, Incarnation, LogId, LogIndex, NodeId, Role, Term, Violation};
pub use raft_net::{ListenError, Refusal};
pub use raft_storage::{MemoryDisk, OpenError, StorageError};
pub use status::{MemberStatus, NodeStatus, Phase};
