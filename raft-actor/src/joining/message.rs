//! What is asked and answered on visits.
//!
//! A question and an answer are each a version and a body. A body of a version, or a kind, that this program does not
//! know is refused as malformed: who joins runs the program that the cluster runs.

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{ClusterId, Incarnation, NodeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

const VERSION: u8 = 1;
/// So many addresses are said, and heard, at once.
pub(super) const ADDRESSES_MAX: usize = 64;

/// A number of 16 bytes, as it travels.
type Number = ByteArray<16>;

/// Who wants to come in, and as what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    incarnation: Number,
    /// Where it is dialled.
    pub(crate) address: String,
    /// The name of its certificate; empty for that of its id.
    pub(crate) tls_name: String,
    /// It stays a learner.
    pub(crate) learner: bool,
    /// Whose place it takes; 0 for nobody's.
    replacing: u64,
}

impl Wish {
    pub(crate) fn new(
        incarnation: Incarnation,
        address: String,
        tls_name: String,
        learner: bool,
        replacing: Option<NodeId>,
    ) -> Self {
        Self {
            incarnation: number(incarnation.0),
            address,
            tls_name,
            learner,
            replacing: replacing.unwrap_or_default().0,
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation(u128::from_be_bytes(*self.incarnation))
    }

    pub(crate) fn replacing(&self) -> Option<NodeId> {
        (self.replacing != 0).then_some(NodeId(self.replacing))
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Let me in.
    Join(Wish),
    /// Is the node with this folder here?
    Reach(Number),
    /// Join the cluster that is found here.
    Invite {
        cluster: Number,
        addresses: Vec<String>,
        learner: bool,
        replacing: u64,
    },
    /// I am of this cluster: where are its nodes?
    Who(Number),
}

impl Ask {
    pub(crate) fn reach(incarnation: Incarnation) -> Self {
        Self::Reach(number(incarnation.0))
    }

    pub(crate) fn who(cluster: ClusterId) -> Self {
        Self::Who(number(cluster.0))
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// You are in, as this node.
    Welcome(Welcome),
    /// Ask there.
    Redirect { addresses: Vec<String> },
    /// Ask again, so many milliseconds later.
    Wait { ms: u64, why: String },
    /// Yes, and this is my folder.
    Here(Number),
    /// No: another node is here.
    NotHere,
    /// This node is of another cluster. (Which one is nobody's business who is not of it.)
    Other,
    /// The nodes of the cluster.
    Nodes(Vec<(u64, String)>),
}

/// What a node that has come in must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    id: u64,
    cluster: Number,
    #[serde(with = "serde_bytes")]
    configuration: Vec<u8>,
}

impl Welcome {
    pub(crate) fn new(id: NodeId, cluster: ClusterId, configuration: &Configuration) -> Self {
        Self {
            id: id.0,
            cluster: number(cluster.0),
            configuration: configuration.encode().to_vec(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        NodeId(self.id)
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        ClusterId(u128::from_be_bytes(*self.cluster))
    }

    /// Who is in the cluster; none if that is no configuration.
    pub(crate) fn configuration(&self) -> Option<Configuration> {
        Configuration::decode(&self.configuration).ok()
    }
}

impl Answer {
    pub(crate) fn wait(ms: u64, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::Wait { ms, why }
    }

    pub(crate) fn here(incarnation: Incarnation) -> Self {
        Self::Here(number(incarnation.0))
    }

    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

pub(crate) fn incarnation(number: &Number) -> Incarnation {
    Incarnation(u128::from_be_bytes(**number))
}

pub(crate) fn cluster(number: &Number) -> ClusterId {
    ClusterId(u128::from_be_bytes(**number))
}

pub(super) fn number(number: u128) -> Number {
    ByteArray::new(number.to_be_bytes())
}

fn encode(body: &impl Serialize) -> Bytes {
    // Encoding plain values into memory cannot fail; an empty visit would be refused as malformed.
    rmp_serde::to_vec(&(VERSION, body))
        .map(Bytes::from)
        .unwrap_or_default()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, body) = rmp_serde::from_slice::<(u8, T)>(bytes).ok()?;
    (version == VERSION).then_some(body)
}

#[cfg(test)]
mod tests {
    use raft_core::membership::Member;

    use super::*;

    fn wish() -> Wish {
        let (address, name) = ("10.0.0.2:7001".to_owned(), "two.example".to_owned());
        Wish::new(Incarnation(7), address, name, true, Some(NodeId(3)))
    }

    #[test]
    fn what_is_asked_is_heard() {
        let invite = Ask::Invite {
            cluster: number(5),
            addresses: vec!["a:1".to_owned()],
            learner: false,
            replacing: 0,
        };
        let who = Ask::who(ClusterId(9));
        for ask in [Ask::Join(wish()), Ask::reach(Incarnation(8)), invite, who] {
            assert_eq!(Ask::decode(&ask.encode()), Some(ask));
        }
        assert_eq!(wish().incarnation(), Incarnation(7));
        assert_eq!(wish().replacing(), Some(NodeId(3)));
    }

    #[test]
    fn what_is_answered_is_heard() {
        let mut configuration = Configuration::of([1, 2].map(NodeId));
        let member = Member {
            incarnation: Some(Incarnation(1)),
            address: "a:1".to_owned(),
            tls_name: String::new(),
        };
        configuration.about.insert(NodeId(2), member);
        let welcome = Welcome::new(NodeId(2), ClusterId(5), &configuration);
        assert_eq!(welcome.configuration(), Some(configuration));
        let answers = [
            Answer::Welcome(welcome),
            Answer::Redirect {
                addresses: vec!["a:1".to_owned()],
            },
            Answer::wait(3, "later"),
            Answer::here(Incarnation(1)),
            Answer::NotHere,
            Answer::Other,
            Answer::Nodes(vec![(1, "a:1".to_owned())]),
        ];
        for answer in answers {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn what_is_neither_is_nothing() {
        for bytes in [&b""[..], &[0xc0], &[0x92, 2, 0xc0], &[0x92, 1, 0xa4]] {
            assert_eq!(Ask::decode(bytes), None);
            assert_eq!(Answer::decode(bytes), None);
        }
    }
}
