//! What waits for one peer, on each of its two lanes.
//!
//! Invariants: what waits is bounded in frames and in bytes, and what is being written counts until
//! it is written; it waits only while there is a connection, and goes with it: Raft sends again what
//! matters. The caller learns at once what happened to its frame. On one lane frames keep their order,
//! between the two there is none. One at a time writes to a connection: its lane, which takes all that waits, or, if
//! nothing does, who [sends at once](PeerSender::try_send_now); what the system does not take of that is the lane's again.
//! Within a process nothing is written: a frame is the other side's as it is sent, and waits until that takes it; one that
//! waited when the connection ended counts as lost, and may arrive nevertheless.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use raft_core::NodeId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::limits::URGENT_FRAME_LEN_MAX;
use crate::outgoing::{Form, Handed, Handing};
use crate::{EncodedFrame, Limits, Outgoing};

/// Why a frame was not taken. It was dropped, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection to the peer.
    #[error("node {peer} is not connected")]
    NotConnected {
        /// The peer.
        peer: NodeId,
    },
    /// As much waits for the peer as may.
    #[error("the queue to node {peer} is full: {frames} frames, {bytes} bytes")]
    Full {
        /// The peer.
        peer: NodeId,
        /// The frames that wait.
        frames: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The frame would not fit an empty queue, or is longer than frames may be.
    #[error("a frame of {len} bytes does not fit the queue to node {peer}, the limit is {max}")]
    TooLarge {
        /// The peer.
        peer: NodeId,
        /// The frame's length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

/// What one [`PeerConnection`](crate::PeerConnection) has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Whether there is a connection now.
    pub connected: bool,
    /// Whether votes and heartbeats have a connection of their own now. Without one they take the other.
    pub urgent_connected: bool,
    /// The frames that wait or are being written now, on both lanes.
    pub queued_frames: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// The most frames that ever waited on one lane.
    pub queued_frames_max: usize,
    /// The most bytes that ever did.
    pub queued_bytes_max: usize,
    /// Frames handed to the system. Pings do not count, here and below.
    pub frames: u64,
    /// Bytes handed to the system.
    pub bytes: u64,
    /// Calls of write that it took.
    pub writes: u64,
    /// Those of the frames that went on the urgent lane.
    pub urgent_frames: u64,
    /// How long the peer takes to answer; none before it has. Of the urgent lane if that is there, where
    /// nothing long stands before a ping.
    pub round_trip: Option<RoundTrip>,
    /// Dials.
    pub dials: u64,
    /// Dials that led to a connection. All but the first are reconnects.
    pub connects: u64,
    /// How often the urgent lane was opened.
    pub urgent_connects: u64,
    /// Dials that were refused by either side's handshake.
    pub refusals: u64,
    /// Frames dropped because the queue was full.
    pub dropped_full: u64,
    /// Frames dropped because there was no connection.
    pub dropped_not_connected: u64,
    /// Frames dropped because they were too large.
    pub dropped_too_large: u64,
    /// Frames that waited when the connection was lost. Frames handed to the system may be lost too.
    pub dropped_lost: u64,
}

/// How long a peer takes to answer a ping, on the connection that is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// How long the last answer took; or how long the next one is waited for, if that is longer.
    pub last: Duration,
    /// The average, in which each answer counts an eighth.
    pub smoothed: Duration,
}

impl RoundTrip {
    fn after(before: Option<Self>, took: Duration) -> Self {
        let smoothed = before.map_or(took, |before| (before.smoothed * 7 + took) / 8);
        Self {
            last: took,
            smoothed,
        }
    }
}

/// The queue between a [`PeerSender`] and one of its connections.
#[derive(Debug)]
pub(crate) struct Queue {
    peer: NodeId,
    frames_max: usize,
    bytes_max: usize,
    frame_len_max: usize,
    /// A ping that is not answered for so long shows that nothing arrives, or nobody is there to read it.
    silent_after: Duration,
    state: Mutex<State>,
    wake: Notify,
}

/// What a connection offers beside its lane.
#[derive(Debug, Default)]
pub(crate) enum Way {
    /// Nothing: there is none, or TLS stands before it.
    #[default]
    Lane,
    /// Anybody whose turn it is may write to it.
    Socket(Arc<TcpStream>),
    /// The other side is in this process.
    Process(Handing),
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<EncodedFrame>,
    /// Somebody writes.
    writing: bool,
    /// The lane waits for its turn to write.
    turn_wanted: bool,
    way: Way,
    stats: PeerStats,
    /// The ping that is not answered.
    pinged: Option<(u64, Instant)>,
    pings: u64,
    /// Where the peer was dialled last.
    address: String,
}

impl State {
    /// Of `frame`, which counts as waiting, so many bytes have been handed to the system. The rest waits before all else.
    /// Says whether that was all.
    fn handed_over(&mut self, frame: EncodedFrame, written: usize) -> bool {
        let stats = &mut self.stats;
        stats.queued_bytes -= written;
        stats.bytes += written as u64;
        stats.writes += 1;
        if written < frame.len() {
            self.waiting.push_front(frame.behind(written));
            return false;
        }
        stats.queued_frames -= 1;
        stats.frames += 1;
        true
    }
}

impl Queue {
    pub(crate) fn new(peer: NodeId, limits: &Limits) -> Self {
        Self {
            peer,
            frames_max: limits.queue_frames_max,
            bytes_max: limits.queue_bytes_max,
            frame_len_max: limits.frame_len_max.min(limits.queue_bytes_max),
            silent_after: limits.ping_interval * 2,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// The queue of the urgent lane.
    pub(crate) fn urgent(peer: NodeId, limits: &Limits) -> Self {
        Self {
            frames_max: limits.urgent_frames_max,
            bytes_max: limits.urgent_frames_max * URGENT_FRAME_LEN_MAX,
            frame_len_max: URGENT_FRAME_LEN_MAX,
            ..Self::new(peer, limits)
        }
    }

    /// Whether there is a connection, and it is not silent.
    fn is_heard(&self, state: &State) -> bool {
        let silent = |(_, since): (u64, Instant)| since.elapsed() > self.silent_after;
        state.stats.connected && !state.pinged.is_some_and(silent)
    }

    /// Sends `frame`, and at once if `now` says so and nothing else waits. Blocks on nothing.
    fn send(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        frame: Outgoing,
        now: bool,
    ) -> Result<(), SendError> {
        let within = matches!(state.way, Way::Process(_));
        if within != matches!(frame.form, Form::Whole(_)) {
            // It was made for another connection than there is.
            state.stats.dropped_not_connected += 1;
            return Err(SendError::NotConnected { peer: self.peer });
        }
        self.count(&mut state, frame.len)?;
        match frame.form {
            Form::Encoded(frame) if now => self.write_now(state, frame),
            Form::Encoded(frame) => self.push_into(state, frame),
            Form::Whole(whole) => {
                let handed = Handed {
                    frame: whole,
                    len: frame.len,
                    queue: Arc::clone(self),
                    connection: state.stats.connects,
                };
                if let Way::Process(handing) = &state.way {
                    let handing = handing.clone();
                    drop(state);
                    // When the other side is gone, so will be this connection, and what waits with it.
                    let _ = handing.send(handed);
                }
            }
        }
        Ok(())
    }

    fn push_into(&self, mut state: MutexGuard<'_, State>, frame: EncodedFrame) {
        state.waiting.push_back(frame);
        let first = state.waiting.len() == 1;
        drop(state);
        if first {
            self.wake.notify_one();
        }
    }

    /// Hands the frame to the system, or puts it behind what waits if something does.
    fn write_now(&self, mut state: MutexGuard<'_, State>, frame: EncodedFrame) {
        let idle = !state.writing && state.waiting.is_empty();
        let socket = match &state.way {
            Way::Socket(socket) if idle => Arc::clone(socket),
            _ => return self.push_into(state, frame),
        };
        state.writing = true;
        let connection = state.stats.connects;
        drop(state);
        // What is wrong with the connection, its lane will find too.
        let written = (&*socket).write(frame.as_bytes()).unwrap_or(0);
        self.wrote(connection, frame, written);
    }

    /// The other side has taken a frame of `len` that was handed over on that connection.
    pub(crate) fn taken(&self, connection: u64, len: usize) {
        let stats = &mut self.state().stats;
        if stats.connected && stats.connects == connection {
            stats.queued_frames -= 1;
            stats.queued_bytes -= len;
            stats.frames += 1;
            stats.bytes += len as u64;
        }
    }

    /// So many bytes of `frame` have been handed to the system, as a turn of its own.
    fn wrote(&self, connection: u64, frame: EncodedFrame, written: usize) {
        let mut state = self.state();
        if state.stats.connects != connection || !state.writing {
            return; // Its connection is gone, and it with it.
        }
        state.writing = false;
        let whole = state.handed_over(frame, written);
        let wanted = state.turn_wanted || !state.waiting.is_empty();
        drop(state);
        if !whole || wanted {
            self.wake.notify_one();
        }
    }

    /// Counts a frame of `len` bytes as one that waits.
    fn count(&self, state: &mut State, len: usize) -> Result<(), SendError> {
        let peer = self.peer;
        let stats = &mut state.stats;
        if len > self.frame_len_max {
            stats.dropped_too_large += 1;
            let max = self.frame_len_max;
            return Err(SendError::TooLarge { peer, len, max });
        }
        if !stats.connected {
            stats.dropped_not_connected += 1;
            return Err(SendError::NotConnected { peer });
        }
        let (frames, bytes) = (stats.queued_frames, stats.queued_bytes);
        if frames >= self.frames_max || bytes + len > self.bytes_max {
            stats.dropped_full += 1;
            return Err(SendError::Full {
                peer,
                frames,
                bytes,
            });
        }
        stats.queued_frames += 1;
        stats.queued_bytes += len;
        stats.queued_frames_max = stats.queued_frames_max.max(stats.queued_frames);
        stats.queued_bytes_max = stats.queued_bytes_max.max(stats.queued_bytes);
        Ok(())
    }

    /// Waits until something waits and nobody else writes, and takes all of it into `batch`, which is empty. The turn to
    /// write is the caller's until it is [`done`](Self::done).
    pub(crate) async fn take(&self, batch: &mut VecDeque<EncodedFrame>) {
        self.turn_if(|state| !state.waiting.is_empty()).await;
        std::mem::swap(&mut self.state().waiting, batch);
    }

    /// Waits until nobody else writes. The turn to write is the caller's until it is [`done`](Self::done).
    pub(crate) async fn turn(&self) {
        self.turn_if(|_| true).await;
    }

    async fn turn_if(&self, wanted: impl Fn(&State) -> bool) {
        loop {
            {
                let mut state = self.state();
                if !state.writing && wanted(&state) {
                    (state.writing, state.turn_wanted) = (true, false);
                    return;
                }
                // Whoever writes now says when it is done.
                state.turn_wanted = state.writing;
            }
            self.wake.notified().await;
        }
    }

    /// The caller, whose turn it was, does not write any more.
    pub(crate) fn done(&self) {
        self.state().writing = false;
    }

    /// So much of what was taken has been handed to the system, in so many writes.
    pub(crate) fn written(&self, frames: usize, bytes: usize, writes: u64) {
        let stats = &mut self.state().stats;
        stats.queued_frames -= frames;
        stats.queued_bytes -= bytes;
        stats.frames += frames as u64;
        stats.bytes += bytes as u64;
        stats.writes += writes;
    }

    /// Takes frames from now on, until what it gives back is dropped.
    pub(crate) fn open(&self, way: Way) -> Opened<'_> {
        let mut state = self.state();
        state.way = way;
        let stats = &mut state.stats;
        stats.connected = true;
        stats.connects += 1;
        Opened(self)
    }

    /// The number of the ping that is to be sent now, which counts as sent; none while one is not answered.
    pub(crate) fn ping(&self) -> Ping {
        let mut state = self.state();
        if let Some((_, since)) = state.pinged {
            return Ping::Unanswered(since.elapsed());
        }
        state.pings += 1;
        let number = state.pings;
        state.pinged = Some((number, Instant::now()));
        Ping::Due(number)
    }

    /// The peer answers a ping. False if that ping is answered, or was never sent.
    #[must_use]
    pub(crate) fn answered(&self, number: u64) -> bool {
        let mut state = self.state();
        match state.pinged {
            Some((pinged, since)) if pinged == number => {
                state.pinged = None;
                let before = state.stats.round_trip;
                state.stats.round_trip = Some(RoundTrip::after(before, since.elapsed()));
                true
            }
            _ => false,
        }
    }

    fn stats(&self) -> PeerStats {
        let state = self.state();
        let mut stats = state.stats;
        if let Some((_, since)) = state.pinged {
            let waits = since.elapsed();
            let known = stats.round_trip.unwrap_or(RoundTrip::after(None, waits));
            stats.round_trip = Some(RoundTrip {
                last: known.last.max(waits),
                ..known
            });
        }
        stats
    }

    pub(crate) fn dialled(&self, address: &str) {
        let mut state = self.state();
        state.stats.dials += 1;
        if state.address != address {
            address.clone_into(&mut state.address);
        }
    }

    pub(crate) fn refused(&self) {
        self.state().stats.refusals += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, what is there is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be done about a ping.
#[derive(Debug)]
pub(crate) enum Ping {
    /// One with this number is to be sent.
    Due(u64),
    /// The last one has not been answered for so long.
    Unanswered(Duration),
}

/// While it lives, there is a connection.
#[derive(Debug)]
pub(crate) struct Opened<'a>(&'a Queue);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting = VecDeque::new();
        (state.writing, state.turn_wanted, state.way) = (false, false, Way::Lane);
        state.pinged = None;
        let stats = &mut state.stats;
        stats.connected = false;
        stats.round_trip = None;
        stats.dropped_lost += stats.queued_frames as u64;
        stats.queued_frames = 0;
        stats.queued_bytes = 0;
    }
}

/// Sends to one peer. Clones share its queues; when the last one is dropped the connections end, as
/// with [`stop`](Self::stop).
#[derive(Clone, Debug)]
pub struct PeerSender(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    main: Arc<Queue>,
    urgent: Arc<Queue>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl PeerSender {
    pub(crate) fn new(
        main: Arc<Queue>,
        urgent: Arc<Queue>,
        stop: CancellationToken,
        ended: CancellationToken,
    ) -> Self {
        Self(Arc::new(Handle {
            main,
            urgent,
            stop,
            ended,
        }))
    }

    /// The node that it sends to.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.0.main.peer
    }

    /// Where the peer is connected, or was dialled last; empty before the first dial.
    #[must_use]
    pub fn address(&self) -> String {
        self.0.main.state().address.clone()
    }

    /// Puts `frame` into the peer's queue: an [urgent](crate::FrameKind::is_urgent) one into that of the
    /// urgent lane, if that is open and answers. Whether it arrives nobody knows; frames of one lane that arrive do so in
    /// order.
    ///
    /// A peer that is connected within this process takes only frames that were made [for it](crate::FrameEncoder::encode_for):
    /// any other is dropped, as if there were no connection.
    ///
    /// # Errors
    /// The frame was dropped; [`SendError`] says why.
    pub fn try_send(&self, frame: impl Into<Outgoing>) -> Result<(), SendError> {
        self.send(frame.into(), false)
    }

    /// As [`try_send`](Self::try_send), but hands the frame to the system at once, on this thread, if nothing else waits
    /// for its lane; with TLS it waits for the connection's own thread. Never blocks. For what is sent from another thread,
    /// which the connection's need not be woken for; what follows soon is better gathered there.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn try_send_now(&self, frame: impl Into<Outgoing>) -> Result<(), SendError> {
        self.send(frame.into(), true)
    }

    fn send(&self, frame: Outgoing, now: bool) -> Result<(), SendError> {
        let Handle { main, urgent, .. } = &*self.0;
        if frame.urgent {
            let state = urgent.state();
            if urgent.is_heard(&state) {
                return urgent.send(state, frame, now);
            }
        }
        main.send(main.state(), frame, now)
    }

    /// Whether the peer is connected within this process, so that frames go to it as they are.
    pub(crate) fn is_within_process(&self) -> bool {
        matches!(self.0.main.state().way, Way::Process(_))
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.main.state().stats.connected
    }

    /// What the connections have done so far.
    #[must_use]
    pub fn stats(&self) -> PeerStats {
        let (main, urgent) = (self.0.main.stats(), self.0.urgent.stats());
        PeerStats {
            urgent_connected: urgent.connected,
            queued_frames: main.queued_frames + urgent.queued_frames,
            queued_bytes: main.queued_bytes + urgent.queued_bytes,
            queued_frames_max: main.queued_frames_max.max(urgent.queued_frames_max),
            queued_bytes_max: main.queued_bytes_max.max(urgent.queued_bytes_max),
            frames: main.frames + urgent.frames,
            bytes: main.bytes + urgent.bytes,
            writes: main.writes + urgent.writes,
            urgent_frames: urgent.frames,
            round_trip: urgent.round_trip.or(main.round_trip),
            urgent_connects: urgent.connects,
            dropped_full: main.dropped_full + urgent.dropped_full,
            dropped_not_connected: main.dropped_not_connected + urgent.dropped_not_connected,
            dropped_too_large: main.dropped_too_large + urgent.dropped_too_large,
            dropped_lost: main.dropped_lost + urgent.dropped_lost,
            ..main
        }
    }

    /// Ends the connections and the dialling for good. No event follows.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Waits until nothing of the connections is left, after [`stop`](Self::stop).
    pub async fn stopped(&self) {
        self.0.ended.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::check::check;
    use crate::tests::{commit, encode};

    #[actix_rt::test]
    async fn a_lane_that_waits_for_its_turn_hears_when_another_write_is_over() {
        let queue = Queue::new(NodeId(2), &Limits::default());
        let _opened = queue.open(Way::Lane);
        let frame = encode(&commit(1));
        queue.count(&mut queue.state(), frame.len()).unwrap();
        queue.state().writing = true;
        let mut turn = Box::pin(queue.turn());
        let waits = timeout(Duration::from_millis(10), &mut turn).await;
        assert!(waits.is_err(), "somebody else writes");
        queue.wrote(1, frame.clone(), frame.len());
        let turn = timeout(Duration::from_secs(5), turn).await;
        assert!(turn.is_ok(), "nothing else would have told it");
        queue.done();
        assert_eq!(queue.state().stats.queued_bytes, 0);
    }

    #[actix_rt::test]
    async fn what_is_taken_after_its_connection_does_not_count_for_the_next() {
        let queue = Arc::new(Queue::new(NodeId(2), &Limits::default()));
        let (handing, mut handed) = tokio::sync::mpsc::unbounded_channel();
        let content = check(&commit(1), 1000).unwrap();
        let send = || {
            let frame = Outgoing::within_process(commit(1), content, 1000);
            queue.send(queue.state(), frame, false).unwrap();
        };
        let opened = queue.open(Way::Process(handing.clone()));
        send();
        send();
        handed.recv().await.unwrap().take();
        drop(opened);
        let stats = queue.stats();
        assert_eq!((stats.frames, stats.dropped_lost), (1, 1));
        let late = handed.recv().await.unwrap();
        let _opened = queue.open(Way::Process(handing));
        send();
        let before = queue.stats();
        late.take();
        assert_eq!(queue.stats(), before);
        assert_eq!((before.queued_frames, before.frames), (1, 1));
        handed.recv().await.unwrap().take();
        let stats = queue.stats();
        assert_eq!(
            (stats.queued_frames, stats.queued_bytes, stats.frames),
            (0, 0, 2)
        );
    }
}
