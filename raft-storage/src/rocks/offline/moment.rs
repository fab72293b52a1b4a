//! Reading a folder that may be in use, as it was at one moment.
//!
//! A database that is opened to be read finds its table files in its manifest, and its log files in the
//! folder. Between the two a running node may have brought a log file's content into a table file that the
//! manifest, as it was read, does not name, and removed the log file: the reading would have a hole, or end
//! early. So a reading counts only if every log file that was there before it is still there after it. A table
//! file that vanishes fails the opening by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::OfflineError;
use crate::{
    OpenError, StorageError,
    folder::{DATABASE, Use, user_of},
    mark,
    rocks::open::{Sight, look},
    snapshot::files::{FileSource, Named, SnapshotFiles},
};

const TRIES: usize = 8;
const WAIT_FIRST: Duration = Duration::from_millis(10);

/// Whether there is anything of a node in `dir`.
pub(super) fn check_is_data_folder(dir: &Path) -> Result<(), OfflineError> {
    if dir.join(mark::FILE).exists() || dir.join(DATABASE).exists() {
        return Ok(());
    }
    let dir = dir.to_owned();
    Err(OfflineError::NotADataFolder { dir })
}

/// Does `once` until its result is of one moment and `good`; or as good as it gets, if no node is changing the
/// folder meanwhile.
pub(super) fn at_one_moment<T>(
    dir: &Path,
    mut once: impl FnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> Result<T, OfflineError> {
    let mut wait = WAIT_FIRST;
    for tried in 1..=TRIES {
        let used_before = is_used(dir);
        let logs = log_files(dir);
        let result = once();
        let moved = !logs.iter().all(|log| log.exists());
        let used = used_before || is_used(dir);
        // What is wrong with a folder that nobody uses stays wrong; in one that is used it may have been the
        // node's own work that was seen half done.
        if !moved && (good(&result) || !used || tried == TRIES) {
            return Ok(result);
        }
        thread::sleep(wait);
        wait *= 2;
    }
    let (dir, tries) = (dir.to_owned(), TRIES);
    Err(OfflineError::Moving { dir, tries })
}

/// Looks at a folder as a node would that opens it.
pub(super) fn sight(dir: &Path) -> Result<Result<Sight, OpenError>, OfflineError> {
    check_is_data_folder(dir)?;
    at_one_moment(dir, || look(dir), Result::is_ok)
}

/// A folder at one moment, with its snapshot: open, it stays, even if a running node removes it.
pub(super) struct Moment {
    pub(super) sight: Sight,
    pub(super) snapshot: Option<FileSource>,
}

/// Looks at a folder as [`sight`] does, and opens the snapshot that its database names.
pub(super) fn moment(dir: &Path) -> Result<Moment, OfflineError> {
    check_is_data_folder(dir)?;
    let once = || {
        let sight = look(dir)?;
        let state = sight.content.as_ref().map(|(_, found, _)| &found.state);
        let pointer = state.and_then(|state| state.pointer.as_ref());
        let open = |named: Named| {
            let file = SnapshotFiles::new(dir, None, None).file(named.last);
            let source = FileSource::open(&file)?;
            source.check_is(&named)?;
            Ok::<_, StorageError>(source)
        };
        let snapshot = pointer.map(|pointer| open(pointer.named())).transpose();
        let snapshot = snapshot.map_err(|error| OpenError::from(error).in_folder(dir))?;
        Ok::<_, OpenError>(Moment { sight, snapshot })
    };
    Ok(at_one_moment(dir, once, Result::is_ok)??)
}

fn is_used(dir: &Path) -> bool {
    !matches!(user_of(dir), Ok(Use::Free))
}

fn log_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join(DATABASE)).into_iter().flatten();
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}
