//! Raft.
mod config;
mod effect;
mod entry;
mod id;
mod message;
pub mod quorum;
mod recovered;
mod status;

pub use config::{Config, ConfigError};
pub use effect::{Commit, Effect, HardState, Input, Persist, ReadFailure, Rejection, Withheld};
pub use entry::{ENTRY_OVERHEAD_BYTES, Entry, EntryKind};
pub use id::{ClusterId, Incarnation, LogId, LogIndex, NodeId, RequestId, Term, WriteId};
pub use message::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, DurableMessage, Envelope,
    Heartbeat, HeartbeatResponse, Message, OpenMessage, PreVote, PreVoteResponse, RequestVote,
    VoteResponse,
};
pub use recovered::Recovered;
pub use status::{PeerState, PeerStatus, Role, Status, Violation};
