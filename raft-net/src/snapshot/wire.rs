//! The frames of a snapshot connection.
//!
//! | kind | body |
//! |---|---|
//! | `SnapshotOffer` | term, last term, last index, configuration (as in the log), id, bytes, bytes of a chunk |
//! | `SnapshotWanted` | the number of the first chunk that is wanted |
//! | `SnapshotChunk` | its number, its bytes |
//! | `SnapshotDone` | 0 if it arrived, else the number of [`WhyNotTaken`]; a text |
//!
//! Invariants: as in the crate's `wire.rs`; a chunk is a slice of the frame that it came in, never a copy.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{InstallSnapshot, SnapshotMeta};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::{NotTaken, SnapshotOffer, WhyNotTaken};
use crate::decode::{RawFrame, decode_body, in_id, in_term};
use crate::header::FrameKind;
use crate::limits::SNAPSHOT_CHUNK_LEN_MAX;
use crate::{DecodeError, EncodeError, EncodedFrame, FrameEncoder};

/// The number of a `SnapshotDone` that says that all is well.
const ARRIVED: u8 = 0;

#[derive(Serialize, Deserialize)]
struct OfferBody<'a> {
    term: u64,
    last_term: u64,
    last_index: u64,
    #[serde(borrow, with = "serde_bytes")]
    configuration: &'a [u8],
    id: ByteArray<16>,
    bytes: u64,
    chunk_bytes: u32,
}

#[derive(Serialize, Deserialize)]
struct WantedBody {
    from: u64,
}

#[derive(Serialize, Deserialize)]
struct ChunkBody<'a> {
    number: u64,
    #[serde(borrow, with = "serde_bytes")]
    data: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct DoneBody<'a> {
    number: u8,
    #[serde(borrow)]
    text: &'a str,
}

/// One frame of a snapshot connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotFrame {
    Offer(SnapshotOffer),
    Wanted { from: u64 },
    Chunk { number: u64, data: Bytes },
    Done(Result<(), NotTaken>),
}

impl SnapshotFrame {
    pub(crate) fn encode(&self, encoder: &mut FrameEncoder) -> Result<EncodedFrame, EncodeError> {
        match self {
            Self::Offer(offer) => {
                let unsound = |why: &str| EncodeError::Offer {
                    why: why.to_owned(),
                };
                if !offer.message.is_sound() {
                    return Err(unsound("no working leader sends this message"));
                }
                if !(1..=SNAPSHOT_CHUNK_LEN_MAX).contains(&(offer.chunk_bytes as usize)) {
                    return Err(unsound("its chunks are too long, or empty"));
                }
                let InstallSnapshot { term, snapshot } = &offer.message;
                let configuration = snapshot.configuration.encode();
                let body = OfferBody {
                    term: term.0,
                    last_term: snapshot.last.term.0,
                    last_index: snapshot.last.index.0,
                    configuration: &configuration,
                    id: ByteArray::new(offer.id.to_be_bytes()),
                    bytes: offer.bytes,
                    chunk_bytes: offer.chunk_bytes,
                };
                encoder.body(FrameKind::SnapshotOffer, &body, 2, configuration.len())
            }
            Self::Wanted { from } => {
                encoder.body(FrameKind::SnapshotWanted, &WantedBody { from: *from }, 1, 0)
            }
            Self::Chunk { number, data } => {
                let number = *number;
                let body = ChunkBody { number, data };
                encoder.body(FrameKind::SnapshotChunk, &body, 1, data.len())
            }
            Self::Done(result) => {
                let (number, text) = match result {
                    Ok(()) => (ARRIVED, ""),
                    Err(NotTaken { why, text }) => (why.number(), text.as_str()),
                };
                let body = DoneBody { number, text };
                encoder.body(FrameKind::SnapshotDone, &body, 1, text.len())
            }
        }
    }

    /// Reads a frame; what it means is not judged yet.
    pub(crate) fn decode(frame: &RawFrame) -> Result<Self, DecodeError> {
        let kind = frame.kind;
        Ok(match kind {
            FrameKind::SnapshotOffer => {
                let body: OfferBody<'_> = decode_body(kind, &frame.body)?;
                let snapshot = SnapshotMeta {
                    last: in_id(body.last_term, body.last_index)?,
                    configuration: Arc::new(Configuration::decode(body.configuration)?),
                };
                Self::Offer(SnapshotOffer {
                    message: InstallSnapshot {
                        term: in_term(body.term)?,
                        snapshot,
                    },
                    id: u128::from_be_bytes(body.id.into_array()),
                    bytes: body.bytes,
                    chunk_bytes: body.chunk_bytes,
                })
            }
            FrameKind::SnapshotWanted => {
                let WantedBody { from } = decode_body(kind, &frame.body)?;
                Self::Wanted { from }
            }
            FrameKind::SnapshotChunk => {
                let ChunkBody { number, data } = decode_body(kind, &frame.body)?;
                let data = frame.body.slice_ref(data);
                Self::Chunk { number, data }
            }
            FrameKind::SnapshotDone => {
                let DoneBody { number, text } = decode_body(kind, &frame.body)?;
                Self::Done(match number {
                    ARRIVED => Ok(()),
                    number => Err(NotTaken::new(WhyNotTaken::from_number(number), text)),
                })
            }
            _ => return Err(DecodeError::OutOfPlace { kind }),
        })
    }
}
