//! A scene: how a model begins, what can happen in it, and how often.
//!
//! A model of one part of the protocol is one or several scenes, each exhausted by itself. A scene lets happen
//! what its part is about in every order, and the rest not at all or at once.

use raft_core::membership::{Change, Configuration};
use raft_core::{Config, NodeId, Role, Term};

use crate::action::Action;
use crate::bounds::Budget;
use crate::cluster::State;
use crate::disk::Disk;
use crate::law::{Broken, Event};
use crate::node::{Habits, Node};
use crate::packet::Body;
use crate::silence::{self, Silence};

/// What a scene takes off the network, once its receiver is durably in a later term than the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgets {
    /// Nothing: that the core heeds none of it is looked at as well.
    Nothing,
    /// Answers, which count in their own term only.
    StaleAnswers,
    /// Questions too, which would be answered with the new term: who is behind learns of it only from those
    /// who are in it.
    AllStale,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Scene {
    /// The model that it belongs to.
    pub model: &'static str,
    /// What it is about, in a few words.
    pub name: &'static str,
    /// Whether its bounds are the small ones.
    pub quick: bool,
    /// How many nodes there are.
    pub nodes: u64,
    /// Those that vote at first; the others wait until a leader tells them who belongs to the cluster.
    pub voters: &'static [u64],
    /// Those whose election timers may run out.
    pub candidates: &'static [u64],
    /// Those that may crash.
    pub mortals: &'static [u64],
    /// Those that take snapshots.
    pub savers: &'static [u64],
    /// Those that are asked for reads.
    pub readers: &'static [u64],
    /// No election begins from this term on.
    pub term_max: u64,
    /// How often what may happen.
    pub budget: Budget,
    /// How nodes behave.
    pub habits: Habits,
    /// Whether the first of several pending writes may become durable alone.
    pub syncs_first_alone: bool,
    /// Whether a crash may keep writes that were pending.
    pub crash_keeps: bool,
    /// Which messages from terms that their receivers have left for good are looked at no more.
    pub forgets: Forgets,
    /// What nobody hears.
    pub silence: Silence,
    /// Bytes of entries that a leader keeps in memory for its followers.
    pub tail_bytes_max: usize,
    /// Entries in one AppendEntries.
    pub append_entries_max: usize,
    /// The changes that may be asked for.
    pub changes: Vec<Change>,
    /// What has happened before the scene begins: each action with all that follows from it, but for what is
    /// not heard.
    pub prologue: Vec<(Action, Silence)>,
    /// What must happen somewhere.
    pub promises: Vec<Event>,
}

impl Scene {
    /// Three nodes that vote, and nothing that could happen.
    #[must_use]
    pub fn new(model: &'static str, name: &'static str) -> Self {
        Self {
            model,
            name,
            quick: false,
            nodes: 3,
            voters: &[1, 2, 3],
            candidates: &[1, 2, 3],
            mortals: &[1, 2, 3],
            savers: &[1, 2, 3],
            readers: &[1, 2, 3],
            term_max: 9,
            budget: Budget::default(),
            habits: Habits {
                pre_votes_granted: true,
                ..Habits::default()
            },
            syncs_first_alone: false,
            crash_keeps: false,
            forgets: Forgets::StaleAnswers,
            silence: silence::nothing,
            tail_bytes_max: 1 << 20,
            append_entries_max: 512,
            changes: Vec::new(),
            prologue: Vec::new(),
            promises: Vec::new(),
        }
    }

    /// The configuration before the first entry.
    #[must_use]
    pub fn initial(&self) -> Configuration {
        Configuration::of(self.voters.iter().copied().map(NodeId))
    }

    /// The nodes as they start, with empty disks.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = Result<Node, Broken>> {
        (1..=self.nodes).map(|id| {
            let mut config = Config::new(NodeId(id), []);
            if self.voters.contains(&id) {
                config.initial = self.initial();
            }
            config.heartbeat_ticks = 1;
            // No timer runs out by itself: a draw from so many is never so low.
            config.election_timeout_ticks_min = 10;
            config.election_timeout_ticks_max = u32::MAX;
            config.compaction_margin_entries = 0;
            config.compaction_hold_entries_max = 0;
            config.tail_bytes_max = self.tail_bytes_max;
            config.append_entries_max = self.append_entries_max;
            let disk = Disk {
                hasty: self.habits.hasty_disks,
                ..Disk::default()
            };
            Node::start(config, disk)
        })
    }

    /// What the prologue does next on its way to rest: disks first, then messages.
    pub(crate) fn settles(&self, state: &State) -> Option<Action> {
        let sync = state
            .nodes
            .iter()
            .find(|node| !node.disk.pending.is_empty());
        let sync = sync.map(|node| Action::Sync(node.id(), node.disk.pending.len()));
        let read = state.nodes.iter().find(|node| !node.reads.is_empty());
        let read = read.map(|node| Action::AnswerRead(node.id()));
        let deliver = || state.network.iter().next().cloned().map(Action::Deliver);
        sync.or(read).or_else(deliver)
    }

    /// Everything that can happen in `state`.
    pub(crate) fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for packet in state.network.iter() {
            actions.push(Action::Deliver(packet.clone()));
            let file = matches!(packet.body(), Body::Snapshot { .. });
            let message = matches!(packet.body(), Body::Message(_));
            if state.budget.duplicates > 0 && message {
                actions.push(Action::Duplicate(packet.clone()));
            }
            if state.budget.lost_snapshots > 0 && file {
                actions.push(Action::LoseSnapshot(packet.clone()));
            }
        }
        for node in &state.nodes {
            self.storage(state, node, actions);
            self.timers(state, node, actions);
            self.operators(state, node, actions);
        }
    }

    fn storage(&self, state: &State, node: &Node, actions: &mut Vec<Action>) {
        let (id, pending, left) = (node.id(), node.disk.pending.len(), &state.budget);
        if pending > 0 {
            actions.push(Action::Sync(id, pending));
        }
        if pending > 1 && self.syncs_first_alone {
            actions.push(Action::Sync(id, 1));
        }
        if left.crashes > 0 && self.mortals.contains(&id.0) {
            let kept = if self.crash_keeps { pending } else { 0 };
            actions.extend((0..=kept).map(|keep| Action::Crash(id, keep)));
        }
        if !node.reads.is_empty() {
            actions.push(Action::AnswerRead(id));
        }
        let newer = node.applied > node.disk.snapshot_last().index;
        if left.snapshots > 0 && newer && self.savers.contains(&id.0) {
            actions.push(Action::TakeSnapshot(id));
        }
    }

    fn timers(&self, state: &State, node: &Node, actions: &mut Vec<Action>) {
        let (id, left, leads) = (node.id(), &state.budget, node.view.role == Role::Leader);
        let elects = node.view.term < Term(self.term_max) && self.candidates.contains(&id.0);
        if left.campaigns > 0 && elects && !leads {
            actions.push(Action::Campaign(id));
        }
        if left.heartbeats > 0 && leads {
            actions.push(Action::Tick(id));
        }
    }

    fn operators(&self, state: &State, node: &Node, actions: &mut Vec<Action>) {
        let (id, left, leads) = (node.id(), &state.budget, node.view.role == Role::Leader);
        if left.reads > 0 && self.readers.contains(&id.0) {
            actions.push(Action::Read(id));
        }
        if !leads {
            return;
        }
        if left.proposals > 0 {
            actions.push(Action::Propose(id));
        }
        if left.changes > 0 {
            actions.extend((0..self.changes.len()).map(|which| Action::Change(id, which)));
        }
        if left.transfers > 0 && node.view.term < Term(self.term_max) {
            let others = node
                .view
                .configuration
                .voters
                .iter()
                .filter(|to| **to != id);
            actions.extend(others.map(|to| Action::Transfer(id, *to)));
        }
    }
}
