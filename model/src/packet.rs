//! What is on its way between nodes.
//!
//! The network keeps every packet until it is delivered; that one is lost is that it is never delivered. Two
//! equal packets are one: that the second is missing is a loss. A packet may be delivered and stay, which is
//! duplication, and is bounded.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use raft_core::{
    AppendOutcome, DurableMessage, Envelope, InstallSnapshot, Message, NodeId, OpenMessage, Term,
};

use crate::scene::Forgets;

/// A number that stands for a value: equal values have equal digests, and others have not, but for an
/// accident that is as unlikely as one of the checker's own fingerprints.
pub(crate) fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a packet holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// A message.
    Message(Envelope),
    /// A snapshot's file, and the message that goes with it.
    Snapshot {
        /// Its sender.
        from: NodeId,
        /// Its receiver.
        to: NodeId,
        /// What goes with the file.
        message: InstallSnapshot,
    },
    /// What the sender of a snapshot is told of the transfer by its own transport.
    Sent {
        /// The sender of the snapshot.
        to: NodeId,
        /// The receiver of the snapshot.
        peer: NodeId,
        /// Whether it arrived.
        arrived: bool,
    },
}

/// One packet, shared by all states that it is in.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    digest: u64,
    body: Arc<Body>,
}

impl Hash for Packet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

impl Packet {
    /// Packs `body`.
    #[must_use]
    pub fn new(body: Body) -> Self {
        Self {
            digest: digest(&body),
            body: Arc::new(body),
        }
    }

    /// A message on its way.
    #[must_use]
    pub fn message(from: NodeId, to: NodeId, message: impl Into<Message>) -> Self {
        let message = message.into();
        Self::new(Body::Message(Envelope { from, to, message }))
    }

    /// What it holds.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The node that it is for.
    #[must_use]
    pub fn to(&self) -> NodeId {
        match &*self.body {
            Body::Message(envelope) => envelope.to,
            Body::Snapshot { to, .. } | Body::Sent { to, .. } => *to,
        }
    }

    /// The node that it is from.
    #[must_use]
    pub fn from(&self) -> NodeId {
        match &*self.body {
            Body::Message(envelope) => envelope.from,
            Body::Snapshot { from, .. } => *from,
            Body::Sent { peer, .. } => *peer,
        }
    }

    /// Whether a scene that forgets so much takes it off the network, when its receiver will never again be in
    /// a term below `durable`.
    #[must_use]
    pub fn is_spent(&self, durable: Term, forgets: Forgets) -> bool {
        let Body::Message(Envelope { message, .. }) = &*self.body else {
            return false;
        };
        let answer = match message {
            Message::Durable(m) => !matches!(m, DurableMessage::RequestVote(_)),
            Message::Open(m) => matches!(
                m,
                OpenMessage::HeartbeatResponse(_)
                    | OpenMessage::PreVoteResponse(_)
                    | OpenMessage::ReadIndexResponse(_)
                    | OpenMessage::TimeoutNow(_)
            ),
        };
        message.term() < durable
            && match forgets {
                Forgets::Nothing => false,
                Forgets::StaleAnswers => answer,
                Forgets::AllStale => true,
            }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.body {
            Body::Message(Envelope { from, to, message }) => {
                write!(f, "{from}->{to} {}", Said(message))
            }
            Body::Snapshot { from, to, message } => {
                let (last, term) = (message.snapshot.last, message.term);
                write!(
                    f,
                    "{from}->{to} InstallSnapshot t{term} through {last}, with its file"
                )
            }
            Body::Sent {
                to,
                peer,
                arrived: true,
            } => {
                write!(
                    f,
                    "the transport tells {to} that its snapshot reached {peer}"
                )
            }
            Body::Sent {
                to,
                peer,
                arrived: false,
            } => {
                write!(
                    f,
                    "the transport tells {to} that its snapshot did not reach {peer}"
                )
            }
        }
    }
}

/// A message in few words.
struct Said<'a>(&'a Message);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let term = self.0.term();
        match self.0 {
            Message::Open(OpenMessage::AppendEntries(m)) => {
                write!(f, "AppendEntries t{term} prev {} [", m.prev)?;
                for (i, entry) in m.entries.iter().enumerate() {
                    let space = if i == 0 { "" } else { " " };
                    write!(f, "{space}{}", entry.id)?;
                }
                write!(f, "] commit {}", m.commit)
            }
            Message::Open(OpenMessage::Heartbeat(m)) => {
                write!(f, "Heartbeat t{term} commit {} round {}", m.commit, m.round)
            }
            Message::Durable(DurableMessage::AppendResponse(m)) => match &m.outcome {
                AppendOutcome::Accepted { matched } => {
                    write!(f, "AppendResponse t{term} matched {matched}")
                }
                AppendOutcome::Rejected { prev, hint } => {
                    write!(f, "AppendResponse t{term} refused prev {prev}, hint {hint}")
                }
            },
            Message::Durable(DurableMessage::RequestVote(m)) => {
                let transfer = if m.transfer {
                    ", wanted by the leader"
                } else {
                    ""
                };
                write!(f, "RequestVote t{term} last {}{transfer}", m.last)
            }
            Message::Durable(DurableMessage::VoteResponse(m)) => {
                let word = if m.granted { "granted" } else { "refused" };
                write!(f, "VoteResponse t{term} {word}")
            }
            Message::Open(other) => write!(f, "{other:?}"),
        }
    }
}

/// All packets on their way, in an order of no meaning that is the same for equal sets.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Network(Vec<Packet>);

impl Network {
    /// Puts a packet on its way. Says whether it was not there already.
    pub(crate) fn send(&mut self, packet: Packet) -> bool {
        match self.0.binary_search_by_key(&packet.digest, |p| p.digest) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, packet);
                true
            }
        }
    }

    /// Takes a packet off its way.
    pub(crate) fn take(&mut self, packet: &Packet) {
        self.0.retain(|p| p.digest != packet.digest);
    }

    /// Forgets the packets that `spent` says nobody will heed.
    pub(crate) fn forget(&mut self, spent: impl Fn(&Packet) -> bool) {
        self.0.retain(|p| !spent(p));
    }

    /// The packets.
    pub fn iter(&self) -> impl Iterator<Item = &Packet> {
        self.0.iter()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
