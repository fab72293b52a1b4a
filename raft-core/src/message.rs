//! What nodes say to each other.
//!
//! Invariant: a message that claims something of its sender's disk is a [`DurableMessage`], and a
//! `DurableMessage` leaves the core only inside a [`Persist`](crate::Persist), from which only the
//! storage releases it. Everything else is an [`OpenMessage`] and may leave at once.

use std::sync::Arc;

use crate::membership::Configuration;
use crate::{Entry, LogId, LogIndex, NodeId, ReadBatch, Round, Term};

/// A message with its sender and its receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The node that sent it. The transport has checked that it is who the connection belongs to.
    pub from: NodeId,
    /// The node that it is for.
    pub to: NodeId,
    /// What it says.
    pub message: Message,
}

/// Any message, as a receiver sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Claims nothing of its sender's disk.
    Open(OpenMessage),
    /// Claims something of its sender's disk; it left after that was synced.
    Durable(DurableMessage),
}

impl Message {
    /// The term that the message carries. For a [`PreVote`], and for an answer that grants one, this
    /// is the term that the candidate would campaign in, which nobody has entered yet.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Self::Open(message) => message.term(),
            Self::Durable(message) => message.term(),
        }
    }
}

impl From<OpenMessage> for Message {
    fn from(message: OpenMessage) -> Self {
        Self::Open(message)
    }
}

impl From<DurableMessage> for Message {
    fn from(message: DurableMessage) -> Self {
        Self::Durable(message)
    }
}

/// A message that claims nothing of its sender's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OpenMessage {
    /// A leader's entries.
    AppendEntries(AppendEntries),
    /// A leader is alive.
    Heartbeat(Heartbeat),
    /// The answer to a heartbeat.
    HeartbeatResponse(HeartbeatResponse),
    /// A leader tells how far the log is committed.
    CommitAdvanced(CommitAdvanced),
    /// Somebody asks whether it would be elected.
    PreVote(PreVote),
    /// The answer to that.
    PreVoteResponse(PreVoteResponse),
    /// A leader asks its receiver to take over.
    TimeoutNow(TimeoutNow),
    /// A follower asks how far it must apply the log before it may answer reads.
    ReadIndex(ReadIndex),
    /// The answer to that.
    ReadIndexResponse(ReadIndexResponse),
}

impl OpenMessage {
    /// See [`Message::term`].
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Self::AppendEntries(message) => message.term,
            Self::Heartbeat(message) => message.term,
            Self::HeartbeatResponse(message) => message.term,
            Self::CommitAdvanced(message) => message.term,
            Self::PreVote(message) => message.term,
            Self::PreVoteResponse(message) => message.term,
            Self::TimeoutNow(message) => message.term,
            Self::ReadIndex(message) => message.term,
            Self::ReadIndexResponse(message) => message.term,
        }
    }
}

/// A message that claims something of its sender's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DurableMessage {
    /// A candidate asks for a vote; it has voted for itself.
    RequestVote(RequestVote),
    /// The answer to that.
    VoteResponse(VoteResponse),
    /// The answer to [`AppendEntries`].
    AppendResponse(AppendResponse),
}

impl DurableMessage {
    /// See [`Message::term`].
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Self::RequestVote(message) => message.term,
            Self::VoteResponse(message) => message.term,
            Self::AppendResponse(message) => message.term,
        }
    }

    /// The last position of the log that the message claims to be on its sender's disk; none if it
    /// claims nothing of the log. A storage that cuts the log below it, in the same batch that
    /// would make it true, drops the message.
    #[must_use]
    pub fn claims_log_through(&self) -> Option<LogIndex> {
        match self {
            Self::AppendResponse(AppendResponse {
                outcome: AppendOutcome::Accepted { matched },
                ..
            }) => Some(*matched),
            Self::RequestVote(RequestVote { last, .. }) => Some(last.index),
            Self::AppendResponse(_) | Self::VoteResponse(_) => None,
        }
    }
}

/// AppendEntries (paper §5.3): the leader of `term` has `entries` right behind `prev`.
///
/// It may leave before the leader's own disk has the entries (thesis §10.2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendEntries {
    /// The leader's term. The receiver may conclude that the sender is its only leader.
    pub term: Term,
    /// The entry before the first of `entries`. A receiver that has it has the same log up to it.
    pub prev: LogId,
    /// What follows `prev` in the leader's log; empty to find out whether the logs match at `prev`.
    pub entries: Arc<[Entry]>,
    /// The leader's commit index. The receiver may conclude that it is committed up to the smaller
    /// of this and the last entry that this message proves to match.
    pub commit: LogIndex,
}

impl AppendEntries {
    /// The last position at which the receiver's log equals the sender's once it has accepted this.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.entries
            .last()
            .map_or(self.prev.index, |entry| entry.id.index)
    }
}

/// A leader is alive. It asks nothing of the receiver's disk, so that a slow disk is not taken for a
/// dead node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// The leader's term. The receiver may conclude that the sender is its only leader.
    pub term: Term,
    /// How far the log is committed, and at most what the receiver has acknowledged: it may conclude
    /// that its own log is committed up to here without any check.
    pub commit: LogIndex,
    /// Which round of heartbeats of this leader it belongs to. The receiver gives it back.
    pub round: Round,
}

/// The answer to [`Heartbeat`], and to any message from an older term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeartbeatResponse {
    /// The responder's term, which need not be on its disk. A leader of an older term steps down; the
    /// leader of this one may conclude that the responder is alive and follows it.
    pub term: Term,
    /// The round of the heartbeat that it answers: the leader of this term may conclude that it still was
    /// the responder's leader after it began that round. 0 if it answers something else.
    pub round: Round,
}

/// A leader tells that the commit index moved, without waiting for the next entries or heartbeat.
/// Nobody answers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommitAdvanced {
    /// The leader's term.
    pub term: Term,
    /// As in [`Heartbeat::commit`].
    pub commit: LogIndex,
}

/// PreVote (thesis §9.6): would you vote for me? Changes nothing at the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PreVote {
    /// The term that the sender would campaign in: its own plus one. Nobody enters it by this.
    pub term: Term,
    /// The sender's last entry.
    pub last: LogId,
    /// As in [`RequestVote::transfer`].
    pub transfer: bool,
}

/// The answer to [`PreVote`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PreVoteResponse {
    /// If granted, the term of the question; if not, the responder's own term, which the asker
    /// enters if it is higher than its own.
    pub term: Term,
    /// Whether the responder would vote for the asker.
    pub granted: bool,
}

/// RequestVote (paper §5.2). It leaves when the candidate's vote for itself is on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestVote {
    /// The candidate's term. The receiver may conclude that the candidate votes for no other in it.
    pub term: Term,
    /// The candidate's last entry.
    pub last: LogId,
    /// Whether the leader itself wanted this election ([`TimeoutNow`]): then the receiver may vote although
    /// it hears that leader (thesis §4.2.3).
    pub transfer: bool,
}

/// The answer to [`RequestVote`]. It leaves when term and vote are on the responder's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VoteResponse {
    /// The responder's term. A grant counts only in the term that it was asked for.
    pub term: Term,
    /// Whether the candidate has the responder's vote, which it gives once in a term.
    pub granted: bool,
}

/// The answer to [`AppendEntries`]. It leaves when what it claims is on the responder's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendResponse {
    /// The responder's term. A leader of an older one steps down.
    pub term: Term,
    /// Whether the logs matched.
    pub outcome: AppendOutcome,
}

/// Whether a follower's log matched what its leader sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// They match, and are durable on the responder, up to `matched`.
    Accepted {
        /// The last position that the message proved to match. Not the responder's last entry.
        matched: LogIndex,
    },
    /// The responder does not have the entry `prev` that the message began behind.
    Rejected {
        /// The position of that `prev`, by which a late refusal is told from a current one.
        prev: LogIndex,
        /// The responder's last entry at or before `prev` whose term is not above that of `prev`: the
        /// logs cannot match between it and `prev`. One round trip for each conflicting term.
        hint: LogId,
    },
}

/// TimeoutNow (thesis §3.10): the leader of `term` hands over to the receiver, which has its whole log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimeoutNow {
    /// The leader's term. The receiver may conclude that this leader takes no proposals until an election
    /// timeout has passed, that it answers no read by a lease in this term any more, and that it may
    /// stand for election at once.
    pub term: Term,
}

/// ReadIndex (thesis §6.4): how far must the sender apply the log to answer the reads that it has?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndex {
    /// The sender's term; the receiver leads it as far as the sender knows.
    pub term: Term,
    /// Names the reads. The same name comes again if the first question may be lost.
    pub batch: ReadBatch,
}

/// The answer to [`ReadIndex`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndexResponse {
    /// The leader's term.
    pub term: Term,
    /// The name of the question.
    pub batch: ReadBatch,
    /// The receiver may answer its reads once it has applied the log up to here. None if the leader takes
    /// no reads now, and the receiver should ask again later.
    pub index: Option<LogIndex>,
}

/// InstallSnapshot (paper §7): the state that stands for the beginning of the log.
///
/// It travels with the snapshot's file, in whatever way the caller moves files, and reaches the receiver's
/// core by [`Input::SnapshotReceived`](crate::Input::SnapshotReceived) when the file is whole and durable
/// there. It is answered by an [`AppendResponse`] that accepts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstallSnapshot {
    /// The leader's term. The receiver may conclude that the sender was its only leader.
    pub term: Term,
    /// What the file stands for. The receiver may conclude that all of it is committed.
    pub snapshot: SnapshotMeta,
}

/// What a snapshot stands for: the log up to its last entry, and the configuration there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SnapshotMeta {
    /// The last entry that it covers.
    pub last: LogId,
    /// The configuration as of that entry.
    pub configuration: Arc<Configuration>,
}
