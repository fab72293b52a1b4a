//! One connection that this node has dialled, from its handshake to its end: frames out, all that wait
//! at a time; pings out; and in comes nothing but answers to these, or a refusal.
//!
//! A peer has two: the main one, and an urgent one below it, which is dialled while there is a main one and
//! ends with it. So the urgent one needs no word of its own to the node: where it is missing or does not answer,
//! its frames take the main one.
//!
//! Invariants:
//! - The loop wakes by what is sent, and once in a [`Limits::ping_interval`](crate::Limits::ping_interval)
//!   for the ping. At most one ping is on its way.
//! - It reads all the time: that is how a lost connection is seen at once.
//! - Who does not answer a ping within [`Limits::idle_timeout`](crate::Limits::idle_timeout) is not there.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_core::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::cut::Cut;
use crate::decode::{FrameDecoder, decode_body};
use crate::dial::{dial, greet};
use crate::handshake::{Broken, read_frame};
use crate::header::FrameKind;
use crate::local::{Admission, Purpose};
use crate::queue::{Opened, Ping, Queue};
use crate::socket::write_both;
use crate::stream::Stream;
use crate::wire::PingBody;
use crate::{
    DecodeError, DialError, EncodedFrame, Ending, FrameEncoder, Limits, Local, PeerHello, Refusal,
};

/// A connection that lived so long counts as one.
pub(crate) const LIVED: Duration = Duration::from_secs(1);
/// Frames up to this length are gathered into one buffer; longer ones are written from where they
/// are.
const GATHERED_LEN_MAX: usize = 16 << 10;
/// How much is gathered at most.
const BUFFER_LEN_MAX: usize = 64 << 10;

/// How a dial, and what followed it, ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Unreachable(DialError),
    Refused(Refusal),
    Lost(Ending),
}

/// What one of a peer's connections needs.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) purpose: Purpose,
    pub(crate) peer: NodeId,
    pub(crate) local: Local,
    pub(crate) limits: Limits,
    pub(crate) queue: Arc<Queue>,
}

/// A connection whose handshake is over.
pub(crate) struct Greeted {
    stream: Stream,
    decoder: FrameDecoder,
    _admission: Admission,
    pub(crate) hello: PeerHello,
}

impl Lane {
    /// Dials `address`, and shakes hands.
    pub(crate) async fn connect(&self, address: &str, cut: &Cut) -> Result<Greeted, Outcome> {
        let dial = async { Ok(dial(address, &self.limits).await) };
        let dialled = cut.guard(dial).await.map_err(Outcome::Lost)?;
        let stream = dialled.map_err(Outcome::Unreachable)?;
        let mut decoder = FrameDecoder::for_handshake(&self.limits);
        let greeted = greet(
            self.peer,
            self.purpose,
            &self.local,
            &self.limits,
            stream,
            &mut decoder,
            cut,
        );
        let (stream, mut admission, hello) = greeted.await.map_err(|broken| match broken {
            Broken::Refused(refusal) => Outcome::Refused(refusal),
            Broken::Malformed(error) => Outcome::Refused(Refusal::malformed(&error)),
            Broken::Ended(source) => Outcome::Unreachable(DialError::Handshake {
                address: address.to_owned(),
                source,
            }),
        })?;
        admission.alone().await;
        Ok(Greeted {
            stream,
            decoder,
            _admission: admission,
            hello,
        })
    }

    /// Lets its queue take frames, until what it gives back is dropped.
    pub(crate) fn open(&self, greeted: &Greeted) -> Opened<'_> {
        self.queue.open(greeted.stream.way())
    }

    /// Sends what is sent until the connection ends.
    pub(crate) async fn run(&self, greeted: &mut Greeted) -> Ending {
        let (mut read, mut write) = tokio::io::split(&mut greeted.stream);
        tokio::select! {
            // After a pause, what has come before the time that has passed.
            biased;
            ending = self.watch(&mut read, &mut greeted.decoder) => ending,
            ending = self.write(&mut write) => ending,
        }
    }

    /// Reads what comes back, to the end of the connection.
    async fn watch(
        &self,
        read: &mut (impl AsyncRead + Unpin),
        decoder: &mut FrameDecoder,
    ) -> Ending {
        loop {
            let frame = match read_frame(read, decoder).await {
                Ok(frame) => frame,
                Err(ending) => return ending,
            };
            let kind = frame.kind;
            let out_of_place = || Ending::Malformed(DecodeError::OutOfPlace { kind });
            match kind {
                FrameKind::Pong => match decode_body(kind, &frame.body) {
                    Ok(PingBody { number }) if self.queue.answered(number) => {}
                    Ok(_) => return out_of_place(),
                    Err(error) => return Ending::Malformed(error),
                },
                FrameKind::Refuse => {
                    return Refusal::decode(&frame).map_or_else(Ending::Malformed, Ending::Refused);
                }
                _ => return out_of_place(),
            }
        }
    }

    /// Writes what is sent, all that waits at a time, and pings.
    async fn write(&self, write: &mut (impl AsyncWrite + Unpin)) -> Ending {
        let mut batch = VecDeque::new();
        let mut buffer = Vec::new();
        let mut encoder = FrameEncoder::new(&self.limits);
        let mut ticks = tokio::time::interval(self.limits.ping_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let written = tokio::select! {
                biased;
                _ = ticks.tick() => {
                    self.queue.turn().await;
                    self.ping(write, &mut encoder).await
                }
                () = self.queue.take(&mut batch) => {
                    self.write_batch(write, &mut batch, &mut buffer).await
                }
            };
            if let Err(ending) = written {
                return ending;
            }
            self.queue.done();
        }
    }

    async fn ping(
        &self,
        write: &mut (impl AsyncWrite + Unpin),
        encoder: &mut FrameEncoder,
    ) -> Result<(), Ending> {
        match self.queue.ping() {
            Ping::Due(number) => {
                let ping = encoder
                    .body(FrameKind::Ping, &PingBody { number }, 1, 0)
                    .map_err(std::io::Error::other)?;
                write_both(write, ping.as_bytes(), &[], self.limits.stall_timeout).await?;
                Ok(())
            }
            Ping::Unanswered(since) if since >= self.limits.idle_timeout => {
                Err(Ending::Idle(self.limits.idle_timeout))
            }
            Ping::Unanswered(_) => Ok(()),
        }
    }

    async fn write_batch(
        &self,
        write: &mut (impl AsyncWrite + Unpin),
        batch: &mut VecDeque<EncodedFrame>,
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
            let next = batch.front().map_or(BUFFER_LEN_MAX, EncodedFrame::len);
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
}

/// Keeps the urgent connection to the peer that is connected at `address`, for as long as it is waited for.
pub(crate) async fn keep_urgent(lane: Lane, address: String, stop: CancellationToken) {
    let mut backoff = Backoff::new(&lane.limits);
    loop {
        let cut = Cut::below(&stop);
        let outcome = match lane.connect(&address, &cut).await {
            Ok(mut greeted) => {
                tracing::debug!(%address, "the urgent connection is open");
                let (_opened, since) = (lane.open(&greeted), Instant::now());
                let run = async { Err::<(), _>(lane.run(&mut greeted).await) };
                let ending = cut.guard(run).await.err().unwrap_or(Ending::Stopped);
                if since.elapsed() > LIVED {
                    backoff.reset();
                }
                Outcome::Lost(ending)
            }
            Err(outcome) => outcome,
        };
        // Its loss is told by the main connection, if that is lost too; if not, nothing is lost but time.
        tracing::debug!(?outcome, "no urgent connection");
        tokio::time::sleep(backoff.next()).await;
    }
}
