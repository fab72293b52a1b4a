//! Raft.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod candidate;
mod config;
mod effect;
mod entry;
mod follower;
mod id;
mod leader;
mod log;
mod message;
mod progress;
pub mod quorum;
mod raft;
mod recovered;
mod rng;
mod status;
mod writes;

pub use config::{Config, ConfigError};
pub use effect::{Commit, Effect, HardState, Input, Persist, ReadFailure, Rejection, Withheld};
pub use entry::{ENTRY_OVERHEAD_BYTES, Entry, EntryKind};
pub use id::{ClusterId, Incarnation, LogId, LogIndex, NodeId, RequestId, Term, WriteId};
pub use message::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, DurableMessage, Envelope,
    Heartbeat, HeartbeatResponse, Message, OpenMessage, PreVote, PreVoteResponse, RequestVote,
    VoteResponse,
};
pub use raft::Raft;
pub use recovered::Recovered;
pub use status::{PeerState, PeerStatus, Role, Status, Violation};
