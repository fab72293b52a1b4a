//! Raft's messages between processes: MessagePack frames over TCP.
//!
//! A node *dials* each peer ([`PeerConnection`]) and sends its frames there; what a peer says comes in on
//! the connections that the peer has dialled ([`Listener`]). A handshake says who both are, and a mismatch
//! is answered with its reason ([`Refusal`]) and goes no further.
//!
//! Votes and heartbeats do not wait behind bulk: for each ordered pair of nodes there is a main connection,
//! by which the peer counts as connected, and an urgent one for what is short and must not wait
//! ([`FrameKind::is_urgent`]). A snapshot travels on a third ([`SnapshotSender`]), from file to file. All
//! come in at the same listener, after the same handshake.
//!
//! What this crate promises to its user:
//!
//! - Frames of one connection arrive in order, whole and unchanged, or the connection ends. Which of
//!   the last ones arrived, nobody knows: Raft sends again what matters.
//! - [`Inbound::from`] is the node whose connection it is, checked against the cluster, the members,
//!   their incarnations and start counters, and what earlier starts have claimed of their disks
//!   ([`Local`]). It may be a node of the same cluster that this one does not know yet, and none that it
//!   knows to be a member no more.
//! - Every queue has a bound ([`Limits`]). A full one answers its caller at once; nothing is dropped
//!   without a count.
//! - A decoded message cannot overflow the core, and costs memory in proportion to its bytes.
//! - A snapshot that is told to have arrived is whole and durable; one that breaks off goes on where it
//!   was, for a while; neither side holds more of it in memory than a few chunks.
//!
//! Who is nobody's peer, or not yet, may ask one thing ([`visit()`]), and a node that has no id yet hears
//! that too ([`BoundListener::visited`]).
//!
//! With [`Tls`] all of it goes through mutual TLS; without, the network must be one that can be trusted. Nodes of one
//! process can do without a network ([`Listener::bind`]).
//!
//! The modules, in the order to read them.

mod limits;

mod frame;
mod header;
mod wire;

mod decode;
mod encode;

mod refusal;

mod handshake;
mod held;
mod local;

mod event;

mod backoff;
mod check;
mod cut;
mod gate;
mod process;
mod queue;
mod random;
mod socket;
mod stream;

mod tls;

mod dial;
mod lane;
mod outgoing;
mod peer;

mod snapshot;

mod accepted;
mod accepting;
mod listener;
mod lobby;

mod visit;
mod visited;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;

#[cfg(test)]
mod tests;

pub use decode::{DecodeError, FrameDecoder};
pub use encode::{EncodeError, EncodedFrame, FrameEncoder};
pub use event::{DialError, Ending, Inbound, PeerEvent, PeerHello};
pub use frame::{
    Answer, ForwardOutcome, Forwarded, Frame, MANAGE_LEN_MAX, MANAGED_LEN_MAX, NotApplied,
    REASON_LEN_MAX,
};
pub use header::FrameKind;
pub use held::{Claim, Held};
pub use limits::{ITEMS_MAX, Limits, SNAPSHOT_CHUNK_LEN_MAX};
pub use listener::{
    BoundListener, GetListenerStats, ListenError, Listener, ListenerStats, Recipients, Stop,
};
pub use local::{Known, Local};
pub use outgoing::Outgoing;
pub use peer::PeerConnection;
pub use process::is_within_process;
pub use queue::{PeerSender, PeerStats, RoundTrip, SendError};
pub use raft_core::membership::{ADDRESS_LEN_MAX, is_address};
pub use refusal::Refusal;
pub use snapshot::{
    ChunkSink, ChunkSource, NotTaken, ReceptionStats, SnapshotArrived, SnapshotOffer,
    SnapshotProgress, SnapshotReceiver, SnapshotSender, SnapshotSent, SnapshotTransfer,
    TransferError, WhyNotTaken,
};
pub use tls::{
    CertificateProblem, Tls, TlsFile, TlsFileError, TlsFileProblem, TlsFiles, TlsName,
    TlsNameError, TlsStats,
};
pub use visit::{Shown, VISIT_ANSWER_LEN_MAX, VISIT_LEN_MAX, Visit, VisitError, visit};
pub use visited::{Dialled, Visited};
