//! Every bound of this crate, in one place.
//!
//! Invariant: nothing here can be switched off. What is reached is answered, counted or logged where
//! it happens; each field says how.

use std::time::Duration;

/// The most items (entries, forwarded proposals, answers) that one frame may hold.
///
/// A frame with more is neither encoded nor decoded. It bounds what a small frame of empty items
/// costs in memory once decoded.
pub const ITEMS_MAX: usize = 4096;

/// A list claims its length before it comes. So many items are reserved for at once.
pub(crate) const ITEMS_RESERVED_MAX: usize = 512;

/// A payload is a slice of the memory that it was read into, and keeps that alive. In a frame up to this
/// length it is a copy, so that none keeps alive more than 16 times the length of its frame.
pub(crate) const COPIED_LEN_MAX: usize = 16 << 10;

/// The longest chunk that a snapshot may be cut into, in bytes. Frames of a snapshot connection have a
/// limit of their own, which follows from it; [`Limits::frame_len_max`] does not concern them.
pub const SNAPSHOT_CHUNK_LEN_MAX: usize = 1 << 20;

/// The longest frame of a snapshot connection. The list of members in an offer is far shorter than a
/// chunk may be.
pub(crate) const SNAPSHOT_FRAME_LEN_MAX: usize = SNAPSHOT_CHUNK_LEN_MAX + FRAME_OVERHEAD_LEN;

/// What a frame costs at most beside its items' payloads and 32 bytes for each further item.
pub(crate) const FRAME_OVERHEAD_LEN: usize = 128;

/// No frame of the urgent lane is longer.
pub(crate) const URGENT_FRAME_LEN_MAX: usize = 128;

/// The bounds of listeners and connections. The defaults are production's.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest frame, header included, in bytes. A longer one is not encoded
    /// ([`EncodeError::TooLong`](crate::EncodeError::TooLong)), and ends the connection that it
    /// comes in on as soon as its header is there. All nodes of a cluster must agree on it.
    pub frame_len_max: usize,
    /// The longest frame of a handshake. It is what a stranger can make this node hold. It bounds
    /// the list of members too, which an introduction carries
    /// ([`EncodeError::IntroductionTooLong`](crate::EncodeError::IntroductionTooLong)).
    pub handshake_frame_len_max: usize,
    /// The most frames that wait for one peer, those that are being written included. When
    /// reached, [`PeerSender::try_send`](crate::PeerSender::try_send) answers
    /// [`SendError::Full`](crate::SendError::Full).
    pub queue_frames_max: usize,
    /// As `queue_frames_max`, in bytes.
    pub queue_bytes_max: usize,
    /// As `queue_frames_max`, for the urgent lane, whose frames are all shorter than 128 bytes.
    pub urgent_frames_max: usize,
    /// The longest time for a connect, name resolution included. Then the dial has failed.
    pub connect_timeout: Duration,
    /// The longest time for a handshake, on either side. Then the connection is closed, and by the
    /// accepting side refused as [`Refusal::Slow`](crate::Refusal::Slow).
    pub handshake_timeout: Duration,
    /// How often the dialling side asks on each connection whether the other is there, unless it still waits for
    /// an answer.
    pub ping_interval: Duration,
    /// The longest silence on an established connection: for the accepting side, until anything comes; for the
    /// dialling side, until a ping is answered. Then the connection is closed
    /// ([`Ending::Idle`](crate::Ending::Idle)). It must be well above `ping_interval`, and what the system's
    /// buffers hold must cross the network within it.
    pub idle_timeout: Duration,
    /// The longest time in which a write may make no progress, and in which the other host may
    /// leave bytes or keepalives without an acknowledgement. Then the connection is lost.
    pub stall_timeout: Duration,
    /// The most connections that may be in the middle of a handshake. When reached, the oldest one
    /// of the address that holds most of them is closed, so that strangers push out each other.
    pub handshakes_max: usize,
    /// The most accepted connections in all. When reached, a connection in the middle of its
    /// handshake is closed for a new one; with none such, the new one is.
    pub connections_max: usize,
    /// As `connections_max`, for those that come from one address. A cluster on one host must fit: a node
    /// accepts three connections of each other one.
    pub connections_per_address_max: usize,
    /// The most frames that are handed over as one [`Inbound`](crate::Inbound). The rest waits for
    /// that batch to be handled, in the end in the sender's queue.
    pub batch_frames_max: usize,
    /// As `batch_frames_max`, in bytes as encoded; a single frame may exceed it.
    pub batch_bytes_max: usize,
    /// The upper end of the first random delay between two dials.
    pub backoff_min: Duration,
    /// The upper end of the longest random delay between two dials.
    pub backoff_max: Duration,
    /// How many bytes of snapshots this node sends in a second, to all peers together; none for as many
    /// as the network takes. Less than 128 KiB is taken for that, so that no chunk takes longer than the
    /// receiver waits.
    pub snapshot_bytes_per_s: Option<u64>,
    /// The largest snapshot that is received, in bytes. A larger one is refused
    /// ([`WhyNotTaken::TooLarge`](crate::WhyNotTaken::TooLarge)).
    pub snapshot_bytes_max: u64,
    /// The longest time for one chunk of a snapshot, on either side, and for the answer to an offer. Then
    /// the transfer is broken off, and may be resumed.
    pub snapshot_chunk_timeout: Duration,
    /// The longest time in which a receiver makes a whole snapshot durable and its node looks at it. Then
    /// the sender gives up; the receiver's node may still make use of it.
    pub snapshot_finish_timeout: Duration,
    /// The most snapshots that are received at once, never more than one of each peer. A further one is
    /// refused ([`WhyNotTaken::Busy`](crate::WhyNotTaken::Busy)).
    pub snapshots_received_max: usize,
    /// The most transfers that broke off and whose beginning is kept to be resumed, never more than one of
    /// each peer. For a newer one the oldest is dropped.
    pub snapshots_kept_max: usize,
    /// How long the beginning of one is kept.
    pub snapshot_kept_timeout: Duration,
}

impl Limits {
    /// The longest payload (a command, a response) that is sure to fit a frame, in bytes.
    ///
    /// A run of entries fits too if the sum of their [`size_bytes`](raft_core::Entry::size_bytes) is
    /// not above it.
    #[must_use]
    pub fn payload_len_max(&self) -> usize {
        self.frame_len_max.saturating_sub(FRAME_OVERHEAD_LEN)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_len_max: 8 << 20,
            handshake_frame_len_max: 4 << 10,
            queue_frames_max: 16 << 10,
            queue_bytes_max: 32 << 20,
            urgent_frames_max: 256,
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(4),
            ping_interval: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(10),
            handshakes_max: 64,
            connections_max: 1024,
            connections_per_address_max: 64,
            batch_frames_max: 512,
            batch_bytes_max: 256 << 10,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            snapshot_bytes_per_s: None,
            snapshot_bytes_max: 1 << 40,
            snapshot_chunk_timeout: Duration::from_secs(30),
            snapshot_finish_timeout: Duration::from_secs(120),
            snapshots_received_max: 2,
            snapshots_kept_max: 2,
            snapshot_kept_timeout: Duration::from_secs(300),
        }
    }
}
