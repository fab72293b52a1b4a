//! A cluster in virtual time: nodes, network, clients and operators, driven by one [`Plan`].
//!
//! A run has two parts: the rough one, in which the [`Fate`] strikes, and the ending, in which what can heal
//! heals and the cluster must converge (see `ending`).

use raft_core::membership::Configuration;
use raft_core::{Envelope, Message, NodeId};

use crate::broken::{Broken, Check};
use crate::client::Client;
use crate::events::{Counts, Event};
use crate::fate::{Fate, TICK};
use crate::history::History;
use crate::network::Network;
use crate::node::{Life, Node};
use crate::random::Random;
use crate::sets::{IDS_MAX, Set, futures};
use crate::time::{Frame, Happening, Plan};

/// Nodes that may exist at the same time.
pub(crate) const NODES_MAX: usize = 7;

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) fate: Fate,
    pub(crate) now: u64,
    pub(crate) plan: Plan,
    /// The node with id n stands at n - 1. Ids are never used again.
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) history: History,
    pub(crate) clients: Vec<Client>,
    pub(crate) counts: Counts,
    /// Steps of all cores together.
    pub(crate) steps: u64,
    /// One number for all that happened.
    pub(crate) digest: u64,
    pub(crate) trace: bool,
    /// Fate strikes, and clients begin new operations.
    pub(crate) rough: bool,
    /// Nodes that stay down in the ending.
    pub(crate) down_for_good: Set,
    /// In the ending: leaders are given something to commit.
    pub(crate) wants_proposals: bool,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Result<Self, Broken> {
        let mut random = Random::new(seed);
        let fate = Fate::draw(&mut random);
        let initial = Configuration::of((1..=fate.nodes).map(NodeId));
        let mut world = Self {
            clients: (0..fate.clients).map(Client::new).collect(),
            random,
            now: 0,
            plan: Plan::default(),
            nodes: Vec::new(),
            network: Network::new(),
            history: History::new(initial.clone()),
            counts: Counts::default(),
            steps: 0,
            digest: 0,
            trace,
            rough: true,
            down_for_good: Set::default(),
            wants_proposals: false,
            fate,
        };
        if trace {
            println!("theme {:?}, {:#?}", world.fate.theme, world.fate);
        }
        for _ in 0..world.fate.nodes {
            let node = world.add_node(initial.clone());
            world.start(node)?;
        }
        for client in 0..world.clients.len() {
            let at = world.random.below(20 * TICK);
            world
                .plan
                .at(at, Happening::ClientWakes { client, attempt: 0 });
        }
        world.plan.at(TICK, Happening::Strike);
        Ok(world)
    }

    /// A node with an empty disk, which does not run yet.
    pub(crate) fn add_node(&mut self, initial: Configuration) -> usize {
        let id = NodeId(self.nodes.len() as u64 + 1);
        let seed = self.random.next();
        let (slowest, fastest) = self.fate.rates;
        let rate = match self.fate.hunts {
            true => self.random.pick(&[slowest, fastest, fastest]),
            false => self.random.between(slowest, fastest),
        };
        let own_disk = self.random.permille(self.fate.own_disk);
        let mut config = self.fate.config(id, initial, seed);
        config.start = 0;
        self.nodes.push(Node {
            id,
            config,
            life: Life::Alive,
            disk: Default::default(),
            files: Vec::new(),
            own_disk: own_disk.then(Default::default),
            run: None,
            rate,
            stalled_until: 0,
            fsync_fails: false,
            is_full: false,
            paused_until: None,
            waiting: Default::default(),
            claimed_term: raft_core::Term(0),
            was_removed: false,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn may_add_node(&self) -> bool {
        let alive = self.nodes.iter().filter(|node| node.life == Life::Alive);
        alive.count() < NODES_MAX && self.nodes.len() < IDS_MAX
    }

    pub(crate) fn count(&mut self, event: Event) {
        self.counts.add(event);
        if self.trace {
            self.tell(format_args!("* {}", event.words()));
        }
    }

    pub(crate) fn tell(&self, words: std::fmt::Arguments<'_>) {
        println!("{:9.3}  {words}", self.now as f64 / TICK as f64);
    }

    /// Lets the next thing happen.
    pub(crate) fn go_on(&mut self) -> Check {
        let Some((at, what)) = self.plan.next() else {
            return Ok(());
        };
        self.now = at;
        self.happen(what)
    }

    pub(crate) fn happen(&mut self, what: Happening) -> Check {
        if let Some(node) = what.process()
            && self.nodes[node].paused_until.is_some()
        {
            // A clock that nobody reads does not tick: `Paused` tells how long it was.
            if !matches!(what, Happening::Tick { .. }) {
                self.nodes[node].waiting.push_back(what);
            }
            return Ok(());
        }
        if let Some((node, start)) = what.bound_to()
            && !self.runs(node, start)
        {
            return Ok(());
        }
        match what {
            Happening::Tick { node, clock, .. } => self.tick(node, clock),
            Happening::Arrive(frame) => self.arrive(*frame),
            Happening::Sync { node, .. } => self.sync(node),
            Happening::Persisted { node, through, .. } => self.persisted(node, through),
            Happening::ReadLog {
                node,
                request,
                from,
                through,
                bytes_max,
                ..
            } => self.read_log(node, request, from, through, bytes_max),
            Happening::Apply { node, .. } => self.apply(node),
            Happening::SnapshotWritten { node, meta, .. } => self.snapshot_written(node, meta),
            Happening::SnapshotArrives(transfer) => self.snapshot_arrives(transfer),
            Happening::SnapshotStored(transfer) => self.snapshot_stored(*transfer),
            Happening::SnapshotSent {
                node, to, arrived, ..
            } => self.snapshot_sent(node, to, arrived),
            Happening::Disconnected {
                node,
                peer,
                refused,
                ..
            } => self.disconnected(node, peer, refused),
            Happening::Resume { node, .. } => self.resume(node),
            Happening::Start { node } => self.start(node),
            Happening::Request {
                node,
                client,
                attempt,
            } => self.request(node, client, attempt),
            Happening::ClientWakes { client, attempt } => self.client_wakes(client, attempt),
            Happening::AnswerRead { node, ready, .. } => self.answer_read(node, ready),
            Happening::Strike => {
                self.plan.at(self.now + TICK, Happening::Strike);
                self.strike()
            }
        }
    }

    /// Whether the run that began as number `start` of the node still runs.
    pub(crate) fn runs(&self, node: usize, start: u64) -> bool {
        self.nodes[node].is_up() && self.nodes[node].config.start == start
    }

    /// Puts a message on the network, which may lose it.
    pub(crate) fn transmit(&mut self, from: NodeId, to: NodeId, message: Message) {
        if self.network.is_cut(from, to) || self.random.permille(self.fate.loss) {
            self.counts.add(Event::MessageLost);
            return;
        }
        let twice = self.random.permille(self.fate.duplication);
        let number = {
            let link = self.network.link(from, to);
            link.sent += 1;
            link.sent
        };
        let frame = Box::new(Frame {
            envelope: Envelope { from, to, message },
            sender_start: self.nodes[from.0 as usize - 1].config.start,
            receiver_start: self.nodes[to.0 as usize - 1].config.start,
            connection: self.network.link(from, to).connection,
            number,
        });
        if twice {
            self.counts.add(Event::MessageTwice);
            let at = self.arrival(from, to);
            self.plan.at(at, Happening::Arrive(frame.clone()));
        }
        let at = self.arrival(from, to);
        self.plan.at(at, Happening::Arrive(frame));
    }

    fn arrival(&mut self, from: NodeId, to: NodeId) -> u64 {
        let (least, most) = self.fate.delay;
        let mut delay = self.random.between(least, most);
        if self.random.permille(self.fate.straggler) {
            delay *= self.random.between(2, 10);
        }
        let ordered = self.fate.ordered;
        let at = self.now + delay;
        let link = self.network.link(from, to);
        if !ordered {
            return at;
        }
        link.busy_until = link.busy_until.max(at);
        link.busy_until
    }

    /// A message is at its receiver's door.
    fn arrive(&mut self, frame: Frame) -> Check {
        let (from, to) = (frame.envelope.from, frame.envelope.to);
        let node = to.0 as usize - 1;
        let link = self.network.link(from, to);
        if link.connection != frame.connection || !self.nodes[node].is_up() {
            return Ok(());
        }
        let overtaken = link.arrived > frame.number;
        link.arrived = link.arrived.max(frame.number);
        if overtaken {
            self.counts.add(Event::MessageOvertaken);
        }
        if self.nodes[from.0 as usize - 1].config.start != frame.sender_start {
            self.count(Event::FrameOfEarlierRun);
        }
        if self.nodes[node].config.start != frame.receiver_start {
            self.count(Event::FrameToLaterRun);
        }
        self.receive(node, frame.envelope)
    }

    /// The nodes that are there to vote: neither wiped nor down for good.
    pub(crate) fn electorate(&self) -> Set {
        let alive = self.nodes.iter().filter(|node| node.life != Life::Wiped);
        Set::of(alive.map(|node| &node.id)).minus(self.down_for_good)
    }

    /// Whether those in `present` decide in every configuration that may come into effect by itself.
    pub(crate) fn is_tolerable(&self, present: Set) -> bool {
        let mut all = self.history.relevant_configurations().flat_map(futures);
        all.all(|quorums| quorums.voters() == Set::default() || quorums.decide(present))
    }
}
