//! Opening a data folder: making it, or finding out whether all is there.
//!
//! The order in which a folder is made, each step durable before the next: the folder and its lock; the
//! mark, which claims nothing; the database; in it, whose it is; and then the mark counts the first start.
//! A crash between any two leaves what the next start can finish, and a mark that counts a start is one
//! whose database must be there.
//!
//! Invariants:
//! - Nothing is written to a folder that will be refused. RocksDB's own recovery cuts off what it cannot
//!   read; so the database is first opened to be read only, and judged, and only then to be written.
//! - What is handed out is counted as a start in the database and in the mark, durably.

use std::path::{Path, PathBuf};

use raft_core::NodeId;
use rocksdb::WriteBatch;

use super::{
    RocksStore, Shared,
    db::Database,
    found::{Found, wrong_node},
    state,
    sweeper::Sweeper,
};
use crate::{
    Damage, Identity, OpenError, Opened, StorageError,
    crash_point::{self, CrashPoint},
    error::Claim,
    folder::{Folder, strange_file, sync_folder},
    manifest::{self, Torn},
    mark::{self, Mark},
    records::{Owner, Pointer},
    snapshot::files::{FileSource, SnapshotFiles},
    store::{check_id, random_incarnation},
};

/// A folder that is made for a moment, within the data folder.
const LINKS: &str = "judge";

/// Opens `node`'s data folder, which is made if it is missing or empty. One that was nobody's yet is its from then on.
/// Without a node, it is opened for whoever it belongs to, which may be nobody yet: see
/// [`Identity::node`]. One process at a time can have it open.
///
/// # Errors
/// Each names the folder or file, the reason, and what to do. A folder that has lost something that was
/// synced is refused, and left as it was.
pub fn open_rocksdb(dir: impl AsRef<Path>, node: Option<NodeId>) -> Result<Opened, OpenError> {
    check_id(node).map_err(StorageError::Refused)?;
    let folder = Folder::open(dir.as_ref()).map_err(OpenError::or_refused)?;
    crash_point::reached(CrashPoint::FolderMade)?;
    let opened = open_folder(folder, node);
    opened.map_err(|error| error.in_folder(dir.as_ref()))
}

fn open_folder(folder: Folder, node: Option<NodeId>) -> Result<Opened, OpenError> {
    let mut mark = open_mark(&folder, node)?;
    let record = mark.record();
    check_node(&folder, record.node, node)?;
    // No start was ever counted, nor anything promised: what is missing may be made. (A copy was never started
    // either, but it holds something.)
    let fresh = record.claim == Claim::default();
    if !fresh && !folder.has_database() {
        let (dir, marked) = (folder.path().to_owned(), record.claim);
        return Err(OpenError::DatabaseMissing { dir, marked });
    }
    crash_point::reached(CrashPoint::MarkMade)?;
    let (db, mut found, owner) = if fresh {
        let db = Database::open(&folder.database(), true)?;
        let (found, owner) = judge(&folder, &db, record)?;
        check_node(&folder, owner.node, node)?;
        (db, found, owner)
    } else {
        let links = folder.path().join(LINKS);
        manifest::remove(&links).map_err(StorageError::io("remove", &links))?;
        let judged = judge_unchanged(&folder, record, links, false)?;
        check_node(&folder, judged.owner.node, node)?;
        if let Some(torn) = judged.torn {
            tracing::warn!(folder = %folder.path().display(), "cut the torn end of the database's list of files");
            torn.cut()?;
        }
        drop(judged.db);
        let db = reopen(&folder, &judged.found)?;
        (db, judged.found, judged.owner)
    };
    crash_point::reached(CrashPoint::DatabaseMade)?;

    let owner = Owner {
        node: owner.node.or(node),
        starts: owner.starts + 1,
        ..owner
    };
    let mut rows = WriteBatch::default();
    state::put_owner(&db, &mut rows, owner);
    db.write(rows)?;
    crash_point::reached(CrashPoint::IdentityWritten)?;
    // Whatever an earlier start has made, and was killed before it synced the folder.
    sync_folder(folder.path())?;
    let claim = Claim {
        starts: owner.starts,
        records: found.state.records,
        hard_state: found.hard_state(),
        position: found.shape.last(),
    };
    mark.promise_twice(owner.node, claim)?;

    let named = found.state.pointer.as_ref().map(Pointer::named);
    let snapshots = SnapshotFiles::new(folder.path(), found.state.cluster, named);
    snapshots.remove_others()?;
    let recovered = found.recovered();
    let Found {
        mut state, shape, ..
    } = found;
    state.owner = Some(owner);
    let identity = Identity {
        node: owner.node,
        incarnation: owner.incarnation,
        starts: owner.starts,
        cluster: state.cluster,
        known: state.known(),
    };
    let cursors = state.cursors.clone();
    let shared = Shared::new(db, shape.start().index);
    let sweeper = Sweeper::start(shared.clone(), snapshots.clone())?;
    // What an earlier start has put out of reach, and was killed before it was given back.
    sweeper.wake();
    let store = RocksStore {
        shared,
        mark,
        hard_state: state.hard_state,
        shape,
        state,
        snapshots,
        sweeper,
        poison: None,
        value: Vec::new(),
        folder: Some(folder),
    };
    Ok(Opened {
        store: Box::new(store),
        recovered,
        identity,
        cursors,
    })
}

/// A database that was read, and judged to hold all that it must.
struct Judged {
    db: Database,
    found: Found,
    owner: Owner,
    /// The database's list of files, if a power loss has torn its end.
    torn: Option<Torn>,
}

/// Reads and judges a database without changing it. If its list of files is torn or damaged, that is done with
/// what is left of the list, in the folder `links`, which is there for a moment.
fn judge_unchanged(
    folder: &Folder,
    record: mark::Record,
    links: PathBuf,
    written: bool,
) -> Result<Judged, OpenError> {
    let damage = match Database::open_read_only(&folder.database(), written) {
        Ok(db) => {
            let (found, owner) = judge(folder, &db, record)?;
            return Ok(Judged {
                db,
                found,
                owner,
                torn: None,
            });
        }
        Err(error @ StorageError::Damaged { .. }) => error,
        Err(error) => return Err(error.into()),
    };
    let Some(torn) = Torn::find(&folder.database(), links)? else {
        return Err(damage.into());
    };
    // A disk without room, or with too many files open, is no damage of the folder.
    let failed = |error| StorageError::io("mend the torn list of files in", folder.path())(error);
    let linked = torn.link().map_err(failed)?;
    let db = match Database::open_read_only(linked, written) {
        Ok(db) => db,
        Err(other) if other.is_corruption() => return Err(damage.into()),
        Err(other) => return Err(other.into()),
    };
    match judge(folder, &db, record) {
        Ok((found, owner)) => Ok(Judged {
            db,
            found,
            owner,
            torn: Some(torn),
        }),
        // What the list names no more is missing; and what is damaged besides has a path in the folder of links.
        Err(OpenError::LogLost { .. } | OpenError::SnapshotMissing { .. }) => Err(damage.into()),
        Err(OpenError::Storage(StorageError::Damaged { .. })) => Err(damage.into()),
        Err(OpenError::Storage(error)) if error.is_corruption() => Err(damage.into()),
        Err(refused) => Err(refused),
    }
}

/// What a node would find in a data folder that is there.
pub(super) struct Sight {
    pub(super) folder: Folder,
    /// None where a node would make the database first.
    pub(super) content: Option<(Database, Found, Owner)>,
}

/// Looks at a data folder as [`open_rocksdb`] would for the node that it belongs to: with the same judgement,
/// but without the lock, and without changing a byte.
pub(super) fn look(dir: &Path) -> Result<Sight, OpenError> {
    try_look(Folder::unlocked(dir)).map_err(|error| error.in_folder(dir))
}

/// As [`look`], at a folder that is locked already, or not.
pub(super) fn try_look(folder: Folder) -> Result<Sight, OpenError> {
    let dir = folder.path();
    if let Some(found) = strange_file(dir).map_err(StorageError::io("list", dir))? {
        let dir = dir.to_owned();
        return Err(OpenError::NotEmpty { dir, found });
    }
    let Some(record) = Mark::read(dir)? else {
        let mark = dir.join(mark::FILE);
        return Err(OpenError::MarkMissing { mark });
    };
    let fresh = record.claim == Claim::default();
    if !folder.has_database() {
        if fresh {
            let content = None;
            return Ok(Sight { folder, content });
        }
        let (dir, marked) = (dir.to_owned(), record.claim);
        return Err(OpenError::DatabaseMissing { dir, marked });
    }
    let links = std::env::temp_dir().join(format!("raft-judge-{}", random_incarnation()?.0));
    let content = match judge_unchanged(&folder, record, links, true) {
        Ok(judged) => Some((judged.db, judged.found, judged.owner)),
        // Its making was interrupted.
        Err(OpenError::Storage(StorageError::Database { .. })) if fresh => None,
        Err(error) => return Err(error),
    };
    Ok(Sight { folder, content })
}

/// Reads all that the database holds, and compares it with what it must hold.
pub(super) fn judge(
    folder: &Folder,
    db: &Database,
    record: mark::Record,
) -> Result<(Found, Owner), OpenError> {
    let found = Found::load(db)?;
    let owner = found.check_owner(folder, db, record)?;
    found.check_claim(folder, record, owner)?;
    if let Some(pointer) = &found.state.pointer {
        check_snapshot(folder, pointer)?;
    }
    Ok((found, owner))
}

/// Whether the snapshot that the log begins behind is there and whole, as far as its frame tells.
fn check_snapshot(folder: &Folder, pointer: &Pointer) -> Result<(), OpenError> {
    let files = SnapshotFiles::new(folder.path(), None, None);
    let file = files.file(pointer.meta.last);
    if !file.is_file() {
        return Err(OpenError::SnapshotMissing { file });
    }
    Ok(FileSource::open(&file)?.check_is(&pointer.named())?)
}

/// Opens a database that was read and judged, to be written. What is in it then must be what was judged.
pub(super) fn reopen(folder: &Folder, found: &Found) -> Result<Database, OpenError> {
    let db = Database::open(&folder.database(), false)?;
    let last = db.last_run()?.map(|run| run.last());
    let same_end =
        found.shape.last() == found.shape.start() || last == Some(found.shape.last().index);
    if same_end && state::State::load(&db)? == found.state {
        return Ok(db);
    }
    let item = crate::Item::Database;
    Err(db.damaged(item, Damage::Changed).into())
}

/// Whether a folder that belongs to somebody is the one that was asked for.
fn check_node(
    folder: &Folder,
    belongs_to: Option<NodeId>,
    asked: Option<NodeId>,
) -> Result<(), OpenError> {
    match (belongs_to, asked) {
        (Some(belongs_to), Some(asked)) if belongs_to != asked => {
            Err(wrong_node(folder, belongs_to, asked))
        }
        _ => Ok(()),
    }
}

/// The folder's mark, made if the folder is new.
fn open_mark(folder: &Folder, node: Option<NodeId>) -> Result<Mark, OpenError> {
    let dir = folder.path();
    if let Some(mark) = Mark::open(dir)? {
        folder.keep_private()?;
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

impl OpenError {
    /// What the disk or the operating system refused, with what to do about it.
    fn or_refused(self) -> Self {
        match self {
            Self::Storage(cause @ StorageError::Io { .. }) => Self::Refused { cause },
            error => error,
        }
    }

    /// Names the folder, and what to do about it, where a library below knew neither.
    pub(super) fn in_folder(self, dir: &Path) -> Self {
        let dir = dir.to_owned();
        match self {
            // A value of a newer version is nobody's damage.
            Self::Storage(StorageError::Damaged {
                path,
                damage: Damage::NewerVersion { found, known },
                ..
            }) => Self::NewerFormat { path, found, known },
            Self::Storage(cause @ StorageError::Damaged { .. }) => Self::Damaged { dir, cause },
            Self::Storage(cause @ StorageError::Database { .. }) => {
                if cause.is_corruption() {
                    Self::Damaged { dir, cause }
                } else {
                    Self::Refused { cause }
                }
            }
            error => error.or_refused(),
        }
    }
}
