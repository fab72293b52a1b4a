//! What the caller tells the core, and what the core asks of its caller.

use std::sync::Arc;

use bytes::Bytes;

use crate::membership::{Change, ChangeError, Configuration};
use crate::{
    DurableMessage, Entry, Envelope, InstallSnapshot, LogId, LogIndex, NodeId, OpenMessage, ReadId,
    RequestId, Role, SnapshotMeta, Term, Unsound, Violation, WriteId,
};

/// One thing that happened, for [`Raft::step`](crate::Raft::step).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// One tick of the caller's monotonic clock has passed. After a pause the caller hands over the
    /// messages that wait, and then the pause as [`Input::Paused`]: with leases on, no tick may count time
    /// that passed before a message which was handed over earlier.
    Tick,
    /// The caller itself did not run for this long. The clock by which leases are judged goes on, and no
    /// timer does: nobody is to be blamed for what this node could not hear.
    Paused {
        /// How long, in ticks.
        ticks: u64,
    },
    /// A message came in from the node that it names as its sender.
    Received(Envelope),
    /// A snapshot came in: its file is whole, verified and durable on this node. If the step's effects hold
    /// no [`Persist`] that names it, it is not wanted, and the file may go.
    SnapshotReceived {
        /// The node that sent it.
        from: NodeId,
        /// What came with the file.
        message: InstallSnapshot,
    },
    /// Commands for the log, all of them or none. Answered at once by [`Effect::Appended`] or
    /// [`Effect::Rejected`].
    Propose(Vec<Bytes>),
    /// How far must the log be applied here before a linearizable read may be answered (thesis §6.4)?
    /// Answered by [`Effect::ReadReady`] or [`Effect::ReadFailed`], at once or later, unless the node ends.
    ReadIndex(ReadId),
    /// A change of who belongs to the cluster. Answered at once by [`Effect::Appended`], with a count of
    /// one, or of none if there is nothing to change, or by [`Effect::Rejected`].
    ChangeMembership(Change),
    /// Hand the leadership over, to the best of the other voters if none is named (thesis §3.10). Answered
    /// at once by [`Effect::Rejected`], or later by [`Effect::TransferEnded`]. Neither proposals nor reads
    /// are taken in between.
    TransferLeadership {
        /// The new leader.
        to: Option<NodeId>,
    },
    /// All writes up to and including this one are durable.
    Persisted {
        /// The last write that is.
        through: WriteId,
    },
    /// The answer to [`Effect::Read`].
    EntriesRead {
        /// Which read this answers.
        request: RequestId,
        /// The entries from the position that was asked for on, without a gap, at least one; or why
        /// there are none, which ends a node that still waits for them. A node that has lost its office
        /// since does not: what it asked for may have been cut off, and an error is then no fault.
        result: Result<Vec<Entry>, ReadFailure>,
    },
    /// The caller took a snapshot of the state as of `last`, and its file is durable. What it stands for
    /// is what [`Raft::snapshot_at`](crate::Raft::snapshot_at) said. It must be applied, and newer than
    /// the last one; else it is ignored, and no [`Persist`] names it.
    SnapshotTaken(SnapshotMeta),
    /// The answer to [`Effect::SendSnapshot`]: the transfer ended, well or not.
    SnapshotSent {
        /// The receiver.
        to: NodeId,
        /// Whether it arrived whole.
        arrived: bool,
    },
    /// The connection to a node broke: what was sent last may be lost.
    PeerUnreachable(NodeId),
    /// A node's process is gone: its connection was reset, and it refused the next one, or the next one shows
    /// that it was started anew. Who followed it need not wait for the timer.
    PeerGone(NodeId),
    /// A node came back without what it had acknowledged: its disk is another one, or has lost its end. A
    /// leader forgets what it knew of it, and feeds it anew. Such a node must not vote under its old id, and
    /// nothing that it said before may be handed over after this.
    PeerForgot(NodeId),
    /// Begin an election now, without waiting for the timer. For operators and tests. With leases on, a node
    /// that hears a leader does not.
    Campaign,
}

/// Why a read of the log failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReadFailure {
    /// The entries were compacted away since they were asked for.
    #[error("these entries of the log are compacted")]
    Compacted,
    /// The disk failed, or holds something else. This ends the node.
    #[error("cannot read the log: {0}")]
    Failed(String),
}

/// One thing that the caller does for the core, in the order in which it got them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make this durable, then answer [`Input::Persisted`].
    Persist(Persist),
    /// Send this now.
    Send {
        /// The receiver.
        to: NodeId,
        /// What it is told.
        message: OpenMessage,
    },
    /// Send this snapshot's file with this message, from this node's disk; then answer
    /// [`Input::SnapshotSent`], whatever comes of it. Before that answer there is no other for the same
    /// receiver, whoever leads meanwhile.
    SendSnapshot {
        /// The receiver.
        to: NodeId,
        /// What goes with the file.
        message: InstallSnapshot,
    },
    /// The log is committed further, and durable here that far. Apply and deliver it.
    Commit(Commit),
    /// Replace the state by this snapshot, once all that was handed out before is done with. The log before
    /// it is gone: what was handed out and not in memory cannot be read any more, and is in the snapshot.
    Restore(SnapshotMeta),
    /// Read entries from the log on disk, then answer [`Input::EntriesRead`].
    Read {
        /// Names this read.
        request: RequestId,
        /// The first entry to read.
        from: LogIndex,
        /// The last one that is wanted.
        through: LogIndex,
        /// Stop after the entry with which the sum of [`Entry::size_bytes`] reaches this; at least one.
        bytes_max: usize,
    },
    /// What [`Input::Propose`] brought is in this leader's log, from `first` on. It is not committed
    /// yet: it will be once an entry of the same term at its index is, and never if another's is. If a
    /// [`Effect::Restore`] passes its index, nobody knows.
    Appended {
        /// The first one's position; the others follow it.
        first: LogIndex,
        /// Their term.
        term: Term,
        /// How many they are.
        count: usize,
    },
    /// What the input asked for is not done: a command is not in the log, and never will be.
    Rejected(Rejection),
    /// These reads may be answered, as soon as the state is applied up to `index`.
    ReadReady(ReadReady),
    /// These reads cannot be answered now; they may be asked again.
    ReadFailed {
        /// Which.
        reads: Vec<ReadId>,
        /// Why.
        reason: Rejection,
    },
    /// Another configuration is in effect: it was appended, cut off again, or came with a snapshot. Whether
    /// it is committed is seen from its entry.
    ConfigurationChanged(Arc<Configuration>),
    /// The transfer of the leadership to this node is over. If this node still leads, it came to nothing,
    /// and proposals are taken again.
    TransferEnded {
        /// Who was to lead.
        to: NodeId,
    },
    /// This node leads no more. [`Effect::RoleChanged`] follows.
    SteppedDown(StepDown),
    /// Role, term or leader are others now.
    RoleChanged {
        /// What this node is.
        role: Role,
        /// The current term.
        term: Term,
        /// The leader, where it is known.
        leader: Option<NodeId>,
    },
    /// A message made no sense and was dropped. The caller counts and logs it.
    Ignored {
        /// Who sent it.
        from: NodeId,
        /// What was wrong with it.
        reason: Unsound,
    },
    /// This node must end at once: going on could do harm. The core takes no further input.
    Halt(Violation),
}

/// Why a proposal, a change, a transfer or a read was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// Only a leader takes proposals.
    #[error("this node is not the leader")]
    NotLeader {
        /// Who is, where it is known.
        leader: Option<NodeId>,
    },
    /// Too much is uncommitted already ([`Config::uncommitted_bytes_max`](crate::Config)), or too many
    /// reads wait ([`Config::reads_max`](crate::Config)).
    #[error("too much is under way")]
    Busy,
    /// The leadership is being handed over.
    #[error("the leadership is being handed over to node {to}")]
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// A read waited for an election timeout and was not confirmed.
    #[error("no majority confirmed the read in time")]
    ReadTimedOut,
    /// The leader that was asked takes no reads now: too many wait, or it hands over.
    #[error("the leader takes no reads now")]
    ReadsRefused,
    /// Nothing of this leader's term is committed yet, and before that no change may begin (thesis §4.1's
    /// erratum of 2015).
    #[error("nothing of this leader's term is committed yet")]
    NotReady,
    /// Another change of the configuration is not committed yet: one at a time.
    #[error("another change of the configuration is under way")]
    ChangeUnderWay,
    /// The change cannot be made of the present configuration.
    #[error("the change cannot be made: {0}")]
    Change(#[from] ChangeError),
    /// Who is to lead or to campaign is no voter, or leads already.
    #[error("node {0} cannot be elected now")]
    NoCandidate(NodeId),
}

/// Why a leader leads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StepDown {
    /// It saw a higher term: somebody else was, or will be, elected.
    #[error("there is a higher term")]
    HigherTerm,
    /// It did not hear from a majority for an election timeout (thesis §6.2).
    #[error("no majority was heard from")]
    NoQuorum,
    /// Its own disk did not answer for an election timeout.
    #[error("its disk is stuck")]
    StuckDisk,
    /// It is no voter any more, and that is committed (paper §6).
    #[error("it is no voter any more")]
    Removed,
}

/// Reads that may be answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadReady {
    /// Which.
    pub reads: Vec<ReadId>,
    /// Apply at least up to here first.
    pub index: LogIndex,
    /// None: a majority has confirmed it. Some: it rests on a lease, which ends when this many ticks have
    /// passed since [`Raft::new`](crate::Raft::new). The caller answers only if, after this effect, a clock that counts
    /// suspended time says that fewer have; else it asks again.
    pub lease_until_ticks: Option<u64>,
}

/// One atomic, synced write.
///
/// Writes are first in, first out, and several may be under way. A storage that takes several as one
/// batch answers with the last. Within one write the snapshot comes first, then the truncation, then the
/// entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Persist {
    /// Its name.
    pub write: WriteId,
    /// The new term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// The snapshot that this node starts from after this write, and where its log begins then.
    pub snapshot: Option<Box<SnapshotWrite>>,
    /// Cut the log: this entry and all behind it go.
    pub truncate_from: Option<LogIndex>,
    /// Entries that follow what then is the last one.
    pub append: Arc<[Entry]>,
    /// What may be said when, and only when, all of the above is durable.
    pub then: Withheld,
}

impl Persist {
    /// From which position on the claims of earlier writes of the same batch do not hold any more, because
    /// this one cuts the log there or replaces it. A storage hands it to
    /// [`Withheld::drop_claims_from`] of each of them.
    #[must_use]
    pub fn takes_back_from(&self) -> Option<LogIndex> {
        match &self.snapshot {
            Some(write) if write.replaces_log => Some(LogIndex(1)),
            _ => self.truncate_from,
        }
    }
}

/// A new snapshot and what it does to the log, in one write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotWrite {
    /// The snapshot, whose file is durable already.
    pub snapshot: SnapshotMeta,
    /// The last entry that the log does not hold any more: all up to it go. At or before the snapshot's last.
    pub log_start: LogId,
    /// Whether all other entries go too: the snapshot came from a leader, and what this node had behind
    /// its own start contradicts it or ends before it.
    pub replaces_log: bool,
}

/// Messages that wait for a write, each with its receiver.
///
/// The only way to them is [`release`](Self::release), and the only place that may call it is a
/// storage, behind the sync that makes them true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Withheld(Vec<(NodeId, DurableMessage)>);

impl Withheld {
    pub(crate) fn new(messages: Vec<(NodeId, DurableMessage)>) -> Self {
        Self(messages)
    }

    /// Hands the messages out. For storages only, after the sync.
    #[must_use]
    pub fn release(self) -> Vec<(NodeId, DurableMessage)> {
        self.0
    }

    /// Forgets the messages that claim entries from `truncated` on, which a later write of the same
    /// batch cuts off.
    pub fn drop_claims_from(&mut self, truncated: LogIndex) {
        self.0.retain(|(_, message)| {
            message
                .claims_log_through()
                .is_none_or(|last| last < truncated)
        });
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What waits, for traces and golden scripts. Nothing of it may be sent.
    #[must_use]
    pub fn peek(&self) -> &[(NodeId, DurableMessage)] {
        &self.0
    }
}

/// What every node must remember across restarts beside its log (paper, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term that this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
}

/// The log is committed, and durable on this node, up to `through`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The last such entry.
    pub through: LogIndex,
    /// The entries behind the previous `Commit`, up to `through`, as far as they are in memory: all of
    /// them, or a run that ends at `through`, or none. The rest is read from the log.
    pub entries: Arc<[Entry]>,
}
