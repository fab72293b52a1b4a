//! The frames that a batch costs, from a leader's message to what its receivers hand on, without a socket between.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use raft_core::{AppendEntries, LogId, LogIndex, OpenMessage, Term};
use raft_net::{
    Answer, EncodedFrame, ForwardOutcome, Forwarded, Frame, FrameDecoder, FrameEncoder, Limits,
};

use crate::Entries;

/// See the [module](self).
pub struct Codec {
    encoder: FrameEncoder,
    decoders: [FrameDecoder; 2],
    entries: Entries,
    next: LogIndex,
}

impl Codec {
    /// A leader's encoder, and two followers' decoders.
    #[must_use]
    pub fn new() -> Self {
        let limits = Limits::default();
        Self {
            encoder: FrameEncoder::new(&limits),
            decoders: [FrameDecoder::new(&limits), FrameDecoder::new(&limits)],
            entries: Entries::new(),
            next: LogIndex(1),
        }
    }

    /// So many AppendEntries of `size` entries, at most 1,024, each encoded for two followers and decoded by both.
    ///
    /// # Errors
    /// A frame was not taken.
    pub fn append_entries(&mut self, batches: usize, size: usize) -> Result<()> {
        for _ in 0..batches {
            let frame = self.batch(size);
            for to in 0..self.decoders.len() {
                let encoded = self.encoder.encode(&frame)?;
                self.decode(to, &encoded)?;
            }
        }
        Ok(())
    }

    /// The same without the decoding.
    ///
    /// # Errors
    /// A frame was not taken.
    pub fn encode(&mut self, batches: usize, size: usize) -> Result<()> {
        for _ in 0..batches {
            let frame = self.batch(size);
            for _ in &self.decoders {
                self.encoder.encode(&frame)?;
            }
        }
        Ok(())
    }

    /// So many batches of `size` proposals that a follower forwards, and of their outcomes: both frames encoded and
    /// decoded.
    ///
    /// # Errors
    /// A frame was not taken.
    pub fn forwarded(&mut self, batches: usize, size: usize) -> Result<()> {
        for _ in 0..batches {
            let proposals = self.entries.make(self.next, size).into_iter();
            let forwarded = proposals.map(|entry| Forwarded {
                request: entry.id.index.0,
                data: entry.data,
            });
            let frame = Frame::Forward(forwarded.collect());
            self.next.0 += size as u64;
            let encoded = self.encoder.encode(&frame)?;
            let Frame::Forward(proposals) = self.decode(0, &encoded)? else {
                anyhow::bail!("another frame came")
            };
            let answers = proposals.iter().map(|proposal| Answer {
                request: proposal.request,
                outcome: ForwardOutcome::Committed {
                    index: LogIndex(proposal.request),
                    term: Term(1),
                    response: bytes::Bytes::new(),
                },
            });
            let encoded = self.encoder.encode(&Frame::Answers(answers.collect()))?;
            self.decode(1, &encoded)?;
        }
        Ok(())
    }

    /// The next AppendEntries.
    fn batch(&mut self, size: usize) -> Frame {
        let entries = self.entries.make(self.next, size);
        let prev = LogId::new(Term(1), self.next.prev());
        self.next.0 += size as u64;
        let message = AppendEntries {
            term: Term(1),
            prev,
            entries: Arc::from(entries),
            commit: prev.index,
        };
        Frame::Raft(OpenMessage::AppendEntries(message).into())
    }

    fn decode(&mut self, by: usize, frame: &EncodedFrame) -> Result<Frame> {
        let decoder = &mut self.decoders[by];
        decoder.feed(frame.as_bytes());
        decoder.next_frame()?.context("a whole frame was fed")
    }
}

impl Default for Codec {
    fn default() -> Self {
        Self::new()
    }
}
