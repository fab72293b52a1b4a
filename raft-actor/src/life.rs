//! A node's life: started, formed, running, and ended in order or by a failure.

use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::membership::Configuration;
use raft_core::{ClusterId, NodeId, Raft, Recovered};
use raft_net::{Ending, PeerEvent, Refusal};
use raft_storage::{Record, StorageError};

use crate::birth::Birth;
use crate::boot_time::boot_time;
use crate::departure::Departure;
use crate::members::born_of;
use crate::node::{Life, Node};
use crate::observe::raft_of;
use crate::{MembershipError, NodeFailure, ProposeError, ReadError};

/// How long a shutdown waits for what is on its way to be committed.
const DRAIN: Duration = Duration::from_secs(1);
/// How long it then waits for another node to take the leadership over.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long [`Ended`](crate::Ended) waits for a failed node to let go of its disk. A program that is told
/// usually exits, and RocksDB's threads do not survive that in order; but a disk that hangs must not keep it.
const LET_GO_BEFORE_TOLD: Duration = Duration::from_millis(500);

impl Node {
    /// If every listed peer has answered, makes the list of them durable; then the node takes part.
    pub(crate) fn consider_birth(&mut self, ctx: &mut Context<Self>) {
        let Life::Forming { forming, .. } = &mut self.life else {
            return;
        };
        let Some(members) = forming.complete().filter(|_| !forming.recording) else {
            return;
        };
        forming.recording = true;
        let known = born_of(members, &self.following.listed);
        let highest = known.highest_id();
        self.following.known = known.clone();
        self.local.set_members(self.following.first(), highest);
        self.record(Some(known), None, ctx, Node::born_unanimously);
    }

    /// The list of members is durable: from here on this node votes and acknowledges.
    fn born_unanimously(&mut self, ctx: &mut Context<Self>) {
        let Life::Forming { recovered, .. } = &mut self.life else {
            return;
        };
        let recovered = std::mem::take(recovered);
        let known = &self.following.known;
        tracing::info!(nodes = known.voters.len(), "every listed node has answered");
        // What passed since the clock was last looked at counts for the protocol's clock too: by the time of now, leases
        // would end too late.
        self.took_part_since = self.clock.counted();
        match take_part(&mut self.core_config, known, recovered) {
            Ok(raft) => self.life = Life::Running(Box::new(raft)),
            Err(failure) => self.fail(failure, ctx),
        }
    }

    /// Makes durable what was learned of the cluster, then goes on with `then`.
    pub(crate) fn record(
        &mut self,
        known: Option<Configuration>,
        cluster: Option<ClusterId>,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        let sent = self
            .parts
            .storage
            .send(Record {
                known,
                cluster,
                ..Record::default()
            })
            .into_actor(self);
        ctx.spawn(sent.map(|result, node, ctx| match result {
            Ok(Ok(())) => then(node, ctx),
            Ok(Err(StorageError::Closed)) => {}
            Ok(Err(error)) => node.fail(error.into(), ctx),
            Err(_) => node.watch_parts(ctx),
        }));
    }

    /// A connection came, went, or was refused.
    pub(crate) fn peer_event(&mut self, event: PeerEvent, ctx: &mut Context<Self>) {
        match event {
            PeerEvent::Connected { peer: id, hello } => {
                self.greeting.satisfied(id);
                let Some(peer) = self.peers.get_mut(&id) else {
                    return;
                };
                (peer.connected, peer.trouble) = (true, None);
                (peer.refuses, peer.says_removed) = (false, false);
                peer.says_removed = false;
                peer.departure.connected();
                if let Life::Forming { forming, .. } = &mut self.life {
                    forming.heard(id, hello.incarnation);
                    self.consider_birth(ctx);
                }
            }
            PeerEvent::Lost {
                peer,
                reset,
                reason,
            } => {
                tracing::info!(%peer, "connection lost: {reason}");
                self.trouble(peer, reason.to_string());
                self.connection_lost(peer);
                self.managing.connection_lost(peer);
                self.step(raft_core::Input::PeerUnreachable(peer), ctx);
                self.departs(peer, |departure| departure.lost(reset), ctx);
                if let Ending::Refused(refusal) = reason {
                    self.heed(peer, &refusal, ctx);
                }
            }
            PeerEvent::Unreachable {
                peer,
                refused,
                reason,
            } => {
                self.greeting.asked(peer);
                self.trouble(peer, reason.to_string());
                self.departs(peer, |departure| departure.unreachable(refused), ctx);
            }
            PeerEvent::Refused { peer, reason } => {
                self.departs(peer, Departure::connected, ctx);
                self.trouble(peer, format!("it refuses this node: {reason}"));
                self.heed(peer, &reason, ctx);
                self.greeting.asked(peer);
                self.refused(peer, reason, ctx);
            }
            PeerEvent::Accepted { peer, .. } => {
                self.accepted(peer);
                self.departs(peer, Departure::accepted, ctx);
            }
            PeerEvent::Closed { peer, reason } => {
                self.departs(peer, Departure::closed, ctx);
                // The peer dialled this node, and did not like what answered.
                if let Ending::Refused(refusal) = reason {
                    self.heed(peer, &refusal, ctx);
                }
                self.closed(peer);
            }
            PeerEvent::ListenerFailed { reason } => {
                tracing::error!("the listener: {reason}");
                self.fail(NodeFailure::PartStopped("the listener"), ctx);
            }
            PeerEvent::Turned { .. } => {}
        }
    }

    /// Takes note of what `happened` to a connection. If it was the last sign that was missing, the peer's process is
    /// gone, and the protocol need not wait for it.
    fn departs(
        &mut self,
        id: NodeId,
        happened: impl FnOnce(&mut Departure),
        ctx: &mut Context<Self>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        happened(&mut peer.departure);
        if peer.departure.is_complete() && self.early_campaign {
            tracing::info!(peer = %id, "the process of node {id} is gone");
            self.step(raft_core::Input::PeerGone(id), ctx);
        }
    }

    fn trouble(&mut self, id: NodeId, trouble: String) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.connected = false;
            if peer.trouble.as_ref() != Some(&trouble)
                && let Life::Forming { forming, .. } = &mut self.life
            {
                forming.lost(id);
                let tried = peer.sender.address();
                tracing::info!(peer = %id, "waiting for node {id} at {tried}: {trouble}");
            }
            peer.trouble = Some(trouble);
        }
    }

    /// A peer refuses this node. If a majority does (or the only other one), for reasons that do not pass,
    /// and this run of the node has never taken part, then its folder or its configuration is not of this
    /// cluster: it ends. If they do because it was removed, it was, whether it has taken part or not.
    fn refused(&mut self, id: NodeId, refusal: Refusal, ctx: &mut Context<Self>) {
        let against = is_against(&refusal, self.id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.refuses = against;
            peer.says_removed = refusal == Refusal::Removed { node: self.id };
        }
        // After a start it is not known yet what is committed, and all that the log has named since its snapshot are
        // dialled. Those who have gone since say nothing, and would be missed here for good.
        let last = raft_of(&self.life).map(Raft::configuration);
        let last = last.filter(|configuration| configuration.contains(self.id));
        let counts = |id: &NodeId| last.is_none_or(|configuration| configuration.contains(*id));
        let members = || {
            let counted = self.peers.iter().filter(|(id, _)| counts(id));
            counted.map(|(_, peer)| peer).filter(|peer| !peer.is_guest)
        };
        let refusing = members().filter(|peer| peer.refuses).count();
        let others = members().count();
        if others == 0 {
            return self.refused_alone(id, refusal, ctx);
        }
        let majority = raft_core::quorum::majority(others + 1).min(others);
        if self.removed_by_refusal(&refusal, ctx) {
            return;
        }
        if against && !self.took_part && refusing >= majority {
            let refusal = Box::new(refusal);
            self.fail(NodeFailure::Refused { peer: id, refusal }, ctx);
        }
    }

    /// Nobody else is in this node's log. It is the first of a cluster that is to grow, or an old copy of it: then those who
    /// came later refuse it, who are its guests. That is believed only as long as it listens before it leads, for whoever
    /// knows the cluster's id can be a guest.
    fn refused_alone(&mut self, id: NodeId, refusal: Refusal, ctx: &mut Context<Self>) {
        if self.listens.is_some() && is_against(&refusal, self.id) {
            let refusal = Box::new(refusal);
            self.fail(NodeFailure::Refused { peer: id, refusal }, ctx);
        }
    }

    /// Ends the node if one of its parts has stopped by itself: an actor that panics ends alone.
    pub(crate) fn watch_parts(&mut self, ctx: &mut Context<Self>) {
        self.drain(ctx);
        if matches!(self.life, Life::Closing | Life::Failed { .. }) {
            return;
        }
        let parts = [
            ("the storage", self.parts.storage.connected()),
            ("the reader of the log", self.reads.connected()),
            ("delivery", self.parts.delivery.connected()),
            ("the listener", self.parts.listener.connected()),
            ("the front", self.front.connected()),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, connected)| !connected) {
            self.fail(NodeFailure::PartStopped(part), ctx);
        }
    }

    /// Goes on with an orderly end: first what is on its way is given time, then the leadership is handed over.
    fn drain(&mut self, ctx: &mut Context<Self>) {
        let Life::Draining {
            until, hands_over, ..
        } = &self.life
        else {
            return;
        };
        let (late, hands_over) = (Instant::now() >= *until, *hands_over);
        if hands_over {
            if late || self.has_handed_over() {
                self.close(ctx);
            }
        } else if late || self.door.waiting_count() == 0 {
            if !self.hand_over_at_the_end(ctx) {
                return self.close(ctx);
            }
            if let Life::Draining {
                until, hands_over, ..
            } = &mut self.life
            {
                (*until, *hands_over) = (Instant::now() + HAND_OVER, true);
            }
        }
    }

    /// The node cannot go on. Everybody who waits is answered, and everything is let go of; the actor stays,
    /// to say why.
    pub(crate) fn fail(&mut self, why: NodeFailure, ctx: &mut Context<Self>) {
        if matches!(self.life, Life::Closing | Life::Failed { .. }) {
            return;
        }
        tracing::error!("the node has failed: {why}");
        self.door.fail(why.clone());
        self.life = Life::Failed {
            why: why.clone(),
            released: false,
            told: false,
        };
        self.end_proposals(&ProposeError::Failed(why.clone()));
        self.unconfirmed.end(&ReadError::Failed(why.clone()));
        self.end_requests(&MembershipError::Failed(why.clone()), ctx);
        self.leaving
            .tell(&Err(MembershipError::Failed(why.clone())));
        ctx.run_later(LET_GO_BEFORE_TOLD, |node, _| node.tell_ended());
        self.let_go(ctx, move |node, _| {
            for answer in node.let_go.drain(..) {
                answer.give(Err(why.clone()));
            }
            if let Life::Failed { released, .. } = &mut node.life {
                *released = true;
            }
            node.tell_ended();
        });
        self.observe(boot_time(), ctx);
    }

    /// Tells all who wait for the end of a failed node, and from now on all who ask.
    fn tell_ended(&mut self) {
        if let Life::Failed { why, told, .. } = &mut self.life {
            *told = true;
            for answer in self.ended.drain(..) {
                answer.give(Err(why.clone()));
            }
        }
    }

    /// Begins an orderly end; what was proposed or asked before it is sent before it.
    pub(crate) fn shut_down(&mut self, ctx: &mut Context<Self>) {
        self.flush_all(ctx);
        self.ask_together(ctx);
        self.door.shut();
        self.leaving.tell(&Err(MembershipError::NodeEnded));
        let now = Instant::now();
        match std::mem::replace(&mut self.life, Life::Closing) {
            Life::Running(raft) => {
                self.life = Life::Draining {
                    raft: Some(raft),
                    until: now + DRAIN,
                    hands_over: false,
                };
            }
            Life::Forming { .. } => {
                self.life = Life::Draining {
                    raft: None,
                    until: now,
                    hands_over: false,
                }
            }
            Life::Failed {
                why,
                released,
                told,
            } => {
                if released {
                    for answer in self.let_go.drain(..) {
                        answer.give(Err(why.clone()));
                    }
                }
                self.life = Life::Failed {
                    why,
                    released,
                    told,
                };
            }
            other => self.life = other,
        }
        self.intake.refuse_waiting();
        self.watch_parts(ctx);
    }

    pub(crate) fn close(&mut self, ctx: &mut Context<Self>) {
        tracing::info!("shutting down");
        self.life = Life::Closing;
        self.end_proposals(&ProposeError::ShuttingDown);
        self.unconfirmed.end(&ReadError::NodeEnded);
        self.end_requests(&MembershipError::NodeEnded, ctx);
        self.let_go(ctx, |node, ctx| {
            let ending = node.close_result.take().unwrap_or(Ok(()));
            node.leaving
                .tell(&ending.clone().map_err(MembershipError::Failed));
            for answer in node.ended.drain(..).chain(node.let_go.drain(..)) {
                answer.give(ending.clone());
            }
            ctx.stop();
        });
    }

    fn end_proposals(&mut self, error: &ProposeError) {
        for proposal in self.door.take() {
            proposal.answer(Err(error.clone()));
        }
        self.intake.end(error);
    }

    /// Ends all parts. `then` comes when address and folder are free.
    fn let_go(
        &mut self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        self.disk.hush();
        self.persists.clear();
        self.to_apply.clear();
        self.snapshotting.end();
        self.changes.end();
        for peer in self.peers.values_mut() {
            peer.connected = false;
        }
        let released = self.parts.clone().let_go().into_actor(self);
        ctx.spawn(released.map(|result, node, ctx| {
            if let Err(error) = &result {
                tracing::error!("letting go: {error}");
            }
            node.close_result = Some(result);
            then(node, ctx);
        }));
    }
}

/// The protocol, for who was born with all who are `known`. Should this node be elected first of all, the cluster gets
/// the id that is drawn here. Who does not vote by what is recorded has joined: it goes by nothing but the log that it
/// is sent, and cannot be elected before that says so.
pub(crate) fn take_part(
    config: &mut raft_core::Config,
    known: &Configuration,
    recovered: Recovered,
) -> Result<Raft, NodeFailure> {
    config.initial = Configuration::default();
    config.birth = None;
    if known.votes(config.id) {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| NodeFailure::Random(error.to_string()))?;
        let birth = Birth {
            cluster: ClusterId(u128::from_be_bytes(random)),
            members: known.folders(),
        };
        (config.initial, config.birth) = (known.clone(), Some(birth.encode()));
    }
    Raft::new(config.clone(), recovered).map_err(NodeFailure::Config)
}

/// Whether a refusal is for good and means that it is `node` which has the wrong folder, id or list.
fn is_against(refusal: &Refusal, node: NodeId) -> bool {
    match refusal {
        Refusal::WrongCluster { .. } | Refusal::OtherPeers { .. } => true,
        Refusal::UnknownNode { node: of }
        | Refusal::Removed { node: of }
        | Refusal::WrongIncarnation { node: of, .. }
        | Refusal::OldCopy { node: of, .. }
        | Refusal::DuplicateNode { node: of } => *of == node,
        _ => false,
    }
}
