//! Who belongs to the cluster, who decides in it, and who leads it: what the leader is asked, on any node.

use std::time::Duration;

use actix::Message;
use raft_core::membership::{Configuration, Step};
use raft_core::{LogIndex, NodeId};

use crate::{Members, MembershipError};

/// How long the leader's answer is waited for, unless something else is said.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Change who belongs to the cluster, who votes, and who is to lead rather than others. On any node: it is handed to the
/// leader.
///
/// It says how things are to be, not what is to be done. So it may be asked again, after whatever error: what is so
/// already is not done again. Several wishes in one message take effect together; of those that contradict each other the
/// last one counts.
///
/// ```
/// use raft_actor::{ChangeMembership, NodeId};
///
/// let change = ChangeMembership::new().remove(NodeId(3)).promote(NodeId(4));
/// # let _ = change;
/// ```
///
/// The leader refuses what would leave too few healthy voters for a majority, unless it is [`forced`](Self::forced).
/// Healthy is itself, and whoever it has heard within two election timeouts, feeds with entries, and finds no more than
/// 10,000 of them behind. If its own vote is to go, it hands the leadership over first.
///
/// Nobody comes by this: a node joins by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "Result<Changed, MembershipError>")]
pub struct ChangeMembership {
    pub(crate) steps: Vec<Step>,
    pub(crate) forced: bool,
    pub(crate) timeout: Option<Duration>,
}

impl ChangeMembership {
    /// One that changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn and(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The node is no member any more. Its id is never used again.
    #[must_use]
    pub fn remove(self, node: NodeId) -> Self {
        self.and(Step::Remove(node))
    }

    /// The learner votes, as soon as it has caught up. The answer does not wait for that
    /// ([`Changed::catching_up`]).
    #[must_use]
    pub fn promote(self, node: NodeId) -> Self {
        self.and(Step::Join(node))
    }

    /// The voter votes no more, and is fed as before; somebody who catches up to vote stays a learner.
    #[must_use]
    pub fn demote(self, node: NodeId) -> Self {
        self.and(Step::AddLearner(node))
    }

    /// A voter with a higher priority than the leader's is handed the leadership as soon as it is close behind. 0 is
    /// everybody's at first.
    #[must_use]
    pub fn priority(self, node: NodeId, priority: u32) -> Self {
        self.and(Step::SetPriority(node, priority))
    }

    /// It is done also if too few healthy voters are left for a majority. Then nothing is committed any more, and no further
    /// change is possible, until enough of the others are back.
    #[must_use]
    pub fn forced(mut self) -> Self {
        self.forced = true;
        self
    }

    /// How long the outcome is waited for; 10 s unless said, and a day at most.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// A change of the membership is committed, and no second majority is needed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The entry that made the change; none if everything was so already.
    pub index: Option<LogIndex>,
    /// The membership after it.
    pub configuration: Configuration,
    /// Learners that vote as soon as they have caught up.
    pub catching_up: Vec<NodeId>,
}

/// Hand the leadership over: to this node, or to the best of the other voters. On any node. The answer comes when the
/// leader leads no more, and names the node that was to take over; that it does lead, its [status](crate::GetStatus)
/// shows. It is waited for 10 s.
///
/// While the leadership is handed over, which takes a round trip or two, proposals wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "Result<NodeId, MembershipError>")]
pub struct TransferLeadership {
    /// The next leader. If it leads already, that is the answer.
    pub to: Option<NodeId>,
}

/// Leave the cluster, for good: this node hands over if it leads, is removed, and ends. It may be any node but the last voter,
/// which is shut down instead.
///
/// No more proposals are taken, and what waits is given a second to be committed. The answer comes when the others know that
/// it is no member any more, that is on its disk, and its folder and its address are free. The folder is of no use then:
/// whoever is to take part again joins with an empty one. After an error, which comes when nobody led in the time, say, it
/// takes part as before, and can be asked again; also if its process ended in between.
///
/// One that is [shut down](crate::Shutdown) instead is still a member: the others miss it, and are the fewer for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "Result<(), MembershipError>")]
pub struct Leave {
    /// How long to try; 10 s unless said, and a day at most.
    pub timeout: Option<Duration>,
}

/// Who belongs to the cluster, how far each of them is, and how many more may fail. Any node may be asked; the leader alone
/// knows, and answers. It is waited for 10 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "Result<Members, MembershipError>")]
pub struct GetMembers;
