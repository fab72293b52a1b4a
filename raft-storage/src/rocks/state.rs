//! What a node knows beside its log: small records in a column family of their own.
//!
//! | record | of | holds |
//! |---|---|---|
//! | `identity` | the folder | node, incarnation, count of starts |
//! | `hard_state` | the group | term and vote |
//! | `cluster` | the group | the cluster's id, once there is one |
//! | `members` | the group | each member with its incarnation, once recorded |
//! | `snapshot` | the group | the last entry that the snapshot covers, the last that the log does not hold, the configuration |
//! | `forced` | the group | who belongs to the cluster since an operator recovered it from the loss of its quorum |
//! | `records` | the group | how often `cluster`, `members`, `forced` or a cursor was written, for the mark to know; and a checksum over all of them |
//! | `cursor/NAME` | the group | how far a named reader of the log has come |
//!
//! Invariants:
//! - What is written seldom is guarded by `records`. A database whose list of files lost its end can lack a table
//!   file and yet replay a newer log file: what was written often is then all there, and what was written once,
//!   long ago, is not. Term, vote and starts are in the mark, and a log without its beginning has a hole.
//! - How a record is written is in [`records`].

use std::collections::BTreeMap;

use raft_core::{ClusterId, HardState, LogIndex};
use rocksdb::WriteBatch;

use super::db::{Database, Row};
use crate::{
    Damage, StorageError,
    error::Item,
    records::{self, Body, CURSOR, Counted, FOLDER, Forced, Members, Owner, Pointer, key},
    run::GROUP,
};

/// All records, as they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) owner: Option<Owner>,
    pub(super) hard_state: HardState,
    pub(super) cluster: Option<ClusterId>,
    pub(super) members: Option<Members>,
    pub(super) pointer: Option<Pointer>,
    pub(super) forced: Option<Forced>,
    pub(super) cursors: BTreeMap<String, LogIndex>,
    pub(super) records: u64,
}

impl State {
    /// A checksum over all that is written seldom.
    fn sum(&self) -> u32 {
        let mut all = Vec::new();
        all.extend_from_slice(&self.records.to_be_bytes());
        all.push(u8::from(self.cluster.is_some()));
        all.extend_from_slice(&self.cluster.map_or(0, |cluster| cluster.0).to_be_bytes());
        all.push(u8::from(self.members.is_some()));
        let members = self.members.iter().flatten();
        all.extend_from_slice(&(members.clone().count() as u64).to_be_bytes());
        for (node, incarnation) in members {
            all.extend_from_slice(&node.0.to_be_bytes());
            all.extend_from_slice(&incarnation.0.to_be_bytes());
        }
        if let Some(forced) = &self.forced {
            all.extend_from_slice(&forced.through.0.to_be_bytes());
            all.extend_from_slice(&forced.configuration.encode());
        }
        for (name, at) in &self.cursors {
            all.extend_from_slice(&(name.len() as u64).to_be_bytes());
            all.extend_from_slice(name.as_bytes());
            all.extend_from_slice(&at.0.to_be_bytes());
        }
        crc32c::crc32c(&all)
    }
}

impl State {
    pub(super) fn load(db: &Database) -> Result<Self, StorageError> {
        let counted: Option<Counted> = load(db, GROUP, "records")?;
        let state = Self {
            owner: load(db, FOLDER, "identity")?,
            hard_state: load(db, GROUP, "hard_state")?.unwrap_or_default(),
            cluster: load(db, GROUP, "cluster")?,
            members: load(db, GROUP, "members")?,
            pointer: pointer(db)?,
            forced: load(db, GROUP, "forced")?,
            cursors: load_cursors(db)?,
            records: counted.map_or(0, |counted| counted.records),
        };
        // A folder without any record has no checksum either.
        let sum = counted.map_or_else(|| Self::default().sum(), |counted| counted.sum);
        if sum != state.sum() {
            return Err(db.damaged(Item::Record("records"), Damage::NotTogether));
        }
        Ok(state)
    }
}

/// Every record under its key, as it is stored.
pub(super) fn rows(db: &Database) -> Result<Vec<Row>, StorageError> {
    db.states_under(&[])
}

/// The snapshot and the log's beginning, whatever the other records are like.
pub(super) fn pointer(db: &Database) -> Result<Option<Pointer>, StorageError> {
    load(db, GROUP, "snapshot")
}

fn load_cursors(db: &Database) -> Result<BTreeMap<String, LogIndex>, StorageError> {
    let prefix = key(GROUP, CURSOR);
    let mut cursors = BTreeMap::new();
    for (key, value) in db.states_under(&prefix)? {
        let name = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        let at = records::decode(&key, &value);
        let at = at.map_err(|damage| db.damaged(Item::Record(CURSOR), damage))?;
        cursors.insert(name, at);
    }
    Ok(cursors)
}

fn load<T: Body>(db: &Database, group: u64, name: &'static str) -> Result<Option<T>, StorageError> {
    let key = key(group, name);
    let Some(value) = db.get_state(&key)? else {
        return Ok(None);
    };
    match records::decode(&key, &value) {
        Ok(record) => Ok(Some(record)),
        Err(damage) => Err(db.damaged(Item::Record(name), damage)),
    }
}

fn put(db: &Database, batch: &mut WriteBatch, group: u64, name: &str, body: &impl Body) {
    let key = key(group, name);
    db.put_state(batch, &key, &records::encode(&key, body));
}

pub(super) fn put_owner(db: &Database, batch: &mut WriteBatch, owner: Owner) {
    put(db, batch, FOLDER, "identity", &owner);
}

pub(super) fn put_hard_state(db: &Database, batch: &mut WriteBatch, hard_state: HardState) {
    put(db, batch, GROUP, "hard_state", &hard_state);
}

pub(super) fn put_cluster(db: &Database, batch: &mut WriteBatch, cluster: ClusterId) {
    put(db, batch, GROUP, "cluster", &cluster);
}

/// Counts a change of what `state` holds, together with which it is written.
pub(super) fn put_records(db: &Database, batch: &mut WriteBatch, state: &State) {
    let (records, sum) = (state.records, state.sum());
    put(db, batch, GROUP, "records", &Counted { records, sum });
}

pub(super) fn put_members(db: &Database, batch: &mut WriteBatch, members: &Members) {
    put(db, batch, GROUP, "members", members);
}

pub(super) fn put_pointer(db: &Database, batch: &mut WriteBatch, pointer: &Pointer) {
    put(db, batch, GROUP, "snapshot", pointer);
}

pub(super) fn put_forced(db: &Database, batch: &mut WriteBatch, forced: &Forced) {
    put(db, batch, GROUP, "forced", forced);
}

/// Puts a cursor where it is now; none takes it away.
pub(super) fn put_cursor(db: &Database, batch: &mut WriteBatch, name: &str, at: Option<LogIndex>) {
    let record = [CURSOR, name].concat();
    match at {
        Some(at) => put(db, batch, GROUP, &record, &at),
        None => db.delete_state(batch, &key(GROUP, &record)),
    }
}
