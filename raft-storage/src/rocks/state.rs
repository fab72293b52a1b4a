//! What a node knows beside its log: small records in a column family of their own.
//!
//! | record | of | holds |
//! |---|---|---|
//! | `identity` | the folder | node, incarnation, count of starts |
//! | `hard_state` | the group | term and vote |
//! | `cluster` | the group | the cluster's id, once there is one |
//! | `members` | the group | each member with its incarnation, once recorded |
//!
//! Invariants:
//! - Each record is in the frame of [`sealed`]: a version and a checksum.
//! - A key is the group's number and the record's name; what belongs to the folder as a whole stands under a
//!   group that can never be.

use std::collections::BTreeMap;

use raft_core::{ClusterId, HardState, Incarnation, NodeId, Term};
use rocksdb::WriteBatch;

use super::{db::Database, run::GROUP};
use crate::{
    Damage, StorageError,
    error::Item,
    sealed::{self, Fields},
};

const FOLDER: u64 = u64::MAX;

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) starts: u64,
}

/// All records, as they were found.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) owner: Option<Owner>,
    pub(super) hard_state: HardState,
    pub(super) cluster: Option<ClusterId>,
    pub(super) members: Option<BTreeMap<NodeId, Incarnation>>,
}

impl State {
    pub(super) fn load(db: &Database) -> Result<Self, StorageError> {
        Ok(Self {
            owner: load(db, FOLDER, "identity", read_owner)?,
            hard_state: load(db, GROUP, "hard_state", read_hard_state)?.unwrap_or_default(),
            cluster: load(db, GROUP, "cluster", |fields| Ok(ClusterId(fields.u128()?)))?,
            members: load(db, GROUP, "members", read_members)?,
        })
    }
}

fn load<T>(
    db: &Database,
    group: u64,
    name: &'static str,
    read: impl FnOnce(&mut Fields<'_>) -> Result<T, Damage>,
) -> Result<Option<T>, StorageError> {
    let key = key(group, name);
    let Some(value) = db.get_state(&key)? else {
        return Ok(None);
    };
    let parsed = sealed::open(&key, &value).and_then(|body| {
        let mut fields = Fields(body);
        let record = read(&mut fields)?;
        if fields.0.is_empty() {
            Ok(record)
        } else {
            Err(Damage::Length)
        }
    });
    match parsed {
        Ok(record) => Ok(Some(record)),
        Err(damage) => Err(db.damaged(Item::Record(name), damage)),
    }
}

fn key(group: u64, name: &str) -> Vec<u8> {
    [&group.to_be_bytes(), name.as_bytes()].concat()
}

fn put(
    db: &Database,
    batch: &mut WriteBatch,
    group: u64,
    name: &str,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let key = key(group, name);
    let mut value = Vec::new();
    sealed::begin(&mut value);
    body(&mut value);
    sealed::finish(&key, &mut value);
    db.put_state(batch, &key, &value);
}

fn read_owner(fields: &mut Fields<'_>) -> Result<Owner, Damage> {
    Ok(Owner {
        node: NodeId(fields.u64()?),
        incarnation: Incarnation(fields.u128()?),
        starts: fields.u64()?,
    })
}

pub(super) fn put_owner(db: &Database, batch: &mut WriteBatch, owner: Owner) {
    put(db, batch, FOLDER, "identity", |out| {
        out.extend_from_slice(&owner.node.0.to_be_bytes());
        out.extend_from_slice(&owner.incarnation.0.to_be_bytes());
        out.extend_from_slice(&owner.starts.to_be_bytes());
    });
}

fn read_hard_state(fields: &mut Fields<'_>) -> Result<HardState, Damage> {
    Ok(HardState {
        term: Term(fields.u64()?),
        voted_for: fields.option_u64()?.map(NodeId),
    })
}

pub(super) fn put_hard_state(db: &Database, batch: &mut WriteBatch, hard_state: HardState) {
    put(db, batch, GROUP, "hard_state", |out| {
        out.extend_from_slice(&hard_state.term.0.to_be_bytes());
        sealed::put_option_u64(out, hard_state.voted_for.map(|node| node.0));
    });
}

pub(super) fn put_cluster(db: &Database, batch: &mut WriteBatch, cluster: ClusterId) {
    put(db, batch, GROUP, "cluster", |out| {
        out.extend_from_slice(&cluster.0.to_be_bytes());
    });
}

fn read_members(fields: &mut Fields<'_>) -> Result<BTreeMap<NodeId, Incarnation>, Damage> {
    let mut members = BTreeMap::new();
    while !fields.0.is_empty() {
        members.insert(NodeId(fields.u64()?), Incarnation(fields.u128()?));
    }
    Ok(members)
}

pub(super) fn put_members(
    db: &Database,
    batch: &mut WriteBatch,
    members: &BTreeMap<NodeId, Incarnation>,
) {
    put(db, batch, GROUP, "members", |out| {
        for (node, incarnation) in members {
            out.extend_from_slice(&node.0.to_be_bytes());
            out.extend_from_slice(&incarnation.0.to_be_bytes());
        }
    });
}
