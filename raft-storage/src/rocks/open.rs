//! Opening a data folder: making it, or finding out whether all is there.
//!
//! The order in which a folder is made, each step durable before the next: the folder and its lock; the
//! mark, which claims nothing; the database; in it, whose it is; and then the mark counts the first start.
//! A crash between any two leaves what the next start can finish, and a mark that counts a start is one
//! whose database must be there.
//!
//! Invariants:
//! - Nothing is written to a folder that will be refused, except by RocksDB's own recovery.
//! - What is handed out is counted as a start in the database and in the mark, durably.

use std::path::Path;

use raft_core::{Entry, LogId, LogIndex, NodeId, Recovered, membership::Configuration};
use rocksdb::WriteBatch;

use super::{
    RocksStore, Shared,
    db::Database,
    run,
    state::{self, Owner, State},
};
use crate::{
    Damage, Identity, OpenError, Opened, StorageError,
    crash_point::{self, CrashPoint},
    error::{Claim, Item},
    folder::Folder,
    mark::{self, Mark, Record},
    shape::Shape,
    store::random_incarnation,
};

/// How much of the log's end is handed to the core, for followers that are a little behind.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// Opens `node`'s data folder, which is made if it is missing or empty. One process at a time can have it
/// open.
///
/// # Errors
/// Each names the folder or file, and why. A folder that has lost something that was synced is refused.
pub fn open_rocksdb(dir: impl AsRef<Path>, node: NodeId) -> Result<Opened, OpenError> {
    let folder = Folder::open(dir.as_ref())?;
    crash_point::reached(CrashPoint::FolderMade)?;
    let mut mark = open_mark(&folder, node)?;
    let record = mark.record();
    if record.node != node {
        return Err(wrong_node(&folder, record.node, node));
    }
    // No start was ever counted: nothing was promised, and what is missing may be made.
    let fresh = record.claim.starts == 0;
    if !fresh && !folder.has_database() {
        let (dir, marked) = (folder.path().to_owned(), record.claim);
        return Err(OpenError::DatabaseMissing { dir, marked });
    }
    crash_point::reached(CrashPoint::MarkMade)?;
    let db = Database::open(&folder.database(), fresh).map_err(newer_format)?;
    let state = State::load(&db).map_err(newer_format)?;
    let Scanned {
        shape,
        configurations,
    } = scan(&db).map_err(newer_format)?;
    crash_point::reached(CrashPoint::DatabaseMade)?;

    let owner = check_owner(&folder, &db, record, state.owner, &shape)?;
    check_claim(&folder, record.claim, owner.starts, &state, &shape)?;

    let owner = Owner {
        starts: owner.starts + 1,
        ..owner
    };
    let mut rows = WriteBatch::default();
    state::put_owner(&db, &mut rows, owner);
    db.write(rows)?;
    crash_point::reached(CrashPoint::IdentityWritten)?;
    mark.promise(Claim {
        starts: owner.starts,
        hard_state: state.hard_state,
        position: shape.last(),
    })?;

    let recovered = Recovered {
        hard_state: state.hard_state,
        last: shape.last(),
        terms: shape.terms().to_vec(),
        configurations,
        tail: tail(&db)?,
        ..Recovered::default()
    };
    let identity = Identity {
        node,
        incarnation: owner.incarnation,
        starts: owner.starts,
        cluster: state.cluster,
        members: state.members,
    };
    let store = RocksStore {
        shared: Shared {
            db: Some(db).into(),
        }
        .into(),
        mark,
        hard_state: state.hard_state,
        shape,
        cluster: state.cluster,
        poison: None,
        value: Vec::new(),
        folder: Some(folder),
    };
    Ok(Opened {
        store: Box::new(store),
        recovered,
        identity,
    })
}

/// The folder's mark, made if the folder is new.
fn open_mark(folder: &Folder, node: NodeId) -> Result<Mark, OpenError> {
    let dir = folder.path();
    if let Some(mark) = Mark::open(dir)? {
        return Ok(mark);
    }
    // The mark is made before the database. One without the other has lost it.
    if folder.database().exists() {
        let mark = dir.join(mark::FILE);
        return Err(OpenError::MarkMissing { mark });
    }
    folder.make_private()?;
    Ok(Mark::create(dir, node, random_incarnation()?)?)
}

/// What a walk over the whole log has found.
#[derive(Default)]
struct Scanned {
    shape: Shape,
    configurations: Vec<(LogIndex, Configuration)>,
}

/// Reads the log once from its beginning to its end: where its terms begin, which configurations it holds,
/// and that nothing in it is damaged or missing.
fn scan(db: &Database) -> Result<Scanned, StorageError> {
    let mut scanned = Scanned::default();
    let Scanned {
        shape,
        configurations,
    } = &mut scanned;
    let mut runs = db.runs(LogIndex(u64::MAX));
    let mut at = runs.seek_to_first()?;
    while let Some(found) = at {
        let first = found.run.first;
        let expected = shape.last().index.next();
        let damaged = |damage| Err(db.damaged(Item::Run(first.index), damage));
        if first.index != expected {
            return damaged(Damage::Hole { expected });
        }
        if first.term < shape.last().term {
            return damaged(Damage::TermBack);
        }
        shape.append(first, found.run.last());
        let held = run::configurations(found.run, found.value);
        let held = held.map_err(|damage| db.damaged(Item::Run(first.index), damage))?;
        for (index, data) in held {
            let decoded = Configuration::decode(data);
            let decoded = decoded.map_err(|error| db.damaged(Item::Entry(index), error.into()))?;
            configurations.push((index, decoded));
        }
        at = runs.next()?;
    }
    Ok(scanned)
}

/// The log's last entries.
fn tail(db: &Database) -> Result<Vec<Entry>, StorageError> {
    let mut runs = db.runs(LogIndex(u64::MAX));
    let mut values = Vec::new();
    let mut bytes = 0;
    let mut at = runs.seek_to_last()?;
    while let Some(found) = at {
        bytes += found.value.len();
        if bytes > TAIL_BYTES_MAX {
            break;
        }
        values.push((found.run, found.to_bytes()));
        at = runs.prev()?;
    }
    let mut entries = Vec::new();
    for (run, value) in values.into_iter().rev() {
        let decoded = run::decode(run, &value, run.first.index, |entry| {
            entries.push(entry);
            true
        });
        decoded.map_err(|damage| db.damaged(Item::Run(run.first.index), damage))?;
    }
    Ok(entries)
}

/// Whether the database is of the same folder as the mark.
fn check_owner(
    folder: &Folder,
    db: &Database,
    record: Record,
    owner: Option<Owner>,
    shape: &Shape,
) -> Result<Owner, OpenError> {
    let Some(owner) = owner else {
        if shape.last() != LogId::ZERO {
            let item = Item::Record("identity");
            return Err(db.damaged(item, Damage::Absent).into());
        }
        // Made, but never said whose it is. If the mark knows of more, the next check says so.
        return Ok(Owner {
            node: record.node,
            incarnation: record.incarnation,
            starts: 0,
        });
    };
    if owner.node != record.node {
        return Err(wrong_node(folder, owner.node, record.node));
    }
    if owner.incarnation != record.incarnation {
        return Err(OpenError::Mixed {
            dir: folder.path().to_owned(),
            marked: record.incarnation,
            found: owner.incarnation,
        });
    }
    Ok(owner)
}

/// Whether the database holds at least what the mark says. It may hold more: it is written first.
///
/// Not even a term or a vote that the mark has and the database lacks is taken over from the mark. The
/// database had them synced before the mark, so it has lost a synced write, and with it all that it
/// acknowledged behind that.
fn check_claim(
    folder: &Folder,
    marked: Claim,
    starts: u64,
    state: &State,
    shape: &Shape,
) -> Result<(), OpenError> {
    let dir = folder.path().to_owned();
    let (ours, theirs) = (marked.hard_state, state.hard_state);
    if ours.term == theirs.term
        && let (Some(marked), Some(found)) = (ours.voted_for, theirs.voted_for)
        && marked != found
    {
        let term = ours.term;
        return Err(OpenError::VotesConflict {
            dir,
            term,
            marked,
            found,
        });
    }
    let at_mark = shape.id_at(marked.position.index);
    let lost = starts < marked.starts
        || theirs.term < ours.term
        || theirs.term == ours.term && theirs.voted_for.is_none() && ours.voted_for.is_some()
        || at_mark != Some(marked.position);
    if lost {
        let found = Claim {
            starts,
            hard_state: theirs,
            position: at_mark.unwrap_or(shape.last()),
        };
        return Err(OpenError::LogLost { dir, marked, found });
    }
    Ok(())
}

fn wrong_node(folder: &Folder, belongs_to: NodeId, asked: NodeId) -> OpenError {
    OpenError::WrongNode {
        dir: folder.path().to_owned(),
        belongs_to,
        asked,
    }
}

/// A value of a newer version is nobody's damage.
fn newer_format(error: StorageError) -> OpenError {
    match error {
        StorageError::Damaged {
            path,
            damage: Damage::NewerVersion { found, known },
            ..
        } => OpenError::NewerFormat { path, found, known },
        error => error.into(),
    }
}
