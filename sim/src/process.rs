//! Processes and disks: how a node starts, ticks, is paused, writes, applies, and ends.

use raft_core::{
    DurableMessage, Envelope, Input, LogIndex, Message, NodeId, OpenMessage, Raft, ReadFailure,
    RequestId, Role, WriteId,
};

use crate::broken::{Broken, Check, hold};
use crate::claims::check_release;
use crate::events::Event;
use crate::fate::TICK;
use crate::machine::{Machine, entry_hash};
use crate::node::{Life, Run, Work};
use crate::shadow::Shadow;
use crate::step::Context;
use crate::time::Happening;
use crate::world::World;

impl World {
    /// Starts a node from what its disks hold.
    pub(crate) fn start(&mut self, n: usize) -> Check {
        let held_down = self.down_for_good.contains(self.nodes[n].id);
        if self.nodes[n].is_up() || self.nodes[n].life != Life::Alive || held_down {
            return Ok(());
        }
        let tail = self.random.pick(&[0, 3, usize::MAX]);
        let node = &mut self.nodes[n];
        node.config.start += 1;
        node.config.seed = node.config.seed.wrapping_add(0x9e37_79b9);
        let torn = node.disk.drop_torn_record();
        let (machine, behind) = self.restore_machine(n)?;
        self.remove_orphans(n);
        let node = &mut self.nodes[n];
        let recovered = node.disk.recover(machine.applied, tail);
        let shadow = Shadow::of(&node.disk, &node.config.initial);
        let raft = match Raft::new(node.config.clone(), recovered) {
            Ok(raft) => raft,
            Err(error) => {
                let detail = format!("node {} does not start: {error}", node.id);
                return Err(Broken {
                    invariant: "restart",
                    detail,
                });
            }
        };
        hold!(
            raft.term() >= node.claimed_term,
            "term-never-back",
            "node {} spoke of term {} and comes back in term {}",
            node.id,
            node.claimed_term,
            raft.term()
        );
        node.run = Some(Run::new(raft, self.now, shadow, machine));
        let start = node.config.start;
        self.plan_tick(n);
        if self.trace {
            let id = self.nodes[n].id;
            self.tell(format_args!("n{id} STARTS, run {start}"));
        }
        if torn {
            self.count(Event::TornRecord);
        }
        if behind {
            self.count(Event::MachineBehind);
        }
        Ok(())
    }

    /// The state machine as its own disk has it, or else as the snapshot has it. Says whether it comes back
    /// behind a log that is known to hold more.
    fn restore_machine(&mut self, n: usize) -> Result<(Machine, bool), Broken> {
        let node = &self.nodes[n];
        let of_snapshot = match &node.disk.snapshot {
            None => Machine::default(),
            Some(meta) => match node.file(meta) {
                Some(file) if file.durable => file.machine,
                _ => {
                    return Err(Broken {
                        invariant: "snapshot-file",
                        detail: format!(
                            "node {} starts without the file of {}",
                            node.id, meta.last
                        ),
                    });
                }
            },
        };
        let own = node
            .own_disk
            .filter(|own| own.applied >= of_snapshot.applied);
        let machine = own.unwrap_or(of_snapshot);
        let behind = node.own_disk.is_some() && machine.applied < node.disk.last().index;
        self.history.check_machine(node.id, &machine)?;
        Ok((machine, behind))
    }

    fn remove_orphans(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let before = node.files.len();
        let pointer = node.disk.snapshot.clone();
        node.files
            .retain(|file| Some(&file.meta) == pointer.as_ref());
        if node.files.len() < before {
            self.count(Event::SnapshotOrphan);
        }
    }

    /// Plans the next tick of a node's clock.
    fn plan_tick(&mut self, n: usize) {
        let node = &self.nodes[n];
        let clock = node.run.as_ref().map_or(0, |run| run.clock) + 1;
        let (start, at) = (node.config.start, node.time_of(clock));
        let node = n;
        self.plan.at(at, Happening::Tick { node, start, clock });
    }

    /// A node's clock ticks; a tick that a pause has swallowed is told no more.
    pub(crate) fn tick(&mut self, n: usize, clock: u64) -> Check {
        let run = self.nodes[n].run.as_mut().unwrap();
        if clock != run.clock + 1 {
            return Ok(());
        }
        run.clock = clock;
        run.ticks += 1;
        self.plan_tick(n);
        self.step(n, Input::Tick, Context::None)
    }

    /// A node's process stops for a while, and its clock does not.
    pub(crate) fn pause(&mut self, n: usize, until: u64) {
        let node = &mut self.nodes[n];
        if !node.is_up() || node.paused_until.is_some() {
            return;
        }
        node.paused_until = Some(until);
        let start = node.config.start;
        self.plan.at(until, Happening::Resume { node: n, start });
        if self.trace {
            let id = self.nodes[n].id;
            self.tell(format_args!("n{id} PAUSES"));
        }
    }

    /// What waited comes first, then the time that passed.
    pub(crate) fn resume(&mut self, n: usize) -> Check {
        if self.nodes[n].paused_until != Some(self.now) {
            return Ok(());
        }
        self.nodes[n].paused_until = None;
        let start = self.nodes[n].config.start;
        let leads = self.nodes[n]
            .run
            .as_ref()
            .is_some_and(|run| run.raft.role() == Role::Leader);
        self.count(if leads {
            Event::LeaderPaused
        } else {
            Event::FollowerPaused
        });
        let waiting = std::mem::take(&mut self.nodes[n].waiting);
        for what in waiting {
            self.happen(what)?;
        }
        if !self.runs(n, start) {
            return Ok(());
        }
        let clock = self.nodes[n].clock(self.now);
        let run = self.nodes[n].run.as_mut().unwrap();
        let ticks = clock - run.clock;
        run.clock = clock;
        self.plan_tick(n);
        match ticks {
            0 => Ok(()),
            ticks => self.step(n, Input::Paused { ticks }, Context::None),
        }
    }

    pub(crate) fn receive(&mut self, n: usize, envelope: Envelope) -> Check {
        let run = self.nodes[n].run.as_mut().unwrap();
        let from = envelope.from.0 as usize - 1;
        if run.heard.len() <= from {
            run.heard.resize(from + 1, 0);
        }
        // What shows that somebody follows this leader: an answer in its own term, and nothing else.
        let answers = matches!(
            envelope.message,
            Message::Open(OpenMessage::HeartbeatResponse(_))
                | Message::Durable(DurableMessage::AppendResponse(_))
        );
        if answers && envelope.message.term() == run.raft.term() {
            run.heard[from] = run.ticks + 1;
        }
        self.step(n, Input::Received(envelope), Context::None)
    }

    /// A connection is found broken. If the peer's process is down, nobody answers the redial; what the network
    /// refuses in its place looks the same.
    pub(crate) fn disconnected(&mut self, n: usize, peer: NodeId, refused: bool) -> Check {
        let (id, other) = (self.nodes[n].id, peer.0 as usize - 1);
        let reachable = !self.network.is_cut(id, peer) && !self.network.is_cut(peer, id);
        let is_up = self.nodes[other].is_up();
        let leads = |run: &Run| run.raft.leader() == Some(peer);
        if is_up && refused && self.nodes[n].run.as_ref().is_some_and(leads) {
            self.count(Event::FalselyGone);
        }
        let input = match refused || reachable && !is_up {
            true => Input::PeerGone(peer),
            false => Input::PeerUnreachable(peer),
        };
        self.step(n, input, Context::None)
    }

    /// Plans the next sync, if something waits.
    pub(crate) fn plan_sync(&mut self, n: usize) {
        let (least, most) = self.fate.sync;
        let delay = self.random.between(least, most);
        let node = &mut self.nodes[n];
        let Some(run) = &mut node.run else { return };
        if run.sync_due || node.disk.pending().is_empty() {
            return;
        }
        run.sync_due = true;
        let (at, start) = (self.now.max(node.stalled_until) + delay, node.config.start);
        self.plan.at(at, Happening::Sync { node: n, start });
    }

    /// Some of what waits becomes durable, and what waited for that is said; or the disk fails.
    pub(crate) fn sync(&mut self, n: usize) -> Check {
        let node = &mut self.nodes[n];
        node.run.as_mut().unwrap().sync_due = false;
        if node.stalled_until > self.now {
            self.plan_sync(n);
            return Ok(());
        }
        if node.fsync_fails {
            self.count(Event::FsyncFailed);
            return self.crash(n);
        }
        let count = 1 + self.random.below(node.disk.pending().len() as u64) as usize;
        let Some(synced) = node.disk.sync(count)? else {
            return Ok(());
        };
        if synced.dropped > 0 {
            self.count(Event::ClaimDropped);
        }
        self.remember_vote(n)?;
        for (to, message) in synced.released {
            let node = &mut self.nodes[n];
            check_release(&mut self.history, node.id, &node.disk, to, &message)?;
            node.claimed_term = node.claimed_term.max(message.term());
            let from = node.id;
            let votes = node.run.as_ref().unwrap().raft.configuration().votes(from);
            if !votes && matches!(&message, DurableMessage::VoteResponse(m) if m.granted) {
                self.count(Event::VoteByUnawareLearner);
            }
            if self.trace {
                let words = crate::text::durable(&message);
                self.tell(format_args!("n{from} releases ->{to} {words}"));
            }
            self.transmit(from, to, message.into());
        }
        self.nodes[n].collect_files();
        let at = self.now + self.random.below(self.fate.sync.0 + 1);
        let (start, through) = (self.nodes[n].config.start, synced.through);
        self.plan.at(
            at,
            Happening::Persisted {
                node: n,
                start,
                through,
            },
        );
        self.plan_sync(n);
        Ok(())
    }

    pub(crate) fn remember_vote(&mut self, n: usize) -> Check {
        let node = &self.nodes[n];
        let durable = node.disk.hard_state;
        match durable.voted_for {
            Some(candidate) => self.history.voted(node.id, durable.term, candidate),
            None => Ok(()),
        }
    }

    pub(crate) fn persisted(&mut self, n: usize, through: WriteId) -> Check {
        let run = self.nodes[n].run.as_mut().unwrap();
        while run
            .unfinished
            .front()
            .is_some_and(|(write, _)| *write <= through)
        {
            run.unfinished.pop_front();
            run.finished = run.ticks;
        }
        if run.installing.is_some_and(|write| write <= through) {
            run.installing = None;
        }
        self.step(n, Input::Persisted { through }, Context::None)
    }

    pub(crate) fn read_log(
        &mut self,
        n: usize,
        request: RequestId,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Check {
        let node = &mut self.nodes[n];
        node.run.as_mut().unwrap().log_reads -= 1;
        let result = node.disk.read(from, through, bytes_max);
        match &result {
            Ok(_) => self.count(Event::FedFromDisk),
            Err(ReadFailure::Compacted) => self.count(Event::ReadCompacted),
            Err(_) => {}
        }
        self.step(n, Input::EntriesRead { request, result }, Context::None)
    }

    pub(crate) fn plan_apply(&mut self, n: usize) {
        let delay = self.random.below(TICK);
        let node = &mut self.nodes[n];
        let Some(run) = &mut node.run else { return };
        if run.apply_due || run.work.is_empty() {
            return;
        }
        run.apply_due = true;
        let start = node.config.start;
        self.plan
            .at(self.now + delay, Happening::Apply { node: n, start });
    }

    /// The state machine takes some of its work; what waited for that is answered.
    pub(crate) fn apply(&mut self, n: usize) -> Check {
        let waiting = self.nodes[n].run.as_ref().unwrap().work.len();
        let count = 1 + self.random.below(waiting as u64);
        for _ in 0..count {
            let run = self.nodes[n].run.as_mut().unwrap();
            match run.work.pop_front() {
                None => break,
                Some(Work::Apply(entry)) => self.apply_entry(n, &entry)?,
                Some(Work::Restore(meta)) => self.restore(n, &meta)?,
            }
        }
        let flushed = self.random.permille(200);
        let node = &mut self.nodes[n];
        let run = node.run.as_mut().unwrap();
        run.apply_due = false;
        self.history.check_machine(node.id, &run.machine)?;
        if flushed && let Some(own) = &mut node.own_disk {
            *own = run.machine;
        }
        node.collect_files();
        self.plan_apply(n);
        self.answer_ready_reads(n);
        Ok(())
    }

    fn apply_entry(&mut self, n: usize, entry: &raft_core::Entry) -> Check {
        let node = &mut self.nodes[n];
        let run = node.run.as_mut().unwrap();
        let fits = run.machine.applied.next() == entry.id.index;
        let (id, applied) = (node.id, run.machine.applied);
        hold!(
            fits,
            "applied-in-order",
            "node {id} applies {} behind {applied}",
            entry.id
        );
        hold!(
            node.disk.holds(entry.id) && self.history.is_committed(entry.id),
            "applied-is-durable",
            "node {id} applies {}, and its disk ends at {}",
            entry.id,
            node.disk.last()
        );
        let response = run.machine.apply(entry, entry_hash(entry));
        if response.is_some_and(|response| response.again) {
            self.counts.add(Event::DuplicateSuppressed);
        }
        self.answer_writes(n, entry, response)
    }

    fn restore(&mut self, n: usize, meta: &raft_core::SnapshotMeta) -> Check {
        let node = &mut self.nodes[n];
        let Some(file) = node.file(meta).cloned() else {
            return Err(Broken {
                invariant: "snapshot-file",
                detail: format!("node {} has no file of {} to restore", node.id, meta.last),
            });
        };
        let run = node.run.as_mut().unwrap();
        let applied = run.machine.applied;
        hold!(
            meta.last.index > applied,
            "applied-never-back",
            "node {} goes from {applied} back to {}",
            node.id,
            meta.last
        );
        run.machine = file.machine;
        // What was proposed here before may be in it, or not: nobody can say any more.
        run.proposals
            .retain(|proposal| proposal.index > meta.last.index);
        Ok(())
    }
}
