//! Snapshots as files, in a folder of their own beside the database.
//!
//! Invariants:
//! - A file under a snapshot's name is whole and durable: it was written under a temporary name, synced,
//!   renamed, and the folder synced.
//! - A file is removed when a durable write names a newer one, and never before; at the start of a node all
//!   go that the database does not name.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use raft_core::{ClusterId, LogId, LogIndex, SnapshotMeta, Term};

use super::{
    CHUNK_BYTES, SnapshotInfo, SnapshotSink, SnapshotSource, Snapshots, format, random_id,
};
use crate::{Damage, Item, Misfit, StorageError, folder::sync_folder};

/// The folder's name within the data folder.
pub(crate) const FOLDER: &str = "snapshots";

/// So much is written before it is synced. A large file that is synced once at its end makes the log's own
/// sync wait for all of it, since file systems order one behind the other.
const SYNC_BYTES: u64 = 4 << 20;

const WHOLE: &str = ".snap";
const PART: &str = ".part";

/// A snapshot's file, as the database names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) last: LogId,
    pub(crate) id: u128,
    pub(crate) bytes: u64,
}

/// The snapshots of a data folder. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFiles {
    dir: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    cluster: Option<ClusterId>,
    /// The snapshot that the database names,
    named: Option<Named>,
    /// and the one that a write under way is about to name.
    naming: Option<LogId>,
}

impl State {
    /// Whether the database rests on this one, or is about to.
    fn is_needed(&self, last: LogId) -> bool {
        self.naming == Some(last) || self.named.is_some_and(|named| named.last == last)
    }
}

impl SnapshotFiles {
    pub(crate) fn new(data_dir: &Path, cluster: Option<ClusterId>, named: Option<Named>) -> Self {
        let state = State {
            cluster,
            named,
            ..State::default()
        };
        let shared = Shared {
            state: state.into(),
        };
        Self {
            dir: data_dir.join(FOLDER),
            shared: shared.into(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Which cluster the state of later snapshots is of.
    pub(crate) fn set_cluster(&self, cluster: Option<ClusterId>) {
        self.state().cluster = cluster;
    }

    /// From here on nothing is begun, finished or opened.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.state().closed {
            return Err(StorageError::Closed);
        }
        Ok(())
    }

    pub(crate) fn file(&self, last: LogId) -> PathBuf {
        self.dir
            .join(format!("{:020}-{}{WHOLE}", last.index.0, last.term.0))
    }

    /// Reserves the snapshot through `last` for a write that names it: it stays from here on.
    pub(crate) fn name(&self, last: LogId) -> Result<Named, StorageError> {
        self.state().naming = Some(last);
        let file = self.file(last);
        if !file.is_file() {
            return Err(StorageError::Refused(Misfit::SnapshotAbsent { last }));
        }
        let source = FileSource::open(&file)?;
        let named = Named {
            last,
            id: source.info.id,
            bytes: source.info.bytes,
        };
        source.check_is(&named)?;
        Ok(named)
    }

    /// The database names this one now, durably.
    pub(crate) fn set_named(&self, named: Named) {
        let mut state = self.state();
        state.named = Some(named);
        state.naming = None;
    }

    /// Removes what is older than the one that the database names.
    pub(crate) fn remove_older(&self) -> Result<(), StorageError> {
        let named = self.state().named.map(|named| named.last);
        self.remove_where(|last| {
            last.is_some_and(|last| {
                Some(last) != named && named.is_some_and(|n| last.index <= n.index)
            })
        })
    }

    /// Removes all but the one that the database names: at the start, when nobody is writing any.
    pub(crate) fn remove_others(&self) -> Result<(), StorageError> {
        let named = self.state().named.map(|named| named.last);
        self.remove_where(|last| last.is_none_or(|last| Some(last) != named))
    }

    /// Removes files of this library by what they are: a whole snapshot, or none for a part of one.
    fn remove_where(&self, goes: impl Fn(Option<LogId>) -> bool) -> Result<(), StorageError> {
        let names = match fs::read_dir(&self.dir) {
            Ok(files) => files.collect::<Result<Vec<_>, _>>(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(error),
        };
        for file in names.map_err(StorageError::io("list", &self.dir))? {
            let name = file.file_name().to_string_lossy().into_owned();
            let part = name.contains(PART);
            let last = snapshot_of(&name);
            if (part || last.is_some()) && goes(last) {
                let path = file.path();
                fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// All whole snapshots by their names, in order.
    pub(crate) fn list(&self) -> Result<BTreeSet<LogId>, StorageError> {
        let files = match fs::read_dir(&self.dir) {
            Ok(files) => files.collect::<Result<Vec<_>, _>>(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let files = files.map_err(StorageError::io("list", &self.dir))?;
        let names = files.iter().map(fs::DirEntry::file_name);
        Ok(names
            .filter_map(|name| snapshot_of(&name.to_string_lossy()))
            .collect())
    }

    fn make_folder(&self) -> Result<(), StorageError> {
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(StorageError::io("create", &self.dir)(error))
            }
            // Who made it may have been killed before it synced the folder above.
            _ => sync_folder(self.dir.parent().unwrap_or(Path::new("."))),
        }
    }
}

/// The snapshot that a file of this name holds; none for any other name.
fn snapshot_of(name: &str) -> Option<LogId> {
    let (index, term) = name.strip_suffix(WHOLE)?.split_once('-')?;
    Some(LogId::new(
        Term(term.parse().ok()?),
        LogIndex(index.parse().ok()?),
    ))
}

impl Snapshots for SnapshotFiles {
    fn create(&self, meta: &SnapshotMeta) -> Result<Box<dyn SnapshotSink>, StorageError> {
        self.check_open()?;
        self.make_folder()?;
        let info = SnapshotInfo {
            meta: meta.clone(),
            cluster: self.state().cluster,
            id: random_id()?,
            bytes: 0,
        };
        Ok(Box::new(FileSink::begin(self.clone(), info)?))
    }

    fn open(&self, last: LogId) -> Result<Box<dyn SnapshotSource>, StorageError> {
        self.check_open()?;
        let source = FileSource::open(&self.file(last)).map_err(|error| match error {
            StorageError::Io { cause, .. } if cause.kind() == ErrorKind::NotFound => {
                StorageError::NoSnapshot { last }
            }
            error => error,
        })?;
        let named = self.state().named.filter(|named| named.last == last);
        source.check_is(&named.unwrap_or(Named {
            last,
            id: source.info.id,
            bytes: source.info.bytes,
        }))?;
        Ok(Box::new(source))
    }

    fn remove(&self, last: LogId) -> Result<(), StorageError> {
        let state = self.state();
        if state.closed || state.is_needed(last) {
            return Ok(());
        }
        let path = self.file(last);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(StorageError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// A file that is being written, under its temporary name.
struct FileSink {
    files: SnapshotFiles,
    info: SnapshotInfo,
    path: PathBuf,
    /// None once it has its name, or was removed.
    file: Option<File>,
    gathered: Vec<u8>,
    unsynced: u64,
    failed: Option<StorageError>,
}

impl FileSink {
    fn begin(files: SnapshotFiles, info: SnapshotInfo) -> Result<Self, StorageError> {
        let whole = files.file(info.meta.last);
        // Of a name that no other has: a store that is closed, or was killed, may have left one.
        let path = whole.with_extension(format!("{}-{:032x}", &PART[1..], info.id));
        let file = {
            let state = files.state();
            if state.closed {
                return Err(StorageError::Closed);
            }
            let mut new = OpenOptions::new();
            let file = new.write(true).create_new(true).mode(0o600).open(&path);
            file.map_err(StorageError::io("create", &path))?
        };
        let mut sink = Self {
            files,
            path,
            file: Some(file),
            gathered: Vec::with_capacity(CHUNK_BYTES),
            unsynced: 0,
            failed: None,
            info,
        };
        let header = format::header(&sink.info);
        sink.put(&[&header])?;
        Ok(sink)
    }

    fn file(&mut self) -> Result<&mut File, StorageError> {
        self.file.as_mut().ok_or(StorageError::Closed)
    }

    /// Writes these bytes, and syncs them when enough have come together.
    fn put(&mut self, parts: &[&[u8]]) -> Result<(), StorageError> {
        let path = self.path.clone();
        for part in parts {
            let written = self.file()?.write_all(part);
            written.map_err(StorageError::io("write", &path))?;
            self.unsynced += part.len() as u64;
        }
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            let synced = self.file()?.sync_data();
            synced.map_err(StorageError::io("sync", &path))?;
        }
        Ok(())
    }

    /// Writes what was gathered as the next chunk.
    fn put_chunk(&mut self) -> Result<(), StorageError> {
        let data = std::mem::take(&mut self.gathered);
        let header = format::chunk_header(self.info.id, self.info.chunks(), &data);
        let bytes = self.info.bytes + data.len() as u64;
        self.put(&[&header, &data])?;
        self.info.bytes = bytes;
        self.gathered = data;
        self.gathered.clear();
        Ok(())
    }

    fn try_write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        self.files.check_open()?;
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.gathered.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.gathered.extend_from_slice(now);
            bytes = later;
            if self.gathered.len() == CHUNK_BYTES {
                self.put_chunk()?;
            }
        }
        Ok(())
    }

    fn try_finish(&mut self) -> Result<(), StorageError> {
        if !self.gathered.is_empty() {
            self.put_chunk()?;
        }
        let trailer = format::trailer(&self.info);
        self.put(&[&trailer])?;
        let path = self.path.clone();
        let synced = self.file()?.sync_all();
        synced.map_err(StorageError::io("sync", &path))?;
        // Under the lock, so that a store that is closed meanwhile is closed: the folder may be another's.
        let state = self.files.state();
        if state.closed {
            return Err(StorageError::Closed);
        }
        let last = self.info.meta.last;
        let whole = self.files.file(last);
        if state.is_needed(last) {
            // It is there already, and the database rests on it: this one is as good, and goes.
            self.info = FileSource::open(&whole)?.info;
            return Ok(());
        }
        fs::rename(&path, &whole).map_err(StorageError::io("rename", &path))?;
        self.file = None;
        let synced = sync_folder(&self.files.dir);
        if synced.is_err() {
            // Its name may not last.
            let _ = fs::remove_file(&whole);
        }
        synced
    }
}

impl SnapshotSink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.try_write(bytes);
        self.failed = result.clone().err();
        result
    }

    fn finish(mut self: Box<Self>) -> Result<SnapshotInfo, StorageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.try_finish()?;
        Ok(self.info.clone())
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// An open file, whole by its frame.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: File,
    path: PathBuf,
    info: SnapshotInfo,
    header_len: u64,
}

impl FileSource {
    /// Opens any file of a snapshot, wherever it is.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(StorageError::io("open", path))?;
        Self::of(file, path)
    }

    /// Takes what was opened under this name.
    pub(crate) fn of(file: File, path: &Path) -> Result<Self, StorageError> {
        let mut source = Self {
            file,
            path: path.to_owned(),
            info: SnapshotInfo {
                meta: SnapshotMeta::default(),
                cluster: None,
                id: 0,
                bytes: 0,
            },
            header_len: 0,
        };
        match source.read_frame() {
            Ok(()) => Ok(source),
            Err(Unreadable::Damage(damage)) => Err(source.damaged(Item::Snapshot, damage)),
            Err(Unreadable::Io(error)) => Err(StorageError::io("read", path)(error)),
        }
    }

    /// Whether it is the snapshot that its name, and the database, say.
    pub(crate) fn check_is(&self, named: &Named) -> Result<(), StorageError> {
        let found = Named {
            last: self.info.meta.last,
            id: self.info.id,
            bytes: self.info.bytes,
        };
        if found != *named {
            return Err(self.damaged(Item::Snapshot, Damage::OtherName));
        }
        Ok(())
    }

    fn read_frame(&mut self) -> Result<(), Unreadable> {
        let len = self.file.metadata()?.len();
        let start = self.read_at(0, 12)?;
        let (magic, header_len) = start.split_at(8);
        if magic != format::MAGIC {
            return Err(Damage::Checksum.into());
        }
        let header_len = u32::from_be_bytes(header_len.try_into().unwrap_or_default()) as usize;
        if header_len > format::HEADER_LEN_MAX {
            return Err(Damage::Length.into());
        }
        if 12 + header_len as u64 > len {
            return Err(Damage::Length.into());
        }
        self.info = format::read_header(&self.read_at(12, header_len)?)?;
        self.header_len = 12 + header_len as u64;
        let end = len.checked_sub(format::TRAILER_LEN as u64);
        let end = end.ok_or(Damage::Unfinished)?;
        let trailer = self.read_at(end, format::TRAILER_LEN)?;
        let trailer = trailer[..].try_into().map_err(|_| Damage::Unfinished)?;
        self.info.bytes = format::read_trailer(self.info.id, trailer)?;
        if format::file_len(&self.info, self.header_len) != Some(len) {
            return Err(Damage::Length.into());
        }
        Ok(())
    }

    fn read_at(&self, at: u64, len: usize) -> Result<BytesMut, Unreadable> {
        let mut bytes = BytesMut::zeroed(len);
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn damaged(&self, item: Item, damage: Damage) -> StorageError {
        StorageError::Damaged {
            path: self.path.clone(),
            item,
            damage,
        }
    }
}

impl SnapshotSource for FileSource {
    fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    fn read_chunk(&self, number: u64) -> Result<Bytes, StorageError> {
        let item = Item::Chunk(number);
        let (at, len) = format::chunk_at(&self.info, self.header_len, number)
            .ok_or_else(|| self.damaged(item, Damage::Absent))?;
        let chunk = self.read_at(at, len).and_then(|chunk| {
            format::check_chunk(&self.info, number, &chunk)?;
            Ok(chunk)
        });
        match chunk {
            Ok(chunk) => Ok(chunk.freeze().slice(format::CHUNK_HEADER_LEN..)),
            Err(Unreadable::Damage(damage)) => Err(self.damaged(item, damage)),
            Err(Unreadable::Io(error)) => Err(StorageError::io("read", &self.path)(error)),
        }
    }
}

/// Why a part of a file did not come out as it went in.
#[derive(Debug)]
enum Unreadable {
    Damage(Damage),
    Io(std::io::Error),
}

impl From<Damage> for Unreadable {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

impl From<std::io::Error> for Unreadable {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == ErrorKind::UnexpectedEof {
            return Self::Damage(Damage::Length);
        }
        Self::Io(error)
    }
}
