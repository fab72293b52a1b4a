//! Whether a folder is what was written: everything in it, and all that is wrong.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use raft_core::{Entry, EntryKind, LogIndex, membership::Configuration};

use super::{
    OfflineError,
    moment::{at_one_moment, check_is_data_folder},
    walk::{Step, walk},
};
use crate::{
    Damage, Item, OpenError, SnapshotSource as _, StorageError,
    folder::DATABASE,
    mark::{self, Mark},
    records::{self, Pointer},
    rocks::{db::Database, open::look, state},
    run::{self, Run},
    snapshot::files::{FOLDER as SNAPSHOTS, FileSource, SnapshotFiles},
};

/// One thing that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In which file or folder.
    pub file: PathBuf,
    /// Which part of it.
    pub item: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.file.display(), self.item, self.reason)
    }
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Entries of the log that are as they were written.
    pub entries: u64,
    /// Records beside the log.
    pub records: u64,
    /// Pieces of the snapshot.
    pub chunks: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How much is whole.
    pub checked: Checked,
    /// All that is wrong; with none, a node opens this folder.
    pub problems: Vec<Problem>,
    /// What is unusual and harms nothing.
    pub notes: Vec<Problem>,
}

impl Report {
    fn problem(&mut self, file: &Path, item: impl fmt::Display, reason: impl fmt::Display) {
        self.problems.push(problem(file, item, reason));
    }

    fn note(&mut self, file: &Path, item: impl fmt::Display, reason: impl fmt::Display) {
        self.notes.push(problem(file, item, reason));
    }

    /// An error of a library below, by the file and item that it names.
    fn failed(&mut self, file: &Path, item: impl fmt::Display, error: &StorageError) {
        match error {
            StorageError::Damaged { path, item, damage } => self.problem(path, item, damage),
            StorageError::Io { path, .. } => self.problem(path, item, error),
            other => self.problem(file, item, other),
        }
    }
}

fn problem(file: &Path, item: impl fmt::Display, reason: impl fmt::Display) -> Problem {
    Problem {
        file: file.to_owned(),
        item: item.to_string(),
        reason: reason.to_string(),
    }
}

/// Reads all of a folder, goes on behind what is wrong, and tells all of it. Its node may be running; what is
/// wrong in a moment that the node itself has made is looked at again.
///
/// # Errors
/// [`OfflineError::NotADataFolder`], and [`OfflineError::Moving`].
pub fn verify(dir: &Path) -> Result<Report, OfflineError> {
    check_is_data_folder(dir)?;
    at_one_moment(
        dir,
        || verify_once(dir),
        |report| report.problems.is_empty(),
    )
}

fn verify_once(dir: &Path) -> Report {
    let mut report = Report::default();
    verify_mark(dir, &mut report);
    let path = dir.join(DATABASE);
    let mut pointer = None;
    if path.join("CURRENT").exists() {
        match Database::open_read_only(&path, true) {
            Ok(db) => {
                verify_records(&db, &path, &mut report);
                // A damaged pointer was named just now. Nobody knows then where the log begins.
                let known = state::pointer(&db);
                verify_log(
                    &db,
                    &path,
                    known.as_ref().ok().map(Option::as_ref),
                    &mut report,
                );
                pointer = known.ok().flatten();
            }
            Err(error) => report.failed(&path, Item::Database, &error),
        }
    }
    verify_snapshots(dir, pointer.as_ref(), &mut report);
    // What the parts do not show: that they fit each other, and that all that was promised is there.
    if let Err(refusal) = look(dir) {
        let told = match &refusal {
            OpenError::Damaged { .. } | OpenError::MarkDamaged { .. } => {
                !report.problems.is_empty()
            }
            OpenError::SnapshotMissing { file } => report.problems.iter().any(|p| p.file == *file),
            _ => false,
        };
        if !told {
            report.problem(dir, "the data folder", &refusal);
        }
    }
    report
}

fn verify_mark(dir: &Path, report: &mut Report) {
    let path = dir.join(mark::FILE);
    if !path.exists() {
        return;
    }
    match Mark::damage(dir) {
        Ok([Some(first), Some(second)]) => {
            report.problem(&path, "the first half", first);
            report.problem(&path, "the second half", second);
        }
        Ok([None, None]) => {}
        Ok([first, _]) => {
            let half = if first.is_some() { "first" } else { "second" };
            let reason = "is damaged, as by a power loss; the other half counts";
            report.note(&path, format!("the {half} half"), reason);
        }
        Err(error) => report.failed(&path, "the mark", &error),
    }
}

fn verify_records(db: &Database, path: &Path, report: &mut Report) {
    let rows = match state::rows(db) {
        Ok(rows) => rows,
        Err(error) => return report.failed(path, "the records", &error),
    };
    for (key, value) in rows {
        match records::check(&key, &value) {
            Ok(()) => report.checked.records += 1,
            Err((name, Damage::Unknown)) => {
                report.note(path, format!("the record \"{name}\""), Damage::Unknown);
            }
            Err((name, damage)) => {
                report.problem(path, format!("the record \"{name}\""), damage);
            }
        }
    }
}

/// Checks every run and every entry in it, and that they follow each other. `pointer` is none if nobody knows
/// where the log begins.
fn verify_log(db: &Database, path: &Path, pointer: Option<Option<&Pointer>>, report: &mut Report) {
    let start = pointer.map(|pointer| pointer.map(|p| p.log_start).unwrap_or_default());
    let first = start.map_or(LogIndex(1), |start| start.index.next());
    // What follows what was just damaged has nothing to follow.
    let mut expected = start.map(|start| start.index.next());
    let mut term = start.unwrap_or_default().term;
    walk(db, first, |step| {
        match step {
            Step::Run(run, value) => {
                let item = Item::Run(run.first.index);
                if let Some(expected) = expected
                    && run.first.index.max(first) != expected
                {
                    report.problem(path, item, Damage::Hole { expected });
                }
                if run.first.term < term {
                    report.problem(path, item, Damage::TermBack);
                }
                term = run.first.term;
                expected = Some(run.last().next());
                verify_run(run, &value, path, report);
            }
            Step::Damaged(error) => {
                report.failed(path, Item::Database, &error);
                expected = None;
            }
            Step::Unreadable {
                from,
                through,
                cause,
            } => {
                let item = match through {
                    Some(through) => format!("the entries from {from} through {through}"),
                    None => format!("the entries from {from} on"),
                };
                report.failed(path, item, &cause);
                expected = None;
            }
        }
        true
    });
}

fn verify_run(run: Run, value: &bytes::Bytes, path: &Path, report: &mut Report) {
    let each = |entry: Entry| {
        let wrong = (entry.kind == EntryKind::Configuration)
            .then(|| Configuration::decode(&entry.data).err())
            .flatten();
        match wrong {
            None => report.checked.entries += 1,
            Some(error) => report.problem(
                path,
                Item::Entry(entry.id.index),
                Damage::Configuration(error),
            ),
        }
        true
    };
    if let Err(damage) = run::decode(run, value, run.first.index, each) {
        report.problem(path, Item::Run(run.first.index), damage);
    }
}

fn verify_snapshots(dir: &Path, pointer: Option<&Pointer>, report: &mut Report) {
    let named = pointer.map(|pointer| pointer.meta.last);
    let files = SnapshotFiles::new(dir, None, None);
    if let Some(pointer) = pointer {
        let path = files.file(pointer.meta.last);
        let opened = FileSource::open(&path).and_then(|source| {
            source.check_is(&pointer.named())?;
            Ok(source)
        });
        match opened {
            Ok(source) => {
                for number in 0..source.info().chunks() {
                    match source.read_chunk(number) {
                        Ok(_) => report.checked.chunks += 1,
                        Err(error) => report.failed(&path, Item::Chunk(number), &error),
                    }
                }
            }
            Err(error) => report.failed(&path, Item::Snapshot, &error),
        }
    }
    // A node removes at its start what its database does not name.
    match files.list() {
        Ok(whole) => {
            for last in whole.into_iter().filter(|last| Some(*last) != named) {
                let reason = "is not the one that the database names; the node removes it";
                report.note(&files.file(last), "a snapshot", reason);
            }
        }
        Err(error) => report.failed(&dir.join(SNAPSHOTS), "the snapshots", &error),
    }
}
