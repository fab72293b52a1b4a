//! Bytes to frames.
//!
//! Invariants: bytes in pieces decode to what they decode to in one; nothing is reserved for what a
//! length claims, only for what came; payloads are slices of what was read, and copies only where a slice
//! would keep alive far more than itself; a decoded frame costs at most 48 bytes of memory for each byte
//! that came, and 32 KiB; what passes here cannot overflow the core (every term, index and round is below 2^63, entries are a run
//! whose terms do not fall and do not exceed the message's). After an error the stream cannot be read
//! on.

use bytes::{Buf, Bytes, BytesMut};
use raft_core::membership::ADDRESS_LEN_MAX;
use raft_core::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, DurableMessage, Entry, EntryKind,
    Heartbeat, HeartbeatResponse, LogId, LogIndex, Message, NodeId, OpenMessage, PreVote,
    PreVoteResponse, ReadBatch, ReadIndex, ReadIndexResponse, RequestVote, Round, Term, TimeoutNow,
    VoteResponse,
};
use serde::Deserialize;

use crate::header::{FrameKind, HEADER_LEN, Header, VERSION_MAX};
use crate::limits::{COPIED_LEN_MAX, Limits};
use crate::refusal::printable;
use crate::wire::{
    AcceptedBody, AnswerBody, AppendEntriesBody, CommitBody, DigestBody, EntryBody, ForwardedBody,
    HeartbeatBody, HeartbeatResponseBody, List, OutcomeBody, PreVoteBody, ReadIndexBody,
    ReadIndexResponseBody, RejectedBody, RequestVoteBody, TimeoutNowBody, VoteBody,
};
use crate::{
    Answer, ForwardOutcome, Forwarded, Frame, MANAGE_LEN_MAX, MANAGED_LEN_MAX, NotApplied,
    REASON_LEN_MAX,
};

/// The highest term, index or round that a frame may carry.
pub(crate) const NUMBER_MAX: u64 = (1 << 63) - 1;
/// No body nests deeper.
const DEPTH_MAX: usize = 8;

/// Why bytes are not a frame. Ends the connection that they came in on.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The stream is not of this protocol.
    #[error("the bytes are not of this protocol")]
    Magic,
    /// The frame's protocol version is not the agreed one.
    #[error("protocol version {found} in a frame, {expected} is agreed")]
    Version {
        /// The frame's.
        found: u8,
        /// The agreed one; 0 for a frame of a handshake.
        expected: u8,
    },
    /// A kind of frame that this version does not know.
    #[error("unknown kind of frame {number}")]
    Kind {
        /// Its number.
        number: u8,
    },
    /// A kind of frame that has no place here.
    #[error("a frame of kind {kind:?} is out of place")]
    OutOfPlace {
        /// Its kind.
        kind: FrameKind,
    },
    /// Flags, of which this version knows none.
    #[error("unknown flags {flags:#06x}")]
    Flags {
        /// The flags.
        flags: u16,
    },
    /// A group other than 0.
    #[error("unknown group {group}")]
    Group {
        /// Its id.
        group: u64,
    },
    /// The header claims more than is allowed.
    #[error("the frame claims {len} bytes, the limit is {max}")]
    TooLong {
        /// What it claims, header included.
        len: u64,
        /// The limit.
        max: usize,
    },
    /// The bytes changed on their way.
    #[error("checksum {found:08x}, the header says {expected:08x}")]
    Checksum {
        /// Of what came.
        found: u32,
        /// What the header says.
        expected: u32,
    },
    /// The body is not what its kind says.
    #[error("the body is not a {kind:?}: {source}")]
    Body {
        /// The kind.
        kind: FrameKind,
        /// What is wrong with it.
        source: rmp_serde::decode::Error,
    },
    /// Something follows the body.
    #[error("bytes behind the body of a {kind:?}")]
    Trailing {
        /// The kind.
        kind: FrameKind,
    },
    /// A term, an index or a round is 2^63 or more.
    #[error("{what} {number} is out of range")]
    Number {
        /// Which number.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// An entry of a kind that this version does not know.
    #[error("unknown kind {number} of the entry at {index}")]
    EntryKind {
        /// The kind's number.
        number: u8,
        /// The entry's position.
        index: LogIndex,
    },
    /// An entry's term is below that of the one before it, or above the message's.
    #[error("term {term} of the entry at {index} is not between {at_least} and {at_most}")]
    EntryTerm {
        /// The entry's term.
        term: Term,
        /// The entry's position.
        index: LogIndex,
        /// The term of the entry before it.
        at_least: Term,
        /// The term of the message.
        at_most: Term,
    },
    /// The reason of a refused command is too long, or no text.
    #[error("a reason of {len} bytes is not UTF-8 text of at most {max}", max = REASON_LEN_MAX)]
    Reason {
        /// Its length.
        len: usize,
    },
    /// What a frame carries is longer than it may be.
    #[error("a {kind:?} of {len} bytes, the limit is {max}")]
    Payload {
        /// The kind of the frame.
        kind: FrameKind,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// What the sender says of where it is dialled is no address.
    #[error("an address of {len} bytes is not host:port, of at most {max}", max = ADDRESS_LEN_MAX)]
    Address {
        /// Its length.
        len: usize,
    },
    /// The configuration that a snapshot's offer carries is none.
    #[error("a snapshot's offer: {0}")]
    Configuration(#[from] raft_core::membership::DecodeError),
}

impl DecodeError {
    /// One word for it, for counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Magic => "magic",
            Self::Version { .. } => "version",
            Self::Kind { .. } => "kind",
            Self::OutOfPlace { .. } => "out_of_place",
            Self::Flags { .. } => "flags",
            Self::Group { .. } => "group",
            Self::TooLong { .. } => "too_long",
            Self::Checksum { .. } => "checksum",
            Self::Body { .. } => "body",
            Self::Trailing { .. } => "trailing",
            Self::Number { .. } => "number",
            Self::EntryKind { .. } => "entry_kind",
            Self::EntryTerm { .. } => "entry_term",
            Self::Reason { .. } => "reason",
            Self::Configuration(_) => "configuration",
            Self::Address { .. } => "address",
            Self::Payload { .. } => "payload",
        }
    }
}

/// A frame whose header and checksum are right and whose body is not yet looked at.
#[derive(Debug)]
pub(crate) struct RawFrame {
    pub(crate) kind: FrameKind,
    pub(crate) body: Bytes,
}

impl RawFrame {
    /// What its bytes were on the wire.
    pub(crate) fn frame_len(&self) -> usize {
        HEADER_LEN + self.body.len()
    }
}

/// Takes a stream of bytes in any pieces and gives frames.
#[derive(Debug)]
pub struct FrameDecoder {
    frame_len_max: usize,
    buffer: BytesMut,
}

impl FrameDecoder {
    /// A decoder of an established connection.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            frame_len_max: limits.frame_len_max,
            buffer: BytesMut::new(),
        }
    }

    /// A decoder of a handshake.
    pub(crate) fn for_handshake(limits: &Limits) -> Self {
        Self {
            frame_len_max: limits.handshake_frame_len_max,
            buffer: BytesMut::new(),
        }
    }

    /// Lifts the limit of the handshake.
    pub(crate) fn establish(&mut self, frame_len_max: usize) {
        self.frame_len_max = frame_len_max;
    }

    /// Appends what came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where to read to.
    pub(crate) fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame; none until more bytes come.
    ///
    /// # Errors
    /// The stream is not of this protocol, or damaged; it cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        self.next_raw()?
            .map(|raw| decode_frame(raw.kind, &raw.body))
            .transpose()
    }

    /// The next frame of whatever kind, with its body still encoded.
    pub(crate) fn next_raw(&mut self) -> Result<Option<RawFrame>, DecodeError> {
        let Some(header) = Header::parse(&self.buffer, VERSION_MAX, self.frame_len_max)? else {
            return Ok(None);
        };
        let frame_len = HEADER_LEN + header.body_len;
        if self.buffer.len() < frame_len {
            return Ok(None);
        }
        header.verify(&self.buffer[..frame_len])?;
        let body = if frame_len <= COPIED_LEN_MAX {
            let body = Bytes::copy_from_slice(&self.buffer[HEADER_LEN..frame_len]);
            self.buffer.advance(frame_len);
            body
        } else {
            self.buffer.split_to(frame_len).freeze().slice(HEADER_LEN..)
        };
        Ok(Some(RawFrame {
            kind: header.kind,
            body,
        }))
    }
}

/// Reads a body of `kind` out of `body`, which it must fill.
pub(crate) fn decode_body<'a, T: Deserialize<'a>>(
    kind: FrameKind,
    body: &'a [u8],
) -> Result<T, DecodeError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(DEPTH_MAX);
    let value = T::deserialize(&mut deserializer).map_err(|source| DecodeError::Body {
        kind,
        source: printable_error(source),
    })?;
    // Only at the end of the body is there no marker of a further value.
    match bool::deserialize(&mut deserializer) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(DecodeError::Trailing { kind }),
    }
}

/// An error quotes what it found, which may be as long as the frame, and goes into logs.
fn printable_error(error: rmp_serde::decode::Error) -> rmp_serde::decode::Error {
    use rmp_serde::decode::Error as E;
    match error {
        E::Syntax(text) => E::Syntax(printable(&text)),
        E::Uncategorized(text) => E::Uncategorized(printable(&text)),
        error => error,
    }
}

/// Decodes the body of an established connection's frame.
pub(crate) fn decode_frame(kind: FrameKind, body: &Bytes) -> Result<Frame, DecodeError> {
    use DurableMessage as D;
    use FrameKind as K;
    use OpenMessage as O;
    let message: Message = match kind {
        K::Hello
        | K::SnapshotHello
        | K::UrgentHello
        | K::Welcome
        | K::Refuse
        | K::Confirm
        | K::Visit
        | K::VisitAnswer
        | K::Ping
        | K::Pong
        | K::SnapshotOffer
        | K::SnapshotWanted
        | K::SnapshotChunk
        | K::SnapshotDone => return Err(DecodeError::OutOfPlace { kind }),
        K::Digest => {
            let body: DigestBody = decode_body(kind, body)?;
            return Ok(Frame::Digest {
                index: in_index(body.index)?,
                digest: u128::from_be_bytes(body.digest.into_array()),
                announced: body.announced,
            });
        }
        K::Forward => return forward(body),
        K::Answers => return answers(body),
        K::Manage => {
            let (request, data) = opaque(kind, body, MANAGE_LEN_MAX)?;
            return Ok(Frame::Manage { request, data });
        }
        K::Managed => {
            let (request, data) = opaque(kind, body, MANAGED_LEN_MAX)?;
            return Ok(Frame::Managed { request, data });
        }
        K::AppendEntries => append_entries(body)?,
        K::Heartbeat => {
            let body: HeartbeatBody = decode_body(kind, body)?;
            O::Heartbeat(Heartbeat {
                term: in_term(body.term)?,
                commit: in_index(body.commit)?,
                round: in_round(body.round)?,
            })
            .into()
        }
        K::CommitAdvanced => {
            let body: CommitBody = decode_body(kind, body)?;
            O::CommitAdvanced(CommitAdvanced {
                term: in_term(body.term)?,
                commit: in_index(body.commit)?,
            })
            .into()
        }
        K::HeartbeatResponse => {
            let body: HeartbeatResponseBody = decode_body(kind, body)?;
            O::HeartbeatResponse(HeartbeatResponse {
                term: in_term(body.term)?,
                round: in_round(body.round)?,
            })
            .into()
        }
        K::PreVote => {
            let body: PreVoteBody = decode_body(kind, body)?;
            O::PreVote(PreVote {
                term: in_term(body.term)?,
                last: in_id(body.last_term, body.last_index)?,
                transfer: body.transfer,
            })
            .into()
        }
        K::PreVoteResponse => {
            let (term, granted) = vote(kind, body)?;
            O::PreVoteResponse(PreVoteResponse { term, granted }).into()
        }
        K::TimeoutNow => {
            let body: TimeoutNowBody = decode_body(kind, body)?;
            O::TimeoutNow(TimeoutNow {
                term: in_term(body.term)?,
            })
            .into()
        }
        K::ReadIndex => {
            let body: ReadIndexBody = decode_body(kind, body)?;
            let (start, number) = (body.start, body.number);
            O::ReadIndex(ReadIndex {
                term: in_term(body.term)?,
                batch: ReadBatch { start, number },
            })
            .into()
        }
        K::ReadIndexResponse => {
            let body: ReadIndexResponseBody = decode_body(kind, body)?;
            let (start, number) = (body.start, body.number);
            O::ReadIndexResponse(ReadIndexResponse {
                term: in_term(body.term)?,
                batch: ReadBatch { start, number },
                index: body.index.map(in_index).transpose()?,
            })
            .into()
        }
        K::RequestVote => {
            let body: RequestVoteBody = decode_body(kind, body)?;
            D::RequestVote(RequestVote {
                term: in_term(body.term)?,
                last: in_id(body.last_term, body.last_index)?,
                transfer: body.transfer,
            })
            .into()
        }
        K::VoteResponse => {
            let (term, granted) = vote(kind, body)?;
            D::VoteResponse(VoteResponse { term, granted }).into()
        }
        K::AppendAccepted => {
            let AcceptedBody { term, matched } = decode_body(kind, body)?;
            let outcome = AppendOutcome::Accepted {
                matched: in_index(matched)?,
            };
            let term = in_term(term)?;
            D::AppendResponse(AppendResponse { term, outcome }).into()
        }
        K::AppendRejected => {
            let rejected: RejectedBody = decode_body(kind, body)?;
            let outcome = AppendOutcome::Rejected {
                prev: in_index(rejected.prev)?,
                hint: in_id(rejected.hint_term, rejected.hint_index)?,
            };
            let term = in_term(rejected.term)?;
            D::AppendResponse(AppendResponse { term, outcome }).into()
        }
    };
    Ok(Frame::Raft(message))
}

fn append_entries(body: &Bytes) -> Result<Message, DecodeError> {
    let message: AppendEntriesBody<List<EntryBody<'_>>> =
        decode_body(FrameKind::AppendEntries, body)?;
    let term = in_term(message.term)?;
    let prev = in_id(message.prev_term, message.prev_index)?;
    let commit = in_index(message.commit)?;
    let List(bodies) = message.entries;
    // The sum cannot overflow: both are far below 2^64.
    in_index(prev.index.0 + bodies.len() as u64)?;
    let mut entries = Vec::with_capacity(bodies.len());
    let mut before = prev;
    for entry in bodies {
        let index = before.index.next();
        let id = LogId::new(in_term(entry.term)?, index);
        if id.term < before.term || id.term > term {
            return Err(DecodeError::EntryTerm {
                term: id.term,
                index,
                at_least: before.term,
                at_most: term,
            });
        }
        let kind = EntryKind::from_number(entry.kind).ok_or(DecodeError::EntryKind {
            number: entry.kind,
            index,
        })?;
        entries.push(Entry {
            id,
            kind,
            data: body.slice_ref(entry.data),
        });
        before = id;
    }
    let message = AppendEntries {
        term,
        prev,
        entries: entries.into(),
        commit,
    };
    Ok(OpenMessage::AppendEntries(message).into())
}

fn forward(body: &Bytes) -> Result<Frame, DecodeError> {
    let List(items): List<ForwardedBody<'_>> = decode_body(FrameKind::Forward, body)?;
    let items = items.into_iter().map(|item| Forwarded {
        request: item.request,
        data: body.slice_ref(item.data),
    });
    Ok(Frame::Forward(items.collect()))
}

/// A payload that is its receiver's business, and whose it is.
fn opaque(kind: FrameKind, body: &Bytes, max: usize) -> Result<(u64, Bytes), DecodeError> {
    let ForwardedBody { request, data } = decode_body(kind, body)?;
    let len = data.len();
    if len > max {
        return Err(DecodeError::Payload { kind, len, max });
    }
    Ok((request, body.slice_ref(data)))
}

fn answers(body: &Bytes) -> Result<Frame, DecodeError> {
    let List(items): List<AnswerBody<'_>> = decode_body(FrameKind::Answers, body)?;
    let mut answers = Vec::with_capacity(items.len());
    for item in items {
        let outcome = match item.outcome {
            OutcomeBody::Committed {
                index,
                term,
                response,
            } => ForwardOutcome::Committed {
                index: in_index(index)?,
                term: in_term(term)?,
                response: body.slice_ref(response),
            },
            OutcomeBody::NotLeader { leader } => ForwardOutcome::NotLeader {
                leader: leader.map(NodeId),
            },
            OutcomeBody::Busy => ForwardOutcome::Busy,
            OutcomeBody::TooLarge { max } => ForwardOutcome::TooLarge { max },
            OutcomeBody::Superseded => ForwardOutcome::Superseded,
            OutcomeBody::Unknown => ForwardOutcome::Unknown,
            OutcomeBody::Refused {
                index,
                term,
                reason,
            } => {
                is_reason(reason).map_err(|len| DecodeError::Reason { len })?;
                ForwardOutcome::Refused {
                    index: in_index(index)?,
                    term: in_term(term)?,
                    reason: body.slice_ref(reason),
                }
            }
            OutcomeBody::NotApplied(why) => {
                if let NotApplied::AnswerForgotten { index, term }
                | NotApplied::Cancelled { index, term } = why
                {
                    in_id(term.0, index.0)?;
                }
                ForwardOutcome::NotApplied { why }
            }
        };
        answers.push(Answer {
            request: item.request,
            outcome,
        });
    }
    Ok(Frame::Answers(answers))
}

/// Whether `reason` can be the reason of a refused command; its length if not.
pub(crate) fn is_reason(reason: &[u8]) -> Result<(), usize> {
    if reason.len() > REASON_LEN_MAX || std::str::from_utf8(reason).is_err() {
        return Err(reason.len());
    }
    Ok(())
}

fn vote(kind: FrameKind, body: &[u8]) -> Result<(Term, bool), DecodeError> {
    let VoteBody { term, granted } = decode_body(kind, body)?;
    Ok((in_term(term)?, granted))
}

pub(crate) fn in_term(number: u64) -> Result<Term, DecodeError> {
    in_range("term", number).map(Term)
}

pub(crate) fn in_index(number: u64) -> Result<LogIndex, DecodeError> {
    in_range("index", number).map(LogIndex)
}

fn in_round(number: u64) -> Result<Round, DecodeError> {
    in_range("round", number).map(Round)
}

pub(crate) fn in_id(term: u64, index: u64) -> Result<LogId, DecodeError> {
    Ok(LogId::new(in_term(term)?, in_index(index)?))
}

fn in_range(what: &'static str, number: u64) -> Result<u64, DecodeError> {
    if number > NUMBER_MAX {
        return Err(DecodeError::Number { what, number });
    }
    Ok(number)
}
