//! The cluster as a model: its states, what can happen in each, and what follows.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{Input, NodeId, ReadId, Role};
use stateright::{Model, Property};

use crate::action::Action;
use crate::bounds::Budget;
use crate::history::History;
use crate::law::{Broken, Event, Events, Law};
use crate::memo::Memo;
use crate::node::{Happening, Node};
use crate::packet::{Body, Network, Packet};
use crate::scene::Scene;

/// One model: a scene, and the steps that were worked out for it.
#[derive(Debug)]
pub struct Cluster {
    /// Its bounds and its beginning.
    pub scene: Scene,
    memo: Memo,
    begin: State,
}

/// Everything that there is at one moment.
#[derive(Clone)]
pub struct State {
    /// The nodes, in the order of their ids.
    pub nodes: Vec<Arc<Node>>,
    /// What is on its way.
    pub network: Network,
    /// What happened so far.
    pub history: Arc<History>,
    /// What may still happen.
    pub budget: Budget,
    /// What the last action brought about. No part of the state.
    events: Events,
    broken: Option<Arc<Broken>>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes
            && self.network == other.network
            && self.history == other.history
            && self.budget == other.budget
            && self.broken == other.broken
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.hash(state);
        self.network.hash(state);
        self.history.hash(state);
        self.budget.hash(state);
        self.broken.hash(state);
    }
}

impl State {
    /// The law that is broken.
    #[must_use]
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_deref()
    }

    /// What the last action brought about.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events
    }
}

impl Cluster {
    /// The model of `scene`.
    ///
    /// # Errors
    /// The scene's beginning cannot be played.
    pub fn new(scene: Scene) -> Result<Self, Broken> {
        let nodes: Result<Vec<_>, _> = scene.nodes().map(|node| node.map(Arc::new)).collect();
        let begin = State {
            nodes: nodes?,
            network: Network::default(),
            history: Arc::new(History::new(scene.initial())),
            budget: scene.budget,
            events: Events::default(),
            broken: None,
        };
        let mut cluster = Self {
            scene,
            memo: Memo::default(),
            begin,
        };
        cluster.play_prologue()?;
        Ok(cluster)
    }

    /// How many different nodes there were, and how many different steps of nodes.
    #[must_use]
    pub fn worked_out(&self) -> (usize, usize) {
        self.memo.len()
    }

    /// Plays what the scene says has happened before it begins, without loss and in order.
    fn play_prologue(&mut self) -> Result<(), Broken> {
        let silence = self.scene.silence;
        for (action, unheard) in self.scene.prologue.clone() {
            self.scene.silence = unheard;
            self.settle(Some(action))?;
        }
        self.scene.silence = silence;
        self.begin.budget = self.scene.budget;
        self.begin.events = Events::default();
        Ok(())
    }

    fn settle(&mut self, first: Option<Action>) -> Result<(), Broken> {
        let mut next = first;
        while let Some(action) = next {
            self.begin.budget = Budget::UNLIMITED;
            if let Some(state) = self.next_state(&self.begin, action.clone()) {
                self.begin = state;
            } else if let Action::Deliver(packet) = &action {
                self.begin.network.take(packet);
            }
            if let Some(broken) = self.begin.broken() {
                return Err(broken.clone());
            }
            next = self.scene.settles(&self.begin);
        }
        Ok(())
    }

    fn happening(&self, state: &State, action: &Action) -> (NodeId, Happening) {
        let (node, input) = match action {
            Action::Deliver(packet) | Action::Duplicate(packet) => {
                return (packet.to(), Happening::Receive(packet.clone()));
            }
            Action::LoseSnapshot(packet) => {
                let (to, peer) = (packet.from(), packet.to());
                let sent = Body::Sent {
                    to,
                    peer,
                    arrived: false,
                };
                return (to, Happening::Receive(Packet::new(sent)));
            }
            Action::Sync(node, count) => return (*node, Happening::Sync(*count)),
            Action::Crash(node, keep) => return (*node, Happening::Crash(*keep)),
            Action::AnswerRead(node) => return (*node, Happening::AnswerRead),
            Action::TakeSnapshot(node) => return (*node, Happening::TakeSnapshot),
            Action::Campaign(node) => (*node, Input::Campaign),
            Action::Tick(node) => (*node, Input::Tick),
            Action::Propose(node) => {
                let data = vec![b'a' + state.budget.proposals];
                (*node, Input::Propose(vec![Bytes::from(data)]))
            }
            Action::Change(node, which) => (
                *node,
                Input::ChangeMembership(self.scene.changes[*which].clone()),
            ),
            Action::Transfer(node, to) => (*node, Input::TransferLeadership { to: Some(*to) }),
            Action::Read(node) => (*node, Input::ReadIndex(read_id(state))),
        };
        (node, Happening::Step(input))
    }

    /// What the network, the budget and the history have of an action, beside the node that it happens to.
    fn account(&self, next: &mut State, action: &Action) -> bool {
        let budget = &mut next.budget;
        match action {
            Action::Deliver(packet) => {
                next.network.take(packet);
                if let Body::Snapshot { from, to, .. } = packet.body() {
                    let sent = Body::Sent {
                        to: *from,
                        peer: *to,
                        arrived: true,
                    };
                    next.network.send(Packet::new(sent));
                }
                true
            }
            Action::Duplicate(_) => Budget::spend(&mut budget.duplicates),
            Action::LoseSnapshot(packet) => {
                next.network.take(packet);
                Budget::spend(&mut budget.lost_snapshots)
            }
            Action::Crash(node, _) => {
                let reads = next.history.reads.iter().any(|(_, asked, _)| asked == node);
                if reads {
                    Arc::make_mut(&mut next.history)
                        .reads
                        .retain(|(_, asked, _)| asked != node);
                }
                Budget::spend(&mut budget.crashes)
            }
            Action::Campaign(_) => Budget::spend(&mut budget.campaigns),
            Action::Tick(_) => Budget::spend(&mut budget.heartbeats),
            Action::Propose(_) => Budget::spend(&mut budget.proposals),
            Action::TakeSnapshot(_) => Budget::spend(&mut budget.snapshots),
            Action::Change(..) => Budget::spend(&mut budget.changes),
            Action::Transfer(..) => Budget::spend(&mut budget.transfers),
            Action::Read(node) => {
                let read = (read_id(next), *node, next.history.last());
                Arc::make_mut(&mut next.history).reads.push(read);
                Budget::spend(&mut next.budget.reads)
            }
            Action::Sync(..) | Action::AnswerRead(_) => true,
        }
    }

    fn follow(&self, state: &State, action: &Action) -> Option<State> {
        let (node, happening) = self.happening(state, action);
        let at = node.0 as usize - 1;
        let outcome = self
            .memo
            .step(&state.nodes[at], &happening, &self.scene.habits);
        let mut next = state.clone();
        if !self.account(&mut next, action) {
            return None;
        }
        next.nodes[at] = Arc::clone(&outcome.node);
        let mut news = false;
        for packet in outcome
            .packets
            .iter()
            .filter(|packet| !(self.scene.silence)(packet))
        {
            news |= next.network.send(packet.clone());
        }
        let told = !outcome.answered.is_empty() || !outcome.failed.is_empty();
        let idle = !news && !told && outcome.broken.is_none() && outcome.node == state.nodes[at];
        let file =
            matches!(action, Action::Deliver(p) if matches!(p.body(), Body::Snapshot { .. }));
        if idle && !file {
            return None;
        }
        next.events = outcome.events;
        let result = match &outcome.broken {
            Some(broken) => Err(broken.clone()),
            None => {
                let (before, lies) = (&state.nodes[at], self.scene.habits.lies_overlooked);
                next.history.record(before, &next.nodes, at, &outcome, lies)
            }
        };
        match result {
            Ok(events) => next.events = events,
            Err(broken) => next.broken = Some(Arc::new(broken)),
        }
        self.name_events(state, &mut next, action);
        self.forget_spent(&mut next);
        Some(next)
    }

    fn name_events(&self, before: &State, next: &mut State, action: &Action) {
        let events = &mut next.events;
        match action {
            Action::Duplicate(_) => events.add(Event::Duplicated),
            Action::LoseSnapshot(_) => events.add(Event::SnapshotLost),
            Action::Deliver(packet) => {
                let node = &before.nodes[packet.to().0 as usize - 1];
                let file = matches!(packet.body(), Body::Snapshot { .. });
                let unwanted = node.digest() == next.nodes[packet.to().0 as usize - 1].digest();
                events.add_if(file && unwanted, Event::SnapshotRefused);
            }
            Action::Read(asked) => {
                let term = before.nodes[asked.0 as usize - 1].view.term;
                let leads = before.nodes[asked.0 as usize - 1].view.role == Role::Leader;
                let deposed = before
                    .history
                    .leaders
                    .iter()
                    .any(|(other, _)| *other > term);
                events.add_if(leads && deposed, Event::ReadOfDeposed);
            }
            _ => {}
        }
    }

    fn forget_spent(&self, next: &mut State) {
        let State { nodes, network, .. } = next;
        let forgets = self.scene.forgets;
        network.forget(|packet| {
            let receiver = &nodes[packet.to().0 as usize - 1];
            packet.is_spent(receiver.disk.hard_state.term, forgets)
        });
    }
}

/// The name of the next read.
fn read_id(state: &State) -> ReadId {
    ReadId(u64::from(state.budget.reads))
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin.clone()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            self.scene.actions(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.follow(state, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let promised = self.scene.promises.iter().map(|event| event.property());
        Law::properties().into_iter().chain(promised).collect()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            let (view, disk) = (&node.view, &node.disk);
            write!(f, "node {}: {} of term {}", node.id(), view.role, view.term)?;
            write!(
                f,
                ", follows {:?}, commit {}",
                view.leader.map(|id| id.0),
                view.commit
            )?;
            write!(
                f,
                ", applied {}, log behind {}:",
                node.applied, view.log.start
            )?;
            for entry in &view.log.entries {
                let durable = if disk.log.get(entry.id.index) == Some(entry) {
                    ""
                } else {
                    "?"
                };
                write!(f, " {}{durable}", entry.id)?;
            }
            write!(f, "; {}", view.configuration)?;
            writeln!(
                f,
                "; on disk {:?}, {} writes pending",
                disk.hard_state,
                disk.pending.len()
            )?;
            if !view.matched.is_empty() {
                writeln!(f, "  has of its peers {:?}", view.matched)?;
            }
        }
        for packet in self.network.iter() {
            writeln!(f, "on its way: {packet:?}")?;
        }
        let committed: Vec<_> = self
            .history
            .committed
            .iter()
            .map(|e| e.id.to_string())
            .collect();
        writeln!(f, "committed: {}", committed.join(" "))?;
        writeln!(f, "leaders: {:?}", self.history.leaders)?;
        writeln!(f, "left: {:?}", self.budget)?;
        writeln!(f, "happened: {:?}", self.events)?;
        match &self.broken {
            Some(broken) => writeln!(f, "BROKEN: {}: {}", broken.law, broken.by),
            None => Ok(()),
        }
    }
}
