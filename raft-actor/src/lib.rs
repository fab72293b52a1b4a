//! A durable, totally ordered log that a program spawns as an actor.
//!
//! Several processes run one node each. What any of them [`Propose`]s, all of them are handed in the same
//! order as [`Delivered`] events, and what was acknowledged survives crashes, power loss and the loss of any
//! minority of the nodes.
//!
//! It has two faces, and one node behind them: [`Raft`], a handle with async methods for any program, and
//! [`RaftActor`], the actor, for programs with actors of their own. All that a handle does is a message to the actor.
//!
//! ```no_run
#![doc = include_str!("../examples/first.rs")]
//! ```
//!
//! | | handle | message |
//! |---|---|---|
//! | start | [`Raft::start`], [`start_with`](Raft::start_with) a [`StateMachine`] | [`RaftActor::spawn`], [`spawn_with`](RaftActor::spawn_with) |
//! | put a command into the log | [`propose`](Raft::propose), [`apply`](Raft::apply), [`propose_batch`](Raft::propose_batch) | [`Propose`], [`ProposeBatch`] |
//! | make retries safe across crashes | [`open_session`](Raft::open_session), [`Session`] | [`OpenSession`], [`Propose::with_id`], [`Resolve`], [`Cancel`] |
//! | read the state | [`read`](Raft::read), [`read_stale`](Raft::read_stale), [`read_index`](Raft::read_index) | [`Read`], [`ReadIndex`] |
//! | be handed what is committed | [`subscribe`](Raft::subscribe), [`channels`](Raft::channels) | [`Subscribe`] |
//! | change who is in it | [`remove`](Raft::remove), [`promote`](Raft::promote), [`demote`](Raft::demote), [`change`](Raft::change), [`transfer_leadership`](Raft::transfer_leadership), [`leave`](Raft::leave), [`members`](Raft::members) | [`ChangeMembership`], [`TransferLeadership`], [`Leave`], [`GetMembers`] |
//! | run it | [`status`](Raft::status), [`watch`](Raft::watch), [`health`](Raft::health), [`ended`](Raft::ended), [`shutdown`](Raft::shutdown) | [`GetStatus`], [`Watch`], [`GetHealth`], [`Ended`], [`Shutdown`] |
//!
//! [`Config`] says who a node is, who its peers are and where its data folder is. A proposal is answered with
//! [`Committed`], or with a [`ProposeError`] that says whether the command can still have an effect. [`metrics`] are for
//! graphs. `ConfigArgs` (feature `cli`) takes the settings from flags, environment and a file.
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
mod census;
mod changing;
mod clock;
mod config;
mod delivery;
mod departure;
mod disk;
mod door;
mod error;
mod front;
mod handle;
mod health;
mod intake;
mod joining;
mod lag;
mod leaving;
mod ledger;
mod life;
mod logged;
mod machine;
mod managing;
mod members;
mod message;
pub mod metrics;
mod node;
mod observe;
mod own_session;
mod parts;
mod proposals;
mod reads;
mod recent;
mod refused;
mod reply;
mod rhythm;
mod snapshot;
mod snapshotting;
mod spawn;
mod status;
mod step;
mod subscription;
mod tolerance;
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
    CodecError, MembershipError, NodeFailure, ProposeError, ReadError, ReadObstacle, SnapshotError,
    StartError, SubscribeError, UnknownCause,
};
pub use front::RaftActor;
pub use handle::{
    CommandError, CommandReceiver, CommandSender, Event, Events, NodeEnded, Position, Raft, Session,
};
pub use health::{GetHealth, Health, NotReady};
pub use joining::JoinError;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use ledger::fuzz;
pub use ledger::{ProposalId, SessionId};
pub use logged::Logged;
pub use machine::{ApplyError, At, BytesStateMachine, Capture, StateMachine, capture, restored};
pub use message::{
    Cancel, Cancellation, ChangeMembership, Changed, CloseSession, Committed, Compacted,
    Consistency, Delivered, DeliveredBatch, Ended, ForgetCursor, GetMembers, GetStatus, Invite,
    Leave, OpenSession, Propose, ProposeBatch, Read, ReadIndex, ReadValue, Resolve, Shutdown,
    SnapshotReader, Subscribe, Subscribed, Subscriber, SubscriptionEnd, TakeSnapshot,
    TransferLeadership,
};
pub use raft_core::membership::{ChangeError, Configuration, Member};
pub use raft_core::{
    ClusterId, Incarnation, LogId, LogIndex, NodeId, PeerState, Role, Term, Violation,
};
pub use raft_net::{
    CertificateProblem, ListenError, PeerStats, Refusal, RoundTrip, TlsFile, TlsFileError,
    TlsFileProblem,
};
pub use raft_storage::{MemoryDisk, OpenError, StorageError};
pub use status::{MemberRole, MemberStatus, Members, NodeStatus, Phase, Progress};
#[doc(hidden)]
pub use step::Step;
pub use tolerance::{Tolerance, Why};
pub use watch::{NodeView, StatusChanged, Watch, WatchStatus};

/// The example of the README is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
