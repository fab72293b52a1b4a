//! What a store must hold: the model that a writer and its judge share.
//!
//! A writer says each step before it takes it, and says when it is durable. So at any moment the store may hold
//! exactly one of two things: what was acknowledged, or that with the one step under way. A write is atomic, so
//! there is no third.
//!
//! Invariant: an entry's bytes are a function of its term and index, so that nobody has to remember them.

use std::collections::BTreeMap;

use raft_core::membership::Configuration;
use raft_core::{
    ClusterId, Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, NodeId, SnapshotMeta,
    Term,
};
use raft_storage::Opened;
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Consecutive entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Their term.
    pub term: u64,
    /// The first one's index.
    pub first: u64,
    /// The last one's.
    pub last: u64,
}

/// The term and the index of an entry.
pub type Id = (u64, u64);

/// All that a store holds, but for the bytes of its entries and of its snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The term.
    pub term: u64,
    /// The vote in it.
    pub vote: Option<u64>,
    /// The last entry that the snapshot covers, if there is one.
    pub snapshot: Option<Id>,
    /// The last entry that the log does not hold any more.
    pub start: Id,
    /// The log behind it.
    pub runs: Vec<Run>,
    /// Which of the writer's lists of members was recorded last.
    pub members: Option<u64>,
    /// The cluster.
    pub cluster: Option<u64>,
    /// The named readers.
    pub cursors: BTreeMap<String, u64>,
}

/// One call of a writer to its store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// One batch.
    Write {
        /// A new term and vote.
        hard_state: Option<(u64, Option<u64>)>,
        /// The first entry that goes.
        cut: Option<u64>,
        /// How many entries of the (new) term are appended.
        append: u64,
    },
    /// What is known of the cluster.
    Record {
        /// Another list of members.
        members: Option<u64>,
        /// The cluster, once.
        cluster: Option<u64>,
        /// How far one named reader is.
        cursor: Option<(String, Option<u64>)>,
    },
    /// A snapshot of what the log holds, which begins later then.
    Compact {
        /// The last entry that it covers.
        last: Id,
        /// The last entry that goes.
        start: Id,
    },
    /// A snapshot in the place of the log, as from a leader.
    Install {
        /// The last entry that it covers.
        last: Id,
    },
}

impl Held {
    /// The last entry's index; 0 for an empty log.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.runs.last().map_or(self.start.1, |run| run.last)
    }

    /// The term of entry `index`, if there is one.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let run = self
            .runs
            .iter()
            .find(|run| (run.first..=run.last).contains(&index));
        run.map(|run| run.term)
    }

    /// What it is after `step`.
    #[must_use]
    pub fn after(&self, step: &Step) -> Self {
        let mut held = self.clone();
        match *step {
            Step::Write {
                hard_state,
                cut,
                append,
            } => {
                if let Some((term, vote)) = hard_state {
                    (held.term, held.vote) = (term, vote);
                }
                if let Some(from) = cut {
                    held.cut(from);
                }
                for index in held.last() + 1..=held.last() + append {
                    held.push(held.term, index);
                }
            }
            Step::Record {
                members,
                cluster,
                ref cursor,
            } => {
                held.members = members.or(held.members);
                held.cluster = cluster.or(held.cluster);
                match cursor.clone() {
                    Some((name, Some(at))) => held.cursors.insert(name, at),
                    Some((name, None)) => held.cursors.remove(&name),
                    None => None,
                };
            }
            Step::Compact { last, start } => {
                held.snapshot = Some(last);
                held.start = start;
                held.runs.retain(|run| run.last > start.1);
                if let Some(run) = held.runs.first_mut() {
                    run.first = run.first.max(start.1 + 1);
                }
            }
            Step::Install { last } => {
                held.snapshot = Some(last);
                held.start = last;
                held.runs.clear();
            }
        }
        held
    }

    fn cut(&mut self, from: u64) {
        self.runs.retain(|run| run.first < from);
        if let Some(run) = self.runs.last_mut() {
            run.last = run.last.min(from - 1);
        }
    }

    /// Adds one entry behind the last.
    pub fn push(&mut self, term: u64, index: u64) {
        match self.runs.last_mut() {
            Some(run) if run.term == term && run.last + 1 == index => run.last = index,
            _ => self.runs.push(Run {
                term,
                first: index,
                last: index,
            }),
        }
    }

    /// What a store says of itself when it is opened: its outline of the log, not what can be read of it.
    #[must_use]
    pub fn claimed(opened: &Opened) -> Self {
        let Opened {
            recovered,
            identity,
            cursors,
            ..
        } = opened;
        let HardState { term, voted_for } = recovered.hard_state;
        let ends = recovered.terms.iter().skip(1).map(|id| id.index.0 - 1);
        let ends = ends.chain([recovered.last.index.0]);
        let runs = recovered.terms.iter().zip(ends).map(|(id, last)| Run {
            term: id.term.0,
            first: id.index.0,
            last,
        });
        let id = |id: LogId| (id.term.0, id.index.0);
        let cursors = cursors.iter().map(|(name, at)| (name.clone(), at.0));
        Self {
            term: term.0,
            vote: voted_for.map(|node| node.0),
            snapshot: recovered.snapshot.as_ref().map(|meta| id(meta.last)),
            start: id(recovered.log_start),
            runs: runs.collect(),
            members: identity.known.as_ref().map(version_of),
            cluster: identity.cluster.map(|cluster| cluster.0 as u64),
            cursors: cursors.collect(),
        }
    }
}

/// The snapshot through this entry, as a writer takes it.
#[must_use]
pub fn snapshot(last: Id) -> (SnapshotMeta, Vec<u8>) {
    let mut random = Random::new(last.0 << 40 ^ last.1 ^ 1 << 63);
    let voters = 1..=1 + random.below(5);
    let meta = SnapshotMeta {
        last: LogId::new(Term(last.0), LogIndex(last.1)),
        configuration: Configuration::of(voters.map(NodeId)).into(),
    };
    let length_max = [100, 30_000, 900_000][random.below(3) as usize];
    let length = random.below(length_max) as usize;
    (meta, bytes(&mut random, length))
}

/// What the writer knows of the members, number `version`.
#[must_use]
pub fn members(version: u64) -> Configuration {
    let others = (2..=1 + version % 5).map(|node| (NodeId(node), Incarnation(node.into())));
    let first = (NodeId(1), Incarnation(version.into()));
    Configuration::of_folders([first].into_iter().chain(others))
}

/// The number of what [`members`] made; `u64::MAX` for anything else.
fn version_of(found: &Configuration) -> u64 {
    let first = found.folders().get(&NodeId(1)).copied();
    let version = first.map(|incarnation| incarnation.0 as u64);
    version
        .filter(|version| members(*version) == *found)
        .unwrap_or(u64::MAX)
}

/// The cluster's id as the store knows it.
#[must_use]
pub fn cluster(number: u64) -> ClusterId {
    ClusterId(number.into())
}

/// The entry that a writer puts there: of many sizes, mostly small, some a configuration or a no-op.
///
/// Its bytes look random and none is zero, so that zeros in a file are always damage.
#[must_use]
pub fn entry(term: u64, index: u64) -> Entry {
    let mut random = Random::new(term << 40 ^ index);
    let (kind, data) = match random.below(128) {
        0 => (EntryKind::Noop, Vec::new()),
        1 => {
            let voters = 1..=1 + random.below(5);
            let encoded = Configuration::of(voters.map(NodeId)).encode();
            (EntryKind::Configuration, encoded.to_vec())
        }
        dice => {
            let length = match dice {
                2 => random.below(60_000),
                3..14 => random.below(3_000),
                _ => random.below(300),
            };
            (EntryKind::Command, bytes(&mut random, length as usize))
        }
    };
    Entry::new(Term(term), LogIndex(index), kind, data.into())
}

fn bytes(random: &mut Random, length: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| (random.number() | 0x0101_0101_0101_0101).to_le_bytes());
    let mut bytes: Vec<u8> = words.take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_cuts_and_appends_in_the_new_term() {
        let write = |hard_state, cut, append| Step::Write {
            hard_state,
            cut,
            append,
        };
        let held = Held::default().after(&write(Some((1, Some(1))), None, 5));
        let held = held.after(&write(Some((3, None)), Some(4), 2));
        let run = |term, first, last| Run { term, first, last };
        assert_eq!(held.runs, [run(1, 1, 3), run(3, 4, 5)]);
        assert_eq!((held.term, held.vote, held.last()), (3, None, 5));
        assert_eq!((held.term_at(3), held.term_at(6)), (Some(1), None));
        let record = Step::Record {
            members: Some(7),
            cluster: None,
            cursor: None,
        };
        assert_eq!(held.after(&record).members, Some(7));
        let held = held.after(&Step::Compact {
            last: (3, 4),
            start: (1, 2),
        });
        assert_eq!(held.runs, [run(1, 3, 3), run(3, 4, 5)]);
        let held = held.after(&Step::Install { last: (3, 9) });
        assert_eq!((held.last(), held.runs), (9, vec![]));
    }

    #[test]
    fn a_list_of_members_has_a_number() {
        for version in 0..20 {
            assert_eq!(version_of(&members(version)), version);
        }
        assert_eq!(version_of(&Configuration::default()), u64::MAX);
    }

    #[test]
    fn no_byte_of_a_command_is_zero() {
        for index in 1..500 {
            let entry = entry(2, index);
            assert!(entry.kind != EntryKind::Command || !entry.data.contains(&0));
        }
    }
}
