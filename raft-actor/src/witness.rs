//! What this node remembers of its peers' disks, and what they remember of this one's.
//!
//! A disk that lost the end of what it had synced, and with it all that would show the loss, is noticed
//! by those to whom it was acknowledged (the rules are at the top of raft-net's `held.rs`). Every node remembers,
//! not the leader alone, and keeps what it remembers when it does not lead any more; so a change of leader
//! costs nothing of it. A start of a peer that comes back with less is refused in the handshake, whoever
//! dials. Nothing that it says reaches the protocol, and what was counted on it is forgotten there.
//!
//! The refused node ends at once, by one peer's word: a claim is proof, and it takes no majority to have
//! heard it. Until then it has neither voted nor acknowledged anything, because it asks first
//! ([`Greeting`]), as far as its peers can be reached.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{
    AppendOutcome, DurableMessage, Envelope, Input, LogIndex, Message, NodeId, Raft, Role,
};
use raft_net::{Claim, Frame, Refusal};

use crate::NodeFailure;
use crate::node::{Life, Node};

/// Whom this process has not asked yet whether its disk has lost anything.
///
/// A handshake asks. Who cannot be reached cannot answer, and nobody is waited for longer than no election
/// would begin anyway: a peer that is silent, or slower than that, may find out too late.
#[derive(Debug)]
pub(crate) struct Greeting {
    unasked: BTreeSet<NodeId>,
    until: Instant,
    /// Who has found nothing missing. It cannot find anything later: a process is asked once.
    satisfied: BTreeSet<NodeId>,
}

impl Greeting {
    /// Nobody is waited for longer than `patience` from now on.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            unasked: BTreeSet::new(),
            until: Instant::now() + patience,
            satisfied: BTreeSet::new(),
        }
    }

    /// These are to be asked.
    pub(crate) fn begin(&mut self, peers: impl Iterator<Item = NodeId>) {
        self.unasked.extend(peers);
    }

    /// The peer has found nothing missing.
    pub(crate) fn satisfied(&mut self, peer: NodeId) {
        self.satisfied.insert(peer);
        self.asked(peer);
    }

    /// The peer has found nothing missing, or cannot be asked.
    pub(crate) fn asked(&mut self, peer: NodeId) {
        self.unasked.remove(&peer);
    }

    pub(crate) fn is_over(&mut self) -> bool {
        if !self.unasked.is_empty() && Instant::now() >= self.until {
            tracing::debug!(unasked = ?self.unasked, "takes part without having asked all peers");
            self.unasked.clear();
        }
        self.unasked.is_empty()
    }
}

impl Node {
    /// Takes note of what `frames` claim of their sender's disk; says whether the protocol may hear of
    /// them.
    pub(crate) fn hears(&mut self, from: NodeId, starts: u64, frames: &[Frame]) -> bool {
        let claim = match &self.life {
            Life::Running(raft)
            | Life::Draining {
                raft: Some(raft), ..
            } => greatest_claim(raft, from, frames),
            _ => None,
        };
        let believed = self.local.witness(from, starts, claim);
        if !believed {
            tracing::info!(peer = %from, starts, "dropped what a process said that has ended since");
        }
        believed && self.greeting.is_over()
    }

    /// Remembers of each peer what it has that is committed: that must not be lost in any later term either.
    pub(crate) fn remember_committed(&self) {
        if let Life::Running(raft) = &self.life
            && raft.role() == Role::Leader
        {
            self.local.committed(raft.term(), raft.commit());
        }
    }

    /// What was counted on a disk that has lost it is counted no more. This comes before anything that could
    /// move the commit index, what this node's own disk says among it.
    pub(crate) fn forget_lost(&mut self, ctx: &mut Context<Self>) {
        for peer in self.local.take_lost() {
            tracing::error!(%peer, "the disk of node {peer} has lost what it had acknowledged to this node");
            self.take_in(Input::PeerForgot(peer), ctx);
        }
    }

    /// Ends this node if `refusal`, by `peer`, says that its disk has lost what it had acknowledged.
    pub(crate) fn heed(&mut self, peer: NodeId, refusal: &Refusal, ctx: &mut Context<Self>) {
        let held = self.local.held();
        // Whoever knows the cluster's id can be a guest: its word ends nobody.
        if self.peers.get(&peer).is_none_or(|peer| peer.is_guest) {
            return;
        }
        if let Refusal::LostAcknowledged {
            node,
            found_term,
            found,
            ..
        } = refusal
            && (*node, *found_term, *found) == (self.id, held.term, held.last)
        {
            if self.greeting.satisfied.contains(&peer) {
                // One word of one member would end every other node, at any time.
                return self.refused.refusal(peer, refusal);
            }
            let refusal = Box::new(refusal.clone());
            self.fail(NodeFailure::LostAcknowledged { peer, refusal }, ctx);
        }
    }
}

/// The greatest claim that `frames` of `from` make. Every message that only a write releases claims at least its
/// term. How far a log reaches is said to the leader of the term, and compared with its log. What the protocol
/// refuses claims nothing: to remember it would turn its sender away for good.
fn greatest_claim(raft: &Raft, from: NodeId, frames: &[Frame]) -> Option<Claim> {
    let leads = raft.role() == Role::Leader;
    let claim = |frame: &Frame| {
        let Frame::Raft(message @ Message::Durable(_)) = frame else {
            return None;
        };
        let envelope = Envelope {
            from,
            to: raft.id(),
            message: message.clone(),
        };
        raft.judge(&envelope).ok()?;
        let Message::Durable(message) = &envelope.message else {
            return None;
        };
        let term = message.term();
        let through = match message {
            DurableMessage::AppendResponse(response) if leads && term == raft.term() => {
                match response.outcome {
                    AppendOutcome::Accepted { matched } => matched,
                    AppendOutcome::Rejected { .. } => LogIndex::ZERO,
                }
            }
            _ => LogIndex::ZERO,
        };
        (through <= raft.last().index).then_some(Claim { term, through })
    };
    frames.iter().filter_map(claim).max()
}
