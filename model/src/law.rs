//! What must always hold, and what must happen at least once.
//!
//! A [`Law`] that does not hold ends the search with the way to it. An [`Event`] that a model promises and
//! never sees fails the run as well: a model that does not reach what it is about proves nothing.

use std::fmt;

use stateright::Property;

use crate::cluster::{Cluster, State};

/// What must always hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// A term has at most one leader (paper §5.2).
    ElectionSafety,
    /// A node votes for at most one candidate in a term, however often it is started again (§5.2).
    OneVote,
    /// Two logs with an entry of the same term at the same position are equal up to it (§5.3).
    LogMatching,
    /// A leader has every entry that was committed before it, or by a leader of an older term (§5.4).
    LeaderCompleteness,
    /// What is committed at a position never changes, and every node applies just that (§5.4.3).
    StateMachineSafety,
    /// An entry that a leader calls committed is durable on a majority of its configuration, on one of each
    /// half if it is joint; and nobody calls committed what no leader has.
    CommittedIsDurable,
    /// What a message claims of its sender's disk is on it when the message leaves.
    DurableBeforeSaid,
    /// What a node applies is durable on that node, and next in order.
    DurableBeforeApplied,
    /// What a leader takes for acknowledged is durable on the peer, as long as no newer term is.
    AcknowledgedIsDurable,
    /// A snapshot stands for committed entries, and holds the configuration there.
    SnapshotIsCommitted,
    /// Of the configurations in a leader's log at most one is not committed (thesis §4.1).
    OneChange,
    /// A read is answered with an index at or above all that was committed when it was asked (thesis §6.4).
    ReadsLinearizable,
    /// The core's own invariants hold.
    Invariants,
    /// No node ends itself: disks and peers keep their word here.
    NoHalt,
    /// No node panics.
    NoPanic,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names each law, and makes it a property of the checker: `broken` says which one a state breaks.
macro_rules! laws {
    ($($law:ident $name:literal)*) => {
        impl Law {
            /// Its name in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$law => $name,)* }
            }

            /// All laws, for the checker.
            pub(crate) fn properties() -> Vec<Property<Cluster>> {
                vec![$(Property::always($name, |_: &Cluster, state: &State| {
                    state.broken().is_none_or(|broken| broken.law != Law::$law)
                }),)*]
            }
        }
    };
}

laws! {
    ElectionSafety "election-safety"
    OneVote "one-vote"
    LogMatching "log-matching"
    LeaderCompleteness "leader-completeness"
    StateMachineSafety "state-machine-safety"
    CommittedIsDurable "committed-is-durable"
    DurableBeforeSaid "durable-before-said"
    DurableBeforeApplied "durable-before-applied"
    AcknowledgedIsDurable "acknowledged-is-durable"
    SnapshotIsCommitted "snapshot-is-committed"
    OneChange "one-change"
    ReadsLinearizable "reads-linearizable"
    Invariants "invariants"
    NoHalt "no-halt"
    NoPanic "no-panic"
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.by)
    }
}

/// How a law was broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broken {
    /// Which law.
    pub law: Law,
    /// By what.
    pub by: String,
}

/// Ends the look at a step with a broken law, if `holds` does not.
pub(crate) fn demand(holds: bool, law: Law, by: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds {
        Ok(())
    } else {
        Err(Broken { law, by: by() })
    }
}

/// Events that the last action brought about.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Events(u64);

impl Events {
    /// Adds one.
    pub(crate) fn add(&mut self, event: Event) {
        self.0 |= 1 << event as u64;
    }

    /// Adds one if `happened`.
    pub(crate) fn add_if(&mut self, happened: bool, event: Event) {
        if happened {
            self.add(event);
        }
    }

    /// Whether it is among them.
    #[must_use]
    pub fn has(self, event: Event) -> bool {
        self.0 & 1 << event as u64 != 0
    }
}

/// Names each event, and makes those that a model promises properties of the checker.
macro_rules! events {
    ($($(#[$doc:meta])* $event:ident $name:literal)*) => {
        /// Something that can happen, and that a model may promise to reach.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Event { $($(#[$doc])* $event,)* }

        impl Event {
            /// What a model promises with it.
            pub(crate) fn property(self) -> Property<Cluster> {
                match self { $(Self::$event => Property::sometimes($name, |_, state: &State| {
                    state.events().has(Event::$event)
                }),)* }
            }
        }

        impl fmt::Debug for Events {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let all = [$((Event::$event, $name),)*];
                let names = all.iter().filter(|(event, _)| self.has(*event)).map(|(_, name)| name);
                f.debug_list().entries(names).finish()
            }
        }
    };
}

events! {
    /// A node became the leader.
    Elected "a leader is elected"
    /// It is the second term or a later one that has a leader.
    ElectedAgain "two terms have leaders"
    /// It is the third term or a later one that has a leader.
    ElectedThrice "three terms have leaders"
    /// A candidate has voted for itself in a term in which another one has too.
    SplitVote "two candidates stand in one term"
    /// A node refused its vote.
    VoteRefused "a vote is refused"
    /// A leader stepped down.
    SteppedDown "a leader steps down"
    /// A crash lost a term or a vote that was not durable.
    LostVote "a crash loses a vote"
    /// A crash lost entries that were not durable.
    LostEntries "a crash loses entries"
    /// A write was found after a crash though nobody had been told.
    KeptWrite "a crash keeps a write that nobody was told of"
    /// A packet was delivered and stayed.
    Duplicated "a message comes twice"
    /// Several writes were synced as one batch.
    Batched "two writes become durable as one"
    /// A node cut entries that contradicted its leader's.
    Overwritten "an entry is overwritten"
    /// An entry that had been durable was cut.
    DurableOverwritten "a durable entry is overwritten"
    /// A follower refused entries.
    AppendRefused "a follower refuses entries"
    /// A leader committed an entry of an older term by one of its own.
    OlderTermCommitted "an entry of an older term is committed"
    /// A durable entry of an older term was on a majority, and was not committed (paper, figure 8).
    OlderTermWaits "an entry of an older term is on a majority, and not committed"
    /// Something was committed.
    Committed "an entry is committed"
    /// Entries were read from the disk for a follower.
    ReadFromDisk "entries are read from the disk for a follower"
    /// The entries that were asked for were gone.
    ReadCompacted "the entries that a leader reads are compacted"
    /// A node took a snapshot and dropped the log before it.
    Compacted "a log is compacted"
    /// A leader sent a snapshot.
    SnapshotSent "a snapshot is sent"
    /// A snapshot did not arrive.
    SnapshotLost "a snapshot is lost"
    /// A node's state was replaced by a snapshot.
    SnapshotInstalled "a snapshot is installed"
    /// An installed snapshot cut the log that was there.
    SnapshotReplaced "a snapshot replaces a log that contradicts it"
    /// A snapshot was not wanted.
    SnapshotRefused "a snapshot is not wanted"
    /// A crash came while a snapshot was being installed, and the node has the old state.
    InstallLost "a crash loses a snapshot that was being installed"
    /// A crash came while a snapshot was being installed, and the node has the new state.
    InstallKept "a crash keeps a snapshot that was being installed"
    /// Entries followed an installed snapshot.
    FedAfterSnapshot "entries follow a snapshot"
    /// A joint configuration was committed.
    JointCommitted "a joint configuration is committed"
    /// A leader was elected under a joint configuration.
    JointElected "a leader is elected by two majorities"
    /// The configuration after a joint one was committed.
    JointLeft "a joint configuration is left"
    /// A configuration was cut off the log.
    ChangeRolledBack "a change of the configuration is rolled back"
    /// A node became a voter in a committed configuration.
    VoterAdded "a node becomes a voter"
    /// A learner became a voter by itself.
    LearnerPromoted "a learner is promoted"
    /// A learner that does not know of its promotion voted.
    UnawareVote "a node votes that does not know itself as a voter"
    /// A leader left office because it is no voter any more.
    LeaderRemoved "a leader removes itself"
    /// A read was answered by the leader.
    ReadByLeader "a read is answered by the leader"
    /// A read was answered by a follower.
    ReadByFollower "a read is answered by a follower"
    /// A read was answered in a later term than that of the first leader.
    ReadInLaterTerm "a read is answered in a later term"
    /// A read was refused, or failed later.
    ReadFailed "a read fails"
    /// A read was asked of a leader that another one has replaced already.
    ReadOfDeposed "a read is asked of a deposed leader"
    /// A leader told another node to take over.
    TimeoutNow "a leader hands over"
    /// A vote that the leader wanted was given by a node that hears that leader.
    TransferVote "a node votes although it hears the leader"
}
