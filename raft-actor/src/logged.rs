//! What an entry of the log asks for, for tools that read a log.

use bytes::Bytes;

use crate::ledger::Request;
use crate::{ProposalId, SessionId};

/// What the data of an entry of [`EntryKind::Command`](raft_core::EntryKind::Command) says. A node deals with it by
/// itself, and delivers the commands that are no copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logged {
    /// A command.
    Command {
        /// Its name, if it has one.
        id: Option<ProposalId>,
        /// The command itself.
        command: Bytes,
    },
    /// A session is opened, under the entry's index, and expires when it was not used for so long.
    OpenSession {
        /// In milliseconds of the log's time.
        timeout_ms: u64,
    },
    /// A session is closed.
    CloseSession(SessionId),
    /// A proposal is cancelled.
    Cancel(ProposalId),
}

impl Logged {
    /// Reads the data of such an entry, and the log's time that it was stamped with, in milliseconds; none if it is of no
    /// version that this program knows.
    #[must_use]
    pub fn decode(data: &Bytes) -> Option<(u64, Self)> {
        let (time_ms, request) = Request::decode(data).ok()?;
        let logged = match request {
            Request::Plain { command } => Self::Command { id: None, command },
            Request::InSession { id, command, .. } => Self::Command {
                id: Some(id),
                command,
            },
            Request::Open { timeout_ms } => Self::OpenSession { timeout_ms },
            Request::Close { session } => Self::CloseSession(session),
            Request::Cancel { id, .. } => Self::Cancel(id),
        };
        Some((time_ms, logged))
    }
}
