//! Why one node will not talk to another.
//!
//! Invariants: a refusal travels by number, with its fields and its text, so that a program which
//! does not know the number can still show the text; `ours` is always the node that holds the
//! value, on either side; what a stranger wrote is bounded and holds no control characters.

use std::fmt;

use raft_core::membership::MEMBERS_MAX;
use raft_core::{ClusterId, Incarnation, LogId, LogIndex, NodeId, Term};

use crate::{CertificateProblem, DecodeError};

mod encode;

/// The longest text of a refusal, in bytes.
const TEXT_LEN_MAX: usize = 1024;
/// Once the text of a list of ids is that long, in bytes, no further one is shown.
const IDS_TEXT_LEN_MAX: usize = 384;

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
    /// The accepting node has TLS, and the dialling one does not.
    #[error(
        "the node that was dialled wants TLS, and the dialling one does not speak it: give both --tls-ca, \
         --tls-cert and --tls-key"
    )]
    TlsWanted,
    /// The dialling node has TLS, and the accepting one does not.
    #[error(
        "the node that was dialled does not speak TLS, and the dialling one speaks nothing else: give both \
         --tls-ca, --tls-cert and --tls-key"
    )]
    NoTls,
    /// A certificate is not accepted.
    #[error("{} certificate {problem}", if *.ours { "this node's" } else { "the other node's" })]
    Certificate {
        /// Whether it is this side's.
        ours: bool,
        /// What is wrong with it.
        problem: CertificateProblem,
    },
    /// The dialling side did not say back what the accepting side had just told it: somebody plays a recorded
    /// session again.
    #[error(
        "the connection confirms what another one was asked: a recorded session was played again; find \
         out who does that, and use TLS"
    )]
    Replayed,
    /// The node was removed from the cluster, or has an id that belongs to nobody and is below one that was given:
    /// ids are given in order, and none is given twice.
    #[error(
        "node {node} was removed from the cluster, or never was in it, and its id is not given again: to come \
         in, let it join with an empty data folder"
    )]
    Removed {
        /// The node that is no member.
        node: NodeId,
    },
    /// The node that was dialled is joining a cluster, and does not yet take part as the one that it will be.
    #[error("the node that was dialled is about to join, and not ready: try again later")]
    Joining,
    /// The cluster takes nobody in who asks for it.
    #[error("this cluster does not let nodes join: allow it on its nodes (joins)")]
    NoJoins,
    /// Nobody answers, or somebody else does, where the node that wants to join says that it is.
    #[error(
        "the node that wants to join does not answer at {address}: check that the address is its own, and that \
         the members can reach it (advertise)"
    )]
    Unreachable {
        /// Where it says that it is.
        address: String,
    },
    /// The node that wants to join has not shown a certificate for a name that could be its own.
    #[error(
        "the node that wants to join needs a certificate that holds the name {name}, which no other node may go \
         by: give it one, or a name of its own (own_tls_name)"
    )]
    TlsName {
        /// The name that it asked for or, if it asked for none, would need.
        name: String,
    },
    /// The node that is to be replaced is there.
    #[error("node {node} is to be replaced, and it lives: stop it, or remove it first")]
    Alive {
        /// The node that lives.
        node: NodeId,
    },
    /// The cluster has as many members as it can have.
    #[error("the cluster has {MEMBERS_MAX} members, and cannot have more: remove one first")]
    TooManyMembers,
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
            Self::TlsWanted => 14,
            Self::NoTls => 15,
            Self::Certificate { problem, .. } => match problem {
                CertificateProblem::Expired { .. } => 16,
                CertificateProblem::NotYetValid { .. } => 17,
                CertificateProblem::Name { .. } => 18,
                CertificateProblem::Chain => 19,
                CertificateProblem::Key => 20,
                CertificateProblem::Missing => 21,
                CertificateProblem::Unfit { .. } => 22,
            },
            Self::Replayed => 23,
            Self::Removed { .. } => 24,
            Self::Joining => 25,
            Self::NoJoins => 26,
            Self::Unreachable { .. } => 27,
            Self::TlsName { .. } => 28,
            Self::Alive { .. } => 29,
            Self::TooManyMembers => 30,
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
            14 => "tls_wanted",
            15 => "no_tls",
            16 => "certificate_expired",
            17 => "certificate_not_yet_valid",
            18 => "certificate_name",
            19 => "certificate_chain",
            20 => "certificate_key",
            21 => "certificate_missing",
            22 => "certificate_unfit",
            23 => "replayed",
            24 => "removed",
            25 => "joining",
            26 => "no_joins",
            27 => "unreachable",
            28 => "tls_name",
            29 => "alive",
            30 => "too_many_members",
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
