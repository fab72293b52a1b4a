//! The sending side: a source's chunks, one after the other, to a peer that wants them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Message, Recipient};
use raft_core::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::throttle::Throttle;
use super::wire::SnapshotFrame;
use super::{ChunkSource, NotTaken, SnapshotOffer, thread};
use crate::cut::Cut;
use crate::decode::FrameDecoder;
use crate::dial::{dial, greet};
use crate::handshake::{Broken, read_frame};
use crate::header::FrameKind;
use crate::local::{Admission, Purpose};
use crate::socket::write_both;
use crate::stream::Stream;
use crate::{
    DecodeError, DialError, EncodeError, EncodedFrame, Ending, FrameEncoder, Limits, Local, Refusal,
};

/// A transfer has ended. Told exactly once for each [`SnapshotSender::send`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SnapshotSent {
    /// The receiver.
    pub to: NodeId,
    /// Whether it arrived: then it is whole and durable there, and the receiver made use of it. After an
    /// error it may have arrived all the same.
    pub arrived: Result<(), TransferError>,
}

/// Why a snapshot did not arrive, as far as its sender knows.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The peer cannot be reached.
    #[error(transparent)]
    Unreachable(DialError),
    /// One side refused the other in the handshake.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The receiver did not take it.
    #[error("not taken: {0}")]
    NotTaken(NotTaken),
    /// The connection ended in the middle. The next transfer goes on where this one was.
    #[error("the transfer broke off: {0}")]
    Lost(Ending),
    /// The source failed.
    #[error("cannot read the snapshot: {0}")]
    Source(String),
    /// The offer cannot be made.
    #[error(transparent)]
    Offer(EncodeError),
    /// The system gives no thread for it.
    #[error("no thread for the transfer: {0}")]
    Thread(io::Error),
    /// It was stopped.
    #[error("stopped")]
    Stopped,
    /// The source panicked, or the transfer itself, which is a bug of this crate.
    #[error("the transfer panicked")]
    Panicked,
}

impl<E: Into<Ending>> From<E> for TransferError {
    fn from(error: E) -> Self {
        match error.into() {
            Ending::Stopped => Self::Stopped,
            ending => Self::Lost(ending),
        }
    }
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// How many chunks the snapshot has.
    pub chunks: u64,
    /// The first one that the receiver wanted; 0 until it has said so.
    pub from: u64,
    /// How many have been handed to the system since.
    pub sent: u64,
}

/// Sends a node's snapshots. Clones are the same one; when the last is dropped, all transfers go on.
#[derive(Clone, Debug)]
pub struct SnapshotSender {
    local: Local,
    limits: Limits,
    throttle: Arc<Throttle>,
    stop: CancellationToken,
    transfers: TaskTracker,
}

impl SnapshotSender {
    /// One for a whole node.
    #[must_use]
    pub fn new(local: Local, limits: &Limits) -> Self {
        Self {
            local,
            limits: limits.clone(),
            throttle: Arc::new(Throttle::new(limits.snapshot_bytes_per_s)),
            stop: CancellationToken::new(),
            transfers: TaskTracker::new(),
        }
    }

    /// Begins to send `peer`, at `address` (`host:port`), what `source` has. It returns at once, and all
    /// else happens on a thread of its own.
    ///
    /// `told` hears of the end, exactly once, whatever happens; the source is dropped by then. A transfer
    /// is not tried again; the next one of the same file goes on where the last one broke off. Two at once
    /// to the same peer end each other; the caller sees to it that there is one.
    pub fn send(
        &self,
        peer: NodeId,
        address: String,
        offer: SnapshotOffer,
        source: Box<dyn ChunkSource>,
        told: Recipient<SnapshotSent>,
    ) -> SnapshotTransfer {
        let stop = self.stop.child_token();
        let progress = Arc::new(Progress::default());
        progress.chunks.store(offer.chunks(), Ordering::Relaxed);
        let ended = Arc::new(Ended {
            to: peer,
            told,
            arrived: OnceLock::new(),
            _transfer: self.transfers.token(),
        });
        let transfer = SnapshotTransfer {
            stop: stop.clone(),
            progress: Arc::clone(&progress),
        };
        if stop.is_cancelled() {
            drop(source);
            ended.with(Err(TransferError::Stopped));
            return transfer;
        }
        let sending = Sending {
            peer,
            address,
            local: self.local.clone(),
            limits: self.limits.clone(),
            throttle: Arc::clone(&self.throttle),
            offer,
            cut: Cut::below(&stop),
            progress,
            encoder: FrameEncoder::for_snapshots(),
        };
        let span = tracing::info_span!("snapshot", node = %self.local.node(), %peer);
        let done = {
            let ended = Arc::clone(&ended);
            move |result| match result {
                Some(Ok(arrived)) => ended.with(arrived),
                Some(Err(error)) => ended.with(Err(TransferError::Thread(error))),
                None => ended.with(Err(TransferError::Panicked)),
            }
        };
        let begun = span.in_scope(|| {
            thread::run(
                format!("snap-out-{peer}"),
                move || sending.run(source),
                done,
            )
        });
        if let Err(error) = begun {
            ended.with(Err(TransferError::Thread(error)));
        }
        transfer
    }

    /// Ends all transfers, each of which is told as stopped unless it was over. A later
    /// [`send`](Self::send) ends at once.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until no transfer is left, and each has been told, after [`stop`](Self::stop). It waits for
    /// no peer, but for a source that is being read.
    pub async fn stopped(&self) {
        self.transfers.close();
        self.transfers.wait().await;
    }
}

/// One transfer. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct SnapshotTransfer {
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl SnapshotTransfer {
    /// Ends it.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> SnapshotProgress {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        SnapshotProgress {
            chunks: read(&self.progress.chunks),
            from: read(&self.progress.from),
            sent: read(&self.progress.sent),
        }
    }
}

#[derive(Debug, Default)]
struct Progress {
    chunks: AtomicU64,
    from: AtomicU64,
    sent: AtomicU64,
}

/// Tells the end when it is dropped, so that no way out of a transfer can forget to.
struct Ended {
    to: NodeId,
    told: Recipient<SnapshotSent>,
    arrived: OnceLock<Result<(), TransferError>>,
    _transfer: TaskTrackerToken,
}

impl Ended {
    fn with(&self, arrived: Result<(), TransferError>) {
        // The first word counts; there is no second.
        let _ = self.arrived.set(arrived);
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let arrived = self.arrived.take();
        let (to, arrived) = (self.to, arrived.unwrap_or(Err(TransferError::Panicked)));
        self.told.do_send(SnapshotSent { to, arrived });
    }
}

struct Sending {
    peer: NodeId,
    address: String,
    local: Local,
    limits: Limits,
    throttle: Arc<Throttle>,
    offer: SnapshotOffer,
    cut: Cut,
    progress: Arc<Progress>,
    encoder: FrameEncoder,
}

impl Sending {
    async fn run(mut self, source: Box<dyn ChunkSource>) -> Result<(), TransferError> {
        let result = self.transfer(source).await;
        match &result {
            Ok(()) => tracing::info!("the snapshot has arrived"),
            Err(TransferError::Stopped) => {}
            Err(error) => tracing::warn!("the snapshot did not arrive: {error}"),
        }
        result
    }

    async fn transfer(&mut self, mut source: Box<dyn ChunkSource>) -> Result<(), TransferError> {
        let encoded = SnapshotFrame::Offer(self.offer.clone()).encode(&mut self.encoder);
        let offer = encoded.map_err(TransferError::Offer)?;
        let dial = async { Ok(dial(&self.address, &self.limits).await) };
        let dialled = self.cut.guard(dial).await?;
        let stream = dialled.map_err(TransferError::Unreachable)?;
        // What comes back is short.
        let mut decoder = FrameDecoder::for_handshake(&self.limits);
        let (stream, _admission) = self.greet(stream, &mut decoder).await?;
        let (mut read, mut write) = tokio::io::split(stream);

        let answer = self.ask(offer, &mut read, &mut write, &mut decoder);
        let from = self.cut.guard(async { Ok(answer.await) }).await??;
        self.progress.from.store(from, Ordering::Relaxed);
        tracing::info!(address = %self.address, last = %self.offer.message.snapshot.last, bytes = self.offer.bytes, from, "sends a snapshot");
        for number in from..self.offer.chunks() {
            let frame = self.chunk(&mut *source, number)?;
            let write = self.write(frame, &mut write);
            let work = async {
                tokio::select! {
                    biased;
                    // Nothing but a reason may come before the last chunk has gone.
                    said = answer_of(&mut read, &mut decoder) => Ok(said.and_then(out_of_place)),
                    written = write => written.map(Ok),
                }
            };
            self.cut.guard(work).await??;
            self.progress.sent.fetch_add(1, Ordering::Relaxed);
        }
        drop(source);
        let limit = self.limits.snapshot_finish_timeout;
        let last = async { Ok(timeout(limit, answer_of(&mut read, &mut decoder)).await) };
        match self.cut.guard(last).await? {
            Ok(Ok(Answer::Arrived)) => Ok(()),
            Ok(Ok(answer)) => out_of_place(answer),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Ending::Stalled(limit).into()),
        }
    }

    async fn greet(
        &self,
        stream: Stream,
        decoder: &mut FrameDecoder,
    ) -> Result<(Stream, Admission), TransferError> {
        let greeted = greet(
            self.peer,
            Purpose::Snapshot,
            &self.local,
            &self.limits,
            stream,
            decoder,
            &self.cut,
        );
        match greeted.await {
            Ok((stream, admission, _)) => Ok((stream, admission)),
            Err(Broken::Refused(refusal)) => Err(TransferError::Refused(refusal)),
            Err(Broken::Malformed(error)) => {
                Err(TransferError::Refused(Refusal::malformed(&error)))
            }
            Err(Broken::Ended(Ending::Stopped)) => Err(TransferError::Stopped),
            Err(Broken::Ended(source)) => {
                let address = self.address.clone();
                Err(TransferError::Unreachable(DialError::Handshake {
                    address,
                    source,
                }))
            }
        }
    }

    /// Makes the offer; gives the first chunk that is wanted.
    async fn ask(
        &self,
        offer: EncodedFrame,
        read: &mut (impl AsyncRead + Unpin),
        write: &mut (impl AsyncWrite + Unpin),
        decoder: &mut FrameDecoder,
    ) -> Result<u64, TransferError> {
        write_both(write, offer.as_bytes(), &[], self.limits.stall_timeout).await?;
        let limit = self.limits.snapshot_chunk_timeout;
        let answer = timeout(limit, answer_of(read, decoder));
        match answer.await.map_err(|_| Ending::Stalled(limit))?? {
            Answer::Wanted(from) if from <= self.offer.chunks() => Ok(from),
            Answer::Wanted(number) => {
                let what = "the first chunk wanted, number";
                Err(Ending::Malformed(DecodeError::Number { what, number }).into())
            }
            Answer::Arrived => out_of_place(Answer::Arrived),
        }
    }

    /// Reads and encodes one chunk, and blocks.
    fn chunk(
        &mut self,
        source: &mut dyn ChunkSource,
        number: u64,
    ) -> Result<EncodedFrame, TransferError> {
        let data = source.chunk(number).map_err(TransferError::Source)?;
        let (len, expected) = (data.len(), self.offer.chunk_len(number));
        if len as u64 != expected {
            let text = format!("chunk {number} has {len} bytes instead of {expected}");
            return Err(TransferError::Source(text));
        }
        let encoded = SnapshotFrame::Chunk { number, data }.encode(&mut self.encoder);
        encoded.map_err(TransferError::Offer)
    }

    /// Writes one frame as fast as it may go, within the time for a chunk.
    async fn write(
        &self,
        frame: EncodedFrame,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Ending> {
        let stall = self.limits.stall_timeout;
        let mut left: Duration = self.limits.snapshot_chunk_timeout;
        for piece in frame.as_bytes().chunks(self.throttle.piece_len()) {
            self.throttle.pass(piece.len()).await;
            // What the throttle takes is not the receiver's fault.
            let began = std::time::Instant::now();
            timeout(left, write_both(write, piece, &[], stall))
                .await
                .map_err(|_| Ending::Stalled(self.limits.snapshot_chunk_timeout))??;
            left = left.saturating_sub(began.elapsed());
        }
        Ok(())
    }
}

/// What a receiver says when it does not refuse.
enum Answer {
    Wanted(u64),
    Arrived,
}

async fn answer_of(
    read: &mut (impl AsyncRead + Unpin),
    decoder: &mut FrameDecoder,
) -> Result<Answer, TransferError> {
    let frame = read_frame(read, decoder).await?;
    if frame.kind == FrameKind::Refuse {
        return Err(TransferError::Refused(Refusal::decode(&frame)?));
    }
    match SnapshotFrame::decode(&frame)? {
        SnapshotFrame::Wanted { from } => Ok(Answer::Wanted(from)),
        SnapshotFrame::Done(Ok(())) => Ok(Answer::Arrived),
        SnapshotFrame::Done(Err(not_taken)) => Err(TransferError::NotTaken(not_taken)),
        SnapshotFrame::Offer(_) | SnapshotFrame::Chunk { .. } => {
            Err(DecodeError::OutOfPlace { kind: frame.kind }.into())
        }
    }
}

fn out_of_place<T>(answer: Answer) -> Result<T, TransferError> {
    let kind = match answer {
        Answer::Wanted(_) => FrameKind::SnapshotWanted,
        Answer::Arrived => FrameKind::SnapshotDone,
    };
    Err(DecodeError::OutOfPlace { kind }.into())
}
