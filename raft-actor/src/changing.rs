//! How a leader changes the membership, and hands over: one thing at a time, in the order in which it was asked.
//!
//! Invariants:
//! - At most [`QUEUE_MAX`] wishes wait. Each has a deadline until its turn comes; once it has begun, it ends with the change
//!   or with this node's office.
//! - No change begins that would leave less than a majority of healthy voters in any half that decides, unless it is forced.
//! - The leader does not take its own vote before it has tried to hand over. So a cluster whose leader goes is without one for
//!   a round trip or two, not for an election timeout.
//! - Every change goes this way. The protocol's own (who has caught up votes, a joint configuration is left) are parts of it.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::membership::{Change, Configuration, Step, apply};
use raft_core::quorum::majority;
use raft_core::{Input, LogIndex, NodeId, Raft, Rejection, Role, Term};

use crate::metrics::ChangeOutcome;
use crate::node::Node;
use crate::observe::raft_of;
use crate::step::Step as Hook;
use crate::turn::Proposed;
use crate::{Changed, MembershipError};

/// Wishes that may wait.
const QUEUE_MAX: usize = 64;

/// How long a request waits here for its turn if it is not repeated, which it is each two seconds while its node waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Who asked, and its name for it.
pub(crate) type By = (NodeId, u64);
/// What is to happen in the end. It is dropped uncalled if the node ends.
pub(crate) type Then<T> = Box<dyn FnOnce(&mut Node, Result<T, Undone>, &mut Context<Node>)>;
/// What is to change, of the node as it is when its turn comes: then it leads, and its configuration is committed and not
/// joint. It may be asked more than once.
pub(crate) type Steps = Box<dyn Fn(&Node) -> Result<Vec<Step>, MembershipError>>;

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// This node does not lead. It has done nothing.
    NotLeader,
    /// This node led, and leads no more. It may still come to be committed.
    Deposed,
    /// It is not done, and is not tried again.
    Error(MembershipError),
}

/// A change that this node, if it leads, is to make.
pub(crate) struct Wanted {
    /// Whose request it is, if it may be repeated: then it is made once, and the first to ask is answered.
    pub(crate) by: Option<By>,
    pub(crate) steps: Steps,
    /// It is made also if it leaves too few healthy voters.
    pub(crate) forced: bool,
    /// It is not begun after this.
    pub(crate) deadline: Instant,
    /// Called when it is committed and no second majority is needed any more, or when it will not be.
    pub(crate) then: Then<Changed>,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Changes {
    queue: VecDeque<Wish>,
    under_way: Option<UnderWay>,
    /// The last handover is over. Whose it was is seen to at the end of the turn.
    handed_over: Option<HandedOver>,
}

struct Wish {
    by: Option<By>,
    since: Instant,
    deadline: Instant,
    goal: Goal,
}

enum Goal {
    Change {
        steps: Steps,
        forced: bool,
        /// It would take the leader's vote, and nobody has taken the leadership.
        in_vain: bool,
        then: Then<Changed>,
    },
    Transfer {
        to: Option<NodeId>,
        then: Then<NodeId>,
    },
}

enum UnderWay {
    /// The entry is in this leader's log.
    Change {
        by: Option<By>,
        first: LogIndex,
        term: Term,
        then: Then<Changed>,
    },
    /// The leadership is being handed over, as somebody wants it.
    Transfer { by: Option<By>, then: Then<NodeId> },
    /// It is, because the first wish of the queue takes this leader's vote.
    MakeWay,
}

#[derive(Clone, Copy)]
struct HandedOver {
    to: NodeId,
    still_leads: bool,
}

/// What the guard says of a change.
enum Guard {
    Pass,
    /// This leader is too new to know who is healthy.
    Wait,
    Refuse(MembershipError),
}

impl Wish {
    fn undone(self, node: &mut Node, why: Undone, ctx: &mut Context<Node>) {
        match self.goal {
            Goal::Change { then, .. } => then(node, Err(why), ctx),
            Goal::Transfer { then, .. } => then(node, Err(why), ctx),
        }
    }
}

impl UnderWay {
    fn by(&self) -> Option<By> {
        match self {
            Self::Change { by, .. } | Self::Transfer { by, .. } => *by,
            Self::MakeWay => None,
        }
    }
}

impl Changes {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_none()
    }

    /// Forgets all that is here.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    /// A handover to `to` is over.
    pub(crate) fn transfer_ended(&mut self, to: NodeId, still_leads: bool) {
        self.handed_over = Some(HandedOver { to, still_leads });
    }

    /// Whether the same wish is here already. If it waits, it waits until `deadline` now.
    fn has(&mut self, by: Option<By>, deadline: Instant) -> bool {
        if by.is_none() {
            return false;
        }
        if let Some(wish) = self.queue.iter_mut().find(|wish| wish.by == by) {
            wish.deadline = wish.deadline.max(deadline);
            return true;
        }
        self.under_way.as_ref().and_then(UnderWay::by) == by
    }
}

impl Node {
    /// Makes a change of the membership, if this node leads; with all that comes with it, and as the only way to one.
    pub(crate) fn change(&mut self, wanted: Wanted, ctx: &mut Context<Self>) {
        let Wanted {
            by,
            steps,
            forced,
            deadline,
            then,
        } = wanted;
        let then = |node: &mut Self, result: Result<_, _>, ctx: &mut _| {
            if let Some(outcome) = counted(&result) {
                node.observer.metrics.membership_changed(outcome);
            }
            then(node, result, ctx);
        };
        let goal = Goal::Change {
            steps,
            forced,
            in_vain: false,
            then: Box::new(then),
        };
        self.wish(by, deadline, goal, ctx);
    }

    /// Hands the leadership over, for a request of a node.
    pub(crate) fn transfer_for(
        &mut self,
        by: By,
        to: Option<NodeId>,
        then: Then<NodeId>,
        ctx: &mut Context<Self>,
    ) {
        let goal = Goal::Transfer { to, then };
        self.wish(Some(by), Instant::now() + PATIENCE, goal, ctx);
    }

    fn wish(&mut self, by: Option<By>, deadline: Instant, goal: Goal, ctx: &mut Context<Self>) {
        let wish = Wish {
            by,
            since: Instant::now(),
            deadline,
            goal,
        };
        if !self.leads() {
            wish.undone(self, Undone::NotLeader, ctx);
        } else if self.changes.has(by, deadline) {
            // The one that is here is answered.
        } else if self.changes.queue.len() >= QUEUE_MAX {
            wish.undone(self, Undone::Error(MembershipError::Busy), ctx);
        } else {
            self.changes.queue.push_back(wish);
        }
    }

    /// Goes on with what is under way, and begins what can begin. At the end of every turn.
    pub(crate) fn tend_changes(&mut self, ctx: &mut Context<Self>) {
        let handed_over = self.changes.handed_over.take();
        if self.changes.is_idle() {
            return;
        }
        self.settle(handed_over, ctx);
        if !self.leads() {
            for wish in std::mem::take(&mut self.changes.queue) {
                wish.undone(self, Undone::NotLeader, ctx);
            }
            return;
        }
        if self.changes.under_way.is_some() {
            return;
        }
        let now = Instant::now();
        let (late, waiting) = std::mem::take(&mut self.changes.queue)
            .into_iter()
            .partition(|wish: &Wish| wish.deadline <= now);
        self.changes.queue = waiting;
        for wish in Vec::from(late) {
            let waited = now.saturating_duration_since(wish.since);
            let error = MembershipError::TimedOut { waited };
            wish.undone(self, Undone::Error(error), ctx);
        }
        while self.changes.under_way.is_none()
            && let Some(wish) = self.changes.queue.pop_front()
        {
            if let Some(wish) = self.begin(wish, ctx) {
                self.changes.queue.push_front(wish);
                return;
            }
        }
    }

    /// Ends what is under way, if it has come to its end.
    fn settle(&mut self, handed_over: Option<HandedOver>, ctx: &mut Context<Self>) {
        let Some(raft) = raft_of(&self.life) else {
            return;
        };
        let leads = raft.role() == Role::Leader;
        match self.changes.under_way.take() {
            None => {}
            Some(UnderWay::Change {
                by,
                first,
                term,
                then,
            }) => {
                // In one term only its leader appends, and it cuts nothing: what is committed there is what it appended.
                let ours = raft.term() == term;
                let configuration = raft.committed_configuration();
                if ours && raft.commit() >= first && !configuration.is_joint() {
                    let changed = changed(Some(first), configuration);
                    tracing::info!(at = first.0, "the membership is committed: {configuration}");
                    then(self, Ok(changed), ctx);
                } else if !ours || !leads {
                    then(self, Err(Undone::Deposed), ctx);
                } else {
                    self.changes.under_way = Some(UnderWay::Change {
                        by,
                        first,
                        term,
                        then,
                    });
                }
            }
            Some(UnderWay::Transfer { by, then }) => match handed_over {
                // Whether it is the one who was to, the next leader knows, who is asked.
                Some(HandedOver {
                    still_leads: false, ..
                }) => then(self, Err(Undone::Deposed), ctx),
                Some(HandedOver { to, .. }) => {
                    let error = MembershipError::NotTransferred { to };
                    then(self, Err(Undone::Error(error)), ctx);
                }
                None if !leads => then(self, Err(Undone::NotLeader), ctx),
                None => self.changes.under_way = Some(UnderWay::Transfer { by, then }),
            },
            Some(UnderWay::MakeWay) => match handed_over {
                Some(HandedOver {
                    still_leads: false, ..
                }) => self.hosting.steps.at(Hook::LeaveTransferred),
                Some(HandedOver { to, .. }) => {
                    if let Some(Wish {
                        goal: Goal::Change { in_vain, .. },
                        ..
                    }) = self.changes.queue.front_mut()
                    {
                        tracing::warn!(
                            "node {to} did not take the leadership over: this leader goes without"
                        );
                        *in_vain = true;
                    }
                }
                None if !leads => {}
                None => self.changes.under_way = Some(UnderWay::MakeWay),
            },
        }
    }

    /// Begins with `wish`, which is given back if it must wait.
    fn begin(&mut self, wish: Wish, ctx: &mut Context<Self>) -> Option<Wish> {
        let raft = raft_of(&self.life)?;
        if raft.change_is_under_way() || raft.configuration().is_joint() {
            return Some(wish);
        }
        let Wish {
            by,
            since,
            deadline,
            goal,
        } = wish;
        let goal = match goal {
            Goal::Transfer { to, then } => self.begin_transfer(by, to, then, ctx),
            Goal::Change {
                steps,
                forced,
                in_vain,
                then,
            } => self.begin_change(by, steps, forced, in_vain, then, ctx),
        };
        goal.map(|goal| Wish {
            by,
            since,
            deadline,
            goal,
        })
    }

    fn begin_transfer(
        &mut self,
        by: Option<By>,
        to: Option<NodeId>,
        then: Then<NodeId>,
        ctx: &mut Context<Self>,
    ) -> Option<Goal> {
        if to == Some(self.id) {
            then(self, Ok(self.id), ctx);
            return None;
        }
        match self.take_in(Input::TransferLeadership { to }, ctx) {
            None => {
                self.changes.under_way = Some(UnderWay::Transfer { by, then });
                None
            }
            Some(Proposed::Rejected(Rejection::NoCandidate(_))) => {
                let error = MembershipError::NoCandidate;
                then(self, Err(Undone::Error(error)), ctx);
                None
            }
            // Another handover is under way, say.
            Some(_) => Some(Goal::Transfer { to, then }),
        }
    }

    fn begin_change(
        &mut self,
        by: Option<By>,
        steps: Steps,
        forced: bool,
        in_vain: bool,
        then: Then<Changed>,
        ctx: &mut Context<Self>,
    ) -> Option<Goal> {
        let raft = raft_of(&self.life)?;
        let now = raft.configuration();
        let planned = steps(self).and_then(|steps| {
            let change = Change::Auto(steps);
            let target = apply(now, &change)?;
            Ok((change, target))
        });
        let (change, target) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                then(self, Err(Undone::Error(error)), ctx);
                return None;
            }
        };
        if target == *now {
            let changed = changed(None, now);
            then(self, Ok(changed), ctx);
            return None;
        }
        let again = |steps, then| {
            Some(Goal::Change {
                steps,
                forced,
                in_vain,
                then,
            })
        };
        match self.guard(raft, &target) {
            _ if forced => {}
            Guard::Pass => {}
            Guard::Wait => return again(steps, then),
            Guard::Refuse(error) => {
                tracing::warn!("refuses to change the membership to {target}: {error}");
                then(self, Err(Undone::Error(error)), ctx);
                return None;
            }
        }
        let goes = now.members().iter().any(|id| !target.contains(*id));
        let loses_vote = now.votes(self.id) && !target.voters.contains(&self.id);
        if loses_vote
            && !in_vain
            && let Some(to) = self.successor(raft, &target)
        {
            tracing::info!(%to, "hands over before its own vote goes");
            let to = Some(to);
            match self.take_in(Input::TransferLeadership { to }, ctx) {
                None => {
                    self.changes.under_way = Some(UnderWay::MakeWay);
                    return again(steps, then);
                }
                Some(Proposed::Rejected(Rejection::NoCandidate(_))) => {}
                Some(_) => return again(steps, then),
            }
        }
        match self.take_in(Input::ChangeMembership(change), ctx) {
            Some(Proposed::Appended { first, term, .. }) => {
                if goes {
                    self.hosting.steps.at(Hook::LeaveAppended);
                }
                self.changes.under_way = Some(UnderWay::Change {
                    by,
                    first,
                    term,
                    then,
                });
                None
            }
            Some(Proposed::Rejected(Rejection::Change(error))) => {
                then(self, Err(Undone::Error(error.into())), ctx);
                None
            }
            // It hands over, say. If the node has failed in this step, nobody comes back to it.
            Some(Proposed::Rejected(_)) | None => again(steps, then),
        }
    }

    /// Whether enough of those who would vote are healthy.
    fn guard(&self, raft: &Raft, target: &Configuration) -> Guard {
        let now = raft.configuration();
        if target.voters == now.voters && target.voters_outgoing == now.voters_outgoing {
            return Guard::Pass; // It changes nothing about who decides.
        }
        let status = raft.status();
        for voters in [&target.voters, &target.voters_outgoing] {
            let healthy = voters
                .iter()
                .filter(|id| self.ailment(**id, &status).is_none());
            let healthy: Vec<NodeId> = healthy.copied().collect();
            if voters.is_empty() || healthy.len() >= majority(voters.len()) {
                continue;
            }
            if !self.knows_its_peers() {
                return Guard::Wait;
            }
            return Guard::Refuse(MembershipError::NoHealthyQuorum {
                voters: voters.iter().copied().collect(),
                healthy,
            });
        }
        Guard::Pass
    }

    /// The healthy voter to whom a handover takes least, of those who still vote in `target`.
    fn successor(&self, raft: &Raft, target: &Configuration) -> Option<NodeId> {
        let status = raft.status();
        let voters = status.peers.iter().filter(|peer| {
            let id = peer.id;
            raft.configuration().voters.contains(&id) && target.voters.contains(&id)
        });
        let healthy = voters.filter(|peer| self.ailment(peer.id, &status).is_none());
        let best = healthy.max_by_key(|peer| {
            let priority = target.priority(peer.id);
            (priority, peer.matched, Reverse(peer.id))
        });
        best.map(|peer| peer.id)
    }
}

/// What a change counts as; none if this node had nothing to do with it.
fn counted(result: &Result<Changed, Undone>) -> Option<ChangeOutcome> {
    Some(match result {
        Ok(Changed { index: None, .. }) => ChangeOutcome::Unneeded,
        Ok(_) => ChangeOutcome::Committed,
        Err(Undone::NotLeader) => return None,
        Err(Undone::Deposed) => ChangeOutcome::Deposed,
        Err(Undone::Error(MembershipError::TimedOut { .. })) => ChangeOutcome::TimedOut,
        Err(Undone::Error(_)) => ChangeOutcome::Refused,
    })
}

fn changed(index: Option<LogIndex>, configuration: &Configuration) -> Changed {
    Changed {
        index,
        configuration: configuration.clone(),
        catching_up: configuration.joining.iter().copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_again_is_not_heard_twice_and_waits_longer() {
        let (now, by) = (Instant::now(), (NodeId(2), 7));
        let wish = |by| Wish {
            by,
            since: now,
            deadline: now + PATIENCE,
            goal: Goal::Transfer {
                to: None,
                then: Box::new(|_, _, _| {}),
            },
        };
        let mut changes = Changes::default();
        let later = now + 2 * PATIENCE;
        assert!(!changes.has(Some(by), later));
        changes.queue.push_back(wish(Some(by)));
        assert!(changes.has(Some(by), later));
        assert_eq!(changes.queue[0].deadline, later);
        assert!(changes.has(Some(by), now));
        assert_eq!(changes.queue[0].deadline, later);
        // The same number of another node's, and another of its own.
        assert!(!changes.has(Some((NodeId(3), 7)), later));
        assert!(!changes.has(Some((NodeId(2), 8)), later));
        // What the leader wants itself is never a repetition.
        changes.queue.push_back(wish(None));
        assert!(!changes.has(None, later));

        changes.queue.clear();
        changes.under_way = Some(UnderWay::Transfer {
            by: Some(by),
            then: Box::new(|_, _, _| {}),
        });
        assert!(changes.has(Some(by), later) && !changes.has(None, later));
        changes.under_way = Some(UnderWay::MakeWay);
        assert!(!changes.has(Some(by), later));
    }
}
