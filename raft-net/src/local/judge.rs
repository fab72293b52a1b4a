//! Who is admitted, and who is refused and why.
//!
//! Who is no member, and has an id above all that were ever given, is a *guest*: this node's log may only be behind, and
//! the node that it does not know yet may be the one that leads. A guest is heard and dialled like a member, but for
//! what only the log can say of it: its data folder, and with TLS its name. There are at most [`GUESTS_MAX`].

use raft_core::membership::MEMBERS_MAX;
use raft_core::{ClusterId, NodeId};
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::live::{Admission, Live};
use super::{Local, Purpose, Seen, Side, State};
use crate::cut::{Cut, Why};
use crate::handshake::Introduction;
use crate::header::{VERSION_MAX, VERSION_MIN};
use crate::{Claim, Refusal};

/// So many guests are there at most; a further one is told that there are too many connections, and comes back.
pub(crate) const GUESTS_MAX: usize = 24;

impl Local {
    /// Judges what a peer says of itself, before it has confirmed it. From then on an earlier start of it is not
    /// believed any more, so that no claim of that one comes between this and the admission. A recorded session
    /// says nothing new here: of an earlier start it is refused, and of the same one it changes nothing.
    ///
    /// `shown` is the certificate that the peer has shown, if it has.
    pub(crate) fn examine(
        &self,
        side: Side,
        theirs: &Introduction,
        shown: Option<&CertificateDer<'static>>,
    ) -> Result<(), Refusal> {
        let mut state = self.state();
        self.judge_in(&mut state, side, theirs, shown)?;
        // Of a guest nothing is remembered before it is there, or anybody could fill the memory.
        if state.members.contains_key(&theirs.from) || state.seen.contains_key(&theirs.from) {
            state.meet(theirs);
        }
        Ok(())
    }

    /// Judges what a peer says of itself and, if nothing is wrong with it, registers the connection.
    pub(crate) fn admit(
        &self,
        side: Side,
        purpose: Purpose,
        theirs: &Introduction,
        shown: Option<&CertificateDer<'static>>,
        cut: &Cut,
    ) -> Result<Admission, Refusal> {
        let mut state = self.state();
        self.judge_in(&mut state, side, theirs, shown)?;
        state.meet(theirs);
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
            shown: shown.cloned(),
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

    fn judge_in(
        &self,
        state: &mut State,
        side: Side,
        theirs: &Introduction,
        shown: Option<&CertificateDer<'static>>,
    ) -> Result<(), Refusal> {
        let judged = self.judge(state, side, theirs, shown);
        if let Err(refusal @ Refusal::LostAcknowledged { .. }) = &judged {
            state.has_lost(theirs.from, refusal);
        }
        judged
    }

    fn judge(
        &self,
        state: &State,
        side: Side,
        theirs: &Introduction,
        shown: Option<&CertificateDer<'static>>,
    ) -> Result<(), Refusal> {
        let us = &*self.0;
        let from = theirs.from;
        let member = state.members.get(&from);
        if self.tls().is_some()
            && let Some(name) = member.and_then(|member| member.tls_name.as_ref())
        {
            name.check(shown)?;
        }
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
        if member.is_none() {
            state.judge_stranger(from, theirs.cluster)?;
        }
        let folder = member.and_then(|member| member.incarnation);
        if let Some(known) = theirs.known
            && known != us.incarnation
        {
            return Err(Refusal::WrongIncarnation {
                node: us.node,
                known,
                shown: us.incarnation,
            });
        }
        if let Some(known) = folder
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
        if folder.is_none() && doubled {
            return Err(Refusal::DuplicateNode { node: from });
        }
        // Who is not born yet may still form a cluster of those that it lists. Between the born, the
        // log says who is a member, and one of the two may be behind.
        // Nor do the lists count where the born side knows the other's folder: it was there at the birth, and died before it
        // had written that down.
        let is_known = match (state.cluster, theirs.cluster) {
            (Some(_), None) => folder.is_some(),
            (None, Some(_)) => theirs.known.is_some(),
            _ => false,
        };
        if (theirs.cluster.is_none() || state.cluster.is_none()) && !is_known {
            state.lists_like(&theirs.members)?;
        }
        if member.is_none() {
            let guests = state.guests();
            if guests.len() >= GUESTS_MAX && !guests.contains(&from) {
                return Err(Refusal::TooManyConnections);
            }
        }
        Ok(())
    }
}

impl State {
    /// The members, in order.
    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    /// Those whom this node names when it introduces itself. Between the born nobody looks at them, and while a change is
    /// under way there may be more members than can be named.
    pub(super) fn introduced(&self) -> Vec<NodeId> {
        let most = match self.cluster {
            Some(_) => MEMBERS_MAX,
            None => usize::MAX,
        };
        self.members.keys().copied().take(most).collect()
    }

    /// Whether `node`, which is no member, may be one all the same: its joining may not have come here yet. `cluster`
    /// is the one that it says it is of. Ids are given in order, so that one which was given, and belongs to nobody,
    /// belongs to nobody for good.
    pub(super) fn judge_stranger(
        &self,
        node: NodeId,
        cluster: Option<ClusterId>,
    ) -> Result<(), Refusal> {
        match (self.cluster, cluster) {
            (Some(_), _) if node <= self.highest_id => Err(Refusal::Removed { node }),
            (Some(_), Some(_)) => Ok(()),
            _ => Err(Refusal::UnknownNode { node }),
        }
    }

    /// A start of a node has introduced itself, and is believed from now on.
    fn meet(&mut self, theirs: &Introduction) {
        let known = self.seen.remove(&theirs.from);
        let known = known.filter(|seen| seen.incarnation == theirs.incarnation);
        let seen = Seen {
            incarnation: theirs.incarnation,
            starts: theirs.starts,
            run: theirs.run,
            over: false,
            claims: known.map(|seen| seen.claims).unwrap_or_default(),
        };
        self.seen.insert(theirs.from, seen);
    }

    pub(super) fn lists_like(&self, theirs: &[NodeId]) -> Result<(), Refusal> {
        if theirs.iter().eq(self.members.keys()) {
            return Ok(());
        }
        Err(Refusal::OtherPeers {
            theirs: theirs.to_vec(),
            ours: self.ids(),
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
}
