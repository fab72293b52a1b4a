//! What a leader sees to of itself: addresses that have changed, and those who were let in and never came.

use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::Role;
use raft_core::membership::{Member, Step as CoreStep};

use super::host::COMMIT;
use crate::changing::{Undone, Wanted};
use crate::node::{Life, Node};
use crate::observe::raft_of;
use crate::step::Step;

/// How often a leader looks at who is where.
const LOOK: Duration = Duration::from_secs(1);
/// Addresses that have changed are said to all at most this often.
const DESCRIBE: Duration = Duration::from_secs(10);
/// A node that joins and does not catch up is reported each time that it has been fed so many rounds more.
const ROUNDS_REPORTED: u32 = 10;

impl Node {
    /// What a leader sees to by itself, each second.
    pub(crate) fn tend_members(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if now - self.hosting.looked < LOOK {
            return;
        }
        self.hosting.looked = now;
        self.search(ctx);
        let Life::Running(raft) = &self.life else {
            return;
        };
        if raft.role() != Role::Leader {
            self.hosting.unheard.clear();
        } else if !raft.change_is_under_way() {
            self.describe_moved(now, ctx);
            self.watch_joining(now, ctx);
        }
    }

    /// Says to all where a member is now, once this leader has reached it there.
    fn describe_moved(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let waits = self.hosting.described;
        if waits.is_some_and(|described| now - described < DESCRIBE) {
            return;
        }
        let Some(raft) = raft_of(&self.life) else {
            return;
        };
        let moved: Vec<_> = raft
            .configuration()
            .about
            .iter()
            .filter_map(|(id, about)| {
                let address = match self.peers.get(id) {
                    _ if *id == self.id => self.own_address.clone(),
                    Some(peer) if peer.connected => peer.sender.address(),
                    _ => return None,
                };
                // What the owner lists is for this node alone.
                let listed = self.following.listed.get(id) == Some(&address);
                let moved = !address.is_empty() && address != about.address && !listed;
                moved.then(|| {
                    (
                        *id,
                        Member {
                            address,
                            ..about.clone()
                        },
                    )
                })
            })
            .collect();
        if moved.is_empty() {
            return;
        }
        self.hosting.described = Some(now);
        for (id, about) in &moved {
            tracing::info!(peer = %id, "node {id} is at {} now", about.address);
        }
        let steps: Vec<_> = moved
            .into_iter()
            .map(|(id, about)| CoreStep::Describe(id, about))
            .collect();
        self.change_quietly(steps, "where members are", ctx);
    }

    /// Reports who joins and does not come, and removes who never came.
    fn watch_joining(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let Some(raft) = raft_of(&self.life) else {
            return;
        };
        let joining = raft.configuration().joining.clone();
        let hosting = &mut self.hosting;
        hosting.unheard.retain(|id, _| joining.contains(id));
        hosting.rounds.retain(|id, _| joining.contains(id));
        if joining.is_empty() {
            return;
        }
        let patience = hosting.joiner_timeout;
        let mut phantoms = Vec::new();
        for peer in raft
            .status()
            .peers
            .iter()
            .filter(|peer| joining.contains(&peer.id))
        {
            let id = peer.id;
            if peer.active {
                hosting.unheard.remove(&id);
            } else if now - *hosting.unheard.entry(id).or_insert(now) >= patience {
                phantoms.push(id);
            }
            let reported = hosting.rounds.entry(id).or_default();
            let rounds = peer.rounds;
            if rounds >= *reported + ROUNDS_REPORTED {
                *reported = rounds;
                tracing::warn!(peer = %id, rounds, "node {id} joins and is too slow to catch up: it does not vote yet");
            }
        }
        for id in &phantoms {
            tracing::warn!(peer = %id, "node {id} was let in, does not vote yet, and was silent for {patience:?}: it is removed again");
        }
        if !phantoms.is_empty() {
            let steps = phantoms.into_iter().map(CoreStep::Remove).collect();
            self.change_quietly(steps, "who never came", ctx);
        }
    }

    /// A change of this leader's own. If it comes to nothing, it is tried again.
    fn change_quietly(
        &mut self,
        steps: Vec<CoreStep>,
        what: &'static str,
        ctx: &mut Context<Self>,
    ) {
        let wanted = Wanted {
            by: None,
            steps: Box::new(move |_| Ok(steps.clone())),
            forced: false,
            deadline: Instant::now() + COMMIT,
            then: Box::new(move |_, result, _| {
                if let Err(Undone::Error(error)) = result {
                    tracing::warn!("could not say to all {what}: {error}");
                }
            }),
        };
        self.change(wanted, ctx);
    }

    /// For tests: says which steps have been made, of those that are seen in the membership.
    pub(crate) fn report_steps(&mut self) {
        if self.hosting.steps.0.is_none() {
            return;
        }
        let Some(raft) = raft_of(&self.life) else {
            return;
        };
        let now = raft.configuration();
        let leads = raft.role() == Role::Leader;
        let (before, named) = &self.hosting.seen;
        if now == before {
            return;
        }
        let steps = self.hosting.steps;
        let names = now.contains(self.id);
        let (more, votes) = (
            now.learners.difference(&before.learners).next().is_some(),
            now.voters.difference(&before.voters).next().is_some(),
        );
        let (named, first) = (*named, before.members().is_empty());
        self.hosting.seen = (now.clone(), names);
        if names && !named && !now.voters.contains(&self.id) {
            steps.at(Step::Joined);
        }
        if leads && !first && more {
            steps.at(Step::HostAppended);
        }
        if leads && !first && votes {
            steps.at(Step::Promoting);
        }
    }
}
