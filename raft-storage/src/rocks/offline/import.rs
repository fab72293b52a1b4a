//! Putting a snapshot into the folder of a stopped node, as if the leader had sent it.

use std::path::{Path, PathBuf};

use raft_core::{HardState, LogId, SnapshotWrite, Term};

use super::{
    OfflineError, Use,
    moment::{check_is_data_folder, sight},
};
use crate::{
    Batch, OpenError, Opened, SnapshotInfo, SnapshotSource as _, folder::user_of,
    rocks::open::open_rocksdb, snapshot::files::FileSource,
};

/// What an import would do; nothing is done yet.
#[derive(Clone, Debug)]
pub struct Import {
    dir: PathBuf,
    file: PathBuf,
    /// The snapshot.
    pub info: SnapshotInfo,
    /// What becomes of the log.
    pub effect: Effect,
    /// The term that the node is raised to, without a vote, because the snapshot is of a later one than it knows.
    pub raises_term: Option<Term>,
    /// The folder as it was judged.
    node: Option<raft_core::NodeId>,
    hard_state: HardState,
    last: LogId,
}

/// What an import does to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The log holds the snapshot's last entry, and begins behind it from now on.
    Begins {
        /// How many entries stay behind it.
        keeps: u64,
    },
    /// The log does not hold that entry. It goes, and begins anew behind the snapshot.
    Replaces {
        /// The last entry that goes.
        last: LogId,
    },
}

impl Import {
    /// Judges the folder and the whole file, and says what an import would do.
    ///
    /// # Errors
    /// As [`OfflineError`] says, for example that the snapshot is another cluster's, is damaged, or is not newer
    /// than the folder's own; and [`OpenError::Locked`] while the node runs.
    pub fn plan(dir: &Path, file: &Path) -> Result<Self, OfflineError> {
        check_is_data_folder(dir)?;
        if let Use::By(_) = user_of(dir)? {
            let dir = dir.to_owned();
            return Err(OpenError::Locked { dir }.into());
        }
        let sight = sight(dir)??;
        let Some((_, found, owner)) = &sight.content else {
            let dir = dir.to_owned();
            return Err(OfflineError::Empty { dir });
        };
        let source = FileSource::open(file)?;
        for number in 0..source.info().chunks() {
            source.read_chunk(number)?;
        }
        let info = source.info().clone();
        let (dir, file) = (dir.to_owned(), file.to_owned());
        let Some(theirs) = info.cluster else {
            return Err(OfflineError::SnapshotOfNone { file });
        };
        let Some(ours) = found.state.cluster else {
            return Err(OfflineError::NoCluster { dir });
        };
        if ours != theirs {
            return Err(OfflineError::OtherCluster {
                file,
                theirs,
                dir,
                ours,
            });
        }
        let (last, covered) = (info.meta.last, found.shape.covered());
        if last.index <= covered.index {
            return Err(OfflineError::NotNewer {
                file,
                theirs: last,
                dir,
                ours: covered,
            });
        }
        let log_last = found.shape.last();
        let effect = if found.shape.id_at(last.index) == Some(last) {
            let keeps = log_last.index.0 - last.index.0;
            Effect::Begins { keeps }
        } else {
            Effect::Replaces { last: log_last }
        };
        let hard_state = found.hard_state();
        Ok(Self {
            dir,
            file,
            effect,
            raises_term: (hard_state.term < last.term).then_some(last.term),
            info,
            node: owner.node,
            hard_state,
            last: log_last,
        })
    }

    /// Does it: the file is copied into the folder, durably, and then one write names it and cuts the log. A crash
    /// leaves the folder as it was, or as it is to be.
    ///
    /// The folder is opened as its node does, which counts as a start. That is harmless: the count must only grow.
    ///
    /// # Errors
    /// As for [`plan`](Self::plan); and [`OfflineError::Moving`] if the folder is not what it was when that was
    /// made.
    pub fn carry_out(&self) -> Result<(), OfflineError> {
        let opened = open_rocksdb(&self.dir, self.node)?;
        let Opened {
            mut store,
            recovered,
            identity,
            ..
        } = opened;
        let same = recovered.last == self.last
            && recovered.hard_state == self.hard_state
            && identity.cluster == self.info.cluster;
        if !same {
            let (dir, tries) = (self.dir.clone(), 1);
            return Err(OfflineError::Moving { dir, tries });
        }
        let source = FileSource::open(&self.file)?;
        let mut sink = store.snapshots().create(&self.info.meta)?;
        for number in 0..self.info.chunks() {
            sink.write(&source.read_chunk(number)?)?;
        }
        sink.finish()?;
        let last = self.info.meta.last;
        let mut batch = Batch::new();
        batch.push_snapshot(SnapshotWrite {
            snapshot: self.info.meta.clone(),
            log_start: last,
            replaces_log: matches!(self.effect, Effect::Replaces { .. }),
        });
        let raised = self.raises_term.map(|term| HardState {
            term,
            voted_for: None,
        });
        batch.push(raised, None, [].into());
        store.write(&batch)?;
        store.close()?;
        Ok(())
    }
}
