//! What can go wrong, by name.
//!
//! Two kinds. An [`OpenError`] is met by the person who starts a node: it names the folder or the file,
//! what was found in it and, where that is not plain, what to do. A [`StorageError`] is met by a running
//! node. From a write it is final: the store is poisoned, and each later call answers with the same first
//! cause. Both are cheap to clone, since they travel between actors.

use std::{fmt, io, path::PathBuf, sync::Arc};

use raft_core::{HardState, Incarnation, LogId, LogIndex, NodeId, Term, membership};

/// An error of a library below, shared so that what carries it can be cloned.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a running store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Its answer.
        cause: Arc<io::Error>,
    },
    /// The database refused.
    #[error("the database {} cannot {action}: {cause}", path.display())]
    Database {
        /// What was tried, as a verb.
        action: &'static str,
        /// The database's folder.
        path: PathBuf,
        /// Its answer.
        cause: Cause,
    },
    /// Something stored is not what was stored.
    #[error("{}: {item}: {damage}; bring the data folder back as it was, or move it away so that the node starts \
             without one", path.display())]
    Damaged {
        /// The database's folder, or the file.
        path: PathBuf,
        /// Which of its values.
        item: Item,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The first entry that was asked for is no longer in the log.
    #[error("entries below {first} are compacted away")]
    Compacted {
        /// The first entry that is still there.
        first: LogIndex,
    },
    /// The first entry that was asked for is not in the log yet.
    #[error("entry {index} is not in the log, which ends at {last}")]
    Missing {
        /// The entry that was asked for.
        index: LogIndex,
        /// The last one that is there; 0 for an empty log.
        last: LogIndex,
    },
    /// A read that asks for no entry at all.
    #[error("a read from {from} through {through} asks for nothing")]
    EmptyRange {
        /// The first entry that was asked for.
        from: LogIndex,
        /// The last one.
        through: LogIndex,
    },
    /// There is no such snapshot. Only the one that was written last is kept.
    #[error("there is no snapshot through {last}")]
    NoSnapshot {
        /// The last entry that it should cover.
        last: LogId,
    },
    /// The system gave no random number for a snapshot.
    #[error("no random number: {0}")]
    NoRandomness(getrandom::Error),
    /// A write that contradicts what is stored: an error of the caller, who cannot go on either.
    #[error("refused to write: {0}")]
    Refused(Misfit),
    /// The store was closed before.
    #[error("the store is closed")]
    Closed,
    /// The code that wrote panicked. What it left is unknown, so nothing is written behind it.
    #[error("a panic interrupted the store: {0}")]
    Panicked(String),
    /// The storage actor ended without being closed, for example because the actor system stopped.
    #[error("the storage actor ended before it was closed")]
    Ended,
    /// A [`MemoryDisk`](crate::MemoryDisk) was crashed while this store was open on it.
    #[error("the memory disk has crashed")]
    Crashed,
    /// A test asked for this failure.
    #[error("a failure that a test asked for")]
    Injected,
}

impl StorageError {
    /// Whether the database says that what it has stored is damaged, and not that something is refused to it.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn is_corruption(&self) -> bool {
        let Self::Database { cause, .. } = self else {
            return false;
        };
        cause.downcast_ref::<rocksdb::Error>().is_some_and(|error| {
            use rocksdb::ErrorKind;
            matches!(
                error.kind(),
                ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound
            ) || error.as_ref().contains("No such file")
        })
    }

    /// For `map_err`: what was tried, and on what.
    #[cfg(any(feature = "rocksdb", feature = "fuzzing"))]
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io {
            action,
            path,
            cause: Arc::new(cause),
        }
    }
}

/// One stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The run of entries that begins here.
    Run(LogIndex),
    /// One entry.
    Entry(LogIndex),
    /// A record of what a node knows beside its log.
    Record(&'static str),
    /// What stands at the beginning and at the end of a snapshot's file.
    Snapshot,
    /// A piece of a snapshot, counted from 0.
    Chunk(u64),
    /// The database as a whole.
    Database,
    /// The database's list of its files, or the file that names it.
    Files,
    /// A key that no version of this library has written.
    Key,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(first) => write!(f, "the run of entries from {first} on"),
            Self::Entry(index) => write!(f, "entry {index}"),
            Self::Record(name) => write!(f, "the record \"{name}\""),
            Self::Snapshot => f.write_str("the snapshot's frame"),
            Self::Chunk(number) => write!(f, "chunk {number} of the snapshot"),
            Self::Database => f.write_str("the database"),
            Self::Files => f.write_str("the list of files"),
            Self::Key => f.write_str("a key of the log"),
        }
    }
}

/// What is wrong with a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is shorter or longer than it says.
    #[error("has the wrong length")]
    Length,
    /// Its checksum is not that of its content, or it stands under another key than it was written under.
    #[error("does not match its checksum")]
    Checksum,
    /// It was written by a newer version of this library.
    #[error("has format version {found}, and this program knows versions up to {known}")]
    NewerVersion {
        /// Its version.
        found: u8,
        /// The newest version that this program knows.
        known: u8,
    },
    /// An entry of a kind that this version does not know.
    #[error("holds an entry of the unknown kind {0}")]
    Kind(u8),
    /// It should say who belongs to the cluster, and cannot be read.
    #[error("does not say who belongs to the cluster: {0}")]
    Configuration(#[from] membership::DecodeError),
    /// It does not follow the run before it.
    #[error("does not follow the run before it, behind which entry {expected} is missing")]
    Hole {
        /// The position that should be here.
        expected: LogIndex,
    },
    /// It was written behind another entry than the one that stands before it.
    #[error("does not belong behind the run before it: one of the two is an old one")]
    Unchained,
    /// Terms never go down along the log; here they do.
    #[error("has a lower term than the run before it")]
    TermBack,
    /// It does not hold what it held when it was read a moment before.
    #[error("changed while it was opened")]
    Changed,
    /// Records that were written together are not all there.
    #[error("does not match the records that it counts: one of them is missing or an old one")]
    NotTogether,
    /// It names entries that are not in the log.
    #[error("does not fit the log")]
    Outside,
    /// It is not there, though it must be.
    #[error("is missing")]
    Absent,
    /// Its end is missing or damaged.
    #[error("is not whole: it does not end as it must")]
    Unfinished,
    /// A name that no version up to this one has written.
    #[error("is of a name that this program does not know")]
    Unknown,
    /// Between records, or instead of one, it holds something else.
    #[error("is damaged: no whole record begins at byte {at}")]
    NoRecord {
        /// Where, in bytes from the file's beginning.
        at: u64,
    },
    /// It is another one than its name or its place says.
    #[error("is another one than it is said to be")]
    OtherName,
}

/// How a write contradicts what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Entries must follow the last one without a gap.
    #[error("entry {found} does not follow {last}")]
    Gap {
        /// The entry that was to be written.
        found: LogId,
        /// The last one before it.
        last: LogId,
    },
    /// A term never goes down, and a vote is given once in a term.
    #[error("term and vote would go back from {from:?} to {to:?}")]
    HardStateBack {
        /// What is stored.
        from: HardState,
        /// What was to be.
        to: HardState,
    },
    /// A node belongs to one cluster for ever.
    #[error("this node belongs to another cluster already")]
    OtherCluster,
    /// A folder is of one node for ever.
    #[error("this is node {is} already, and not node {asked}")]
    OtherNode {
        /// Whose folder it is.
        is: NodeId,
        /// Whose it was to be.
        asked: NodeId,
    },
    /// What should say who belongs to the cluster cannot be. It would be damage at the next opening.
    #[error("what is known of the members cannot be: {0}")]
    Members(#[from] membership::ChangeError),
    /// A cut of entries that a snapshot covers, and that are committed therefore.
    #[error("a cut from entry {from} would take what the snapshot through {covered} covers")]
    CutOfCovered {
        /// The first entry that was to go.
        from: LogIndex,
        /// The last entry that the snapshot covers.
        covered: LogId,
    },
    /// A snapshot that is not newer than the stored one.
    #[error("the snapshot through {last} is not newer than the one through {stored}")]
    SnapshotBack {
        /// The last entry that the new one covers.
        last: LogId,
        /// The last entry that the stored one covers.
        stored: LogId,
    },
    /// A snapshot, or a beginning of the log, that is not in the log.
    #[error(
        "the log from {start} to {end} does not hold {missing}, which a snapshot is to stand for"
    )]
    SnapshotOutside {
        /// What should be there.
        missing: LogId,
        /// The last entry that the log does not hold any more.
        start: LogId,
        /// The last entry of the log.
        end: LogId,
    },
    /// The snapshot that a write names has no whole file.
    #[error("there is no whole snapshot through {last}")]
    SnapshotAbsent {
        /// The last entry that it covers.
        last: LogId,
    },
    /// The name of a cursor is empty or too long.
    #[error("a cursor's name has 1 to 255 bytes, not {len}")]
    CursorName {
        /// How long it is, in bytes.
        len: usize,
    },
    /// There are as many cursors as a store keeps.
    #[error("there are {max} cursors already")]
    TooManyCursors {
        /// How many it keeps.
        max: usize,
    },
}

/// Why a store could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or this one, has it open.
    #[error("data folder {} is in use by another process, or twice by this one", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder was made for another node.
    #[error("data folder {} belongs to node {belongs_to}, not to node {asked}: name node {asked}'s folder, or start node {belongs_to}", dir.display())]
    WrongNode {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        belongs_to: NodeId,
        /// Who wanted to open it.
        asked: NodeId,
    },
    /// The folder holds files, and none of them is this library's.
    #[error("{} is neither empty nor a data folder: it holds \"{found}\"; name another folder", dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
        /// One of its files.
        found: String,
    },
    /// What was synced is gone: the database holds less than the mark says.
    #[error(
        "data folder {} has lost what was synced: its mark says {marked}, its database holds {found}; a node that \
         goes on with it could vote twice or lose what it acknowledged: bring the folder back as it was, or move it \
         away so that the node starts without one", dir.display()
    )]
    LogLost {
        /// The folder.
        dir: PathBuf,
        /// What the mark says.
        marked: Box<Claim>,
        /// What the database holds; its position is the last one, or the entry where the mark's is.
        found: Box<Claim>,
    },
    /// Mark and database hold votes for different candidates in one term.
    #[error("data folder {}: in term {term} the mark holds a vote for node {marked} and the database one for node \
             {found}; one of the two files is not this node's: bring both back as they were, or move the folder away so that the \
             node starts without one", dir.display())]
    VotesConflict {
        /// The folder.
        dir: PathBuf,
        /// The term, as both have it.
        term: Term,
        /// The mark's vote.
        marked: NodeId,
        /// The database's vote.
        found: NodeId,
    },
    /// There is a database, but not the mark that says how much it must hold.
    #[error("{} is missing beside a database: without it nobody can tell whether the database is whole; bring it \
             back, or move the data folder away so that the node starts without one", mark.display())]
    MarkMissing {
        /// The file that should be there.
        mark: PathBuf,
    },
    /// Both halves of the mark are damaged, which a power loss alone cannot do.
    #[error("{} is damaged in both of its halves, which no power loss does: bring it back, or move the data folder \
             away so that the node starts without one", mark.display())]
    MarkDamaged {
        /// The file.
        mark: PathBuf,
    },
    /// There is a mark of a database that was in use, but no database.
    #[error("data folder {} has lost its database: its mark says {marked}; bring the folder back as it was, or move \
             it away so that the node starts without one", dir.display())]
    DatabaseMissing {
        /// The folder.
        dir: PathBuf,
        /// What the mark says.
        marked: Claim,
    },
    /// Mark and database come from two different folders.
    #[error("data folder {} is mixed from two: its mark is of incarnation {marked}, its database of {found}: bring both back as they were, or move the \
             folder away so that the node starts without one", dir.display())]
    Mixed {
        /// The folder.
        dir: PathBuf,
        /// The incarnation in the mark.
        marked: Incarnation,
        /// The one in the database.
        found: Incarnation,
    },
    /// A newer version of this library has written here.
    #[error("{} has format version {found}, and this program knows versions up to {known}: use the newer program", path.display())]
    NewerFormat {
        /// The file or folder.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The newest version that this program knows.
        known: u8,
    },
    /// The snapshot that the log begins behind has no file.
    #[error("{} is missing: the log begins behind it; bring it back, or move the data folder away so that the node \
             starts without one", file.display())]
    SnapshotMissing {
        /// The file that should be there.
        file: PathBuf,
    },
    /// Something in the folder cannot be read as it was written.
    #[error("data folder {} is refused and left as it is: {cause}{}", dir.display(), mending(cause))]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// What, and why.
        cause: StorageError,
    },
    /// The operating system or the disk refused something; the data folder need not be at fault.
    #[error("{cause}; {}", advice(cause))]
    Refused {
        /// What, and why.
        cause: StorageError,
    },
    /// The system gave no random number for the incarnation.
    #[error("no random number for a new data folder: {0}")]
    NoRandomness(getrandom::Error),
    /// Reading or writing failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What to do about damage, where the cause does not say it.
fn mending(cause: &StorageError) -> &'static str {
    match cause {
        StorageError::Damaged { .. } => "",
        _ => "; bring it back as it was, or move it away so that the node starts without one",
    }
}

/// What to do about a failure that need not be the folder's fault.
fn advice(cause: &StorageError) -> &'static str {
    let text = cause.to_string();
    if text.contains("No space left") || text.contains("Disk quota") {
        "make room on that disk and start again: nothing is lost"
    } else if text.contains("Permission denied") || text.contains("Read-only file system") {
        "let this user write there and start again: nothing is lost"
    } else {
        "if the disk is sound and nobody else uses the folder, start again: nothing was taken back"
    }
}

/// How much of a log and of a node's promises something holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// How often the folder was opened.
    pub starts: u64,
    /// How often the cluster, its members or a cursor were written.
    pub records: u64,
    /// Term and vote.
    pub hard_state: HardState,
    /// A position that is in the log.
    pub position: LogId,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            starts,
            records,
            hard_state: HardState { term, voted_for },
            position: LogId { term: of, index },
        } = self;
        write!(f, "start {starts}, {records} records, term {term}, ")?;
        match voted_for {
            Some(node) => write!(f, "a vote for node {node}, ")?,
            None => f.write_str("no vote, ")?,
        }
        match index.0 {
            0 => f.write_str("no entry"),
            _ => write!(f, "entries up to {index} (of term {of})"),
        }
    }
}
