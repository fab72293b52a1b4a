//! The handshake: each side says who it is, and either agrees or says why not.
//!
//! ```text
//! dialler                          acceptor
//!    │ Hello, or another of its kind ─▶ │ judges it (local.rs)
//!    │ ◀───────────── Welcome or Refuse │ draws a number
//!    │ Confirm ───────────────────────▶ │ judges it again, and admits it
//!    │ judges it by the same rules      │
//!    │ frames, or Refuse ─────────────▶ │
//! ```
//!
//! The acceptor's `Welcome` holds a number that it has just drawn, and the dialler says it back at once. So a
//! session that somebody recorded is of no use: played again it confirms another number, and nothing that the peer
//! has, least of all its connection, was touched by then.
//!
//! The first frame says what the connection is for, by its kind (Hello, UrgentHello, SnapshotHello): a
//! program that does not know what snapshots are refuses it, where one that ignored an unknown field would
//! take it for the peer's main connection and close that.
//!
//! Invariants: nothing else is read or written before it is over; it holds at most
//! [`Limits::handshake_frame_len_max`] of a stranger's bytes; its callers give it a deadline.

use bytes::BufMut;
use raft_core::membership::{MEMBERS_MAX, is_address};
use raft_core::{ClusterId, Incarnation, NodeId};
use serde_bytes::ByteArray;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::decode::{FrameDecoder, RawFrame, decode_body, in_id, in_term};
use crate::header::FrameKind;
use crate::wire::{IntroductionBody, List, PingBody, RefuseBody};
use crate::{
    DecodeError, EncodeError, EncodedFrame, Ending, FrameEncoder, Held, Limits, PeerHello, Refusal,
};

/// How much is read at once.
const READ_LEN: usize = 512;

/// What a side says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) version_min: u8,
    pub(crate) version_max: u8,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) starts: u64,
    /// Random, drawn by the process at its start.
    pub(crate) run: u64,
    /// The incarnation that it knows the other side by.
    pub(crate) known: Option<Incarnation>,
    /// What its disk held when its process started.
    pub(crate) held: Held,
    /// The members that it lists, itself included, in order.
    pub(crate) members: Vec<NodeId>,
    /// Where it says that it is dialled; may be empty.
    pub(crate) address: String,
    /// In a `Welcome`: what the other side must say back. 0 says nothing, and travels as nothing.
    pub(crate) nonce: u64,
}

impl Introduction {
    pub(crate) fn hello(&self) -> PeerHello {
        PeerHello {
            incarnation: self.incarnation,
            starts: self.starts,
            cluster: self.cluster,
            held: self.held,
            address: self.address.clone(),
        }
    }

    /// Encodes it as one of the hellos or a `Welcome`.
    pub(crate) fn encode(
        &self,
        kind: FrameKind,
        limits: &Limits,
    ) -> Result<EncodedFrame, EncodeError> {
        let members = self.members.len();
        if members > MEMBERS_MAX {
            return Err(EncodeError::TooManyMembers { members });
        }
        if !is_address(&self.address) {
            let address = self.address.clone();
            return Err(EncodeError::Address { address });
        }
        let id = |number: u128| ByteArray::new(number.to_be_bytes());
        let nonce = self.nonce.to_be_bytes();
        let extra: &[u8] = if self.nonce == 0 { &[] } else { &nonce };
        let body = IntroductionBody {
            version_min: self.version_min,
            version_max: self.version_max,
            cluster: self.cluster.map(|cluster| id(cluster.0)),
            from: self.from.0,
            to: self.to.0,
            incarnation: id(self.incarnation.0),
            starts: self.starts,
            run: self.run,
            known: self.known.map(|known| id(known.0)),
            held_term: self.held.term.0,
            held_last_term: self.held.last.term.0,
            held_last_index: self.held.last.index.0,
            members: List(self.members.iter().map(|member| member.0).collect()),
            address: &self.address,
            extra,
        };
        let frame = FrameEncoder::new(limits).body(kind, &body, 1 + members, self.address.len())?;
        let (len, max) = (frame.len(), limits.handshake_frame_len_max);
        if len > max {
            return Err(EncodeError::IntroductionTooLong { members, len, max });
        }
        Ok(frame)
    }

    /// Decodes one of the hellos or a `Welcome`.
    pub(crate) fn decode(frame: &RawFrame) -> Result<Self, DecodeError> {
        let body: IntroductionBody<'_> = decode_body(frame.kind, &frame.body)?;
        if !is_address(body.address) {
            let len = body.address.len();
            return Err(DecodeError::Address { len });
        }
        let number = |id: ByteArray<16>| u128::from_be_bytes(id.into_array());
        Ok(Self {
            version_min: body.version_min,
            version_max: body.version_max,
            cluster: body.cluster.map(|cluster| ClusterId(number(cluster))),
            from: NodeId(body.from),
            to: NodeId(body.to),
            incarnation: Incarnation(number(body.incarnation)),
            starts: body.starts,
            run: body.run,
            known: body.known.map(|known| Incarnation(number(known))),
            held: Held {
                term: in_term(body.held_term)?,
                last: in_id(body.held_last_term, body.held_last_index)?,
            },
            members: body.members.0.into_iter().map(NodeId).collect(),
            address: body.address.to_owned(),
            // What a later version has behind it is not for this one.
            nonce: body
                .extra
                .first_chunk()
                .map_or(0, |nonce| u64::from_be_bytes(*nonce)),
        })
    }
}

impl Refusal {
    /// Encodes it as a `Refuse`.
    pub(crate) fn encode(&self, limits: &Limits) -> Result<EncodedFrame, EncodeError> {
        self.encode_as(&self.text(), limits)
    }

    /// Encodes it as a `Refuse` that says `text`, which is for people and not part of the format.
    pub(crate) fn encode_as(
        &self,
        text: &str,
        limits: &Limits,
    ) -> Result<EncodedFrame, EncodeError> {
        let details = self.details()?;
        let body = RefuseBody {
            number: self.number(),
            text,
            details: &details,
        };
        FrameEncoder::new(limits).body(FrameKind::Refuse, &body, 1, text.len() + details.len())
    }

    /// Decodes a `Refuse`.
    pub(crate) fn decode(frame: &RawFrame) -> Result<Self, DecodeError> {
        Self::from_body(&decode_body(frame.kind, &frame.body)?)
    }
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other side refused.
    Refused(Refusal),
    /// What came is not a handshake.
    Malformed(DecodeError),
    /// The connection ended.
    Ended(Ending),
}

impl<E: Into<Ending>> From<E> for Broken {
    fn from(error: E) -> Self {
        match error.into() {
            Ending::Malformed(error) => Self::Malformed(error),
            // In the middle of a handshake, that it is refused may show in TLS.
            Ending::Refused(refusal) => Self::Refused(refusal),
            ending => Self::Ended(ending),
        }
    }
}

/// Waits for the next frame of a handshake.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut FrameDecoder,
) -> Result<RawFrame, Ending> {
    loop {
        if let Some(frame) = decoder.next_raw()? {
            return Ok(frame);
        }
        decoder.buffer_mut().reserve(READ_LEN);
        let mut piece = decoder.buffer_mut().limit(READ_LEN);
        if stream.read_buf(&mut piece).await? == 0 {
            return Err(Ending::Closed);
        }
    }
}

/// Waits for the other side's introduction, which must be of one of `kinds`.
pub(crate) async fn read_introduction(
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut FrameDecoder,
    kinds: &[FrameKind],
) -> Result<(FrameKind, Introduction), Broken> {
    let frame = read_frame(stream, decoder).await?;
    Ok((frame.kind, introduction(&frame, kinds)?))
}

/// The introduction that `frame` is, if it is of one of `kinds`.
pub(crate) fn introduction(frame: &RawFrame, kinds: &[FrameKind]) -> Result<Introduction, Broken> {
    if kinds.contains(&frame.kind) {
        return Introduction::decode(frame).map_err(Broken::Malformed);
    }
    // Who dials has been refused nothing yet: what a stranger says of itself is no refusal of this node's.
    if frame.kind == FrameKind::Refuse && kinds.contains(&FrameKind::Welcome) {
        return Err(Refusal::decode(frame).map_or_else(Broken::Malformed, Broken::Refused));
    }
    Err(Broken::Malformed(DecodeError::OutOfPlace {
        kind: frame.kind,
    }))
}

/// Says back the number of a `Welcome`.
pub(crate) async fn confirm(
    stream: &mut (impl AsyncWrite + Unpin),
    number: u64,
    limits: &Limits,
) -> Result<(), Ending> {
    let frame = FrameEncoder::new(limits).body(FrameKind::Confirm, &PingBody { number }, 1, 0);
    write_frame(stream, frame).await
}

/// Waits until the other side has said back `number`.
pub(crate) async fn read_confirm(
    stream: &mut (impl AsyncRead + Unpin),
    decoder: &mut FrameDecoder,
    number: u64,
) -> Result<(), Broken> {
    let frame = read_frame(stream, decoder).await?;
    match frame.kind {
        FrameKind::Confirm => {
            let body: PingBody = decode_body(frame.kind, &frame.body).map_err(Broken::Malformed)?;
            if body.number == number {
                return Ok(());
            }
            Err(Broken::Refused(Refusal::Replayed))
        }
        // Who was recorded before there were numbers.
        kind => Err(Broken::Malformed(DecodeError::OutOfPlace { kind })),
    }
}

/// Writes an encoded frame of a handshake.
pub(crate) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: Result<EncodedFrame, EncodeError>,
) -> Result<(), Ending> {
    let frame = frame.map_err(|error| Ending::Io(std::io::Error::other(error)))?;
    stream.write_all(frame.as_bytes()).await?;
    Ok(stream.flush().await?)
}
