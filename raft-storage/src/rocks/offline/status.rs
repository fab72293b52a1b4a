//! What a folder is, and whether a node would open it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use raft_core::{
    ClusterId, HardState, Incarnation, LogId, LogIndex, NodeId, Term, membership::Configuration,
};

use super::{
    OfflineError, Use,
    moment::{at_one_moment, check_is_data_folder},
    walk::{Step, walk},
};
use crate::{
    Claim, OpenError, SnapshotSource as _, StorageError,
    folder::{DATABASE, user_of},
    mark::Mark,
    records::Pointer,
    rocks::{db::Database, found::Found, open::look, state::State},
    run,
    snapshot::files::{FOLDER as SNAPSHOTS, FileSource, SnapshotFiles},
    store::has_departed,
};

/// A data folder at a glance. What cannot be read is missing in it, and `refusal` says why.
#[derive(Clone, Debug)]
pub struct Status {
    /// The folder.
    pub dir: PathBuf,
    /// Who has it open.
    pub used: Use,
    /// What the mark says.
    pub mark: Option<MarkStatus>,
    /// What the database holds.
    pub content: Option<Content>,
    /// The snapshot that the database names.
    pub snapshot: Option<SnapshotStatus>,
    /// What it takes on the disk.
    pub disk: DiskUse,
    /// What a node would be told that opens it, once nobody else has it open; none if it would start.
    pub refusal: Option<OpenError>,
}

/// The mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkStatus {
    /// Whose folder it is; none before it is somebody's.
    pub node: Option<NodeId>,
    /// The folder's name.
    pub incarnation: Incarnation,
    /// What the database must hold at least.
    pub claim: Claim,
}

/// What a database holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Whose it is, if anybody's yet, and its name and its starts; none in one that was never used.
    pub owner: Option<(Option<NodeId>, Incarnation, u64)>,
    /// Term and vote.
    pub hard_state: HardState,
    /// The cluster, once one is born.
    pub cluster: Option<ClusterId>,
    /// What was recorded last of the members.
    pub known: Option<Configuration>,
    /// The last entry that the log does not hold any more.
    pub log_start: LogId,
    /// The last entry.
    pub last: LogId,
    /// How many entries the log holds.
    pub entries: u64,
    /// The bytes of their data.
    pub bytes: u64,
    /// The terms of the log.
    pub terms: Vec<TermRange>,
    /// Who decides, and where in the log that was said; none while it is the list that the nodes are started
    /// with.
    pub configuration: Option<(LogIndex, Configuration)>,
    /// What an operator has said in its place.
    pub forced: Option<ForcedStatus>,
    /// How far each named reader has come.
    pub cursors: BTreeMap<String, LogIndex>,
    /// How often the cluster, its members or a cursor were written.
    pub records: u64,
}

impl Content {
    /// Whether the node was a member, and is none any more, for good: see
    /// [`Identity::has_departed`](crate::Identity::has_departed).
    #[must_use]
    pub fn has_departed(&self) -> bool {
        let node = self.owner.and_then(|(node, ..)| node);
        has_departed(node, self.known.as_ref())
    }
}

/// Entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRange {
    /// The term.
    pub term: Term,
    /// Its first entry in the log.
    pub first: LogIndex,
    /// Its last one.
    pub last: LogIndex,
}

/// What a recovery from the loss of a quorum has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedStatus {
    /// It holds in place of all that the log says up to here.
    pub through: LogIndex,
    /// Who decides.
    pub configuration: Configuration,
}

/// The snapshot that a database names.
#[derive(Clone, Debug)]
pub struct SnapshotStatus {
    /// Its file.
    pub file: PathBuf,
    /// The last entry that it covers.
    pub last: LogId,
    /// How many bytes the state has, where the file tells.
    pub bytes: Option<u64>,
    /// The cluster whose state it is, where the file tells.
    pub cluster: Option<ClusterId>,
    /// What is wrong with the file's frame; none if it is whole. Its chunks are not read.
    pub wrong: Option<StorageError>,
}

/// Bytes on the disk, as the files' lengths say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// All.
    pub total: u64,
    /// The database.
    pub database: u64,
    /// The snapshots.
    pub snapshots: u64,
}

/// Looks at a folder; its node may be running.
///
/// # Errors
/// [`OfflineError::NotADataFolder`], and [`OfflineError::Moving`]. Damage is no error here: it is what the
/// status says.
pub fn status(dir: &Path) -> Result<Status, OfflineError> {
    check_is_data_folder(dir)?;
    at_one_moment(dir, || status_once(dir), |status| status.refusal.is_none())
}

fn status_once(dir: &Path) -> Status {
    let mark = Mark::read(dir).ok().flatten();
    let looked = look(dir);
    let mut content = None;
    let mut snapshot = None;
    let refusal = match looked {
        Ok(sight) => {
            if let Some((db, found, _)) = &sight.content {
                content = Some(content_of(db, &found.state, Some(found)));
                snapshot = found.state.pointer.as_ref().map(|p| snapshot_of(dir, p));
            }
            None
        }
        Err(refusal) => {
            // As much as can be read all the same.
            if let Ok(db) = Database::open_read_only(&dir.join(DATABASE), true)
                && let Ok(state) = State::load(&db)
            {
                let found = Found::load(&db).ok();
                content = Some(content_of(&db, &state, found.as_ref()));
                snapshot = state.pointer.as_ref().map(|p| snapshot_of(dir, p));
            }
            Some(refusal)
        }
    };
    Status {
        dir: dir.to_owned(),
        used: user_of(dir).unwrap_or(Use::By(None)),
        mark: mark.map(|record| MarkStatus {
            node: record.node,
            incarnation: record.incarnation,
            claim: record.claim,
        }),
        content,
        snapshot,
        disk: disk_use(dir),
        refusal,
    }
}

/// What the database holds; `found` is none if it is not all there.
fn content_of(db: &Database, state: &State, found: Option<&Found>) -> Content {
    let pointer = state.pointer.clone().unwrap_or_default();
    let start = pointer.log_start;
    let (mut entries, mut bytes, mut last) = (0, 0, start);
    let mut terms: Vec<TermRange> = Vec::new();
    walk(db, start.index.next(), |step| {
        let Step::Run(run, value) = step else {
            return true;
        };
        // A run whose table is damaged is counted as far as it can be read; the verdict tells.
        let _ = run::decode(run, &value, start.index.next(), |entry| {
            entries += 1;
            bytes += entry.data.len() as u64;
            last = last.max(entry.id);
            match terms.last_mut() {
                Some(range) if range.term == entry.id.term => range.last = entry.id.index,
                _ => terms.push(TermRange {
                    term: entry.id.term,
                    first: entry.id.index,
                    last: entry.id.index,
                }),
            }
            true
        });
        true
    });
    let in_log = found.and_then(|found| found.configurations.last().cloned());
    let in_snapshot = state.pointer.as_ref().map(|pointer| {
        let configuration = (*pointer.meta.configuration).clone();
        (pointer.meta.last.index, configuration)
    });
    Content {
        owner: state
            .owner
            .map(|owner| (owner.node, owner.incarnation, owner.starts)),
        hard_state: state.hard_state,
        cluster: state.cluster,
        known: state.known(),
        log_start: start,
        last,
        entries,
        bytes,
        terms,
        configuration: in_log.or(in_snapshot),
        forced: state.forced.as_ref().map(|forced| ForcedStatus {
            through: forced.through,
            configuration: forced.configuration.clone(),
        }),
        cursors: state.cursors.clone(),
        records: state.records,
    }
}

fn snapshot_of(dir: &Path, pointer: &Pointer) -> SnapshotStatus {
    let last = pointer.meta.last;
    let file = SnapshotFiles::new(dir, None, None).file(last);
    let opened = FileSource::open(&file).and_then(|source| {
        source.check_is(&pointer.named())?;
        Ok(source.info().clone())
    });
    let info = opened.as_ref().ok();
    SnapshotStatus {
        file,
        last,
        bytes: info.map(|info| info.bytes),
        cluster: info.and_then(|info| info.cluster),
        wrong: opened.err(),
    }
}

fn disk_use(dir: &Path) -> DiskUse {
    DiskUse {
        total: bytes_under(dir),
        database: bytes_under(&dir.join(DATABASE)),
        snapshots: bytes_under(&dir.join(SNAPSHOTS)),
    }
}

/// Files that go away meanwhile count for nothing.
fn bytes_under(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = files.map(|file| match file.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&file.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
