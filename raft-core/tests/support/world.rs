//! A cluster under a random, seeded fate: virtual time, a lossy network, disks that lag and crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft_core::{
    Config, Effect, Entry, Envelope, Input, LogId, LogIndex, Message, NodeId, Raft, RequestId,
    Role, Term, WriteId,
};

use super::disk::Disk;
use super::fate::{Fate, Random};
use super::history::History;

struct Node {
    config: Config,
    disk: Disk,
    raft: Option<Raft>,
    /// The log as the node itself sees it.
    log: Vec<LogId>,
    handed_out: LogIndex,
    commit: LogIndex,
    term: Term,
    reads: Vec<(u64, RequestId, LogIndex, LogIndex, usize)>,
    /// Answers of the disk on their way to the node, with the time at which they arrive.
    answers: VecDeque<(u64, WriteId)>,
    /// Until then the disk does nothing.
    disk_stuck_until: u64,
}

/// What happened how often, so that a test can see that it tests something.
pub(crate) type Events = BTreeMap<&'static str, u64>;

pub(crate) struct World {
    random: Random,
    fate: Fate,
    now: u64,
    nodes: BTreeMap<NodeId, Node>,
    network: BTreeMap<(u64, u64), Envelope>,
    sent: u64,
    cuts: BTreeSet<(NodeId, NodeId)>,
    proposed: u64,
    history: History,
    pub(crate) events: Events,
    trace: bool,
}

const HEARTBEAT: u32 = 3;
const TIMEOUT_MIN: u32 = 12;
const TIMEOUT_MAX: u32 = 24;

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut random = Random(seed);
        let fate = Fate::draw(&mut random);
        let count = random.below(5) + 1;
        let mut world = Self {
            random,
            fate,
            now: 0,
            nodes: BTreeMap::new(),
            network: BTreeMap::new(),
            sent: 0,
            cuts: BTreeSet::new(),
            proposed: 0,
            history: History::default(),
            events: Events::new(),
            trace,
        };
        for id in (1..=count).map(NodeId) {
            world.add(id, count);
        }
        world
    }

    fn add(&mut self, id: NodeId, count: u64) {
        let random = &mut self.random;
        let mut config = Config::new(id, (1..=count).map(NodeId));
        config.seed = random.next();
        config.heartbeat_ticks = HEARTBEAT;
        config.election_timeout_ticks_min = TIMEOUT_MIN;
        config.election_timeout_ticks_max = TIMEOUT_MAX;
        config.append_entries_max = random.pick(&[1, 2, 5, 100]);
        config.append_bytes_max = random.pick(&[1, 100, 10_000]);
        config.inflight_max = random.pick(&[1, 2, 8]);
        config.inflight_bytes_max = random.pick(&[1, 200, 100_000]);
        config.tail_bytes_max = random.pick(&[0, 200, 100_000]);
        config.uncommitted_bytes_max = random.pick(&[300, 100_000]);
        let node = Node {
            config,
            disk: Disk::default(),
            raft: None,
            log: Vec::new(),
            handed_out: LogIndex::ZERO,
            commit: LogIndex::ZERO,
            term: Term(0),
            reads: Vec::new(),
            answers: VecDeque::new(),
            disk_stuck_until: 0,
        };
        self.nodes.insert(id, node);
        self.restart(id);
    }

    fn count(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn restart(&mut self, id: NodeId) {
        let tail = self.random.pick(&[0, 3, usize::MAX]);
        let node = self.node(id);
        node.log = node.disk.log.iter().map(|entry| entry.id).collect();
        node.handed_out = LogIndex::ZERO;
        node.commit = LogIndex::ZERO;
        node.term = node.disk.hard_state.term;
        node.raft = Some(Raft::new(node.config.clone(), node.disk.recover(tail)).unwrap());
    }

    fn crash(&mut self, id: NodeId) {
        let pending = self.node(id).disk.pending().len() as u64;
        let keep = self.random.below(pending + 1);
        if keep < pending {
            self.count("a crash lost writes");
        }
        if keep > 0 {
            self.count("a crash kept unanswered writes");
        }
        let node = self.node(id);
        node.raft = None;
        node.reads.clear();
        node.answers.clear();
        node.disk.crash(keep as usize);
    }

    /// Lives through `ticks` of a rough fate.
    pub(crate) fn suffer(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.strike();
            self.turn();
        }
    }

    fn strike(&mut self) {
        let Fate {
            crash,
            cut,
            stuck_disk,
            ..
        } = self.fate;
        let ids = self.ids();
        for id in &ids {
            let down = self.node(*id).raft.is_none();
            if down && self.random.permille(60) {
                self.restart(*id);
            } else if !down && self.random.permille(crash) {
                self.crash(*id);
            }
            if self.random.permille(stuck_disk) {
                self.node(*id).disk_stuck_until = self.now + self.random.below(60);
            }
            if self.random.permille(2) {
                self.step(*id, Input::Campaign);
            }
            let peer = self.random.pick(&ids);
            if self.random.permille(5) {
                self.step(*id, Input::PeerUnreachable(peer));
            }
            if peer != *id && self.random.permille(cut) {
                self.cuts.insert((*id, peer));
                if self.random.permille(500) {
                    self.cuts.insert((peer, *id));
                }
            }
        }
        if self.random.permille(cut) {
            self.isolate(&ids);
        }
        if self.random.permille(30) {
            self.cuts.clear();
        }
    }

    /// Cuts off a leader, or whoever thinks that it leads: what it appends now will be overwritten.
    fn isolate(&mut self, ids: &[NodeId]) {
        let leads = |id: &&NodeId| {
            let raft = self.nodes[*id].raft.as_ref();
            raft.is_some_and(|raft| raft.role() == Role::Leader)
        };
        let leaders: Vec<NodeId> = ids.iter().filter(leads).copied().collect();
        if leaders.is_empty() {
            return;
        }
        let leader = self.random.pick(&leaders);
        for id in ids.iter().filter(|id| **id != leader) {
            self.cuts.insert((leader, *id));
            self.cuts.insert((*id, leader));
        }
        self.propose(leader);
    }

    /// One tick of virtual time.
    fn turn(&mut self) {
        self.now += 1;
        while let Some(entry) = self.network.first_entry()
            && entry.key().0 <= self.now
        {
            let envelope = entry.remove();
            self.step(envelope.to, Input::Received(envelope));
        }
        for id in self.ids() {
            self.turn_disk(id);
            if self.random.permille(200) {
                self.propose(id);
            }
            if self.random.permille(950) {
                self.step(id, Input::Tick);
            }
        }
    }

    fn propose(&mut self, id: NodeId) {
        let mut commands = Vec::new();
        for _ in 0..=self.random.below(4) {
            self.proposed += 1;
            commands.push(Bytes::from(self.proposed.to_string()));
        }
        self.step(id, Input::Propose(commands));
    }

    fn turn_disk(&mut self, id: NodeId) {
        let now = self.now;
        if self.node(id).raft.is_none() || self.node(id).disk_stuck_until > now {
            return;
        }
        if self.random.permille(700) {
            let count = self.random.pick(&[1, 2, usize::MAX]);
            self.sync(id, count);
        }
        while let Some((at, through)) = self.node(id).answers.front().copied()
            && at <= now
        {
            self.node(id).answers.pop_front();
            self.step(id, Input::Persisted { through });
        }
        let reads = std::mem::take(&mut self.node(id).reads);
        let (due, later) = reads.into_iter().partition(|read| read.0 <= now);
        self.node(id).reads = later;
        for (_, request, from, through, bytes_max) in due {
            let result = self.node(id).disk.read(from, through, bytes_max);
            self.step(id, Input::EntriesRead { request, result });
        }
    }

    fn sync(&mut self, id: NodeId, count: usize) {
        let before = self.node(id).disk.hard_state.term;
        let Some((through, released)) = self.node(id).disk.sync(count) else {
            return;
        };
        assert!(
            self.node(id).disk.hard_state.term >= before,
            "a term went back"
        );
        for (to, message) in released {
            let disk = &self.nodes[&id].disk;
            self.history.released(id, to, &message, disk);
            self.transmit(id, to, message.into());
        }
        let at = self.now + self.random.below(3);
        self.node(id).answers.push_back((at, through));
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, message: Message) {
        if self.cuts.contains(&(from, to)) || self.random.permille(self.fate.loss) {
            return;
        }
        let copies = 1 + u64::from(self.random.permille(self.fate.duplication));
        for _ in 0..copies {
            self.sent += 1;
            let at = self.now + 1 + self.random.below(self.fate.delay_max);
            let message = message.clone();
            let envelope = Envelope { from, to, message };
            self.network.insert((at, self.sent), envelope);
        }
    }

    fn step(&mut self, id: NodeId, input: Input) {
        let Some(raft) = &mut self.node(id).raft else {
            return;
        };
        let words = format!("{input:?}");
        let effects = raft.step(input);
        if self.trace {
            println!("{:5} {id} {words}", self.now);
        }
        self.watch_commit(id);
        for effect in effects {
            if self.trace {
                println!("        {effect:?}");
            }
            self.carry_out(id, effect);
        }
        self.check(id);
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Persist(persist) => {
                if let Some(from) = persist.truncate_from {
                    self.count("a conflicting suffix was cut");
                    self.node(id).log.truncate(from.prev().0 as usize);
                }
                for entry in persist.append.iter() {
                    self.append(id, entry);
                }
                self.node(id).disk.write(persist);
            }
            Effect::Send { to, message } => self.transmit(id, to, message.into()),
            Effect::Commit(commit) => {
                let node = &self.nodes[&id];
                self.history
                    .handed_out(id, node.handed_out, &commit, &node.disk);
                self.node(id).handed_out = commit.through;
            }
            Effect::Read {
                request,
                from,
                through,
                bytes_max,
            } => {
                self.count("a follower was fed from disk");
                let at = self.now + self.random.below(self.fate.read_delay_max);
                self.node(id)
                    .reads
                    .push((at, request, from, through, bytes_max));
            }
            Effect::RoleChanged {
                role: Role::Leader,
                term,
                ..
            } => {
                // The entry of its own term is in its log by now.
                let log = self.nodes[&id].log.clone();
                self.history.became_leader(id, term, &log);
            }
            Effect::RoleChanged { role, .. } => self.count(match role {
                Role::Candidate => "a candidate stood",
                Role::PreCandidate => "a pre-vote was asked",
                _ => "a follower found a leader or a term",
            }),
            Effect::Rejected(_) => self.count("a proposal was refused"),
            Effect::Appended { .. } => self.count("a proposal was appended"),
            Effect::Ignored { from, reason } => panic!("{id} ignores {from}: {reason}"),
            Effect::Halt(violation) => panic!("{id} halts: {violation}"),
        }
    }

    fn append(&mut self, id: NodeId, entry: &Entry) {
        let node = self.nodes.get_mut(&id).unwrap();
        let before = node.log.last().copied().unwrap_or(LogId::ZERO);
        assert_eq!(before.index.next(), entry.id.index, "{id} leaves a gap");
        node.log.push(entry.id);
        let status = node.raft.as_ref().map(Raft::status).unwrap();
        self.history.appended(id, before, entry);
        // A node that was elected in this very step is announced behind this effect.
        let elected = self.history.leads(id, status.term);
        if status.role == Role::Leader && elected {
            self.history.leader_appended(status.term, entry.id);
        }
    }

    /// Sees a leader's commit index move, before anything of it is handed out.
    fn watch_commit(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let status = node.raft.as_ref().map(Raft::status).unwrap();
        assert!(status.commit >= node.commit, "{id}'s commit went back");
        let moved = status.commit > node.commit;
        node.commit = status.commit;
        if moved && status.role == Role::Leader {
            let holders = |entry: LogId| {
                let has = |node: &&Node| node.disk.term_at(entry.index) == Some(entry.term);
                self.nodes.values().filter(has).count()
            };
            let majority = self.nodes.len() / 2 + 1;
            self.history
                .leader_committed(status.term, status.commit, majority, holders);
        }
    }

    /// What must hold of a node after each step.
    fn check(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let raft = node.raft.as_ref().unwrap();
        raft.invariants().unwrap();
        let status = raft.status();
        assert!(status.term >= node.term, "{id}'s term went back");
        assert_eq!(status.last, node.log.last().copied().unwrap_or(LogId::ZERO));
        assert!(status.durable.0 <= node.disk.log.len() as u64);
        node.term = status.term;
    }

    /// Everything heals. It must converge, commit something new, and then rest.
    pub(crate) fn recover(&mut self) {
        self.fate = Fate::CALM;
        self.cuts.clear();
        for id in self.ids() {
            self.node(id).disk_stuck_until = 0;
            if self.node(id).raft.is_none() {
                self.restart(id);
            }
        }
        let goal = self.history.committed() + 1;
        // Elections first; then entries may go to a follower one at a time.
        let lag = self.nodes.values().map(|node| node.log.len() as u64).max();
        let limit = self.now + 20 * u64::from(TIMEOUT_MAX) + 12 * lag.unwrap_or(0);
        while !self.converged(goal) {
            assert!(self.now < limit, "no convergence: {:#?}", self.statuses());
            self.turn();
        }
        let terms = self.terms();
        for _ in 0..5 * TIMEOUT_MAX {
            self.turn();
        }
        assert_eq!(terms, self.terms(), "an election without a reason");
        self.events.insert("leaders", self.history.leaders() as u64);
        self.events
            .insert("entries committed", self.history.committed());
    }

    /// Whether all nodes follow one leader and have handed out `goal`.
    fn converged(&self, goal: u64) -> bool {
        let statuses = self.statuses();
        let leader = statuses[0].leader;
        leader.is_some()
            && statuses
                .iter()
                .all(|s| s.leader == leader && s.handed_out.0 >= goal)
    }

    fn statuses(&self) -> Vec<raft_core::Status> {
        let rafts = self.nodes.values().filter_map(|node| node.raft.as_ref());
        rafts.map(Raft::status).collect()
    }

    fn terms(&self) -> Vec<Term> {
        self.statuses().iter().map(|status| status.term).collect()
    }
}
