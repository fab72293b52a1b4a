//! The mark: a small file beside the database that says how much the database must hold.
//!
//! A RocksDB whose write-ahead log is damaged opens all the same, with synced writes silently missing; a
//! mark kept inside it would roll back with it. So the mark is a file of its own, written by nothing but
//! this module: the node, the folder's incarnation, the count of its starts, term and vote, and a
//! position of the log.
//!
//! Two slots of 512 bytes, each in a page of its own, each with a sequence number and a checksum; the
//! higher number counts.
//!
//! Invariants:
//! - What the mark says was synced in the database before: it is written after the database's sync, and
//!   lowered, in both slots, before a cut goes to the database. Only whose folder it is stands here first if it is known
//!   when the folder is made; when it is given later, the database has it first, and a mark that says of nobody
//!   is completed by the next opening.
//! - Term, vote and starts are synced when they change. The position is only written, which survives the
//!   process; it is synced when it has waited for [`SYNC_EVERY`], and at the close.
//! - Between two syncs only one slot is written, and never the one that was synced last. So a power loss
//!   tears one slot at most; two torn ones are damage.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use raft_core::{HardState, Incarnation, LogId, LogIndex, NodeId, Term};

use crate::{
    Damage, StorageError,
    error::{Claim, OpenError},
    folder::sync_folder,
    records::{put_node, read_node},
    sealed::{self, Fields},
};

/// How long a written position waits for its sync, at most, if [`Mark::settle_if_due`] is called as
/// often: half of the second that is promised.
pub(crate) const SYNC_EVERY: Duration = Duration::from_millis(500);

/// The file's name within the data folder.
pub(crate) const FILE: &str = "mark";
/// The name under which it is made.
pub(crate) const FILE_NEW: &str = "mark.new";

pub(crate) const SLOT_LEN: usize = 512;
const SLOT_AT: [u64; 2] = [0, 4096];
const FILE_LEN: u64 = 8192;
pub(crate) const MAGIC: &[u8] = b"raftmark";

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Whose folder it is; none before it is somebody's, which is stored as 0.
    pub(crate) node: Option<NodeId>,
    /// The folder's name.
    pub(crate) incarnation: Incarnation,
    /// What the database must hold.
    pub(crate) claim: Claim,
}

/// The open mark.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    path: PathBuf,
    record: Record,
    sequence: u64,
    /// The slot that was not synced last.
    scratch: usize,
    unsynced_since: Option<Instant>,
}

impl Mark {
    /// Makes the mark of a new folder, durably and at once or not at all. It claims nothing.
    pub(crate) fn create(
        dir: &Path,
        node: Option<NodeId>,
        incarnation: Incarnation,
    ) -> Result<Self, StorageError> {
        let (path, path_new) = (dir.join(FILE), dir.join(FILE_NEW));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path_new)
            .map_err(StorageError::io("create", &path_new))?;
        let mut mark = Self {
            file,
            path: path_new.clone(),
            record: Record {
                node,
                incarnation,
                claim: Claim::default(),
            },
            sequence: 0,
            scratch: 0,
            unsynced_since: None,
        };
        let length = mark.file.set_len(FILE_LEN);
        length.map_err(StorageError::io("make room for", &path_new))?;
        mark.sync_both()?;
        let all = mark.file.sync_all();
        all.map_err(StorageError::io("sync", &path_new))?;
        fs::rename(&path_new, &path).map_err(StorageError::io("rename", &path_new))?;
        sync_folder(dir)?;
        mark.path = path;
        Ok(mark)
    }

    /// Opens the mark of a folder; none if there is no such file.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(FILE);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("open", &path)(error).into()),
        };
        let (sequence, record, slot) = newest(&file, &path)?;
        // The slot that counts may have outlived its process only in the page cache. It goes to the disk
        // before the other one is written.
        file.sync_data().map_err(StorageError::io("sync", &path))?;
        Ok(Some(Self {
            file,
            path,
            record,
            sequence,
            scratch: 1 - slot,
            unsynced_since: None,
        }))
    }

    /// Reads the mark of a folder, and changes nothing; none if there is no such file. A process may be writing it.
    pub(crate) fn read(dir: &Path) -> Result<Option<Record>, OpenError> {
        let path = dir.join(FILE);
        match File::open(&path) {
            Ok(file) => Ok(Some(newest(&file, &path)?.1)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io("open", &path)(error).into()),
        }
    }

    /// What is wrong with each half of the mark of a folder.
    pub(crate) fn damage(dir: &Path) -> Result<[Option<Damage>; 2], StorageError> {
        let path = dir.join(FILE);
        let file = File::open(&path).map_err(StorageError::io("open", &path))?;
        let slot = |at| read_slot(&file, at).map_err(StorageError::io("read", &path));
        Ok([slot(SLOT_AT[0])?.err(), slot(SLOT_AT[1])?.err()])
    }

    /// What the mark says.
    pub(crate) fn record(&self) -> Record {
        self.record
    }

    /// Takes note of a position that the database has synced.
    pub(crate) fn note(&mut self, position: LogId) -> Result<(), StorageError> {
        if self.record.claim.position == position {
            return Ok(());
        }
        self.record.claim.position = position;
        self.write()?;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Takes note of so many records that the database has synced.
    pub(crate) fn note_records(&mut self, records: u64) -> Result<(), StorageError> {
        self.record.claim.records = records;
        self.write()?;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Makes durable what the database has synced.
    pub(crate) fn promise(&mut self, claim: Claim) -> Result<(), StorageError> {
        self.record.claim = claim;
        self.write()?;
        self.sync()
    }

    /// As [`promise`](Self::promise), together with whose folder it is, in both slots: where there is time for that, so
    /// that one damaged slot takes nothing back.
    pub(crate) fn promise_twice(
        &mut self,
        node: Option<NodeId>,
        claim: Claim,
    ) -> Result<(), StorageError> {
        (self.record.node, self.record.claim) = (node, claim);
        self.sync_both()
    }

    /// Takes back all behind `position`, durably and in both slots, so that not even a slot that is
    /// damaged later leaves a claim that the database may rightly not hold.
    pub(crate) fn lower(&mut self, position: LogId) -> Result<(), StorageError> {
        if self.record.claim.position.index <= position.index {
            return Ok(());
        }
        self.record.claim.position = position;
        self.sync_both()
    }

    /// Syncs the position if it has waited for [`SYNC_EVERY`].
    pub(crate) fn settle_if_due(&mut self) -> Result<(), StorageError> {
        match self.unsynced_since {
            Some(since) if since.elapsed() >= SYNC_EVERY => self.sync(),
            _ => Ok(()),
        }
    }

    /// Syncs the position if it waits at all.
    pub(crate) fn settle(&mut self) -> Result<(), StorageError> {
        match self.unsynced_since {
            Some(_) => self.sync(),
            None => Ok(()),
        }
    }

    fn sync_both(&mut self) -> Result<(), StorageError> {
        for _ in SLOT_AT {
            self.write()?;
            self.sync()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StorageError> {
        self.sequence += 1;
        let slot = encode(self.sequence, &self.record);
        self.file
            .write_all_at(&slot, SLOT_AT[self.scratch])
            .map_err(StorageError::io("write", &self.path))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.file
            .sync_data()
            .map_err(StorageError::io("sync", &self.path))?;
        self.scratch = 1 - self.scratch;
        self.unsynced_since = None;
        Ok(())
    }
}

/// A slot's bytes: magic, then a sealed body that zeros fill up to the slot's end.
pub(crate) fn encode(sequence: u64, record: &Record) -> Vec<u8> {
    let Record {
        node,
        incarnation,
        claim,
    } = record;
    let mut sealed = Vec::with_capacity(SLOT_LEN);
    sealed::begin(&mut sealed);
    sealed.extend_from_slice(&sequence.to_be_bytes());
    put_node(&mut sealed, *node);
    sealed.extend_from_slice(&incarnation.0.to_be_bytes());
    sealed.extend_from_slice(&claim.starts.to_be_bytes());
    sealed.extend_from_slice(&claim.records.to_be_bytes());
    sealed.extend_from_slice(&claim.hard_state.term.0.to_be_bytes());
    sealed::put_option_u64(&mut sealed, claim.hard_state.voted_for.map(|node| node.0));
    sealed.extend_from_slice(&claim.position.term.0.to_be_bytes());
    sealed.extend_from_slice(&claim.position.index.0.to_be_bytes());
    sealed.resize(SLOT_LEN - MAGIC.len(), 0);
    sealed::finish(MAGIC, &mut sealed);
    let mut slot = MAGIC.to_vec();
    slot.extend_from_slice(&sealed);
    slot
}

/// The slot that counts: its sequence number, what it says, and which of the two it is.
fn newest(file: &File, path: &Path) -> Result<(u64, Record, usize), OpenError> {
    let mut best: Option<(u64, Record, usize)> = None;
    for (slot, at) in SLOT_AT.into_iter().enumerate() {
        match read_slot(file, at).map_err(StorageError::io("read", path))? {
            Ok((sequence, record)) => {
                if best.is_none_or(|(other, ..)| other < sequence) {
                    best = Some((sequence, record, slot));
                }
            }
            Err(Damage::NewerVersion { found, known }) => {
                let path = path.to_owned();
                return Err(OpenError::NewerFormat { path, found, known });
            }
            Err(_) => {}
        }
    }
    let mark = path.to_owned();
    best.ok_or(OpenError::MarkDamaged { mark })
}

fn read_slot(file: &File, at: u64) -> std::io::Result<Result<(u64, Record), Damage>> {
    let mut slot = [0; SLOT_LEN];
    match file.read_exact_at(&mut slot, at) {
        Ok(()) => Ok(decode(&slot)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Err(Damage::Length)),
        Err(error) => Err(error),
    }
}

pub(crate) fn decode(slot: &[u8; SLOT_LEN]) -> Result<(u64, Record), Damage> {
    let sealed = slot.strip_prefix(MAGIC).ok_or(Damage::Checksum)?;
    let mut fields = Fields(sealed::open(MAGIC, sealed)?);
    let sequence = fields.u64()?;
    let record = Record {
        node: read_node(&mut fields)?,
        incarnation: Incarnation(fields.u128()?),
        claim: Claim {
            starts: fields.u64()?,
            records: fields.u64()?,
            hard_state: HardState {
                term: Term(fields.u64()?),
                voted_for: fields.option_u64()?.map(NodeId),
            },
            position: LogId::new(Term(fields.u64()?), LogIndex(fields.u64()?)),
        },
    };
    Ok((sequence, record))
}

#[cfg(test)]
mod tests;
