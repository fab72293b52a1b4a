//! The way of a proposal up to the log: taken in, gathered, appended here or forwarded to the leader.
//!
//! Invariants:
//! - A proposal is in exactly one place: at the [`Door`](crate::door::Door), waiting for a leader, forwarded, or with
//!   [`Delivery`](crate::delivery::Delivery).
//! - What was forwarded is never sent again, unless the leader said that it did not take it. When the
//!   connection breaks first, the outcome is unknown.
//! - What a peer forwarded is never forwarded on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{Input, NodeId, Rejection, Role};
use raft_net::{Answer as PeerAnswer, ForwardOutcome, Forwarded, Frame, FrameEncoder, PeerSender};

use crate::delivery::Await;
use crate::node::{Life, Node};
use crate::proposals::{Budget, Proposal, ReplyTo, Waiter, from_peer};
use crate::turn::Proposed;
use crate::{ProposeError, UnknownCause};

/// Proposals in one frame to the leader, at most.
const FORWARD_MAX: usize = 512;
/// The bits of a request's name that count within one life of a node; those above name the life.
const REQUEST_BITS: u32 = 40;
/// Bytes of commands in one frame to the leader: the command that reaches it is the last.
const FORWARD_BYTES_MAX: usize = 128 << 10;
/// Proposals that are with the leader and not answered, at most. More wait here, so that they do not crowd
/// the protocol's own messages out of the queue to the leader.
const AWAY_MAX: usize = 16 << 10;
/// Bytes of such proposals: the one that reaches it is the last.
const AWAY_BYTES_MAX: usize = 4 << 20;
/// How long a node that said that it does not lead is left alone, unless a leader is heard of before.
const SPURNED: Duration = Duration::from_millis(100);

/// Proposals of this node that are not in the log yet.
pub(crate) struct Intake {
    command_bytes_max: usize,
    timeout: Duration,
    /// What each peer may have waiting here.
    peer_budgets: BTreeMap<NodeId, Arc<Budget>>,
    /// What peers have forwarded in this turn.
    from_peers: Vec<Proposal>,
    /// Wait for a leader.
    waiting: VecDeque<Proposal>,
    /// Are with the leader, by the name that this node gave them.
    forwarded: BTreeMap<u64, Away>,
    forwarded_bytes: usize,
    /// Who is left alone until when, because it said that it does not lead. This node itself, while it hands
    /// the leadership over.
    spurned: Option<(NodeId, Instant)>,
    last_request: u64,
    /// No deadline of what waits or is away is before this.
    next_deadline: Option<Instant>,
}

/// A proposal that was forwarded.
struct Away {
    leader: NodeId,
    proposal: Proposal,
}

impl Intake {
    /// `starts` counts the starts of this node on its folder: an answer that was meant for an earlier life
    /// of the node must not be taken for the answer to a proposal of this one.
    pub(crate) fn new(
        config: &crate::Config,
        starts: u64,
        peers: impl Iterator<Item = NodeId>,
    ) -> Self {
        let budget = || Budget::new(config.proposals_max, config.proposals_bytes_max);
        Self {
            command_bytes_max: config.command_bytes_max,
            timeout: config.propose_timeout,
            peer_budgets: peers.map(|id| (id, budget())).collect(),
            from_peers: Vec::new(),
            waiting: VecDeque::new(),
            forwarded: BTreeMap::new(),
            forwarded_bytes: 0,
            spurned: None,
            last_request: starts << REQUEST_BITS,
            next_deadline: None,
        }
    }

    /// Keeps a proposal of this process until there is a leader.
    fn wait(&mut self, proposal: Proposal) {
        let deadline = proposal.waiter.deadline;
        self.next_deadline = Some(
            self.next_deadline
                .map_or(deadline, |next| next.min(deadline)),
        );
        self.waiting.push_back(proposal);
    }

    /// The next frame for a leader, and how many of those that wait are in it.
    fn next_forward(&self) -> (usize, Frame) {
        let mut bytes = 0;
        let fits = |proposal: &&Proposal| {
            let before = bytes;
            bytes += proposal.command.len();
            before < FORWARD_BYTES_MAX
        };
        let count = self
            .waiting
            .iter()
            .take(FORWARD_MAX)
            .take_while(fits)
            .count();
        let proposals = self.waiting.iter().take(count);
        let name = |(proposal, request): (&Proposal, u64)| Forwarded {
            request,
            data: proposal.command.clone(),
        };
        (
            count,
            Frame::Forward(proposals.zip(self.last_request + 1..).map(name).collect()),
        )
    }

    /// Whether a flush has something to do beside what stands at the door.
    pub(crate) fn has_work(&self) -> bool {
        !self.from_peers.is_empty() || !self.waiting.is_empty()
    }

    /// Leaves a node alone that takes no proposals now.
    fn spurn(&mut self, node: NodeId) {
        self.spurned = Some((node, Instant::now() + SPURNED));
    }

    fn is_spurned(&self, node: NodeId) -> bool {
        self.spurned
            .is_some_and(|(spurned, until)| spurned == node && Instant::now() < until)
    }

    /// Whether `leader` may be sent more now.
    fn may_forward(&self, leader: NodeId) -> bool {
        !self.is_spurned(leader)
            && self.forwarded.len() < AWAY_MAX
            && self.forwarded_bytes < AWAY_BYTES_MAX
    }

    /// The first `count` of those that wait were sent to `leader`, in the frame just made.
    fn went_away(&mut self, leader: NodeId, count: usize) {
        for proposal in self.waiting.drain(..count) {
            self.last_request += 1;
            self.forwarded_bytes += proposal.command.len();
            self.forwarded
                .insert(self.last_request, Away { leader, proposal });
        }
    }

    /// Takes out one that is away.
    fn come_back(&mut self, request: u64) -> Option<Proposal> {
        let away = self.forwarded.remove(&request)?;
        self.forwarded_bytes -= away.proposal.command.len();
        Some(away.proposal)
    }

    /// Takes out all that are away and meet `condition`.
    fn take_away(&mut self, condition: impl Fn(&Away) -> bool) -> Vec<Proposal> {
        let met = self.forwarded.iter().filter(|(_, away)| condition(away));
        let requests: Vec<u64> = met.map(|(request, _)| *request).collect();
        requests
            .into_iter()
            .filter_map(|request| self.come_back(request))
            .collect()
    }

    /// There may be another leader: whoever is left alone may be it.
    pub(crate) fn leader_changed(&mut self) {
        self.spurned = None;
    }

    /// Answers those whose time is up.
    fn expire(&mut self, now: Instant) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        for proposal in self.take_away(|away| away.proposal.waiter.deadline <= now) {
            proposal
                .waiter
                .answer(Err(ProposeError::Unknown(UnknownCause::TimedOut)));
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (late, waiting): (Vec<_>, Vec<_>) = waiting.partition(|p| p.waiter.deadline <= now);
        self.waiting = waiting.into();
        for proposal in late {
            let waited = now.saturating_duration_since(proposal.waiter.since);
            proposal
                .waiter
                .answer(Err(ProposeError::NoLeader { waited }));
        }
        let away = self.forwarded.values().map(|away| &away.proposal);
        self.next_deadline = away.chain(&self.waiting).map(|p| p.waiter.deadline).min();
    }

    /// The node is being shut down: what was not handed to anybody will not be.
    pub(crate) fn refuse_waiting(&mut self) {
        for proposal in self.waiting.drain(..) {
            proposal.waiter.answer(Err(ProposeError::ShuttingDown));
        }
    }

    /// Ends all that is here: what was forwarded has an unknown outcome, the rest is told `error`.
    pub(crate) fn end(&mut self, error: &ProposeError) {
        // Peers hear nothing: their connections to this node are about to break.
        self.from_peers.clear();
        for proposal in self.waiting.drain(..) {
            proposal.waiter.answer(Err(error.clone()));
        }
        for proposal in self.take_away(|_| true) {
            proposal
                .waiter
                .answer(Err(ProposeError::Unknown(UnknownCause::NodeEnded)));
        }
    }
}

impl Node {
    /// Appends or forwards all that waits, oldest first, if there is a leader.
    pub(crate) fn flush(&mut self, ctx: &mut Context<Self>) {
        let mut gathered = self.door.take();
        gathered.append(&mut self.intake.from_peers);
        let leader = match &self.life {
            Life::Running(raft)
                if raft.role() == Role::Leader && !self.intake.is_spurned(self.id) =>
            {
                let mut proposals = Vec::from(std::mem::take(&mut self.intake.waiting));
                proposals.append(&mut gathered);
                if !proposals.is_empty() {
                    self.append(proposals, ctx);
                }
                return;
            }
            Life::Running(raft) => raft.leader(),
            _ => None,
        };
        self.keep(gathered, leader);
        if let Some(leader) = leader {
            self.forward(leader);
        }
    }

    /// Nobody takes `proposals` now: those of this process wait, and peers keep theirs themselves.
    fn keep(&mut self, proposals: Vec<Proposal>, leader: Option<NodeId>) {
        let mut refused = Vec::new();
        for proposal in proposals {
            match proposal.waiter.to {
                ReplyTo::Peer { node, request } => {
                    let outcome = ForwardOutcome::NotLeader { leader };
                    refused.push((node, PeerAnswer { request, outcome }));
                }
                ReplyTo::Local(_) => self.intake.wait(proposal),
            }
        }
        self.answer_peers(refused);
    }

    /// Puts `proposals` into the log of this node, which leads.
    fn append(&mut self, proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        let commands = proposals.iter().map(|proposal| proposal.command.clone());
        let propose = Input::Propose(commands.collect());
        match self.step(propose, ctx) {
            Some(Proposed::Appended { first, term, count }) => {
                debug_assert_eq!(count, proposals.len());
                let waiters = proposals.into_iter().map(|proposal| proposal.waiter);
                self.parts.delivery.do_send(Await {
                    first,
                    term,
                    waiters: waiters.collect(),
                });
            }
            Some(Proposed::Rejected(Rejection::Busy)) => {
                self.answer_all(proposals, &ProposeError::Busy)
            }
            // Certainly not in the log, and soon there is another leader, or this one again.
            Some(Proposed::Rejected(Rejection::Transferring { .. })) => {
                self.intake.spurn(self.id);
                self.keep(proposals, None);
            }
            // The node leads and takes inputs, or `flush` would not have come here; the rest is no answer
            // to a proposal; and if the node failed in this very step, nothing of what it appended has
            // left it.
            Some(Proposed::Rejected(
                Rejection::NotLeader { .. }
                | Rejection::ReadTimedOut
                | Rejection::ReadsRefused
                | Rejection::NotReady
                | Rejection::ChangeUnderWay
                | Rejection::Change(_)
                | Rejection::NoCandidate(_),
            ))
            | None => {
                self.answer_all(proposals, &ProposeError::Unknown(UnknownCause::NodeEnded));
            }
        }
    }

    fn answer_all(&mut self, proposals: Vec<Proposal>, error: &ProposeError) {
        let answers = proposals
            .into_iter()
            .filter_map(|proposal| proposal.waiter.answer(Err(error.clone())));
        let answers = answers.collect();
        self.answer_peers(answers);
    }

    /// Hands what waits to the leader. What its queue does not take waits on.
    fn forward(&mut self, leader: NodeId) {
        let Some(peer) = self.peers.get(&leader).filter(|peer| peer.connected) else {
            return;
        };
        while !self.intake.waiting.is_empty() && self.intake.may_forward(leader) {
            let (count, frame) = self.intake.next_forward();
            match self
                .encoder
                .encode(&frame)
                .map(|frame| peer.sender.try_send(frame))
            {
                Ok(Ok(())) => self.intake.went_away(leader, count),
                Ok(Err(_)) => return,
                Err(error) => {
                    return tracing::error!(peer = %leader, "cannot encode proposals: {error}");
                }
            }
        }
    }

    /// A peer hands over proposals of its own, for the next flush.
    pub(crate) fn forwarded_here(&mut self, from: NodeId, proposals: Vec<Forwarded>) {
        let since = Instant::now();
        let max = self.intake.command_bytes_max;
        let mut refused = Vec::new();
        for Forwarded { request, data } in proposals {
            let permit = match (&self.life, self.intake.peer_budgets.get(&from)) {
                (Life::Running(_), Some(_)) if data.len() > max => {
                    Err(ForwardOutcome::TooLarge { max: max as u64 })
                }
                (Life::Running(_), Some(budget)) => {
                    budget.take(data.len()).ok_or(ForwardOutcome::Busy)
                }
                _ => Err(ForwardOutcome::NotLeader { leader: None }),
            };
            match permit {
                Ok(permit) => {
                    let to = ReplyTo::Peer {
                        node: from,
                        request,
                    };
                    let waiter = Waiter::new(to, since, since + self.intake.timeout, permit);
                    self.intake.from_peers.push(Proposal {
                        command: data,
                        waiter,
                    });
                }
                Err(outcome) => refused.push((from, PeerAnswer { request, outcome })),
            }
        }
        self.answer_peers(refused);
    }

    /// The leader answers what this node forwarded to it.
    pub(crate) fn answered(&mut self, from: NodeId, answers: Vec<PeerAnswer>) {
        for PeerAnswer { request, outcome } in answers {
            let away = self.intake.forwarded.get(&request);
            if away.is_none_or(|away| away.leader != from) {
                continue; // Its time was up.
            }
            let Some(proposal) = self.intake.come_back(request) else {
                continue;
            };
            match from_peer(from, proposal.command.len(), outcome) {
                Some(outcome) => drop(proposal.waiter.answer(outcome)),
                None => {
                    self.intake.spurn(from);
                    self.intake.wait(proposal);
                }
            }
        }
    }

    /// The connection to `peer` broke: what was forwarded over it may have arrived, or not.
    pub(crate) fn connection_lost(&mut self, peer: NodeId) {
        for proposal in self.intake.take_away(|away| away.leader == peer) {
            let error = ProposeError::Unknown(UnknownCause::ConnectionLost(peer));
            proposal.waiter.answer(Err(error));
        }
    }

    /// Answers those whose time is up, and tries again to find a leader for those who wait for one.
    pub(crate) fn expire_proposals(&mut self, ctx: &mut Context<Self>) {
        self.intake.expire(Instant::now());
        if !self.intake.waiting.is_empty() {
            self.flush(ctx);
        }
    }

    /// Tells peers what became of what they forwarded. One that cannot be told stops waiting by itself.
    fn answer_peers(&mut self, answers: Vec<(NodeId, PeerAnswer)>) {
        let mut by_peer: BTreeMap<NodeId, Vec<PeerAnswer>> = BTreeMap::new();
        for (peer, answer) in answers {
            by_peer.entry(peer).or_default().push(answer);
        }
        for (id, answers) in by_peer {
            if let Some(peer) = self.peers.get(&id) {
                send_answers(id, &peer.sender, &mut self.encoder, answers);
            }
        }
    }
}

/// Sends `answers` to the peer `id`, in as many frames as they need. What cannot be sent is dropped.
pub(crate) fn send_answers(
    id: NodeId,
    sender: &PeerSender,
    encoder: &mut FrameEncoder,
    answers: Vec<PeerAnswer>,
) {
    let mut answers = answers.into_iter().peekable();
    while answers.peek().is_some() {
        let frame = Frame::Answers(answers.by_ref().take(FORWARD_MAX).collect());
        match encoder.encode(&frame).map(|frame| sender.try_send(frame)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return tracing::debug!(peer = %id, "cannot answer what it forwarded: {error}");
            }
            Err(error) => return tracing::error!(peer = %id, "cannot encode answers: {error}"),
        }
    }
}
