//! What fate does to nodes, disks and links.
//!
//! What a run can lose for good is bounded: a disk is wiped only while those who stay decide in every
//! configuration that may come into effect.

use raft_core::{NodeId, Role};

use crate::broken::Check;
use crate::events::Event;
use crate::fate::TICK;
use crate::machine::Machine;
use crate::node::Life;
use crate::time::Happening;
use crate::world::World;

impl World {
    /// One tick of the right time passes, and fate strikes whom it wants.
    pub(crate) fn strike(&mut self) -> Check {
        if !self.rough {
            return self.tend();
        }
        for n in 0..self.nodes.len() {
            if self.nodes[n].is_up() {
                self.strike_node(n)?;
            }
        }
        self.strike_network()?;
        self.operate()
    }

    fn strike_node(&mut self, n: usize) -> Check {
        let timeout = u64::from(self.fate.timeout.0) * TICK;
        let run = self.nodes[n].run.as_ref().unwrap();
        // Leaders are struck more often: they have more to lose.
        let joint = run.raft.configuration().is_joint();
        let weight = match run.raft.role() {
            _ if run.installing.is_some() => 50,
            _ if joint => 6,
            Role::Leader => 3,
            _ => 1,
        };
        if self.random.rarely(self.fate.crash * weight) {
            return self.crash(n);
        }
        if self.random.rarely(self.fate.pause * weight) {
            let until = self.now
                + self
                    .random
                    .between(timeout, 20 * timeout)
                    .min(self.random.between(timeout, 20 * timeout));
            self.pause(n, until);
        }
        if self.random.rarely(self.fate.stall * weight) {
            self.count(Event::DiskStalled);
            self.nodes[n].stalled_until = self.now + self.random.between(timeout, 10 * timeout);
        }
        self.nodes[n].fsync_fails |= self.random.rarely(self.fate.fsync_failure);
        self.nodes[n].is_full |= self.random.rarely(self.fate.full);
        if self.random.rarely(self.fate.wipe) {
            return self.wipe(n);
        }
        if self.random.rarely(self.fate.reset) {
            self.reset_link(n);
        }
        if self.random.rarely(self.fate.snapshot) {
            self.take_snapshot(n)?;
        }
        if self.random.rarely(self.fate.bulk) {
            self.propose_bulk(n)?;
        }
        Ok(())
    }

    /// Whether a crash between effects may come: not in the ending.
    pub(crate) fn may_crash(&self, n: usize) -> bool {
        self.rough && self.nodes[n].is_up()
    }

    /// A process ends, and with it all that its disk was not told or has not done.
    pub(crate) fn crash(&mut self, n: usize) -> Check {
        self.end_process(n)?;
        let timeout = u64::from(self.fate.timeout.0) * TICK;
        let longest = self.random.pick(&[TICK, timeout, 5 * timeout]);
        let at = self.now + self.random.between(TICK / 10, longest);
        self.plan.at(at, Happening::Start { node: n });
        Ok(())
    }

    fn end_process(&mut self, n: usize) -> Check {
        let node = &self.nodes[n];
        let (id, run) = (node.id, node.run.as_ref().unwrap());
        if self.trace {
            self.tell(format_args!("n{id} CRASHES"));
        }
        let joint = run.raft.configuration().is_joint();
        let (leads, installs) = (run.raft.role() == Role::Leader, run.installing.is_some());
        let pending = node.disk.pending().len();
        let keep = self.random.below(pending as u64 + 1) as usize;
        let tear = keep < pending && self.random.permille(400);
        let loses = self.random.permille(self.fate.machine_loss);
        let node = &mut self.nodes[n];
        node.run = None;
        node.paused_until = None;
        let waiting = std::mem::take(&mut node.waiting);
        node.stalled_until = self.now;
        // An operator has seen to the disk before the next start.
        (node.fsync_fails, node.is_full) = (false, false);
        node.disk.crash(keep, tear)?;
        let files = node.files.len();
        node.files.retain(|file| file.durable);
        let torn = node.files.len() < files;
        let lost = loses && node.own_disk.is_some_and(|own| own != Machine::default());
        if lost {
            node.own_disk = Some(Machine::default());
        }
        // Whoever was sending this node a snapshot hears that it came to nothing.
        for what in waiting {
            if let Happening::SnapshotArrives(transfer) = &what {
                self.count(Event::SnapshotFailed);
                self.tell_sent(transfer, false);
            } else if let Happening::SnapshotStored(transfer) = &what {
                self.count(Event::SnapshotFailed);
                self.tell_sent(transfer, false);
            }
        }
        self.remember_vote(n)?;
        for (happened, event) in [
            (joint, Event::CrashJoint),
            (leads, Event::CrashLeader),
            (installs, Event::CrashInstall),
            (keep < pending, Event::CrashLost),
            (keep > 0, Event::CrashKept),
            (torn, Event::SnapshotTorn),
            (lost, Event::MachineLost),
        ] {
            if happened {
                self.count(event);
            }
        }
        self.tell_peers(n);
        Ok(())
    }

    /// Connections to a process that ended are reset, where the network lets it be known.
    fn tell_peers(&mut self, n: usize) {
        let peer = self.nodes[n].id;
        for other in 0..self.nodes.len() {
            if other == n || !self.nodes[other].is_up() || self.random.permille(300) {
                continue;
            }
            let at = self.now + self.random.between(100, 2 * TICK);
            self.disconnect(at, other, peer, false);
        }
    }

    /// Node `n` finds its connection to `peer` broken at that time.
    fn disconnect(&mut self, at: u64, n: usize, peer: NodeId, refused: bool) {
        let (node, start) = (n, self.nodes[n].config.start);
        let broken = Happening::Disconnected {
            node,
            start,
            peer,
            refused,
        };
        self.plan.at(at, broken);
    }

    /// A node loses its disk for good, if the others can bear it. Its id does not come back.
    fn wipe(&mut self, n: usize) -> Check {
        let mut rest = self.electorate();
        rest.remove(self.nodes[n].id);
        if !self.is_tolerable(rest) {
            return Ok(());
        }
        self.end_process(n)?;
        self.nodes[n].life = Life::Wiped;
        self.count(Event::DiskWiped);
        Ok(())
    }

    /// A connection breaks: what is under way is lost, and both sides notice, or one. A firewall that breaks it may
    /// refuse the redial too, as if the process were gone: one of the two is then told what is not true.
    fn reset_link(&mut self, n: usize) {
        let other = self.random.below(self.nodes.len() as u64) as usize;
        if other == n {
            return;
        }
        let (one, two) = (self.nodes[n].id, self.nodes[other].id);
        self.network.link(one, two).connection += 1;
        self.network.link(two, one).connection += 1;
        self.count(Event::LinkReset);
        let misled = self.random.permille(200).then_some(n);
        for (node, peer) in [(n, two), (other, one)] {
            if self.nodes[node].is_up() {
                let at = self.now + self.random.between(10, TICK);
                self.disconnect(at, node, peer, misled == Some(node));
            }
        }
    }

    fn strike_network(&mut self) -> Check {
        let ids: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|n| n.is_up())
            .map(|n| n.id)
            .collect();
        if ids.len() < 2 {
            return Ok(());
        }
        if self.random.rarely(self.fate.cut) {
            let (one, two) = (self.random.pick(&ids), self.random.pick(&ids));
            if one != two {
                self.count(Event::OneWayCut);
                self.network.cut(one, two);
            }
        }
        if self.random.rarely(self.fate.partition) {
            self.partition(&ids)?;
        }
        if self.random.rarely(self.fate.heal) {
            self.network.heal();
        }
        Ok(())
    }

    fn partition(&mut self, ids: &[NodeId]) -> Check {
        let kind = match self.fate.hunts && self.random.permille(800) {
            true => 4,
            false => self.random.below(5),
        };
        match kind {
            0 => {
                self.count(Event::Bridge);
                let bridge = self.random.pick(ids);
                self.split(ids, Some(bridge));
            }
            1 => {
                self.count(Event::Ring);
                let count = ids.len();
                for (i, one) in ids.iter().enumerate() {
                    for (j, two) in ids.iter().enumerate() {
                        if j != (i + 1) % count && i != (j + 1) % count {
                            self.network.cut(*one, *two);
                        }
                    }
                }
            }
            2 => self.split(ids, None),
            _ => self.isolate(ids)?,
        }
        Ok(())
    }

    /// Two halves, which meet in nobody or in the bridge.
    fn split(&mut self, ids: &[NodeId], bridge: Option<NodeId>) {
        let side: Vec<bool> = ids.iter().map(|_| self.random.permille(500)).collect();
        for (one, left) in ids.iter().zip(&side) {
            for (two, right) in ids.iter().zip(&side) {
                if left != right && Some(*one) != bridge && Some(*two) != bridge {
                    self.network.cut(*one, *two);
                }
            }
        }
    }

    /// Cuts off a leader, or whoever thinks that it leads: what it appends now will be overwritten.
    fn isolate(&mut self, ids: &[NodeId]) -> Check {
        let leads = |id: &&NodeId| {
            let run = self.nodes[id.0 as usize - 1].run.as_ref();
            run.is_some_and(|run| run.raft.role() == Role::Leader)
        };
        let leaders: Vec<NodeId> = ids.iter().filter(leads).copied().collect();
        if leaders.is_empty() {
            return Ok(());
        }
        self.count(Event::Isolated);
        let leader = self.random.pick(&leaders);
        for id in ids {
            self.network.cut_both(leader, *id);
        }
        let n = leader.0 as usize - 1;
        self.propose_bulk(n)?;
        if self.random.rarely(self.fate.change * 20) {
            self.change_members(n)?;
        }
        Ok(())
    }
}
