//! What happened so far, as far as the laws speak of it, and the laws that look at more than one node.
//!
//! None of this is known to any node. It is part of the model's state because the same nodes with another
//! past may break a law that these do not.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use raft_core::{
    AppendOutcome, DurableMessage, Entry, EntryKind, Envelope, LogIndex, Message, NodeId, ReadId,
    Role, SnapshotMeta, Term, membership::Configuration,
};

use crate::compare::{
    acknowledged_is_durable, claims_are_true, logs_match, majority, older_term_waits,
};
use crate::law::{Broken, Event, Events, Law, demand};
use crate::node::{Node, Outcome};
use crate::packet::{Body, Packet};

/// What happened so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Who leads, or led, which term; in order.
    pub leaders: Vec<(Term, NodeId)>,
    /// Who was heard to vote for whom: voter, term, candidate; in order.
    pub votes: Vec<(NodeId, Term, NodeId)>,
    /// The log as far as any leader has called it committed.
    pub committed: Vec<Entry>,
    /// The terms of the leaders that called them so first.
    pub committed_in: Vec<Term>,
    /// The reads that wait, each with the node that was asked and what was committed then.
    pub reads: Vec<(ReadId, NodeId, LogIndex)>,
    /// The configuration before the first entry.
    pub initial: Arc<Configuration>,
}

impl Hash for History {
    /// Leaves out what is the same in all states.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (
            &self.leaders,
            &self.votes,
            &self.committed,
            &self.committed_in,
            &self.reads,
        )
            .hash(state);
    }
}

impl History {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(initial: Configuration) -> Self {
        Self {
            leaders: Vec::new(),
            votes: Vec::new(),
            committed: Vec::new(),
            committed_in: Vec::new(),
            reads: Vec::new(),
            initial: Arc::new(initial),
        }
    }

    /// The last committed position.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// The committed entry at `index`.
    #[must_use]
    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.committed.get(index.0.checked_sub(1)? as usize)
    }

    /// The configuration as of the committed entry at `index`.
    fn configuration_at(&self, index: LogIndex) -> Configuration {
        let upto = self.committed.iter().take(index.0 as usize).rev();
        let mut configurations = upto.filter(|entry| entry.kind == EntryKind::Configuration);
        let last = configurations
            .next()
            .and_then(|e| Configuration::decode(&e.data).ok());
        last.unwrap_or_else(|| Configuration::clone(&self.initial))
    }

    /// Takes in what the node at `at` has just done, and holds it against every law.
    pub(crate) fn record(
        self: &mut Arc<Self>,
        before: &Node,
        nodes: &[Arc<Node>],
        at: usize,
        outcome: &Outcome,
        lies_overlooked: bool,
    ) -> Result<Events, Broken> {
        let mut events = outcome.events;
        let node = &nodes[at];
        for packet in &outcome.packets {
            let honest = claims_are_true(nodes, node, packet);
            honest.or_else(|broken| if lies_overlooked { Ok(()) } else { Err(broken) })?;
            self.heard(packet, &mut events)?;
        }
        if node.view.role == Role::Leader {
            self.leads(node, &mut events)?;
            self.commits(nodes, node, node.view.term, &mut events)?;
        } else if before.view.role == Role::Leader && outcome.events.has(Event::SteppedDown) {
            // Its last act may have been to commit the configuration that it is not in.
            self.commits(nodes, node, before.view.term, &mut events)?;
        }
        let (id, commit) = (node.id(), node.view.commit);
        demand(commit <= self.last(), Law::CommittedIsDurable, || {
            format!(
                "node {id} calls {commit} committed, and no leader has gone beyond {}",
                self.last()
            )
        })?;
        for entry in &outcome.applied {
            demand(
                self.get(entry.id.index) == Some(entry),
                Law::StateMachineSafety,
                || {
                    format!(
                        "node {id} applies {entry:?}, and committed is {:?}",
                        self.get(entry.id.index)
                    )
                },
            )?;
        }
        for snapshot in &outcome.snapshots {
            self.snapshot(id, snapshot)?;
        }
        self.answered(node, outcome, &mut events)?;
        logs_match(nodes, at)?;
        acknowledged_is_durable(nodes)?;
        events.add_if(older_term_waits(nodes, node), Event::OlderTermWaits);
        Ok(events)
    }

    /// A message has left its sender.
    fn heard(self: &mut Arc<Self>, packet: &Packet, events: &mut Events) -> Result<(), Broken> {
        let Body::Message(Envelope {
            from,
            to,
            message: Message::Durable(message),
        }) = packet.body()
        else {
            return Ok(());
        };
        match message {
            DurableMessage::RequestVote(m) => {
                let rivals = self.votes.iter().any(|(voter, term, candidate)| {
                    voter == candidate && voter != from && *term == m.term
                });
                events.add_if(rivals, Event::SplitVote);
                self.votes(*from, m.term, *from)
            }
            DurableMessage::VoteResponse(m) if m.granted => self.votes(*from, m.term, *to),
            DurableMessage::VoteResponse(_) => {
                events.add(Event::VoteRefused);
                Ok(())
            }
            DurableMessage::AppendResponse(m) => {
                let refused = matches!(m.outcome, AppendOutcome::Rejected { .. });
                events.add_if(refused, Event::AppendRefused);
                Ok(())
            }
        }
    }

    fn votes(
        self: &mut Arc<Self>,
        voter: NodeId,
        term: Term,
        candidate: NodeId,
    ) -> Result<(), Broken> {
        match self
            .votes
            .binary_search_by_key(&(voter, term), |(v, t, _)| (*v, *t))
        {
            Ok(at) => demand(self.votes[at].2 == candidate, Law::OneVote, || {
                let first = self.votes[at].2;
                format!("node {voter} votes in term {term} for {first}, and then for {candidate}")
            }),
            Err(at) => {
                Arc::make_mut(self)
                    .votes
                    .insert(at, (voter, term, candidate));
                Ok(())
            }
        }
    }

    fn leads(self: &mut Arc<Self>, node: &Node, events: &mut Events) -> Result<(), Broken> {
        let (id, term) = (node.id(), node.view.term);
        match self.leaders.binary_search_by_key(&term, |(term, _)| *term) {
            Ok(at) => {
                let other = self.leaders[at].1;
                return demand(other == id, Law::ElectionSafety, || {
                    format!("nodes {other} and {id} both lead term {term}")
                });
            }
            Err(at) => Arc::make_mut(self).leaders.insert(at, (term, id)),
        }
        events.add_if(self.leaders.len() == 2, Event::ElectedAgain);
        events.add_if(self.leaders.len() == 3, Event::ElectedThrice);
        events.add_if(node.view.configuration.is_joint(), Event::JointElected);
        self.complete(node)
    }

    /// A leader's commit index has moved, perhaps.
    fn commits(
        self: &mut Arc<Self>,
        nodes: &[Arc<Node>],
        leader: &Node,
        term: Term,
        events: &mut Events,
    ) -> Result<(), Broken> {
        let view = &leader.view;
        while self.last() < view.commit {
            let next = self.last().next();
            let Some(entry) = view.log.get(next) else {
                let by = format!(
                    "node {} calls {next} committed, which it has not",
                    leader.id()
                );
                return Err(Broken {
                    law: Law::CommittedIsDurable,
                    by,
                });
            };
            let has = |id: &NodeId| {
                let node = nodes.iter().find(|node| node.id() == *id);
                node.is_some_and(|node| node.disk.log.covers(entry))
            };
            let (c, id) = (&view.configuration, leader.id());
            let halves = majority(&c.voters, has) && majority(&c.voters_outgoing, has);
            demand(halves, Law::CommittedIsDurable, || {
                format!(
                    "node {id} calls {} committed, and no majority of {c} has it",
                    entry.id
                )
            })?;
            events.add(Event::Committed);
            events.add_if(entry.id.term < term, Event::OlderTermCommitted);
            self.commits_configuration(entry, events);
            let history = Arc::make_mut(self);
            history.committed.push(entry.clone());
            history.committed_in.push(term);
            for other in nodes.iter().filter(|node| node.view.role == Role::Leader) {
                self.complete(other)?;
            }
        }
        self.one_change(leader)?;
        let same = |entry: &Entry| entry.id.index > view.commit || view.log.covers(entry);
        demand(
            self.committed.iter().all(same),
            Law::StateMachineSafety,
            || {
                format!(
                    "node {} calls committed {:?}, and it is {:?}",
                    leader.id(),
                    view.log,
                    self.committed
                )
            },
        )
    }

    /// A leader has everything that leaders of older terms have committed.
    fn complete(&self, leader: &Node) -> Result<(), Broken> {
        let (id, term, log) = (leader.id(), leader.view.term, &leader.view.log);
        let older = self
            .committed
            .iter()
            .zip(&self.committed_in)
            .filter(|(_, by)| **by < term);
        let missing = older
            .map(|(entry, _)| entry)
            .find(|entry| !log.covers(entry));
        demand(missing.is_none(), Law::LeaderCompleteness, || {
            format!("node {id} leads term {term} without {missing:?}, which is committed")
        })
    }

    /// What is committed counts here, whether this leader knows it yet or not.
    fn one_change(&self, leader: &Node) -> Result<(), Broken> {
        let behind = leader
            .view
            .log
            .entries
            .iter()
            .filter(|entry| entry.id.index > self.last());
        let open = behind
            .filter(|entry| entry.kind == EntryKind::Configuration)
            .count();
        demand(open <= 1, Law::OneChange, || {
            let id = leader.id();
            format!("the log of leader {id} has {open} configurations that are not committed")
        })
    }

    fn commits_configuration(&self, entry: &Entry, events: &mut Events) {
        if entry.kind != EntryKind::Configuration {
            return;
        }
        let Ok(next) = Configuration::decode(&entry.data) else {
            return;
        };
        let before = self.configuration_at(self.last());
        events.add_if(next.is_joint(), Event::JointCommitted);
        events.add_if(before.is_joint() && !next.is_joint(), Event::JointLeft);
        let mut added = next.voters.iter().filter(|id| !before.voters.contains(*id));
        events.add_if(added.next().is_some(), Event::VoterAdded);
        let mut promoted = next.voters.iter().filter(|id| before.joining.contains(*id));
        events.add_if(promoted.next().is_some(), Event::LearnerPromoted);
    }

    fn snapshot(&self, id: NodeId, snapshot: &SnapshotMeta) -> Result<(), Broken> {
        let last = snapshot.last;
        let entry = self.get(last.index).map(|entry| entry.id);
        demand(entry == Some(last), Law::SnapshotIsCommitted, || {
            format!("the snapshot of node {id} ends at {last}, and committed is {entry:?}")
        })?;
        let configuration = self.configuration_at(last.index);
        demand(
            Configuration::clone(&snapshot.configuration) == configuration,
            Law::SnapshotIsCommitted,
            || {
                let has = &snapshot.configuration;
                format!(
                    "the snapshot of node {id} through {last} has {has}, and there it was {configuration}"
                )
            },
        )
    }

    fn answered(
        self: &mut Arc<Self>,
        node: &Node,
        out: &Outcome,
        events: &mut Events,
    ) -> Result<(), Broken> {
        for (read, index) in &out.answered {
            let Some(at) = self.reads.iter().position(|(id, ..)| id == read) else {
                continue;
            };
            let (_, asked, floor) = Arc::make_mut(self).reads.remove(at);
            demand(*index >= floor, Law::ReadsLinearizable, || {
                format!(
                    "node {asked} answers a read at {index}, and {floor} was committed when it came"
                )
            })?;
            let leads = node.view.role == Role::Leader;
            events.add(if leads {
                Event::ReadByLeader
            } else {
                Event::ReadByFollower
            });
            let first = self.leaders.first().map(|(term, _)| *term);
            events.add_if(
                first.is_some_and(|first| node.view.term > first),
                Event::ReadInLaterTerm,
            );
        }
        for read in &out.failed {
            Arc::make_mut(self).reads.retain(|(id, ..)| id != read);
            events.add(Event::ReadFailed);
        }
        Ok(())
    }
}
