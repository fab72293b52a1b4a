//! The ending of a run: what can heal heals, and then the cluster must do its work.
//!
//! Invariants, by name:
//! - `convergence`: within 20 election timeouts of the slowest clock, and the time that catching up takes,
//!   all members that run follow one leader and have handed out something new.
//! - `no-idle-election`: then nothing happens to the leadership for 100 election timeouts.
//! - `progress`: with the links of a minority cut for ever, each direction by itself, something is committed
//!   in each 20 election timeouts.
//! - `clients-are-answered`: in the end nobody waits.

use raft_core::membership::{Change, Step};
use raft_core::{Input, LogIndex, NodeId, Role};

use crate::broken::{Check, hold};
use crate::fate::{Ending, TICK};
use crate::node::Life;
use crate::sets::Set;
use crate::world::World;

/// Steps of the rough part, and of the whole run at least.
const ROUGH_STEPS: u64 = 24_000;
const STEPS_MIN: u64 = 30_000;

impl World {
    /// The whole run.
    pub(crate) fn live(&mut self) -> Check {
        while self.steps < ROUGH_STEPS {
            self.go_on()?;
        }
        self.heal()?;
        match self.fate.ending {
            Ending::Whole | Ending::Minority => {
                self.converge()?;
                self.rest()?;
            }
            Ending::Cuts => {
                self.cut_minority();
                self.progress()?;
            }
        }
        while self.steps < STEPS_MIN {
            self.go_on()?;
        }
        Ok(())
    }

    fn heal(&mut self) -> Check {
        if self.trace {
            self.tell(format_args!("=== HEALS: {:?}", self.fate.ending));
        }
        self.rough = false;
        self.fate.heal();
        self.network.heal();
        if self.fate.ending == Ending::Minority {
            self.down_for_good = self.choose_minority();
        }
        for n in 0..self.nodes.len() {
            let named = self
                .history
                .relevant_configurations()
                .any(|c| c.contains(self.nodes[n].id));
            if named && self.nodes[n].life == Life::Retired {
                self.nodes[n].life = Life::Alive;
            }
            self.nodes[n].stalled_until = self.now;
            if self.nodes[n].paused_until.is_some() {
                self.nodes[n].paused_until = Some(self.now);
                self.resume(n)?;
            }
            if self.down_for_good.contains(self.nodes[n].id) && self.nodes[n].is_up() {
                self.crash(n)?;
            }
            self.start(n)?;
        }
        Ok(())
    }

    /// Nodes without which the others decide in every configuration that may come.
    fn choose_minority(&mut self) -> Set {
        let mut chosen = Set::default();
        for _ in 0..4 {
            let id = NodeId(1 + self.random.below(self.nodes.len() as u64));
            let mut more = chosen;
            more.insert(id);
            if self.is_tolerable(self.electorate().minus(more)) {
                chosen = more;
            }
        }
        chosen
    }

    fn cut_minority(&mut self) {
        let minority = self.choose_minority();
        let ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        for one in minority.ids() {
            for two in &ids {
                if self.random.permille(500) {
                    self.network.cut(one, *two);
                }
                if self.random.permille(500) {
                    self.network.cut(*two, one);
                }
            }
        }
        if self.trace {
            let minority: Vec<NodeId> = minority.ids().collect();
            self.tell(format_args!("=== CUTS links of {minority:?} for good"));
        }
    }

    /// What a sensible operator does in each tick: brings changes to their end, removes what is lost, and
    /// sees whether something can be committed.
    pub(crate) fn tend(&mut self) -> Check {
        if !(self.now / TICK).is_multiple_of(3) {
            return Ok(());
        }
        for n in self.leaders() {
            let raft = &self.nodes[n].run.as_ref().unwrap().raft;
            let configuration = raft.configuration();
            let wiped = |id: &NodeId| self.nodes[id.0 as usize - 1].life == Life::Wiped;
            let lost = configuration.members().into_iter().find(wiped);
            let change = match (configuration.is_joint(), lost) {
                (true, _) if !configuration.auto_leave => Some(Change::LeaveJoint),
                (false, Some(lost)) => Some(Change::Auto(vec![Step::Remove(lost)])),
                _ => None,
            };
            if let Some(change) = change {
                self.say(n, Input::ChangeMembership(change))?;
            }
            if self.wants_proposals {
                self.propose_bulk(n)?;
            }
        }
        Ok(())
    }

    /// Units of so many election timeouts of the slowest clock.
    fn timeouts(&self, count: u64) -> u64 {
        let slowest = self
            .nodes
            .iter()
            .map(|node| node.rate)
            .min()
            .unwrap_or(1_000);
        count * u64::from(self.fate.timeout.0) * TICK * 1_000 / slowest
    }

    /// Units of 20 election timeouts of the slowest clock, and of the time to bring the last follower up to
    /// date: a message of entries, its answer and the disks between take two ticks, a snapshot up to 50; a
    /// follower that is cut off in the middle of its snapshot needs another.
    fn patience(&self) -> u64 {
        let last = |node: &crate::node::Node| {
            let own = node
                .run
                .as_ref()
                .map_or(LogIndex::ZERO, |run| run.shadow.last().index);
            own.max(node.disk.last().index)
        };
        let most = self.nodes.iter().map(last).max().unwrap_or_default();
        let least = self
            .nodes
            .iter()
            .filter(|node| node.is_up())
            .map(last)
            .min();
        let lag = most.0 - least.unwrap_or_default().0;
        let sizes = &self.fate.sizes;
        let single = sizes.append_entries == 1 || sizes.append_bytes == 1;
        let messages = if single { lag } else { lag / 3 + 1 };
        self.timeouts(20) + (2 * messages + 150) * TICK
    }

    fn converge(&mut self) -> Check {
        let goal = self.history.committed().next();
        let limit = self.now + self.patience();
        self.wants_proposals = true;
        while !self.converged(goal) {
            hold!(
                self.now < limit,
                "convergence",
                "the members do not agree on a leader and on entry {goal}: {}",
                self.picture()
            );
            self.go_on()?;
        }
        self.wants_proposals = false;
        // Changes and handovers that are under way come to their end.
        let settled = self.now + 30 * u64::from(self.fate.timeout.0) * TICK;
        while self.now < settled {
            self.go_on()?;
        }
        Ok(())
    }

    /// The members, as the last committed configuration has them, that run.
    fn members(&self) -> Vec<usize> {
        let configuration = self.history.configuration_at(LogIndex::MAX);
        let up = |n: &usize| self.nodes[*n].is_up() && configuration.contains(self.nodes[*n].id);
        (0..self.nodes.len()).filter(up).collect()
    }

    fn converged(&self, goal: LogIndex) -> bool {
        let members = self.members();
        let raft = |n: &usize| &self.nodes[*n].run.as_ref().unwrap().raft;
        let leader = members.iter().find(|n| raft(n).role() == Role::Leader);
        let Some(leader) = leader.map(|n| self.nodes[*n].id) else {
            return false;
        };
        members
            .iter()
            .all(|n| raft(n).leader() == Some(leader) && raft(n).handed_out() >= goal)
    }

    fn rest(&mut self) -> Check {
        let terms = |world: &Self| {
            let raft = |n: &usize| &world.nodes[*n].run.as_ref().unwrap().raft;
            let of = |n: &usize| (raft(n).id(), raft(n).term(), raft(n).leader());
            world.members().iter().map(of).collect::<Vec<_>>()
        };
        let before = terms(self);
        if self.trace {
            self.tell(format_args!("=== RESTS: {before:?}"));
        }
        let end = self.now + 100 * u64::from(self.fate.timeout.0) * TICK;
        while self.now < end {
            self.go_on()?;
        }
        let after = terms(self);
        hold!(
            before == after,
            "no-idle-election",
            "terms and leaders were {before:?} and are {after:?}"
        );
        let waiting: Vec<_> = self
            .clients
            .iter()
            .filter(|client| !client.is_idle())
            .collect();
        hold!(
            waiting.is_empty(),
            "clients-are-answered",
            "{waiting:?} in {}",
            self.picture()
        );
        for n in self.members() {
            let run = self.nodes[n].run.as_ref().unwrap();
            hold!(
                run.machine.applied == self.history.committed(),
                "convergence",
                "node {} rests at {} of {}: {}",
                self.nodes[n].id,
                run.machine.applied,
                self.history.committed(),
                self.picture()
            );
        }
        Ok(())
    }

    fn progress(&mut self) -> Check {
        self.wants_proposals = true;
        for window in 0..3 {
            let before = self.history.committed();
            let limit = match window {
                0 => self.now + self.patience(),
                _ => self.now + self.timeouts(20),
            };
            while self.now < limit {
                self.go_on()?;
            }
            hold!(
                self.history.committed() > before,
                "progress",
                "nothing was committed in window {window} with links of a minority cut: {}",
                self.picture()
            );
        }
        Ok(())
    }

    /// How all nodes are.
    fn picture(&self) -> String {
        let words = |node: &crate::node::Node| match &node.run {
            Some(run) => crate::text::status(&run.raft.status()),
            None => format!("n{}: {:?} and down", node.id, node.life),
        };
        let nodes: Vec<String> = self.nodes.iter().map(words).collect();
        format!("\n  {}", nodes.join("\n  "))
    }
}
