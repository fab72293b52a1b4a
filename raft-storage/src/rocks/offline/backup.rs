//! A copy of a folder, of a running node's too.
//!
//! Not a copy of files, which would need the node to hold still: the database is opened to be read, which
//! shows one moment, and what it holds is written into a database of the copy's own, each value checked on the
//! way. The mark of the copy claims what the copy holds.
//!
//! Invariants:
//! - The copy holds everything that was acknowledged before the call.
//! - Under its name it is whole and durable: it is made under another one.
//! - Its start counter is 0: it was never started. So a peer that remembers the node refuses whoever starts the
//!   copy in its place. Peers remember as long as they run; it is no licence to try.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use raft_core::{ClusterId, EntryKind, LogId, NodeId, membership::Configuration};
use rocksdb::WriteBatch;

use super::{
    OfflineError,
    export::{Form, write},
    moment::{Moment, moment},
    walk::{Step, walk},
};
use crate::{
    Damage, OpenError, SnapshotSource as _, StorageError,
    error::{Claim, Item},
    folder::{DATABASE, parent, sync_folder},
    mark::Mark,
    records::{self, Owner},
    rocks::{db::Database, found::Found, open::look, state},
    run,
    snapshot::files::{FOLDER as SNAPSHOTS, FileSource, SnapshotFiles},
};

/// So many bytes are written at once.
const BATCH_BYTES: usize = 4 << 20;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Whose folder it was copied from; none if it was nobody's yet.
    pub node: Option<NodeId>,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// Entries of the log.
    pub entries: u64,
    /// The last of them.
    pub last: LogId,
    /// What the snapshot in it covers, if there is one.
    pub snapshot: Option<LogId>,
}

/// Copies the folder `dir`, whose node may be running, to `to`, which must not exist or be empty.
///
/// # Errors
/// As [`OfflineError`] says; a damaged folder is not copied. Then there is nothing at `to`.
pub fn backup(dir: &Path, to: &Path) -> Result<Copied, OfflineError> {
    check_target(dir, to)?;
    let Moment { sight, snapshot } = moment(dir)?;
    let Some((db, found, owner)) = &sight.content else {
        let dir = dir.to_owned();
        return Err(OfflineError::Empty { dir });
    };
    let part = Part::create(to)?;
    let owner = Owner {
        starts: 0,
        ..*owner
    };
    let mut mark = Mark::create(&part.dir, owner.node, owner.incarnation)?;
    let entries = copy_database(db, found, owner, &part.dir.join(DATABASE));
    let entries = entries.map_err(|error| OpenError::from(error).in_folder(dir))?;
    if let Some(source) = &snapshot {
        copy_snapshot(source, &part.dir)?;
    }
    mark.promise(Claim {
        starts: owner.starts,
        records: found.state.records,
        hard_state: found.hard_state(),
        position: found.shape.last(),
    })?;
    drop(mark);
    sync_folder(&part.dir)?;
    look(&part.dir)?;
    part.finish(to)?;
    Ok(Copied {
        node: owner.node,
        cluster: found.state.cluster,
        entries,
        last: found.shape.last(),
        snapshot: snapshot.map(|source| source.info().meta.last),
    })
}

fn check_target(dir: &Path, to: &Path) -> Result<(), OfflineError> {
    match fs::read_dir(to) {
        Ok(mut files) => {
            if files.next().is_some() {
                let path = to.to_owned();
                return Err(OfflineError::NotEmpty { path });
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(StorageError::io("list", to)(error).into()),
    }
    let above = parent(to).unwrap_or(Path::new("/"));
    let above = fs::canonicalize(above).map_err(StorageError::io("find", above))?;
    if fs::canonicalize(dir).is_ok_and(|dir| above.starts_with(dir)) {
        let path = to.to_owned();
        return Err(OfflineError::Inside { path });
    }
    Ok(())
}

/// Gives the number of entries that were copied.
fn copy_database(
    from: &Database,
    found: &Found,
    owner: Owner,
    to: &Path,
) -> Result<u64, StorageError> {
    let to = Database::open(to, true)?;
    let mut rows = WriteBatch::default();
    for (key, value) in state::rows(from)? {
        // What another version has written goes along, if it is whole.
        if let Err((_, damage)) = records::check(&key, &value)
            && damage != Damage::Unknown
        {
            return Err(from.damaged(Item::Database, damage));
        }
        to.put_state(&mut rows, &key, &value);
    }
    state::put_owner(&to, &mut rows, owner);
    let start = found.shape.start().index;
    let mut entries = 0;
    let mut failed = None;
    walk(from, start.next(), |step| {
        let copied = copy_run(from, step, start, &to, &mut rows);
        let copied = copied.and_then(|count| {
            entries += count;
            if rows.size_in_bytes() >= BATCH_BYTES {
                to.write(std::mem::take(&mut rows))?;
            }
            Ok(())
        });
        failed = copied.err();
        failed.is_none()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    to.write(rows)?;
    Ok(entries)
}

fn copy_run(
    from: &Database,
    step: Step,
    start: raft_core::LogIndex,
    to: &Database,
    rows: &mut WriteBatch,
) -> Result<u64, StorageError> {
    let (run, value) = match step {
        Step::Run(run, value) => (run, value),
        Step::Damaged(error) | Step::Unreadable { cause: error, .. } => return Err(error),
    };
    let mut count = 0;
    let mut wrong = None;
    let decoded = run::decode(run, &value, start.next(), |entry| {
        count += 1;
        if entry.kind == EntryKind::Configuration {
            wrong = Configuration::decode(&entry.data).err();
        }
        wrong.is_none()
    });
    let decoded = decoded.and(wrong.map_or(Ok(()), |error| Err(Damage::Configuration(error))));
    decoded.map_err(|damage| from.damaged(Item::Run(run.first.index), damage))?;
    to.put_run(rows, run::key(run.first.index), &value);
    Ok(count)
}

fn copy_snapshot(source: &FileSource, to: &Path) -> Result<(), StorageError> {
    let folder = to.join(SNAPSHOTS);
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(StorageError::io("create", &folder))?;
    let info = source.info();
    let path = SnapshotFiles::new(to, info.cluster, None).file(info.meta.last);
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(StorageError::io("create", &path))?;
    write(source, info, Form::Framed, &mut file, &path)?;
    file.sync_all().map_err(StorageError::io("sync", &path))?;
    sync_folder(&folder)
}

/// A folder under a temporary name. Dropped, it is removed.
struct Part {
    dir: PathBuf,
    kept: bool,
}

impl Part {
    fn create(whole: &Path) -> Result<Self, StorageError> {
        let mut name = whole.file_name().unwrap_or_default().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let dir = whole.with_file_name(name);
        if dir.exists() {
            // Of an earlier process with this id, which was killed.
            fs::remove_dir_all(&dir).map_err(StorageError::io("remove", &dir))?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(StorageError::io("create", &dir))?;
        Ok(Self { dir, kept: false })
    }

    fn finish(mut self, whole: &Path) -> Result<(), OfflineError> {
        // It replaces an empty folder, and nothing else.
        match fs::rename(&self.dir, whole) {
            Ok(()) => self.kept = true,
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                let path = whole.to_owned();
                return Err(OfflineError::NotEmpty { path });
            }
            Err(error) => return Err(StorageError::io("rename", &self.dir)(error).into()),
        }
        sync_folder(parent(whole).unwrap_or(Path::new("/")))?;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed bears a name that says what it is.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
