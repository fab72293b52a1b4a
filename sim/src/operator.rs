//! Operators: they change who belongs to the cluster, hand leaderships over, and add nodes with empty
//! disks. They are reckless, but not so that the cluster could never decide again: of each configuration
//! that they ask for, a majority of both halves has its disk.

use raft_core::membership::{Change, Configuration, Step, apply};
use raft_core::{Input, LogId, NodeId, Role};

use crate::broken::Check;
use crate::events::Event;
use crate::node::Life;
use crate::sets::{IDS_MAX, futures};
use crate::step::Context;
use crate::world::World;

impl World {
    /// What operators do in one tick.
    pub(crate) fn operate(&mut self) -> Check {
        let leaders = self.leaders();
        let anybody = self.random.below(self.nodes.len() as u64) as usize;
        let n = match leaders.is_empty() || self.random.permille(50) {
            true => anybody,
            false => self.random.pick(&leaders),
        };
        if self.random.rarely(self.fate.change) {
            self.change_members(n)?;
        }
        if self.random.rarely(self.fate.transfer) {
            self.hand_over(n)?;
        }
        if self.random.rarely(self.fate.campaign) {
            self.say(anybody, Input::Campaign)?;
        }
        if self.fate.change > 0 && self.random.permille(20) {
            self.retire_removed()?;
        }
        Ok(())
    }

    /// Nodes that think that they lead.
    pub(crate) fn leaders(&self) -> Vec<usize> {
        let leads = |n: &usize| {
            let run = self.nodes[*n].run.as_ref();
            run.is_some_and(|run| run.raft.role() == Role::Leader)
        };
        (0..self.nodes.len()).filter(leads).collect()
    }

    fn hand_over(&mut self, n: usize) -> Check {
        let count = self.nodes.len() as u64;
        let to = match self.random.below(3) {
            0 => None,
            _ => Some(NodeId(1 + self.random.below(count))),
        };
        self.step(n, Input::TransferLeadership { to }, Context::Transfer)
    }

    /// Asks a node for some change.
    pub(crate) fn change_members(&mut self, n: usize) -> Check {
        let Some(run) = &self.nodes[n].run else {
            return Ok(());
        };
        let configuration = run.raft.configuration().clone();
        let change = self.draw_change(n, &configuration);
        // What is refused is asked for, too; what would be fatal is not.
        if let Ok(next) = apply(&configuration, &change)
            && !self.is_wise(&next)
        {
            return Ok(());
        }
        let leads = run_leads(self, n);
        if leads {
            self.prepare(&change)?;
        }
        let removes_itself = removed(&change).any(|id| id == self.nodes[n].id);
        if leads && removes_itself && configuration.votes(self.nodes[n].id) {
            self.count(Event::LeaderRemoved);
        }
        let joint = configuration.is_joint();
        let leaves = change == Change::LeaveJoint;
        self.step(n, Input::ChangeMembership(change), Context::Change)?;
        let left = self.nodes[n]
            .run
            .as_ref()
            .is_some_and(|run| !run.raft.configuration().is_joint());
        if joint && leaves && left {
            self.count(Event::JointLeftByOperator);
        }
        Ok(())
    }

    /// Whether those who have their disks decide in whatever `next` becomes.
    fn is_wise(&self, next: &Configuration) -> bool {
        let mut present = self.electorate();
        present.insert(NodeId(self.nodes.len() as u64 + 1));
        futures(next).iter().all(|quorums| quorums.decide(present))
    }

    fn draw_change(&mut self, n: usize, configuration: &Configuration) -> Change {
        if configuration.is_joint() && self.random.permille(800) {
            return Change::LeaveJoint;
        }
        let count = self.random.pick(&[1, 1, 1, 2, 3]);
        let steps: Vec<Step> = (0..count)
            .map(|_| self.draw_step(n, configuration))
            .collect();
        match self.random.below(10) {
            0 => Change::Simple(steps),
            1..3 => Change::EnterJoint {
                steps,
                auto_leave: false,
            },
            3..5 => Change::EnterJoint {
                steps,
                auto_leave: true,
            },
            _ => Change::Auto(steps),
        }
    }

    fn draw_step(&mut self, n: usize, configuration: &Configuration) -> Step {
        let members: Vec<NodeId> = configuration.members().into_iter().collect();
        let wiped = |id: &NodeId| self.nodes[id.0 as usize - 1].life == Life::Wiped;
        if let Some(gone) = members.iter().copied().find(wiped)
            && self.random.permille(600)
        {
            return Step::Remove(gone);
        }
        let member = match members.is_empty() {
            true => self.nodes[n].id,
            false => self.random.pick(&members),
        };
        let few = configuration.voters.len() < 3;
        match self.random.below(16) {
            0..3 if !few => Step::Remove(member),
            3 if !few => Step::Remove(self.nodes[n].id),
            4 => Step::AddLearner(member),
            5..8 => Step::Join(member),
            8 => Step::SetPriority(member, self.random.below(3) as u32),
            9 => Step::AddVoter(member),
            _ => self.draw_newcomer(configuration),
        }
    }

    /// Somebody who is no member: a node that was removed, or one with an empty disk.
    fn draw_newcomer(&mut self, configuration: &Configuration) -> Step {
        let outside = |node: &&crate::node::Node| {
            node.life != Life::Wiped && !configuration.contains(node.id)
        };
        let known: Vec<NodeId> = self.nodes.iter().filter(outside).map(|n| n.id).collect();
        let id = match known.is_empty() || self.random.permille(400) && self.may_add_node() {
            false => self.random.pick(&known),
            true if self.may_add_node() => NodeId(self.nodes.len() as u64 + 1),
            true => return Step::Join(self.nodes[0].id),
        };
        match self.random.below(4) {
            0 => Step::AddVoter(id),
            1 => Step::AddLearner(id),
            _ => Step::Join(id),
        }
    }

    /// Starts the nodes that a change names and that do not run: new ones, and those that were shut down.
    fn prepare(&mut self, change: &Change) -> Check {
        let (Change::Auto(steps) | Change::Simple(steps) | Change::EnterJoint { steps, .. }) =
            change
        else {
            return Ok(());
        };
        for step in steps {
            let (Step::AddVoter(id) | Step::AddLearner(id) | Step::Join(id)) = step else {
                continue;
            };
            let n = id.0 as usize - 1;
            if n == self.nodes.len() && n < IDS_MAX {
                self.add_node(Configuration::default());
                self.count(Event::FreshNodeAdded);
                self.start(n)?;
            } else if let Some(node) = self.nodes.get_mut(n) {
                let back = node.was_removed;
                node.was_removed = false;
                if node.life == Life::Retired {
                    node.life = Life::Alive;
                    self.start(n)?;
                }
                if back {
                    self.count(Event::RemovedNodeBack);
                }
            }
        }
        Ok(())
    }

    /// Shuts down a node that no configuration names any more.
    fn retire_removed(&mut self) -> Check {
        for n in 0..self.nodes.len() {
            let id = self.nodes[n].id;
            let named = self
                .history
                .relevant_configurations()
                .any(|c| c.contains(id));
            if named || self.nodes[n].life != Life::Alive || !self.nodes[n].is_up() {
                continue;
            }
            self.nodes[n].was_removed = self.nodes[n].disk.last() != LogId::ZERO;
            if self.random.permille(300) {
                self.nodes[n].life = Life::Retired;
                return self.crash(n);
            }
        }
        Ok(())
    }
}

fn run_leads(world: &World, n: usize) -> bool {
    let run = world.nodes[n].run.as_ref();
    run.is_some_and(|run| run.raft.role() == Role::Leader)
}

fn removed(change: &Change) -> impl Iterator<Item = NodeId> {
    let steps = match change {
        Change::Auto(steps) | Change::Simple(steps) | Change::EnterJoint { steps, .. } => {
            &steps[..]
        }
        Change::LeaveJoint => &[],
    };
    steps.iter().filter_map(|step| match step {
        Step::Remove(id) => Some(*id),
        _ => None,
    })
}
