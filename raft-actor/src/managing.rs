//! What this node asks the leader, whoever that is: kept here, sent, and sent again until there is an answer or the time is
//! up; and what peers ask this node.
//!
//! Invariants:
//! - At most [`REQUESTS_MAX`] wait, and each has a deadline.
//! - Asking twice does no harm, because a request says how things are to be. (A handover to nobody in particular does not:
//!   it is not asked again of the next leader, for then it is done.)
//! - What a peer asked is not passed on: a node that does not lead says so.

mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use raft_core::membership::{ChangeError, Step};
use raft_core::{NodeId, Raft, Role};
use raft_net::Frame;

use crate::changing::{By, PATIENCE, Undone, Wanted};
use crate::door::TIMEOUT_MAX;
use crate::message::change::TIMEOUT;
use crate::node::{Life, Node};
use crate::observe::raft_of;
use crate::reply::{Later, later};
use crate::step::Step as Hook;
use crate::{ChangeMembership, Changed, GetMembers, Members, MembershipError, TransferLeadership};

/// What this node may ask at a time.
const REQUESTS_MAX: usize = 64;
/// When a leader has not answered for so long it is asked again: the question or the answer may be lost.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long a node that said that it does not lead is left alone, unless another leader is heard of before.
const SPURNED: Duration = Duration::from_millis(100);
/// The bits of a request's name that count within one life of a node; those above name the life.
const REQUEST_BITS: u32 = 40;

/// What only the leader can do, or knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Steps about members: see [`ChangeMembership`].
    Change {
        steps: Vec<Step>,
        forced: bool,
    },
    Transfer {
        to: Option<NodeId>,
    },
    Members,
}

/// The leader has done it, or says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Changed(Changed),
    Transferred(NodeId),
    Members(Members),
}

/// What a node that is asked says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(Done),
    /// It does not lead, and has done nothing.
    NotLeader,
    Error(MembershipError),
}

/// What is to happen with the leader's answer. It is dropped uncalled if the node's actor dies.
pub(crate) type Then =
    Box<dyn FnOnce(&mut Node, Result<Done, MembershipError>, &mut Context<Node>)>;

/// What a node that is asked does with what it says.
type Tell = Box<dyn FnOnce(&mut Node, Outcome, &mut Context<Node>)>;

/// See the [module](self).
pub(crate) struct Managing {
    requests: BTreeMap<u64, Request>,
    last_request: u64,
}

struct Request {
    op: Op,
    since: Instant,
    deadline: Instant,
    /// Who was asked last.
    to: Option<NodeId>,
    /// That one may do it, or have done it.
    sent: bool,
    /// So may one that was asked before.
    sent_before: bool,
    /// Not before this is the same node asked again.
    again_at: Instant,
    then: Then,
}

impl Managing {
    /// `starts` counts the starts of this node on its folder: an answer to an earlier life is none to this one.
    pub(crate) fn new(starts: u64) -> Self {
        Self {
            requests: BTreeMap::new(),
            last_request: starts << REQUEST_BITS,
        }
    }

    /// The connection to `peer` broke: what it was asked may be lost.
    pub(crate) fn connection_lost(&mut self, peer: NodeId) {
        let now = Instant::now();
        for request in self.requests.values_mut() {
            if request.to == Some(peer) {
                request.again_at = now;
            }
        }
    }
}

impl Request {
    /// What is said when its time is up.
    fn too_late(&self, now: Instant) -> MembershipError {
        let waited = now.saturating_duration_since(self.since);
        if self.sent || self.sent_before {
            MembershipError::TimedOut { waited }
        } else {
            MembershipError::NoLeader { waited }
        }
    }

    /// Whether it is done because there is another leader than the one that was asked.
    fn is_fulfilled_by(&self, leader: NodeId) -> bool {
        let anybody = matches!(self.op, Op::Transfer { to: None });
        anybody && self.sent && self.to.is_some_and(|to| to != leader)
    }
}

impl Node {
    /// Asks whoever leads, until there is an answer or `timeout` has passed.
    pub(crate) fn ask_leader(
        &mut self,
        op: Op,
        timeout: Duration,
        then: Then,
        ctx: &mut Context<Self>,
    ) {
        let refused = match &self.life {
            Life::Failed { why, .. } => Some(MembershipError::Failed(why.clone())),
            Life::Draining { .. } | Life::Closing => Some(MembershipError::NodeEnded),
            Life::Forming { .. } | Life::Running(_) => {
                let full = self.managing.requests.len() >= REQUESTS_MAX;
                full.then_some(MembershipError::Busy)
            }
        };
        if let Some(error) = refused {
            return then(self, Err(error), ctx);
        }
        let now = Instant::now();
        self.managing.last_request += 1;
        let request = Request {
            op,
            since: now,
            deadline: now + timeout.min(TIMEOUT_MAX),
            to: None,
            sent: false,
            sent_before: false,
            again_at: now,
            then,
        };
        let name = self.managing.last_request;
        self.managing.requests.insert(name, request);
    }

    /// Asks what is to be asked now, and ends what waits too long. At the end of every turn.
    pub(crate) fn tend_requests(&mut self, ctx: &mut Context<Self>) {
        if self.managing.requests.is_empty() {
            return;
        }
        let now = Instant::now();
        let leader = match &self.life {
            Life::Running(raft) => raft.leader(),
            _ => None,
        };
        for name in self.managing.requests.keys().copied().collect::<Vec<_>>() {
            let Some(request) = self.managing.requests.get(&name) else {
                continue; // Another one's end has ended it.
            };
            if now >= request.deadline {
                let error = request.too_late(now);
                self.end_request(name, Err(error), ctx);
                continue;
            }
            let Some(leader) = leader else { continue };
            if request.is_fulfilled_by(leader) {
                self.end_request(name, Ok(Done::Transferred(leader)), ctx);
            } else if request.to != Some(leader) || now >= request.again_at {
                self.send_request(name, leader, now, ctx);
            }
        }
    }

    fn end_request(
        &mut self,
        name: u64,
        result: Result<Done, MembershipError>,
        ctx: &mut Context<Self>,
    ) {
        if let Some(request) = self.managing.requests.remove(&name) {
            (request.then)(self, result, ctx);
        }
    }

    fn send_request(&mut self, name: u64, leader: NodeId, now: Instant, ctx: &mut Context<Self>) {
        let Some(request) = self.managing.requests.get_mut(&name) else {
            return;
        };
        let op = request.op.clone();
        if leader != self.id
            && !self.tell(
                leader,
                |data| Frame::Manage {
                    request: name,
                    data,
                },
                op.encode(),
            )
        {
            return; // Perhaps in the next turn.
        }
        let Some(request) = self.managing.requests.get_mut(&name) else {
            return;
        };
        request.sent_before |= request.sent;
        (request.to, request.sent, request.again_at) = (Some(leader), true, now + AGAIN_AFTER);
        if leader == self.id {
            let then = Box::new(move |node: &mut Self, outcome, ctx: &mut _| {
                node.answered_by(leader, name, outcome, ctx);
            });
            self.manage(op, (leader, name), then, ctx);
        }
    }

    /// Sends a frame to a peer. False if it cannot be sent now.
    fn tell(
        &mut self,
        to: NodeId,
        frame: impl FnOnce(Bytes) -> Frame,
        data: Result<Bytes, crate::CodecError>,
    ) -> bool {
        let Some(peer) = self.peers.get(&to).filter(|peer| peer.connected) else {
            return false;
        };
        let encoded = data.map(|data| self.encoder.encode_for(&peer.sender, frame(data)));
        match encoded {
            Ok(Ok(frame)) => peer.sender.try_send(frame).is_ok(),
            Ok(Err(error)) => {
                tracing::error!(peer = %to, "cannot encode a request or its answer: {error}");
                false
            }
            Err(error) => {
                tracing::error!(peer = %to, "a request or its answer: {error}");
                false
            }
        }
    }

    /// What a node says that was asked. From another than was asked last, it comes too late.
    fn answered_by(&mut self, from: NodeId, name: u64, outcome: Outcome, ctx: &mut Context<Self>) {
        let Some(request) = self.managing.requests.get_mut(&name) else {
            return;
        };
        if request.to != Some(from) {
            return;
        }
        match outcome {
            Outcome::NotLeader => {
                request.sent = false;
                request.again_at = Instant::now() + SPURNED;
            }
            Outcome::Done(done) => self.end_request(name, Ok(done), ctx),
            Outcome::Error(error) => self.end_request(name, Err(error), ctx),
        }
    }

    /// A peer answers what this node asked it.
    pub(crate) fn managed(
        &mut self,
        from: NodeId,
        name: u64,
        data: &Bytes,
        ctx: &mut Context<Self>,
    ) {
        let unreadable = Outcome::Error(MembershipError::Malformed);
        let outcome = Outcome::decode(data).unwrap_or(unreadable);
        self.answered_by(from, name, outcome, ctx);
    }

    /// A peer asks this node for what the leader does.
    pub(crate) fn manage_for(
        &mut self,
        from: NodeId,
        name: u64,
        data: &Bytes,
        ctx: &mut Context<Self>,
    ) {
        let then = Box::new(move |node: &mut Self, outcome: Outcome, _: &mut _| {
            if outcome == Outcome::NotLeader {
                node.hosting.steps.at(Hook::Redirecting);
            }
            if let Some(data) = outcome.encode() {
                // What cannot be sent is asked again.
                node.tell(
                    from,
                    |data| Frame::Managed {
                        request: name,
                        data,
                    },
                    data,
                );
            }
        });
        match Op::decode(data) {
            Ok(op) => self.manage(op, (from, name), then, ctx),
            Err(wire::Unreadable) => then(self, Outcome::Error(MembershipError::Malformed), ctx),
        }
    }

    /// Does what the leader does, if this is it. `by` names the request: asked again while it waits, it is not done again.
    fn manage(&mut self, op: Op, by: By, then: Tell, ctx: &mut Context<Self>) {
        match op {
            Op::Change { steps, forced } => {
                let steps = move |node: &Self| about_members(&steps, raft_of(&node.life));
                let then = |node: &mut Self, result: Result<_, _>, ctx: &mut _| {
                    if let Some(outcome) = outcome(result.map(Done::Changed)) {
                        then(node, outcome, ctx);
                    }
                };
                let wanted = Wanted {
                    by: Some(by),
                    steps: Box::new(steps),
                    forced,
                    deadline: Instant::now() + PATIENCE,
                    then: Box::new(then),
                };
                self.change(wanted, ctx);
            }
            Op::Transfer { to } => {
                let then = |node: &mut Self, result: Result<_, _>, ctx: &mut _| {
                    if let Some(outcome) = outcome(result.map(Done::Transferred)) {
                        then(node, outcome, ctx);
                    }
                };
                self.transfer_for(by, to, Box::new(then), ctx);
            }
            Op::Members => {
                let members = self.members_as_leader();
                let outcome =
                    members.map_or(Outcome::NotLeader, |m| Outcome::Done(Done::Members(m)));
                then(self, outcome, ctx);
            }
        }
    }

    /// The node ends: nobody is asked any more.
    pub(crate) fn end_requests(&mut self, error: &MembershipError, ctx: &mut Context<Self>) {
        for (_, request) in std::mem::take(&mut self.managing.requests) {
            (request.then)(self, Err(error.clone()), ctx);
        }
    }

    /// Whether it leads and takes part.
    pub(crate) fn leads(&self) -> bool {
        matches!(&self.life, Life::Running(raft) if raft.role() == Role::Leader)
    }
}

/// What is said to who asked. Nothing, if it may still be done: the next leader knows.
fn outcome(result: Result<Done, Undone>) -> Option<Outcome> {
    match result {
        Ok(done) => Some(Outcome::Done(done)),
        Err(Undone::NotLeader) => Some(Outcome::NotLeader),
        Err(Undone::Deposed) => None,
        Err(Undone::Error(error)) => Some(Outcome::Error(error)),
    }
}

/// The same steps, if they are about members, or take a membership that has ended.
fn about_members(steps: &[Step], raft: Option<&Raft>) -> Result<Vec<Step>, MembershipError> {
    let Some(raft) = raft else {
        return Err(MembershipError::NodeEnded);
    };
    let configuration = raft.configuration();
    for step in steps {
        let (Step::AddVoter(id)
        | Step::AddLearner(id)
        | Step::Join(id)
        | Step::Remove(id)
        | Step::SetPriority(id, _)
        | Step::Describe(id, _)) = step;
        if *id == NodeId(0) {
            return Err(ChangeError::NodeIdZero.into());
        }
        if configuration.contains(*id) {
            continue;
        }
        if !configuration.has_departed(*id) {
            return Err(MembershipError::NotAMember(*id));
        }
        if !matches!(step, Step::Remove(_)) {
            return Err(MembershipError::IdUsed(*id));
        }
    }
    Ok(steps.to_vec())
}

impl Handler<ChangeMembership> for Node {
    type Result = Later<Result<Changed, MembershipError>>;

    fn handle(&mut self, message: ChangeMembership, ctx: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        let ChangeMembership {
            steps,
            forced,
            timeout,
        } = message;
        if steps.len() > wire::STEPS_MAX {
            let error = ChangeError::TooManyMembers(steps.len());
            return Later::now(Err(error.into()));
        }
        let (later, answer) = later(|| Err(MembershipError::NodeEnded));
        let then = move |_: &mut Self, result: Result<_, _>, _: &mut _| {
            answer.give(result.and_then(|done| match done {
                Done::Changed(changed) => Ok(changed),
                _ => Err(MembershipError::Malformed),
            }));
        };
        let (op, timeout) = (Op::Change { steps, forced }, timeout.unwrap_or(TIMEOUT));
        self.ask_leader(op, timeout, Box::new(then), ctx);
        self.end_turn(ctx);
        later
    }
}

impl Handler<TransferLeadership> for Node {
    type Result = Later<Result<NodeId, MembershipError>>;

    fn handle(&mut self, message: TransferLeadership, ctx: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        let (later, answer) = later(|| Err(MembershipError::NodeEnded));
        let then = move |_: &mut Self, result: Result<_, _>, _: &mut _| {
            answer.give(result.and_then(|done| match done {
                Done::Transferred(to) => Ok(to),
                _ => Err(MembershipError::Malformed),
            }));
        };
        let op = Op::Transfer { to: message.to };
        self.ask_leader(op, TIMEOUT, Box::new(then), ctx);
        self.end_turn(ctx);
        later
    }
}

impl Handler<GetMembers> for Node {
    type Result = Later<Result<Members, MembershipError>>;

    fn handle(&mut self, _: GetMembers, ctx: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        let (later, answer) = later(|| Err(MembershipError::NodeEnded));
        let then = move |_: &mut Self, result: Result<_, _>, _: &mut _| {
            answer.give(result.and_then(|done| match done {
                Done::Members(members) => Ok(members),
                _ => Err(MembershipError::Malformed),
            }));
        };
        self.ask_leader(Op::Members, TIMEOUT, Box::new(then), ctx);
        self.end_turn(ctx);
        later
    }
}
