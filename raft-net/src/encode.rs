//! Frames to bytes.
//!
//! Invariants: a frame is encoded once, however many peers it goes to; what is encoded here decodes
//! at the other end (bounds are checked on this side too); encoding never changes a payload's bytes.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::membership::{ADDRESS_LEN_MAX, MEMBERS_MAX};
use raft_core::{
    AppendEntries, AppendOutcome, AppendResponse, DurableMessage, LogIndex, Message, OpenMessage,
};
use serde::Serialize;
use serde_bytes::ByteArray;

use crate::check::{Content, check, fits};
use crate::header::{FrameKind, HEADER_LEN, Header};
use crate::limits::{FRAME_OVERHEAD_LEN, ITEMS_MAX, Limits, SNAPSHOT_FRAME_LEN_MAX};
use crate::wire::{
    AcceptedBody, AnswerOut, AppendEntriesBody, CommitBody, DigestBody, ForwardedBody,
    HeartbeatBody, HeartbeatResponseBody, PreVoteBody, ReadIndexBody, ReadIndexResponseBody,
    RejectedBody, RequestVoteBody, Run, TimeoutNowBody, VoteBody,
};
use crate::{Frame, Outgoing, PeerSender, REASON_LEN_MAX, VISIT_ANSWER_LEN_MAX};

/// Up to this many bytes a frame is encoded into the reused buffer and copied out at its exact size.
const SCRATCH_LEN_MAX: usize = 8 << 10;

/// An encoded frame, header and body. Cloning shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedFrame(Bytes);

impl EncodedFrame {
    /// Its length in bytes, as it counts in the queues.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame has a header")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it goes on the urgent lane.
    pub(crate) fn is_urgent(&self) -> bool {
        Header::kind_of(&self.0).is_some_and(FrameKind::is_urgent)
    }

    /// What is left of it behind `written` bytes.
    pub(crate) fn behind(&self, written: usize) -> Self {
        Self(self.0.slice(written..))
    }

    /// Header and body.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Why a frame was not encoded. Nothing of it was sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The frame exceeds [`Limits::frame_len_max`].
    #[error("the frame is {len} bytes long, the limit is {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The frame holds more than [`ITEMS_MAX`](crate::ITEMS_MAX) entries, proposals or answers.
    #[error("the frame holds {items} items, the limit is {max}", max = ITEMS_MAX)]
    TooManyItems {
        /// How many.
        items: usize,
    },
    /// This node lists more members than an introduction may carry.
    #[error("the list of peers names {members} members, the limit is {max}", max = MEMBERS_MAX)]
    TooManyMembers {
        /// How many.
        members: usize,
    },
    /// This node's introduction, with the members that it lists, exceeds
    /// [`Limits::handshake_frame_len_max`].
    #[error(
        "the introduction, with the {members} members of the list of peers, is {len} bytes long, \
         the limit of a handshake is {max}"
    )]
    IntroductionTooLong {
        /// How many members it lists.
        members: usize,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// What this node says of where it is dialled is no address.
    #[error("the advertised address {address:?} is not host:port, of at most {max} bytes", max = ADDRESS_LEN_MAX)]
    Address {
        /// The address.
        address: String,
    },
    /// The entries of an AppendEntries do not follow each other, or their terms fall, or exceed the
    /// message's.
    #[error("the entry at {index} does not follow the one before it")]
    NotARun {
        /// The first such entry's position.
        index: LogIndex,
    },
    /// A term, an index or a round is 2^63 or more.
    #[error("number {number} is out of range")]
    Number {
        /// The number.
        number: u64,
    },
    /// The reason of a refused command is longer than [`REASON_LEN_MAX`](crate::REASON_LEN_MAX), or no
    /// text.
    #[error("a reason of {len} bytes is not UTF-8 text of at most {max}", max = REASON_LEN_MAX)]
    Reason {
        /// Its length.
        len: usize,
    },
    /// What a [`Frame::Manage`], a [`Frame::Managed`] or a [visit](crate::visit) carries is longer than it may be.
    #[error("a {kind:?} of {len} bytes, the limit is {max}")]
    Payload {
        /// The kind of the frame.
        kind: FrameKind,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A snapshot that no working leader could offer, or in chunks that are too long.
    #[error("the snapshot's offer is unsound: {why}")]
    Offer {
        /// What is wrong with it.
        why: String,
    },
    /// MessagePack failed, which memory that is full may bring about.
    #[error("the body cannot be encoded: {0}")]
    Body(#[from] rmp_serde::encode::Error),
}

/// Encodes frames into a buffer that it reuses.
#[derive(Debug)]
pub struct FrameEncoder {
    frame_len_max: usize,
    scratch: Vec<u8>,
    last: Option<(AppendEntries, EncodedFrame)>,
}

impl FrameEncoder {
    /// An encoder that keeps to `limits`.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            frame_len_max: limits.frame_len_max.min(u32::MAX as usize),
            scratch: Vec::new(),
            last: None,
        }
    }

    /// An encoder of visits, whose payloads have bounds of their own.
    pub(crate) fn for_visits() -> Self {
        Self {
            frame_len_max: VISIT_ANSWER_LEN_MAX + FRAME_OVERHEAD_LEN,
            scratch: Vec::new(),
            last: None,
        }
    }

    /// An encoder of a snapshot connection.
    pub(crate) fn for_snapshots() -> Self {
        Self {
            frame_len_max: SNAPSHOT_FRAME_LEN_MAX,
            scratch: Vec::new(),
            last: None,
        }
    }

    /// Encodes `frame`.
    ///
    /// An AppendEntries equal to the one encoded last, its entries being the same allocation, gives
    /// back the same bytes: a leader encodes once for all followers that are equally far.
    ///
    /// # Errors
    /// What the other end would refuse is refused here; see [`EncodeError`].
    pub fn encode(&mut self, frame: &Frame) -> Result<EncodedFrame, EncodeError> {
        if let Frame::Raft(Message::Open(OpenMessage::AppendEntries(message))) = frame
            && let Some((last, encoded)) = &self.last
            && Arc::ptr_eq(&last.entries, &message.entries)
            && (last.term, last.prev, last.commit) == (message.term, message.prev, message.commit)
        {
            return Ok(encoded.clone());
        }
        let content = check(frame, self.frame_len_max)?;
        match frame {
            Frame::Raft(message) => self.message(message, content),
            Frame::Forward(items) => {
                let body: Vec<_> = items
                    .iter()
                    .map(|item| ForwardedBody {
                        request: item.request,
                        data: &item.data,
                    })
                    .collect();
                self.write(content, &body)
            }
            Frame::Answers(items) => {
                let body: Vec<_> = items.iter().map(AnswerOut).collect();
                self.write(content, &body)
            }
            Frame::Digest {
                index,
                digest,
                announced,
            } => {
                let body = DigestBody {
                    index: index.0,
                    digest: ByteArray::new(digest.to_be_bytes()),
                    announced: *announced,
                };
                self.write(content, &body)
            }
            Frame::Manage { request, data } | Frame::Managed { request, data } => {
                let request = *request;
                self.write(content, &ForwardedBody { request, data })
            }
        }
    }

    /// As [`encode`](Self::encode), for one peer: to one in this process it goes as it is.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), wherever the peer is.
    pub fn encode_for(&mut self, to: &PeerSender, frame: Frame) -> Result<Outgoing, EncodeError> {
        if !to.is_within_process() {
            return Ok(self.encode(&frame)?.into());
        }
        let content = check(&frame, self.frame_len_max)?;
        Ok(Outgoing::within_process(frame, content, self.frame_len_max))
    }

    fn message(
        &mut self,
        message: &Message,
        content: Content,
    ) -> Result<EncodedFrame, EncodeError> {
        use DurableMessage as D;
        use OpenMessage as O;
        match message {
            Message::Open(O::AppendEntries(m)) => {
                let body = AppendEntriesBody {
                    term: m.term.0,
                    prev_term: m.prev.term.0,
                    prev_index: m.prev.index.0,
                    commit: m.commit.0,
                    entries: Run(&m.entries),
                };
                let encoded = self.write(content, &body)?;
                self.last = Some((m.clone(), encoded.clone()));
                Ok(encoded)
            }
            Message::Open(O::Heartbeat(m)) => {
                let body = HeartbeatBody {
                    term: m.term.0,
                    commit: m.commit.0,
                    round: m.round.0,
                };
                self.write(content, &body)
            }
            Message::Open(O::CommitAdvanced(m)) => {
                let body = CommitBody {
                    term: m.term.0,
                    commit: m.commit.0,
                };
                self.write(content, &body)
            }
            Message::Open(O::HeartbeatResponse(m)) => {
                let body = HeartbeatResponseBody {
                    term: m.term.0,
                    round: m.round.0,
                };
                self.write(content, &body)
            }
            Message::Open(O::PreVote(m)) => {
                let body = PreVoteBody {
                    term: m.term.0,
                    last_term: m.last.term.0,
                    last_index: m.last.index.0,
                    transfer: m.transfer,
                };
                self.write(content, &body)
            }
            Message::Open(O::PreVoteResponse(m)) => {
                let body = VoteBody {
                    term: m.term.0,
                    granted: m.granted,
                };
                self.write(content, &body)
            }
            Message::Open(O::TimeoutNow(m)) => {
                self.write(content, &TimeoutNowBody { term: m.term.0 })
            }
            Message::Open(O::ReadIndex(m)) => {
                let body = ReadIndexBody {
                    term: m.term.0,
                    start: m.batch.start,
                    number: m.batch.number,
                };
                self.write(content, &body)
            }
            Message::Open(O::ReadIndexResponse(m)) => {
                let body = ReadIndexResponseBody {
                    term: m.term.0,
                    start: m.batch.start,
                    number: m.batch.number,
                    index: m.index.map(|index| index.0),
                };
                self.write(content, &body)
            }
            Message::Durable(D::RequestVote(m)) => {
                let body = RequestVoteBody {
                    term: m.term.0,
                    last_term: m.last.term.0,
                    last_index: m.last.index.0,
                    transfer: m.transfer,
                };
                self.write(content, &body)
            }
            Message::Durable(D::VoteResponse(m)) => {
                let body = VoteBody {
                    term: m.term.0,
                    granted: m.granted,
                };
                self.write(content, &body)
            }
            Message::Durable(D::AppendResponse(AppendResponse { term, outcome })) => {
                match outcome {
                    AppendOutcome::Accepted { matched } => {
                        let body = AcceptedBody {
                            term: term.0,
                            matched: matched.0,
                        };
                        self.write(content, &body)
                    }
                    AppendOutcome::Rejected { prev, hint } => {
                        let body = RejectedBody {
                            term: term.0,
                            prev: prev.0,
                            hint_term: hint.term.0,
                            hint_index: hint.index.0,
                        };
                        self.write(content, &body)
                    }
                }
            }
        }
    }

    /// Encodes a body of `items` items and `payload` bytes of payload, and its header.
    pub(crate) fn body(
        &mut self,
        kind: FrameKind,
        body: &impl Serialize,
        items: usize,
        payload: usize,
    ) -> Result<EncodedFrame, EncodeError> {
        self.write(Content::new(kind, items, payload), body)
    }

    fn write(
        &mut self,
        content: Content,
        body: &impl Serialize,
    ) -> Result<EncodedFrame, EncodeError> {
        let len_max = content.len_max();
        let bytes = if len_max <= SCRATCH_LEN_MAX {
            write_frame(&mut self.scratch, content.kind, body)?;
            Bytes::copy_from_slice(&self.scratch)
        } else {
            let mut frame = Vec::with_capacity(len_max);
            write_frame(&mut frame, content.kind, body)?;
            Bytes::from(frame)
        };
        fits(bytes.len(), self.frame_len_max)?;
        Ok(EncodedFrame(bytes))
    }
}

fn write_frame(
    frame: &mut Vec<u8>,
    kind: FrameKind,
    body: &impl Serialize,
) -> Result<(), EncodeError> {
    frame.clear();
    frame.resize(HEADER_LEN, 0);
    rmp_serde::encode::write(frame, body)?;
    Header::write(frame, kind);
    Ok(())
}
