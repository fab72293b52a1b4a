//! The bytes of a [`Configuration`], in log entries, in snapshots and in their offers.
//!
//! Invariants:
//! - A configuration has one encoding: what [`decode`](Configuration::decode) takes is what
//!   [`encode`](Configuration::encode) makes of it again, byte for byte.
//! - What format 1 can say is said in format 1. So a cluster of which nothing but ids is known, and that never lost
//!   a member, writes what it always wrote.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Configuration, Member};
use crate::{Incarnation, NodeId};

/// Ids, and what they are.
const IDS: u8 = 1;
/// That, and what is known of the members.
const MEMBERS: u8 = 2;

/// Bytes that are no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A program of this version cannot know what it means.
    #[error("configuration of format {0}, and this program knows formats {IDS} and {MEMBERS}")]
    Format(u8),
    /// It ends too early, has something behind its end, breaks an invariant, or says what it says in another way than
    /// [`encode`](Configuration::encode) does.
    #[error("these bytes are no configuration")]
    Damaged,
}

impl Configuration {
    /// The bytes of an [`EntryKind::Configuration`](crate::EntryKind::Configuration).
    ///
    /// Format 1: the format, whether it leaves by itself (0 or 1), then five lists of ids (voters,
    /// outgoing voters, learners, learners to be, joining) and one of ids with their priorities. A list is
    /// its length in 2 bytes, then ids in 8 bytes each, then the priority in 4; all big-endian.
    ///
    /// Format 2, where there is more to say: the same, then [`last_id`](Self::last_id) in 8 bytes and a list of what
    /// is known [`about`](Self::about) members: the id in 8 bytes, whether the incarnation is known (0 or 1) and if
    /// so its 16 bytes, the address with its length in 2 bytes, the TLS name with its length in 1. With
    /// [`MEMBERS_MAX`](super::MEMBERS_MAX) members, all described at length, it takes less than 150 KiB.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let more = self.last_id != NodeId(0) || !self.about.is_empty();
        let mut bytes = BytesMut::new();
        bytes.put_u8(if more { MEMBERS } else { IDS });
        bytes.put_u8(u8::from(self.auto_leave));
        for ids in self.lists() {
            bytes.put_u16(ids.len() as u16);
            for id in ids {
                bytes.put_u64(id.0);
            }
        }
        bytes.put_u16(self.priorities.len() as u16);
        for (id, priority) in &self.priorities {
            bytes.put_u64(id.0);
            bytes.put_u32(*priority);
        }
        if more {
            bytes.put_u64(self.last_id.0);
            bytes.put_u16(self.about.len() as u16);
            for (id, member) in &self.about {
                bytes.put_u64(id.0);
                member.put(&mut bytes);
            }
        }
        bytes.freeze()
    }

    fn lists(&self) -> [&BTreeSet<NodeId>; 5] {
        [
            &self.voters,
            &self.voters_outgoing,
            &self.learners,
            &self.learners_next,
            &self.joining,
        ]
    }

    /// The configuration that [`encode`](Self::encode) made `bytes` of.
    ///
    /// # Errors
    /// [`DecodeError`]. It takes memory only as far as `bytes` go, whatever they claim.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let decoded = match bytes.first() {
            None | Some(&(IDS | MEMBERS)) => take(bytes).ok_or(DecodeError::Damaged)?,
            Some(other) => return Err(DecodeError::Format(*other)),
        };
        if decoded.validate().is_some() || decoded.encode() != bytes {
            return Err(DecodeError::Damaged);
        }
        Ok(decoded)
    }
}

impl Member {
    fn put(&self, bytes: &mut BytesMut) {
        bytes.put_u8(u8::from(self.incarnation.is_some()));
        if let Some(incarnation) = self.incarnation {
            bytes.put_u128(incarnation.0);
        }
        bytes.put_u16(self.address.len() as u16);
        bytes.put_slice(self.address.as_bytes());
        bytes.put_u8(self.tls_name.len() as u8);
        bytes.put_slice(self.tls_name.as_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let incarnation = match bytes.try_get_u8().ok()? {
            0 => None,
            _ => Some(Incarnation(bytes.try_get_u128().ok()?)),
        };
        let len = bytes.try_get_u16().ok()?.into();
        let address = take_text(bytes, len)?;
        let len = bytes.try_get_u8().ok()?.into();
        let tls_name = take_text(bytes, len)?;
        Some(Self {
            incarnation,
            address,
            tls_name,
        })
    }
}

/// What `bytes` begin with, if they are long enough. Whether they are all of it, in order and once, shows when it is
/// encoded again.
fn take(mut bytes: &[u8]) -> Option<Configuration> {
    let bytes = &mut bytes;
    let format = bytes.try_get_u8().ok()?;
    let mut taken = Configuration {
        auto_leave: bytes.try_get_u8().ok()? != 0,
        ..Configuration::default()
    };
    for list in [
        &mut taken.voters,
        &mut taken.voters_outgoing,
        &mut taken.learners,
        &mut taken.learners_next,
        &mut taken.joining,
    ] {
        for _ in 0..bytes.try_get_u16().ok()? {
            list.insert(NodeId(bytes.try_get_u64().ok()?));
        }
    }
    for _ in 0..bytes.try_get_u16().ok()? {
        let id = NodeId(bytes.try_get_u64().ok()?);
        taken.priorities.insert(id, bytes.try_get_u32().ok()?);
    }
    if format == MEMBERS {
        taken.last_id = NodeId(bytes.try_get_u64().ok()?);
        for _ in 0..bytes.try_get_u16().ok()? {
            let id = NodeId(bytes.try_get_u64().ok()?);
            taken.about.insert(id, Member::take(bytes)?);
        }
    }
    Some(taken)
}

fn take_text(bytes: &mut &[u8], len: usize) -> Option<String> {
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    std::str::from_utf8(text).ok().map(str::to_owned)
}
