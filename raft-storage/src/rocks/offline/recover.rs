//! Letting those who are left go on, when a majority of a cluster is lost for good.
//!
//! On the folder of each node that is left, with the same voters. No entry is added: entries of one term and one
//! index with different content on different nodes must never come to be. What is written, in one batch:
//!
//! - The record `forced`: these voters decide, whatever the log says up to where it ends now.
//! - The same configuration as what is known of the members, and for the snapshot, if there is one. It says of the
//!   voters what this folder knew of them, and gives no id of the others free again.
//! - Another cluster id, which follows from the old one and the voters. Who was recovered with the same list agrees
//!   on it, and a node that was not, or that comes back from the dead, is another cluster's to them.
//!
//! It cannot see the other folders. A change of membership that only some of those who are left have in their logs
//! would reach the others behind what they were told to disregard; so [`Recovery::changes`] names those in this
//! log, to be compared.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use raft_core::{ClusterId, LogId, LogIndex, NodeId, membership::Configuration};
use rocksdb::WriteBatch;

use super::{
    OfflineError, Use,
    moment::{check_is_data_folder, sight},
};
use crate::{
    OpenError, StorageError,
    folder::{Folder, user_of},
    mark::Mark,
    records::Forced,
    rocks::{
        open::{Sight, reopen, try_look},
        state::{self, State},
    },
};

/// What a recovery would do; nothing is done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    dir: PathBuf,
    /// Whose folder it is.
    pub node: NodeId,
    /// Who is to vote from now on.
    pub voters: BTreeSet<NodeId>,
    /// Who votes so far.
    pub voters_before: BTreeSet<NodeId>,
    /// The voters, with what this folder knows of them.
    configuration: Configuration,
    /// The last entry of this folder's log.
    pub last: LogId,
    /// What this folder's snapshot covers.
    pub covered: LogId,
    /// The changes of membership in this folder's log. Whoever is left should have the same ones.
    pub changes: Vec<LogIndex>,
    /// The cluster that the folder is of.
    pub cluster_before: ClusterId,
    /// The cluster that it will be of. It must be the same on all that are left.
    pub cluster: ClusterId,
    /// It was done before, with these voters: there is nothing to do.
    pub done: bool,
}

/// What a recovery has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The folder is recovered now.
    Now,
    /// It was before, and nothing was changed.
    Before,
}

impl Recovery {
    /// Judges the folder, and says what a recovery with these voters would do.
    ///
    /// # Errors
    /// As [`OfflineError`] says, for example that somebody is no member; and [`OpenError::Locked`] while the node
    /// runs.
    pub fn plan(dir: &Path, voters: &BTreeSet<NodeId>) -> Result<Self, OfflineError> {
        check_is_data_folder(dir)?;
        if let Use::By(_) = user_of(dir)? {
            let dir = dir.to_owned();
            return Err(OpenError::Locked { dir }.into());
        }
        Self::of(dir, &sight(dir)??, voters)
    }

    fn of(dir: &Path, sight: &Sight, voters: &BTreeSet<NodeId>) -> Result<Self, OfflineError> {
        let dir = dir.to_owned();
        let Some((_, found, owner)) = &sight.content else {
            return Err(OfflineError::Empty { dir });
        };
        let state = &found.state;
        let whose = (owner.node, state.known(), state.cluster);
        let (Some(node), Some(known), Some(cluster_before)) = whose else {
            return Err(OfflineError::NoCluster { dir });
        };
        if known.has_departed(node) {
            return Err(OfflineError::Departed { dir, node });
        }
        let in_snapshot = state.pointer.as_ref().map(|p| &*p.meta.configuration);
        let in_effect = found.configurations.last().map(|(_, last)| last);
        let in_effect = in_effect.or(in_snapshot.filter(|c| !c.voters.is_empty()));
        // Who joined since anything was recorded is in the log only; in a log that is behind, its own node is not.
        let mut members = known.members();
        let in_log = in_effect.iter().flat_map(|c| c.members());
        members.extend(in_log.filter(|id| !known.has_departed(*id)));
        if voters.is_empty() {
            return Err(OfflineError::NoVoters);
        }
        if let Some(&node) = voters.iter().find(|node| !members.contains(node)) {
            return Err(OfflineError::NotAMember { node, members });
        }
        if !voters.contains(&node) {
            let voters = voters.clone();
            return Err(OfflineError::NotAVoter { dir, node, voters });
        }
        let before = in_effect.unwrap_or(&known);
        let both = before.voters.union(&before.voters_outgoing);
        let voters_before = both.copied().collect();
        let configuration = reduced(before, &known, voters);
        let forced = state.forced.as_ref();
        let through = forced.map_or(LogIndex::ZERO, |forced| forced.through);
        let changes = found.configurations.iter().map(|(at, _)| *at);
        let in_force = forced.map(|forced| &forced.configuration);
        let done = in_force.is_some_and(|forced| forced.voters == *voters)
            && in_effect == in_force
            && known.members() == *voters;
        let cluster = if done {
            cluster_before
        } else {
            cluster_after(cluster_before, voters)
        };
        Ok(Self {
            dir,
            node,
            voters: voters.clone(),
            voters_before,
            configuration,
            last: found.shape.last(),
            covered: found.shape.covered(),
            // What was forced before stands at its end, and is none.
            changes: changes.filter(|at| *at > through).collect(),
            cluster_before,
            cluster,
            done,
        })
    }

    /// Does it, in one synced write.
    ///
    /// # Errors
    /// As for [`plan`](Self::plan); and [`OfflineError::Moving`] if the folder is not what it was when that was
    /// made.
    pub fn carry_out(&self) -> Result<Recovered, OfflineError> {
        if self.done {
            return Ok(Recovered::Before);
        }
        let folder = Folder::open(&self.dir)?;
        let sight = try_look(folder).map_err(|error| error.in_folder(&self.dir))?;
        if Self::of(&self.dir, &sight, &self.voters)? != *self {
            let (dir, tries) = (self.dir.clone(), 1);
            return Err(OfflineError::Moving { dir, tries });
        }
        let written = self.write(sight);
        written.map_err(|error| error.in_folder(&self.dir))?;
        Ok(Recovered::Now)
    }

    fn write(&self, sight: Sight) -> Result<(), OpenError> {
        let Sight { folder, content } = sight;
        let Some((read_only, found, _)) = content else {
            return Err(StorageError::Closed.into());
        };
        drop(read_only);
        let db = reopen(&folder, &found)?;
        let forced = Forced {
            through: self.last.index,
            configuration: self.configuration.clone(),
        };
        let mut state = State {
            cluster: Some(self.cluster),
            forced: Some(forced.clone()),
            records: found.state.records + 1,
            ..found.state.clone()
        };
        let mut rows = WriteBatch::default();
        state::put_known(&db, &mut rows, &mut state, &self.configuration);
        state::put_cluster(&db, &mut rows, self.cluster);
        if let Some(mut pointer) = found.state.pointer.clone() {
            pointer.meta.configuration = Arc::new(self.configuration.clone());
            state::put_pointer(&db, &mut rows, &pointer);
        }
        state::put_forced(&db, &mut rows, &forced);
        state::put_records(&db, &mut rows, &state);
        db.write(rows)?;
        if let Some(mut mark) = Mark::open(folder.path())? {
            mark.note_records(state.records)?;
            mark.settle()?;
        }
        // The database goes before the lock.
        drop(db);
        drop(folder);
        Ok(())
    }
}

/// What is left of the configuration `before` when only these voters are. Where it says nothing of them, which that of
/// a cluster without any change does not, what is `known` beside the log counts.
fn reduced(
    before: &Configuration,
    known: &Configuration,
    voters: &BTreeSet<NodeId>,
) -> Configuration {
    let [mut reduced, known] = [before, known].map(|c| c.reduced_to(voters.iter().copied()));
    for (id, member) in known.about {
        reduced.about.entry(id).or_insert(member);
    }
    reduced.last_id = reduced.last_id.max(known.last_id);
    reduced
}

/// The id that a cluster has after a recovery with these voters: FNV-1a of 128 bits over the words
/// `raft-actor recovery 1`, the old id and the voters' ids in order, each in big-endian bytes. It need not be
/// secret, only the same on all that are left and another one than before.
#[must_use]
pub fn cluster_after(before: ClusterId, voters: &BTreeSet<NodeId>) -> ClusterId {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash = OFFSET;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    };
    mix(b"raft-actor recovery 1");
    mix(&before.0.to_be_bytes());
    for voter in voters {
        mix(&voter.0.to_be_bytes());
    }
    ClusterId(hash)
}
