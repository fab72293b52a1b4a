//! The envelope: what the data of a command's entry holds around the command. `raft-core` never looks into it.
//!
//! `[tag u8][log time u64, ms]`, then by tag, every number big-endian:
//!
//! | tag | request   | fields                                      |
//! |-----|-----------|---------------------------------------------|
//! | 1   | Plain     | command                                     |
//! | 2   | InSession | session u64, sequence u64, low u64, command |
//! | 3   | Open      | timeout u64, ms                             |
//! | 4   | Close     | session u64                                 |
//! | 5   | Cancel    | session u64, sequence u64, low u64          |
//!
//! Invariants:
//! - A command has no length of its own: it ends where the entry ends. What has no command ends behind its last
//!   field; an envelope with one byte more or less is malformed, on every node alike.
//! - Who proposes does not know the log time. The leader that appends it stamps it, with at most [`TIME_MAX_MS`]:
//!   behind a later one a session could have no deadline.

use bytes::Bytes;

use super::{ProposalId, SessionId};

const PLAIN: u8 = 1;
const IN_SESSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const CANCEL: u8 = 5;

/// The latest log time: no clock shows it, and every deadline that is counted from it is later.
pub(crate) const TIME_MAX_MS: u64 = u64::MAX / 2;

/// Tag and log time.
const HEAD_LEN: usize = 1 + 8;
/// Session, sequence and low.
const PROPOSAL_LEN: usize = 3 * 8;

/// What an envelope asks for. `C` is the command: shared with the entry, or borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request<C = Bytes> {
    /// Run it as often as it is in the log.
    Plain { command: C },
    /// Run it unless it was run or cancelled before.
    InSession {
        id: ProposalId,
        /// The client has the outcome of everything below, and asks for none of it again. One that is above
        /// the proposal's own sequence counts as that: no proposal is below the low that it carries.
        low: u64,
        command: C,
    },
    /// Open a session that lives for `timeout_ms` of log time, at least 1, after its last proposal.
    Open { timeout_ms: u64 },
    /// End it now.
    Close { session: SessionId },
    /// Never run it, unless it ran already.
    Cancel { id: ProposalId, low: u64 },
}

/// Bytes that are no envelope. A node of this version writes none, so they are a newer version's, or damage
/// that was there before the log was written; every node sees the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the envelope of a command")]
pub(crate) struct Malformed;

impl<C: AsRef<[u8]>> Request<C> {
    /// How many bytes [`encode_into`](Self::encode_into) appends.
    pub(crate) fn encoded_len(&self) -> usize {
        HEAD_LEN
            + match self {
                Self::Plain { command } => command.as_ref().len(),
                Self::InSession { command, .. } => PROPOSAL_LEN + command.as_ref().len(),
                Self::Open { .. } | Self::Close { .. } => 8,
                Self::Cancel { .. } => PROPOSAL_LEN,
            }
    }

    /// Appends the envelope.
    pub(crate) fn encode_into(&self, time_ms: u64, to: &mut Vec<u8>) {
        // In one piece: to append costs about as much as what is appended.
        let mut fields = [0; HEAD_LEN + PROPOSAL_LEN];
        let mut put = |at: usize, number: u64| {
            fields[at..at + 8].copy_from_slice(&number.to_be_bytes());
        };
        put(1, time_ms);
        let (tag, command) = match self {
            Self::Plain { command } => (PLAIN, command.as_ref()),
            Self::InSession { id, low, command } => {
                put_proposal(*id, *low, put);
                (IN_SESSION, command.as_ref())
            }
            Self::Open { timeout_ms } => {
                put(HEAD_LEN, *timeout_ms);
                (OPEN, &[][..])
            }
            Self::Close { session } => {
                put(HEAD_LEN, session.0);
                (CLOSE, &[][..])
            }
            Self::Cancel { id, low } => {
                put_proposal(*id, *low, put);
                (CANCEL, &[][..])
            }
        };
        fields[0] = tag;
        let len = self.encoded_len() - command.len();
        to.extend_from_slice(&fields[..len]);
        to.extend_from_slice(command);
    }
}

impl Request {
    /// The log time and the request in `data`, whose command it shares.
    pub(crate) fn decode(data: &Bytes) -> Result<(u64, Self), Malformed> {
        let (time_ms, request) = parse(data)?;
        let request = match request {
            Request::Plain { command } => Self::Plain {
                command: data.slice_ref(command),
            },
            Request::InSession { id, low, command } => Self::InSession {
                id,
                low,
                command: data.slice_ref(command),
            },
            Request::Open { timeout_ms } => Self::Open { timeout_ms },
            Request::Close { session } => Self::Close { session },
            Request::Cancel { id, low } => Self::Cancel { id, low },
        };
        Ok((time_ms, request))
    }
}

impl<'d> Request<&'d [u8]> {
    /// The log time and the request in `data`.
    pub(crate) fn parse(data: &'d [u8]) -> Result<(u64, Self), Malformed> {
        parse(data)
    }
}

fn put_proposal(id: ProposalId, low: u64, mut put: impl FnMut(usize, u64)) {
    put(HEAD_LEN, id.session.0);
    put(HEAD_LEN + 8, id.sequence);
    put(HEAD_LEN + 16, low);
}

fn parse(data: &[u8]) -> Result<(u64, Request<&[u8]>), Malformed> {
    let (&tag, mut rest) = data.split_first().ok_or(Malformed)?;
    let time_ms = number(&mut rest)?;
    if time_ms > TIME_MAX_MS {
        return Err(Malformed);
    }
    let request = match tag {
        PLAIN => {
            let command = std::mem::take(&mut rest);
            Request::Plain { command }
        }
        IN_SESSION => {
            let (id, low) = proposal(&mut rest)?;
            let command = std::mem::take(&mut rest);
            Request::InSession { id, low, command }
        }
        OPEN => {
            let timeout_ms = number(&mut rest)?;
            if timeout_ms == 0 {
                return Err(Malformed);
            }
            Request::Open { timeout_ms }
        }
        CLOSE => {
            let session = SessionId(number(&mut rest)?);
            Request::Close { session }
        }
        CANCEL => {
            let (id, low) = proposal(&mut rest)?;
            Request::Cancel { id, low }
        }
        _ => return Err(Malformed),
    };
    if rest.is_empty() {
        Ok((time_ms, request))
    } else {
        Err(Malformed)
    }
}

fn number(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let (number, behind) = rest.split_first_chunk().ok_or(Malformed)?;
    *rest = behind;
    Ok(u64::from_be_bytes(*number))
}

fn proposal(rest: &mut &[u8]) -> Result<(ProposalId, u64), Malformed> {
    let session = SessionId(number(rest)?);
    let sequence = number(rest)?;
    let low = number(rest)?;
    if sequence == 0 {
        return Err(Malformed);
    }
    Ok((ProposalId { session, sequence }, low))
}
