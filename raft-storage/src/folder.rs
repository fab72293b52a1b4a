//! The data folder: made durably, private, and locked.
//!
//! Invariants:
//! - A folder that is handed out is on the disk with all its parents, and this is its only holder.
//! - A folder that holds somebody else's files is left as it is.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use crate::{StorageError, error::OpenError, mark};

/// The file whose lock says that the folder is in use. It is never removed: a lock on a removed file
/// excludes nobody.
const LOCK: &str = "lock";
/// Who only asks whether the folder is in use holds the lock for an instant: so it is tried again.
const LOCK_TRIES: usize = 5;
const LOCK_WAIT: Duration = Duration::from_millis(20);
/// The database's folder within the data folder.
pub(crate) const DATABASE: &str = "db";

/// A locked data folder. Dropping it releases the lock; so does the end of the process, however it ends.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    /// None for a folder that is only looked at.
    _lock: Option<File>,
}

impl Folder {
    /// Makes the folder if it is missing, and locks it.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        make(dir)?;
        if let Some(found) = strange_file(dir).map_err(StorageError::io("list", dir))? {
            let dir = dir.to_owned();
            return Err(OpenError::NotEmpty { dir, found });
        }
        let path = dir.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StorageError::io("open", &path))?;
        let mut locked = try_lock(&lock);
        for _ in 1..LOCK_TRIES {
            if locked == Err(rustix::io::Errno::WOULDBLOCK) {
                thread::sleep(LOCK_WAIT);
                locked = try_lock(&lock);
            }
        }
        match locked {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let dir = dir.to_owned();
                return Err(OpenError::Locked { dir });
            }
            Err(error) => return Err(StorageError::io("lock", &path)(error.into()).into()),
        }
        Ok(Self {
            dir: dir.to_owned(),
            _lock: Some(lock),
        })
    }

    /// A folder that is looked at and not locked: somebody may be writing it.
    pub(crate) fn unlocked(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            _lock: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// Whether there is a database in it. RocksDB makes `CURRENT` last: without it there is none yet.
    pub(crate) fn has_database(&self) -> bool {
        self.database().join("CURRENT").exists()
    }

    /// Lets nobody else in again, for a folder that was copied or unpacked with other rights.
    pub(crate) fn keep_private(&self) -> Result<(), StorageError> {
        let metadata = fs::metadata(&self.dir).map_err(StorageError::io("look at", &self.dir))?;
        if metadata.permissions().mode() & 0o077 == 0 {
            return Ok(());
        }
        tracing::warn!(folder = %self.dir.display(), "others could read the data folder; they cannot any more");
        self.make_private()
    }

    /// Lets nobody else in, for a folder that was there before it became a data folder.
    pub(crate) fn make_private(&self) -> Result<(), StorageError> {
        fs::set_permissions(&self.dir, Permissions::from_mode(0o700))
            .map_err(StorageError::io("make private", &self.dir))
    }
}

fn try_lock(lock: &File) -> Result<(), rustix::io::Errno> {
    flock(lock, FlockOperation::NonBlockingLockExclusive)
}

/// Whether a process has a data folder open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// None has.
    Free,
    /// One has; its id, where the system tells.
    By(Option<u32>),
}

/// Who has a data folder open. It keeps nobody out: the lock is held for an instant at most, and a node that
/// starts in this instant tries again.
pub(crate) fn user_of(dir: &Path) -> Result<Use, StorageError> {
    let path = dir.join(LOCK);
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Use::Free),
        Err(error) => return Err(StorageError::io("open", &path)(error)),
    };
    if let Some(process) = holder_of(&lock) {
        return Ok(Use::By(Some(process)));
    }
    // The list shows neither processes of other containers nor file systems of many parts.
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Use::Free),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Use::By(None)),
        Err(error) => Err(StorageError::io("look at", &path)(error.into())),
    }
}

/// The process that the system lists as the lock's holder.
fn holder_of(lock: &File) -> Option<u32> {
    let metadata = lock.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let list = fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF
    let mut held = list.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let ours = fields.next()? == "FLOCK" && fields.nth(1)? == "WRITE";
        let process = fields.next()?;
        (ours && fields.next()? == file).then(|| process.parse().ok())?
    });
    held.next()
}

/// Makes the folder and what is missing above it. Each is synced into the folder above before anything
/// is put into it.
fn make(dir: &Path) -> Result<(), StorageError> {
    if dir.is_dir() {
        // Who made it may have been killed before it synced the folder above. Who may not read that one did not
        // make anything in it either.
        let above = parent(dir).unwrap_or(Path::new("/"));
        return match File::open(above).map(|folder| folder.sync_all()) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            Ok(Ok(())) => Ok(()),
            Err(error) | Ok(Err(error)) => {
                Err(StorageError::io("sync the folder above", dir)(error))
            }
        };
    }
    if let Some(parent) = parent(dir) {
        make(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(error) => return Err(StorageError::io("create", dir)(error)),
    }
    sync_folder(parent(dir).unwrap_or(Path::new("/")))
}

/// The folder above, where `a` means `./a`.
pub(crate) fn parent(dir: &Path) -> Option<&Path> {
    let parent = dir.parent()?;
    Some(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}

/// Makes durable which files a folder holds.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), StorageError> {
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(StorageError::io("sync", dir))
}

/// A file that shows that this folder serves another purpose; none if it is empty or a data folder.
pub(crate) fn strange_file(dir: &Path) -> io::Result<Option<String>> {
    let mut strange = None;
    for file in fs::read_dir(dir)? {
        let name = file?.file_name().to_string_lossy().into_owned();
        if [LOCK, DATABASE, mark::FILE, mark::FILE_NEW].contains(&name.as_str()) {
            return Ok(None);
        }
        // The root of a file system of its own is empty in this sense too.
        if name != "lost+found" {
            strange.get_or_insert(name);
        }
    }
    Ok(strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_made_private_with_its_parents() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b/c");
        let folder = Folder::open(&dir).unwrap();
        assert_eq!(folder.path(), dir);
        assert!(!folder.has_database());
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_second_holder_is_told_and_a_later_one_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let first = Folder::open(temp.path()).unwrap();
        let error = Folder::open(temp.path()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Locked { dir } if dir == temp.path()),
            "{error}"
        );
        drop(first);
        Folder::open(temp.path()).unwrap();
    }

    #[test]
    fn who_holds_a_folder_is_seen_without_holding_it() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(user_of(temp.path()).unwrap(), Use::Free);
        let held = Folder::open(temp.path()).unwrap();
        let user = user_of(temp.path()).unwrap();
        assert!(
            user == Use::By(Some(std::process::id())) || user == Use::By(None),
            "{user:?}"
        );
        drop(held);
        assert_eq!(user_of(temp.path()).unwrap(), Use::Free);
        // Who asks all the time does not keep a node from starting.
        let dir = temp.path().to_owned();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = stop.clone();
        let asking = thread::spawn(move || {
            while !asked.load(std::sync::atomic::Ordering::Relaxed) {
                user_of(&dir).unwrap();
            }
        });
        for _ in 0..200 {
            drop(Folder::open(temp.path()).unwrap());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap();
    }

    #[test]
    fn a_folder_with_other_files_is_left_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "x").unwrap();
        let error = Folder::open(temp.path()).unwrap_err();
        assert!(
            matches!(&error, OpenError::NotEmpty { found, .. } if found == "thesis.tex"),
            "{error}"
        );
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_in_the_folders_place_is_an_error_that_names_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("file");
        fs::write(&dir, "x").unwrap();
        let error = Folder::open(&dir).unwrap_err().to_string();
        assert!(error.contains(dir.to_str().unwrap()), "{error}");
    }
}
