//! How a refusal travels: by number and fields, in a `Refuse`.
//!
//! Invariant: what a number means, and which fields it has, never changes once it is released.

use raft_core::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::{Refusal, printable};
use crate::decode::{decode_body, in_id, in_index, in_term};
use crate::header::FrameKind;
use crate::tls::{time, unix_seconds};
use crate::wire::{List, RefuseBody};
use crate::{CertificateProblem, DecodeError};

/// So many ids of each list travel: with the text they fit a frame of a handshake, whatever they are.
const IDS_MAX: usize = 128;

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
            Self::Itself { node }
            | Self::UnknownNode { node }
            | Self::DuplicateNode { node }
            | Self::Removed { node }
            | Self::Alive { node } => rmp_serde::to_vec(&node.0),
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
            Self::Malformed { what: text }
            | Self::Unreachable { address: text }
            | Self::TlsName { name: text } => rmp_serde::to_vec(text),
            // A frame tells of a certificate only to the side whose it is.
            Self::Certificate { problem, .. } => match problem {
                CertificateProblem::Expired { not_after: time }
                | CertificateProblem::NotYetValid { not_before: time } => {
                    rmp_serde::to_vec(&unix_seconds(*time))
                }
                CertificateProblem::Name { expected: text }
                | CertificateProblem::Unfit { what: text } => rmp_serde::to_vec(text),
                CertificateProblem::Chain
                | CertificateProblem::Key
                | CertificateProblem::Missing => Ok(Vec::new()),
            },
            Self::TooManyConnections
            | Self::TlsWanted
            | Self::NoTls
            | Self::Replayed
            | Self::Joining
            | Self::NoJoins
            | Self::TooManyMembers
            | Self::Other { .. } => Ok(Vec::new()),
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
            14 => Self::TlsWanted,
            15 => Self::NoTls,
            number @ 16..=22 => Self::Certificate {
                ours: true,
                problem: match number {
                    16 => CertificateProblem::Expired {
                        not_after: time(decode_body(kind, details)?),
                    },
                    17 => CertificateProblem::NotYetValid {
                        not_before: time(decode_body(kind, details)?),
                    },
                    18 => CertificateProblem::Name {
                        expected: printable(decode_body(kind, details)?),
                    },
                    19 => CertificateProblem::Chain,
                    20 => CertificateProblem::Key,
                    21 => CertificateProblem::Missing,
                    _ => CertificateProblem::Unfit {
                        what: printable(decode_body(kind, details)?),
                    },
                },
            },
            23 => Self::Replayed,
            24 => Self::Removed {
                node: NodeId(decode_body(kind, details)?),
            },
            25 => Self::Joining,
            26 => Self::NoJoins,
            27 => Self::Unreachable {
                address: printable(decode_body(kind, details)?),
            },
            28 => Self::TlsName {
                name: printable(decode_body(kind, details)?),
            },
            29 => Self::Alive {
                node: NodeId(decode_body(kind, details)?),
            },
            30 => Self::TooManyMembers,
            number => Self::Other {
                number,
                text: printable(body.text),
            },
        })
    }
}
