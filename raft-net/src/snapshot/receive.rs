//! The receiving side: what one connection brings goes to a sink, and then to the node.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::Recipient;
use futures_util::FutureExt;
use raft_core::NodeId;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::kept::{Begun, Shelf};
use super::wire::SnapshotFrame;
use super::{
    NotTaken, SnapshotArrived, SnapshotOffer, SnapshotReceiver, WhyNotTaken, kept, thread,
};
use crate::cut::Cut;
use crate::decode::{FrameDecoder, RawFrame};
use crate::header::FrameKind;
use crate::limits::{FRAME_OVERHEAD_LEN, SNAPSHOT_FRAME_LEN_MAX};
use crate::socket::{farewell, write_both};
use crate::stream::Stream;
use crate::{EncodeError, Ending, FrameEncoder, Limits, Refusal};

/// How much is read at once before chunks come.
const READ_LEN: usize = 4 << 10;
/// So much of what a sender goes on sending is read, so that it hears why its snapshot is not taken.
const LINGER_LEN_MAX: usize = 8 << 20;

/// What a listener has done with the snapshots that were offered to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceptionStats {
    /// Offers.
    pub offered: u64,
    /// Those that went on where an earlier transfer had broken off.
    pub resumed: u64,
    /// Chunks that came, whatever became of them.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Snapshots that came whole and that the node made use of.
    pub arrived: u64,
    /// Those that were not taken, by [`WhyNotTaken::number`].
    pub not_taken: BTreeMap<u8, u64>,
    /// Transfers whose connection ended in the middle.
    pub broken: u64,
}

/// What all receptions of a node share.
pub(crate) struct Receiving {
    receiver: Arc<dyn SnapshotReceiver>,
    arrived: Recipient<SnapshotArrived>,
    limits: Limits,
    places: Semaphore,
    shelf: Shelf,
    stats: Mutex<ReceptionStats>,
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// A connection whose handshake said that it is for a snapshot.
pub(crate) struct Incoming {
    pub(crate) from: NodeId,
    pub(crate) starts: u64,
    pub(crate) stream: Stream,
    pub(crate) decoder: FrameDecoder,
    pub(crate) cut: Cut,
}

impl Receiving {
    pub(crate) fn new(
        receiver: Arc<dyn SnapshotReceiver>,
        arrived: Recipient<SnapshotArrived>,
        limits: &Limits,
    ) -> Self {
        Self {
            receiver,
            arrived,
            limits: limits.clone(),
            places: Semaphore::new(limits.snapshots_received_max),
            shelf: Shelf::new(limits),
            stats: Mutex::default(),
        }
    }

    /// Serves one connection, on a thread of its own, until that has ended.
    pub(crate) async fn serve(self: &Arc<Self>, incoming: Incoming) -> Ending {
        let Incoming {
            from,
            starts,
            stream,
            mut decoder,
            cut,
        } = incoming;
        decoder.establish(SNAPSHOT_FRAME_LEN_MAX);
        let stream = match stream.detach() {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        let shared = Arc::clone(self);
        let work = move || async move {
            let reception = Reception {
                shared: &shared,
                from,
                starts,
                stream: stream.attach()?,
                decoder,
                encoder: FrameEncoder::for_snapshots(),
                cut: &cut,
            };
            Ok(reception.run().await)
        };
        let (ended, wait) = oneshot::channel();
        let done = move |result: Option<Result<Result<Ending, Ending>, _>>| {
            let ending = match result {
                Some(Ok(Ok(ending) | Err(ending))) => ending,
                Some(Err(error)) => Ending::Io(error),
                None => Ending::Panicked,
            };
            // Who waited may be gone, at a stop that could not wait for this one.
            let _ = ended.send(ending);
        };
        if let Err(error) = thread::run(format!("snap-in-{from}"), work, done) {
            return Ending::Io(error);
        }
        wait.await.unwrap_or(Ending::Panicked)
    }

    /// Drops what has been kept long enough, for as long as this is waited for.
    pub(crate) async fn expire(&self) -> Infallible {
        self.shelf.expire().await
    }

    /// Drops what is kept; nothing is kept any more.
    pub(crate) async fn close(&self) {
        self.shelf.close().await;
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, ReceptionStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a snapshot did not come.
enum Failed {
    NotTaken(NotTaken),
    Ended(Ending),
}

impl Failed {
    fn because(why: WhyNotTaken, text: impl fmt::Display) -> Self {
        Self::NotTaken(NotTaken::new(why, text))
    }

    /// Whether the sender did nothing wrong, and may come back.
    fn may_go_on(&self) -> bool {
        match self {
            Self::NotTaken(not) => not.why == WhyNotTaken::Slow,
            Self::Ended(ending) => matches!(
                ending,
                Ending::Closed
                    | Ending::Reset
                    | Ending::Io(_)
                    | Ending::Stalled(_)
                    | Ending::Replaced
            ),
        }
    }
}

impl From<NotTaken> for Failed {
    fn from(not_taken: NotTaken) -> Self {
        Self::NotTaken(not_taken)
    }
}

impl<E: Into<Ending>> From<E> for Failed {
    fn from(error: E) -> Self {
        match error.into() {
            Ending::Malformed(error) => Self::because(WhyNotTaken::Malformed, error),
            ending => Self::Ended(ending),
        }
    }
}

struct Reception<'a> {
    shared: &'a Receiving,
    from: NodeId,
    starts: u64,
    stream: Stream,
    decoder: FrameDecoder,
    encoder: FrameEncoder,
    cut: &'a Cut,
}

impl Reception<'_> {
    async fn run(mut self) -> Ending {
        let result = self.take().await;
        let not_taken = match result {
            Ok(()) => {
                self.shared.stats().arrived += 1;
                tracing::info!(peer = %self.from, "received a snapshot");
                return match self.say(&SnapshotFrame::Done(Ok(()))).await {
                    Ok(()) => Ending::Closed,
                    Err(ending) => ending,
                };
            }
            Err(Failed::Ended(Ending::Stopped)) => return Ending::Stopped,
            Err(Failed::Ended(ending)) => {
                self.shared.stats().broken += 1;
                tracing::warn!(peer = %self.from, %ending, "a snapshot broke off");
                return ending;
            }
            Err(Failed::NotTaken(not_taken)) => not_taken,
        };
        let number = not_taken.why.number();
        *self.shared.stats().not_taken.entry(number).or_default() += 1;
        tracing::warn!(peer = %self.from, %not_taken, "did not take a snapshot");
        let frame = SnapshotFrame::Done(Err(not_taken)).encode(&mut self.encoder);
        let farewell = async {
            farewell(&mut self.stream, frame, LINGER_LEN_MAX).await;
            Ok(())
        };
        self.cut
            .guard(farewell)
            .await
            .err()
            .unwrap_or(Ending::Closed)
    }

    async fn take(&mut self) -> Result<(), Failed> {
        let offer = self.offer().await?;
        let _place = self.shared.places.try_acquire().map_err(|_| {
            let max = self.shared.limits.snapshots_received_max;
            Failed::because(WhyNotTaken::Busy, format_args!("at most {max} at once"))
        })?;
        let mut begun = self.begin(&offer)?;
        tracing::info!(
            peer = %self.from, last = %offer.message.snapshot.last, bytes = offer.bytes,
            chunks = offer.chunks(), from = begun.next, "a snapshot comes in"
        );
        if let Err(failed) = self.chunks(&offer, &mut begun).await {
            if failed.may_go_on() {
                self.shared.shelf.keep(self.from, offer, begun);
            }
            return Err(failed);
        }
        begun
            .sink
            .finish()
            .map_err(|error| Failed::because(WhyNotTaken::Failed, error))?;
        self.tell(offer).await
    }

    async fn offer(&mut self) -> Result<SnapshotOffer, Failed> {
        let SnapshotFrame::Offer(offer) = self.next_frame(READ_LEN).await? else {
            return Err(Failed::because(
                WhyNotTaken::Malformed,
                "it does not begin with an offer",
            ));
        };
        self.shared.stats().offered += 1;
        offer.judge(self.shared.limits.snapshot_bytes_max)?;
        Ok(offer)
    }

    fn begin(&self, offer: &SnapshotOffer) -> Result<Begun, Failed> {
        let shared = self.shared;
        if let Some(begun) = shared.shelf.take(self.from, offer) {
            shared.stats().resumed += 1;
            return Ok(begun);
        }
        let begun = shared.receiver.begin(self.from, offer);
        let sink = begun.map_err(|error| Failed::because(WhyNotTaken::Failed, error))?;
        Ok(kept::Begun { sink, next: 0 })
    }

    /// Takes the chunks that are still to come.
    async fn chunks(&mut self, offer: &SnapshotOffer, begun: &mut Begun) -> Result<(), Failed> {
        let wanted = SnapshotFrame::Wanted { from: begun.next };
        self.say(&wanted).await?;
        let read_len = offer.chunk_bytes as usize + FRAME_OVERHEAD_LEN;
        while begun.next < offer.chunks() {
            let frame = self.next_frame(read_len).await?;
            let bytes = begun.take(offer, frame)?;
            let mut stats = self.shared.stats();
            stats.chunks += 1;
            stats.bytes += bytes;
        }
        // Whatever there is, there is now: nobody waits for more.
        let more = self.stream.read(&mut [0]).now_or_never();
        if !self.decoder.buffer_mut().is_empty() || matches!(more, Some(Ok(1..))) {
            return Err(Failed::because(
                WhyNotTaken::Trailing,
                "nothing may follow it",
            ));
        }
        Ok(())
    }

    /// Tells the node of the whole file, and waits for what it says.
    async fn tell(&self, offer: SnapshotOffer) -> Result<(), Failed> {
        let told = self.shared.arrived.send(SnapshotArrived {
            from: self.from,
            starts: self.starts,
            message: offer.message,
        });
        let limit = self.shared.limits.snapshot_finish_timeout;
        let answer = async { Ok(timeout(limit, told).await) };
        match self.cut.guard(answer).await? {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Failed::because(WhyNotTaken::Unwanted, "it has come")),
            Ok(Err(_)) => Err(Failed::Ended(Ending::ReceiverGone)),
            Err(_) => Err(Failed::because(
                WhyNotTaken::Failed,
                format_args!("the node did not look at it within {limit:?}"),
            )),
        }
    }

    async fn say(&mut self, frame: &SnapshotFrame) -> Result<(), Ending> {
        let encoded = frame.encode(&mut self.encoder).map_err(unsayable)?;
        let stall = self.shared.limits.stall_timeout;
        let write = write_both(&mut self.stream, encoded.as_bytes(), &[], stall);
        self.cut.guard(write).await.map(drop)
    }

    /// The next frame, within the time for a chunk. For much room is made at once, no more than a chunk
    /// needs: its sender is a member.
    async fn next_frame(&mut self, read_len: usize) -> Result<SnapshotFrame, Failed> {
        let limit = self.shared.limits.snapshot_chunk_timeout;
        let (stream, decoder) = (&mut self.stream, &mut self.decoder);
        let read = async { Ok(timeout(limit, read_frame(stream, decoder, read_len)).await) };
        let Ok(frame) = self.cut.guard(read).await? else {
            return Err(slow(limit));
        };
        let frame = frame?;
        if frame.kind == FrameKind::Refuse {
            return Err(Ending::Refused(Refusal::decode(&frame)?).into());
        }
        Ok(SnapshotFrame::decode(&frame)?)
    }
}

fn slow(limit: Duration) -> Failed {
    Failed::because(
        WhyNotTaken::Slow,
        format_args!("nothing whole in {limit:?}"),
    )
}

fn unsayable(error: EncodeError) -> Ending {
    Ending::Io(std::io::Error::other(error))
}

/// Waits for the next frame, and makes room for `read_len` bytes when there is none left.
async fn read_frame(
    stream: &mut Stream,
    decoder: &mut FrameDecoder,
    read_len: usize,
) -> Result<RawFrame, Ending> {
    loop {
        if let Some(frame) = decoder.next_raw()? {
            return Ok(frame);
        }
        let buffer = decoder.buffer_mut();
        if buffer.len() == buffer.capacity() {
            buffer.reserve(read_len);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(Ending::Closed);
        }
    }
}
