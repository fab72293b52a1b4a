//! Snapshots on a connection of their own (paper §7).
//!
//! ```text
//! sender (dials)                    receiver
//!    │ the handshake ───────────────── │
//!    │ SnapshotOffer ────────────────▶ │ judges it
//!    │ ◀───────────── SnapshotWanted   │ from chunk 0 on, or where an earlier transfer broke off
//!    │ SnapshotChunk, … ─────────────▶ │ each to the disk before the next one is read
//!    │ ◀──────────────── SnapshotDone  │ whole, durable and of use; or, at any time, why not
//! ```
//!
//! Invariants:
//! - Each transfer runs on a thread of its own, with its file, its checksums and its socket: nothing that
//!   a transfer does costs the thread of the node more than a message at its end.
//! - Neither side holds more than a few chunks of a transfer in memory; what more is on its way is in the
//!   system's buffers, which fill when the receiver's disk is slower, and hold up the sender.
//! - Chunks come in order, each of exactly the length that the offer says, and nothing behind the last;
//!   anything else ends the transfer by name, and what had come is dropped.
//! - Every wait ends: for the other side within [`Limits`](crate::Limits), for this side's disk when the
//!   disk answers.
//! - Its end is told exactly once on the sender's side. The receiver tells its node only of a file that is
//!   whole and durable, perhaps more than once and perhaps without the sender hearing of it.
//! - What broke off for the network's sake is kept by the receiver for a while, and goes on there if the same
//!   node offers the same file again.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod kept;
mod receive;
mod send;
mod thread;
mod throttle;
pub(crate) mod wire;

use std::fmt;

use actix::Message;
use bytes::Bytes;
use raft_core::{InstallSnapshot, NodeId};

use crate::limits::SNAPSHOT_CHUNK_LEN_MAX;

pub use receive::ReceptionStats;
pub(crate) use receive::{Incoming, Receiving};
pub use send::{SnapshotProgress, SnapshotSender, SnapshotSent, SnapshotTransfer, TransferError};

/// A snapshot that one node offers another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// What it stands for, from the leader that the sender is or was.
    pub message: InstallSnapshot,
    /// The id of the sender's file. Only of the same file a transfer is resumed.
    pub id: u128,
    /// The length of the file's content, in bytes.
    pub bytes: u64,
    /// The length of each chunk but the last one, in bytes: from 1 to
    /// [`SNAPSHOT_CHUNK_LEN_MAX`](crate::SNAPSHOT_CHUNK_LEN_MAX).
    pub chunk_bytes: u32,
}

impl SnapshotOffer {
    /// How many chunks it has.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(u64::from(self.chunk_bytes).max(1))
    }

    /// How long the chunk with this number must be.
    fn chunk_len(&self, number: u64) -> u64 {
        let chunk_bytes = u64::from(self.chunk_bytes);
        let before = number.saturating_mul(chunk_bytes);
        self.bytes.saturating_sub(before).min(chunk_bytes)
    }

    /// Whether a receiver that takes at most `bytes_max` bytes may begin to take it.
    fn judge(&self, bytes_max: u64) -> Result<(), NotTaken> {
        if !self.message.is_sound() {
            let text = "no working leader sends this message";
            return Err(NotTaken::new(WhyNotTaken::Unsound, text));
        }
        let (chunk_bytes, max) = (self.chunk_bytes, SNAPSHOT_CHUNK_LEN_MAX);
        if !(1..=max).contains(&(chunk_bytes as usize)) {
            let text = format_args!("chunks of {chunk_bytes} bytes, from 1 to {max} may be");
            return Err(NotTaken::new(WhyNotTaken::Unsound, text));
        }
        let bytes = self.bytes;
        if bytes > bytes_max {
            let text = format_args!("{bytes} bytes, the limit is {bytes_max}");
            return Err(NotTaken::new(WhyNotTaken::TooLarge, text));
        }
        Ok(())
    }

    /// Whether it is an offer of the same file, in the same chunks; the term may be another one.
    fn continues(&self, earlier: &Self) -> bool {
        let what = |offer: &Self| (offer.id, offer.bytes, offer.chunk_bytes);
        what(self) == what(earlier) && self.message.snapshot == earlier.message.snapshot
    }
}

/// Where the chunks of a snapshot come from. It is called on the thread of its transfer, and may block.
pub trait ChunkSource: Send + 'static {
    /// The chunk with this number.
    ///
    /// # Errors
    /// Why it cannot be read; that ends the transfer.
    fn chunk(&mut self, number: u64) -> Result<Bytes, String>;
}

/// Where the chunks of a snapshot go. It is called on the thread of its transfer, and may block. Dropped
/// without a [`finish`](Self::finish), it is abandoned, and nothing may stay of it.
pub trait ChunkSink: Send + 'static {
    /// Takes the next chunk. They come in order, each once.
    ///
    /// # Errors
    /// Why it cannot be kept; that ends the transfer, and the sender is told.
    fn write(&mut self, chunk: &Bytes) -> Result<(), String>;

    /// All chunks have come: verifies the whole and makes it durable.
    ///
    /// # Errors
    /// Why it cannot be kept; then nothing of it may stay, and the sender is told.
    fn finish(self: Box<Self>) -> Result<(), String>;
}

/// What a node does with snapshots that are offered to it.
pub trait SnapshotReceiver: Send + Sync + 'static {
    /// Begins to take what `from` offers, which a working leader could offer. It is called on the thread
    /// of the transfer, and may block. A resumed transfer goes on with the sink that it had.
    ///
    /// # Errors
    /// Why it is not taken; the sender is told ([`WhyNotTaken::Failed`]).
    fn begin(&self, from: NodeId, offer: &SnapshotOffer) -> Result<Box<dyn ChunkSink>, String>;
}

/// A snapshot has come: its file is whole and durable here. The answer says whether the node made use of
/// it, and decides what the sender is told. If it did not, the file is the node's to remove.
#[derive(Clone, Debug, Message)]
#[rtype(result = "bool")]
pub struct SnapshotArrived {
    /// The node that sent it.
    pub from: NodeId,
    /// Which start of that node it was, as the handshake said.
    pub starts: u64,
    /// What came with the file.
    pub message: InstallSnapshot,
}

/// Why a receiver did not take a snapshot, as it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}: {text}")]
pub struct NotTaken {
    /// Why.
    pub why: WhyNotTaken,
    /// What there is to say about it, for people.
    pub text: String,
}

impl NotTaken {
    fn new(why: WhyNotTaken, text: impl fmt::Display) -> Self {
        let text = crate::refusal::printable(&text.to_string());
        Self { why, text }
    }
}

macro_rules! whys {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $name_text:literal, $text:literal;)*) => {
        /// Why a receiver did not take a snapshot. It travels by number, which never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
        #[non_exhaustive]
        pub enum WhyNotTaken {
            $($(#[doc = $doc])* #[error($text)] $name,)*
            /// A reason that this program is too old to know.
            #[error("not taken for reason {0}")]
            Other(u8),
        }

        impl WhyNotTaken {
            /// The number that it travels by.
            #[must_use]
            pub fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(number) => number,
                }
            }

            /// One word for the one that travels by `number`, for counters.
            #[must_use]
            pub fn name_of(number: u8) -> &'static str {
                match number {
                    $($number => $name_text,)*
                    _ => "other",
                }
            }

            fn from_number(number: u8) -> Self {
                match number {
                    $($number => Self::$name,)*
                    number => Self::Other(number),
                }
            }
        }
    };
}

whys! {
    /// It came, and was of no use: the node has as much, or follows another leader.
    Unwanted = 1, "unwanted", "the node had no use for it";
    /// The receiver takes as many snapshots as it may.
    Busy = 2, "busy", "too many snapshots come in";
    /// The receiver could not begin it, keep it or look at it, or did not want to begin.
    Failed = 3, "failed", "it could not be kept";
    /// No working leader offers that.
    Unsound = 4, "unsound", "the offer is unsound";
    /// It is larger than the receiver takes.
    TooLarge = 5, "too_large", "it is too large";
    /// Another chunk came than the next one.
    OutOfOrder = 6, "out_of_order", "a chunk is out of order";
    /// A chunk is not as long as the offer says.
    WrongLength = 7, "wrong_length", "a chunk has the wrong length";
    /// Something came behind the last chunk.
    Trailing = 8, "trailing", "bytes behind the last chunk";
    /// What came is no frame, or none of a snapshot.
    Malformed = 9, "malformed", "malformed";
    /// A chunk, or the offer, did not come in time.
    Slow = 10, "slow", "too slow";
}
