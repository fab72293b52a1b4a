//! The table of what must happen. A simulation that never tears a record or splits a vote proves nothing of
//! torn records and split votes; so each run counts, and a campaign that has seen too little of anything
//! fails by its name.

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $words:literal,)*) => {
        /// Something that must happen often enough.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* #[doc = $words] $name,)*
        }

        impl Event {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The event in words.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

events! {
    Elected = "a leader was elected",
    VoteSplit = "a term had several candidates and no leader",
    PreVoteRefused = "a pre-vote was refused",
    CandidateSawLeader = "a candidate heard the leader of its own term",
    OldTermTaught = "a message of an old term came in",
    TwoLeaders = "two nodes led at once, in different terms",
    AloneElected = "a single voter elected itself",
    VoteByUnawareLearner = "a node that did not know yet that it votes gave its vote",
    OperatorCampaign = "an operator's campaign began an election",
    EarlyCampaign = "a follower campaigned early because its leader's process was gone",
    FalselyGone = "a follower was told that its leader's process is gone, and it was not",
    CheckQuorumStepDown = "a leader stepped down because it heard no majority",
    StuckDiskStepDown = "a leader stepped down because its disk was stuck",
    HigherTermStepDown = "a leader stepped down because of a higher term",
    RemovedStepDown = "a leader that was removed stepped down",
    SuffixTruncated = "a conflicting suffix was cut off",
    OldTermCommitted = "an entry of an earlier term was committed by a later leader",
    FedFromDisk = "a follower was fed from the leader's disk",
    ReadCompacted = "entries were compacted while they were to be read",
    HandedOutFromDisk = "committed entries were read from the disk to be applied",
    ClaimDropped = "a message was dropped because its batch cut off what it claims",
    AppendRefused = "a follower refused entries that did not match",
    ProposalBusy = "a proposal was refused because too much was under way",
    SnapshotTaken = "a node took a snapshot",
    SnapshotStale = "a snapshot was not wanted",
    SnapshotInstalled = "a snapshot was installed",
    SnapshotFailed = "the transfer of a snapshot failed",
    LogCompacted = "the log was compacted",
    SnapshotOrphan = "a start removed a snapshot file that nothing named",
    SnapshotTorn = "a crash took a snapshot file that was not durable",
    CrashLost = "a crash lost writes",
    CrashKept = "a crash kept writes that nobody had been told of",
    TornRecord = "a crash tore a record, and the start dropped it",
    CrashBetweenEffects = "a node crashed between two effects of one step",
    CrashJoint = "a node crashed inside a joint configuration",
    CrashLeader = "a leader crashed",
    CrashInstall = "a node crashed while a received snapshot was not durable",
    FsyncFailed = "an fsync failed",
    DiskFull = "a disk was full",
    DiskStalled = "a disk stalled",
    DiskWiped = "a disk was wiped",
    MachineBehind = "a state machine with a disk of its own came back behind the log",
    MachineLost = "a state machine lost its own disk",
    MessageLost = "a message was lost",
    MessageTwice = "a message arrived twice",
    MessageOvertaken = "a message overtook another",
    FrameOfEarlierRun = "a message of an earlier run of its sender arrived",
    FrameToLaterRun = "a message reached a later run of its receiver",
    LinkReset = "a connection was reset",
    OneWayCut = "a link was cut in one direction",
    Bridge = "two halves met in one node only",
    Ring = "each node heard its neighbours only",
    Isolated = "a leader was cut off from everybody",
    LeaderPaused = "a leader's process was paused and went on",
    FollowerPaused = "a follower's process was paused and went on",
    JointEntered = "a joint configuration was entered",
    JointLeftByItself = "a joint configuration was left by itself",
    JointLeftByOperator = "a joint configuration was left by an operator",
    LearnerPromoted = "a learner that had caught up was made a voter by its leader",
    FreshNodeAdded = "a node with an empty disk was added",
    RemovedNodeBack = "a node that had been removed was added again",
    LeaderRemoved = "a leader was asked to remove itself",
    ChangeNotReady = "a change was refused because nothing of the term was committed",
    ChangeUnderWay = "a change was refused because another was under way",
    ChangeImpossible = "a change was refused because it cannot be made",
    ConfigurationRolledBack = "a configuration was rolled back by truncation",
    TransferCompleted = "a leadership was handed over",
    TransferRefused = "a transfer was refused",
    TransferTimedOut = "a transfer came to nothing in time",
    TransferFenced = "a proposal was refused during a transfer",
    ReadFenced = "a read was refused during a transfer",
    PriorityTakeover = "a voter of higher priority was handed the leadership",
    WriteRetried = "a write with an unknown outcome was sent again",
    DuplicateSuppressed = "a write that had run already was suppressed",
    WriteLost = "a client was told that its write is certainly not in the log",
    ReadByQuorum = "a leader's read was answered on a majority's word",
    ReadOnFollower = "a follower's read was answered",
    ReadByLease = "a read was answered by a lease",
    LeaseExpired = "a lease had expired when its read was to be answered",
    ReadRetried = "a read was asked again",
    ReadTimedOut = "a read was not confirmed in time",
}

/// How often each event happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(Vec<u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; Event::ALL.len()])
    }
}

impl Counts {
    /// One more.
    pub(crate) fn add(&mut self, event: Event) {
        self.0[event as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn of(&self, event: Event) -> u64 {
        self.0[event as usize]
    }

    /// Takes in another run's.
    pub fn absorb(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }

    /// All counts, in the order of [`Event::ALL`].
    #[must_use]
    pub fn numbers(&self) -> &[u64] {
        &self.0
    }

    /// Counts in the order of [`Event::ALL`]; none if they are not as many.
    #[must_use]
    pub fn from_numbers(numbers: Vec<u64>) -> Option<Self> {
        (numbers.len() == Event::ALL.len()).then_some(Self(numbers))
    }

    /// Those that happened less often than `least`.
    #[must_use]
    pub fn rarer_than(&self, least: u64) -> Vec<Event> {
        let rare = |event: &&Event| self.of(**event) < least;
        Event::ALL.iter().filter(rare).copied().collect()
    }
}
