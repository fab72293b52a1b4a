//! What a node knows beside its log: small records in a column family of their own.
//!
//! | record | of | holds |
//! |---|---|---|
//! | `identity` | the folder | node, once there is one; incarnation, count of starts |
//! | `hard_state` | the group | term and vote |
//! | `cluster` | the group | the cluster's id, once there is one |
//! | `known` | the group | what was recorded last of the members |
//! | `members` | the group | each member with its incarnation, in a folder of an earlier version; `known` takes its place |
//! | `snapshot` | the group | the last entry that the snapshot covers, the last that the log does not hold, the configuration |
//! | `forced` | the group | who belongs to the cluster since an operator recovered it from the loss of its quorum |
//! | `records` | the group | how often `cluster`, `known`, `forced`, a cursor or a node's id was written, for the mark to know; and a checksum over all of them but the id, which the mark has |
//! | `cursor/NAME` | the group | how far a named reader of the log has come |
//!
//! Invariants:
//! - What is written seldom is guarded by `records`. A database whose list of files lost its end can lack a table
//!   file and yet replay a newer log file: what was written often is then all there, and what was written once,
//!   long ago, is not. Term, vote and starts are in the mark, and a log without its beginning has a hole.
//! - How a record is written is in [`records`].

use std::collections::BTreeMap;

use raft_core::{ClusterId, HardState, LogIndex, membership::Configuration};
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
    pub(super) known: Option<Configuration>,
    /// What an earlier version has written in place of `known`.
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
        if let Some(known) = &self.known {
            let known = known.encode();
            all.extend_from_slice(&(known.len() as u64).to_be_bytes());
            all.extend_from_slice(&known);
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
    /// What was recorded of the members.
    pub(super) fn known(&self) -> Option<Configuration> {
        let members = || Some(Configuration::of_folders(self.members.clone()?));
        self.known.clone().or_else(members)
    }

    pub(super) fn load(db: &Database) -> Result<Self, StorageError> {
        let counted: Option<Counted> = load(db, GROUP, "records")?;
        let state = Self {
            owner: load(db, FOLDER, "identity")?,
            hard_state: load(db, GROUP, "hard_state")?.unwrap_or_default(),
            cluster: load(db, GROUP, "cluster")?,
            known: load(db, GROUP, "known")?,
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

/// Puts what is known of the members, in `state` too.
pub(super) fn put_known(
    db: &Database,
    batch: &mut WriteBatch,
    state: &mut State,
    known: &Configuration,
) {
    if state.members.take().is_some() {
        db.delete_state(batch, &key(GROUP, "members"));
    }
    put(db, batch, GROUP, "known", known);
    state.known = Some(known.clone());
}

/// As an earlier version has put it.
#[cfg(test)]
pub(super) fn put_members(
    db: &Database,
    batch: &mut WriteBatch,
    state: &mut State,
    members: &Members,
) {
    put(db, batch, GROUP, "members", members);
    state.members = Some(members.clone());
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

#[cfg(test)]
mod tests {
    use raft_core::{Incarnation, NodeId};

    use super::*;

    #[test]
    fn the_checksum_of_an_earlier_versions_records_is_frozen() {
        let members = [2, 5].map(|id| (NodeId(id), Incarnation(u128::from(id) + 70)));
        let state = State {
            cluster: Some(ClusterId(77)),
            members: Some(members.into()),
            cursors: [("mail".to_owned(), LogIndex(9))].into(),
            records: 3,
            ..State::default()
        };
        assert_eq!(state.sum(), 0x752f776d);
        let known = state.known();
        assert_eq!(known, Some(Configuration::of_folders(members)));
        assert_ne!(
            State {
                known,
                ..state.clone()
            }
            .sum(),
            state.sum()
        );
    }
}
