//! The numbers of Raft, each in a type of its own so that none can be taken for another.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A replica's name within its cluster. Chosen by the operator for a fixed list of peers; never 0.
    NodeId
}
number! {
    /// A term: the logical clock of elections, which has at most one leader (paper §5.1). The first
    /// election is in term 1; 0 means that this node has seen none.
    Term
}
number! {
    /// A position in the log. The first entry has index 1; 0 is the position before it.
    LogIndex
}
number! {
    /// Names one [`Persist`](crate::Persist) of one run of one node. Grows by one with each; a later
    /// one's answer answers all before it.
    WriteId
}
number! {
    /// Names one [`Effect::Read`](crate::Effect::Read) of one run of one node.
    RequestId
}
number! {
    /// Names one [`Input::ReadIndex`](crate::Input::ReadIndex). The caller chooses it, and uses it once.
    ReadId
}
number! {
    /// Names one round of heartbeats of one leader in one term. Grows by one with each; 0 names none.
    Round
}

/// Names the reads that one run of one node asks its leader about together. No two batches have the same
/// name, not even across a restart, so that no late answer is taken for another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadBatch {
    /// [`Config::start`](crate::Config::start) of the run.
    pub start: u64,
    /// Grows by one with each batch of the run.
    pub number: u64,
}

impl Term {
    /// The highest term that a node believes in. Elections never get there: a message that names a
    /// higher one is damaged, and to enter it would leave no room for the next election.
    pub const MAX: Self = Self(u64::MAX / 2);

    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl LogIndex {
    /// The position before the first entry.
    pub const ZERO: Self = Self(0);

    /// A position behind every entry that there can be.
    pub const MAX: Self = Self(u64::MAX);

    /// The highest position that a node believes in. No log gets there: a message that names a higher one
    /// is damaged.
    pub const LIMIT: Self = Self(u64::MAX / 2);

    /// Who has a longer log does not stand for election: half of all positions are more than a leader fills.
    pub(crate) const LIMIT_OF_LEADERS: Self = Self(Self::LIMIT.0 / 2);

    /// The position after this one; the one after the last number that there is, is that number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before this one; the one before 0 is 0.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// An entry's name: two entries with the same `LogId` hold the same command, and so do all entries
/// before them (Log Matching, paper §5.3).
///
/// The derived order compares the term first and then the index, which is the paper's "at least as
/// up-to-date" (§5.4.1). Compare it whole; its halves compared one by one are a bug that others had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term in which a leader made the entry.
    pub term: Term,
    /// Where in the log it stands.
    pub index: LogIndex,
}

impl LogId {
    /// The name of the position before the first entry.
    pub const ZERO: Self = Self {
        term: Term(0),
        index: LogIndex(0),
    };

    /// Names the entry of `term` at `index`.
    #[must_use]
    pub fn new(term: Term, index: LogIndex) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    /// Writes `index@term`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

macro_rules! random_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            /// Writes 32 hexadecimal digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

random_number! {
    /// A cluster's name: random, drawn once by its first leader and held by the first entry of its log.
    /// Nodes of different clusters refuse each other.
    ClusterId
}
random_number! {
    /// A data folder's name: random, drawn when the folder is made. A node that comes back with another
    /// one has lost its disk, and with it its votes and its acknowledgements.
    Incarnation
}
