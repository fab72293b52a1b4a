//! Raft's messages between processes: MessagePack frames over TCP.
//!
//! One connection for each ordered pair of nodes. A node *dials* each peer ([`PeerConnection`]) and
//! sends its frames there; what a peer says comes in on the connection that the peer has dialled
//! ([`Listener`]). A handshake says who both are, and a mismatch is answered with its reason
//! ([`Refusal`]) and goes no further.
//!
//! What this crate promises to its user:
//!
//! - Frames of one connection arrive in order, whole and unchanged, or the connection ends. Which of
//!   the last ones arrived, nobody knows: Raft sends again what matters.
//! - [`Inbound::from`] is the node whose connection it is, checked against the cluster, the members,
//!   their incarnations and start counters, and what earlier starts have claimed of their disks
//!   ([`Local`]).
//! - Every queue has a bound ([`Limits`]). A full one answers its caller at once; nothing is dropped
//!   without a count.
//! - A decoded message cannot overflow the core, and costs memory in proportion to its bytes.
//!
//! What it does not have yet: TLS, and a connection of their own for snapshots.
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
mod cut;
mod gate;
mod queue;
mod random;
mod socket;

mod peer;

mod accepted;
mod listener;

#[cfg(test)]
mod tests;

pub use decode::{DecodeError, FrameDecoder};
pub use encode::{EncodeError, EncodedFrame, FrameEncoder};
pub use event::{DialError, Ending, Inbound, PeerEvent, PeerHello};
pub use frame::{Answer, ForwardOutcome, Forwarded, Frame};
pub use header::FrameKind;
pub use held::{Claim, Held};
pub use limits::{ITEMS_MAX, Limits};
pub use listener::{BoundListener, GetListenerStats, ListenError, Listener, ListenerStats, Stop};
pub use local::Local;
pub use peer::PeerConnection;
pub use queue::{PeerSender, PeerStats, SendError};
pub use refusal::Refusal;
