//! Whom this node deals with: it follows the membership that its log says.
//!
//! Invariants:
//! - Who joins is dialled as soon as that is appended; who leaves is cut when no configuration that may still come to
//!   be in effect has it, and no leader here feeds it any more.
//! - Only what is committed binds: a data folder, a TLS name, and which ids were given. A member of an entry that may
//!   be cut off again is met by its id alone, or a leader that is none any more would turn away, for good, whom the
//!   others gave the same id.
//! - A node whose log does not name it yet goes by what was recorded when it was born, or joined.
//! - A guest (raft-net's `local.rs`) is dialled where it says that it is, as long as it has a connection here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix::prelude::*;
use raft_core::membership::{Configuration, Member};
use raft_core::{LogIndex, NodeId, Raft};
use raft_net::{Known, Limits, Local, PeerConnection, PeerEvent, TlsName};
use tokio::sync::Semaphore;

use crate::delivery::Circle;
use crate::departure::Departure;
use crate::node::{DIGESTS_MAX, Life, Node, Peer};
use crate::observe::raft_of;

/// What the membership is followed with.
pub(crate) struct Following {
    /// What was recorded of the members: what counts until the log says more. Empty for who is not born yet.
    pub(crate) known: Configuration,
    /// Where the owner lists the nodes.
    pub(crate) listed: BTreeMap<NodeId, String>,
    /// The names that the settings bind to nodes, for their certificates.
    pub(crate) tls_names: BTreeMap<NodeId, TlsName>,
    pub(crate) limits: Limits,
    pub(crate) events: Recipient<PeerEvent>,
    /// Another configuration may be in effect than when this was looked at last.
    pub(crate) changed: bool,
    /// How much of the membership had been committed then.
    pub(crate) seen: Option<Seen>,
}

/// By what it is noticed that the membership must be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    index: LogIndex,
    is_committed: bool,
}

impl Following {
    /// What is known of `id` for the handshake, if `bound` says anything of it that is known for good.
    fn met(&self, id: NodeId, bound: Option<&Member>, address: String) -> Known {
        let own = |bound: &Member| TlsName::new(bound.tls_name.clone()).ok();
        let listed = || self.tls_names.get(&id).cloned();
        Known {
            incarnation: bound.and_then(|bound| bound.incarnation),
            address,
            tls_name: bound.map(|bound| {
                own(bound)
                    .or_else(listed)
                    .unwrap_or_else(|| TlsName::of(id))
            }),
        }
    }

    /// The name that `id`'s certificate must hold.
    pub(crate) fn name_of(&self, configuration: &Configuration, id: NodeId) -> TlsName {
        let bound = configuration.about.get(&id).cloned().unwrap_or_default();
        let met = self.met(id, Some(&bound), String::new());
        met.tls_name.unwrap_or_else(|| TlsName::of(id))
    }

    /// For a node that has no log to go by yet: what is recorded, or (before that) those that are listed.
    pub(crate) fn first(&self) -> BTreeMap<NodeId, Known> {
        let mut ids = self.known.members();
        if ids.is_empty() {
            ids.extend(self.listed.keys());
        }
        let known = |id: NodeId| {
            let about = self.known.about.get(&id).cloned().unwrap_or_default();
            (id, self.met(id, Some(&about), about.address.clone()))
        };
        ids.into_iter().map(known).collect()
    }

    /// What is known of `wanted`, and the highest id that is known to have been given.
    fn known_of(
        &self,
        raft: &Raft,
        wanted: &BTreeSet<NodeId>,
    ) -> (BTreeMap<NodeId, Known>, NodeId) {
        let (latest, committed) = (raft.configuration(), raft.committed_configuration());
        let none = Member::default();
        let known = |id: NodeId| {
            let about = |from: &'_ Configuration| -> Option<Member> {
                let about = || from.about.get(&id).cloned().unwrap_or_default();
                from.contains(id).then(about)
            };
            let bound = about(committed).into_iter().chain(about(&self.known));
            // An id has one folder for good, so that the one record may say what the other does not.
            let bound = bound.reduce(|one, other| {
                if one.incarnation.is_some() {
                    one
                } else {
                    other
                }
            });
            let latest = latest.about.get(&id).or(bound.as_ref()).unwrap_or(&none);
            (id, self.met(id, bound.as_ref(), latest.address.clone()))
        };
        let known = wanted.iter().map(|id| known(*id)).collect();
        (known, committed.highest_id())
    }
}

impl Peer {
    fn dial(id: NodeId, local: &Local, following: &Following) -> Self {
        let (local, limits) = (local.clone(), following.limits.clone());
        Self {
            sender: PeerConnection::start(id, local, limits, following.events.clone()),
            is_guest: false,
            connected: false,
            fed_in: 0,
            departure: Departure::default(),
            trouble: None,
            refuses: false,
            says_removed: false,
            digests: Arc::new(Semaphore::new(DIGESTS_MAX)),
        }
    }
}

impl Node {
    /// Starts to dial those whom this node must hear from: who is listed, before it is born, and then the members.
    pub(crate) fn begin_to_meet(&mut self) {
        match &self.life {
            Life::Forming { forming, .. } => {
                for id in forming.waiting_for().collect::<Vec<_>>() {
                    self.meet_one(id, false);
                }
            }
            _ => self.follow_members(),
        }
        self.greeting.begin(self.peers.keys().copied());
    }

    /// Whom this node deals with, itself not among them. None before it takes part.
    fn acquaintances(&self) -> Option<BTreeSet<NodeId>> {
        let raft = raft_of(&self.life)?;
        let mut all = raft.acquaintances();
        if !raft.configuration().contains(self.id) {
            all.extend(self.following.known.members());
        }
        all.remove(&self.id);
        Some(all)
    }

    /// Does what another membership asks for, if it is another one.
    pub(crate) fn follow_members(&mut self) {
        let Some(raft) = raft_of(&self.life) else {
            return;
        };
        let index = raft.configuration_index();
        let seen = Seen {
            index,
            is_committed: index <= raft.commit(),
        };
        let same = self.following.seen.replace(seen) == Some(seen);
        let changed = std::mem::take(&mut self.following.changed) || !same;
        // Who is fed although it left is let go of when it knows; nothing else says when.
        let members = || self.peers.iter().filter(|(_, peer)| !peer.is_guest);
        let departing = || members().any(|(id, _)| !raft.configuration().contains(*id));
        if !changed && !departing() {
            return;
        }
        let Some(wanted) = self.acquaintances() else {
            return;
        };
        if !changed && members().map(|(id, _)| id).eq(&wanted) {
            return;
        }
        self.meet(&wanted);
    }

    /// These, and guests, are dealt with from now on.
    fn meet(&mut self, wanted: &BTreeSet<NodeId>) {
        let Some(raft) = raft_of(&self.life) else {
            return;
        };
        let mut all = wanted.clone();
        all.insert(self.id);
        let (mut known, highest) = self.following.known_of(raft, &all);
        for (id, known) in &mut known {
            // Nobody says where one is who has left, and is still to be told.
            if known.address.is_empty()
                && let Some(peer) = self.peers.get(id)
            {
                known.address = peer.sender.address();
            }
        }
        let voters = &raft.configuration().voters;
        let voters = voters
            .union(&raft.configuration().voters_outgoing)
            .copied()
            .collect();
        self.local.set_members(known, highest);
        let gone: Vec<_> = self
            .peers
            .iter()
            .filter(|(id, peer)| !peer.is_guest && !wanted.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            tracing::info!(peer = %id, "node {id} is no member any more");
            self.part_with(id);
        }
        for id in wanted {
            match self.peers.get_mut(id) {
                Some(peer) => peer.is_guest = false,
                None => self.meet_one(*id, false),
            }
        }
        self.tell_members(voters);
    }

    /// Starts to dial a node.
    fn meet_one(&mut self, id: NodeId, is_guest: bool) {
        let mut peer = Peer::dial(id, &self.local, &self.following);
        peer.is_guest = is_guest;
        self.intake.met(id);
        self.parts.senders.insert(id, peer.sender.clone());
        self.peers.insert(id, peer);
    }

    /// Lets go of all that was between this node and another.
    pub(crate) fn part_with(&mut self, id: NodeId) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        peer.sender.stop();
        self.parts.senders.remove(id);
        self.greeting.asked(id);
        self.intake.parted(id);
        self.connection_lost(id);
        self.observer.metrics.forget_peer(id);
    }

    /// Tells who applies whom to tell outcomes, and whose states decide.
    fn tell_members(&self, voters: BTreeSet<NodeId>) {
        let senders = self
            .peers
            .iter()
            .map(|(id, peer)| (*id, peer.sender.clone()))
            .collect();
        self.parts.delivery.do_send(Circle { senders, voters });
    }

    /// A node has dialled this one. If it is not known, it is a guest.
    pub(crate) fn accepted(&mut self, id: NodeId) {
        if self.peers.contains_key(&id) || raft_of(&self.life).is_none() {
            return;
        }
        if let Some(suppressed) = self.refused.line() {
            tracing::info!(peer = %id, suppressed, "node {id}, of this cluster, is not in this node's log yet");
        }
        self.meet_one(id, true);
        self.tell_members_again();
    }

    /// The connection that a node had dialled is gone, and with it a guest.
    pub(crate) fn closed(&mut self, id: NodeId) {
        if self.peers.get(&id).is_some_and(|peer| peer.is_guest) {
            self.part_with(id);
            self.tell_members_again();
        }
    }

    fn tell_members_again(&self) {
        if let Some(raft) = raft_of(&self.life) {
            let configuration = raft.configuration();
            let voters = configuration.voters.union(&configuration.voters_outgoing);
            self.tell_members(voters.copied().collect());
        }
    }
}

/// The configuration of a cluster that is born of these folders, each found where it is listed.
pub(crate) fn born_of(
    folders: impl IntoIterator<Item = (NodeId, raft_core::Incarnation)>,
    addresses: &BTreeMap<NodeId, String>,
) -> Configuration {
    let mut known = Configuration::of_folders(folders);
    complete(&mut known, addresses);
    known
}

/// Those whose addresses nobody has recorded are where they are listed.
pub(crate) fn complete(known: &mut Configuration, addresses: &BTreeMap<NodeId, String>) {
    for (id, about) in &mut known.about {
        if about.address.is_empty()
            && let Some(address) = addresses.get(id)
        {
            about.address.clone_from(address);
        }
    }
}
