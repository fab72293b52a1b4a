//! What waits for one peer.
//!
//! Invariants: what waits is bounded in frames and in bytes, and what is being written counts until
//! it is written; it waits only while there is a connection, and goes with it: Raft sends again what
//! matters. The caller learns at once what happened to its frame.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::NodeId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{EncodedFrame, Limits};

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
    /// The frames that wait or are being written now.
    pub queued_frames: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Frames handed to the system.
    pub frames: u64,
    /// Bytes handed to the system.
    pub bytes: u64,
    /// Calls of write that it took.
    pub writes: u64,
    /// Dials.
    pub dials: u64,
    /// Dials that led to a connection.
    pub connects: u64,
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

/// The queue between a [`PeerSender`] and its connection.
#[derive(Debug)]
pub(crate) struct Queue {
    peer: NodeId,
    frames_max: usize,
    bytes_max: usize,
    frame_len_max: usize,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<EncodedFrame>,
    stats: PeerStats,
}

impl Queue {
    pub(crate) fn new(peer: NodeId, limits: &Limits) -> Self {
        Self {
            peer,
            frames_max: limits.queue_frames_max,
            bytes_max: limits.queue_bytes_max,
            frame_len_max: limits.frame_len_max.min(limits.queue_bytes_max),
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn push(&self, frame: EncodedFrame) -> Result<(), SendError> {
        let (peer, len) = (self.peer, frame.len());
        let mut state = self.state();
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
        state.waiting.push_back(frame);
        let first = state.waiting.len() == 1;
        drop(state);
        if first {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits until something waits, and takes all of it into `batch`, which is empty.
    pub(crate) async fn take(&self, batch: &mut VecDeque<EncodedFrame>) {
        loop {
            std::mem::swap(&mut self.state().waiting, batch);
            if !batch.is_empty() {
                return;
            }
            self.wake.notified().await;
        }
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
    pub(crate) fn open(&self) -> Opened<'_> {
        let stats = &mut self.state().stats;
        stats.connected = true;
        stats.connects += 1;
        Opened(self)
    }

    pub(crate) fn dialled(&self) {
        self.state().stats.dials += 1;
    }

    pub(crate) fn refused(&self) {
        self.state().stats.refusals += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, what is there is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, there is a connection.
#[derive(Debug)]
pub(crate) struct Opened<'a>(&'a Queue);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting = VecDeque::new();
        let stats = &mut state.stats;
        stats.connected = false;
        stats.dropped_lost += stats.queued_frames as u64;
        stats.queued_frames = 0;
        stats.queued_bytes = 0;
    }
}

/// Sends to one peer. Clones share one queue; when the last one is dropped the connection ends, as
/// with [`stop`](Self::stop).
#[derive(Clone, Debug)]
pub struct PeerSender(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
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
        queue: Arc<Queue>,
        stop: CancellationToken,
        ended: CancellationToken,
    ) -> Self {
        Self(Arc::new(Handle { queue, stop, ended }))
    }

    /// The node that it sends to.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.0.queue.peer
    }

    /// Puts `frame` into the peer's queue. Whether it arrives nobody knows; frames that arrive do so
    /// in order.
    ///
    /// # Errors
    /// The frame was dropped; [`SendError`] says why.
    pub fn try_send(&self, frame: EncodedFrame) -> Result<(), SendError> {
        self.0.queue.push(frame)
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.queue.state().stats.connected
    }

    /// What the connection has done so far.
    #[must_use]
    pub fn stats(&self) -> PeerStats {
        self.0.queue.state().stats
    }

    /// Ends the connection and the dialling for good. No event follows.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Waits until nothing of the connection is left, after [`stop`](Self::stop).
    pub async fn stopped(&self) {
        self.0.ended.cancelled().await;
    }
}
