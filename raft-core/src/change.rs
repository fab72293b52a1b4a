//! How a leader changes who belongs to the cluster (paper §6, thesis §4). What a change makes of a
//! configuration is in [`membership`](crate::membership).
//!
//! Invariants:
//! - One change at a time, and none before an entry of the leader's own term is committed.
//! - A configuration is in effect from the moment it is appended, on every node by itself.
//! - A leader that is no voter any more leads until that is committed, and does not count itself.

use std::collections::BTreeSet;

use crate::membership::{Change, Configuration, Step, apply};
use crate::progress::Progress;
use crate::raft::{Raft, RoleState};
use crate::{Effect, EntryKind, NodeId, OpenMessage, Rejection, StepDown, TimeoutNow};

impl Raft {
    /// The last configuration that is known to be committed. What it says nothing can take back.
    ///
    /// That may be further than the commit index, which a node knows less of after a restart than it did before: a
    /// configuration is appended only when the one before it is committed.
    #[must_use]
    pub fn committed_configuration(&self) -> &Configuration {
        self.roster.committed(self.commit)
    }

    /// Everybody whom this node may have to hear, or to tell something: the members of each configuration that may
    /// be in effect, should the log be cut, and whom this leader still feeds although they left. It is one of them
    /// itself, if it is a member.
    ///
    /// So who joins is in it as soon as its entry is appended, and who leaves as long as that is not committed.
    #[must_use]
    pub fn acquaintances(&self) -> BTreeSet<NodeId> {
        let possible = self.roster.possible(self.commit);
        let mut all: BTreeSet<NodeId> = possible.flat_map(Configuration::members).collect();
        if let RoleState::Leader(leading) = &self.role {
            all.extend(leading.peers.keys());
        }
        all
    }

    /// Whether the latest configuration is not committed yet, as far as this node knows, or no entry of the current
    /// term is: then a leader cannot know. While it is so a leader begins no change.
    #[must_use]
    pub fn change_is_under_way(&self) -> bool {
        self.roster.latest_index() > self.commit || !self.has_committed_in_its_term()
    }

    pub(crate) fn change_membership(&mut self, change: &Change) {
        let leader = self.leader;
        if self.leading().is_none() {
            return self.reject(Rejection::NotLeader { leader });
        }
        if let Some(to) = self.transfer_target() {
            return self.reject(Rejection::Transferring { to });
        }
        if !self.has_committed_in_its_term() {
            return self.reject(Rejection::NotReady);
        }
        if self.change_is_under_way() {
            return self.reject(Rejection::ChangeUnderWay);
        }
        match apply(self.roster.latest(), change) {
            Ok(configuration) => {
                let (first, term) = (self.log.last().index.next(), self.term());
                let changes = configuration != **self.roster.latest();
                let count = usize::from(changes);
                self.gathered
                    .effects
                    .push(Effect::Appended { first, term, count });
                if changes {
                    self.append_configuration(configuration);
                }
            }
            Err(error) => self.reject(Rejection::Change(error)),
        }
    }

    fn append_configuration(&mut self, configuration: Configuration) {
        self.append(EntryKind::Configuration, vec![configuration.encode()]);
        self.roster.push(self.log.last().index, configuration);
        self.configuration_changed();
        self.adopt_peers();
        if let Some(leading) = self.leading() {
            leading.rounds.forget_lease();
        }
        self.feed_all();
        // Another majority may have more than the last one had.
        self.advance_commit();
    }

    /// Feeds whoever is a member now; who was one is fed until it knows that it is none.
    fn adopt_peers(&mut self) {
        let (own, last) = (self.config.id, self.log.last().index);
        let members = self.roster.latest().members();
        let joining = self.roster.latest().joining.clone();
        let Some(leading) = self.leading() else {
            return;
        };
        for id in members.iter().filter(|id| **id != own) {
            let peer = leading.peers.entry(*id);
            let peer = peer.or_insert_with(|| Progress::new(last));
            if peer.departing.is_some() {
                // Who comes again may come with an empty disk.
                *peer = Progress::new(last);
            }
            let joins = joining.contains(id);
            if joins && !peer.joins {
                peer.begin_to_catch_up(last);
            }
            peer.joins = joins;
        }
        for (id, peer) in &mut leading.peers {
            if !members.contains(id) {
                peer.departing.get_or_insert(last);
            }
        }
    }

    /// Feeds those who left no longer than until they know it, or could have known it.
    pub(crate) fn tick_departing(&mut self) {
        let (commit, patience) = (self.commit, self.config.election_timeout_ticks_max);
        let Some(leading) = self.leading() else {
            return;
        };
        leading.peers.retain(|_, peer| {
            let Some(index) = peer.departing else {
                return true;
            };
            peer.departing_ticks += u32::from(commit >= index);
            let knows = peer.departing_round.is_some_and(|told| peer.round >= told);
            !knows && peer.departing_ticks < patience
        });
    }

    /// Goes on by itself with what a change began, once its last configuration is committed: leaves a joint
    /// configuration, or makes a voter of who has caught up.
    pub(crate) fn continue_change(&mut self) {
        let roster = self.roster.latest();
        let nothing = roster.joining.is_empty() && !roster.auto_leave;
        if nothing || self.leading().is_none() {
            return;
        }
        if self.change_is_under_way() || self.transfer_target().is_some() {
            return;
        }
        let roster = self.roster.latest();
        let change = if roster.is_joint() {
            roster.auto_leave.then_some(Change::LeaveJoint)
        } else {
            let caught_up = self.caught_up();
            caught_up.map(|id| Change::Simple(vec![Step::AddVoter(id)]))
        };
        if let Some(change) = change
            && let Ok(configuration) = apply(self.roster.latest(), &change)
        {
            self.append_configuration(configuration);
        }
    }

    /// The first of those who join that has caught up (thesis §4.2.1): its last round was short, and so is
    /// the present one so far.
    fn caught_up(&mut self) -> Option<NodeId> {
        let joining = self.roster.latest().joining.clone();
        let patience = self.config.election_timeout_ticks_min;
        let leading = self.leading()?;
        let done = |id: &NodeId| {
            let peer = leading.peers.get(id);
            peer.is_some_and(|peer| peer.catch_up.done && peer.catch_up.ticks < patience)
        };
        joining.into_iter().find(done)
    }

    /// Once it is committed that this leader votes no more, it leads no more; the others know the commit
    /// index by what this step sends, and one of them need not wait.
    pub(crate) fn resign_if_removed(&mut self) {
        if self.roster.latest().votes(self.config.id)
            || self.leading().is_none()
            || self.change_is_under_way()
        {
            return;
        }
        let term = self.term();
        if let Some(to) = self.most_advanced_voter() {
            self.send(to, OpenMessage::TimeoutNow(TimeoutNow { term }));
        }
        self.step_down(StepDown::Removed);
    }
}
