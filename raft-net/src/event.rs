//! What connections tell the node that owns them.
//!
//! Invariant: a connection waits until its event was handled before it goes on, so that there is at
//! most one event of each connection in the receiver's mailbox (and one `Closed` behind it).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix::Message;
use raft_core::{ClusterId, Incarnation, NodeId};

use crate::{DecodeError, Frame, Held, Refusal};

/// What a peer sent: the frames that one read brought, in order.
///
/// A connection hands over the next batch when this one was handled, so that at most one of each
/// connection is in the receiver's mailbox. A peer has two of them: what is urgent may overtake the rest. What a peer sends meanwhile stays in the sockets and in
/// the end in the peer's own bounded queue.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Inbound {
    /// The node that the connection belongs to.
    pub from: NodeId,
    /// Which start of that node it is, as the handshake said.
    pub starts: u64,
    /// What it sent; never empty.
    pub frames: Vec<Frame>,
}

/// Who a peer said it is, after the handshake found nothing wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// Its data folder.
    pub incarnation: Incarnation,
    /// How often a node was started on that folder.
    pub starts: u64,
    /// Its cluster, if it is born.
    pub cluster: Option<ClusterId>,
    /// What its disk held when its process started.
    pub held: Held,
    /// Where it says that it is dialled; may be empty.
    pub address: String,
}

/// What became of a connection.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum PeerEvent {
    /// The peer accepted our dial; what is sent to it goes out from now on.
    Connected {
        /// The peer.
        peer: NodeId,
        /// Who it is.
        hello: PeerHello,
    },
    /// The main connection, which was `Connected`, is gone, and with it what waited for the peer.
    Lost {
        /// The peer.
        peer: NodeId,
        /// Whether the peer's host itself ended it (an end of stream or a reset), which is what it
        /// does when the process dies. With a following `Unreachable { refused: true }` the process
        /// is gone. False says nothing about the process.
        reset: bool,
        /// What happened.
        reason: Ending,
    },
    /// A dial failed before the peer had answered. There is one for each dial, whose rate the
    /// backoff limits.
    Unreachable {
        /// The peer.
        peer: NodeId,
        /// Whether the host where the peer was connected last refused the connection: nobody listens there any
        /// more. What the hosts at its other addresses say is no sign of it.
        refused: bool,
        /// What happened.
        reason: DialError,
    },
    /// The peer refused us, or we refused who answered our dial. It is dialled again, less and less
    /// often.
    Refused {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: Refusal,
    },
    /// We accepted the peer's main connection; its frames follow as [`Inbound`]. It may be that of a node which is no
    /// member here yet; what is to be said to it takes a [`PeerConnection`](crate::PeerConnection), as with any other.
    Accepted {
        /// The peer.
        peer: NodeId,
        /// Who it is.
        hello: PeerHello,
    },
    /// The main connection that the peer had dialled is gone, and all that it said there was handed over. So was
    /// what it said on its urgent one, if the peer itself ended the connection. It may come without an `Accepted`, when the
    /// connection ended before that was handled.
    Closed {
        /// The peer.
        peer: NodeId,
        /// What happened.
        reason: Ending,
    },
    /// We refused somebody who dialled us. At most ten in ten seconds for each kind of refusal are
    /// told; all are counted.
    Turned {
        /// Who it said it was, if it came that far.
        peer: Option<NodeId>,
        /// Where it dialled from.
        remote: SocketAddr,
        /// Why.
        reason: Refusal,
    },
    /// The listener cannot go on; no peer can reach this node any more.
    ListenerFailed {
        /// What happened.
        reason: Ending,
    },
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody has said yet where the peer is.
    #[error("no address of it is known")]
    NoAddress,
    /// The address does not resolve, or nobody answers there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("no answer from {address} within {limit:?}")]
    TimedOut {
        /// The address.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection ended in the middle of the handshake.
    #[error("the handshake with {address} broke off: {source}")]
    Handshake {
        /// The address.
        address: String,
        /// What happened.
        source: Ending,
    },
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    /// The other side ended the stream.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side's host reset the connection.
    #[error("the other side reset the connection")]
    Reset,
    /// The system says so.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// No byte moved for too long.
    #[error("nothing moved for {0:?}")]
    Stalled(Duration),
    /// The other side said nothing for too long, or did not answer a ping.
    #[error("the other side was silent for {0:?}")]
    Idle(Duration),
    /// The other side sent what is not a frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] DecodeError),
    /// The other side refused us after we had accepted it.
    #[error("refused by the other side: {0}")]
    Refused(Refusal),
    /// What is at the dialled address does not speak TLS, and this node speaks nothing else.
    #[error(
        "the other side does not speak TLS: check that the address is a node's, and that it has TLS too"
    )]
    NotTls,
    /// The same node opened a newer connection.
    #[error("replaced by a newer connection of the same node")]
    Replaced,
    /// What has become known since contradicts who the other side said it is.
    #[error("no longer acceptable: {0}")]
    Contradicted(Refusal),
    /// A newer connection needed its place.
    #[error("too many connections")]
    Evicted,
    /// This side stopped it.
    #[error("stopped")]
    Stopped,
    /// The receiver of what comes in is gone.
    #[error("nobody takes what comes in")]
    ReceiverGone,
    /// The connection's own task panicked, which is a bug of this crate.
    #[error("the connection's task panicked")]
    Panicked,
}

impl Ending {
    /// Whether the other side's host itself ended the connection.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(refusal) = inner.and_then(|inner| inner.downcast_ref::<Refusal>()) {
            return Self::Refused(refusal.clone());
        }
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}
