//! Who belongs to the cluster as this node sees it, and, if it leads, who of them is healthy.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::membership::Configuration;
use raft_core::{NodeId, PeerState, Raft, Role, Status};

use crate::config::TICK;
use crate::node::Node;
use crate::observe::raft_of;
use crate::tolerance::{Tolerance, Why, tolerance};
use crate::{MemberRole, MemberStatus, Members};

/// A node is of use while it is no more than so many entries behind: what a busy cluster commits in a fraction of a second.
const BEHIND_MAX: u64 = 10_000;
/// What is told of the trouble with a peer, in bytes at most.
pub(crate) const TROUBLE_LEN_MAX: usize = 200;

impl Node {
    /// What is wrong with a node, as this leader, whose `status` it is, sees it.
    pub(crate) fn ailment(&self, id: NodeId, status: &Status) -> Option<Why> {
        if id == self.id {
            return None;
        }
        let peer = self.peers.get(&id);
        let trouble = || {
            let trouble = peer.and_then(|peer| peer.trouble.as_deref());
            let trouble = trouble.unwrap_or("no answer yet");
            beginning(trouble).to_owned()
        };
        let fed = status.peers.iter().find(|fed| fed.id == id);
        match fed {
            Some(fed) if fed.active => {
                let behind = status.last.index.0.saturating_sub(fed.matched.0);
                match fed.state {
                    PeerState::Snapshot => Some(Why::Snapshot),
                    PeerState::Probe => Some(Why::Behind(behind)),
                    PeerState::Replicate => (behind > BEHIND_MAX).then_some(Why::Behind(behind)),
                }
            }
            _ => match peer {
                Some(peer) if peer.connected => Some(Why::Silent),
                Some(peer) if peer.refuses => Some(Why::Refuses(trouble())),
                _ => Some(Why::NotConnected(trouble())),
            },
        }
    }

    /// Whether this node has led for long enough to have heard of whoever is there: two of the shortest election timeouts.
    pub(crate) fn knows_its_peers(&self) -> bool {
        let enough = TICK * self.core_config.election_timeout_ticks_min * 2;
        self.leads_since
            .is_some_and(|(_, since)| since.elapsed() >= enough)
    }

    /// How many more may fail, if this node leads and can know.
    pub(crate) fn tolerance(&self) -> Option<Tolerance> {
        self.tolerance_of(&self.leading()?.status())
    }

    /// The same, of this node's `status` as the leader.
    pub(crate) fn tolerance_of(&self, status: &Status) -> Option<Tolerance> {
        let members = status.configuration.members();
        let ailing = members.into_iter();
        let ailing = ailing.filter_map(|id| Some((id, self.ailment(id, status)?)));
        let ailing: BTreeMap<NodeId, Why> = ailing.collect();
        let known = ailing.is_empty() || self.knows_its_peers();
        known.then(|| tolerance(&status.configuration, &ailing))
    }

    fn leading(&self) -> Option<&Raft> {
        raft_of(&self.life).filter(|raft| raft.role() == Role::Leader)
    }

    /// All members, and all others that this node has to do with.
    pub(crate) fn member_statuses(&self, status: Option<&Status>) -> Vec<MemberStatus> {
        let leads = status.filter(|status| status.role == Role::Leader);
        let configuration = status.map(|status| &status.configuration);
        let mut ids: BTreeSet<NodeId> = self.peers.keys().copied().collect();
        ids.insert(self.id);
        ids.extend(configuration.iter().flat_map(|c| c.members()));
        let member = |id| {
            let about = configuration.and_then(|c| c.about.get(&id));
            let peer = self.peers.get(&id);
            let fed = leads.and_then(|status| status.peers.iter().find(|fed| fed.id == id));
            let address = match peer {
                Some(peer) => peer.sender.address(),
                None if id == self.id => self.own_address.clone(),
                None => about.map(|about| about.address.clone()).unwrap_or_default(),
            };
            let incarnation = match id == self.id {
                true => Some(self.incarnation),
                false => about.and_then(|about| about.incarnation),
            };
            let rounds = fed.map_or(0, |fed| fed.rounds);
            let role = configuration.and_then(|c| role(c, id, rounds));
            MemberStatus {
                id,
                address,
                connected: id == self.id || peer.is_some_and(|peer| peer.connected),
                role: role.or(fed.map(|_| MemberRole::Leaving)),
                priority: configuration.map_or(0, |c| c.priority(id)),
                incarnation,
                healthy: leads.map(|status| self.ailment(id, status).is_none()),
                queue: peer.map(|peer| peer.sender.stats()),
                progress: fed.cloned().map(Into::into),
            }
        };
        ids.into_iter().map(member).collect()
    }

    /// What the leader says of the cluster, if this node leads.
    pub(crate) fn members_as_leader(&self) -> Option<Members> {
        let raft = self.leading()?;
        let status = raft.status();
        let mut members = self.member_statuses(Some(&status));
        members.retain(|member| member.role.is_some());
        for member in &mut members {
            member.queue = None;
        }
        Some(Members {
            leader: self.id,
            term: status.term,
            index: status.configuration_index,
            committed: status.configuration_index <= status.commit,
            joint: status.configuration.is_joint(),
            tolerance: self.tolerance_of(&status),
            members,
        })
    }
}

/// As much of `text` as may be told.
fn beginning(text: &str) -> &str {
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    let end = ends.take_while(|end| *end <= TROUBLE_LEN_MAX).last();
    &text[..end.unwrap_or(0)]
}

/// What `id` is in `configuration`, if it is a member.
fn role(configuration: &Configuration, id: NodeId, rounds: u32) -> Option<MemberRole> {
    Some(if configuration.joining.contains(&id) {
        MemberRole::Joining { rounds }
    } else if configuration.voters.contains(&id) {
        MemberRole::Voter
    } else if configuration.learners.contains(&id) || configuration.learners_next.contains(&id) {
        MemberRole::Learner
    } else if configuration.voters_outgoing.contains(&id) {
        MemberRole::Leaving
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trouble_is_cut_between_two_characters() {
        assert_eq!(beginning("short"), "short");
        assert_eq!(beginning(&"a".repeat(300)).len(), TROUBLE_LEN_MAX);
        let crabs = format!("a{}", "\u{1F980}".repeat(300));
        assert_eq!(beginning(&crabs).len(), TROUBLE_LEN_MAX - 3);
    }
}
