//! Who this node is, whom it knows, and which connections are established: what a handshake is
//! judged by.
//!
//! Invariants:
//! - A judgement and the registration that follows it are one step under one lock, so that of two
//!   connections that claim the same id at once one sees the other.
//! - No connection outlives what it was judged by: when the members or the cluster become known, the
//!   connections that contradict it are cut.
//! - There is at most one accepted connection of a node for each purpose: its main one, its urgent one, and
//!   one on which it sends a snapshot. All are judged by the same rules. A newer one of the same process
//!   cuts the older one of its purpose, and one of a later start on the same folder cuts all of the
//!   earlier start; it reads nothing before those have ended, but for one that brings a snapshot, which may hang
//!   in the disk. What this node has dialled of the earlier start is cut too.
//! - Of a node's starts only the newest is believed, and none that is over; a newer one is admitted only
//!   if its disk held all that the earlier ones have claimed to this node. That is decided under the same
//!   lock as claims are noted, so that no claim comes between.
//! - All that is kept is bounded by the number of members and of established connections. Of a guest (`judge.rs`)
//!   nothing is left when its last connection ends, unless it has become a member.

mod judge;
mod live;
mod purpose;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{ClusterId, Incarnation, LogIndex, NodeId, Term};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use judge::GUESTS_MAX;
pub(crate) use live::Admission;
use live::Live;
pub(crate) use purpose::{Purpose, Side};

use crate::handshake::Introduction;
use crate::header::{VERSION_MAX, VERSION_MIN};
use crate::held::Claims;
use crate::random::random_u64;
use crate::{Claim, Held, Tls, TlsName, TlsStats};

/// Who this node is and whom it knows. Clones share it.
#[derive(Clone, Debug)]
pub struct Local(Arc<Shared>, Option<Tls>);

#[derive(Debug)]
struct Shared {
    node: NodeId,
    incarnation: Incarnation,
    starts: u64,
    /// Drawn once for this process: tells two processes on copies of one folder apart.
    run: u64,
    held: Held,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cluster: Option<ClusterId>,
    members: BTreeMap<NodeId, Known>,
    /// No id up to this one is given again.
    highest_id: NodeId,
    seen: BTreeMap<NodeId, Seen>,
    live: BTreeMap<u64, Live>,
    live_next: u64,
    wakers: BTreeMap<NodeId, Arc<Notify>>,
    /// Where this node says that it is dialled.
    advertised: String,
    /// Where the owner's list says that the others are.
    listed: BTreeMap<NodeId, String>,
    /// Where the others said that they are.
    said: BTreeMap<NodeId, String>,
    /// Who came back without what it had claimed, since that was asked.
    lost: BTreeSet<NodeId>,
}

/// What is known of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its data folder, once that is known for good: another one is refused.
    pub incarnation: Option<Incarnation>,
    /// Where it is dialled (`host:port`), as its cluster knows it; empty if that is not known.
    pub address: String,
    /// The name that its certificate must hold, by default [`TlsName::of`] its id. None while that is not known for
    /// good: then any certificate of the CA will do.
    pub tls_name: Option<TlsName>,
}

/// The last that a node has shown of itself.
#[derive(Debug)]
struct Seen {
    incarnation: Incarnation,
    starts: u64,
    run: u64,
    /// A later start was met, and refused: this one is believed to have ended.
    over: bool,
    /// What this and earlier starts on the folder have claimed.
    claims: Claims,
}

impl Local {
    /// This node.
    ///
    /// `starts` counts the starts on the data folder and must be higher at each: a node that shows a
    /// lower count than a peer has seen, or the same count from another process, is refused as a
    /// copy. `cluster` is none until the node is born. `members` lists every peer and this node
    /// itself; while one of two nodes is not born, they must list the same ones. No id counts as given before
    /// [`set_members`](Self::set_members) says so. `held` is what the disk held when this process started.
    #[must_use]
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        starts: u64,
        cluster: Option<ClusterId>,
        members: BTreeMap<NodeId, Known>,
        held: Held,
    ) -> Self {
        let state = State {
            cluster,
            members,
            ..State::default()
        };
        let shared = Shared {
            node,
            incarnation,
            starts,
            run: random_u64(),
            held,
            state: Mutex::new(state),
        };
        Self(Arc::new(shared), None)
    }

    /// Has every connection of this node, dialled or accepted, go through TLS. To be called before the first one.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self(self.0, Some(tls))
    }

    /// What has become of the TLS files, if this node has TLS.
    #[must_use]
    pub fn tls_stats(&self) -> Option<TlsStats> {
        self.tls().map(Tls::stats)
    }

    /// What every connection goes through, if anything.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.1.as_ref()
    }

    /// From now on this node says that it is dialled at `address` (`host:port`, at most
    /// [`ADDRESS_LEN_MAX`](crate::ADDRESS_LEN_MAX) bytes; empty for nothing to say).
    pub fn advertise(&self, address: impl Into<String>) {
        self.state().advertised = address.into();
    }

    /// The owner's own list says that `peer` is dialled at `address` (`host:port`): it is tried there first.
    pub fn list(&self, peer: NodeId, address: impl Into<String>) {
        self.state().listed.insert(peer, address.into());
    }

    /// Where `peer` may be dialled, in the order in which that is tried: where the owner lists it, where it
    /// has said itself that it is, where its cluster knows it.
    #[must_use]
    pub fn addresses(&self, peer: NodeId) -> Vec<String> {
        let state = self.state();
        let known = state.members.get(&peer).map(|known| &known.address);
        let all = [state.listed.get(&peer), state.said.get(&peer), known];
        let mut addresses: Vec<String> = Vec::new();
        for address in all.into_iter().flatten() {
            if !address.is_empty() && !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// The name that `peer`'s certificate must hold, if that is known.
    pub(crate) fn tls_name(&self, peer: NodeId) -> Option<TlsName> {
        let state = self.state();
        state.members.get(&peer)?.tls_name.clone()
    }

    /// Whether `node` is a member, or has a connection.
    pub(crate) fn is_here(&self, node: NodeId) -> bool {
        let state = self.state();
        state.members.contains_key(&node) || state.live.values().any(|live| live.peer == node)
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Makes these the members, this node among them if it is one; `highest_id` is the highest id that was ever
    /// given in the cluster. Connections that contradict it are cut.
    ///
    /// A node that is not among them is refused for good if its id is not above `highest_id`
    /// ([`Refusal::Removed`](crate::Refusal::Removed)), so that only what is committed may raise it.
    pub fn set_members(&self, members: BTreeMap<NodeId, Known>, highest_id: NodeId) {
        let mut state = self.state();
        (state.members, state.highest_id) = (members, highest_id);
        let mut here: BTreeSet<_> = state.members.keys().copied().collect();
        let guests = state.guests().into_iter();
        here.extend(guests.filter(|node| state.judge_stranger(*node, state.cluster).is_ok()));
        let State {
            seen,
            said,
            lost,
            wakers,
            ..
        } = &mut *state;
        seen.retain(|node, _| here.contains(node));
        said.retain(|node, _| here.contains(node));
        lost.retain(|node| here.contains(node));
        // What nobody waits for is of a peer that is not dialled any more.
        wakers.retain(|_, waker| Arc::strong_count(waker) > 1);
        state.cut_contradicted(self.tls().is_some());
    }

    /// Makes this the node's cluster. Connections that contradict it are cut.
    pub fn set_cluster(&self, cluster: ClusterId) {
        let mut state = self.state();
        state.cluster = Some(cluster);
        state.cut_contradicted(self.tls().is_some());
    }

    /// Takes note of what `peer`, in its start `starts`, claims of its disk. False if a later start of it
    /// was met: that one was judged without this claim, and nothing that an earlier one said may count.
    #[must_use]
    pub fn witness(&self, peer: NodeId, starts: u64, claim: Option<Claim>) -> bool {
        let mut state = self.state();
        let Some(seen) = state.seen.get_mut(&peer) else {
            return false; // It is not here any more.
        };
        if seen.over || seen.starts != starts {
            return false;
        }
        if let Some(claim) = claim {
            seen.claims.note(claim);
        }
        true
    }

    /// This node leads `term`, and knows that its log is committed through `commit`: what of it a peer
    /// has claimed in this term must be on that peer's disk for good.
    pub fn committed(&self, term: Term, commit: LogIndex) {
        for seen in self.state().seen.values_mut() {
            seen.claims.commit(term, commit);
        }
    }

    /// The nodes that came back without what they had claimed, and were refused, since this was asked
    /// last. What was counted on them is to be forgotten.
    #[must_use]
    pub fn take_lost(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.state().lost)
    }

    /// What this node's disk held when its process started.
    #[must_use]
    pub fn held(&self) -> Held {
        self.0.held
    }

    /// What this node says of itself to `peer`.
    pub(crate) fn introduction(&self, peer: NodeId) -> Introduction {
        let state = self.state();
        Introduction {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster: state.cluster,
            from: self.0.node,
            to: peer,
            incarnation: self.0.incarnation,
            starts: self.0.starts,
            run: self.0.run,
            known: state.members.get(&peer).and_then(|known| known.incarnation),
            held: self.0.held,
            members: state.introduced(),
            address: state.advertised.clone(),
            nonce: 0,
        }
    }

    /// What tells that the urgent connection which `peer` has dialled is at its end, if there is one.
    pub(crate) fn urgent_ended(&self, peer: NodeId) -> Option<CancellationToken> {
        let state = self.state();
        let urgent = |live: &&Live| {
            live.side == Side::Accepted && live.purpose == Purpose::Urgent && live.peer == peer
        };
        state
            .live
            .values()
            .find(urgent)
            .map(|live| live.ended.clone())
    }

    /// Is notified when `peer` has dialled us: it is there, so that dialling it need not wait.
    pub(crate) fn waker(&self, peer: NodeId) -> Arc<Notify> {
        Arc::clone(self.state().wakers.entry(peer).or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, what is there is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
