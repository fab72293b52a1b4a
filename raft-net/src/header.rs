//! The fixed header in front of every frame.
//!
//! All numbers are big-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic, `rAFt` |
//! | 4 | 1 | protocol version: 0 in a handshake, then the agreed one |
//! | 5 | 1 | kind of the body |
//! | 6 | 2 | flags, all zero |
//! | 8 | 8 | group id, 0 |
//! | 16 | 4 | length of the body |
//! | 20 | 4 | crc32c of bytes 0 to 19 and the body |
//!
//! Invariants: a header is judged before a byte is reserved for its body; this layout is the same in
//! every version, so that nodes of any two versions understand each other's refusals.

use crate::DecodeError;

/// The length of a header.
pub(crate) const HEADER_LEN: usize = 24;
/// The version that the frames of a handshake carry.
pub(crate) const HANDSHAKE_VERSION: u8 = 0;
/// The oldest protocol version that this program speaks.
pub(crate) const VERSION_MIN: u8 = 1;
/// The newest protocol version that this program speaks.
pub(crate) const VERSION_MAX: u8 = 1;

const MAGIC: [u8; 4] = *b"rAFt";
const KIND_AT: usize = 5;
/// Where a header holds the checksum.
pub(crate) const CRC_AT: usize = 20;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame's body is. The number is what travels; it never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FrameKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl FrameKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// The dialling side introduces itself.
    Hello = 1,
    /// The accepting side introduces itself.
    Welcome = 2,
    /// Either side refuses the other, and says why.
    Refuse = 3,
    /// The dialling side introduces itself, to send a snapshot over this connection and nothing else.
    SnapshotHello = 4,
    /// The dialling side introduces itself, to send votes and heartbeats over this connection.
    UrgentHello = 5,
    /// The dialling side says back the number that the accepting side has just drawn.
    Confirm = 6,
    /// The dialling side asks one thing, and is nobody's peer.
    Visit = 7,
    /// The dialling side asks whether the accepting side is there.
    Ping = 8,
    /// The accepting side is, and answers on the same connection.
    Pong = 9,
    /// The accepting side answers a [`Visit`](Self::Visit).
    VisitAnswer = 10,
    /// [`raft_core::AppendEntries`].
    AppendEntries = 16,
    /// [`raft_core::Heartbeat`].
    Heartbeat = 17,
    /// [`raft_core::HeartbeatResponse`].
    HeartbeatResponse = 18,
    /// [`raft_core::CommitAdvanced`].
    CommitAdvanced = 19,
    /// [`raft_core::PreVote`].
    PreVote = 20,
    /// [`raft_core::PreVoteResponse`].
    PreVoteResponse = 21,
    /// [`raft_core::TimeoutNow`].
    TimeoutNow = 22,
    /// [`raft_core::ReadIndex`].
    ReadIndex = 23,
    /// [`raft_core::ReadIndexResponse`].
    ReadIndexResponse = 24,
    /// [`raft_core::RequestVote`].
    RequestVote = 32,
    /// [`raft_core::VoteResponse`].
    VoteResponse = 33,
    /// [`raft_core::AppendResponse`] whose outcome is `Accepted`.
    AppendAccepted = 34,
    /// [`raft_core::AppendResponse`] whose outcome is `Rejected`.
    AppendRejected = 35,
    /// [`Frame::Forward`](crate::Frame::Forward).
    Forward = 48,
    /// [`Frame::Answers`](crate::Frame::Answers).
    Answers = 49,
    /// [`Frame::Digest`](crate::Frame::Digest).
    Digest = 50,
    /// [`Frame::Manage`](crate::Frame::Manage).
    Manage = 51,
    /// [`Frame::Managed`](crate::Frame::Managed).
    Managed = 52,
    /// On a snapshot connection: what is offered ([`SnapshotOffer`](crate::SnapshotOffer)).
    SnapshotOffer = 64,
    /// On a snapshot connection: from which chunk on the offer is wanted.
    SnapshotWanted = 65,
    /// On a snapshot connection: one chunk.
    SnapshotChunk = 66,
    /// On a snapshot connection: all has come, and is of use; or why it was not taken.
    SnapshotDone = 67,
}

impl FrameKind {
    /// Whether it belongs to the handshake.
    #[must_use]
    pub fn is_handshake(self) -> bool {
        matches!(
            self,
            Self::Hello
                | Self::SnapshotHello
                | Self::UrgentHello
                | Self::Welcome
                | Self::Refuse
                | Self::Confirm
                | Self::Visit
                | Self::VisitAnswer
        )
    }

    /// Whether it is short, and an election or a leader's office hangs on its coming soon: it goes on the
    /// urgent lane.
    #[must_use]
    pub fn is_urgent(self) -> bool {
        matches!(
            self,
            Self::Heartbeat
                | Self::HeartbeatResponse
                | Self::PreVote
                | Self::PreVoteResponse
                | Self::RequestVote
                | Self::VoteResponse
                | Self::TimeoutNow
        )
    }
}

/// A header that has been judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FrameKind,
    pub(crate) body_len: usize,
    crc: u32,
}

impl Header {
    /// Reads the header at the start of `bytes`; none while it is not all there. Bytes that cannot
    /// become a header are refused as early as they show it.
    pub(crate) fn parse(
        bytes: &[u8],
        version: u8,
        frame_len_max: usize,
    ) -> Result<Option<Self>, DecodeError> {
        let shown = bytes.len().min(MAGIC.len());
        if bytes[..shown] != MAGIC[..shown] {
            return Err(DecodeError::Magic);
        }
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let number = header[KIND_AT];
        let kind = FrameKind::from_number(number).ok_or(DecodeError::Kind { number })?;
        let expected = if kind.is_handshake() {
            HANDSHAKE_VERSION
        } else {
            version
        };
        if header[4] != expected {
            return Err(DecodeError::Version {
                found: header[4],
                expected,
            });
        }
        let flags = u16::from_be_bytes([header[6], header[7]]);
        if flags != 0 {
            return Err(DecodeError::Flags { flags });
        }
        let group = u64::from_be_bytes(std::array::from_fn(|i| header[8 + i]));
        if group != 0 {
            return Err(DecodeError::Group { group });
        }
        let claimed = u32::from_be_bytes(std::array::from_fn(|i| header[16 + i]));
        let body_len = usize::try_from(claimed).unwrap_or(usize::MAX);
        if body_len > frame_len_max.saturating_sub(HEADER_LEN) {
            return Err(DecodeError::TooLong {
                len: u64::from(claimed) + HEADER_LEN as u64,
                max: frame_len_max,
            });
        }
        let crc = u32::from_be_bytes(std::array::from_fn(|i| header[CRC_AT + i]));
        Ok(Some(Self {
            kind,
            body_len,
            crc,
        }))
    }

    /// The kind of a frame of this program's own.
    pub(crate) fn kind_of(frame: &[u8]) -> Option<FrameKind> {
        FrameKind::from_number(*frame.get(KIND_AT)?)
    }

    /// Whether header and body of `frame`, the whole frame, are what its sender wrote.
    pub(crate) fn verify(&self, frame: &[u8]) -> Result<(), DecodeError> {
        let found = checksum(frame);
        if found == self.crc {
            Ok(())
        } else {
            Err(DecodeError::Checksum {
                found,
                expected: self.crc,
            })
        }
    }

    /// Fills in the header of `frame`, the whole frame with room for the header in front.
    ///
    /// Its caller has checked that the length of the body fits 32 bits.
    pub(crate) fn write(frame: &mut [u8], kind: FrameKind) {
        let version = if kind.is_handshake() {
            HANDSHAKE_VERSION
        } else {
            VERSION_MAX
        };
        let body_len = u32::try_from(frame.len() - HEADER_LEN).unwrap_or(u32::MAX);
        frame[..4].copy_from_slice(&MAGIC);
        frame[4] = version;
        frame[KIND_AT] = kind as u8;
        frame[6..16].fill(0);
        frame[16..CRC_AT].copy_from_slice(&body_len.to_be_bytes());
        let crc = checksum(frame);
        frame[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_be_bytes());
    }
}

/// The checksum of `frame`, the whole frame, whatever its header says of it.
pub(crate) fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..CRC_AT]), &frame[HEADER_LEN..])
}
