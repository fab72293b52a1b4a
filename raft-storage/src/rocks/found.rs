//! What a database holds, read without changing it, and whether that is all that it must hold.

use raft_core::{
    Entry, HardState, LogId, LogIndex, NodeId, Recovered, SnapshotMeta, membership::Configuration,
};

use super::{db::Database, state::State};
use crate::{
    Damage, OpenError, StorageError,
    error::{Claim, Item},
    folder::Folder,
    mark::Record,
    records::Owner,
    run::{self, Run},
    shape::Shape,
};

/// How much of the log's end is handed to the core, for followers that are a little behind.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// All that is in a database, but for the entries that are not recent.
pub(super) struct Found {
    pub(super) state: State,
    pub(super) shape: Shape,
    /// The configurations that the log and the operator put in effect, with their positions.
    pub(super) configurations: Vec<(LogIndex, Configuration)>,
    tail: Vec<Entry>,
}

impl Found {
    /// Reads the log once from its beginning to its end, and checks all of it.
    pub(super) fn load(db: &Database) -> Result<Self, StorageError> {
        let state = State::load(db)?;
        let (shape, mut configurations) = scan(db, &state)?;
        if let Some(forced) = &state.forced {
            // What the operator said holds from where the log ended then. If that end was cut off since, it
            // holds all the same.
            let at = forced.through.min(shape.last().index);
            configurations.retain(|(index, _)| *index > forced.through);
            if at > shape.covered().index {
                configurations.insert(0, (at, forced.configuration.clone()));
            }
        }
        let tail = tail(db, shape.start().index)?;
        Ok(Self {
            state,
            shape,
            configurations,
            tail,
        })
    }

    pub(super) fn hard_state(&self) -> HardState {
        self.state.hard_state
    }

    /// For the core.
    pub(super) fn recovered(&mut self) -> Recovered {
        let snapshot = self.state.pointer.as_ref();
        let snapshot: Option<SnapshotMeta> = snapshot.map(|pointer| pointer.meta.clone());
        Recovered {
            hard_state: self.state.hard_state,
            snapshot,
            log_start: self.shape.start(),
            last: self.shape.last(),
            terms: self.shape.terms().to_vec(),
            configurations: std::mem::take(&mut self.configurations),
            tail: std::mem::take(&mut self.tail),
            applied: LogIndex::ZERO,
        }
    }

    /// Whether the database is of the same folder as the mark.
    pub(super) fn check_owner(
        &self,
        folder: &Folder,
        db: &Database,
        record: Record,
    ) -> Result<Owner, OpenError> {
        let Some(owner) = self.state.owner else {
            if self.shape != Shape::default() {
                let item = Item::Record("identity");
                return Err(db.damaged(item, Damage::Absent).into());
            }
            // Made, but never said whose it is. If the mark knows of more, the next check says so.
            return Ok(Owner {
                node: record.node,
                incarnation: record.incarnation,
                starts: 0,
            });
        };
        if let (Some(marked), Some(found)) = (record.node, owner.node)
            && marked != found
        {
            return Err(wrong_node(folder, found, marked));
        }
        if owner.incarnation != record.incarnation {
            return Err(OpenError::Mixed {
                dir: folder.path().to_owned(),
                marked: record.incarnation,
                found: owner.incarnation,
            });
        }
        Ok(owner)
    }

    /// Whether the database holds at least what the mark says. It may hold more: it is written first.
    ///
    /// Not even a term or a vote that the mark has and the database lacks is taken over from the mark. The
    /// database had them synced before the mark, so it has lost a synced write, and with it all that it
    /// acknowledged behind that.
    pub(super) fn check_claim(
        &self,
        folder: &Folder,
        record: Record,
        owner: Owner,
    ) -> Result<(), OpenError> {
        let dir = folder.path().to_owned();
        let (marked, starts) = (record.claim, owner.starts);
        let (ours, theirs) = (marked.hard_state, self.state.hard_state);
        if ours.term == theirs.term
            && let (Some(marked), Some(found)) = (ours.voted_for, theirs.voted_for)
            && marked != found
        {
            let term = ours.term;
            return Err(OpenError::VotesConflict {
                dir,
                term,
                marked,
                found,
            });
        }
        let lost = starts < marked.starts
            || owner.node.is_none() && record.node.is_some()
            || self.state.records < marked.records
            || theirs.term < ours.term
            || theirs.term == ours.term && theirs.voted_for.is_none() && ours.voted_for.is_some()
            || !self.shape.has(marked.position);
        if lost {
            let found = Claim {
                starts,
                records: self.state.records,
                hard_state: theirs,
                position: self.at_or_last(marked.position.index),
            };
            let (marked, found) = (marked.into(), found.into());
            return Err(OpenError::LogLost { dir, marked, found });
        }
        Ok(())
    }

    /// The entry at `index`; the last one if there is none.
    fn at_or_last(&self, index: LogIndex) -> LogId {
        self.shape.id_at(index).unwrap_or(self.shape.last())
    }
}

/// Where the log begins, where its terms begin, which configurations it holds, and that nothing in it is
/// damaged or missing.
fn scan(
    db: &Database,
    state: &State,
) -> Result<(Shape, Vec<(LogIndex, Configuration)>), StorageError> {
    let pointer = state.pointer.clone().unwrap_or_default();
    let (start, covered) = (pointer.log_start, pointer.meta.last);
    let mut shape = Shape::new(start, covered);
    let mut configurations = Vec::new();
    let mut runs = db.runs(LogIndex(u64::MAX));
    let first = start.index.next();
    // A run that holds the log's first entry may hold others before it, which are gone.
    let mut at = runs.seek(first)?;
    let is_of_the_log = |run: Run| run.last() >= first && run.first.index >= pointer.first_run;
    if at.as_ref().is_none_or(|found| !is_of_the_log(found.run)) {
        at = match at {
            Some(_) => runs.next()?,
            None => runs.seek_to_first()?,
        };
    }
    while let Some(found) = at {
        let run = found.run;
        let damaged = |damage| db.damaged(Item::Run(run.first.index), damage);
        check_follows(&shape, run, first).map_err(damaged)?;
        let begins = run.first.index.max(first);
        shape.append(LogId::new(run.first.term, begins), run.last());
        for (index, data) in run::configurations(run, found.value).map_err(damaged)? {
            if index >= first {
                let decoded = Configuration::decode(data);
                let named = |error| db.damaged(Item::Entry(index), Damage::Configuration(error));
                configurations.push((index, decoded.map_err(named)?));
            }
        }
        at = runs.next()?;
    }
    let snapshot = Item::Record("snapshot");
    if covered.index < start.index || shape.id_at(covered.index) != Some(covered) {
        return Err(db.damaged(snapshot, Damage::Outside));
    }
    Ok((shape, configurations))
}

/// Whether a run follows the log as far as it was read; `first` is the log's first entry.
fn check_follows(shape: &Shape, run: Run, first: LogIndex) -> Result<(), Damage> {
    let expected = shape.last().index.next();
    let holds_first = expected == first && run.first.index <= first;
    if run.first.index != expected && !holds_first {
        return Err(Damage::Hole { expected });
    }
    let starts_before = run.first.index < first;
    if !starts_before && run.term_before != shape.last().term {
        return Err(Damage::Unchained);
    }
    let back = run.first.term < shape.last().term;
    if back || starts_before && run.first.term != shape.start().term {
        return Err(Damage::TermBack);
    }
    Ok(())
}

/// The log's last entries.
fn tail(db: &Database, start: LogIndex) -> Result<Vec<Entry>, StorageError> {
    let mut runs = db.runs(LogIndex(u64::MAX));
    let mut values = Vec::new();
    let mut bytes = 0;
    let mut at = runs.seek_to_last()?;
    while let Some(found) = at {
        bytes += found.value.len();
        if bytes > TAIL_BYTES_MAX || found.run.last() <= start {
            break;
        }
        values.push((found.run, found.to_bytes()));
        at = runs.prev()?;
    }
    let mut entries = Vec::new();
    for (run, value) in values.into_iter().rev() {
        let decoded = run::decode(run, &value, start.next().max(run.first.index), |entry| {
            entries.push(entry);
            true
        });
        decoded.map_err(|damage| db.damaged(Item::Run(run.first.index), damage))?;
    }
    Ok(entries)
}

pub(super) fn wrong_node(folder: &Folder, belongs_to: NodeId, asked: NodeId) -> OpenError {
    OpenError::WrongNode {
        dir: folder.path().to_owned(),
        belongs_to,
        asked,
    }
}
