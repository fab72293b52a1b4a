//! One node: the shipped core, a disk, and what its caller would hold.
//!
//! What a node does with an input depends on nothing but the node and the input, so a step is worked out once
//! and shared by all states of the cluster in which it happens (see `memo`). What a step says to the rest of
//! the cluster is its [`Outcome`].

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use raft_core::{
    Config, Effect, Entry, Envelope, Input, LogIndex, Message, NodeId, OpenMessage, PreVoteResponse,
    Raft, ReadId, RequestId, Role, SnapshotMeta, StepDown, Term, membership::Configuration,
};

use crate::disk::{Disk, Log};
use crate::law::{Broken, Event, Events, Law, demand};
use crate::packet::{Body, Packet, digest};

/// How all nodes of a model behave, beside the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Writes are durable at the end of the step that began them.
    pub syncs_at_once: bool,
    /// Pre-votes are granted on the spot, by everybody, whatever they know: any node may campaign at any time.
    pub pre_votes_granted: bool,
    /// See [`Disk::hasty`].
    pub hasty_disks: bool,
    /// That a message claims what is not durable is overlooked, to see what comes of it. For tests.
    pub lies_overlooked: bool,
}

/// What happens to one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// A packet arrives.
    Receive(Packet),
    /// The caller of the core tells it something.
    Step(Input),
    /// The disk makes its first writes durable, so many.
    Sync(usize),
    /// The node crashes, finds the first writes that were pending, so many, and starts again.
    Crash(usize),
    /// The oldest read of the log is answered.
    AnswerRead,
    /// A snapshot of what is applied is durable.
    TakeSnapshot,
}

/// What the node looks like from outside, worked out once.
#[derive(Clone, Debug)]
pub struct View {
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it follows.
    pub leader: Option<NodeId>,
    /// How far it calls the log committed.
    pub commit: LogIndex,
    /// The configuration in effect.
    pub configuration: Configuration,
    /// Where the leader has its peers, if it leads: what they have acknowledged.
    pub matched: Vec<(NodeId, LogIndex)>,
    /// Its log, with what is not durable yet.
    pub log: Log,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// The core.
    pub raft: Raft,
    /// Its disk.
    pub disk: Disk,
    /// How far its state machine is. The state itself is the committed log up to here.
    pub applied: LogIndex,
    /// Reads of the log that are not answered.
    pub reads: Vec<(RequestId, LogIndex, LogIndex, usize)>,
    /// What it looks like from outside.
    pub view: View,
    config: Config,
    digest: u64,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

/// What a step of one node means for the others, and for the history.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The node afterwards.
    pub node: Arc<Node>,
    /// What it sent.
    pub packets: Vec<Packet>,
    /// The entries that it applied, in order.
    pub applied: Vec<Entry>,
    /// The snapshots that it took or was restored from.
    pub snapshots: Vec<SnapshotMeta>,
    /// The reads that were answered, with the index that they must wait for.
    pub answered: Vec<(ReadId, LogIndex)>,
    /// The reads that failed.
    pub failed: Vec<ReadId>,
    /// What happened.
    pub events: Events,
    /// The law that was broken.
    pub broken: Option<Broken>,
}

/// A step that is being worked out.
struct Doing<'a> {
    node: Node,
    habits: &'a Habits,
    pre_votes: Vec<(NodeId, Term)>,
    out: Outcome,
}

impl Node {
    /// A node that starts from `disk`.
    ///
    /// # Errors
    /// The core refuses the configuration, or what the disk holds.
    pub fn start(config: Config, disk: Disk) -> Result<Self, Broken> {
        let raft = Raft::new(config.clone(), disk.recover())
            .map_err(|error| Broken { law: Law::Invariants, by: error.to_string() })?;
        let applied = disk.snapshot_last().index;
        let view = View::of(&raft, &disk);
        let mut node = Self { raft, disk, applied, reads: Vec::new(), view, config, digest: 0 };
        node.settle();
        Ok(node)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Stands for all that it is.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Works out what follows from `happening`.
    #[must_use]
    pub fn step(&self, happening: &Happening, habits: &Habits) -> Outcome {
        let out = Outcome {
            node: Arc::new(self.clone()),
            packets: Vec::new(),
            applied: Vec::new(),
            snapshots: Vec::new(),
            answered: Vec::new(),
            failed: Vec::new(),
            events: Events::default(),
            broken: None,
        };
        let mut doing = Doing { node: self.clone(), habits, pre_votes: Vec::new(), out };
        let done = catch_unwind(AssertUnwindSafe(|| {
            doing.happen(happening).and_then(|()| doing.finish())?;
            doing.node.settle();
            Ok(())
        }));
        doing.out.broken = match done {
            Ok(result) => result.err(),
            Err(panic) => Some(Broken { law: Law::NoPanic, by: words_of(&*panic) }),
        };
        if doing.out.broken.is_none() {
            doing.look_back(self);
        }
        doing.out.node = Arc::new(doing.node);
        doing.out
    }

    fn settle(&mut self) {
        self.view = View::of(&self.raft, &self.disk);
        self.digest =
            digest(&(&self.raft, &self.disk, self.applied, &self.reads, self.config.start));
    }
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    let fixed = || panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    owned.or_else(fixed).unwrap_or_default()
}

impl View {
    fn of(raft: &Raft, disk: &Disk) -> Self {
        let status = raft.status();
        Self {
            role: status.role,
            term: status.term,
            leader: status.leader,
            commit: status.commit,
            configuration: Configuration::clone(&status.configuration),
            matched: status.peers.iter().map(|peer| (peer.id, peer.matched)).collect(),
            log: disk.log_with_pending(),
        }
    }
}

impl Doing<'_> {
    fn happen(&mut self, happening: &Happening) -> Result<(), Broken> {
        match happening {
            Happening::Receive(packet) => self.receive(packet),
            Happening::Step(input) => self.feed(input.clone()),
            Happening::Sync(count) => self.sync(*count),
            Happening::Crash(keep) => self.crash(*keep),
            Happening::AnswerRead => {
                let (request, from, through, bytes_max) = self.node.reads.remove(0);
                let result = self.node.disk.read(from, through, bytes_max);
                let event = if result.is_ok() { Event::ReadFromDisk } else { Event::ReadCompacted };
                self.out.events.add(event);
                self.feed(Input::EntriesRead { request, result })
            }
            Happening::TakeSnapshot => {
                let taken = self.node.raft.snapshot_at(self.node.applied);
                let Some(meta) = taken else { return Ok(()) };
                self.out.snapshots.push(meta.clone());
                self.feed(Input::SnapshotTaken(meta))
            }
        }
    }

    fn receive(&mut self, packet: &Packet) -> Result<(), Broken> {
        match packet.body() {
            Body::Message(envelope) => {
                self.grow_tired(envelope)?;
                let hears = self.node.raft.leader().is_some();
                self.feed(Input::Received(envelope.clone()))?;
                if let Message::Durable(raft_core::DurableMessage::RequestVote(m)) = &envelope.message {
                    let term = self.node.raft.term();
                    let gave = self.node.raft.status().voted_for == Some(envelope.from);
                    let gave = gave && term == m.term;
                    self.out.events.add_if(gave && m.transfer && hears, Event::TransferVote);
                    let own = &self.node.raft.status().configuration;
                    self.out.events.add_if(gave && !own.votes(self.node.id()), Event::UnawareVote);
                }
                Ok(())
            }
            Body::Snapshot { from, message, .. } => {
                let (from, message) = (*from, message.clone());
                self.feed(Input::SnapshotReceived { from, message })
            }
            Body::Sent { peer, arrived, .. } => {
                self.feed(Input::SnapshotSent { to: *peer, arrived: *arrived })
            }
        }
    }

    /// Who hears a leader refuses to vote against it until it has not heard from it for an election timeout.
    /// That is a matter of time, and time may always have passed: so it has, before such a request is
    /// delivered. What this leaves out are refusals, and a refusal is no more than a loss.
    fn grow_tired(&mut self, envelope: &Envelope) -> Result<(), Broken> {
        let asks = match &envelope.message {
            Message::Durable(raft_core::DurableMessage::RequestVote(m)) => !m.transfer,
            Message::Open(OpenMessage::PreVote(_)) => true,
            _ => false,
        };
        let raft = &self.node.raft;
        let newer = envelope.message.term() > raft.term();
        if asks && newer && raft.leader().is_some() && raft.role() != Role::Leader {
            for _ in 0..self.node.config.election_timeout_ticks_min {
                self.feed(Input::Tick)?;
            }
        }
        Ok(())
    }

    fn crash(&mut self, keep: usize) -> Result<(), Broken> {
        let (events, pending) = (&mut self.out.events, &self.node.disk.pending);
        for (at, persist) in pending.iter().enumerate() {
            let kept = at < keep;
            events.add_if(kept, Event::KeptWrite);
            events.add_if(!kept && persist.hard_state.is_some(), Event::LostVote);
            events.add_if(!kept && !persist.append.is_empty(), Event::LostEntries);
            let installs = persist.snapshot.as_ref().is_some_and(|write| {
                write.snapshot.last.index > self.node.applied
            });
            events.add_if(installs && kept, Event::InstallKept);
            events.add_if(installs && !kept, Event::InstallLost);
        }
        let (mut disk, mut config) = (self.node.disk.clone(), self.node.config.clone());
        disk.crash(keep);
        config.start += 1;
        self.node = Node::start(config, disk)?;
        Ok(())
    }

    /// Steps the core, and carries out what it asks for.
    fn feed(&mut self, input: Input) -> Result<(), Broken> {
        let own = self.node.id();
        for effect in self.node.raft.step(input) {
            match effect {
                Effect::Persist(persist) => {
                    for (to, message) in self.node.disk.write(persist) {
                        self.out.packets.push(Packet::message(own, to, message));
                    }
                }
                Effect::Send { to, message: OpenMessage::PreVote(m) }
                    if self.habits.pre_votes_granted =>
                {
                    self.pre_votes.push((to, m.term));
                }
                Effect::Send { to, message } => {
                    let hands_over = matches!(message, OpenMessage::TimeoutNow(_));
                    self.out.events.add_if(hands_over, Event::TimeoutNow);
                    self.out.packets.push(Packet::message(own, to, message));
                }
                Effect::SendSnapshot { to, message } => {
                    self.out.events.add(Event::SnapshotSent);
                    self.out.packets.push(Packet::new(Body::Snapshot { from: own, to, message }));
                }
                Effect::Commit(commit) => self.apply(commit.through, &commit.entries)?,
                Effect::Restore(meta) => self.restore(meta)?,
                Effect::Read { request, from, through, bytes_max } => {
                    self.node.reads.push((request, from, through, bytes_max));
                }
                Effect::ReadReady(ready) => {
                    let reads = ready.reads.into_iter().map(|read| (read, ready.index));
                    self.out.answered.extend(reads);
                }
                Effect::ReadFailed { reads, .. } => self.out.failed.extend(reads),
                Effect::SteppedDown(why) => {
                    self.out.events.add(Event::SteppedDown);
                    self.out.events.add_if(why == StepDown::Removed, Event::LeaderRemoved);
                }
                Effect::Halt(violation) => {
                    return Err(Broken { law: Law::NoHalt, by: violation.to_string() });
                }
                Effect::Appended { .. }
                | Effect::Rejected(_)
                | Effect::ConfigurationChanged(_)
                | Effect::TransferEnded { .. }
                | Effect::RoleChanged { .. }
                | Effect::Ignored { .. } => {}
            }
        }
        self.node.raft.invariants().map_err(|violation| Broken {
            law: Law::Invariants,
            by: violation.to_string(),
        })
    }

    fn apply(&mut self, through: LogIndex, handed: &[Entry]) -> Result<(), Broken> {
        while self.node.applied < through {
            let next = self.node.applied.next();
            let durable = self.node.disk.log.get(next);
            let id = self.node.id();
            let Some(entry) = durable else {
                let by = format!("node {id} applies {next}, which is not on its disk");
                return Err(Broken { law: Law::DurableBeforeApplied, by });
            };
            let given = handed.iter().find(|given| given.id.index == next);
            demand(given.is_none_or(|given| given == entry), Law::DurableBeforeApplied, || {
                format!("node {id} is handed {given:?}, and its disk holds {entry:?}")
            })?;
            self.out.applied.push(entry.clone());
            self.node.applied = next;
        }
        Ok(())
    }

    fn restore(&mut self, meta: SnapshotMeta) -> Result<(), Broken> {
        let (id, applied, last) = (self.node.id(), self.node.applied, meta.last.index);
        demand(last > applied, Law::DurableBeforeApplied, || {
            format!("node {id} has applied {applied} and is restored to {last}")
        })?;
        let durable = self.node.disk.snapshot_last();
        demand(durable == meta.last, Law::DurableBeforeApplied, || {
            format!("node {id} is restored to {last}, and its disk points to {durable}")
        })?;
        self.node.applied = last;
        self.out.events.add(Event::SnapshotInstalled);
        self.out.snapshots.push(meta);
        Ok(())
    }

    fn sync(&mut self, count: usize) -> Result<(), Broken> {
        self.out.events.add_if(count > 1, Event::Batched);
        let before = self.node.disk.log.clone();
        let Some((through, released)) = self.node.disk.sync(count) else { return Ok(()) };
        let after = &self.node.disk.log;
        let cut = before.entries.iter().any(|entry| !after.covers(entry));
        self.out.events.add_if(cut, Event::DurableOverwritten);
        let own = self.node.id();
        for (to, message) in released {
            self.out.packets.push(Packet::message(own, to, message));
        }
        self.feed(Input::Persisted { through })
    }

    /// Lets happen by itself what this model does not want to see in between.
    fn finish(&mut self) -> Result<(), Broken> {
        loop {
            if self.node.raft.role() != Role::PreCandidate {
                self.pre_votes.clear();
            }
            if let Some((from, term)) = self.pre_votes.pop() {
                let granted = PreVoteResponse { term, granted: true };
                let message = OpenMessage::PreVoteResponse(granted).into();
                let to = self.node.id();
                self.feed(Input::Received(Envelope { from, to, message }))?;
            } else if self.habits.syncs_at_once && !self.node.disk.pending.is_empty() {
                self.sync(self.node.disk.pending.len())?;
            } else {
                return Ok(());
            }
        }
    }

    /// Names what happened, by the difference between before and after.
    fn look_back(&mut self, before: &Node) {
        let (was, is, events) = (&before.view, &self.node.view, &mut self.out.events);
        let crashed = before.config.start != self.node.config.start;
        if crashed {
            return;
        }
        events.add_if(was.role != Role::Leader && is.role == Role::Leader, Event::Elected);
        let overwritten = was.log.entries.iter().any(|entry| !is.log.covers(entry));
        events.add_if(overwritten, Event::Overwritten);
        let start = is.log.start.index > was.log.start.index;
        let installed = is.log.last().index > was.log.last().index || overwritten;
        events.add_if(start && !installed, Event::Compacted);
        events.add_if(start && overwritten, Event::SnapshotReplaced);
        let configuration = |log: &Log| {
            let kind = raft_core::EntryKind::Configuration;
            log.entries.iter().filter(|entry| entry.kind == kind).cloned().collect::<Vec<_>>()
        };
        let undone = configuration(&was.log).iter().any(|entry| !is.log.covers(entry));
        events.add_if(undone, Event::ChangeRolledBack);
        let after_snapshot = before.disk.snapshot_last().index == was.log.last().index
            && was.log.start.index > LogIndex::ZERO
            && is.role != Role::Leader
            && is.log.last().index > was.log.last().index;
        events.add_if(after_snapshot, Event::FedAfterSnapshot);
    }
}
