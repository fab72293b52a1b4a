//! The disk that forgets as a file system: mounted by FUSE, served by this process.
//!
//! The kernel keeps no dirty pages of it (no write-back cache): every write, sync and change of a name reaches the
//! [`Disk`] at once and in order, so that one lock there is all that orders them.
//!
//! Invariant: it is unmounted when it is dropped, and what this process did not live to unmount, its
//! [sweeper](crate::crash::mounts) does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};

use crate::crash::disk::{Attributes, Disk, PAGE, Refusal};
use crate::crash::mounts;

/// How long the kernel may remember an answer. Nobody else changes anything.
const TTL: Duration = Duration::from_secs(600);

/// A mounted disk. Dropped, it is unmounted.
pub struct Mounted {
    disk: Arc<Mutex<Disk>>,
    point: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts `disk` in the folder `point`.
    pub fn mount(disk: Arc<Mutex<Disk>>, point: &Path) -> Result<Self> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("forgetful".to_owned())];
        let served = Served(Arc::clone(&disk));
        let session = fuser::spawn_mount(served, point, &config)
            .with_context(|| format!("mount a FUSE file system on {}", point.display()))?;
        Ok(Self {
            disk,
            point: point.to_owned(),
            session: Some(session),
        })
    }

    /// The disk.
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// Unmounts, and waits until nobody is served any more.
    pub fn unmount(mut self) -> Result<()> {
        let session = self.session.take().context("mounted")?;
        session
            .umount_and_join()
            .with_context(|| format!("unmount {}", self.point.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Whoever still has a file open on it gets errors from now on.
            mounts::detach(&self.point);
            drop(session);
        }
    }
}

/// Takes the lock of a disk, whatever became of its last holder.
pub fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Served(Arc<Mutex<Disk>>);

fn error(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Off => Errno::EIO,
        Refusal::Missing => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::WrongKind => Errno::EINVAL,
    }
}

impl Served {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.0)
    }

    /// A name's number and attributes, once `make` has answered with the number.
    fn entry(
        &self,
        make: impl FnOnce(&mut Disk) -> Result<u64, Refusal>,
    ) -> Result<FileAttr, Errno> {
        let mut disk = self.disk();
        let number = make(&mut disk).map_err(error)?;
        disk.attributes(number)
            .map(|found| attributes(number, found))
            .map_err(error)
    }

    fn empty(&self, reply: ReplyEmpty, call: impl FnOnce(&mut Disk) -> Result<(), Refusal>) {
        let answer = call(&mut self.disk());
        match answer {
            Ok(()) => reply.ok(),
            Err(refusal) => reply.error(error(refusal)),
        }
    }
}

fn name(name: &OsStr) -> Result<&str, Refusal> {
    name.to_str().ok_or(Refusal::Missing)
}

fn attributes(number: u64, found: Attributes) -> FileAttr {
    let Attributes {
        is_folder,
        size,
        mode,
    } = found;
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: kind(is_folder),
        perm: mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

fn kind(is_folder: bool) -> FileType {
    if is_folder {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

fn reply_entry(reply: ReplyEntry, answer: Result<FileAttr, Errno>) {
    match answer {
        Ok(found) => reply.entry(&TTL, &found, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, of: &OsStr, reply: ReplyEntry) {
        let answer = self.entry(|disk| disk.lookup(parent.0, name(of)?));
        reply_entry(reply, answer);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.entry(|_| Ok(number.0)) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let answer = self.entry(|disk| {
            if let Some(mode) = mode {
                disk.set_mode(number.0, (mode & 0o7777) as u16)?;
            }
            if let Some(size) = size {
                disk.resize(number.0, size)?;
            }
            Ok(number.0)
        });
        match answer {
            Ok(found) => reply.attr(&TTL, &found),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        of: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mode = (mode & !umask & 0o7777) as u16;
        let answer = self.entry(|disk| disk.make(parent.0, name(of)?, true, mode));
        reply_entry(reply, answer);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        of: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mode = (mode & !umask & 0o7777) as u16;
        let answer = self.entry(|disk| disk.make(parent.0, name(of)?, false, mode));
        match answer {
            Ok(found) => reply.created(
                &TTL,
                &found,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(error),
        }
    }

    fn link(
        &self,
        _: &Request,
        number: INodeNo,
        new_parent: INodeNo,
        new: &OsStr,
        reply: ReplyEntry,
    ) {
        let answer = self.entry(|disk| disk.link(number.0, new_parent.0, name(new)?));
        reply_entry(reply, answer);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, of: &OsStr, reply: ReplyEmpty) {
        self.empty(reply, |disk| disk.remove(parent.0, name(of)?, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, of: &OsStr, reply: ReplyEmpty) {
        self.empty(reply, |disk| disk.remove(parent.0, name(of)?, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        of: &OsStr,
        new_parent: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        self.empty(reply, |disk| {
            disk.rename(parent.0, name(of)?, new_parent.0, name(new)?)
        });
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = self.disk().read(number.0, offset, size as usize);
        match answer {
            Ok(bytes) => reply.data(&bytes),
            Err(refusal) => reply.error(error(refusal)),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let answer = self.disk().write(number.0, offset, data);
        match answer {
            Ok(()) => reply.written(data.len() as u32),
            Err(refusal) => reply.error(error(refusal)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.empty(reply, |disk| disk.sync(number.0));
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.empty(reply, |disk| disk.sync(number.0));
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let disk = self.disk();
        let names = match disk.list(number.0) {
            Ok(names) => names,
            Err(refusal) => return reply.error(error(refusal)),
        };
        let dots = [".", ".."].map(|dots| (dots.to_owned(), number.0));
        let all = dots.into_iter().chain(names).zip(1..);
        for ((name, number), next) in all.skip(offset as usize) {
            let found = disk.attributes(number);
            let is_folder = found.is_ok_and(|found| found.is_folder);
            if reply.add(INodeNo(number), next, kind(is_folder), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // As large as memory, and nobody asks how much that is.
        let blocks = 1 << 22;
        reply.statfs(
            blocks,
            blocks,
            blocks,
            1 << 20,
            1 << 20,
            PAGE as u32,
            255,
            PAGE as u32,
        );
    }
}
