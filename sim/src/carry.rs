//! The effects of a step, carried out one by one.

use raft_core::{Commit, Effect, Input, LogIndex, Persist, Rejection, Role, StepDown};

use crate::broken::{Broken, Check, hold};
use crate::events::Event;
use crate::node::{Ready, Work};
use crate::step::{About, Context};
use crate::time::Happening;
use crate::world::World;

impl World {
    pub(crate) fn carry_out(&mut self, n: usize, about: &About, effect: Effect) -> Check {
        match effect {
            Effect::Persist(persist) => self.write(n, persist)?,
            Effect::Send { to, message } => {
                let from = self.nodes[n].id;
                if to.0 as usize <= self.nodes.len() {
                    self.transmit(from, to, message.into());
                }
            }
            Effect::SendSnapshot { to, message } => self.send_snapshot(n, to, message)?,
            Effect::Commit(commit) => self.hand_out(n, about.before.handed_out, &commit)?,
            Effect::Restore(meta) => {
                self.count(Event::SnapshotInstalled);
                let run = self.nodes[n].run.as_mut().unwrap();
                run.work.push_back(Work::Restore(meta));
                self.plan_apply(n);
            }
            Effect::Read {
                request,
                from,
                through,
                bytes_max,
            } => {
                let at = self.now + self.random.between(self.fate.read.0, self.fate.read.1);
                let node = &mut self.nodes[n];
                node.run.as_mut().unwrap().log_reads += 1;
                let start = node.config.start;
                let node = n;
                self.plan.at(
                    at,
                    Happening::ReadLog {
                        node,
                        start,
                        request,
                        from,
                        through,
                        bytes_max,
                    },
                );
            }
            Effect::Appended { first, term, count } => {
                self.check_uncommitted(n, about, first)?;
                self.appended(n, about, first, term, count);
            }
            Effect::Rejected(rejection) => self.rejected(n, about, rejection),
            Effect::ReadReady(ready) => {
                let on_leader = self.nodes[n].run.as_ref().unwrap().raft.role() == Role::Leader;
                self.reads_ready(n, &ready, on_leader)?;
            }
            Effect::ReadFailed { reads, reason } => self.reads_failed(n, &reads, reason)?,
            Effect::TransferEnded { to } => {
                let run = self.nodes[n].run.as_mut().unwrap();
                let ended = run.transfer.take();
                let leads = run.raft.role() == Role::Leader;
                match (leads, ended) {
                    (true, _) => self.count(Event::TransferTimedOut),
                    (false, Some((wanted, _, asked))) if wanted == to => {
                        let target = self.nodes[to.0 as usize - 1].run.as_ref();
                        let took = target.is_some_and(|run| {
                            run.raft.role() == Role::Leader || run.raft.role() == Role::Candidate
                        });
                        if took {
                            self.count(Event::TransferCompleted);
                        }
                        if took && !asked {
                            self.count(Event::PriorityTakeover);
                        }
                    }
                    _ => {}
                }
            }
            Effect::SteppedDown(why) => {
                self.nodes[n].run.as_mut().unwrap().transfer = None;
                self.count(match why {
                    StepDown::HigherTerm => Event::HigherTermStepDown,
                    StepDown::NoQuorum => Event::CheckQuorumStepDown,
                    StepDown::StuckDisk => Event::StuckDiskStepDown,
                    StepDown::Removed => Event::RemovedStepDown,
                });
            }
            Effect::ConfigurationChanged(_)
            | Effect::RoleChanged { .. }
            | Effect::Ignored { .. }
            | Effect::Halt(_) => {}
        }
        self.watch_transfer(n, about);
        Ok(())
    }

    /// Sees a transfer begin, by whoever's wish.
    fn watch_transfer(&mut self, n: usize, about: &About) {
        let Some(run) = &mut self.nodes[n].run else {
            return;
        };
        if run.raft.role() != Role::Leader {
            return;
        }
        let asked = about.context == Context::Transfer;
        match run.raft.status().transfer {
            Some(to) if run.transfer.is_none() => {
                run.transfer = Some((to, run.ticks, asked));
            }
            None => run.transfer = None,
            Some(_) => {}
        }
    }

    /// A write goes to the disk, behind those that wait; or the disk is full, and the node ends.
    fn write(&mut self, n: usize, persist: Persist) -> Check {
        if self.nodes[n].is_full {
            self.count(Event::DiskFull);
            return self.crash(n);
        }
        self.nodes[n].disk.write(persist);
        self.plan_sync(n);
        Ok(())
    }

    /// What is committed goes to the state machine: from memory, and from the disk where that ends.
    fn hand_out(&mut self, n: usize, before: LogIndex, commit: &Commit) -> Check {
        let node = &mut self.nodes[n];
        let run = node.run.as_mut().unwrap();
        let mut queued = run.work.iter().rev().map(|work| match work {
            Work::Apply(entry) => entry.id.index,
            Work::Restore(meta) => meta.last.index,
        });
        let queued = queued.next();
        let after = queued.unwrap_or(run.machine.applied).max(before);
        let in_memory = commit.through.0 - commit.entries.len() as u64;
        for index in (after.0 + 1..=in_memory).map(LogIndex) {
            let Some(entry) = node.disk.entry(index) else {
                return Err(Broken {
                    invariant: "handed-out",
                    detail: format!("node {} cannot read {index}, which it hands out", node.id),
                });
            };
            run.work.push_back(Work::Apply(entry.clone()));
        }
        for entry in commit.entries.iter().filter(|entry| entry.id.index > after) {
            run.work.push_back(Work::Apply(entry.clone()));
        }
        if in_memory > after.0 {
            self.count(Event::HandedOutFromDisk);
        }
        self.plan_apply(n);
        Ok(())
    }

    /// A leader takes nothing while as much as its limit is not committed. What it found in its log when it
    /// was elected counts only as far as it is in memory, which nobody can see from here.
    fn check_uncommitted(&self, n: usize, about: &About, first: LogIndex) -> Check {
        if !matches!(about.context, Context::Bulk | Context::Write { .. }) {
            return Ok(());
        }
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let before = run
            .shadow
            .bytes_of(run.raft.term(), about.before.commit, first);
        let most = self.fate.sizes.uncommitted_bytes;
        hold!(
            before < most,
            "limits",
            "leader {id} takes more behind {before} bytes that are not committed, of {most}"
        );
        Ok(())
    }

    fn rejected(&mut self, n: usize, about: &About, rejection: Rejection) {
        match (about.context, rejection) {
            (Context::Transfer, _) => self.count(Event::TransferRefused),
            (Context::Change, Rejection::NotReady) => self.count(Event::ChangeNotReady),
            (Context::Change, Rejection::ChangeUnderWay) => self.count(Event::ChangeUnderWay),
            (Context::Change, Rejection::Change(_)) => self.count(Event::ChangeImpossible),
            (Context::Bulk | Context::Write { .. }, Rejection::Busy) => {
                self.count(Event::ProposalBusy);
            }
            (Context::Bulk | Context::Write { .. }, Rejection::Transferring { .. }) => {
                self.count(Event::TransferFenced);
            }
            _ => {}
        }
        if let Context::Write { client, attempt } = about.context {
            self.refused(client, attempt, n, rejection);
        }
    }

    /// Reads whose index the state has reached are answered a little later: then the lease must still hold.
    pub(crate) fn answer_ready_reads(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(run) = &mut node.run else { return };
        let applied = run.machine.applied;
        let (due, later): (Vec<Ready>, Vec<Ready>) = std::mem::take(&mut run.ready)
            .into_iter()
            .partition(|ready| ready.index <= applied);
        run.ready = later;
        let start = node.config.start;
        for ready in due {
            let at = self.now + self.random.pick(&[10, 500, 3_000]);
            let node = n;
            self.plan
                .at(at, Happening::AnswerRead { node, start, ready });
        }
    }

    /// An input that nobody in particular waits for.
    pub(crate) fn say(&mut self, n: usize, input: Input) -> Check {
        self.step(n, input, Context::None)
    }
}
