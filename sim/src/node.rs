//! One node: its machine room, which outlives its process, and its process.

use std::collections::VecDeque;

use raft_core::{Config, Entry, LogIndex, NodeId, Raft, ReadId, Role, SnapshotMeta, Term, WriteId};

use crate::disk::Disk;
use crate::machine::Machine;
use crate::sets::Set;
use crate::shadow::Shadow;
use crate::time::Happening;

/// Whether a node has a process, or will have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its process runs, or is to be started again.
    Alive,
    /// It was removed, and an operator has shut it down; its disk is kept.
    Retired,
    /// Its disk is gone, and its id with it. What it had is kept for the checks only.
    Wiped,
}

/// A snapshot's file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) meta: SnapshotMeta,
    pub(crate) machine: Machine,
    /// It has its final name, and was synced.
    pub(crate) durable: bool,
}

/// What a node is beside its process.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) config: Config,
    pub(crate) life: Life,
    pub(crate) disk: Disk,
    pub(crate) files: Vec<File>,
    /// What the state machine's own disk holds, if it has one.
    pub(crate) own_disk: Option<Machine>,
    pub(crate) run: Option<Run>,
    /// Ticks of its clock in 1,000 ticks of the right time.
    pub(crate) rate: u64,
    /// Until then its disk does nothing.
    pub(crate) stalled_until: u64,
    /// Its next sync fails, or its next write: then the process ends, and nothing is tried again.
    pub(crate) fsync_fails: bool,
    pub(crate) is_full: bool,
    /// Until then its process does nothing; what it is told waits.
    pub(crate) paused_until: Option<u64>,
    pub(crate) waiting: VecDeque<Happening>,
    /// The highest term that it ever spoke of as durable.
    pub(crate) claimed_term: Term,
    /// Whether it was a member once and was removed.
    pub(crate) was_removed: bool,
}

/// What is to be applied, in order.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Apply(Entry),
    Restore(SnapshotMeta),
}

/// A client's write that this process has in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proposal {
    pub(crate) client: usize,
    pub(crate) attempt: u64,
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
}

/// A client's read that waits, first for its index, then for the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) read: ReadId,
    pub(crate) client: usize,
    pub(crate) attempt: u64,
    /// What was visible when it was asked.
    pub(crate) floor: LogIndex,
    pub(crate) asked_tick: u64,
}

/// A read that may be answered once the state is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) reading: Reading,
    pub(crate) index: LogIndex,
    pub(crate) lease_until: Option<u64>,
    pub(crate) on_leader: bool,
}

/// One process of a node, from a start to its end.
pub(crate) struct Run {
    pub(crate) raft: Raft,
    /// The virtual time of its start, from which its clock counts.
    pub(crate) began: u64,
    /// Ticks of its clock that the core has been told of in any way.
    pub(crate) clock: u64,
    /// Those that were fed one by one.
    pub(crate) ticks: u64,
    pub(crate) shadow: Shadow,
    pub(crate) last_write: WriteId,
    /// The writes that the core has not been told the end of, each since when, in `ticks`.
    pub(crate) unfinished: VecDeque<(WriteId, u64)>,
    /// When it was last told the end of one, in `ticks`.
    pub(crate) finished: u64,
    pub(crate) sync_due: bool,
    /// Followers to which a snapshot is on its way.
    pub(crate) sending: Set,
    /// A received snapshot is not durable yet.
    pub(crate) installing: Option<WriteId>,
    pub(crate) log_reads: u32,

    pub(crate) machine: Machine,
    pub(crate) work: VecDeque<Work>,
    pub(crate) apply_due: bool,
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) reads: Vec<Reading>,
    pub(crate) ready: Vec<Ready>,
    pub(crate) next_read: u64,

    /// When each node was heard, in `ticks`, for the check of leaders that hear nobody.
    pub(crate) heard: Vec<u64>,
    /// When this node began to lead, or its configuration changed, in `ticks`.
    pub(crate) settled: u64,
    pub(crate) transfer: Option<(NodeId, u64, bool)>,
    /// When it was told that its leader is gone, in `ticks`.
    pub(crate) gone_at: Option<u64>,
    /// When it last heard the leader that it follows, in `ticks`.
    pub(crate) followed: u64,
    pub(crate) seen: Seen,
}

/// What the node said of itself after its last step: it may only grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) term: Term,
    pub(crate) role: Role,
    pub(crate) commit: LogIndex,
    pub(crate) handed_out: LogIndex,
    pub(crate) snapshot: LogIndex,
    pub(crate) log_start: LogIndex,
}

impl Seen {
    pub(crate) fn of(raft: &Raft) -> Self {
        Self {
            term: raft.term(),
            role: raft.role(),
            commit: raft.commit(),
            handed_out: raft.handed_out(),
            snapshot: raft.snapshot().map_or(LogIndex::ZERO, |s| s.last.index),
            log_start: raft.log_start().index,
        }
    }
}

impl Run {
    pub(crate) fn new(raft: Raft, began: u64, shadow: Shadow, machine: Machine) -> Self {
        Self {
            seen: Seen::of(&raft),
            raft,
            began,
            clock: 0,
            ticks: 0,
            shadow,
            last_write: WriteId(0),
            unfinished: VecDeque::new(),
            finished: 0,
            sync_due: false,
            sending: Set::default(),
            installing: None,
            log_reads: 0,
            machine,
            work: VecDeque::new(),
            apply_due: false,
            proposals: Vec::new(),
            reads: Vec::new(),
            ready: Vec::new(),
            next_read: 0,
            heard: Vec::new(),
            settled: 0,
            transfer: None,
            gone_at: None,
            followed: 0,
        }
    }
}

impl Node {
    /// What its clock reads at `now`: it counts pauses, as the clock of leases must.
    pub(crate) fn clock(&self, now: u64) -> u64 {
        let began = self.run.as_ref().map_or(now, |run| run.began);
        (now - began) * self.rate / 1_000 / crate::fate::TICK
    }

    /// When its clock will have read `ticks`.
    pub(crate) fn time_of(&self, ticks: u64) -> u64 {
        let began = self.run.as_ref().map_or(0, |run| run.began);
        began + (ticks * 1_000 * crate::fate::TICK).div_ceil(self.rate)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.run.is_some()
    }

    pub(crate) fn file(&self, meta: &SnapshotMeta) -> Option<&File> {
        self.files.iter().find(|file| file.meta == *meta)
    }

    /// Removes the files that nothing needs any more: those before the snapshot that is durable, unless the
    /// state machine is to be restored from one.
    pub(crate) fn collect_files(&mut self) {
        let pointer = self.disk.snapshot_index();
        let work = self.run.as_ref().map(|run| &run.work);
        let wanted = |meta: &SnapshotMeta| {
            let restores = |work: &Work| matches!(work, Work::Restore(m) if m == meta);
            meta.last.index >= pointer || work.is_some_and(|work| work.iter().any(restores))
        };
        self.files.retain(|file| wanted(&file.meta));
    }
}
