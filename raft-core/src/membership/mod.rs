//! Who belongs to a cluster, and how that changes (paper §6, thesis §4): pure functions over
//! [`Configuration`]s.
//!
//! A change of at most one voter is safe in one step, because any majority of the old voters meets any
//! majority of the new ones (thesis §4.1). Any other change goes through a joint configuration, in which
//! every decision takes a majority of the outgoing *and* of the incoming voters (§4.3).
//!
//! Invariants, which [`Configuration::validate`] checks:
//! - No learner is a voter; who is to be a learner next is an outgoing voter until then.
//! - Only a joint configuration has outgoing voters, learners to be, or leaves by itself.
//! - Who joins is a learner, or is to be one next; who has a priority, or is described, is a member.
//!
//! And two that [`apply`] keeps from one configuration to the next:
//! - [`Configuration::highest_id`] never falls: whoever takes [`next_id`](Configuration::next_id) for a new node gives
//!   no id twice.
//! - The incarnation of a member never changes, once it is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::NodeId;

mod encode;
mod member;

pub use encode::DecodeError;
pub use member::{ADDRESS_LEN_MAX, Member, TLS_NAME_LEN_MAX, is_address};

/// The members that a configuration may have, in all its roles together. Nodes that introduce themselves name all of
/// them.
pub const MEMBERS_MAX: usize = 256;

/// Who decides, and who is fed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Configuration {
    /// Those who vote, in a joint configuration the incoming ones.
    pub voters: BTreeSet<NodeId>,
    /// In a joint configuration, those who vote as well until it is left; otherwise empty.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// Those who are fed and neither vote nor count.
    pub learners: BTreeSet<NodeId>,
    /// Outgoing voters who become learners when the joint configuration is left.
    pub learners_next: BTreeSet<NodeId>,
    /// Whether the leader leaves this joint configuration by itself, as soon as it is committed.
    pub auto_leave: bool,
    /// Those of the learners whom the leader makes voters by itself, once they have caught up
    /// (thesis §4.2.1).
    pub joining: BTreeSet<NodeId>,
    /// A voter with a higher priority than the leader is handed the leadership once it is close behind. Who has none here has 0.
    pub priorities: BTreeMap<NodeId, u32>,
    /// What is known of members, beyond their ids. It begins and ends with the membership: that of an outgoing voter
    /// ends when the joint configuration is left.
    pub about: BTreeMap<NodeId, Member>,
    /// The highest id of those that were members and are none any more; 0 at first.
    pub last_id: NodeId,
}

/// One wish for one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It votes from now on, whether it has the log or not. See [`Step::Join`] for the careful way.
    AddVoter(NodeId),
    /// It is fed and does not vote, until somebody changes that; a voter is demoted.
    AddLearner(NodeId),
    /// It is fed, and votes as soon as it has caught up. Nothing changes for a voter, unless the same change
    /// takes its vote first.
    Join(NodeId),
    /// It is no member any more.
    Remove(NodeId),
    /// It has this priority; 0 is everybody's at first.
    SetPriority(NodeId, u32),
    /// This is what is known of it, all of it. A known incarnation cannot be changed, nor forgotten.
    Describe(NodeId, Member),
}

/// A change of a [`Configuration`]. Of steps that contradict each other the last one counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// In one step if that is safe, else through a joint configuration that is left by itself.
    Auto(Vec<Step>),
    /// In one step: at most one voter may come or go.
    Simple(Vec<Step>),
    /// Into a joint configuration.
    EnterJoint {
        /// What is to change.
        steps: Vec<Step>,
        /// Whether the leader leaves it by itself; if not, [`Change::LeaveJoint`] must follow.
        auto_leave: bool,
    },
    /// Out of a joint configuration: only the incoming voters count from now on.
    LeaveJoint,
}

/// Why a change cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChangeError {
    /// Node ids begin with 1.
    #[error("0 is no node id: ids begin with 1")]
    NodeIdZero,
    /// A joint configuration must be left before anything else can change.
    #[error("the configuration is joint already: it must be left first")]
    AlreadyJoint,
    /// There is no joint configuration to leave.
    #[error("the configuration is not joint")]
    NotJoint,
    /// More than one voter in one step: two majorities might not meet.
    #[error("{0} voters would change in one step: that takes a joint configuration")]
    TooManyVoters(usize),
    /// Somebody must vote.
    #[error("no voter would be left")]
    NoVoters,
    /// A priority or a description for somebody who is no member.
    #[error("node {0} is no member")]
    NotAMember(NodeId),
    /// More than [`MEMBERS_MAX`].
    #[error("{0} members are more than {MEMBERS_MAX}")]
    TooManyMembers(usize),
    /// An address or a name that cannot be one: see [`Member::is_sound`].
    #[error(
        "node {0} cannot be found by this: an address is host:port, of at most {ADDRESS_LEN_MAX} bytes, a TLS name at most {TLS_NAME_LEN_MAX}"
    )]
    BadAddress(NodeId),
    /// The id goes by the name of one data folder, and not of another.
    #[error("node {0} is known by another data folder")]
    OtherFolder(NodeId),
}

/// The configuration that `change` makes of `configuration`.
///
/// # Errors
/// [`ChangeError`]; then nothing has changed.
pub fn apply(configuration: &Configuration, change: &Change) -> Result<Configuration, ChangeError> {
    let (joint, mut next) = (configuration.is_joint(), configuration.clone());
    match change {
        Change::LeaveJoint if !joint => return Err(ChangeError::NotJoint),
        Change::LeaveJoint => next.leave_joint(),
        _ if joint => return Err(ChangeError::AlreadyJoint),
        Change::Auto(steps) => {
            return match apply(configuration, &Change::Simple(steps.clone())) {
                Err(ChangeError::TooManyVoters(_)) => {
                    let (steps, auto_leave) = (steps.clone(), true);
                    apply(configuration, &Change::EnterJoint { steps, auto_leave })
                }
                simple => simple,
            };
        }
        Change::Simple(steps) => {
            next.take(steps)?;
            let changed = configuration.voters.symmetric_difference(&next.voters);
            match changed.count() {
                0 | 1 => {}
                more => return Err(ChangeError::TooManyVoters(more)),
            }
        }
        Change::EnterJoint { steps, auto_leave } => {
            next.voters_outgoing = next.voters.clone();
            next.auto_leave = *auto_leave;
            if next.voters.is_empty() {
                return Err(ChangeError::NoVoters);
            }
            next.take(steps)?;
        }
    }
    next.note_who_left(configuration);
    match next.validate() {
        Some(error) => Err(error),
        None => Ok(next),
    }
}

impl Configuration {
    /// One in which `voters` vote, and nobody else is.
    #[must_use]
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            ..Self::default()
        }
    }

    /// What this one is to be when only `voters` are left of its members, by an act from outside: they vote, what is
    /// known of them stays known, and no id of the others is free again. No majority has agreed to that.
    #[must_use]
    pub fn reduced_to(&self, voters: impl IntoIterator<Item = NodeId>) -> Self {
        let mut reduced = Self {
            about: self.about.clone(),
            last_id: self.last_id,
            ..Self::of(voters)
        };
        reduced.note_who_left(self);
        reduced
    }

    /// Whether two majorities decide.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether `id` votes, in either half.
    #[must_use]
    pub fn votes(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    /// Whether `id` is a member in any role.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.votes(id) || self.learners.contains(&id)
    }

    /// All members in any role, in order.
    #[must_use]
    pub fn members(&self) -> BTreeSet<NodeId> {
        let all = self.voters.iter().chain(&self.voters_outgoing);
        all.chain(&self.learners).copied().collect()
    }

    /// The priority of `id`.
    #[must_use]
    pub fn priority(&self, id: NodeId) -> u32 {
        self.priorities.get(&id).copied().unwrap_or(0)
    }

    /// The highest id that any node has, or had: those of the members, and of all that were removed.
    #[must_use]
    pub fn highest_id(&self) -> NodeId {
        self.members().into_iter().fold(self.last_id, NodeId::max)
    }

    /// The id of whoever joins next, which nobody ever had. (If somebody has the last number that there is, it is that
    /// one: then nobody can join.)
    #[must_use]
    pub fn next_id(&self) -> NodeId {
        NodeId(self.highest_id().0.saturating_add(1))
    }

    /// Whether `id` is no member any more, for good. Ask a configuration that is committed; then whoever has such an
    /// id was removed, or is somebody else than it says. (Who is not a member yet has an id above all of these.)
    #[must_use]
    pub fn has_departed(&self, id: NodeId) -> bool {
        !self.contains(id) && id <= self.highest_id()
    }

    fn take(&mut self, steps: &[Step]) -> Result<(), ChangeError> {
        for step in steps {
            let (Step::AddVoter(id)
            | Step::AddLearner(id)
            | Step::Join(id)
            | Step::Remove(id)
            | Step::SetPriority(id, _)
            | Step::Describe(id, _)) = step;
            let id = *id;
            if id == NodeId(0) {
                return Err(ChangeError::NodeIdZero);
            }
            match step {
                Step::AddVoter(_) => {
                    self.forget(id);
                    self.voters.insert(id);
                }
                Step::AddLearner(_) => {
                    self.forget(id);
                    self.learn(id);
                }
                Step::Join(_) if self.voters.contains(&id) => {}
                Step::Join(_) => {
                    self.learn(id);
                    self.joining.insert(id);
                }
                Step::Remove(_) => {
                    self.forget(id);
                    self.priorities.remove(&id);
                }
                Step::SetPriority(_, _) | Step::Describe(_, _) if !self.contains(id) => {
                    return Err(ChangeError::NotAMember(id));
                }
                Step::SetPriority(_, 0) => {
                    self.priorities.remove(&id);
                }
                Step::SetPriority(_, priority) => {
                    self.priorities.insert(id, *priority);
                }
                Step::Describe(_, member) => self.describe(id, member)?,
            }
        }
        if self.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        Ok(())
    }

    fn describe(&mut self, id: NodeId, member: &Member) -> Result<(), ChangeError> {
        let known = self.about.get(&id).and_then(|member| member.incarnation);
        if known.is_some() && known != member.incarnation {
            return Err(ChangeError::OtherFolder(id));
        }
        if *member == Member::default() {
            self.about.remove(&id);
        } else {
            self.about.insert(id, member.clone());
        }
        Ok(())
    }

    /// Makes a learner of `id`; who still votes in the outgoing half is none before that is left.
    fn learn(&mut self, id: NodeId) {
        if self.voters_outgoing.contains(&id) {
            self.learners_next.insert(id);
        } else {
            self.learners.insert(id);
        }
    }

    /// Takes every role from `id` but that of an outgoing voter, which ends with the joint configuration.
    fn forget(&mut self, id: NodeId) {
        self.voters.remove(&id);
        self.learners.remove(&id);
        self.learners_next.remove(&id);
        self.joining.remove(&id);
    }

    fn leave_joint(&mut self) {
        self.voters_outgoing.clear();
        self.learners.append(&mut self.learners_next);
        self.auto_leave = false;
        let members = self.members();
        self.priorities.retain(|id, _| members.contains(id));
    }

    /// Forgets what was known of those who were members in `before` and are none any more, but not how high their ids
    /// were.
    fn note_who_left(&mut self, before: &Self) {
        let members = self.members();
        self.about.retain(|id, _| members.contains(id));
        let left = before
            .members()
            .into_iter()
            .filter(|id| !members.contains(id));
        self.last_id = left.fold(self.last_id, NodeId::max);
    }

    /// Which invariant of the [module](self) does not hold; none if it is a configuration. An empty one,
    /// that of a node which nobody has told who belongs to its cluster, is one.
    #[must_use]
    pub fn validate(&self) -> Option<ChangeError> {
        let members = self.members();
        if members.contains(&NodeId(0)) {
            return Some(ChangeError::NodeIdZero);
        }
        if members.len() > MEMBERS_MAX {
            return Some(ChangeError::TooManyMembers(members.len()));
        }
        if self.voters.is_empty() && (!members.is_empty() || self.last_id != NodeId(0)) {
            return Some(ChangeError::NoVoters);
        }
        if !self.is_joint() && (!self.learners_next.is_empty() || self.auto_leave) {
            return Some(ChangeError::NotJoint);
        }
        let twofold = self.learners.iter().find(|id| self.votes(**id));
        let unfounded = self
            .learners_next
            .iter()
            .find(|id| !self.voters_outgoing.contains(id) || self.voters.contains(id));
        let learns = |id: &NodeId| self.learners.contains(id) || self.learners_next.contains(id);
        let strangers = self.joining.iter().filter(|id| !learns(id));
        let named = self.priorities.keys().chain(self.about.keys());
        let unknown = named.filter(|id| !members.contains(id));
        let wrong = twofold.into_iter().chain(unfounded).chain(strangers);
        if let Some(id) = wrong.chain(unknown).next() {
            return Some(ChangeError::NotAMember(*id));
        }
        let mut unsound = self.about.iter().filter(|(_, member)| !member.is_sound());
        unsound.next().map(|(id, _)| ChangeError::BadAddress(*id))
    }
}

impl fmt::Display for Configuration {
    /// Writes `voters 1 2 3`, or `voters 1 2 4 and 1 2 3, learners 5`: who decides, and not who they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ids: &BTreeSet<NodeId>| {
            let ids: Vec<String> = ids.iter().map(NodeId::to_string).collect();
            ids.join(" ")
        };
        write!(f, "voters {}", list(&self.voters))?;
        if self.is_joint() {
            write!(f, " and {}", list(&self.voters_outgoing))?;
        }
        for (name, ids) in [
            ("learners", &self.learners),
            ("learners next", &self.learners_next),
            ("joining", &self.joining),
        ] {
            if !ids.is_empty() {
                write!(f, ", {name} {}", list(ids))?;
            }
        }
        for (id, priority) in &self.priorities {
            write!(f, ", priority of {id} {priority}")?;
        }
        if self.auto_leave {
            write!(f, ", leaves by itself")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
