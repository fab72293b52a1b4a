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
//! - Each record is in the frame of [`sealed`]: a version and a checksum.
//! - What is written seldom is guarded by `records`. A database whose list of files lost its end can lack a table
//!   file and yet replay a newer log file: what was written often is then all there, and what was written once,
//!   long ago, is not. Term, vote and starts are in the mark, and a log without its beginning has a hole.
//! - A key is the group's number and the record's name; what belongs to the folder as a whole stands under a
//!   group that can never be.

use std::{collections::BTreeMap, sync::Arc};

use raft_core::{
    ClusterId, HardState, Incarnation, LogId, LogIndex, NodeId, SnapshotMeta, Term,
    membership::Configuration,
};
use rocksdb::WriteBatch;

use super::{
    db::{Database, Row},
    run::GROUP,
};
use crate::{
    Damage, StorageError,
    error::Item,
    sealed::{self, Fields},
    snapshot::files::Named,
};

const FOLDER: u64 = u64::MAX;
/// What the names of the cursors' records begin with.
const CURSOR: &str = "cursor/";

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) starts: u64,
}

/// The snapshot that the node starts from, and where its log begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) meta: SnapshotMeta,
    /// The last entry that the log does not hold any more.
    pub(super) log_start: LogId,
    /// Which file it is, and how many bytes the state has: another one of the same name is another's.
    pub(super) id: u128,
    pub(super) bytes: u64,
    /// No run that begins before this is of the log. One may come to light again when the files are dropped that
    /// had cut it off.
    pub(super) first_run: LogIndex,
}

impl Pointer {
    pub(super) fn named(&self) -> Named {
        Named {
            last: self.meta.last,
            id: self.id,
            bytes: self.bytes,
        }
    }
}

/// A configuration that an operator has put in the place of all that stand in the log up to `through`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forced {
    pub(super) through: LogIndex,
    pub(super) configuration: Configuration,
}

/// All records, as they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) owner: Option<Owner>,
    pub(super) hard_state: HardState,
    pub(super) cluster: Option<ClusterId>,
    pub(super) members: Option<BTreeMap<NodeId, Incarnation>>,
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
        let records = load(db, GROUP, "records", read_records)?;
        let (records, sum) = records.unzip();
        let state = Self {
            owner: load(db, FOLDER, "identity", read_owner)?,
            hard_state: load(db, GROUP, "hard_state", read_hard_state)?.unwrap_or_default(),
            cluster: load(db, GROUP, "cluster", |fields| Ok(ClusterId(fields.u128()?)))?,
            members: load(db, GROUP, "members", read_members)?,
            pointer: load(db, GROUP, "snapshot", read_pointer)?,
            forced: load(db, GROUP, "forced", read_forced)?,
            cursors: load_cursors(db)?,
            records: records.unwrap_or(0),
        };
        // A folder without any record has no checksum either.
        if sum.unwrap_or_else(|| Self::default().sum()) != state.sum() {
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
    load(db, GROUP, "snapshot", read_pointer)
}

/// Whether a record is what was written under its key; with its name, and what is wrong with it.
pub(super) fn check(key: &[u8], value: &[u8]) -> Result<(), (String, Damage)> {
    let (group, name) = match key.split_first_chunk() {
        Some((group, name)) => (u64::from_be_bytes(*group), String::from_utf8_lossy(name)),
        None => (GROUP, String::from_utf8_lossy(key)),
    };
    let checked = match (group, &*name) {
        (FOLDER, "identity") => parse(key, value, read_owner).map(drop),
        (GROUP, "hard_state") => parse(key, value, read_hard_state).map(drop),
        (GROUP, "cluster") => parse(key, value, |fields| fields.u128()).map(drop),
        (GROUP, "members") => parse(key, value, read_members).map(drop),
        (GROUP, "snapshot") => parse(key, value, read_pointer).map(drop),
        (GROUP, "forced") => parse(key, value, read_forced).map(drop),
        (GROUP, "records") => parse(key, value, read_records).map(drop),
        (GROUP, cursor) if cursor.starts_with(CURSOR) => {
            parse(key, value, |fields| fields.u64()).map(drop)
        }
        _ => sealed::open(key, value).and(Err(Damage::Unknown)),
    };
    checked.map_err(|damage| (name.into_owned(), damage))
}

fn load_cursors(db: &Database) -> Result<BTreeMap<String, LogIndex>, StorageError> {
    let prefix = key(GROUP, CURSOR);
    let mut cursors = BTreeMap::new();
    for (key, value) in db.states_under(&prefix)? {
        let name = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        let read = |fields: &mut Fields<'_>| Ok(LogIndex(fields.u64()?));
        let at = parse(&key, &value, read);
        let at = at.map_err(|damage| db.damaged(Item::Record(CURSOR), damage))?;
        cursors.insert(name, at);
    }
    Ok(cursors)
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
    match parse(&key, &value, read) {
        Ok(record) => Ok(Some(record)),
        Err(damage) => Err(db.damaged(Item::Record(name), damage)),
    }
}

fn parse<T>(
    key: &[u8],
    value: &[u8],
    read: impl FnOnce(&mut Fields<'_>) -> Result<T, Damage>,
) -> Result<T, Damage> {
    let mut fields = Fields(sealed::open(key, value)?);
    let record = read(&mut fields)?;
    if fields.0.is_empty() {
        Ok(record)
    } else {
        Err(Damage::Length)
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

/// The count, and the checksum.
fn read_records(fields: &mut Fields<'_>) -> Result<(u64, u32), Damage> {
    Ok((fields.u64()?, fields.u32()?))
}

/// Counts a change of what `state` holds, together with which it is written.
pub(super) fn put_records(db: &Database, batch: &mut WriteBatch, state: &State) {
    put(db, batch, GROUP, "records", |out| {
        out.extend_from_slice(&state.records.to_be_bytes());
        out.extend_from_slice(&state.sum().to_be_bytes());
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

fn read_id(fields: &mut Fields<'_>) -> Result<LogId, Damage> {
    Ok(LogId::new(Term(fields.u64()?), LogIndex(fields.u64()?)))
}

fn put_id(out: &mut Vec<u8>, id: LogId) {
    out.extend_from_slice(&id.term.0.to_be_bytes());
    out.extend_from_slice(&id.index.0.to_be_bytes());
}

fn read_pointer(fields: &mut Fields<'_>) -> Result<Pointer, Damage> {
    let (last, log_start) = (read_id(fields)?, read_id(fields)?);
    let (id, bytes) = (fields.u128()?, fields.u64()?);
    let first_run = LogIndex(fields.u64()?);
    let configuration = Arc::new(Configuration::decode(fields.rest())?);
    Ok(Pointer {
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

pub(super) fn put_pointer(db: &Database, batch: &mut WriteBatch, pointer: &Pointer) {
    put(db, batch, GROUP, "snapshot", |out| {
        put_id(out, pointer.meta.last);
        put_id(out, pointer.log_start);
        out.extend_from_slice(&pointer.id.to_be_bytes());
        out.extend_from_slice(&pointer.bytes.to_be_bytes());
        out.extend_from_slice(&pointer.first_run.0.to_be_bytes());
        out.extend_from_slice(&pointer.meta.configuration.encode());
    });
}

fn read_forced(fields: &mut Fields<'_>) -> Result<Forced, Damage> {
    let through = LogIndex(fields.u64()?);
    let configuration = Configuration::decode(fields.rest())?;
    Ok(Forced {
        through,
        configuration,
    })
}

pub(super) fn put_forced(db: &Database, batch: &mut WriteBatch, forced: &Forced) {
    put(db, batch, GROUP, "forced", |out| {
        out.extend_from_slice(&forced.through.0.to_be_bytes());
        out.extend_from_slice(&forced.configuration.encode());
    });
}

/// Puts a cursor where it is now; none takes it away.
pub(super) fn put_cursor(db: &Database, batch: &mut WriteBatch, name: &str, at: Option<LogIndex>) {
    let record = [CURSOR, name].concat();
    match at {
        Some(at) => put(db, batch, GROUP, &record, |out| {
            out.extend_from_slice(&at.0.to_be_bytes());
        }),
        None => db.delete_state(batch, &key(GROUP, &record)),
    }
}
