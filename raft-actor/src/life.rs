//! A node's life: started, formed, running, and ended in order or by a failure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{ClusterId, Incarnation, NodeId, Raft, Recovered};
use raft_net::{PeerEvent, Refusal};
use raft_storage::{Close, Record, StorageError};

use crate::actor::{Life, RaftActor};
use crate::birth::Birth;
use crate::delivery::Finish;
use crate::{MemberStatus, NodeFailure, NodeStatus, Phase, ProposeError};

/// How long a shutdown waits for what is on its way to be committed.
const DRAIN: Duration = Duration::from_secs(1);

impl RaftActor {
    /// If every listed peer has answered, makes the list of them durable; then the node takes part.
    pub(crate) fn consider_birth(&mut self, ctx: &mut Context<Self>) {
        let Life::Forming { forming, .. } = &mut self.life else {
            return;
        };
        let Some(members) = forming.complete().filter(|_| !forming.recording) else {
            return;
        };
        forming.recording = true;
        self.local.set_members(members.clone());
        self.record(Some(members.clone()), None, ctx, move |node, ctx| {
            node.born_unanimously(members, ctx);
        });
    }

    /// The list of members is durable: from here on this node votes and acknowledges.
    fn born_unanimously(
        &mut self,
        members: BTreeMap<NodeId, Incarnation>,
        ctx: &mut Context<Self>,
    ) {
        let Life::Forming { recovered, .. } = &mut self.life else {
            return;
        };
        let recovered = std::mem::take(recovered);
        tracing::info!(nodes = members.len(), "every listed node has answered");
        match take_part(&mut self.core_config, members, recovered) {
            Life::Failed(failure) => self.fail(failure, ctx),
            life => self.life = life,
        }
    }

    /// Makes durable what was learned of the cluster, then goes on with `then`.
    pub(crate) fn record(
        &mut self,
        members: Option<BTreeMap<NodeId, Incarnation>>,
        cluster: Option<ClusterId>,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        let sent = self
            .storage
            .send(Record { members, cluster })
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
                let Some(peer) = self.peers.get_mut(&id) else {
                    return;
                };
                (peer.connected, peer.trouble, peer.refusal) = (true, None, None);
                tracing::info!(peer = %id, incarnation = %hello.incarnation, "connected");
                if let Life::Forming { forming, .. } = &mut self.life {
                    forming.heard(id, hello.incarnation);
                    self.consider_birth(ctx);
                }
            }
            PeerEvent::Lost { peer, reason, .. } => {
                tracing::info!(%peer, "connection lost: {reason}");
                self.trouble(peer, reason.to_string());
                self.connection_lost(peer);
                self.step(raft_core::Input::PeerUnreachable(peer), ctx);
            }
            PeerEvent::Unreachable { peer, reason, .. } => self.trouble(peer, reason.to_string()),
            PeerEvent::Refused { peer, reason } => {
                self.trouble(peer, format!("it refuses this node: {reason}"));
                self.refused(peer, reason, ctx);
            }
            PeerEvent::ListenerFailed { reason } => {
                tracing::error!("the listener: {reason}");
                self.fail(NodeFailure::PartStopped("the listener"), ctx);
            }
            PeerEvent::Accepted { .. } | PeerEvent::Closed { .. } | PeerEvent::Turned { .. } => {}
        }
    }

    fn trouble(&mut self, id: NodeId, trouble: String) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.connected = false;
            if peer.trouble.as_ref() != Some(&trouble)
                && let Life::Forming { forming, .. } = &mut self.life
            {
                forming.lost(id);
                tracing::info!(peer = %id, "waiting for node {id} at {}: {trouble}", peer.address);
            }
            peer.trouble = Some(trouble);
        }
    }

    /// A peer refuses this node. If a majority does, for reasons that do not pass, and this run of the node
    /// has never taken part, then its folder or its configuration is not of this cluster: it ends.
    fn refused(&mut self, id: NodeId, refusal: Refusal, ctx: &mut Context<Self>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.refusal = is_against(&refusal, self.id).then(|| refusal.clone());
        }
        let refusing = self
            .peers
            .values()
            .filter(|peer| peer.refusal.is_some())
            .count();
        let majority = raft_core::quorum::majority(self.peers.len() + 1);
        if !self.took_part && is_against(&refusal, self.id) && refusing >= majority {
            self.fail(
                NodeFailure::Refused {
                    peer: id,
                    refusal: Box::new(refusal),
                },
                ctx,
            );
        }
    }

    /// Ends the node if one of its parts has stopped by itself: an actor that panics ends alone.
    pub(crate) fn watch_parts(&mut self, ctx: &mut Context<Self>) {
        if let Life::Draining { until, .. } = self.life
            && (Instant::now() >= until || self.intake.waiting_count() == 0)
        {
            self.close(ctx);
        }
        if matches!(self.life, Life::Closing | Life::Failed(_)) {
            return;
        }
        let parts = [
            ("the storage", self.storage.connected()),
            ("the reader of the log", self.reads.connected()),
            ("delivery", self.delivery.connected()),
            ("the listener", self.listener.connected()),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, connected)| !connected) {
            self.fail(NodeFailure::PartStopped(part), ctx);
        }
    }

    /// The node cannot go on. Everybody who waits is answered, and everything is let go of; the actor stays,
    /// to say why.
    pub(crate) fn fail(&mut self, failure: NodeFailure, ctx: &mut Context<Self>) {
        if matches!(self.life, Life::Failed(_)) {
            return;
        }
        tracing::error!(node = %self.id, "the node has failed: {failure}");
        self.life = Life::Failed(failure.clone());
        self.intake.end(&ProposeError::Failed(failure.clone()));
        self.let_go(ctx, move |node, _| node.tell_ended(&Err(failure)));
    }

    /// Begins an orderly end.
    pub(crate) fn shut_down(&mut self, ctx: &mut Context<Self>) {
        self.flush(ctx);
        let until = Instant::now() + DRAIN;
        match std::mem::replace(&mut self.life, Life::Closing) {
            Life::Running(raft) => {
                self.life = Life::Draining {
                    raft: Some(raft),
                    until,
                }
            }
            Life::Forming { .. } => {
                self.life = Life::Draining {
                    raft: None,
                    until: Instant::now(),
                }
            }
            Life::Failed(failure) => {
                // Everything has been let go of; only the actor itself is left.
                self.life = Life::Failed(failure.clone());
                self.tell_ended(&Err(failure));
                end_arbiter(ctx);
            }
            other => self.life = other,
        }
        self.intake.refuse_waiting();
        self.watch_parts(ctx);
    }

    fn close(&mut self, ctx: &mut Context<Self>) {
        tracing::info!(node = %self.id, "shutting down");
        self.life = Life::Closing;
        self.intake.end(&ProposeError::ShuttingDown);
        self.let_go(ctx, |node, ctx| {
            node.tell_ended(&Ok(()));
            end_arbiter(ctx);
        });
    }

    /// Stops all parts, the log last. `then` comes when the folder is free.
    fn let_go(
        &mut self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        self.persists.clear();
        self.commits.clear();
        self.delivery.do_send(Finish);
        for peer in self.peers.values_mut() {
            peer.connected = false;
            peer.sender.stop();
        }
        self.listener.do_send(raft_net::Stop);
        let closed = self.storage.send(Close).into_actor(self);
        ctx.spawn(closed.map(|result, node, ctx| {
            if let Ok(Err(error)) = result {
                tracing::error!(node = %node.id, "closing the log: {error}");
            }
            then(node, ctx);
        }));
    }

    fn tell_ended(&mut self, result: &Result<(), NodeFailure>) {
        for answer in self.enders.drain(..) {
            answer.give(result.clone());
        }
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let (phase, raft) = match &self.life {
            Life::Forming { forming, .. } => {
                let waiting_for = forming
                    .waiting_for()
                    .map(|id| (id, self.trouble_with(id)))
                    .collect();
                (Phase::Forming { waiting_for }, None)
            }
            Life::Running(raft) => (Phase::Running, Some(raft)),
            Life::Draining { raft, .. } => (Phase::ShuttingDown, raft.as_ref()),
            Life::Closing => (Phase::ShuttingDown, None),
            Life::Failed(failure) => (Phase::Failed(failure.clone()), None),
        };
        let core = raft.map(|raft| raft.status());
        let peers = self.peers.iter().map(|(id, peer)| MemberStatus {
            id: *id,
            address: peer.address.clone(),
            connected: peer.connected,
        });
        let own = MemberStatus {
            id: self.id,
            address: self.own_address.clone(),
            connected: true,
        };
        let mut members: Vec<_> = peers.chain([own]).collect();
        members.sort_by_key(|member| member.id);
        NodeStatus {
            id: self.id,
            incarnation: self.incarnation,
            cluster: self.cluster,
            phase,
            role: core
                .as_ref()
                .map_or(raft_core::Role::Follower, |core| core.role),
            term: core.as_ref().map(|core| core.term).unwrap_or_default(),
            leader: core.as_ref().and_then(|core| core.leader),
            commit: core.as_ref().map(|core| core.commit).unwrap_or_default(),
            applied: *self.applied.borrow(),
            last: core.as_ref().map(|core| core.last).unwrap_or_default(),
            members,
            proposals_waiting: self.intake.waiting_count(),
        }
    }

    fn trouble_with(&self, id: NodeId) -> String {
        let trouble = self.peers.get(&id).and_then(|peer| peer.trouble.clone());
        trouble.unwrap_or_else(|| "no answer yet".to_owned())
    }
}

/// Life with a complete list of members. Should this node be elected first of all, the cluster gets the id
/// that is drawn here.
pub(crate) fn take_part(
    config: &mut raft_core::Config,
    members: BTreeMap<NodeId, Incarnation>,
    recovered: Recovered,
) -> Life {
    let mut random = [0; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        return Life::Failed(NodeFailure::Random(error.to_string()));
    }
    let birth = Birth {
        cluster: ClusterId(u128::from_be_bytes(random)),
        members,
    };
    config.birth = Some(birth.encode());
    match Raft::new(config.clone(), recovered) {
        Ok(raft) => Life::Running(Box::new(raft)),
        Err(error) => Life::Failed(NodeFailure::Config(error)),
    }
}

/// Whether a refusal is for good and means that it is `node` which has the wrong folder, id or list.
fn is_against(refusal: &Refusal, node: NodeId) -> bool {
    match refusal {
        Refusal::WrongCluster { .. } => true,
        Refusal::UnknownNode { node: of }
        | Refusal::WrongIncarnation { node: of, .. }
        | Refusal::OldCopy { node: of, .. }
        | Refusal::DuplicateNode { node: of } => *of == node,
        _ => false,
    }
}

/// Ends the node's actor, and the thread that it ran on.
fn end_arbiter(ctx: &mut Context<RaftActor>) {
    ctx.stop();
    Arbiter::current().stop();
}
