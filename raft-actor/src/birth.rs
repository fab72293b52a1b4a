//! How a cluster that starts from a fixed list is born: once, and unanimously.
//!
//! A folder that is new neither votes nor acknowledges until every listed peer has answered with its
//! incarnation; then the whole list of incarnations is made durable and never changes. (Else two empty
//! folders, one of them a disk that was lost, could elect each other over the head of what a third had
//! committed.) The first leader puts that list and a random cluster id into the first entry of the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// The version of the encoding of [`Birth`].
const VERSION: u8 = 1;

/// What the first entry of a cluster's log says: who the cluster is. For tools that read a log; a node deals with it
/// by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The cluster's id, drawn at random by its first leader.
    pub cluster: ClusterId,
    /// The nodes that it was born of, each with the incarnation of its folder.
    pub members: BTreeMap<NodeId, Incarnation>,
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    version: u8,
    cluster: serde_bytes::ByteArray<16>,
    members: Vec<(u64, serde_bytes::ByteArray<16>)>,
}

impl Birth {
    pub(crate) fn encode(&self) -> Bytes {
        let bytes = |number: u128| serde_bytes::ByteArray::new(number.to_be_bytes());
        let encoded = Encoded {
            version: VERSION,
            cluster: bytes(self.cluster.0),
            members: self
                .members
                .iter()
                .map(|(id, folder)| (id.0, bytes(folder.0)))
                .collect(),
        };
        // Encoding plain numbers into memory cannot fail; an empty entry would be refused by all.
        rmp_serde::to_vec(&encoded)
            .map(Bytes::from)
            .unwrap_or_default()
    }

    /// Reads the data of an entry of [`EntryKind::Birth`](raft_core::EntryKind::Birth); none if it is of no version
    /// that this program knows.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let encoded: Encoded = rmp_serde::from_slice(bytes).ok()?;
        let number = |bytes: serde_bytes::ByteArray<16>| u128::from_be_bytes(bytes.into_array());
        let members = encoded.members.into_iter();
        (encoded.version == VERSION).then(|| Self {
            cluster: ClusterId(number(encoded.cluster)),
            members: members
                .map(|(id, folder)| (NodeId(id), Incarnation(number(folder))))
                .collect(),
        })
    }
}

/// Who has answered so far.
#[derive(Debug)]
pub(crate) struct Forming {
    listed: Vec<NodeId>,
    heard: BTreeMap<NodeId, Incarnation>,
    /// The list is complete, and on its way to the disk.
    pub(crate) recording: bool,
}

impl Forming {
    pub(crate) fn new(own: NodeId, incarnation: Incarnation, listed: Vec<NodeId>) -> Self {
        Self {
            listed,
            heard: BTreeMap::from([(own, incarnation)]),
            recording: false,
        }
    }

    /// A peer has answered. One that answers again with another folder replaces the first.
    pub(crate) fn heard(&mut self, peer: NodeId, incarnation: Incarnation) {
        if !self.recording {
            self.heard.insert(peer, incarnation);
        }
    }

    /// A peer that has answered went away before the list was complete, or refuses this node after all.
    pub(crate) fn lost(&mut self, peer: NodeId) {
        if !self.recording {
            self.heard.remove(&peer);
        }
    }

    pub(crate) fn waiting_for(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.listed
            .iter()
            .copied()
            .filter(|id| !self.heard.contains_key(id))
    }

    /// The list of all incarnations, once it is complete.
    pub(crate) fn complete(&self) -> Option<BTreeMap<NodeId, Incarnation>> {
        self.waiting_for()
            .next()
            .is_none()
            .then(|| self.heard.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_birth_is_read_as_it_was_written() {
        let members = [
            (NodeId(1), Incarnation(7)),
            (NodeId(2), Incarnation(u128::MAX)),
        ]
        .into();
        let birth = Birth {
            cluster: ClusterId(u128::MAX - 5),
            members,
        };
        assert_eq!(Birth::decode(&birth.encode()), Some(birth));
        assert_eq!(Birth::decode(b""), None);
        assert_eq!(Birth::decode(&[0x93, 2, 0xc4, 0, 0x90]), None);
    }

    #[test]
    fn nobody_is_born_before_all_have_answered() {
        let ids = [1, 2, 3].map(NodeId);
        let mut forming = Forming::new(ids[0], Incarnation(10), ids.to_vec());
        forming.heard(ids[1], Incarnation(20));
        assert_eq!(forming.waiting_for().collect::<Vec<_>>(), [ids[2]]);
        assert_eq!(forming.complete(), None);
        forming.lost(ids[1]);
        forming.heard(ids[2], Incarnation(30));
        assert_eq!(forming.complete(), None);
        forming.heard(ids[1], Incarnation(21));
        assert_eq!(forming.complete().unwrap()[&ids[1]], Incarnation(21));
    }
}
