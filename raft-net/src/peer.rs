//! The dialling side of a connection: one actor for each peer, which dials it, and again whenever
//! the connection is lost.
//!
//! Invariants:
//! - What is sent goes out in order, all that waits at a time; the loop wakes by what is sent, never
//!   by a timer.
//! - It reads too, though nothing but a refusal may come: that is how a lost connection is seen at
//!   once.
//! - A connection that lived is dialled again at once, so that a dead process is told from a broken
//!   link within one round trip; anything else is dialled after a random, growing delay.
//! - A panic ends one connection and is reported as its loss; one while that is logged or told ends
//!   nothing. After a stop no task is left.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem};

use actix::prelude::*;
use futures_util::FutureExt;
use raft_core::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::backoff::Backoff;
use crate::cut::Cut;
use crate::decode::FrameDecoder;
use crate::dial::{dial, greet};
use crate::gate::Repeats;
use crate::handshake::{Broken, read_frame};
use crate::header::FrameKind;
use crate::local::Purpose;
use crate::queue::Queue;
use crate::random::random_u64;
use crate::socket::write_both;
use crate::{DecodeError, DialError, Ending, Limits, Local, PeerEvent, PeerSender, Refusal};

/// A connection that lived so long counts as one.
const LIVED: Duration = Duration::from_secs(1);
/// The longest pause, in microseconds, before a peer that has just dialled us is dialled.
const WAKE_MICROS: u64 = 10_000;
/// Frames up to this length are gathered into one buffer; longer ones are written from where they
/// are.
const GATHERED_LEN_MAX: usize = 16 << 10;
/// How much is gathered at most.
const BUFFER_LEN_MAX: usize = 64 << 10;

/// Dials one peer and sends it what its [`PeerSender`] is given.
pub struct PeerConnection {
    driver: Option<Driver>,
    stop: CancellationToken,
}

impl PeerConnection {
    /// Starts dialling `peer` at `address` (`host:port`, resolved at each dial), on the current
    /// arbiter.
    ///
    /// It goes on until [`PeerSender::stop`], or until the last sender is dropped. What happens is
    /// told to `events`; when its actor is gone, nothing is told and all goes on.
    #[must_use]
    pub fn start(
        peer: NodeId,
        address: String,
        local: Local,
        limits: Limits,
        events: Recipient<PeerEvent>,
    ) -> PeerSender {
        let queue = Arc::new(Queue::new(peer, &limits));
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let driver = Driver {
            peer,
            address,
            local,
            limits,
            events,
            queue: Arc::clone(&queue),
            stop: stop.clone(),
            ended: ended.clone(),
            connected_at: Cell::new(None),
        };
        let actor = Self {
            driver: Some(driver),
            stop: stop.clone(),
        };
        Context::new().run(actor);
        PeerSender::new(queue, stop, ended)
    }
}

impl Actor for PeerConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(driver) = self.driver.take() {
            let span =
                tracing::info_span!("dial", node = %driver.local.node(), peer = %driver.peer);
            let address = ctx.address();
            let task = async move {
                driver.drive().await;
                address.do_send(Ended);
            };
            actix_rt::spawn(task.instrument(span));
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stop.cancel();
    }
}

/// The driver is done.
#[derive(Message)]
#[rtype(result = "()")]
struct Ended;

impl Handler<Ended> for PeerConnection {
    type Result = ();

    fn handle(&mut self, _: Ended, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// How a dial, and what followed it, ended.
enum Outcome {
    Unreachable(DialError),
    Refused(Refusal),
    Lost(Ending),
}

/// Runs `work`; none if it panics.
async fn survive<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}

struct Driver {
    peer: NodeId,
    address: String,
    local: Local,
    limits: Limits,
    events: Recipient<PeerEvent>,
    queue: Arc<Queue>,
    stop: CancellationToken,
    ended: CancellationToken,
    /// Since when the dial under way is a connection.
    connected_at: Cell<Option<Instant>>,
}

impl Driver {
    async fn drive(self) {
        let _ended = self.ended.clone().drop_guard();
        let waker = self.local.waker(self.peer);
        let mut backoff = Backoff::new(&self.limits);
        let mut repeats = Repeats::default();
        loop {
            self.connected_at.set(None);
            self.queue.dialled();
            let cut = Cut::below(&self.stop);
            let outcome = survive(self.attempt(&cut)).await;
            if self.stop.is_cancelled() {
                return;
            }
            let outcome = outcome.unwrap_or(Outcome::Lost(Ending::Panicked));
            // Whatever panics here (a log's subscriber may), the owner is told, and the dialling
            // goes on.
            survive(async { self.log(&outcome, &mut repeats) }).await;
            if survive(self.tell(outcome)).await.is_none() {
                survive(self.tell(Outcome::Lost(Ending::Panicked))).await;
            }
            let mut delay = backoff.next();
            if let Some(at) = self.connected_at.get()
                && at.elapsed() > LIVED
            {
                backoff.reset();
                delay = Duration::ZERO;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
                () = waker.notified() => {
                    // The peer is there. Not quite at once: two nodes that cannot keep their
                    // connections must not drive each other in a circle.
                    let pause = Duration::from_micros(random_u64() % WAKE_MICROS);
                    tokio::time::sleep(delay.min(pause)).await;
                }
            }
        }
    }

    async fn attempt(&self, cut: &Cut) -> Outcome {
        let dial = async { Ok(dial(&self.address, &self.limits).await) };
        let socket = match cut.guard(dial).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Outcome::Unreachable(error),
            Err(ending) => return Outcome::Lost(ending),
        };
        let mut decoder = FrameDecoder::for_handshake(&self.limits);
        let greeted = greet(
            self.peer,
            Purpose::Frames,
            &self.local,
            &self.limits,
            socket,
            &mut decoder,
            cut,
        );
        let (stream, mut admission, hello) = match greeted.await {
            Ok(greeted) => greeted,
            Err(Broken::Refused(refusal)) => return Outcome::Refused(refusal),
            Err(Broken::Malformed(error)) => return Outcome::Refused(Refusal::malformed(&error)),
            Err(Broken::Ended(source)) => {
                let address = self.address.clone();
                return Outcome::Unreachable(DialError::Handshake { address, source });
            }
        };
        admission.alone().await;
        let opened = self.queue.open();
        self.connected_at.set(Some(Instant::now()));
        tracing::info!(address = %self.address, incarnation = %hello.incarnation, starts = hello.starts, "connected");
        let peer = self.peer;
        let connection = async {
            let connected = PeerEvent::Connected { peer, hello };
            // Without a receiver of events there is nobody to tell, and the work goes on.
            let _ = self.events.send(connected).await;
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::select! {
                ending = self.watch(&mut read, &mut decoder) => Err::<(), _>(ending),
                ending = self.write(&mut write) => Err(ending),
            }
        };
        let ending = cut.guard(connection).await.err().unwrap_or(Ending::Stopped);
        drop((opened, admission));
        Outcome::Lost(ending)
    }

    /// Waits for the end of the connection, which shows in what can be read.
    async fn watch(
        &self,
        read: &mut (impl AsyncRead + Unpin),
        decoder: &mut FrameDecoder,
    ) -> Ending {
        let frame = match read_frame(read, decoder).await {
            Ok(frame) => frame,
            Err(ending) => return ending,
        };
        if frame.kind != FrameKind::Refuse {
            return Ending::Malformed(DecodeError::OutOfPlace { kind: frame.kind });
        }
        match Refusal::decode(&frame) {
            Ok(refusal) => Ending::Refused(refusal),
            Err(error) => Ending::Malformed(error),
        }
    }

    /// Writes what is sent, all that waits at a time.
    async fn write(&self, write: &mut (impl AsyncWrite + Unpin)) -> Ending {
        let mut batch = VecDeque::new();
        let mut buffer = Vec::new();
        loop {
            self.queue.take(&mut batch).await;
            if let Err(ending) = self.write_batch(write, &mut batch, &mut buffer).await {
                return ending;
            }
        }
    }

    async fn write_batch(
        &self,
        write: &mut (impl AsyncWrite + Unpin),
        batch: &mut VecDeque<crate::EncodedFrame>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Ending> {
        #[cfg(test)]
        crate::tests::panic_if_asked(crate::tests::Panic::Write);
        let stall = self.limits.stall_timeout;
        let mut gathered = 0;
        while let Some(frame) = batch.pop_front() {
            let fits = frame.len() <= GATHERED_LEN_MAX;
            if fits {
                buffer.extend_from_slice(frame.as_bytes());
                gathered += 1;
            }
            let next = batch
                .front()
                .map_or(BUFFER_LEN_MAX, crate::EncodedFrame::len);
            let next_fits = next <= GATHERED_LEN_MAX && buffer.len() + next <= BUFFER_LEN_MAX;
            // A long frame goes out together with what was gathered before it.
            let next_carries = next > GATHERED_LEN_MAX && !batch.is_empty();
            if fits && (next_fits || next_carries) {
                continue;
            }
            let long: &[u8] = if fits { &[] } else { frame.as_bytes() };
            let writes = write_both(write, buffer, long, stall).await?;
            let frames = mem::take(&mut gathered) + usize::from(!fits);
            self.queue
                .written(frames, buffer.len() + long.len(), writes);
            buffer.clear();
        }
        Ok(())
    }

    async fn tell(&self, outcome: Outcome) {
        #[cfg(test)]
        crate::tests::panic_if_asked(crate::tests::Panic::Tell);
        let peer = self.peer;
        let event = match outcome {
            Outcome::Refused(reason) => {
                self.queue.refused();
                PeerEvent::Refused { peer, reason }
            }
            Outcome::Unreachable(reason) => PeerEvent::Unreachable {
                peer,
                refused: matches!(&reason, DialError::Connect { source, .. }
                    if source.kind() == io::ErrorKind::ConnectionRefused),
                reason,
            },
            Outcome::Lost(reason) if self.connected_at.get().is_some() => PeerEvent::Lost {
                peer,
                reset: reason.is_reset(),
                reason,
            },
            Outcome::Lost(source) => PeerEvent::Unreachable {
                peer,
                refused: false,
                reason: DialError::Handshake {
                    address: self.address.clone(),
                    source,
                },
            },
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = self.events.send(event) => {}
        }
    }

    fn log(&self, outcome: &Outcome, repeats: &mut Repeats) {
        #[cfg(test)]
        crate::tests::panic_if_asked(crate::tests::Panic::Log);
        let address = &self.address;
        let now = Instant::now();
        match outcome {
            Outcome::Unreachable(error) => {
                if let Some(suppressed) = repeats.pass(now, error.to_string()) {
                    tracing::info!(%error, suppressed, "cannot reach the peer");
                }
            }
            Outcome::Refused(reason) => {
                if let Some(suppressed) = repeats.pass(now, reason.to_string()) {
                    tracing::warn!(%address, %reason, suppressed, "refused");
                }
            }
            Outcome::Lost(ending @ Ending::Panicked) => {
                tracing::error!(%address, %ending, "connection lost");
            }
            Outcome::Lost(ending) => {
                repeats.reset();
                tracing::warn!(%address, %ending, "connection lost");
            }
        }
    }
}
