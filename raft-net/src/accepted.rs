//! One accepted connection: the handshake, then frames in batches until it ends.
//!
//! Invariants: nothing reaches the receiver before the peer was admitted, nor after the connection
//! was cut; at most one batch of a connection is in the receiver's mailbox; the buffer grows with
//! what comes, never with what a length claims.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::Recipient;
use futures_util::FutureExt;
use raft_core::NodeId;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};

use crate::accepting::{Host, enter, last_word, slow};
use crate::cut::Cut;
use crate::decode::{FrameDecoder, RawFrame, decode_body, decode_frame};
use crate::gate::Gate;
use crate::handshake::{Broken, Introduction, introduction, read_confirm, read_frame, write_frame};
use crate::header::FrameKind;
use crate::lobby::Place;
use crate::local::{Admission, Purpose, Side};
use crate::outgoing::{Handed, Handings};
use crate::random::random_u64;
use crate::snapshot::{Incoming, Receiving};
use crate::socket::{LINGER_LEN_MAX, configure, farewell, write_both};
use crate::stream::Stream;
use crate::visit::{Answer, Visits};
use crate::wire::PingBody;
use crate::{
    Ending, Frame, FrameEncoder, Inbound, Limits, ListenerStats, Local, PeerEvent, Recipients,
    Refusal, SnapshotReceiver,
};

/// How much room is made for what comes: at first, and when much comes. What is read shares its
/// memory with the payloads in it, so room is made when there is little left, not for each read.
const READ_LEN_MIN: usize = 8 << 10;
const READ_LEN_MAX: usize = 256 << 10;
const ROOM_LEN_MIN: usize = 2 << 10;
/// How long the end of the main connection waits for that of the urgent one, which ends with it.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);

/// What all accepted connections share.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    pub(crate) local: Local,
    pub(crate) limits: Limits,
    pub(crate) events: Recipient<PeerEvent>,
    inbound: Recipient<Inbound>,
    visits: Visits,
    pub(crate) receiving: Arc<Receiving>,
    stats: Mutex<ListenerStats>,
    /// For each kind of refusal, so that a flood of one does not hide another.
    gates: Mutex<BTreeMap<u8, Gate>>,
    /// For each peer, whose connections may come and go in a circle.
    peers: Mutex<BTreeMap<NodeId, Gate>>,
}

impl Doorkeeper {
    pub(crate) fn new(
        local: Local,
        limits: Limits,
        recipients: Recipients,
        receiver: Arc<dyn SnapshotReceiver>,
    ) -> Self {
        let receiving = Receiving::new(receiver, recipients.arrived, &limits);
        Self {
            local,
            limits,
            events: recipients.events,
            inbound: recipients.inbound,
            visits: Visits::to_node(recipients.visits),
            receiving: Arc::new(receiving),
            stats: Mutex::default(),
            gates: Mutex::default(),
            peers: Mutex::default(),
        }
    }

    /// Whether a line on a connection of `peer` may go into the log; if so, how many have not since the last.
    fn may_log(&self, peer: NodeId) -> Option<u64> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if !peers.contains_key(&peer) {
            peers.retain(|known, _| self.local.is_here(*known));
        }
        peers.entry(peer).or_default().pass(Instant::now())
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, ListenerStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal and logs it, and gives the event, unless there were many.
    fn turned(
        &self,
        peer: Option<NodeId>,
        remote: SocketAddr,
        reason: Refusal,
    ) -> Option<PeerEvent> {
        *self.stats().refused.entry(reason.number()).or_default() += 1;
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(reason.number()).or_default();
        let suppressed = gate.pass(Instant::now())?;
        let peer_shown = peer.map(|peer| peer.0);
        tracing::warn!(peer = peer_shown, %remote, %reason, suppressed, "refused a connection");
        Some(PeerEvent::Turned {
            peer,
            remote,
            reason,
        })
    }
}

impl Host for Doorkeeper {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn came(&self) {
        self.stats().connections += 1;
    }

    fn failed(&self) {
        self.stats().accept_failures += 1;
    }

    fn full(&self, stream: Option<Stream>, remote: SocketAddr) {
        let refusal = Refusal::TooManyConnections;
        if let Some(stream) = stream {
            last_word(stream, &refusal, &self.limits);
        }
        if let Some(event) = self.turned(None, remote, refusal) {
            self.events.do_send(event);
        }
    }

    async fn serve(self: Arc<Self>, stream: Stream, remote: SocketAddr, cut: Cut, place: Place) {
        let keeper = self;
        let connection = Connection {
            keeper: &keeper,
            remote,
            cut: &cut,
            established: Cell::new(None),
        };
        let run = AssertUnwindSafe(connection.run(stream, place)).catch_unwind();
        let ending = run.await.unwrap_or(Ending::Panicked);
        if matches!(ending, Ending::Panicked) {
            keeper.stats().panicked += 1;
            tracing::error!("the connection's task panicked");
        }
        let Some((peer, purpose)) = connection.established.get() else {
            return;
        };
        if let Ending::Malformed(error) = &ending {
            *keeper.stats().malformed.entry(error.name()).or_default() += 1;
        }
        if let Some(suppressed) = keeper.may_log(peer) {
            tracing::info!(%peer, ?purpose, %ending, suppressed, "connection from the peer ended");
        }
        if purpose != Purpose::Main {
            return;
        }
        keeper.events.do_send(PeerEvent::Closed {
            peer,
            reason: ending,
        });
    }
}

struct Connection<'a> {
    keeper: &'a Doorkeeper,
    remote: SocketAddr,
    cut: &'a Cut,
    /// Whose connection it is, and what for, once that is established.
    established: Cell<Option<(NodeId, Purpose)>>,
}

impl Connection<'_> {
    async fn run(&self, stream: Stream, place: Place) -> Ending {
        let keeper = self.keeper;
        if let Err(error) = configure(&stream, &keeper.limits) {
            return error.into();
        }
        let mut decoder = FrameDecoder::for_handshake(&keeper.limits);
        let limit = keeper.limits.handshake_timeout;
        let mut door = Some(stream);
        let handshake = async { Ok(timeout(limit, self.greet(&mut door, &mut decoder)).await) };
        let greeted = match self.cut.guard(handshake).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(_)) => Err(slow(&keeper.limits).into()),
            Err(Ending::Evicted) => {
                keeper.full(door, self.remote);
                return Ending::Evicted;
            }
            Err(ending) => return ending,
        };
        let (mut stream, mut admission, purpose, theirs) = match (greeted, door) {
            (Ok(Greeted::Peer(admission, purpose, theirs)), Some(stream)) => {
                (stream, admission, purpose, theirs)
            }
            (Ok(Greeted::Visitor(answer)), Some(stream)) => {
                keeper.stats().visits += 1;
                return self
                    .cut
                    .guard(answer.say(stream, &keeper.limits))
                    .await
                    .err()
                    .unwrap_or(Ending::Closed);
            }
            (Ok(_), None) => return Ending::Closed,
            (Err(turned), door) => return self.turn(door, turned).await,
        };
        if !place.establish() {
            return Ending::Evicted;
        }
        let alone = async {
            admission.alone().await;
            Ok(())
        };
        if let Err(ending) = self.cut.guard(alone).await {
            return ending;
        }
        if purpose == Purpose::Snapshot {
            let incoming = Incoming {
                from: theirs.from,
                starts: theirs.starts,
                stream,
                decoder,
                cut: self.cut.clone(),
            };
            // Its place is given back when nothing of it is left.
            let ending = keeper.receiving.serve(incoming).await;
            drop(admission);
            return ending;
        }
        decoder.establish(keeper.limits.frame_len_max);
        let (peer, hello) = (theirs.from, theirs.hello());
        self.established.set(Some((peer, purpose)));
        let main = purpose == Purpose::Main;
        if main {
            keeper.stats().accepted += 1;
            if let Some(suppressed) = keeper.may_log(peer) {
                tracing::info!(%peer, incarnation = %hello.incarnation, starts = hello.starts, suppressed, "accepted a connection");
            }
        } else {
            keeper.stats().accepted_urgent += 1;
        }
        let frames = async {
            if main {
                let accepted = PeerEvent::Accepted { peer, hello };
                // Without a receiver of events there is nobody to tell, and the work goes on.
                let _ = keeper.events.send(accepted).await;
            }
            self.receive(&mut stream, &mut decoder, &theirs).await
        };
        let result: Result<(), Ending> = self.cut.guard(frames).await;
        let ending = result.err().unwrap_or(Ending::Stopped);
        if main && ending.is_reset() {
            self.last_words(peer).await;
        }
        ending
    }

    /// The peer has ended its main connection. What it had said on the urgent one is handed over before that is
    /// told, for behind the news of its death it would make a leader live once more.
    async fn last_words(&self, peer: NodeId) {
        let Some(ended) = self.keeper.local.urgent_ended(peer) else {
            return;
        };
        let all = async { Ok(timeout(LAST_WORDS_TIMEOUT, ended.cancelled()).await) };
        // Whoever lives on has nothing to say that would be wrong then.
        let _ = self.cut.guard(all).await;
    }

    /// The handshake, or a visit; its caller has the deadline, and `door` is as it is at [`enter`].
    async fn greet(
        &self,
        door: &mut Option<Stream>,
        decoder: &mut FrameDecoder,
    ) -> Result<Greeted, Turned> {
        let stream = enter(door, self.keeper.local.tls()).await?;
        let frame = read_frame(stream, decoder).await.map_err(Broken::from)?;
        if frame.kind == FrameKind::Visit {
            let visits = &self.keeper.visits;
            let answer = visits.receive(&frame, self.remote, stream.shown()).await?;
            return Ok(Greeted::Visitor(answer));
        }
        self.introduced(stream, decoder, &frame).await
    }

    /// The introductions.
    async fn introduced(
        &self,
        stream: &mut Stream,
        decoder: &mut FrameDecoder,
        frame: &RawFrame,
    ) -> Result<Greeted, Turned> {
        let keeper = self.keeper;
        let theirs = introduction(frame, &Purpose::HELLOS)?;
        let purpose = Purpose::of(frame.kind);
        let turned = |broken| Turned {
            peer: Some(theirs.from),
            broken,
        };
        let refused = |refusal| turned(Broken::Refused(refusal));
        let examined = keeper
            .local
            .examine(Side::Accepted, &theirs, stream.shown());
        examined.map_err(refused)?;
        let ours = Introduction {
            nonce: random_u64() | 1,
            ..keeper.local.introduction(theirs.from)
        };
        write_frame(stream, ours.encode(FrameKind::Welcome, &keeper.limits))
            .await
            .map_err(Broken::Ended)?;
        // Only now it is known that this is being said now, and by whom it is said may have a connection already.
        let confirmed = read_confirm(stream, decoder, ours.nonce).await;
        confirmed.map_err(turned)?;
        let shown = stream.shown();
        let admitted = keeper
            .local
            .admit(Side::Accepted, purpose, &theirs, shown, self.cut);
        let admission = admitted.map_err(refused)?;
        Ok(Greeted::Peer(admission, purpose, Box::new(theirs)))
    }

    /// Ends a connection that did not become established, with a reason where there is one.
    async fn turn(&self, stream: Option<Stream>, turned: Turned) -> Ending {
        let keeper = self.keeper;
        let refusal = match turned.broken {
            Broken::Refused(refusal) => refusal,
            Broken::Malformed(error) => Refusal::malformed(&error),
            Broken::Ended(ending) => {
                keeper.stats().broken += 1;
                tracing::debug!(%ending, "the handshake broke off");
                return ending;
            }
        };
        let frame = refusal.without_secrets().encode(&keeper.limits);
        let told = keeper.turned(turned.peer, self.remote, refusal.clone());
        let polite = async {
            if let Some(mut stream) = stream {
                farewell(&mut stream, frame, LINGER_LEN_MAX).await;
            }
            if let Some(event) = told {
                let _ = keeper.events.send(event).await;
            }
            Err::<(), _>(Ending::Refused(refusal))
        };
        self.cut
            .guard(polite)
            .await
            .err()
            .unwrap_or(Ending::Stopped)
    }

    /// Reads frames and hands them over, batch by batch, and answers pings.
    async fn receive(
        &self,
        stream: &mut Stream,
        decoder: &mut FrameDecoder,
        theirs: &Introduction,
    ) -> Result<(), Ending> {
        let limits = &self.keeper.limits;
        let mut encoder = FrameEncoder::new(limits);
        let mut handed = match stream {
            Stream::Process(pipe) => pipe.handings(),
            Stream::Plain(_) | Stream::Tls(_) => None,
        };
        let mut read_len = READ_LEN_MIN;
        // It is looked at when it fires, and not set anew for each read.
        let mut idle = std::pin::pin!(sleep(limits.idle_timeout));
        loop {
            loop {
                let mut batch = Batch::default();
                let decoded = self.batch(decoder, &mut batch);
                if let Some(ping) = batch.ping {
                    let pong = encoder
                        .body(FrameKind::Pong, &ping, 1, 0)
                        .map_err(io::Error::other)?;
                    write_both(stream, pong.as_bytes(), &[], limits.stall_timeout).await?;
                }
                // What came before a bad frame is good.
                self.hand_over(theirs, batch.frames).await?;
                if !decoded? {
                    break;
                }
            }
            let buffer = decoder.buffer_mut();
            if buffer.capacity() - buffer.len() < ROOM_LEN_MIN {
                buffer.reserve(read_len);
            }
            let room = buffer.capacity() - buffer.len();
            let mut since = Instant::now();
            let read = loop {
                tokio::select! {
                    biased;
                    // Pings are not kept waiting by frames.
                    read = stream.read_buf(buffer) => break read?,
                    Some(first) = next(&mut handed) => {
                        let frames = self.take(first, &mut handed);
                        self.hand_over(theirs, frames).await?;
                        since = Instant::now();
                    }
                    () = &mut idle => {
                        if since.elapsed() >= limits.idle_timeout {
                            return Err(Ending::Idle(limits.idle_timeout));
                        }
                        idle.as_mut().reset((since + limits.idle_timeout).into());
                    }
                }
            };
            if read == 0 {
                while let Some(first) = handed.as_mut().and_then(|handed| handed.try_recv().ok()) {
                    let frames = self.take(first, &mut handed);
                    self.hand_over(theirs, frames).await?;
                }
                return Err(Ending::Closed);
            }
            if read == room {
                read_len = (read_len * 2).min(READ_LEN_MAX);
            } else if read < read_len / 8 {
                read_len = (read_len / 2).max(READ_LEN_MIN);
            }
        }
    }

    /// Hands a batch over, and waits until it was handled.
    async fn hand_over(&self, theirs: &Introduction, frames: Vec<Frame>) -> Result<(), Ending> {
        if frames.is_empty() {
            return Ok(());
        }
        let inbound = Inbound {
            from: theirs.from,
            starts: theirs.starts,
            frames,
        };
        let handled = self.keeper.inbound.send(inbound).await;
        handled.map_err(|_| Ending::ReceiverGone)
    }

    /// Takes what was handed over within the process, up to the bound of a batch.
    fn take(&self, first: Handed, more: &mut Option<Handings>) -> Vec<Frame> {
        #[cfg(test)]
        self.panic_if_asked();
        let limits = &self.keeper.limits;
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(handed) = next {
            bytes += handed.len;
            frames.push(handed.take());
            let full = frames.len() >= limits.batch_frames_max || bytes >= limits.batch_bytes_max;
            let more = more.as_mut().filter(|_| !full);
            next = more.and_then(|more| more.try_recv().ok());
        }
        self.count(frames.len(), bytes);
        frames
    }

    #[cfg(test)]
    fn panic_if_asked(&self) {
        if matches!(self.established.get(), Some((_, Purpose::Main))) {
            crate::tests::panic_if_asked(crate::tests::Panic::Read);
        }
    }

    fn count(&self, frames: usize, bytes: usize) {
        let mut stats = self.keeper.stats();
        stats.batches += 1;
        stats.frames += frames as u64;
        stats.bytes += bytes as u64;
    }

    /// Decodes what is there up to the bound of a batch; tells whether there may be more.
    fn batch(&self, decoder: &mut FrameDecoder, batch: &mut Batch) -> Result<bool, Ending> {
        #[cfg(test)]
        self.panic_if_asked();
        let limits = &self.keeper.limits;
        let (mut bytes, mut ping_bytes) = (0, 0);
        let Batch { frames, ping } = batch;
        let mut decode = || {
            while frames.len() < limits.batch_frames_max
                && bytes + ping_bytes < limits.batch_bytes_max
            {
                let Some(raw) = decoder.next_raw()? else {
                    return Ok(false);
                };
                match raw.kind {
                    FrameKind::Refuse => return Err(Ending::Refused(Refusal::decode(&raw)?)),
                    FrameKind::Ping => {
                        // A peer has one on its way. Of more only the last is answered.
                        *ping = Some(decode_body(raw.kind, &raw.body)?);
                        ping_bytes += raw.frame_len();
                    }
                    _ => {
                        bytes += raw.frame_len();
                        frames.push(decode_frame(raw.kind, &raw.body)?);
                    }
                }
            }
            Ok(true)
        };
        let decoded = decode();
        if !frames.is_empty() {
            self.count(frames.len(), bytes);
        }
        decoded
    }
}

/// The next that is handed over within the process.
async fn next(handed: &mut Option<Handings>) -> Option<Handed> {
    match handed {
        Some(handed) => handed.recv().await,
        None => None,
    }
}

/// What one look at the buffer brought.
#[derive(Default)]
struct Batch {
    frames: Vec<Frame>,
    ping: Option<PingBody>,
}

/// Who has come.
enum Greeted {
    Peer(Admission, Purpose, Box<Introduction>),
    /// Who asks one thing, and is told this.
    Visitor(Answer),
}

/// A handshake that came to nothing, and with whom.
struct Turned {
    peer: Option<NodeId>,
    broken: Broken,
}

impl From<Broken> for Turned {
    fn from(broken: Broken) -> Self {
        Self { peer: None, broken }
    }
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Broken::Refused(refusal).into()
    }
}
