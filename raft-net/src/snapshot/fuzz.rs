//! What `make fuzz` does to a receiver of snapshots; see [`crate::fuzz`].

use std::sync::Arc;

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{InstallSnapshot, LogId, LogIndex, NodeId, SnapshotMeta, Term};

use super::kept::{Begun, Shelf};
use super::wire::SnapshotFrame;
use super::{ChunkSink, SnapshotOffer};
use crate::fuzz::{Choices, framed};
use crate::limits::SNAPSHOT_FRAME_LEN_MAX;
use crate::{FrameDecoder, FrameEncoder, Limits};

/// Snapshots that two nodes send, over connections that break off: what a sink is handed is what was offered, in
/// order and each once; nothing else counts as whole; no more is kept than the limits say.
pub fn snapshot_chunk(data: &[u8]) {
    let mut choices = Choices(data);
    let mut receiver = Receiver::default();
    while let Some(what) = choices.byte() {
        if receiver.one(what, &mut choices).is_none() {
            return;
        }
    }
}

/// A file in memory, and how much of it there is.
struct Sink {
    offer: SnapshotOffer,
    chunks: u64,
    bytes: u64,
    _alive: Arc<()>,
}

impl ChunkSink for Sink {
    fn write(&mut self, chunk: &Bytes) -> Result<(), String> {
        let len = chunk.len() as u64;
        self.chunks += 1;
        self.bytes += len;
        assert!(self.bytes <= self.offer.bytes, "more than was offered");
        let last = self.bytes == self.offer.bytes;
        assert!(last || len == u64::from(self.offer.chunk_bytes));
        match chunk.first() {
            Some(0xee) => Err("the disk is full".to_owned()),
            _ => Ok(()),
        }
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        assert_eq!(self.bytes, self.offer.bytes, "not whole");
        assert_eq!(self.chunks, self.offer.chunks());
        Ok(())
    }
}

struct Receiver {
    limits: Limits,
    shelf: Shelf,
    from: NodeId,
    decoder: FrameDecoder,
    /// What the connection brings, once there is an offer.
    coming: Option<(SnapshotOffer, Begun)>,
    sinks: Arc<()>,
}

impl Default for Receiver {
    fn default() -> Self {
        let limits = Limits {
            snapshot_bytes_max: 1 << 20,
            ..Limits::default()
        };
        Self {
            shelf: Shelf::new(&limits),
            from: NodeId(2),
            decoder: decoder(&limits),
            coming: None,
            sinks: Arc::new(()),
            limits,
        }
    }
}

impl Receiver {
    /// One thing that happens; none at the end of the choices.
    fn one(&mut self, what: u8, choices: &mut Choices<'_>) -> Option<()> {
        match what {
            0..40 => self.connect(NodeId(2 + u64::from(what % 3))),
            40..80 => {
                let kind = choices.kind()?;
                self.comes(&framed(kind, choices.bytes()?));
            }
            80..120 => {
                let offer = offer(choices)?;
                self.says(&SnapshotFrame::Offer(offer));
            }
            120..250 => {
                let (next, len) = match &self.coming {
                    Some((offer, begun)) => (begun.next, offer.chunk_len(begun.next)),
                    None => (0, 0),
                };
                let (number, len) = match what {
                    120..230 => (next, len),
                    230..240 => (choices.number()?, len),
                    _ => (next, choices.number()?),
                };
                let len = usize::try_from(len).map_or(0, |len| len.min(1 << 10));
                let data = Bytes::from(vec![what; len]);
                self.says(&SnapshotFrame::Chunk { number, data });
            }
            250..253 => self.comes(choices.bytes()?),
            253.. => {
                let data = Bytes::from_static(&[0xee]);
                self.says(&SnapshotFrame::Chunk { number: 0, data });
            }
        }
        let kept = Arc::strong_count(&self.sinks) - 1 - usize::from(self.coming.is_some());
        assert!(kept <= self.limits.snapshots_kept_max, "{kept} are kept");
        Some(())
    }

    /// The connection breaks off, and there is a new one.
    fn connect(&mut self, from: NodeId) {
        if let Some((offer, begun)) = self.coming.take() {
            self.shelf.keep(self.from, offer, begun);
        }
        self.decoder = decoder(&self.limits);
        self.from = from;
    }

    fn says(&mut self, frame: &SnapshotFrame) {
        if let Ok(frame) = frame.encode(&mut FrameEncoder::for_snapshots()) {
            self.comes(frame.as_bytes());
        }
    }

    fn comes(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
        let read = || -> Option<()> {
            while let Some(raw) = self.decoder.next_raw().ok()? {
                let frame = SnapshotFrame::decode(&raw).ok()?;
                self.takes(frame)?;
            }
            Some(())
        };
        if { read }().is_none() {
            // The receiver has said why, and reads no more of it.
            self.coming = None;
            self.connect(self.from);
        }
    }

    /// None if it is not taken.
    fn takes(&mut self, frame: SnapshotFrame) -> Option<()> {
        match &mut self.coming {
            None => {
                let SnapshotFrame::Offer(offer) = frame else {
                    return None;
                };
                offer.judge(self.limits.snapshot_bytes_max).ok()?;
                let begun = self.shelf.take(self.from, &offer);
                let begun = begun.unwrap_or_else(|| Begun {
                    sink: Box::new(Sink {
                        offer: offer.clone(),
                        chunks: 0,
                        bytes: 0,
                        _alive: Arc::clone(&self.sinks),
                    }),
                    next: 0,
                });
                self.coming = Some((offer, begun));
            }
            Some((offer, begun)) => {
                let before = begun.next;
                begun.take(offer, frame).ok()?;
                assert_eq!(begun.next, before + 1);
            }
        }
        let whole = |(offer, begun): &mut (SnapshotOffer, Begun)| begun.next >= offer.chunks();
        if let Some((_, begun)) = self.coming.take_if(whole) {
            begun.sink.finish().ok()?;
        }
        Some(())
    }
}

/// The decoder of a connection whose handshake is over.
fn decoder(limits: &Limits) -> FrameDecoder {
    let mut decoder = FrameDecoder::for_handshake(limits);
    decoder.establish(SNAPSHOT_FRAME_LEN_MAX);
    decoder
}

/// An offer that may well be sound.
fn offer(choices: &mut Choices<'_>) -> Option<SnapshotOffer> {
    let term = choices.number()? & (u64::MAX >> 1);
    let last = LogId::new(
        Term(choices.number()?.min(term)),
        LogIndex(choices.number()? >> 1),
    );
    let voters = u64::from(choices.byte()? % 4);
    let configuration = Arc::new(Configuration::of((1..=voters).map(NodeId)));
    Some(SnapshotOffer {
        message: InstallSnapshot {
            term: Term(term),
            snapshot: SnapshotMeta {
                last,
                configuration,
            },
        },
        id: u128::from(choices.byte()? % 4),
        bytes: choices.number()?.wrapping_mul(u64::from(choices.byte()?)),
        chunk_bytes: u32::from(choices.byte()?),
    })
}
