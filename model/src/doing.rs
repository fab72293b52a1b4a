//! A step of one node, as it is worked out: the core is told something, and what it asks for is done.

use raft_core::{
    DurableMessage, Effect, Entry, EntryKind, Envelope, Input, LogIndex, Message, NodeId,
    OpenMessage, PreVoteResponse, Role, SnapshotMeta, StepDown, Term,
};

use crate::disk::Log;
use crate::law::{Broken, Event, Law, demand};
use crate::node::{Habits, Happening, Node, Outcome};
use crate::packet::{Body, Packet};

/// A step that is being worked out.
pub(crate) struct Doing<'a> {
    pub(crate) node: Node,
    pub(crate) habits: &'a Habits,
    pub(crate) pre_votes: Vec<(NodeId, Term)>,
    pub(crate) out: Outcome,
}

impl Doing<'_> {
    pub(crate) fn happen(&mut self, happening: &Happening) -> Result<(), Broken> {
        match happening {
            Happening::Receive(packet) => self.receive(packet),
            Happening::Step(input) => self.feed(input.clone()),
            Happening::Sync(count) => self.sync(*count),
            Happening::Crash(keep) => self.crash(*keep),
            Happening::AnswerRead => {
                let (request, from, through, bytes_max) = self.node.reads.remove(0);
                let result = self.node.disk.read(from, through, bytes_max);
                let event = if result.is_ok() {
                    Event::ReadFromDisk
                } else {
                    Event::ReadCompacted
                };
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
                if let Message::Durable(DurableMessage::RequestVote(m)) = &envelope.message {
                    let term = self.node.raft.term();
                    let gave = self.node.raft.status().voted_for == Some(envelope.from);
                    let gave = gave && term == m.term;
                    self.out
                        .events
                        .add_if(gave && m.transfer && hears, Event::TransferVote);
                    let own = &self.node.raft.status().configuration;
                    self.out
                        .events
                        .add_if(gave && !own.votes(self.node.id()), Event::UnawareVote);
                }
                Ok(())
            }
            Body::Snapshot { from, message, .. } => {
                let (from, message) = (*from, message.clone());
                self.feed(Input::SnapshotReceived { from, message })
            }
            Body::Sent { peer, arrived, .. } => self.feed(Input::SnapshotSent {
                to: *peer,
                arrived: *arrived,
            }),
        }
    }

    /// Who hears a leader refuses to vote against it until it has not heard from it for an election timeout.
    /// That is a matter of time, and time may always have passed: so it has, before such a request is
    /// delivered. What this leaves out are refusals, and a refusal is no more than a loss.
    fn grow_tired(&mut self, envelope: &Envelope) -> Result<(), Broken> {
        let asks = match &envelope.message {
            Message::Durable(DurableMessage::RequestVote(m)) => !m.transfer,
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
            let installs = persist
                .snapshot
                .as_ref()
                .is_some_and(|write| write.snapshot.last.index > self.node.applied);
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
                Effect::Send {
                    to,
                    message: OpenMessage::PreVote(m),
                } if self.habits.pre_votes_granted => {
                    self.pre_votes.push((to, m.term));
                }
                Effect::Send { to, message } => {
                    let hands_over = matches!(message, OpenMessage::TimeoutNow(_));
                    self.out.events.add_if(hands_over, Event::TimeoutNow);
                    self.out.packets.push(Packet::message(own, to, message));
                }
                Effect::SendSnapshot { to, message } => {
                    self.out.events.add(Event::SnapshotSent);
                    self.out.packets.push(Packet::new(Body::Snapshot {
                        from: own,
                        to,
                        message,
                    }));
                }
                Effect::Commit(commit) => self.apply(commit.through, &commit.entries)?,
                Effect::Restore(meta) => self.restore(meta)?,
                Effect::Read {
                    request,
                    from,
                    through,
                    bytes_max,
                } => {
                    self.node.reads.push((request, from, through, bytes_max));
                }
                Effect::ReadReady(ready) => {
                    let reads = ready.reads.into_iter().map(|read| (read, ready.index));
                    self.out.answered.extend(reads);
                }
                Effect::ReadFailed { reads, .. } => self.out.failed.extend(reads),
                Effect::SteppedDown(why) => {
                    self.out.events.add(Event::SteppedDown);
                    self.out
                        .events
                        .add_if(why == StepDown::Removed, Event::LeaderRemoved);
                }
                Effect::Halt(violation) => {
                    return Err(Broken {
                        law: Law::NoHalt,
                        by: violation.to_string(),
                    });
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
                return Err(Broken {
                    law: Law::DurableBeforeApplied,
                    by,
                });
            };
            let given = handed.iter().find(|given| given.id.index == next);
            demand(
                given.is_none_or(|given| given == entry),
                Law::DurableBeforeApplied,
                || format!("node {id} is handed {given:?}, and its disk holds {entry:?}"),
            )?;
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
        let Some((through, released)) = self.node.disk.sync(count) else {
            return Ok(());
        };
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
    pub(crate) fn finish(&mut self) -> Result<(), Broken> {
        loop {
            if self.node.raft.role() != Role::PreCandidate {
                self.pre_votes.clear();
            }
            if let Some((from, term)) = self.pre_votes.pop() {
                let granted = PreVoteResponse {
                    term,
                    granted: true,
                };
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
    pub(crate) fn look_back(&mut self, before: &Node) {
        let (was, is, events) = (&before.view, &self.node.view, &mut self.out.events);
        let crashed = before.config.start != self.node.config.start;
        if crashed {
            return;
        }
        events.add_if(
            was.role != Role::Leader && is.role == Role::Leader,
            Event::Elected,
        );
        let overwritten = was.log.entries.iter().any(|entry| !is.log.covers(entry));
        events.add_if(overwritten, Event::Overwritten);
        let start = is.log.start.index > was.log.start.index;
        let installed = is.log.last().index > was.log.last().index || overwritten;
        events.add_if(start && !installed, Event::Compacted);
        events.add_if(start && overwritten, Event::SnapshotReplaced);
        let configuration = |log: &Log| {
            let kind = EntryKind::Configuration;
            log.entries
                .iter()
                .filter(|entry| entry.kind == kind)
                .cloned()
                .collect::<Vec<_>>()
        };
        let undone = configuration(&was.log)
            .iter()
            .any(|entry| !is.log.covers(entry));
        events.add_if(undone, Event::ChangeRolledBack);
        let after_snapshot = before.disk.snapshot_last().index == was.log.last().index
            && was.log.start.index > LogIndex::ZERO
            && is.role != Role::Leader
            && is.log.last().index > was.log.last().index;
        events.add_if(after_snapshot, Event::FedAfterSnapshot);
    }
}
