//! The established connections: which of them stay when something becomes known, and what of a node is left when its
//! last one ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use raft_core::NodeId;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::{Local, Purpose, Side, State};
use crate::cut::{Cut, Why};
use crate::handshake::Introduction;
use crate::{PeerHello, Refusal};

/// An established connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) side: Side,
    pub(super) purpose: Purpose,
    pub(super) peer: NodeId,
    pub(super) hello: PeerHello,
    /// The certificate that the peer has shown, if this node has TLS.
    pub(super) shown: Option<CertificateDer<'static>>,
    /// Whom the peer lists.
    pub(super) members: Vec<NodeId>,
    pub(super) cut: Cut,
    pub(super) ended: CancellationToken,
}

impl State {
    /// Who has a connection, and is no member.
    pub(super) fn guests(&self) -> BTreeSet<NodeId> {
        let peers = self.live.values().map(|live| live.peer);
        peers
            .filter(|peer| !self.members.contains_key(peer))
            .collect()
    }

    /// Cuts what this node has dialled of an earlier start of who introduces itself: its host may be silent, and
    /// would be spoken to until that is noticed.
    pub(super) fn cut_dialled_before(&self, theirs: &Introduction) {
        for live in self.live.values() {
            let is_its = live.peer == theirs.from && live.hello.incarnation == theirs.incarnation;
            if live.side != Side::Accepted && is_its && live.hello.starts < theirs.starts {
                live.cut.cut(Why::Replaced);
            }
        }
    }

    /// Cuts those connections that `peer` has dialled and `which` says, and gives them.
    pub(super) fn cut_accepted(
        &self,
        peer: NodeId,
        why: &Why,
        which: impl Fn(&Live) -> bool,
    ) -> Vec<&Live> {
        let accepted =
            |live: &&Live| live.side == Side::Accepted && live.peer == peer && which(live);
        let cut = |live: &&Live| live.cut.cut(why.clone());
        self.live.values().filter(accepted).inspect(cut).collect()
    }

    /// Cuts the connections that would not be admitted now; with TLS if this node is `secured`.
    pub(super) fn cut_contradicted(&self, secured: bool) {
        for live in self.live.values() {
            if let Err(refusal) = self.judge_again(live, secured) {
                live.cut.cut(Why::Contradicted(refusal));
            }
        }
    }

    /// Judges a connection by what has become known since it was admitted. Of a guest that has become a member it
    /// is all that could not be judged then.
    fn judge_again(&self, live: &Live, secured: bool) -> Result<(), Refusal> {
        if let (Some(theirs), Some(ours)) = (live.hello.cluster, self.cluster)
            && theirs != ours
        {
            return Err(Refusal::WrongCluster { theirs, ours });
        }
        let Some(member) = self.members.get(&live.peer) else {
            return self.judge_stranger(live.peer, live.hello.cluster);
        };
        if let Some(known) = member.incarnation
            && known != live.hello.incarnation
        {
            return Err(Refusal::WrongIncarnation {
                node: live.peer,
                known,
                shown: live.hello.incarnation,
            });
        }
        if secured && let Some(name) = &member.tls_name {
            name.check(live.shown.as_ref())?;
        }
        // Of one who is born it was judged when it was admitted, and its list counts no more.
        if self.cluster.is_none() && live.hello.cluster.is_none() {
            self.lists_like(&live.members)?;
        }
        Ok(())
    }

    /// A connection of `peer` has ended. Of somebody who is no member nothing is kept then.
    fn ended(&mut self, peer: NodeId) {
        let has_more = self.live.values().any(|live| live.peer == peer);
        if !has_more && !self.members.contains_key(&peer) {
            self.seen.remove(&peer);
            self.said.remove(&peer);
            self.lost.remove(&peer);
            let waker = self.wakers.get(&peer);
            if waker.is_some_and(|waker| Arc::strong_count(waker) == 1) {
                self.wakers.remove(&peer);
            }
        }
    }
}

/// A connection's place among the established ones; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(super) local: Local,
    pub(super) id: u64,
    pub(super) ended: CancellationToken,
    pub(super) replaced: Vec<CancellationToken>,
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
        let mut state = self.local.state();
        if let Some(live) = state.live.remove(&self.id) {
            state.ended(live.peer);
        }
        drop(state);
        self.ended.cancel();
    }
}
