//! What `make fuzz` runs: each function takes any bytes and panics when something is wrong with what became of
//! them.
//!
//! They stand here because what they drive is private. The tests run them over the committed corpus, so that an
//! input which once failed stays a test of `cargo test`, and needs no fuzzer.

mod frames;
mod handshake;

pub use crate::snapshot::fuzz::snapshot_chunk;
pub use frames::{frame_pieces, message};
pub use handshake::handshake;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::FrameKind;
use crate::decode::RawFrame;
use crate::header::{CRC_AT, HEADER_LEN, Header, checksum};

/// Bytes from which choices are read, until none are left.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number that is small most of the time, and near the end of what 64 bits hold now and then.
    pub(crate) fn number(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            255 => u64::MAX,
            254 => 1 << 63,
            253 => (1 << 63) - 1,
            small => u64::from(small),
        })
    }

    /// A kind of frame, by its number.
    pub(crate) fn kind(&mut self) -> Option<FrameKind> {
        let number = self.byte()?;
        let mut kinds = FrameKind::ALL.iter().copied();
        kinds.find(|kind| *kind as u8 == number)
    }

    /// Up to as many bytes as the next two say.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        Some(bytes)
    }
}

/// Gives each whole frame of `stream` the checksum that it should have: no fuzzer finds it by itself.
fn heal(stream: &mut [u8]) {
    let mut rest = stream;
    while let Some(len) = rest.get(16..CRC_AT) {
        let body_len = u32::from_be_bytes(len.try_into().unwrap_or_default()) as usize;
        let Some((frame, behind)) = rest.split_at_mut_checked(HEADER_LEN + body_len) else {
            return;
        };
        let crc = checksum(frame);
        frame[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_be_bytes());
        rest = behind;
    }
}

/// A frame of this kind as it travels.
pub(crate) fn framed(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_LEN];
    frame.extend_from_slice(body);
    Header::write(&mut frame, kind);
    frame
}

/// A frame as the decoder hands it on.
fn raw(kind: FrameKind, body: &[u8]) -> RawFrame {
    RawFrame {
        kind,
        body: Bytes::copy_from_slice(body),
    }
}

/// A connection that brings `bytes` in pieces of these lengths, over and over, and then ends.
struct Pieces<'a> {
    bytes: &'a [u8],
    lengths: &'a [u8],
    next: usize,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], lengths: &'a [u8]) -> Self {
        Self {
            bytes,
            lengths,
            next: 0,
        }
    }

    /// The next piece, of at most `max` bytes; empty at the end.
    fn next(&mut self, max: usize) -> &'a [u8] {
        let length = self.lengths.get(self.next % self.lengths.len().max(1));
        self.next += 1;
        let length = length.map_or(1, |length| usize::from(*length).max(1));
        let (piece, rest) = self.bytes.split_at(length.min(max).min(self.bytes.len()));
        self.bytes = rest;
        piece
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let piece = self.next(buffer.remaining());
        buffer.put_slice(piece);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
