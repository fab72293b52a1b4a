//! State machines: what a program replicates.
//!
//! Every node applies the same commands in the same order to a machine of its own, so a machine must be a
//! function of its commands alone: no clock, no random numbers, no iteration over a hash map that reaches an
//! answer. Nodes compare a digest of commands and answers, and one that differs from a majority ends.
//!
//! [`StateMachine`] has types of the program's own, MessagePack beneath; [`BytesStateMachine`] has bytes.

use std::any::Any;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{LogIndex, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::CodecError;

/// A state that every node has a replica of, with commands and responses of the program's own types.
///
/// They are encoded as MessagePack maps: a field may come with `#[serde(default)]` later, an enum may get a
/// variant, and programs of both versions understand each other's log as far as they know what is in it.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::io;
/// use raft_actor::{ApplyError, At, Capture, StateMachine, capture, restored};
///
/// #[derive(Default)]
/// struct Store(BTreeMap<String, u64>);
///
/// impl StateMachine for Store {
///     type Command = (String, u64);
///     type Response = Option<u64>;
///
///     fn apply(&mut self, _: At, (key, value): (String, u64)) -> Result<Option<u64>, ApplyError> {
///         Ok(self.0.insert(key, value))
///     }
///     fn snapshot(&self) -> Capture {
///         capture(self.0.clone())
///     }
///     fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
///         self.0 = restored(from)?;
///         Ok(())
///     }
/// }
/// ```
pub trait StateMachine: Send + 'static {
    /// What changes it.
    type Command: Serialize + DeserializeOwned;
    /// What a command is answered with.
    type Response: Serialize + DeserializeOwned;

    /// Applies one command. It runs on every node, once for each command of the log, in its order.
    ///
    /// # Errors
    /// A command that the machine refuses must leave it as it was. The error is the answer to who proposed it
    /// ([`ProposeError::Refused`](crate::ProposeError::Refused)), the same on every node, and no failure of the
    /// node. A panic is one: it ends the node, by name, and will do so again at its next start, on every node.
    fn apply(&mut self, at: At, command: Self::Command) -> Result<Self::Response, ApplyError>;

    /// Captures the state as it is now. This is to be quick, since nothing is applied meanwhile; what is
    /// captured is written later, on another thread, while the machine goes on. See [`capture`].
    fn snapshot(&self) -> Capture;

    /// Replaces the whole state by what a [`snapshot`](Self::snapshot) wrote, on this node or on another. It is
    /// read in pieces from the disk.
    ///
    /// # Errors
    /// What kept it from that. The node ends, since its state is neither the old nor the new one.
    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()>;

    /// See [`BytesStateMachine::kept`].
    ///
    /// # Errors
    /// See there.
    fn kept(&mut self) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    /// See [`BytesStateMachine::keep`].
    ///
    /// # Errors
    /// See there.
    fn keep(&mut self, through: LogIndex, ledger: &[u8]) -> io::Result<()> {
        let _ = (through, ledger);
        Ok(())
    }

    /// See [`BytesStateMachine::has_own_disk`].
    fn has_own_disk(&self) -> bool {
        false
    }
}

/// A state machine whose commands and responses are bytes. Every [`StateMachine`] is one.
pub trait BytesStateMachine: Send + 'static {
    /// As [`StateMachine::apply`].
    ///
    /// # Errors
    /// As there.
    fn apply(&mut self, at: At, command: &Bytes) -> Result<Bytes, ApplyError>;

    /// As [`StateMachine::snapshot`].
    fn snapshot(&self) -> Capture;

    /// As [`StateMachine::restore`].
    ///
    /// # Errors
    /// As there.
    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()>;

    /// Whether the machine's state is on a disk of its own, and survives a restart without a snapshot. Then
    /// [`keep`](Self::keep) is called behind each batch of commands, and [`kept`](Self::kept) at the start.
    fn has_own_disk(&self) -> bool {
        false
    }

    /// What [`keep`](Self::keep) was last given, as of the state that the machine's disk holds; none if it holds
    /// none. Applying goes on right behind it.
    ///
    /// # Errors
    /// The disk cannot be read; the node does not start.
    fn kept(&mut self) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    /// Commits what was applied since the last call, and with it `ledger`, in one transaction of the machine's own
    /// disk: who reads one of them after a crash must find the other. `ledger` is the library's own bookkeeping (what
    /// was applied, sessions, digest) and replaces the one before. It is usually some hundred bytes, and grows with
    /// the proposals that are not acknowledged by their sessions yet, whose answers it holds (64 MiB of them at most): each
    /// batch pays for that. The commit need not be synced: what is lost of the
    /// end is applied again.
    ///
    /// # Errors
    /// What kept it from that. The node ends.
    fn keep(&mut self, through: LogIndex, ledger: &[u8]) -> io::Result<()> {
        let _ = (through, ledger);
        Ok(())
    }
}

impl<S: StateMachine> BytesStateMachine for S {
    fn apply(&mut self, at: At, command: &Bytes) -> Result<Bytes, ApplyError> {
        let command = CodecError::decode(command)
            .map_err(|_| ApplyError::new("it is no command of this program"))?;
        let response = StateMachine::apply(self, at, command)?;
        rmp_serde::to_vec_named(&response)
            .map(Bytes::from)
            .map_err(|error| ApplyError::new(format!("its response cannot be encoded: {error}")))
    }

    fn snapshot(&self) -> Capture {
        StateMachine::snapshot(self)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        StateMachine::restore(self, from)
    }

    fn has_own_disk(&self) -> bool {
        StateMachine::has_own_disk(self)
    }

    fn kept(&mut self) -> io::Result<Option<Bytes>> {
        StateMachine::kept(self)
    }

    fn keep(&mut self, through: LogIndex, ledger: &[u8]) -> io::Result<()> {
        StateMachine::keep(self, through, ledger)
    }
}

/// Where in the log a command stands. All of it is the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The command's place.
    pub index: LogIndex,
    /// The term in which it got there.
    pub term: Term,
    /// How long the cluster has had a leader up to here, in milliseconds since its birth, as its leaders counted it: it
    /// never goes back, and no clock that is set wrong can move it. Not the time of day.
    pub log_time_ms: u64,
}

/// Why a state machine refused a command. Any error turns into one; what it says must be the same on every
/// node, since it is an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError(Arc<str>);

/// The longest text of an [`ApplyError`] that is kept, in bytes.
const APPLY_ERROR_BYTES_MAX: usize = 1024;

impl ApplyError {
    /// Refuses with this reason. What is beyond 1 KiB of it is cut off.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > APPLY_ERROR_BYTES_MAX {
            let end = (0..=APPLY_ERROR_BYTES_MAX).rfind(|at| reason.is_char_boundary(*at));
            reason.truncate(end.unwrap_or(0));
        }
        Self(reason.into())
    }

    /// What it says.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl From<ApplyError> for Arc<str> {
    fn from(error: ApplyError) -> Self {
        error.0
    }
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

// As with other types that every error turns into, it is none itself: the two would contradict each other.
impl<E: std::error::Error> From<E> for ApplyError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// A state as it was at one moment, which writes itself, in pieces of any size.
pub type Capture = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// Captures a value that is cheap to clone (or small), and writes it as MessagePack.
#[must_use]
pub fn capture<T: Serialize + Send + 'static>(value: T) -> Capture {
    Box::new(move |to| rmp_serde::encode::write_named(to, &value).map_err(io::Error::other))
}

/// Reads what [`capture`] wrote.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn restored<T: DeserializeOwned>(from: &mut dyn io::Read) -> io::Result<T> {
    rmp_serde::from_read(io::BufReader::new(from)).map_err(io::Error::other)
}

/// A machine whose type only its users know.
pub(crate) trait Machine: Send {
    fn bytes(&mut self) -> &mut dyn BytesStateMachine;
    fn as_any(&self) -> &dyn Any;
}

impl<M: BytesStateMachine> Machine for M {
    fn bytes(&mut self) -> &mut dyn BytesStateMachine {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds, and refuses what would overflow.
    #[derive(Default)]
    struct Sum(u64);

    impl StateMachine for Sum {
        type Command = u64;
        type Response = u64;

        fn apply(&mut self, _: At, command: u64) -> Result<u64, ApplyError> {
            let sum = self.0.checked_add(command);
            self.0 = sum.ok_or_else(|| ApplyError::new("too much"))?;
            Ok(self.0)
        }

        fn snapshot(&self) -> Capture {
            capture(self.0)
        }

        fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
            self.0 = restored(from)?;
            Ok(())
        }
    }

    #[test]
    fn a_machine_of_types_is_one_of_bytes() {
        let at = At {
            index: LogIndex(1),
            term: Term(1),
            log_time_ms: 0,
        };
        let mut sum = Sum::default();
        let bytes: &mut dyn BytesStateMachine = &mut sum;
        let command = |n: u64| Bytes::from(rmp_serde::to_vec_named(&n).unwrap());
        assert_eq!(bytes.apply(at, &command(5)), Ok(command(5)));
        assert_eq!(
            bytes.apply(at, &command(u64::MAX)),
            Err(ApplyError::new("too much"))
        );
        for no_command in [b"\xc1".as_slice(), b"\x05\x05"] {
            let refused = bytes.apply(at, &Bytes::copy_from_slice(no_command));
            assert!(refused.unwrap_err().reason().contains("no command"));
        }
        let mut written = Vec::new();
        bytes.snapshot()(&mut written).unwrap();
        let mut other = Sum::default();
        StateMachine::restore(&mut other, &mut written.as_slice()).unwrap();
        assert_eq!(other.0, 5);
        assert!(StateMachine::restore(&mut other, &mut [].as_slice()).is_err());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = ApplyError::new("ä".repeat(1000));
        assert_eq!(reason.reason().len(), 1024);
        let reason = ApplyError::new(format!("x{}", "ä".repeat(1000)));
        assert_eq!(reason.reason().len(), 1023);
    }
}
