//! The snapshot of a folder as one file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    OfflineError,
    moment::{Moment, moment},
};
use crate::{
    SnapshotInfo, SnapshotSource as _, StorageError,
    folder::sync_folder,
    snapshot::{files::FileSource, format, random_id},
};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The snapshot with its frame and checksums: what [`Import`](super::Import) takes.
    Framed,
    /// The bytes of the state and nothing else.
    Raw,
}

/// Where it goes.
pub enum Export<'t> {
    /// Into this file, which appears under its name when it is whole and synced.
    File {
        /// Its path.
        path: &'t Path,
        /// Whether it may replace a file that is there.
        replace: bool,
    },
    /// To somebody who takes it as it comes.
    Stream(&'t mut dyn Write),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The snapshot. Its cluster and its configuration are those that its folder is of now, which an operator's
    /// recovery may have changed since it was taken.
    pub info: SnapshotInfo,
    /// How many bytes were written.
    pub bytes: u64,
}

/// Writes the snapshot of a folder, each piece checked, to `to`. Its node may be running.
///
/// # Errors
/// As [`OfflineError`] says. A file is not left behind; a stream has been handed nothing but checked pieces, and
/// may lack the rest.
pub fn export(dir: &Path, form: Form, to: Export<'_>) -> Result<Exported, OfflineError> {
    if let Export::File {
        path,
        replace: false,
    } = &to
        && path.exists()
    {
        let path = path.to_path_buf();
        return Err(OfflineError::Exists { path });
    }
    let (source, info) = open_current(dir)?;
    let bytes = match to {
        Export::Stream(out) => write(&source, &info, form, out, Path::new("the output"))?,
        Export::File { path, replace } => {
            let part = Part::create(path)?;
            let mut file = &part.file;
            let bytes = write(&source, &info, form, &mut file, &part.path)?;
            part.finish(path, replace)?;
            bytes
        }
    };
    Ok(Exported { info, bytes })
}

/// Opens the snapshot that a folder's database names, and says what it is now.
fn open_current(dir: &Path) -> Result<(FileSource, SnapshotInfo), OfflineError> {
    let Moment { sight, snapshot } = moment(dir)?;
    let state = sight.content.as_ref().map(|(_, found, _)| &found.state);
    let (Some(state), Some(source)) = (state, snapshot) else {
        let dir = dir.to_owned();
        return Err(OfflineError::NoSnapshot { dir });
    };
    let named = state.pointer.as_ref().map(|pointer| pointer.meta.clone());
    let mut info = SnapshotInfo {
        meta: named.unwrap_or_default(),
        cluster: state.cluster,
        ..source.info().clone()
    };
    if info != *source.info() {
        // Other bytes: another snapshot.
        info.id = random_id()?;
    }
    Ok((source, info))
}

/// Writes a snapshot as `info` describes it, each piece of it checked. Gives the bytes written.
pub(super) fn write(
    source: &FileSource,
    info: &SnapshotInfo,
    form: Form,
    out: &mut dyn Write,
    path: &Path,
) -> Result<u64, StorageError> {
    let mut bytes = 0;
    let mut put = |part: &[u8]| {
        bytes += part.len() as u64;
        out.write_all(part).map_err(StorageError::io("write", path))
    };
    let framed = form == Form::Framed;
    if framed {
        put(&format::header(info))?;
    }
    for number in 0..info.chunks() {
        let data = source.read_chunk(number)?;
        if framed {
            put(&format::chunk_header(info.id, number, &data))?;
        }
        put(&data)?;
    }
    if framed {
        put(&format::trailer(info))?;
    }
    out.flush().map_err(StorageError::io("write", path))?;
    Ok(bytes)
}

/// A file under a temporary name beside its own. Dropped, it is removed.
struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    fn create(whole: &Path) -> Result<Self, StorageError> {
        let mut name = whole.file_name().unwrap_or_default().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let path = whole.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(StorageError::io("create", &path))?;
        Ok(Self { file, path })
    }

    fn finish(self, whole: &Path, replace: bool) -> Result<(), OfflineError> {
        self.file
            .sync_all()
            .map_err(StorageError::io("sync", &self.path))?;
        let renamed = if replace {
            fs::rename(&self.path, whole)
        } else {
            let flags = RenameFlags::NOREPLACE;
            match renameat_with(CWD, &self.path, CWD, whole, flags).map_err(io::Error::from) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let path = whole.to_owned();
                    return Err(OfflineError::Exists { path });
                }
                // A file system that cannot do it at once; that nothing is there was seen before.
                Err(error) if error.raw_os_error() == Some(22) => fs::rename(&self.path, whole),
                renamed => renamed,
            }
        };
        renamed.map_err(StorageError::io("rename", &self.path))?;
        sync_folder(crate::folder::parent(whole).unwrap_or(Path::new("/")))?;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Once it has its name, there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}
