//! What the effects of a step say, taken into the history and into the node's shadow, and checked there.
//!
//! Invariants, by name, beside those of `history`:
//! - `committed-never-changes`: nothing that is committed is cut off.
//! - `handed-out`: what a node hands out is committed, durable here, and comes once and in order.
//! - `bounded-work`: one input has so many effects at most, and one message so many entries.
//! - `halt`: no node ends itself.
//! - `snapshot-is-committed`, `snapshot-configuration`: see `History::check_snapshot`.

use raft_core::{Commit, Effect, EntryKind, LogIndex, OpenMessage, Persist, Role, SnapshotMeta};

use crate::broken::{Broken, Check, hold};
use crate::events::Event;
use crate::machine::entry_hash;
use crate::sets::{Quorums, Set};
use crate::step::{About, Kind};
use crate::world::World;

impl World {
    pub(crate) fn observe(&mut self, n: usize, about: &About, effects: &[Effect]) -> Check {
        self.check_bounds(n, effects)?;
        self.observe_election(n, about)?;
        for effect in effects {
            match effect {
                Effect::Persist(persist) => self.observe_write(n, about, persist)?,
                Effect::SendSnapshot { message, .. } => {
                    let id = self.nodes[n].id;
                    self.history.check_snapshot(id, &message.snapshot)?;
                }
                Effect::Halt(violation) => {
                    return Err(Broken {
                        invariant: "halt",
                        detail: format!("node {} halts: {violation}", self.nodes[n].id),
                    });
                }
                _ => {}
            }
        }
        self.observe_commit(n, about)?;
        let mut handed_out = about.before.handed_out;
        for effect in effects {
            match effect {
                Effect::Commit(commit) => {
                    self.check_handed_out(n, handed_out, commit)?;
                    handed_out = commit.through;
                }
                Effect::Restore(meta) => {
                    self.check_restored(n, handed_out, meta)?;
                    handed_out = meta.last.index;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_bounds(&self, n: usize, effects: &[Effect]) -> Check {
        let node = &self.nodes[n];
        let sizes = &self.fate.sizes;
        let bound = 24 + crate::world::NODES_MAX * 2 * (sizes.inflight + 4);
        let (id, count) = (node.id, effects.len());
        hold!(
            count <= bound,
            "bounded-work",
            "node {id} answers one input with {count} effects"
        );
        for effect in effects {
            let Effect::Send {
                to,
                message: OpenMessage::AppendEntries(m),
            } = effect
            else {
                continue;
            };
            let bytes: usize = m.entries.iter().map(|entry| entry.size_bytes()).sum();
            let last = m.entries.last().map_or(0, |entry| entry.size_bytes());
            hold!(
                m.entries.len() <= sizes.append_entries
                    && (bytes - last < sizes.append_bytes || bytes == last),
                "bounded-work",
                "node {id} sends {} entries of {bytes} bytes in one message to {to}",
                m.entries.len()
            );
        }
        Ok(())
    }

    fn observe_election(&mut self, n: usize, about: &About) -> Check {
        let node = &self.nodes[n];
        let (id, run) = (node.id, node.run.as_ref().unwrap());
        let (role, term) = (run.raft.role(), run.raft.term());
        let before = about.before;
        if role == before.role && term == before.term {
            return Ok(());
        }
        match role {
            Role::Leader => {
                self.history.elected(id, term, &run.shadow)?;
                let alone = run.shadow.configuration().members().len() == 1;
                let leads = |other: &crate::node::Node| {
                    let run = other.run.as_ref();
                    other.id != id && run.is_some_and(|run| run.raft.role() == Role::Leader)
                };
                let rivals = self.nodes.iter().any(leads);
                self.count(Event::Elected);
                if alone {
                    self.count(Event::AloneElected);
                }
                if rivals {
                    self.count(Event::TwoLeaders);
                }
                let run = self.nodes[n].run.as_mut().unwrap();
                run.settled = run.ticks;
            }
            Role::Candidate if self.history.stood(id, term) => self.count(Event::VoteSplit),
            _ => {}
        }
        Ok(())
    }

    fn observe_write(&mut self, n: usize, about: &About, persist: &Persist) -> Check {
        let node = &mut self.nodes[n];
        let (id, run) = (node.id, node.run.as_mut().unwrap());
        let in_order = persist.write.0 == run.last_write.0 + 1;
        hold!(
            in_order,
            "writes-in-order",
            "node {id} writes #{} behind #{}",
            persist.write,
            run.last_write
        );
        run.last_write = persist.write;
        run.unfinished.push_back((persist.write, run.ticks));
        let (term, commit) = (run.raft.term(), run.raft.commit());
        let leads = self.history.leads(id, term)
            && (run.raft.role() == Role::Leader || about.before.role == Role::Leader);
        if let Some(write) = &persist.snapshot {
            hold!(
                !(leads && write.replaces_log),
                "leader-append-only",
                "leader {id} replaces its log"
            );
            self.history.check_snapshot(id, &write.snapshot)?;
            if write.log_start.index > run.shadow.start().index && !write.replaces_log {
                self.counts.add(Event::LogCompacted);
            }
            run.shadow.install(write);
            if write.replaces_log {
                run.installing = Some(persist.write);
            }
        }
        if let Some(from) = persist.truncate_from {
            hold!(
                !leads,
                "leader-append-only",
                "leader {id} cuts its log from {from} on"
            );
            // A leader of a term before the one that committed it does not have it, and may cut it off
            // where it was not counted.
            let lost = run
                .shadow
                .id(from)
                .filter(|id| self.history.is_committed_by(*id, term));
            hold!(
                lost.is_none() && from > commit.min(about.before.commit),
                "committed-never-changes",
                "node {id} cuts its log from {from} on, where {lost:?} is committed"
            );
            self.counts.add(Event::SuffixTruncated);
            if run.shadow.truncate(from) {
                self.count(Event::ConfigurationRolledBack);
            }
        }
        let run = self.nodes[n].run.as_mut().unwrap();
        for entry in persist.append.iter() {
            let before = run.shadow.last();
            let gap = before.index.next() != entry.id.index;
            hold!(
                !gap,
                "log-without-gaps",
                "node {id} appends {} behind {before}",
                entry.id
            );
            self.history.appended(id, before, entry)?;
            run.shadow.push(entry);
            if leads {
                self.history.led(term, entry)?;
                if entry.kind == EntryKind::Configuration {
                    run.settled = run.ticks;
                }
            }
        }
        if leads && !persist.append.is_empty() {
            self.observe_changes(n, about, persist);
        }
        Ok(())
    }

    /// Counts what a leader's own changes of the configuration are.
    fn observe_changes(&mut self, n: usize, about: &About, persist: &Persist) {
        for entry in persist.append.iter() {
            if entry.kind != EntryKind::Configuration {
                continue;
            }
            let joint = self.nodes[n]
                .run
                .as_ref()
                .unwrap()
                .raft
                .configuration()
                .is_joint();
            match (joint, about.kind) {
                (true, _) => self.count(Event::JointEntered),
                (false, Kind::Change) => {}
                (false, _) if about.quorums.is_some_and(|q| q.outgoing != Set::default()) => {
                    self.count(Event::JointLeftByItself);
                }
                (false, _) => self.count(Event::LearnerPromoted),
            }
        }
    }

    /// A commit index that moved: a leader's by a quorum, anybody else's by what is committed already.
    fn observe_commit(&mut self, n: usize, about: &About) -> Check {
        let node = &self.nodes[n];
        let (id, run) = (node.id, node.run.as_ref().unwrap());
        let (term, commit) = (run.raft.term(), run.raft.commit());
        if commit <= about.before.commit {
            return Ok(());
        }
        if self.history.leads(id, term) {
            let now = Quorums::of(run.raft.configuration());
            let configurations = [about.quorums.unwrap_or(now), now];
            let disks = &self.nodes;
            let holders = |entry| {
                let has = disks.iter().filter(|node| node.disk.holds(entry));
                Set::of(has.map(|node| &node.id))
            };
            let earlier = self
                .history
                .leader_committed(term, commit, &configurations, holders)?;
            if earlier {
                self.counts.add(Event::OldTermCommitted);
            }
            return Ok(());
        }
        let committed = self.history.at(commit).map(|committed| committed.id);
        let own = run.shadow.id(commit);
        hold!(
            committed.is_some() && (own.is_none() || own == committed),
            "committed-never-changes",
            "node {id} takes {own:?} for committed, and {committed:?} is",
        );
        Ok(())
    }

    fn check_handed_out(&self, n: usize, after: LogIndex, commit: &Commit) -> Check {
        let node = &self.nodes[n];
        let (id, through) = (node.id, commit.through);
        hold!(
            through > after,
            "handed-out",
            "node {id} hands out {through} behind {after}"
        );
        let in_memory = commit.entries.len() as u64;
        hold!(
            in_memory <= through.0 - after.0,
            "handed-out",
            "node {id} hands out entries again"
        );
        for (entry, index) in commit.entries.iter().zip(through.0 - in_memory + 1..) {
            let same =
                |c: &crate::history::Committed| c.id == entry.id && c.hash == entry_hash(entry);
            hold!(
                entry.id.index.0 == index && self.history.at(LogIndex(index)).is_some_and(same),
                "handed-out",
                "node {id} hands out {}, and {:?} is committed there",
                entry.id,
                self.history.at(LogIndex(index)).map(|c| c.id)
            );
        }
        // With log matching, the last one speaks for all.
        for index in [LogIndex(after.0 + 1), through] {
            let committed = self.history.at(index).map(|c| c.id);
            hold!(
                committed.is_some_and(|entry| node.disk.holds(entry)),
                "handed-out",
                "node {id} hands out {index} ({committed:?}), and its disk has term {:?} there",
                node.disk.term_at(index)
            );
        }
        Ok(())
    }

    fn check_restored(&self, n: usize, after: LogIndex, meta: &SnapshotMeta) -> Check {
        let node = &self.nodes[n];
        let durable = node.disk.snapshot.as_ref();
        let on_disk = durable.is_some_and(|durable| durable.last.index >= meta.last.index);
        hold!(
            on_disk && meta.last.index > after,
            "handed-out",
            "node {} restores {} behind {after}, and {:?} is on its disk",
            node.id,
            meta.last,
            durable.map(|durable| durable.last)
        );
        self.history.check_snapshot(node.id, meta)
    }
}
