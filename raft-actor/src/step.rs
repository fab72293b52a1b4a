//! The steps of a join and of a leave, for tests that end a process at each of them.
//!
//! A program that asks is called at each, in the midst of it: nothing of what comes next has been done.

/// A step. The first half of each name says on whose side it is: who joins, who leaves, the leader (the host), or a
/// node that is asked and does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Who joins is about to ask a member.
    JoinAsked,
    /// It has been told its id.
    JoinTold,
    /// Its id and its cluster are on its disk.
    JoinRecorded,
    /// It has found itself in its log.
    Joined,
    /// The leader was asked.
    HostAsked,
    /// It has reached the one who joins.
    HostReached,
    /// It has appended the entry that has the new member.
    HostAppended,
    /// That is committed, and not told yet.
    HostCommitted,
    /// The new member votes from this entry on, which is appended.
    Promoting,
    /// A node is asked to leave.
    LeaveAsked,
    /// It led, and has handed over.
    LeaveTransferred,
    /// The leader has appended the entry without it.
    LeaveAppended,
    /// It knows that this is committed.
    LeaveCommitted,
    /// That is on its disk.
    LeaveRecorded,
    /// A node that does not lead says who does.
    Redirecting,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::JoinAsked,
        Self::JoinTold,
        Self::JoinRecorded,
        Self::Joined,
        Self::HostAsked,
        Self::HostReached,
        Self::HostAppended,
        Self::HostCommitted,
        Self::Promoting,
        Self::LeaveAsked,
        Self::LeaveTransferred,
        Self::LeaveAppended,
        Self::LeaveCommitted,
        Self::LeaveRecorded,
        Self::Redirecting,
    ];

    /// Its name, as commands have it.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Whom to call at each step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps(pub(crate) Option<fn(Step)>);

impl Steps {
    pub(crate) fn at(self, step: Step) {
        if let Some(called) = self.0 {
            called(step);
        }
    }
}
