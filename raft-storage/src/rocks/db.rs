//! The database itself: RocksDB with its two column families, and errors that name it.
//!
//! Invariant: no iterator is taken for finished before its status was asked. RocksDB ends an iteration at a
//! block that it cannot read, and says so nowhere else.
//!
//! Invariant: RocksDB reads no list of files that [`manifest::check`] has not passed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use raft_core::LogIndex;
use rocksdb::{
    ColumnFamily, DB, DBRawIterator, Direction, IteratorMode, Options, WriteBatch, WriteOptions,
};

use super::options::{self, LOG, STATE};
use crate::{
    Damage, StorageError,
    error::Item,
    manifest,
    run::{self, Run},
};

const BACKGROUND_ERRORS: &str = "rocksdb.background-errors";

/// An open database.
pub(super) struct Database {
    db: DB,
    path: PathBuf,
    synced: WriteOptions,
}

impl Database {
    /// Opens the database in `path`; makes it if it is missing and `fresh` allows that.
    pub(super) fn open(path: &Path, fresh: bool) -> Result<Self, StorageError> {
        let families = options::column_families(&present(path)?);
        let db = DB::open_cf_descriptors(&options::database(fresh), path, families);
        Self::of(path, db)
    }

    /// Opens the database to be read, and changes no byte of it: not even what recovery would cut off. It shows
    /// what was written when it was opened. A process that writes it need not be stopped, but may make the
    /// opening fail, by removing a file that was just about to be read.
    ///
    /// `written`: whether such a process may be there. Then all files are opened at once and kept open.
    pub(super) fn open_read_only(path: &Path, written: bool) -> Result<Self, StorageError> {
        let families = options::column_families(&present(path)?);
        let options = options::read_only(written);
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false);
        Self::of(path, db)
    }

    fn of(path: &Path, db: Result<DB, rocksdb::Error>) -> Result<Self, StorageError> {
        Ok(Self {
            db: db.map_err(failed(path, "be opened"))?,
            path: path.to_owned(),
            synced: options::synced(),
        })
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with it")
    }

    pub(super) fn damaged(&self, item: Item, damage: Damage) -> StorageError {
        StorageError::Damaged {
            path: self.path.clone(),
            item,
            damage,
        }
    }

    pub(super) fn get_state(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let value = self.db.get_cf(self.family(STATE), key);
        value.map_err(failed(&self.path, "read"))
    }

    /// The values whose keys begin with `prefix`, in the order of their keys.
    pub(super) fn states_under(&self, prefix: &[u8]) -> Result<Vec<Row>, StorageError> {
        let from = IteratorMode::From(prefix, Direction::Forward);
        let rows = self.db.iterator_cf(self.family(STATE), from);
        let under = rows.take_while(|row| match row {
            Ok((key, _)) => key.starts_with(prefix),
            Err(_) => true,
        });
        let rows = under.collect::<Result<_, _>>();
        rows.map_err(failed(&self.path, "read"))
    }

    pub(super) fn delete_state(&self, batch: &mut WriteBatch, key: &[u8]) {
        batch.delete_cf(self.family(STATE), key);
    }

    pub(super) fn put_state(&self, batch: &mut WriteBatch, key: &[u8], value: &[u8]) {
        batch.put_cf(self.family(STATE), key, value);
    }

    pub(super) fn put_run(&self, batch: &mut WriteBatch, key: [u8; 16], value: &[u8]) {
        batch.put_cf(self.family(LOG), key, value);
    }

    pub(super) fn delete_run(&self, batch: &mut WriteBatch, first: LogIndex) {
        batch.delete_cf(self.family(LOG), run::key(first));
    }

    /// Whether a flush or a compaction has failed behind our back. RocksDB may try such a thing again, and
    /// "succeed"; and if nobody writes, nobody else would be told.
    pub(super) fn check_background(&self) -> Result<(), StorageError> {
        let errors = self.db.property_int_value(BACKGROUND_ERRORS);
        let errors = errors.map_err(failed(&self.path, "be asked"))?.unwrap_or(0);
        if errors == 0 {
            return Ok(());
        }
        let log = self.path.join("LOG");
        let cause = format!("{errors} errors, which {} names", log.display());
        Err(StorageError::Database {
            action: "flush or compact in the background",
            path: self.path.clone(),
            cause: Arc::new(std::io::Error::other(cause)),
        })
    }

    /// Takes out all runs that begin at or below `last`: of a log that is replaced as a whole.
    pub(super) fn delete_runs_through(&self, batch: &mut WriteBatch, last: LogIndex) {
        let (from, end) = (run::key(LogIndex::ZERO), options::upper(last));
        batch.delete_range_cf(self.family(LOG), from, end);
    }

    /// Gives the disk back the table files that hold nothing but runs which begin before `first`. Not a write:
    /// what goes was hidden before, and a crash leaves it to the next call.
    pub(super) fn drop_files_below(&self, first: LogIndex) -> Result<(), StorageError> {
        let (from, last) = (run::key(LogIndex::ZERO), run::key(first.prev()));
        let dropped = self
            .db
            .delete_file_in_range_cf(self.family(LOG), from, last);
        dropped.map_err(failed(&self.path, "drop old files"))
    }

    /// Writes all of it or nothing, and returns when it is on the disk.
    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let written = self.db.write_opt(batch, &self.synced);
        written.map_err(failed(&self.path, "write"))
    }

    /// The last run of the log.
    pub(super) fn last_run(&self) -> Result<Option<Run>, StorageError> {
        let last = self
            .runs(LogIndex(u64::MAX))
            .seek_to_last()?
            .map(|found| found.run);
        Ok(last)
    }

    /// The runs that begin at or below `through`, as they are at this moment.
    pub(super) fn runs(&self, through: LogIndex) -> Runs<'_> {
        let bounds = options::iterator(through);
        Runs {
            db: self,
            iterator: self.db.raw_iterator_cf_opt(self.family(LOG), bounds),
        }
    }
}

/// A key and its value.
pub(super) type Row = (Box<[u8]>, Box<[u8]>);

/// The column families that a database has. Whoever opens it asks this first, and so its list of files is
/// walked before RocksDB reads it.
fn present(path: &Path) -> Result<Vec<String>, StorageError> {
    if !path.join("CURRENT").exists() {
        return Ok(Vec::new());
    }
    manifest::check(path)?;
    let listed = DB::list_cf(&Options::default(), path);
    listed.map_err(failed(path, "be listed"))
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(rocksdb::Error) -> StorageError {
    move |cause| StorageError::Database {
        action,
        path: path.to_owned(),
        cause: Arc::new(cause),
    }
}

/// A walk over the log's runs. Nowhere at first.
pub(super) struct Runs<'d> {
    db: &'d Database,
    iterator: DBRawIterator<'d>,
}

/// A run and its value, of which only the frame was checked.
pub(super) struct Found<'i> {
    pub(super) run: Run,
    pub(super) value: &'i [u8],
}

impl Found<'_> {
    /// The value, in memory of its own that all its entries will share.
    pub(super) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.value)
    }
}

impl Runs<'_> {
    /// Goes to the first run.
    pub(super) fn seek_to_first(&mut self) -> Result<Option<Found<'_>>, StorageError> {
        self.iterator.seek_to_first();
        self.found()
    }

    /// Goes to the last run.
    pub(super) fn seek_to_last(&mut self) -> Result<Option<Found<'_>>, StorageError> {
        self.iterator.seek_to_last();
        self.found()
    }

    /// Goes to the last run that begins at or below `index`: the one that holds it, if any does.
    pub(super) fn seek(&mut self, index: LogIndex) -> Result<Option<Found<'_>>, StorageError> {
        self.iterator.seek_for_prev(run::key(index));
        self.found()
    }

    /// Goes to the first run that begins at or behind `index`.
    pub(super) fn seek_behind(
        &mut self,
        index: LogIndex,
    ) -> Result<Option<Found<'_>>, StorageError> {
        self.iterator.seek(run::key(index));
        self.found()
    }

    /// Goes to the next run.
    pub(super) fn next(&mut self) -> Result<Option<Found<'_>>, StorageError> {
        self.iterator.next();
        self.found()
    }

    /// Goes to the run before.
    pub(super) fn prev(&mut self) -> Result<Option<Found<'_>>, StorageError> {
        self.iterator.prev();
        self.found()
    }

    fn found(&self) -> Result<Option<Found<'_>>, StorageError> {
        let Some((key, value)) = self.iterator.item() else {
            let status = self.iterator.status();
            return match status.map_err(failed(&self.db.path, "read")) {
                Ok(()) => Ok(None),
                Err(error) => Err(error),
            };
        };
        let first = run::first_of(key);
        let first = first.ok_or_else(|| self.db.damaged(Item::Key, Damage::Length))?;
        match run::header(first, value) {
            Ok(run) => Ok(Some(Found { run, value })),
            Err(damage) => Err(self.db.damaged(Item::Run(first), damage)),
        }
    }
}
