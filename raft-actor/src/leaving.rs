//! How a node goes for good: because it wants to, or because it was removed.
//!
//! ```text
//! Stays ──Leave──▶ Draining ──1 s, or nothing waits──▶ Asking ──its removal is committed──▶ Departing ──recorded──▶ ends
//!   ▲                                                    │                                     ▲
//!   └──────────────── refused, or no leader ─────────────┘           removed by others ────────┘
//! ```
//!
//! Invariants:
//! - A node goes only when its removal is committed: from its own log, by the leader's word, or by that of a majority of its
//!   peers, who refuse whoever is none of them. Before it ends, that is on its disk: the folder is of no use any more.
//! - Who wanted to leave and was not let go takes part as before.
//! - Every step may be the last of a process. At the next start the node is a member and leaves when it is asked again, or it
//!   is told that it is none, or its folder says so.

use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::NodeId;
use raft_core::membership::{Configuration, Step as Change};
use raft_core::quorum::majority;
use raft_net::Refusal;
use tokio::sync::oneshot;

use crate::managing::{Done, Op};
use crate::message::change::TIMEOUT;
use crate::node::{Life, Node};
use crate::observe::raft_of;
use crate::reply::{Later, later};
use crate::step::Step;
use crate::{Leave, MembershipError, NodeFailure};

/// How long what was proposed here is given to be committed, before the node asks to be removed.
const DRAIN: Duration = Duration::from_secs(1);

/// What who wants the node to go is told.
type Left = Result<(), MembershipError>;

/// [`Leave`], for who may be told when this node's system is gone already: it ends with the node.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LeaveAndTell(pub(crate) oneshot::Sender<Left>);

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Leaving {
    stage: Stage,
    /// Who wants it to go.
    asked: Vec<Box<dyn FnOnce(Left)>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Stays,
    /// Nothing more is taken in, and what waits is given until then.
    Draining { until: Instant, deadline: Instant },
    /// The leader is asked.
    Asking,
    /// It is a member no more, which is being recorded.
    Departing,
}

impl Leaving {
    /// Whether somebody wants it to go.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Tells those who want it to go.
    pub(crate) fn tell(&mut self, result: &Left) {
        for tell in self.asked.drain(..) {
            tell(result.clone());
        }
    }
}

impl Node {
    fn leave(&mut self, message: Leave, tell: Box<dyn FnOnce(Left)>, ctx: &mut Context<Self>) {
        let refused = match &self.life {
            Life::Running(_) => None,
            Life::Forming { .. } => Some(MembershipError::NotAMember(self.id)),
            Life::Draining { .. } | Life::Closing => Some(MembershipError::NodeEnded),
            Life::Failed { why, .. } => Some(MembershipError::Failed(why.clone())),
        };
        if let Some(error) = refused {
            return tell(Err(error));
        }
        self.leaving.asked.push(tell);
        if self.leaving.stage != Stage::Stays {
            return; // Who asks again is answered with who asked first.
        }
        tracing::info!("leaves the cluster");
        self.hosting.steps.at(Step::LeaveAsked);
        self.flush_all(ctx);
        self.door.shut();
        let now = Instant::now();
        let timeout = message.timeout.unwrap_or(TIMEOUT);
        self.leaving.stage = Stage::Draining {
            until: now + DRAIN.min(timeout),
            deadline: now + timeout.min(crate::door::TIMEOUT_MAX),
        };
    }

    /// Goes on with leaving, and notices that others have removed this node. At the end of every turn.
    pub(crate) fn tend_leaving(&mut self, ctx: &mut Context<Self>) {
        let Life::Running(raft) = &self.life else {
            return;
        };
        let committed = raft.committed_configuration();
        match self.leaving.stage {
            Stage::Departing => {}
            _ if committed.has_departed(self.id) => {
                let committed = committed.clone();
                self.depart(committed, ctx);
            }
            Stage::Draining { until, deadline } => {
                let now = Instant::now();
                if now >= until || self.door.waiting_count() == 0 {
                    self.leaving.stage = Stage::Asking;
                    let op = Op::Change {
                        steps: vec![Change::Remove(self.id)],
                        forced: false,
                    };
                    let then = Box::new(|node: &mut Self, result, ctx: &mut _| {
                        node.may_leave(result, ctx);
                    });
                    self.ask_leader(op, deadline.saturating_duration_since(now), then, ctx);
                }
            }
            Stage::Stays | Stage::Asking => {}
        }
    }

    /// What the leader says.
    fn may_leave(&mut self, result: Result<Done, MembershipError>, ctx: &mut Context<Self>) {
        if self.leaving.stage != Stage::Asking || !matches!(self.life, Life::Running(_)) {
            return; // Its log, or others, have said it first; or it ends otherwise.
        }
        let error = match result {
            Ok(Done::Changed(changed)) if changed.configuration.has_departed(self.id) => {
                return self.depart(changed.configuration, ctx);
            }
            Ok(_) => MembershipError::Malformed,
            Err(error) => error,
        };
        tracing::warn!("stays in the cluster: {error}");
        self.leaving.stage = Stage::Stays;
        self.door.reopen();
        self.leaving.tell(&Err(error));
    }

    /// A peer refuses this node, perhaps as one that was removed. If a majority of the other voters says so, it is so: of
    /// those of the last membership that this node knows, or of the last that it knows to be committed, or has recorded.
    /// (Who was away knows of some who have gone themselves, and say nothing.)
    pub(crate) fn removed_by_refusal(
        &mut self,
        refusal: &Refusal,
        ctx: &mut Context<Self>,
    ) -> bool {
        let node = self.id;
        if *refusal != (Refusal::Removed { node }) || self.leaving.stage == Stage::Departing {
            return false;
        }
        let Life::Running(raft) = &self.life else {
            return false; // A new folder, under an id that was used: it is no member, and never was.
        };
        let committed = raft.committed_configuration();
        let memberships = [raft.configuration(), committed, &self.following.known];
        let Some(last) = memberships.into_iter().find(|of| self.is_removed_by(of)) else {
            return false;
        };
        let voters = last.voters.union(&last.voters_outgoing);
        let voters: Vec<_> = voters.copied().filter(|id| *id != node).collect();
        if voters.is_empty() {
            return false; // Nobody is left who could have removed it.
        }
        let mut others = last.reduced_to(voters);
        others.last_id = others.last_id.max(node);
        self.depart(others, ctx);
        true
    }

    /// Whether a majority of the voters of `of`, or the only other one, says that this node was removed.
    fn is_removed_by(&self, of: &Configuration) -> bool {
        let others = || of.voters.iter().filter(|id| **id != self.id);
        let says = |id: &&NodeId| self.peers.get(id).is_some_and(|peer| peer.says_removed);
        let (all, saying) = (others().count(), others().filter(says).count());
        saying > 0 && saying >= majority(all + 1).min(all)
    }

    /// This node is a member no more: that is made durable, and then it ends.
    fn depart(&mut self, without: Configuration, ctx: &mut Context<Self>) {
        self.leaving.stage = Stage::Departing;
        tracing::info!("is a member no more: {without}");
        self.hosting.steps.at(Step::LeaveCommitted);
        self.record(Some(without), None, ctx, Self::departed);
    }

    fn departed(&mut self, ctx: &mut Context<Self>) {
        self.hosting.steps.at(Step::LeaveRecorded);
        if raft_of(&self.life).is_none() {
            return; // It has failed meanwhile.
        }
        if self.leaving.is_wanted() {
            self.close(ctx);
        } else {
            let cluster = self.cluster;
            self.fail(NodeFailure::Removed { cluster }, ctx);
        }
    }
}

impl Handler<Leave> for Node {
    type Result = Later<Left>;

    fn handle(&mut self, message: Leave, ctx: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        let (later, answer) = later(|| Err(MembershipError::NodeEnded));
        self.leave(message, Box::new(move |left| answer.give(left)), ctx);
        self.end_turn(ctx);
        later
    }
}

impl Handler<LeaveAndTell> for Node {
    type Result = ();

    fn handle(&mut self, LeaveAndTell(teller): LeaveAndTell, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        // Who does not wait any more need not be told.
        let tell = move |left| drop(teller.send(left));
        self.leave(Leave::default(), Box::new(tell), ctx);
        self.end_turn(ctx);
    }
}
