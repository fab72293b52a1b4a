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
//! - All that is kept is bounded by the number of members and of established connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{ClusterId, Incarnation, LogIndex, NodeId, Term};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cut::{Cut, Why};
use crate::handshake::Introduction;
use crate::header::{FrameKind, VERSION_MAX, VERSION_MIN};
use crate::held::Claims;
use crate::random::random_u64;
use crate::{Claim, Held, PeerHello, Refusal, Tls, TlsStats};

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
    members: BTreeMap<NodeId, Option<Incarnation>>,
    seen: BTreeMap<NodeId, Seen>,
    live: BTreeMap<u64, Live>,
    live_next: u64,
    wakers: BTreeMap<NodeId, Arc<Notify>>,
    /// Where this node says that it is dialled.
    advertised: String,
    /// Where the others said that they are.
    said: BTreeMap<NodeId, String>,
    /// Who came back without what it had claimed, since that was asked.
    lost: BTreeSet<NodeId>,
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

/// An established connection.
#[derive(Debug)]
struct Live {
    side: Side,
    purpose: Purpose,
    peer: NodeId,
    hello: PeerHello,
    /// Whom the peer lists.
    members: Vec<NodeId>,
    cut: Cut,
    ended: CancellationToken,
}

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// We did, and wanted this node.
    Dialled(NodeId),
    /// The other side did.
    Accepted,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The peer's main connection, by which it counts as connected.
    Main,
    /// The peer's votes and heartbeats.
    Urgent,
    /// One snapshot.
    Snapshot,
}

impl Purpose {
    /// The kinds of frames that a connection may begin with.
    pub(crate) const HELLOS: [FrameKind; 3] = [
        FrameKind::Hello,
        FrameKind::UrgentHello,
        FrameKind::SnapshotHello,
    ];

    /// What a connection that begins so is for.
    pub(crate) fn of(hello: FrameKind) -> Self {
        match hello {
            FrameKind::UrgentHello => Self::Urgent,
            FrameKind::SnapshotHello => Self::Snapshot,
            _ => Self::Main,
        }
    }

    /// The kind of frame by which the dialling side says so.
    pub(crate) fn hello(self) -> FrameKind {
        match self {
            Self::Main => FrameKind::Hello,
            Self::Urgent => FrameKind::UrgentHello,
            Self::Snapshot => FrameKind::SnapshotHello,
        }
    }
}

impl Local {
    /// This node.
    ///
    /// `starts` counts the starts on the data folder and must be higher at each: a node that shows a
    /// lower count than a peer has seen, or the same count from another process, is refused as a
    /// copy. `cluster` is none until the node is born. `members` lists every peer and this node
    /// itself, each with its incarnation once that is known for good; while one of two nodes is not
    /// born, they must list the same ones. `held` is what the disk held when this process started.
    #[must_use]
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        starts: u64,
        cluster: Option<ClusterId>,
        members: BTreeMap<NodeId, Option<Incarnation>>,
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
    /// [`ADDRESS_LEN_MAX`](crate::ADDRESS_LEN_MAX) bytes; empty for nothing to say). A peer tries there too when
    /// nobody answers where its own list says.
    pub fn advertise(&self, address: impl Into<String>) {
        self.state().advertised = address.into();
    }

    /// Where `peer` said last that it is dialled, if it did.
    pub(crate) fn said_address(&self, peer: NodeId) -> Option<String> {
        self.state().said.get(&peer).cloned()
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Makes these the members, known for good. Connections that contradict it are cut.
    pub fn set_members(&self, members: BTreeMap<NodeId, Incarnation>) {
        let mut state = self.state();
        state.members = members
            .into_iter()
            .map(|(node, incarnation)| (node, Some(incarnation)))
            .collect();
        let State {
            members,
            seen,
            said,
            ..
        } = &mut *state;
        seen.retain(|node, _| members.contains_key(node));
        said.retain(|node, _| members.contains_key(node));
        state.cut_contradicted();
    }

    /// Makes this the node's cluster. Connections that contradict it are cut.
    pub fn set_cluster(&self, cluster: ClusterId) {
        let mut state = self.state();
        state.cluster = Some(cluster);
        state.cut_contradicted();
    }

    /// Takes note of what `peer`, in its start `starts`, claims of its disk. False if a later start of it
    /// was met: that one was judged without this claim, and nothing that an earlier one said may count.
    #[must_use]
    pub fn witness(&self, peer: NodeId, starts: u64, claim: Option<Claim>) -> bool {
        let mut state = self.state();
        let Some(seen) = state.seen.get_mut(&peer) else {
            return false; // It is no member any more.
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
            known: state.members.get(&peer).copied().flatten(),
            held: self.0.held,
            members: state.listed(),
            address: state.advertised.clone(),
            nonce: 0,
        }
    }

    /// Judges what a peer says of itself, before it has confirmed it. From then on an earlier start of it is not
    /// believed any more, so that no claim of that one comes between this and the admission. A recorded session
    /// says nothing new here: of an earlier start it is refused, and of the same one it changes nothing.
    pub(crate) fn examine(&self, side: Side, theirs: &Introduction) -> Result<(), Refusal> {
        self.examine_in(&mut self.state(), side, theirs)
    }

    fn examine_in(
        &self,
        state: &mut State,
        side: Side,
        theirs: &Introduction,
    ) -> Result<(), Refusal> {
        if let Err(refusal) = self.judge(state, side, theirs) {
            if matches!(refusal, Refusal::LostAcknowledged { .. }) {
                state.has_lost(theirs.from, &refusal);
            }
            return Err(refusal);
        }
        let known = state.seen.remove(&theirs.from);
        let known = known.filter(|seen| seen.incarnation == theirs.incarnation);
        let seen = Seen {
            incarnation: theirs.incarnation,
            starts: theirs.starts,
            run: theirs.run,
            over: false,
            claims: known.map(|seen| seen.claims).unwrap_or_default(),
        };
        state.seen.insert(theirs.from, seen);
        Ok(())
    }

    /// Judges what a peer says of itself and, if nothing is wrong with it, registers the connection.
    pub(crate) fn admit(
        &self,
        side: Side,
        purpose: Purpose,
        theirs: &Introduction,
        cut: &Cut,
    ) -> Result<Admission, Refusal> {
        let mut state = self.state();
        self.examine_in(&mut state, side, theirs)?;
        if !theirs.address.is_empty() {
            state.said.insert(theirs.from, theirs.address.clone());
        }
        let mut replaced = Vec::new();
        if side == Side::Accepted {
            let cut = state.cut_accepted(theirs.from, &Why::Replaced, |live| {
                live.purpose == purpose || live.hello.starts != theirs.starts
            });
            let cut = cut.iter();
            let awaited =
                cut.filter(|live| live.purpose != Purpose::Snapshot || live.purpose == purpose);
            replaced = awaited.map(|live| live.ended.clone()).collect();
            state.cut_dialled_before(theirs);
            if let Some(waker) = state.wakers.get(&theirs.from) {
                waker.notify_one();
            }
        }
        let ended = CancellationToken::new();
        let live = Live {
            side,
            purpose,
            peer: theirs.from,
            hello: theirs.hello(),
            members: theirs.members.clone(),
            cut: cut.clone(),
            ended: ended.clone(),
        };
        let id = state.live_next;
        state.live_next += 1;
        state.live.insert(id, live);
        Ok(Admission {
            local: self.clone(),
            id,
            ended,
            replaced,
        })
    }

    fn judge(&self, state: &State, side: Side, theirs: &Introduction) -> Result<(), Refusal> {
        let us = &*self.0;
        let from = theirs.from;
        if theirs.version_max.min(VERSION_MAX) < theirs.version_min.max(VERSION_MIN) {
            return Err(Refusal::Version {
                theirs_min: theirs.version_min,
                theirs_max: theirs.version_max,
                ours_min: VERSION_MIN,
                ours_max: VERSION_MAX,
            });
        }
        if let (Some(theirs), Some(ours)) = (theirs.cluster, state.cluster)
            && theirs != ours
        {
            return Err(Refusal::WrongCluster { theirs, ours });
        }
        if from == us.node {
            return Err(if theirs.run == us.run {
                Refusal::Itself { node: from }
            } else {
                Refusal::DuplicateNode { node: from }
            });
        }
        if let Side::Dialled(asked) = side
            && asked != from
        {
            return Err(Refusal::NotMe { asked, am: from });
        }
        if theirs.to != us.node {
            return Err(Refusal::NotMe {
                asked: theirs.to,
                am: us.node,
            });
        }
        let Some(member) = state.members.get(&from) else {
            return Err(Refusal::UnknownNode { node: from });
        };
        if let Some(known) = theirs.known
            && known != us.incarnation
        {
            return Err(Refusal::WrongIncarnation {
                node: us.node,
                known,
                shown: us.incarnation,
            });
        }
        if let Some(known) = *member
            && known != theirs.incarnation
        {
            return Err(Refusal::WrongIncarnation {
                node: from,
                known,
                shown: theirs.incarnation,
            });
        }
        if let Some(seen) = state.seen.get(&from)
            && seen.incarnation == theirs.incarnation
        {
            if theirs.starts < seen.starts {
                return Err(Refusal::OldCopy {
                    node: from,
                    seen_starts: seen.starts,
                    shown: theirs.starts,
                });
            }
            if theirs.starts == seen.starts && theirs.run != seen.run {
                return Err(Refusal::DuplicateNode { node: from });
            }
            // A process is asked once, when it is new: what it held at its start says nothing of what it
            // has claimed since.
            if theirs.starts > seen.starts
                && let Some(Claim { term, through }) = seen.claims.missing(theirs.held)
            {
                return Err(Refusal::LostAcknowledged {
                    node: from,
                    term,
                    acknowledged: through,
                    found_term: theirs.held.term,
                    found: theirs.held.last,
                });
            }
        }
        let doubled = state.live.values().any(|live| {
            live.purpose == Purpose::Main
                && live.peer == from
                && live.hello.incarnation != theirs.incarnation
        });
        if member.is_none() && doubled {
            return Err(Refusal::DuplicateNode { node: from });
        }
        // Who is not born yet may still form a cluster of those that it lists. Between the born, the
        // log says who is a member, and one of the two may be behind.
        if theirs.cluster.is_none() || state.cluster.is_none() {
            state.lists_like(&theirs.members)?;
        }
        Ok(())
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

impl State {
    /// The members, in order.
    fn listed(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    fn lists_like(&self, theirs: &[NodeId]) -> Result<(), Refusal> {
        if theirs.iter().eq(self.members.keys()) {
            return Ok(());
        }
        Err(Refusal::OtherPeers {
            theirs: theirs.to_vec(),
            ours: self.listed(),
        })
    }

    /// `peer` has come back without what it had claimed. What its earlier start said, and is perhaps
    /// still on its way, does not count any more. If that start lives after all (this one is a copy),
    /// it dials again, and is admitted.
    fn has_lost(&mut self, peer: NodeId, refusal: &Refusal) {
        if let Some(seen) = self.seen.get_mut(&peer)
            && !std::mem::replace(&mut seen.over, true)
        {
            self.lost.insert(peer);
            self.cut_accepted(peer, &Why::Contradicted(refusal.clone()), |_| true);
        }
    }

    /// Cuts what this node has dialled of an earlier start of who introduces itself: its host may be silent, and
    /// would be spoken to until that is noticed.
    fn cut_dialled_before(&self, theirs: &Introduction) {
        for live in self.live.values() {
            let is_its = live.peer == theirs.from && live.hello.incarnation == theirs.incarnation;
            if live.side != Side::Accepted && is_its && live.hello.starts < theirs.starts {
                live.cut.cut(Why::Replaced);
            }
        }
    }

    /// Cuts those connections that `peer` has dialled and `which` says, and gives them.
    fn cut_accepted(&self, peer: NodeId, why: &Why, which: impl Fn(&Live) -> bool) -> Vec<&Live> {
        let accepted =
            |live: &&Live| live.side == Side::Accepted && live.peer == peer && which(live);
        let cut = |live: &&Live| live.cut.cut(why.clone());
        self.live.values().filter(accepted).inspect(cut).collect()
    }

    fn cut_contradicted(&self) {
        for live in self.live.values() {
            let refusal = match (
                self.members.get(&live.peer),
                live.hello.cluster,
                self.cluster,
            ) {
                (None, ..) => Refusal::UnknownNode { node: live.peer },
                (Some(Some(known)), ..) if *known != live.hello.incarnation => {
                    Refusal::WrongIncarnation {
                        node: live.peer,
                        known: *known,
                        shown: live.hello.incarnation,
                    }
                }
                (_, Some(theirs), Some(ours)) if theirs != ours => {
                    Refusal::WrongCluster { theirs, ours }
                }
                (.., None) => match self.lists_like(&live.members) {
                    Err(refusal) => refusal,
                    Ok(()) => continue,
                },
                _ => continue,
            };
            live.cut.cut(Why::Contradicted(refusal));
        }
    }
}

/// A connection's place among the established ones; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    local: Local,
    id: u64,
    ended: CancellationToken,
    replaced: Vec<CancellationToken>,
}

impl Admission {
    /// Waits until the connections that this one replaced have ended: from then on they hand over
    /// nothing.
    pub(crate) async fn alone(&mut self) {
        for ended in self.replaced.drain(..) {
            ended.cancelled().await;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.local.state().live.remove(&self.id);
        self.ended.cancel();
    }
}
