//! Why one node will not talk to another.
//!
//! Invariants: a refusal travels by number, with its fields and its text, so that a program which
//! does not know the number can still show the text; `ours` is always the node that holds the
//! value, on either side; what a stranger wrote is bounded and holds no control characters.

use std::fmt;

use raft_core::{ClusterId, Incarnation, LogId, LogIndex, NodeId, Term};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::DecodeError;
use crate::decode::{decode_body, in_id, in_index, in_term};
use crate::header::FrameKind;
use crate::wire::{List, RefuseBody};

/// The longest text of a refusal, in bytes.
const TEXT_LEN_MAX: usize = 1024;
/// Once the text of a list of ids is that long, in bytes, no further one is shown.
const IDS_TEXT_LEN_MAX: usize = 384;
/// So many ids of each list travel: with the text they fit a frame of a handshake, whatever they are.
const IDS_MAX: usize = 128;

/// Why one node will not talk to another. The text says what to do about it, and is meant for both
/// sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The two programs have no protocol version in common.
    #[error(
        "the other program speaks protocol versions {theirs_min} to {theirs_max}, this one \
         {ours_min} to {ours_max}: upgrade the older one, one version at a time"
    )]
    Version {
        /// The oldest that the other side speaks.
        theirs_min: u8,
        /// The newest that the other side speaks.
        theirs_max: u8,
        /// The oldest that this side speaks.
        ours_min: u8,
        /// The newest that this side speaks.
        ours_max: u8,
    },
    /// The two nodes belong to different clusters.
    #[error(
        "the other node belongs to cluster {theirs}, this one to {ours}: check the addresses in \
         the list of peers, and that each data folder is the one meant"
    )]
    WrongCluster {
        /// The other node's cluster.
        theirs: ClusterId,
        /// This node's.
        ours: ClusterId,
    },
    /// The node at the dialled address is another one than the dialler wanted.
    #[error(
        "node {asked} was dialled, but node {am} is at that address: check the addresses in the \
         list of peers"
    )]
    NotMe {
        /// Whom the dialler wanted.
        asked: NodeId,
        /// Who is there.
        am: NodeId,
    },
    /// A node dialled itself.
    #[error(
        "node {node} dialled itself: an address in its list of peers is its own; check the list"
    )]
    Itself {
        /// The node.
        node: NodeId,
    },
    /// The node is not one of the cluster's.
    #[error(
        "node {node} is not in the other node's list of peers: give all nodes the same list, or \
         add it to the cluster"
    )]
    UnknownNode {
        /// The node that is not listed.
        node: NodeId,
    },
    /// The node came back with another data folder than the cluster knows it by.
    #[error(
        "node {node} is known by data folder {known} and has shown {shown}: its disk was wiped \
         or it runs on another folder; give it its folder back, or remove the node and let it \
         rejoin"
    )]
    WrongIncarnation {
        /// Whose folder it is.
        node: NodeId,
        /// The one that the cluster knows.
        known: Incarnation,
        /// The one that the node has.
        shown: Incarnation,
    },
    /// The node runs on an old copy of its data folder.
    #[error(
        "node {node} shows start {shown} of its data folder, but start {seen_starts} was seen: \
         it runs on an old copy; give it the newest one, or remove the node and let it rejoin"
    )]
    OldCopy {
        /// The node.
        node: NodeId,
        /// The highest start counter that it has shown.
        seen_starts: u64,
        /// The one that it shows now.
        shown: u64,
    },
    /// Two processes call themselves the same node.
    #[error(
        "another process runs as node {node} already: stop one of the two, or give each an id \
         and a data folder of its own"
    )]
    DuplicateNode {
        /// The node.
        node: NodeId,
    },
    /// One of the two nodes is not born yet, and they list different members: they would form
    /// clusters whose majorities need not meet.
    #[error(
        "the other node's list of peers names the nodes {}, this one's {}: give all nodes the \
         same list",
        Ids(theirs),
        Ids(ours)
    )]
    OtherPeers {
        /// The members that the other node lists, itself included, in order. Of a long list that
        /// came with a refusal it is the beginning.
        theirs: Vec<NodeId>,
        /// Those that this node lists.
        ours: Vec<NodeId>,
    },
    /// The node came back without what an earlier process of it had acknowledged to the other: its disk
    /// has lost synced writes. One witness is enough.
    #[error(
        "node {node} has acknowledged term {term} and its log through {acknowledged}, and its disk came \
         back in term {found_term} with a log that ends at {found}: it has lost synced writes; give it \
         its data folder back as it was, or remove the node and let it rejoin"
    )]
    LostAcknowledged {
        /// Whose disk it is.
        node: NodeId,
        /// The last term that it has claimed.
        term: Term,
        /// How far it had acknowledged the log, as far as that may not have been cut off since.
        acknowledged: LogIndex,
        /// The term that its disk held when its process started.
        found_term: Term,
        /// The last entry that it held then.
        found: LogId,
    },
    /// What came is not a handshake.
    #[error("what came is not a handshake ({what}): check that the address is a node's")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// The accepting side has as many connections as it takes.
    #[error("too many connections: try again later, and find out who holds them")]
    TooManyConnections,
    /// The handshake took too long.
    #[error("the handshake did not end within {limit_ms} ms: check the network")]
    Slow {
        /// The limit.
        limit_ms: u64,
    },
    /// The dialling side did not say back what the accepting side had just told it: somebody plays a recorded
    /// session again.
    #[error(
        "the connection confirms what another one was asked: a recorded session was played again; find \
         out who does that, and use TLS"
    )]
    Replayed,
    /// A reason that this program is too old to know.
    #[error("{text}")]
    Other {
        /// The reason's number.
        number: u8,
        /// What the other side says about it.
        text: String,
    },
}

/// Shows ids, as many as a log line should hold.
struct Ids<'a>(&'a [NodeId]);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (shown, id) in self.0.iter().enumerate() {
            if text.len() > IDS_TEXT_LEN_MAX {
                let more = self.0.len() - shown;
                return write!(f, "{{{text} and {more} more}}");
            }
            let comma = if shown == 0 { "" } else { ", " };
            text.push_str(comma);
            text.push_str(&id.to_string());
        }
        write!(f, "{{{text}}}")
    }
}

type Id = ByteArray<16>;

fn id(number: u128) -> Id {
    ByteArray::new(number.to_be_bytes())
}

fn number(id: Id) -> u128 {
    u128::from_be_bytes(id.into_array())
}

#[derive(Serialize, Deserialize)]
struct VersionDetails {
    refuser_min: u8,
    refuser_max: u8,
    refused_min: u8,
    refused_max: u8,
}

#[derive(Serialize, Deserialize)]
struct ClusterDetails {
    refuser: Id,
    refused: Id,
}

#[derive(Serialize, Deserialize)]
struct PeersDetails {
    refuser: List<u64, IDS_MAX>,
    refused: List<u64, IDS_MAX>,
}

#[derive(Serialize, Deserialize)]
struct IncarnationDetails {
    node: u64,
    known: Id,
    shown: Id,
}

#[derive(Serialize, Deserialize)]
struct LostDetails {
    node: u64,
    term: u64,
    acknowledged: u64,
    found_term: u64,
    found_last_term: u64,
    found_last_index: u64,
}

#[derive(Serialize, Deserialize)]
struct CopyDetails {
    node: u64,
    seen_starts: u64,
    shown: u64,
}

impl Refusal {
    /// The number that it travels by; never changes its meaning.
    #[must_use]
    pub fn number(&self) -> u8 {
        match self {
            Self::Version { .. } => 1,
            Self::WrongCluster { .. } => 2,
            Self::NotMe { .. } => 3,
            Self::Itself { .. } => 4,
            Self::UnknownNode { .. } => 5,
            Self::WrongIncarnation { .. } => 6,
            Self::OldCopy { .. } => 7,
            Self::DuplicateNode { .. } => 8,
            Self::Malformed { .. } => 9,
            Self::TooManyConnections => 10,
            Self::Slow { .. } => 11,
            Self::OtherPeers { .. } => 12,
            Self::LostAcknowledged { .. } => 13,
            Self::Replayed => 23,
            Self::Other { number, .. } => *number,
        }
    }

    /// One word for the refusal that travels by `number`, for counters.
    #[must_use]
    pub fn name_of(number: u8) -> &'static str {
        match number {
            1 => "version",
            2 => "wrong_cluster",
            3 => "not_me",
            4 => "itself",
            5 => "unknown_node",
            6 => "wrong_incarnation",
            7 => "old_copy",
            8 => "duplicate_node",
            9 => "malformed",
            10 => "too_many_connections",
            11 => "slow",
            12 => "other_peers",
            13 => "lost_acknowledged",
            23 => "replayed",
            _ => "other",
        }
    }

    /// The same without what would have been right: who has not shown who it is could come back with it. Of ids only
    /// the first eight digits are left, by which people tell them apart; the log of this side holds the whole.
    pub(crate) fn without_secrets(&self) -> Self {
        let start = |id: u128| id & !(u128::MAX >> 32);
        match self {
            Self::WrongCluster { theirs, ours } => Self::WrongCluster {
                theirs: *theirs,
                ours: ClusterId(start(ours.0)),
            },
            Self::WrongIncarnation { node, known, shown } => Self::WrongIncarnation {
                node: *node,
                known: Incarnation(start(known.0)),
                shown: Incarnation(start(shown.0)),
            },
            other => other.clone(),
        }
    }

    pub(crate) fn malformed(error: &DecodeError) -> Self {
        Self::Malformed {
            what: printable(&error.to_string()),
        }
    }

    /// Its text, as it travels.
    pub(crate) fn text(&self) -> String {
        printable(&self.to_string())
    }

    /// Its fields, as they travel: from the view of the side that refuses.
    pub(crate) fn details(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        match self {
            &Self::Version {
                theirs_min,
                theirs_max,
                ours_min,
                ours_max,
            } => rmp_serde::to_vec(&VersionDetails {
                refuser_min: ours_min,
                refuser_max: ours_max,
                refused_min: theirs_min,
                refused_max: theirs_max,
            }),
            Self::WrongCluster { theirs, ours } => rmp_serde::to_vec(&ClusterDetails {
                refuser: id(ours.0),
                refused: id(theirs.0),
            }),
            Self::NotMe { asked, am } => rmp_serde::to_vec(&(asked.0, am.0)),
            Self::Itself { node } | Self::UnknownNode { node } | Self::DuplicateNode { node } => {
                rmp_serde::to_vec(&node.0)
            }
            Self::WrongIncarnation { node, known, shown } => {
                rmp_serde::to_vec(&IncarnationDetails {
                    node: node.0,
                    known: id(known.0),
                    shown: id(shown.0),
                })
            }
            Self::OldCopy {
                node,
                seen_starts,
                shown,
            } => rmp_serde::to_vec(&CopyDetails {
                node: node.0,
                seen_starts: *seen_starts,
                shown: *shown,
            }),
            &Self::LostAcknowledged {
                node,
                term,
                acknowledged,
                found_term,
                found,
            } => rmp_serde::to_vec(&LostDetails {
                node: node.0,
                term: term.0,
                acknowledged: acknowledged.0,
                found_term: found_term.0,
                found_last_term: found.term.0,
                found_last_index: found.index.0,
            }),
            Self::Slow { limit_ms } => rmp_serde::to_vec(limit_ms),
            Self::OtherPeers { theirs, ours } => {
                let ids = |ids: &[NodeId]| List(ids.iter().take(IDS_MAX).map(|id| id.0).collect());
                rmp_serde::to_vec(&PeersDetails {
                    refuser: ids(ours),
                    refused: ids(theirs),
                })
            }
            Self::Malformed { what } => rmp_serde::to_vec(what),
            Self::TooManyConnections | Self::Replayed | Self::Other { .. } => Ok(Vec::new()),
        }
    }

    /// Reads what the other side refused with; `theirs` and `ours` change places.
    pub(crate) fn from_body(body: &RefuseBody<'_>) -> Result<Self, DecodeError> {
        let details = body.details;
        let kind = FrameKind::Refuse;
        Ok(match body.number {
            1 => {
                let details: VersionDetails = decode_body(kind, details)?;
                Self::Version {
                    theirs_min: details.refuser_min,
                    theirs_max: details.refuser_max,
                    ours_min: details.refused_min,
                    ours_max: details.refused_max,
                }
            }
            2 => {
                let details: ClusterDetails = decode_body(kind, details)?;
                Self::WrongCluster {
                    theirs: ClusterId(number(details.refuser)),
                    ours: ClusterId(number(details.refused)),
                }
            }
            3 => {
                let (asked, am) = decode_body(kind, details)?;
                Self::NotMe {
                    asked: NodeId(asked),
                    am: NodeId(am),
                }
            }
            4 => Self::Itself {
                node: NodeId(decode_body(kind, details)?),
            },
            5 => Self::UnknownNode {
                node: NodeId(decode_body(kind, details)?),
            },
            6 => {
                let details: IncarnationDetails = decode_body(kind, details)?;
                Self::WrongIncarnation {
                    node: NodeId(details.node),
                    known: Incarnation(number(details.known)),
                    shown: Incarnation(number(details.shown)),
                }
            }
            7 => {
                let details: CopyDetails = decode_body(kind, details)?;
                Self::OldCopy {
                    node: NodeId(details.node),
                    seen_starts: details.seen_starts,
                    shown: details.shown,
                }
            }
            8 => Self::DuplicateNode {
                node: NodeId(decode_body(kind, details)?),
            },
            9 => Self::Malformed {
                what: printable(decode_body(kind, details)?),
            },
            10 => Self::TooManyConnections,
            11 => Self::Slow {
                limit_ms: decode_body(kind, details)?,
            },
            12 => {
                let details: PeersDetails = decode_body(kind, details)?;
                let ids = |ids: List<u64, IDS_MAX>| ids.0.into_iter().map(NodeId).collect();
                Self::OtherPeers {
                    theirs: ids(details.refuser),
                    ours: ids(details.refused),
                }
            }
            13 => {
                let details: LostDetails = decode_body(kind, details)?;
                Self::LostAcknowledged {
                    node: NodeId(details.node),
                    term: in_term(details.term)?,
                    acknowledged: in_index(details.acknowledged)?,
                    found_term: in_term(details.found_term)?,
                    found: in_id(details.found_last_term, details.found_last_index)?,
                }
            }
            23 => Self::Replayed,
            number => Self::Other {
                number,
                text: printable(body.text),
            },
        })
    }
}

/// `text` without control characters, cut to what a log line should hold.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if printable.len() + c.len_utf8() > TEXT_LEN_MAX {
            break;
        }
        printable.push(c);
    }
    printable
}
