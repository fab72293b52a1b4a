//! Messages that a scene lets nobody hear, which is a loss of all of them.

use raft_core::{DurableMessage, Message, NodeId, OpenMessage};

use crate::packet::{Body, Packet};

/// Says of a packet whether it is lost as it is sent.
pub type Silence = fn(&Packet) -> bool;

/// Everybody hears everything.
#[must_use]
pub fn nothing(_: &Packet) -> bool {
    false
}

/// Nobody is told of a commit but by entries and heartbeats.
#[must_use]
pub fn commits(packet: &Packet) -> bool {
    let Body::Message(envelope) = packet.body() else {
        return false;
    };
    matches!(
        envelope.message,
        Message::Open(OpenMessage::CommitAdvanced(_))
    )
}

/// Nobody hears a leader: it has the votes and nothing else.
#[must_use]
pub fn leaders(packet: &Packet) -> bool {
    !is_of_election(packet)
}

/// Node 3 is cut off.
#[must_use]
pub fn node_3(packet: &Packet) -> bool {
    packet.to() == NodeId(3) || packet.from() == NodeId(3)
}

fn is_of_election(packet: &Packet) -> bool {
    let Body::Message(envelope) = packet.body() else {
        return false;
    };
    matches!(
        envelope.message,
        Message::Durable(DurableMessage::RequestVote(_) | DurableMessage::VoteResponse(_))
            | Message::Open(OpenMessage::PreVote(_) | OpenMessage::PreVoteResponse(_))
    )
}
