//! What a node stores beside its log: the bodies of its records, and their keys.
//!
//! Invariants:
//! - Each record is in the frame of [`sealed`]: a version and a checksum. Nothing stands behind its last field.
//! - What was written is read as the same again.
//! - A key is the group's number and the record's name; what belongs to the folder as a whole stands under a
//!   group that can never be.

use std::{collections::BTreeMap, sync::Arc};

use raft_core::{
    ClusterId, HardState, Incarnation, LogId, LogIndex, NodeId, SnapshotMeta, Term,
    membership::Configuration,
};

use crate::{
    Damage,
    run::GROUP,
    sealed::{self, Fields},
    snapshot::files::Named,
};

/// The group of what belongs to the folder as a whole.
pub(crate) const FOLDER: u64 = u64::MAX;
/// What the names of the cursors' records begin with.
pub(crate) const CURSOR: &str = "cursor/";

/// The key of a record.
pub(crate) fn key(group: u64, name: &str) -> Vec<u8> {
    [&group.to_be_bytes(), name.as_bytes()].concat()
}

/// What a record holds.
pub(crate) trait Body: Sized {
    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads it; the caller sees to it that nothing is left.
    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage>;
}

/// The value of a record under `key`.
pub(crate) fn encode(key: &[u8], body: &impl Body) -> Vec<u8> {
    let mut value = Vec::new();
    sealed::begin(&mut value);
    body.write(&mut value);
    sealed::finish(key, &mut value);
    value
}

/// The record whose value was found under `key`.
pub(crate) fn decode<T: Body>(key: &[u8], value: &[u8]) -> Result<T, Damage> {
    let mut fields = Fields(sealed::open(key, value)?);
    let record = T::read(&mut fields)?;
    if fields.0.is_empty() {
        Ok(record)
    } else {
        Err(Damage::Length)
    }
}

/// Whether a record is what was written under its key; with its name, and what is wrong with it.
pub(crate) fn check(key: &[u8], value: &[u8]) -> Result<(), (String, Damage)> {
    let (group, name) = match key.split_first_chunk() {
        Some((group, name)) => (u64::from_be_bytes(*group), String::from_utf8_lossy(name)),
        None => (GROUP, String::from_utf8_lossy(key)),
    };
    let checked = match (group, &*name) {
        (FOLDER, "identity") => decode::<Owner>(key, value).map(drop),
        (GROUP, "hard_state") => decode::<HardState>(key, value).map(drop),
        (GROUP, "cluster") => decode::<ClusterId>(key, value).map(drop),
        (GROUP, "known") => decode::<Configuration>(key, value).map(drop),
        (GROUP, "members") => decode::<Members>(key, value).map(drop),
        (GROUP, "snapshot") => decode::<Pointer>(key, value).map(drop),
        (GROUP, "forced") => decode::<Forced>(key, value).map(drop),
        (GROUP, "records") => decode::<Counted>(key, value).map(drop),
        (GROUP, cursor) if cursor.starts_with(CURSOR) => decode::<LogIndex>(key, value).map(drop),
        _ => sealed::open(key, value).and(Err(Damage::Unknown)),
    };
    checked.map_err(|damage| (name.into_owned(), damage))
}

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// None before it is somebody's, which is stored as 0.
    pub(crate) node: Option<NodeId>,
    pub(crate) incarnation: Incarnation,
    pub(crate) starts: u64,
}

impl Body for Owner {
    fn write(&self, out: &mut Vec<u8>) {
        put_node(out, self.node);
        out.extend_from_slice(&self.incarnation.0.to_be_bytes());
        out.extend_from_slice(&self.starts.to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self {
            node: read_node(fields)?,
            incarnation: Incarnation(fields.u128()?),
            starts: fields.u64()?,
        })
    }
}

impl Body for HardState {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.term.0.to_be_bytes());
        sealed::put_option_u64(out, self.voted_for.map(|node| node.0));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self {
            term: Term(fields.u64()?),
            voted_for: fields.option_u64()?.map(NodeId),
        })
    }
}

impl Body for ClusterId {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self(fields.u128()?))
    }
}

impl Body for Configuration {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.encode());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self::decode(fields.rest())?)
    }
}

/// Each member with its incarnation: how it was written before there was more to say.
pub(crate) type Members = BTreeMap<NodeId, Incarnation>;

impl Body for Members {
    fn write(&self, out: &mut Vec<u8>) {
        for (node, incarnation) in self {
            out.extend_from_slice(&node.0.to_be_bytes());
            out.extend_from_slice(&incarnation.0.to_be_bytes());
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let mut members = Self::new();
        while !fields.0.is_empty() {
            members.insert(NodeId(fields.u64()?), Incarnation(fields.u128()?));
        }
        Ok(members)
    }
}

/// The snapshot that the node starts from, and where its log begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) meta: SnapshotMeta,
    /// The last entry that the log does not hold any more.
    pub(crate) log_start: LogId,
    /// Which file it is, and how many bytes the state has: another one of the same name is another's.
    pub(crate) id: u128,
    pub(crate) bytes: u64,
    /// No run that begins before this is of the log. One may come to light again when the files are dropped that
    /// had cut it off.
    pub(crate) first_run: LogIndex,
}

impl Pointer {
    pub(crate) fn named(&self) -> Named {
        Named {
            last: self.meta.last,
            id: self.id,
            bytes: self.bytes,
        }
    }
}

impl Body for Pointer {
    fn write(&self, out: &mut Vec<u8>) {
        put_id(out, self.meta.last);
        put_id(out, self.log_start);
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.bytes.to_be_bytes());
        out.extend_from_slice(&self.first_run.0.to_be_bytes());
        out.extend_from_slice(&self.meta.configuration.encode());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let (last, log_start) = (read_id(fields)?, read_id(fields)?);
        let (id, bytes) = (fields.u128()?, fields.u64()?);
        let first_run = LogIndex(fields.u64()?);
        let configuration = Arc::new(Configuration::decode(fields.rest())?);
        Ok(Self {
            meta: SnapshotMeta {
                last,
                configuration,
            },
            log_start,
            id,
            bytes,
            first_run,
        })
    }
}

/// A configuration that an operator has put in the place of all that stand in the log up to `through`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forced {
    pub(crate) through: LogIndex,
    pub(crate) configuration: Configuration,
}

impl Body for Forced {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.through.0.to_be_bytes());
        out.extend_from_slice(&self.configuration.encode());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        let through = LogIndex(fields.u64()?);
        let configuration = Configuration::decode(fields.rest())?;
        Ok(Self {
            through,
            configuration,
        })
    }
}

/// How often what is written seldom was written, and a checksum over all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) records: u64,
    pub(crate) sum: u32,
}

impl Body for Counted {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.records.to_be_bytes());
        out.extend_from_slice(&self.sum.to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self {
            records: fields.u64()?,
            sum: fields.u32()?,
        })
    }
}

/// Where a cursor is.
impl Body for LogIndex {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        Ok(Self(fields.u64()?))
    }
}

/// A node that need not be given yet: ids begin with 1, and 0 is none.
pub(crate) fn read_node(fields: &mut Fields<'_>) -> Result<Option<NodeId>, Damage> {
    let node = NodeId(fields.u64()?);
    Ok((node != NodeId(0)).then_some(node))
}

pub(crate) fn put_node(out: &mut Vec<u8>, node: Option<NodeId>) {
    let NodeId(number) = node.unwrap_or(NodeId(0));
    out.extend_from_slice(&number.to_be_bytes());
}

fn read_id(fields: &mut Fields<'_>) -> Result<LogId, Damage> {
    Ok(LogId::new(Term(fields.u64()?), LogIndex(fields.u64()?)))
}

fn put_id(out: &mut Vec<u8>, id: LogId) {
    out.extend_from_slice(&id.term.0.to_be_bytes());
    out.extend_from_slice(&id.index.0.to_be_bytes());
}
