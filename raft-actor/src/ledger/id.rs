//! How a proposal is named, so that it can be sent again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A client's session: the index of the log entry that opened it, so unique in the cluster.
///
/// It ends when it is closed, or when none of its proposals was committed for its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A proposal's name, unique in the cluster: a command sent again under the same name is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProposalId {
    /// The session that it belongs to.
    pub session: SessionId,
    /// Its number within the session. The client counts them from 1, one for each command.
    pub sequence: u64,
}

impl fmt::Display for ProposalId {
    /// Writes `session.sequence`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.sequence)
    }
}
