//! How the database is opened, each setting with its reason. Measured figures are in docs and FACTS; what
//! is not set here is RocksDB's default, on purpose.

use raft_core::LogIndex;
use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    Options, ReadOptions, WriteOptions,
};

use crate::run;

/// Table files that RocksDB keeps open, at most.
const OPEN_FILES_MAX: i32 = 128;

/// The column family of the entries.
pub(super) const LOG: &str = "log";
/// The column family of what a node knows beside its log.
pub(super) const STATE: &str = "state";

/// What is in memory is what a start must read back from the log files, and what a compaction cannot drop yet.
/// Measured on copies of this file in November 2026, on a disk that others used: 16, 32 and 64 MiB write alike; 64 take
/// twice the memory and disk of 32, and 1.7 times as long to open; 8 halved the throughput of batches of 1,024 in the
/// one run that tried them.
const MEMTABLE_BYTES: usize = 32 << 20;
/// Log files that are kept to be written again.
const LOG_FILES_RECYCLED: usize = 2;
/// A state of a few hundred bytes, rewritten with each vote.
const STATE_MEMTABLE_BYTES: usize = 4 << 20;

/// For the database as a whole. `fresh`: it may be made, since nothing was ever promised on it. Otherwise
/// a missing database, or a missing column family, is a loss and must not be papered over.
pub(super) fn database(fresh: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(fresh);
    options.create_missing_column_families(fresh);

    // Every write goes through RocksDB's buffer to the file at once, and is synced by its own call: no
    // second place where what was acknowledged could wait.
    options.set_manual_wal_flush(false);
    // Each write syncs already; a background range sync would only compete with it.
    options.set_wal_bytes_per_sync(0);
    // A power loss tears the last record, and an ordinary power loss must open: so recovery stops at the
    // first bad record instead of refusing. It does the same for damage in the middle, silently; that is
    // what the mark is for. Tolerate-tail refuses some ordinary losses and accepts some real ones;
    // skip-any opens with a hole.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A closed log file that is missing or short is refused by RocksDB itself.
    options.set_track_and_verify_wals_in_manifest(true);
    // A log file is written over an old one, whose blocks and length the disk knows already: a sync then has no
    // journal of the file system to wait for. Measured side by side: 1.4 to 1.9 times the entries a second, and 0.5 to
    // 0.7 of the median. Each record carries the number of its log file, so that old ones behind the end are told from
    // new ones, and point-in-time recovery goes on in the next file only if that continues where this one ends
    // (tests/recycled_log.rs tears such writes). The first two log files of a start are new: RocksDB writes
    // over none that an earlier process left.
    options.set_recycle_log_file_num(LOG_FILES_RECYCLED);
    // Both column families reach their table files together. Else, with a damaged log file, recovery
    // could find one of them ahead of the other: entries without the vote of their time.
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    // What recovery found in the log files is brought into synced table files before anybody reads it
    // (`avoid_flush_during_recovery` stays off): after a kill it may have been in the page cache only.

    // Without a bound each table file stays open, and their number grows with the log until the process
    // may open no more. A file that is closed meanwhile costs a read far behind an open and a look at its
    // index.
    options.set_max_open_files(OPEN_FILES_MAX);
    // The default starts 16 threads at each opening, for each column family, to open a handful of files.
    options.set_max_file_opening_threads(1);

    // Its own chatter: two small files.
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options
}

/// For reading a database that is not to be changed. Where another process writes it, all its files are opened at
/// once, so that it may remove what it likes; a long log wants a high limit of open files then.
pub(super) fn read_only(written: bool) -> Options {
    let mut options = database(false);
    if written {
        options.set_max_open_files(-1);
    }
    options
}

/// The column families, ours and those that are there: RocksDB opens none unless all are named, and what
/// a newer version has added must be met by a sentence about versions.
pub(super) fn column_families(present: &[String]) -> Vec<ColumnFamilyDescriptor> {
    let mut names = vec![LOG, STATE];
    let others = present.iter().map(String::as_str);
    names.extend(others.filter(|name| ![LOG, STATE].contains(name)));
    names
        .into_iter()
        .map(|name| ColumnFamilyDescriptor::new(name, column_family(name)))
        .collect()
}

fn column_family(name: &str) -> Options {
    let mut options = Options::default();
    let memtable = if name == LOG {
        MEMTABLE_BYTES
    } else {
        STATE_MEMTABLE_BYTES
    };
    options.set_write_buffer_size(memtable);
    // What lies before the log's beginning is dropped by whole files, which RocksDB does not do in level 0. A
    // flushed file overlaps none that is there, so it is moved to level 1 without a byte being rewritten.
    options.set_level_zero_file_num_compaction_trigger(1);
    // Cheap for the CPU, and what remains in memory is not compressed.
    options.set_compression_type(DBCompressionType::Lz4);
    let mut table = BlockBasedOptions::default();
    // No Bloom filter (there is none unless set): the log is read in order from a key that exists.
    // A value is a run of up to 64 KiB; smaller blocks would each hold one anyway.
    table.set_block_size(32 << 10);
    options.set_block_based_table_factory(&table);
    options
}

/// For every write that something depends on, which is every write.
pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options.disable_wal(false);
    options
}

/// For an iterator over this group's runs that begin at or below `through`. An iterator without bounds
/// walks over the tombstones of what was cut or compacted, and into other groups.
pub(super) fn iterator(through: LogIndex) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(run::key(LogIndex::ZERO));
    options.set_iterate_upper_bound(upper(through));
    options.set_verify_checksums(true);
    // Who reads the log reads it in order and goes on: what it leaves behind in the cache helps nobody. Saves a
    // quarter of the CPU that a megabyte costs the reader, measured.
    options.fill_cache(false);
    options
}

/// The first key behind all runs of this group that begin at or below `last`.
pub(super) fn upper(last: LogIndex) -> [u8; 16] {
    let next = last.0.checked_add(1).map(|next| run::key(LogIndex(next)));
    next.unwrap_or_else(run::key_of_next_group)
}
