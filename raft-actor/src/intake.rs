//! The way of a proposal up to the log: taken in, gathered, appended here or forwarded to the leader.
//!
//! Invariants:
//! - A proposal is in exactly one place: gathered, waiting for a leader, forwarded, or with
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

use crate::actor::{Life, RaftActor};
use crate::delivery::Await;
use crate::proposals::{Budget, Outcome, Proposal, ReplyTo, Waiter, from_peer};
use crate::reply::{Later, later};
use crate::turn::Proposed;
use crate::{Propose, ProposeError, UnknownCause};

/// Proposals that make a batch of their own: under a flood the mailbox is never empty.
const BATCH_MAX: usize = 512;
/// Proposals in one frame to the leader, at most.
const FORWARD_MAX: usize = 512;
/// The bits of a request's name that count within one life of a node; those above name the life.
const REQUEST_BITS: u32 = 40;
/// Bytes of commands in one frame to the leader: the command that reaches it is the last.
const FORWARD_BYTES_MAX: usize = 128 << 10;

/// Proposals of this node that are not in the log yet.
pub(crate) struct Intake {
    command_bytes_max: usize,
    timeout: Duration,
    budget: Arc<Budget>,
    /// What each peer may have waiting here.
    peer_budgets: BTreeMap<NodeId, Arc<Budget>>,
    /// Came in during this turn or the last ones.
    gathered: Vec<Proposal>,
    flush_scheduled: bool,
    /// Wait for a leader.
    waiting: VecDeque<Proposal>,
    /// Are with the leader, by the name that this node gave them.
    forwarded: BTreeMap<u64, Away>,
    last_request: u64,
    /// No deadline of what waits or is away is before this.
    next_deadline: Option<Instant>,
}

/// A proposal that was forwarded.
struct Away {
    leader: NodeId,
    proposal: Proposal,
}

/// Hand on what was gathered, once nothing more urgent waits in the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

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
            budget: budget(),
            peer_budgets: peers.map(|id| (id, budget())).collect(),
            gathered: Vec::new(),
            flush_scheduled: false,
            waiting: VecDeque::new(),
            forwarded: BTreeMap::new(),
            last_request: starts << REQUEST_BITS,
            next_deadline: None,
        }
    }

    /// Proposals of this process that wait for their outcome.
    pub(crate) fn waiting_count(&self) -> usize {
        self.budget.count()
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

    /// The first `count` of those that wait were sent to `leader`, in the frame just made.
    fn went_away(&mut self, leader: NodeId, count: usize) {
        for proposal in self.waiting.drain(..count) {
            self.last_request += 1;
            self.forwarded
                .insert(self.last_request, Away { leader, proposal });
        }
    }

    /// Takes out what is away and meets `condition`.
    fn take_away(&mut self, condition: impl Fn(&Away) -> bool) -> Vec<Proposal> {
        let met = self.forwarded.iter().filter(|(_, away)| condition(away));
        let requests: Vec<u64> = met.map(|(request, _)| *request).collect();
        let take = |request| self.forwarded.remove(&request).map(|away| away.proposal);
        requests.into_iter().filter_map(take).collect()
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
        for proposal in self.gathered.drain(..).chain(self.waiting.drain(..)) {
            proposal.waiter.answer(Err(ProposeError::ShuttingDown));
        }
    }

    /// Ends all that is here: what was forwarded has an unknown outcome, the rest is told `error`.
    pub(crate) fn end(&mut self, error: &ProposeError) {
        let unsent = std::mem::take(&mut self.gathered)
            .into_iter()
            .chain(self.waiting.drain(..));
        for proposal in unsent {
            // A peer hears nothing: its connection to this node is about to break.
            proposal.waiter.answer(Err(error.clone()));
        }
        for away in std::mem::take(&mut self.forwarded).into_values() {
            away.proposal
                .waiter
                .answer(Err(ProposeError::Unknown(UnknownCause::NodeEnded)));
        }
    }
}

impl Handler<Propose> for RaftActor {
    type Result = Later<Outcome>;

    fn handle(&mut self, message: Propose, ctx: &mut Self::Context) -> Self::Result {
        let Propose { command, timeout } = message;
        let (len, max) = (command.len(), self.intake.command_bytes_max);
        if len > max {
            return Later::now(Err(ProposeError::TooLarge { len, max }));
        }
        match &self.life {
            Life::Forming { .. } | Life::Running(_) => {}
            Life::Draining { .. } | Life::Closing => {
                return Later::now(Err(ProposeError::ShuttingDown));
            }
            Life::Failed(failure) => return Later::now(Err(ProposeError::Failed(failure.clone()))),
        }
        let Some(permit) = self.intake.budget.take(len) else {
            return Later::now(Err(ProposeError::Busy));
        };
        let (reply, answer) = later(|| Err(ProposeError::Unknown(UnknownCause::NodeEnded)));
        let since = Instant::now();
        let deadline = since + timeout.unwrap_or(self.intake.timeout);
        let waiter = Waiter::new(ReplyTo::Local(answer), since, deadline, permit);
        self.gather(Proposal { command, waiter }, ctx);
        reply
    }
}

impl Handler<Flush> for RaftActor {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.intake.flush_scheduled = false;
        self.flush(ctx);
        self.end_turn(ctx);
    }
}

impl RaftActor {
    fn gather(&mut self, proposal: Proposal, ctx: &mut Context<Self>) {
        self.intake.gathered.push(proposal);
        if self.intake.gathered.len() >= BATCH_MAX {
            self.flush(ctx);
            self.end_turn(ctx);
        } else {
            self.schedule_flush(ctx);
        }
    }

    /// Flushes when the mailbox is empty: batches without a timer.
    pub(crate) fn schedule_flush(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.intake.flush_scheduled, true) {
            ctx.notify(Flush);
        }
    }

    /// Appends or forwards all that waits, oldest first, if there is a leader.
    pub(crate) fn flush(&mut self, ctx: &mut Context<Self>) {
        let leader = match &self.life {
            Life::Running(raft) if raft.role() == Role::Leader => {
                let mut proposals = Vec::from(std::mem::take(&mut self.intake.waiting));
                proposals.append(&mut self.intake.gathered);
                if !proposals.is_empty() {
                    self.append(proposals, ctx);
                }
                return;
            }
            Life::Running(raft) => raft.leader(),
            _ => None,
        };
        let mut refused = Vec::new();
        for proposal in std::mem::take(&mut self.intake.gathered) {
            match proposal.waiter.to {
                ReplyTo::Peer { node, request } => {
                    let outcome = ForwardOutcome::NotLeader { leader };
                    refused.push((node, PeerAnswer { request, outcome }));
                }
                ReplyTo::Local(_) => self.intake.wait(proposal),
            }
        }
        self.answer_peers(refused);
        if let Some(leader) = leader {
            self.forward(leader);
        }
    }

    /// Puts `proposals` into the log of this node, which leads.
    fn append(&mut self, proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        let (commands, waiters): (Vec<_>, Vec<_>) =
            proposals.into_iter().map(|p| (p.command, p.waiter)).unzip();
        match self.step(Input::Propose(commands), ctx) {
            Some(Proposed::Appended { first, term, count }) => {
                debug_assert_eq!(count, waiters.len());
                self.delivery.do_send(Await {
                    first,
                    term,
                    waiters,
                });
            }
            Some(Proposed::Rejected(Rejection::Busy)) => {
                self.answer_all(waiters, &ProposeError::Busy)
            }
            // The node leads and takes inputs, or `flush` would not have come here; and if it failed in
            // this very step, nothing of what it appended has left it.
            Some(Proposed::Rejected(Rejection::NotLeader { .. })) | None => {
                self.answer_all(waiters, &ProposeError::Unknown(UnknownCause::NodeEnded));
            }
        }
    }

    fn answer_all(&mut self, waiters: Vec<Waiter>, error: &ProposeError) {
        let answers = waiters
            .into_iter()
            .filter_map(|waiter| waiter.answer(Err(error.clone())));
        let answers = answers.collect();
        self.answer_peers(answers);
    }

    /// Hands what waits to the leader. What its queue does not take waits on.
    fn forward(&mut self, leader: NodeId) {
        let Some(peer) = self.peers.get(&leader).filter(|peer| peer.connected) else {
            return;
        };
        while !self.intake.waiting.is_empty() {
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

    /// A peer hands over proposals of its own.
    pub(crate) fn forwarded_here(
        &mut self,
        from: NodeId,
        proposals: Vec<Forwarded>,
        ctx: &mut Context<Self>,
    ) {
        let since = Instant::now();
        let mut refused = Vec::new();
        for Forwarded { request, data } in proposals {
            let max = self.intake.command_bytes_max;
            let refusal = match (&self.life, self.intake.peer_budgets.get(&from)) {
                (Life::Running(_), Some(_)) if data.len() > max => {
                    Err(ForwardOutcome::TooLarge { max: max as u64 })
                }
                (Life::Running(_), Some(budget)) => {
                    budget.take(data.len()).ok_or(ForwardOutcome::Busy)
                }
                _ => Err(ForwardOutcome::NotLeader { leader: None }),
            };
            match refusal {
                Ok(permit) => {
                    let to = ReplyTo::Peer {
                        node: from,
                        request,
                    };
                    let waiter = Waiter::new(to, since, since + self.intake.timeout, permit);
                    self.gather(
                        Proposal {
                            command: data,
                            waiter,
                        },
                        ctx,
                    );
                }
                Err(outcome) => refused.push((from, PeerAnswer { request, outcome })),
            }
        }
        self.answer_peers(refused);
    }

    /// The leader answers what this node forwarded to it.
    pub(crate) fn answered(&mut self, from: NodeId, answers: Vec<PeerAnswer>) {
        for PeerAnswer { request, outcome } in answers {
            if self
                .intake
                .forwarded
                .get(&request)
                .is_none_or(|away| away.leader != from)
            {
                continue; // Its time was up.
            }
            let Some(Away { proposal, .. }) = self.intake.forwarded.remove(&request) else {
                continue;
            };
            match from_peer(from, proposal.command.len(), outcome) {
                Some(outcome) => drop(proposal.waiter.answer(outcome)),
                // The next tick tries again: at once would be a race between two nodes' views.
                None => self.intake.wait(proposal),
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
