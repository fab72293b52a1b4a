//! Who this node is, whom it knows, and which connections are established: what a handshake is
//! judged by.
//!
//! Invariants:
//! - A judgement and the registration that follows it are one step under one lock, so that of two
//!   connections that claim the same id at once one sees the other.
//! - No connection outlives what it was judged by: when the members or the cluster become known, the
//!   connections that contradict it are cut.
//! - There is at most one accepted connection of a node. A newer one of the same process, or of a
//!   later start on the same folder, cuts the older one, and reads nothing before that has ended.
//! - All that is kept is bounded by the number of members and of established connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{ClusterId, Incarnation, NodeId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cut::{Cut, Why};
use crate::handshake::Introduction;
use crate::header::{VERSION_MAX, VERSION_MIN};
use crate::random::random_u64;
use crate::{PeerHello, Refusal};

/// Who this node is and whom it knows. Clones share it.
#[derive(Clone, Debug)]
pub struct Local(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: NodeId,
    incarnation: Incarnation,
    starts: u64,
    /// Drawn once for this process: tells two processes on copies of one folder apart.
    run: u64,
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
}

/// The last that a node has shown of itself.
#[derive(Debug)]
struct Seen {
    incarnation: Incarnation,
    starts: u64,
    run: u64,
}

/// An established connection.
#[derive(Debug)]
struct Live {
    side: Side,
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

impl Local {
    /// This node.
    ///
    /// `starts` counts the starts on the data folder and must be higher at each: a node that shows a
    /// lower count than a peer has seen, or the same count from another process, is refused as a
    /// copy. `cluster` is none until the node is born. `members` lists every peer and this node
    /// itself, each with its incarnation once that is known for good; while one of two nodes is not
    /// born, they must list the same ones.
    #[must_use]
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        starts: u64,
        cluster: Option<ClusterId>,
        members: BTreeMap<NodeId, Option<Incarnation>>,
    ) -> Self {
        let state = State {
            cluster,
            members,
            ..State::default()
        };
        Self(Arc::new(Shared {
            node,
            incarnation,
            starts,
            run: random_u64(),
            state: Mutex::new(state),
        }))
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
        let State { members, seen, .. } = &mut *state;
        seen.retain(|node, _| members.contains_key(node));
        state.cut_contradicted();
    }

    /// Makes this the node's cluster. Connections that contradict it are cut.
    pub fn set_cluster(&self, cluster: ClusterId) {
        let mut state = self.state();
        state.cluster = Some(cluster);
        state.cut_contradicted();
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
            members: state.listed(),
        }
    }

    /// Judges what a peer says of itself and, if nothing is wrong with it, registers the connection.
    pub(crate) fn admit(
        &self,
        side: Side,
        theirs: &Introduction,
        cut: &Cut,
    ) -> Result<Admission, Refusal> {
        let mut state = self.state();
        self.judge(&state, side, theirs)?;
        let seen = Seen {
            incarnation: theirs.incarnation,
            starts: theirs.starts,
            run: theirs.run,
        };
        state.seen.insert(theirs.from, seen);
        let mut replaced = Vec::new();
        if side == Side::Accepted {
            for live in state.live.values() {
                if live.side == Side::Accepted && live.peer == theirs.from {
                    live.cut.cut(Why::Replaced);
                    replaced.push(live.ended.clone());
                }
            }
            if let Some(waker) = state.wakers.get(&theirs.from) {
                waker.notify_one();
            }
        }
        let ended = CancellationToken::new();
        let live = Live {
            side,
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
        }
        let doubled = state
            .live
            .values()
            .any(|live| live.peer == from && live.hello.incarnation != theirs.incarnation);
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
