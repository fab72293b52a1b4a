//! A durable, totally ordered log that a program spawns as an actor.
//!
//! Several processes run one node each. What any of them [`Propose`]s, all of them are handed in the same
//! order as [`Delivered`] events, and what was acknowledged survives crashes, power loss and the loss of any
//! minority of the nodes.
//!
//! - [`Config`] says who a node is, who its peers are and where its data folder is.
//! - [`RaftActor::spawn`] starts it; it elects, replicates, writes and syncs by itself.
//! - [`Propose`] answers with [`Committed`], or with a [`ProposeError`] that says whether the command can
//!   still come to be in the log.
//! - [`Subscribe`] hands over what is committed, from any index on, each command once and without a gap.
//! - [`GetStatus`], [`Watch`], [`GetHealth`], [`Ended`] and [`Shutdown`] are for those who run it, and
//!   [`metrics`] for their graphs. `ConfigArgs` (feature `cli`) takes the settings from flags, environment and a file.
//!
//! Everything that waits has a bound and a deadline; [`Config`] names them. A node that cannot go on says why
//! ([`NodeFailure`]), answers all who wait, and takes no part any more: it never guesses.
//!
//! The protocol is in `raft-core`, the disk in `raft-storage`, the wire in `raft-net`; what of them is for
//! users is re-exported here.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod birth;
mod boot_time;
mod clock;
mod config;
mod delivery;
mod door;
mod error;
mod front;
mod health;
mod intake;
mod lag;
mod ledger;
mod life;
mod logged;
mod machine;
mod message;
pub mod metrics;
mod node;
mod observe;
mod own_session;
mod parts;
mod proposals;
mod reads;
mod recent;
mod reply;
mod snapshot;
mod snapshotting;
mod spawn;
mod status;
mod subscription;
mod transfer;
mod turn;
mod watch;
mod witness;

pub use birth::Birth;
#[cfg(feature = "cli")]
pub use config::args::{ConfigArgs, ConfigArgsError, Origin};
pub use config::check::{Amount, ConfigError};
pub use config::{Config, Snapshots};
pub use error::{
    CodecError, NodeFailure, ProposeError, ReadError, ReadObstacle, SnapshotError, StartError,
    SubscribeError, TransferError, UnknownCause,
};
pub use front::RaftActor;
pub use health::{GetHealth, Health, NotReady};
pub use ledger::{ProposalId, SessionId};
pub use logged::Logged;
pub use machine::{ApplyError, At, BytesStateMachine, Capture, StateMachine, capture, restored};
pub use message::{
    Cancel, Cancellation, CloseSession, Committed, Compacted, Consistency, Delivered,
    DeliveredBatch, Ended, ForgetCursor, GetStatus, OpenSession, Propose, ProposeBatch, Read,
    ReadIndex, ReadValue, Resolve, Shutdown, SnapshotReader, Subscribe, Subscribed, Subscriber,
    SubscriptionEnd, TakeSnapshot, TransferLeadership,
};
pub use raft_core::membership::Configuration;
pub use raft_core::{
    ClusterId, Incarnation, LogId, LogIndex, NodeId, PeerState, Role, Term, Violation,
};
pub use raft_net::{ListenError, PeerStats, Refusal};
pub use raft_storage::{MemoryDisk, OpenError, StorageError};
pub use status::{MemberStatus, NodeStatus, Phase, Progress};
pub use watch::{NodeView, StatusChanged, Watch, WatchStatus};

/// The example of the README is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
