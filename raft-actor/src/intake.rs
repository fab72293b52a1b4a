//! The way of a proposal up to the log: taken in, named, gathered, appended here or forwarded to the leader.
//!
//! Invariants:
//! - A proposal is in exactly one place: at the [`Door`](crate::door::Door), waiting for the node's session, waiting for a
//!   leader, forwarded, or with [`Delivery`](crate::delivery::Delivery).
//! - One that was sent is sent again only if the leader said that it did not take it, or if it has a name, under which the
//!   cluster applies it once. Otherwise, when the connection breaks first, the outcome is unknown.
//! - What a peer forwarded is never forwarded on.

mod forwarding;
mod gathering;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use raft_core::{Input, NodeId, Rejection, Role};
use raft_net::{
    Answer as PeerAnswer, ForwardOutcome, Forwarded, Frame, FrameEncoder, NotApplied, PeerSender,
    SendError,
};

pub(crate) use forwarding::send_answers;

use crate::delivery::Await;
use crate::ledger::{Request, Settlement};
use crate::node::{Life, Node};
use crate::own_session::OwnSession;
use crate::proposals::{
    Budget, FromPeer, OwnSessionOpened, Proposal, ReplyTo, Settled, Waiter, from_peer,
};
use crate::rhythm::Rhythm;
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
/// How long the leader's answer is waited for before a proposal with a name is sent again, the first time; each time
/// after that, twice as long. Answers are seldom lost: a leader drops them only when a queue is full.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Proposals of this node that are not in the log yet.
pub(crate) struct Intake {
    command_bytes_max: usize,
    timeout: Duration,
    pub(crate) own_session: OwnSession,
    /// What each peer may have waiting here.
    peer_budgets: BTreeMap<NodeId, Arc<Budget>>,
    /// What one peer may have waiting here: how many, and how many bytes.
    peer_budget: (usize, usize),
    /// What peers have forwarded in this turn.
    from_peers: Vec<Proposal>,
    /// Wait for the node's session, to be named.
    nameless: VecDeque<Proposal>,
    /// Wait for a leader.
    waiting: VecDeque<Proposal>,
    /// Are with the leader, by the name that this node gave them.
    forwarded: BTreeMap<u64, Away>,
    forwarded_bytes: usize,
    /// Who is left alone until when, because it said that it does not lead. This node itself, while it hands
    /// the leadership over.
    spurned: Option<(NodeId, Instant)>,
    last_request: u64,
    pub(crate) rhythm: Rhythm,
    /// What is to look at the door again if nobody else does.
    alarm: Option<SpawnHandle>,
    /// Nothing is due before this: no deadline of what waits or is away, and no sending again.
    next_due: Option<Instant>,
}

/// A proposal that was forwarded.
struct Away {
    leader: NodeId,
    again_at: Instant,
    proposal: Proposal,
}

impl Away {
    fn due(&self) -> Instant {
        let deadline = self.proposal.waiter.deadline;
        if self.proposal.may_be_sent_again() {
            deadline.min(self.again_at)
        } else {
            deadline
        }
    }
}

impl Intake {
    /// `starts` counts the starts of this node on its folder: an answer that was meant for an earlier life
    /// of the node must not be taken for the answer to a proposal of this one.
    pub(crate) fn new(config: &crate::Config, starts: u64) -> Self {
        Self {
            command_bytes_max: config.command_bytes_max,
            timeout: config.propose_timeout,
            own_session: OwnSession::new(config.session_timeout),
            peer_budget: (config.proposals_max, config.proposals_bytes_max),
            peer_budgets: BTreeMap::new(),
            from_peers: Vec::new(),
            nameless: VecDeque::new(),
            waiting: VecDeque::new(),
            forwarded: BTreeMap::new(),
            forwarded_bytes: 0,
            spurned: None,
            last_request: starts << REQUEST_BITS,
            rhythm: Rhythm::new(),
            alarm: None,
            next_due: None,
        }
    }

    /// This node deals with `peer` from now on.
    pub(crate) fn met(&mut self, peer: NodeId) {
        let (count, bytes) = self.peer_budget;
        let budget = || Budget::new(count, bytes);
        self.peer_budgets.entry(peer).or_insert_with(budget);
    }

    /// And with this one no more.
    pub(crate) fn parted(&mut self, peer: NodeId) {
        self.peer_budgets.remove(&peer);
    }

    fn note_due(&mut self, due: Instant) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    /// Keeps a proposal of this process until there is a leader.
    pub(crate) fn wait(&mut self, proposal: Proposal) {
        self.note_due(proposal.waiter.deadline);
        self.waiting.push_back(proposal);
    }

    /// Keeps one until the node has a session to name it in.
    fn wait_for_name(&mut self, proposal: Proposal) {
        self.note_due(proposal.waiter.deadline);
        self.nameless.push_back(proposal);
    }

    /// Names those of `gathered` that are to be named, behind those that wait for it already. What is left waits, and
    /// says that a session must be opened.
    fn name_all(&mut self, gathered: &mut Vec<Proposal>) {
        if !self.nameless.is_empty() {
            // Who waits already comes first.
            let mut all = Vec::from(std::mem::take(&mut self.nameless));
            all.append(gathered);
            *gathered = all;
        }
        let now = Instant::now();
        let nameless = |proposal: &&Proposal| proposal.nameless;
        let count = gathered.iter().filter(nameless).count();
        if count == 0 {
            return;
        }
        let mut names = self.own_session.names(now, count);
        let mut is_any_left = false;
        for proposal in gathered.iter_mut().filter(|proposal| proposal.nameless) {
            let Some(named) = names.as_mut().and_then(Iterator::next) else {
                is_any_left = true;
                break;
            };
            if let Request::Plain { command } = &mut proposal.request {
                let (id, low, command) = (named.id, 0, std::mem::take(command));
                proposal.request = Request::InSession { id, low, command };
            }
            proposal.nameless = false;
            proposal.ticket = Some(named.ticket);
        }
        if is_any_left {
            for proposal in std::mem::take(gathered) {
                if proposal.nameless {
                    self.wait_for_name(proposal);
                } else {
                    gathered.push(proposal);
                }
            }
        }
    }

    /// The next frame for a leader, and how many of those that wait are in it.
    fn next_forward(&mut self) -> (usize, Frame) {
        let mut bytes = 0;
        let fits = |proposal: &&Proposal| {
            let before = bytes;
            bytes += proposal.bytes();
            before < FORWARD_BYTES_MAX
        };
        let fitting = self.waiting.iter().take(FORWARD_MAX).take_while(fits);
        let count = fitting.count();
        let data = encode(self.waiting.range_mut(..count), 0);
        let name = |(data, request)| Forwarded { request, data };
        let named = data.into_iter().zip(self.last_request + 1..).map(name);
        (count, Frame::Forward(named.collect()))
    }

    /// What a flush has to do beside what stands at the door.
    fn standing(&self) -> usize {
        self.from_peers.len() + self.waiting.len() + self.nameless.len()
    }

    /// Whether there is any of it.
    pub(crate) fn has_work(&self) -> bool {
        self.standing() > 0
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
        let now = Instant::now();
        for mut proposal in self.waiting.drain(..count).collect::<Vec<_>>() {
            self.last_request += 1;
            self.forwarded_bytes += proposal.bytes();
            let again_at = now + AGAIN_AFTER * (1 << proposal.copies.min(10));
            proposal.copies += 1;
            let away = Away {
                leader,
                again_at,
                proposal,
            };
            self.note_due(away.due());
            self.forwarded.insert(self.last_request, away);
        }
    }

    /// Takes out one that is away.
    fn come_back(&mut self, request: u64) -> Option<Proposal> {
        let away = self.forwarded.remove(&request)?;
        self.forwarded_bytes -= away.proposal.bytes();
        Some(away.proposal)
    }

    /// Takes out all that are away and meet `condition`, oldest first.
    fn take_away(&mut self, condition: impl Fn(&Away) -> bool) -> Vec<Proposal> {
        let met = self.forwarded.iter().filter(|(_, away)| condition(away));
        let requests: Vec<u64> = met.map(|(request, _)| *request).collect();
        requests
            .into_iter()
            .filter_map(|request| self.come_back(request))
            .collect()
    }

    /// There may be another leader: whoever is left alone may be it. What is with another than `leader`, and may be
    /// sent again, is.
    pub(crate) fn leader_changed(&mut self, leader: Option<NodeId>) {
        self.spurned = None;
        let Some(leader) = leader else { return };
        let elsewhere =
            self.take_away(|away| away.leader != leader && away.proposal.may_be_sent_again());
        for proposal in elsewhere.into_iter().rev() {
            self.waiting.push_front(proposal);
        }
    }

    /// Answers those whose time is up, and takes back what the leader has not answered for too long.
    fn expire(&mut self, now: Instant) {
        if self.next_due.is_none_or(|due| now < due) {
            return;
        }
        for proposal in self.take_away(|away| away.due() <= now) {
            if proposal.waiter.deadline <= now {
                let error = proposal.unknown(UnknownCause::TimedOut);
                proposal.answer(Err(error));
            } else {
                self.waiting.push_back(proposal);
            }
        }
        let late = |proposal: &Proposal| proposal.waiter.deadline <= now;
        for queue in [&mut self.waiting, &mut self.nameless] {
            let (out, left): (Vec<_>, Vec<_>) = std::mem::take(queue).into_iter().partition(late);
            *queue = left.into();
            for proposal in out {
                let waited = now.saturating_duration_since(proposal.waiter.since);
                let error = match proposal.copies {
                    0 => ProposeError::NoLeader { waited },
                    _ => proposal.unknown(UnknownCause::TimedOut),
                };
                proposal.answer(Err(error));
            }
        }
        let waiting = self.waiting.iter().chain(&self.nameless);
        let waiting = waiting.map(|proposal| proposal.waiter.deadline);
        let away = self.forwarded.values().map(Away::due);
        self.next_due = away.chain(waiting).min();
    }

    /// The node is being shut down: what was not handed to anybody will not be.
    pub(crate) fn refuse_waiting(&mut self) {
        self.end_waiting(&ProposeError::ShuttingDown);
    }

    fn end_waiting(&mut self, error: &ProposeError) {
        let nameless = std::mem::take(&mut self.nameless);
        for proposal in std::mem::take(&mut self.waiting)
            .into_iter()
            .chain(nameless)
        {
            let error = match proposal.copies {
                0 => error.clone(),
                _ => proposal.unknown(UnknownCause::NodeEnded),
            };
            proposal.answer(Err(error));
        }
    }

    /// Ends all that is here: what was forwarded has an unknown outcome, the rest is told `error`.
    pub(crate) fn end(&mut self, error: &ProposeError) {
        // Peers hear nothing: their connections to this node are about to break.
        self.from_peers.clear();
        self.end_waiting(error);
        for proposal in self.take_away(|_| true) {
            let error = proposal.unknown(UnknownCause::NodeEnded);
            proposal.answer(Err(error));
        }
    }
}

/// The envelopes of `proposals`, in one allocation that all of them share.
fn encode<'p>(
    proposals: impl ExactSizeIterator<Item = &'p mut Proposal>,
    time_ms: u64,
) -> Vec<Bytes> {
    let count = proposals.len();
    let mut proposals = proposals.peekable();
    // Most have the size of the first; a guess too low grows, and one too high is given back with the batch.
    let bytes = proposals.peek().map_or(0, |first| first.bytes()) * count;
    let mut envelopes = Vec::with_capacity(bytes);
    let mut ends = Vec::with_capacity(count);
    for proposal in proposals {
        // What is outstanding is known best when it leaves.
        if let (Request::InSession { low, .. } | Request::Cancel { low, .. }, Some(ticket)) =
            (&mut proposal.request, &proposal.ticket)
        {
            *low = ticket.low();
        }
        proposal.request.encode_into(time_ms, &mut envelopes);
        ends.push(envelopes.len());
    }
    let all = Bytes::from(envelopes);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let envelope = |(start, end): (usize, &usize)| all.slice(start..*end);
    starts.zip(&ends).map(envelope).collect()
}

impl Node {
    /// Appends or forwards all that waits, oldest first, if there is a leader, unless it is left to gather.
    pub(crate) fn flush(&mut self, ctx: &mut Context<Self>) {
        self.hear_disk(ctx);
        if self.gathers(ctx) {
            return;
        }
        let mut gathered = self.door.take();
        self.intake.name_all(&mut gathered);
        if !self.intake.nameless.is_empty()
            && matches!(self.life, Life::Running(_))
            && self.intake.own_session.must_open()
        {
            let to = ReplyTo::Node(ctx.address().recipient());
            gathered.extend(self.door.open_for_node(to));
        }
        gathered.append(&mut self.intake.from_peers);
        let leader = match &self.life {
            Life::Running(raft)
                if raft.role() == Role::Leader && !self.intake.is_spurned(self.id) =>
            {
                if !self.intake.waiting.is_empty() {
                    let mut waiting = Vec::from(std::mem::take(&mut self.intake.waiting));
                    waiting.append(&mut gathered);
                    gathered = waiting;
                }
                if !gathered.is_empty() {
                    self.append(gathered, ctx);
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
                _ => self.intake.wait(proposal),
            }
        }
        self.answer_peers(refused);
    }

    /// Puts `proposals` into the log of this node, which leads.
    fn append(&mut self, mut proposals: Vec<Proposal>, ctx: &mut Context<Self>) {
        let commands = encode(proposals.iter_mut(), self.log_time_ms());
        let propose = Input::Propose(commands);
        match self.take_in(propose, ctx) {
            Some(Proposed::Appended { first, term, count }) => {
                debug_assert_eq!(count, proposals.len());
                for proposal in &mut proposals {
                    proposal.copies += 1;
                }
                self.parts.delivery.do_send(Await {
                    first,
                    term,
                    proposals,
                });
            }
            Some(Proposed::Rejected(Rejection::Busy)) => self.busy(proposals),
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
                for proposal in proposals {
                    let error = proposal.unknown(UnknownCause::NodeEnded);
                    proposal.answer(Err(error));
                }
            }
        }
    }

    /// This leader takes no more now. Who may have a copy in a log already cannot be told that, and waits.
    fn busy(&mut self, proposals: Vec<Proposal>) {
        let mut answers = Vec::new();
        for proposal in proposals {
            if proposal.copies == 0 {
                answers.extend(proposal.answer(Err(ProposeError::Busy)));
            } else {
                self.intake.wait(proposal);
            }
        }
        self.answer_peers(answers);
    }

    /// A proposal of this process has an outcome. If the node has named it, and no other copy can have been applied, that
    /// its session is gone or its window full is none yet: it gets another name.
    pub(crate) fn settled(&mut self, mut proposal: Proposal, settled: Settled) {
        if proposal.ticket.is_some()
            && let Settlement::SessionExpired | Settlement::BeyondWindow { .. } = settled.settlement
            && let Request::InSession { id, command, .. } = &proposal.request
        {
            self.intake.own_session.expired(id.session);
            if proposal.copies == 1 && self.takes_proposals() {
                proposal.request = Request::Plain {
                    command: command.clone(),
                };
                (proposal.nameless, proposal.ticket, proposal.copies) = (true, None, 0);
                return self.intake.wait_for_name(proposal);
            }
        }
        proposal.answer(Ok(settled));
    }

    /// One copy of it is certainly not in the log, and never will be.
    pub(crate) fn superseded(&mut self, mut proposal: Proposal) {
        proposal.copies -= 1;
        let resend = !matches!(proposal.request, Request::Plain { .. }) && self.takes_proposals();
        match proposal.copies {
            _ if resend => self.intake.wait(proposal),
            0 => drop(proposal.answer(Err(ProposeError::Superseded))),
            _ => self.unsure(proposal, UnknownCause::NodeEnded),
        }
    }

    /// A copy of it may be in a log. It is sent again, if that does no harm.
    pub(crate) fn unsure(&mut self, proposal: Proposal, cause: UnknownCause) {
        if proposal.may_be_sent_again() && self.takes_proposals() {
            return self.intake.wait(proposal);
        }
        let error = proposal.unknown(cause);
        proposal.answer(Err(error));
    }

    fn takes_proposals(&self) -> bool {
        matches!(self.life, Life::Running(_))
    }

    /// Answers those whose time is up, and tries again to find a leader for those who wait for one.
    pub(crate) fn expire_proposals(&mut self, ctx: &mut Context<Self>) {
        self.intake.expire(Instant::now());
        // What gathers is looked at here, too.
        if self.standing() > 0 {
            self.flush(ctx);
        }
    }

    /// The node's own session was opened, or cannot be.
    pub(crate) fn own_session_opened(
        &mut self,
        OwnSessionOpened(opened): OwnSessionOpened,
        ctx: &mut Context<Self>,
    ) {
        match &opened {
            Ok(session) => tracing::debug!(%session, "opened a session"),
            Err(error) => tracing::warn!("cannot open a session: {error}"),
        }
        let (is_open, too_many) = (opened.is_ok(), opened == Err(ProposeError::TooManySessions));
        self.intake.own_session.opened(opened.ok(), Instant::now());
        if too_many {
            for proposal in std::mem::take(&mut self.intake.nameless) {
                proposal.answer(Err(ProposeError::TooManySessions));
            }
        }
        // Else the next tick tries again: a leader that is busy would refuse at once, and again, and nobody else would
        // get a turn on this thread.
        if is_open {
            self.flush(ctx);
        }
    }
}
