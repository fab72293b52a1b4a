//! All that ever happened, and what must hold of it over the whole history and not only now (paper,
//! figure 3).
//!
//! Invariants, by the names under which they break:
//! - `log-matching`: an entry is everywhere preceded by the same entry, and so by the same log.
//! - `election-safety`: a term has one leader, and `election-quorum`: a quorum's votes made it one.
//! - `leader-completeness`: a leader has what earlier leaders committed.
//! - `leader-append-only`: a leader appends to its log, and to nothing else.
//! - `commit-quorum`: a leader commits only what a quorum of its configuration has durable, and counts only
//!   entries of its own term (§5.4.2).
//! - `committed-never-changes`: the committed sequence only grows.
//! - `quorums-meet`: those of consecutive committed configurations.
//! - `ids-grow`: the highest id that was ever given out never falls, so that none is given out twice.
//! - `one-change-at-a-time`: a leader's log has one uncommitted configuration of its own reign at most.
//! - `sessions-once`: a command with a session has one answer, however often it is committed.

use raft_core::membership::Configuration;
use raft_core::{Entry, EntryKind, LogId, LogIndex, NodeId, SnapshotMeta, Term};

use crate::broken::{Broken, Check, hold};
use crate::machine::{Command, Machine, entry_hash};
use crate::mix::Map;
use crate::sets::{Quorums, Set};
use crate::shadow::Shadow;

/// One entry of the committed sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) id: LogId,
    pub(crate) hash: u64,
    /// The chain of digests up to here.
    pub(crate) digest: u64,
    /// The whole state here.
    pub(crate) fingerprint: u64,
    /// The term whose leader committed it.
    by: Term,
}

struct Known {
    before: LogId,
    hash: u64,
    entry: Entry,
}

/// One leader's log, as it grew.
struct Reign {
    node: NodeId,
    /// Up to here it is the committed sequence.
    base: u64,
    terms: Vec<Term>,
    /// Configurations that this leader appended.
    changes: Vec<LogIndex>,
}

/// How the candidates of a term fared.
#[derive(Clone, Copy, Default)]
struct Poll {
    candidates: Set,
    elected: bool,
    split: bool,
}

/// What was seen of a run so far.
pub(crate) struct History {
    entries: Map<LogId, Known>,
    reigns: Map<Term, Reign>,
    votes: Map<(NodeId, Term), NodeId>,
    polls: Map<Term, Poll>,
    chain: Vec<Committed>,
    machine: Machine,
    answers: Map<(u8, u32), u64>,
    /// The committed configurations with their positions, the initial one first.
    configurations: Vec<(LogIndex, Configuration)>,
    /// All that were ever appended and may still be committed.
    open_configurations: Vec<(LogId, Configuration)>,
    /// The last position that any client has seen the effect of.
    pub(crate) visible: LogIndex,
}

impl History {
    pub(crate) fn new(initial: Configuration) -> Self {
        Self {
            entries: Map::default(),
            reigns: Map::default(),
            votes: Map::default(),
            polls: Map::default(),
            chain: Vec::new(),
            machine: Machine::default(),
            answers: Map::default(),
            configurations: vec![(LogIndex::ZERO, initial)],
            open_configurations: Vec::new(),
            visible: LogIndex::ZERO,
        }
    }

    /// How many entries are committed.
    pub(crate) fn committed(&self) -> LogIndex {
        LogIndex(self.chain.len() as u64)
    }

    pub(crate) fn at(&self, index: LogIndex) -> Option<&Committed> {
        self.chain.get(index.0.checked_sub(1)? as usize)
    }

    fn id_at(&self, index: LogIndex) -> Option<LogId> {
        match index {
            LogIndex::ZERO => Some(LogId::ZERO),
            index => self.at(index).map(|committed| committed.id),
        }
    }

    pub(crate) fn is_committed(&self, id: LogId) -> bool {
        self.id_at(id.index) == Some(id)
    }

    /// Whether the leader of `term`, or an earlier one, has committed the entry.
    pub(crate) fn is_committed_by(&self, id: LogId, term: Term) -> bool {
        self.at(id.index)
            .is_some_and(|committed| committed.id == id && committed.by <= term)
    }

    pub(crate) fn leads(&self, node: NodeId, term: Term) -> bool {
        self.reigns
            .get(&term)
            .is_some_and(|reign| reign.node == node)
    }

    /// The configuration that was in effect at a committed position.
    pub(crate) fn configuration_at(&self, index: LogIndex) -> &Configuration {
        let behind = self.configurations.partition_point(|(at, _)| *at <= index);
        &self.configurations[behind - 1].1
    }

    /// The last committed configuration, and all that may still follow it.
    pub(crate) fn relevant_configurations(&self) -> impl Iterator<Item = &Configuration> {
        let last = &self.configurations[self.configurations.len() - 1];
        let open = self.open_configurations.iter();
        let open = open.filter(|(id, _)| id.index > last.0).map(|(_, c)| c);
        std::iter::once(&last.1).chain(open)
    }

    /// `node` appends `entry` behind `before`.
    pub(crate) fn appended(&mut self, node: NodeId, before: LogId, entry: &Entry) -> Check {
        let hash = entry_hash(entry);
        if let Some(known) = self.entries.get(&entry.id) {
            hold!(
                known.before == before && known.hash == hash,
                "log-matching",
                "node {node} has entry {} behind {before}, another node has it behind {} or with other data",
                entry.id,
                known.before
            );
            return Ok(());
        }
        let known = Known {
            before,
            hash,
            entry: entry.clone(),
        };
        self.entries.insert(entry.id, known);
        if entry.kind == EntryKind::Configuration {
            let configuration = Configuration::decode(&entry.data).map_err(|error| Broken {
                invariant: "configuration-in-effect",
                detail: format!("entry {} of node {node}: {error}", entry.id),
            })?;
            self.open_configurations.push((entry.id, configuration));
        }
        Ok(())
    }

    /// `node` gives its vote: the message is on its way. Says whether it was not known.
    pub(crate) fn voted(&mut self, node: NodeId, term: Term, candidate: NodeId) -> Check {
        let before = *self.votes.entry((node, term)).or_insert(candidate);
        hold!(
            before == candidate,
            "vote-once",
            "node {node} votes for {before} and for {candidate} in term {term}"
        );
        Ok(())
    }

    /// `node` is a candidate in `term`. Says whether the term before ended without a leader though several
    /// stood.
    pub(crate) fn stood(&mut self, node: NodeId, term: Term) -> bool {
        self.polls.entry(term).or_default().candidates.insert(node);
        match self.polls.get_mut(&Term(term.0 - 1)) {
            Some(poll) if poll.candidates.len() > 1 && !poll.elected && !poll.split => {
                poll.split = true;
                true
            }
            _ => false,
        }
    }

    /// `node` leads `term` from now on, and this is its log, without the entry of its own term.
    pub(crate) fn elected(&mut self, node: NodeId, term: Term, log: &Shadow) -> Check {
        if let Some(reign) = self.reigns.get(&term) {
            let other = reign.node;
            hold!(
                false,
                "election-safety",
                "nodes {other} and {node} lead term {term}"
            );
        }
        let granted = |id: NodeId| self.votes.get(&(id, term)) == Some(&node);
        let quorums = Quorums::of(log.configuration());
        let voters: Vec<NodeId> = quorums.voters().ids().filter(|id| granted(*id)).collect();
        hold!(
            quorums.decide(Set::of(&voters)),
            "election-quorum",
            "node {node} leads term {term} by the votes of {voters:?} among {}",
            log.configuration()
        );
        let base = self.chain.partition_point(|committed| committed.by < term) as u64;
        let held =
            log.start().index.0 > base || log.id(LogIndex(base)) == self.id_at(LogIndex(base));
        hold!(
            held && log.last().index.0 >= base,
            "leader-completeness",
            "node {node} leads term {term} with a log that ends at {} and lacks committed entry {base}",
            log.last()
        );
        let ids = (base + 1..=log.last().index.0).map(|i| log.id(LogIndex(i)));
        let reign = Reign {
            node,
            base,
            terms: ids.map(|id| id.map_or(Term(0), |id| id.term)).collect(),
            changes: Vec::new(),
        };
        self.reigns.insert(term, reign);
        self.polls.entry(term).or_default().elected = true;
        Ok(())
    }

    /// The leader of `term` appends an entry to its own log.
    pub(crate) fn led(&mut self, term: Term, entry: &Entry) -> Check {
        let Some(reign) = self.reigns.get_mut(&term) else {
            return Ok(());
        };
        let next = reign.base + reign.terms.len() as u64 + 1;
        hold!(
            entry.id == LogId::new(term, LogIndex(next)),
            "leader-append-only",
            "the leader of term {term} appends {} where entry {next} should be",
            entry.id
        );
        reign.terms.push(term);
        if entry.kind == EntryKind::Configuration {
            reign.changes.push(entry.id.index);
        }
        Ok(())
    }

    /// Configurations of the reign that are not committed as far as its leader knows.
    pub(crate) fn check_changes(&mut self, term: Term, commit: LogIndex) -> Check {
        let Some(reign) = self.reigns.get_mut(&term) else {
            return Ok(());
        };
        reign.changes.retain(|at| *at > commit);
        hold!(
            reign.changes.len() <= 1,
            "one-change-at-a-time",
            "the leader of term {term} has uncommitted changes at {:?}",
            reign.changes
        );
        Ok(())
    }

    /// The entry at `index` in the log of the leader of `term`.
    pub(crate) fn entry_of_leader(&self, term: Term, index: LogIndex) -> Option<LogId> {
        let reign = self.reigns.get(&term)?;
        if index.0 <= reign.base {
            return self.id_at(index);
        }
        let term = reign.terms.get((index.0 - reign.base - 1) as usize)?;
        Some(LogId::new(*term, index))
    }

    /// The leader of `term` says that its log is committed through `through`, by one of `configurations`;
    /// `holders` says who has an entry durable.
    pub(crate) fn leader_committed(
        &mut self,
        term: Term,
        through: LogIndex,
        configurations: &[Quorums],
        holders: impl Fn(LogId) -> Set,
    ) -> Result<bool, Broken> {
        let Some(last) = self.entry_of_leader(term, through) else {
            return Err(Broken {
                invariant: "commit-quorum",
                detail: format!(
                    "the leader of term {term} commits {through}, which it does not have"
                ),
            });
        };
        let have = holders(last);
        hold!(
            last.term == term && configurations.iter().any(|q| q.decide(have)),
            "commit-quorum",
            "the leader of term {term} commits {last}, durable on {:?}, with {configurations:?}",
            have.ids().collect::<Vec<_>>()
        );
        let mut earlier = false;
        while self.committed() < through {
            let id = self.entry_of_leader(term, self.committed().next());
            let id = id.unwrap_or(LogId::ZERO);
            earlier |= id.term < term;
            self.extend(id, term)?;
        }
        hold!(
            self.is_committed(last),
            "committed-never-changes",
            "the leader of term {term} commits {last}, and {:?} is committed there",
            self.id_at(through)
        );
        Ok(earlier)
    }

    fn extend(&mut self, id: LogId, by: Term) -> Check {
        let Some(known) = self.entries.get(&id) else {
            return Err(Broken {
                invariant: "log-matching",
                detail: format!("{id} is committed in term {by}, and nobody appended it"),
            });
        };
        let last = self
            .chain
            .last()
            .map_or(LogId::ZERO, |committed| committed.id);
        hold!(
            known.before == last,
            "committed-never-changes",
            "{id}, committed in term {by}, stands behind {}, and {last} is committed there",
            known.before
        );
        let (hash, entry) = (known.hash, known.entry.clone());
        self.apply(&entry, hash)?;
        self.chain.push(Committed {
            id,
            hash,
            digest: self.machine.digest,
            fingerprint: self.machine.fingerprint(),
            by,
        });
        if entry.kind == EntryKind::Configuration {
            self.reconfigure(id)?;
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry, hash: u64) -> Check {
        let Some(response) = self.machine.apply(entry, hash) else {
            return Ok(());
        };
        let Some(command) = Command::decode(&entry.data) else {
            return Ok(());
        };
        if usize::from(command.session) >= crate::machine::SESSIONS {
            return Ok(());
        }
        let key = (command.session, command.sequence);
        let first = self.answers.get(&key).copied();
        hold!(
            first.is_some() == response.again && first.is_none_or(|v| v == response.value),
            "sessions-once",
            "{command:?} was answered {first:?}, and now {response:?}"
        );
        self.answers.insert(key, response.value);
        Ok(())
    }

    /// What the first run of a command answered, if it is committed.
    pub(crate) fn answer(&self, session: u8, sequence: u32) -> Option<u64> {
        self.answers.get(&(session, sequence)).copied()
    }

    fn reconfigure(&mut self, id: LogId) -> Check {
        let at = self
            .open_configurations
            .iter()
            .position(|(other, _)| *other == id);
        let Some((_, new)) = at.map(|at| self.open_configurations.swap_remove(at)) else {
            return Ok(());
        };
        let old = &self.configurations[self.configurations.len() - 1].1;
        // Who starts from nothing has no quorums to meet.
        let meet = old.voters.is_empty() || Quorums::of(old).meet(Quorums::of(&new));
        hold!(meet, "quorums-meet", "entry {id} follows {old} with {new}");
        let (before, after) = (old.highest_id(), new.highest_id());
        hold!(
            after >= before,
            "ids-grow",
            "the highest id is {after} from entry {id} on, and was {before}"
        );
        self.open_configurations
            .retain(|(other, _)| other.index > id.index);
        self.configurations.push((id.index, new));
        Ok(())
    }

    /// A snapshot stands for committed entries, and for the configuration there.
    pub(crate) fn check_snapshot(&self, node: NodeId, snapshot: &SnapshotMeta) -> Check {
        hold!(
            self.is_committed(snapshot.last),
            "snapshot-is-committed",
            "node {node} has a snapshot of {}, and {:?} is committed there",
            snapshot.last,
            self.id_at(snapshot.last.index)
        );
        let expected = self.configuration_at(snapshot.last.index);
        hold!(
            *expected == *snapshot.configuration,
            "snapshot-configuration",
            "node {node} has a snapshot of {} with {}, and {expected} was in effect there",
            snapshot.last,
            snapshot.configuration
        );
        Ok(())
    }

    /// State machine safety (§5.4.3): a state is that of the committed sequence.
    pub(crate) fn check_machine(&self, node: NodeId, machine: &Machine) -> Check {
        let expected = match machine.applied {
            LogIndex::ZERO => Some(Machine::default().fingerprint()),
            index => self.at(index).map(|committed| committed.fingerprint),
        };
        hold!(
            expected == Some(machine.fingerprint()),
            "state-machine-safety",
            "node {node} has another state at {}, the chain of digests says {:?} and it has {:x}",
            machine.applied,
            self.at(machine.applied).map(|committed| committed.digest),
            machine.digest
        );
        Ok(())
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
