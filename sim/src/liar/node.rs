//! The node that is lied to, with its disk.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use raft_core::membership::{Change, Configuration, Step};
use raft_core::{
    Commit, Config, Effect, Entry, EntryKind, Envelope, Input, LogId, LogIndex, Message, NodeId,
    OpenMessage, Persist, PreVoteResponse, Raft, ReadFailure, ReadId, RequestId, Role,
    SnapshotMeta, Term, Violation, VoteResponse,
};

use super::choices::Choices;
use super::messages;
use super::written::Written;

const ID: NodeId = NodeId(1);

/// A read of the log that is to be answered.
struct Read {
    request: RequestId,
    from: LogIndex,
    through: LogIndex,
    bytes_max: usize,
}

pub(super) struct Node {
    config: Config,
    raft: Raft,
    disk: Written,
    /// What the disk will be when all writes are done.
    log: Written,
    writes: VecDeque<Persist>,
    reads: VecDeque<Read>,
    sending: BTreeSet<NodeId>,
    asked: BTreeSet<ReadId>,
    next_read: u64,
    handed_out: LogIndex,
    /// An answer of its own disk, which failed, may end it.
    disk_failed: bool,
    ended: bool,
}

impl Node {
    /// A node that finds something on its disk.
    pub(super) fn start(choices: &mut Choices<'_>) -> Option<Self> {
        let shape = choices.byte()?;
        let voters = 1 + u64::from(shape & 3) % 3;
        let mut config = Config::new(ID, (1..=voters).map(NodeId));
        config.heartbeat_ticks = 2;
        config.election_timeout_ticks_min = 8;
        config.election_timeout_ticks_max = 12;
        config.append_entries_max = 4;
        config.append_bytes_max = 400;
        config.inflight_max = 3;
        config.inflight_bytes_max = 1000;
        config.uncommitted_bytes_max = 4000;
        config.reads_max = 5;
        config.compaction_margin_entries = 2;
        config.compaction_hold_entries_max = 6;
        config.tail_bytes_max = if shape & 4 != 0 { 200 } else { 1 << 20 };
        config.lease_drift_ticks = (shape & 8 != 0).then_some(1);
        config.seed = u64::from(choices.byte()?);
        let disk = found(choices)?;
        let applied = match &disk.snapshot {
            Some(snapshot) => snapshot.last.index,
            None => LogIndex::ZERO,
        };
        let tail = if shape & 16 != 0 { 2 } else { usize::MAX };
        let raft = Raft::new(config.clone(), disk.recovered(applied, tail));
        Some(Self {
            config,
            raft: raft.expect("what was found can be a log"),
            log: disk.clone(),
            disk,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            sending: BTreeSet::new(),
            asked: BTreeSet::new(),
            next_read: 0,
            handed_out: applied,
            disk_failed: false,
            ended: false,
        })
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// One thing that happens; none at the end of the choices.
    pub(super) fn live(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        match choices.below(32)? {
            0..2 => {
                for _ in 0..=choices.below(16)? {
                    self.step(Input::Tick);
                }
            }
            2..14 => {
                let from = choices.peer()?;
                let to = match choices.byte()? {
                    255 => NodeId(2),
                    _ => ID,
                };
                let message = messages::message(&self.raft, &self.log, choices)?;
                self.step(Input::Received(Envelope { from, to, message }));
            }
            14..17 => {
                let writes = usize::from(choices.byte()?);
                self.persist(1 + writes % 4);
            }
            17 => self.win()?,
            18..20 => {
                let (count, len) = (choices.below(5)?, choices.byte()?);
                let command = Bytes::from(vec![len; usize::from(len) * 4]);
                self.step(Input::Propose(vec![command; count.into()]));
            }
            20 => {
                self.next_read += 1;
                let read = ReadId(self.next_read);
                self.asked.insert(read);
                self.step(Input::ReadIndex(read));
            }
            21 => {
                let change = change(choices)?;
                self.step(Input::ChangeMembership(change));
            }
            22 => {
                let to = match choices.flag()? {
                    true => Some(choices.peer()?),
                    false => None,
                };
                self.step(Input::TransferLeadership { to });
            }
            23..25 => self.read(choices.byte()?),
            25 => {
                let back = u64::from(choices.below(8)?);
                let index = LogIndex(self.handed_out.0.saturating_sub(back));
                if let Some(snapshot) = self.raft.snapshot_at(index) {
                    self.step(Input::SnapshotTaken(snapshot));
                }
            }
            26 => {
                let from = choices.peer()?;
                let message = messages::snapshot(&self.raft, &self.log, choices)?;
                self.step(Input::SnapshotReceived { from, message });
            }
            27 => {
                let arrived = choices.flag()?;
                if let Some(to) = self.sending.pop_first() {
                    self.step(Input::SnapshotSent { to, arrived });
                }
            }
            28 => {
                let peer = choices.peer()?;
                self.step(match choices.below(3)? {
                    0 => Input::PeerUnreachable(peer),
                    1 => Input::PeerGone(peer),
                    _ => Input::PeerForgot(peer),
                });
            }
            29 => self.step(Input::Campaign),
            30 => {
                let ticks = choices.index(LogIndex::ZERO)?.0;
                self.step(Input::Paused { ticks });
            }
            _ => self.restart(choices)?,
        }
        Some(())
    }

    /// Others who vote for it.
    fn win(&mut self) -> Option<()> {
        self.step(Input::Campaign);
        self.persist(usize::MAX);
        let term = Term(self.raft.term().0.checked_add(1)?);
        let granted = true;
        for from in [2, 3].map(NodeId) {
            let answer = PreVoteResponse { term, granted };
            self.hear(from, OpenMessage::PreVoteResponse(answer).into());
        }
        self.persist(usize::MAX);
        let term = self.raft.term();
        for from in [2, 3].map(NodeId) {
            let vote = VoteResponse { term, granted };
            self.hear(from, raft_core::DurableMessage::VoteResponse(vote).into());
        }
        self.persist(usize::MAX);
        Some(())
    }

    fn hear(&mut self, from: NodeId, message: Message) {
        let to = ID;
        self.step(Input::Received(Envelope { from, to, message }));
    }

    /// So many of the oldest writes are done.
    fn persist(&mut self, count: usize) {
        let count = count.min(self.writes.len());
        let mut through = None;
        for persist in self.writes.drain(..count) {
            self.disk.write(&persist);
            through = Some(persist.write);
            for (to, message) in persist.then.release() {
                self.disk.bears_out(ID, to, &message);
            }
        }
        if let Some(through) = through {
            self.step(Input::Persisted { through });
        }
    }

    /// Answers the oldest read.
    fn read(&mut self, how: u8) {
        let Some(read) = self.reads.pop_front() else {
            return;
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for index in (read.from.0..=read.through.0).map(LogIndex) {
            match self.disk.get(index) {
                Some(entry) if bytes < read.bytes_max => {
                    bytes += entry.size_bytes();
                    entries.push(entry.clone());
                }
                _ => break,
            }
        }
        let result = if read.from <= self.disk.start.index {
            Err(ReadFailure::Compacted)
        } else if entries.is_empty() || how > 250 {
            // What is not there can have been cut off only since, and by then nobody waits for it.
            self.disk_failed |= how > 250;
            Err(ReadFailure::Failed("no such entry".to_owned()))
        } else {
            Ok(entries)
        };
        let request = read.request;
        self.step(Input::EntriesRead { request, result });
    }

    /// The process ends, with so many writes done, and starts again.
    fn restart(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let (writes, tail) = (choices.byte()?, choices.byte()?);
        let done = usize::from(writes % 4).min(self.writes.len());
        for persist in self.writes.drain(..done) {
            self.disk.write(&persist);
        }
        self.writes.clear();
        self.reads.clear();
        self.sending.clear();
        self.asked.clear();
        self.log = self.disk.clone();
        let covered = |s: &SnapshotMeta| s.last.index;
        let covered = self.disk.snapshot.as_ref().map_or(LogIndex::ZERO, covered);
        // A state machine with a disk of its own comes back with what it had.
        self.handed_out = match tail & 1 {
            0 => covered,
            _ => covered.max(self.handed_out),
        };
        self.config.start += 1;
        let recovered = self.disk.recovered(self.handed_out, usize::from(tail) % 8);
        let raft = Raft::new(self.config.clone(), recovered);
        self.raft = raft.expect("a node starts from what it has written");
        Some(())
    }

    fn step(&mut self, input: Input) {
        if self.ended {
            return;
        }
        for effect in self.raft.step(input) {
            self.carry_out(effect);
        }
        if self.ended {
            return;
        }
        assert_eq!(self.raft.invariants(), Ok(()));
        let status = (self.raft.term(), self.raft.last(), self.raft.log_start());
        let written = (self.log.hard_state.term, self.log.last(), self.log.start);
        assert_eq!(status, written, "the core knows what it has not written");
        let durable = self.raft.durable();
        let (on_disk, known) = (self.disk.id_at(durable), self.log.id_at(durable));
        let replaced = on_disk.is_none() || known.is_none();
        assert!(replaced || on_disk == known, "{durable} is not durable");
        assert_eq!(self.raft.handed_out(), self.handed_out);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(persist) => {
                self.log.write(&persist);
                self.writes.push_back(persist);
            }
            Effect::Send { to, .. } => assert_ne!(to, ID),
            Effect::SendSnapshot { to, message } => {
                assert!(message.is_sound() && to != ID);
                assert_eq!(Some(&message.snapshot), self.raft.snapshot());
                assert!(
                    self.sending.insert(to),
                    "two snapshots on their way to {to}"
                );
            }
            Effect::Commit(commit) => self.hand_out(&commit),
            Effect::Restore(snapshot) => {
                assert_eq!(self.disk.snapshot.as_ref(), Some(&snapshot));
                assert!(snapshot.last.index > self.handed_out);
                self.handed_out = snapshot.last.index;
            }
            Effect::Read {
                request,
                from,
                through,
                bytes_max,
            } => {
                assert!(from <= through && through <= self.log.last().index);
                self.reads.push_back(Read {
                    request,
                    from,
                    through,
                    bytes_max,
                });
            }
            Effect::ReadReady(ready) => ready.reads.iter().for_each(|read| self.answered(*read)),
            Effect::ReadFailed { reads, .. } => {
                reads.iter().for_each(|read| self.answered(*read));
            }
            Effect::Halt(violation) => {
                self.ended = true;
                match violation {
                    Violation::CommittedConflict { .. } => {}
                    Violation::Log(_) if self.disk_failed => {}
                    broken => panic!("{broken}"),
                }
            }
            Effect::RoleChanged { role, .. } => {
                let stands = matches!(role, Role::Leader | Role::Candidate);
                assert!(!stands || self.log.hard_state.voted_for == Some(ID));
            }
            Effect::Appended { first, count, term } => {
                assert!(count == 0 || self.log.id_at(first) == Some(LogId::new(term, first)));
            }
            Effect::Rejected(_)
            | Effect::ConfigurationChanged(_)
            | Effect::TransferEnded { .. }
            | Effect::SteppedDown(_)
            | Effect::Ignored { .. } => {}
        }
    }

    fn hand_out(&mut self, commit: &Commit) {
        assert!(commit.through > self.handed_out);
        assert!(commit.through <= self.disk.last().index, "not on the disk");
        for entry in commit.entries.iter() {
            assert!(entry.id.index > self.handed_out);
            assert_eq!(self.disk.get(entry.id.index), Some(entry));
        }
        let last = commit.entries.last().map(|entry| entry.id.index);
        assert!(last.is_none_or(|last| last == commit.through));
        self.handed_out = commit.through;
    }

    fn answered(&mut self, read: ReadId) {
        assert!(self.asked.remove(&read), "an answer to what nobody asked");
    }
}

/// What a node may find on its disk: a log of a few terms, perhaps with a snapshot, term and vote.
fn found(choices: &mut Choices<'_>) -> Option<Written> {
    let mut disk = Written::default();
    let mut term = Term(0);
    for _ in 0..choices.below(10)? {
        let what = choices.byte()?;
        term = Term(term.0.max(1) + u64::from(what & 1));
        let (kind, data) = match what {
            250.. => {
                let voters = Configuration::of([1, 2, 4].map(NodeId));
                (EntryKind::Configuration, voters.encode())
            }
            _ => (
                EntryKind::Command,
                Bytes::from(vec![what; usize::from(what)]),
            ),
        };
        let entry = Entry::new(term, disk.last().index.next(), kind, data);
        disk.entries.push_back(entry);
    }
    disk.hard_state.term = Term(term.0 + u64::from(choices.below(2)?));
    if disk.hard_state.term > Term(0) {
        let vote = choices.below(4)?;
        disk.hard_state.voted_for = (vote > 0).then_some(NodeId(vote.into()));
    }
    let (covered, margin) = (u64::from(choices.below(10)?), u64::from(choices.below(4)?));
    if let Some(last) = disk.id_at(LogIndex(covered)).filter(|_| covered > 0) {
        let configuration = Configuration::of([1, 2, 3].map(NodeId));
        let configuration = configuration.into();
        disk.snapshot = Some(SnapshotMeta {
            last,
            configuration,
        });
        while disk.start.index.0 + margin < covered {
            disk.start = disk.entries.pop_front()?.id;
        }
    }
    Some(disk)
}

fn change(choices: &mut Choices<'_>) -> Option<Change> {
    let what = choices.byte()?;
    let mut steps = Vec::new();
    for _ in 0..what >> 5 {
        let node = NodeId(choices.below(6)?.into());
        steps.push(match choices.below(5)? {
            0 => Step::AddVoter(node),
            1 => Step::AddLearner(node),
            2 => Step::Join(node),
            3 => Step::Remove(node),
            _ => Step::SetPriority(node, u32::from(choices.byte()?)),
        });
    }
    Some(match what & 3 {
        0 => Change::Auto(steps),
        1 => Change::Simple(steps),
        2 => Change::EnterJoint {
            steps,
            auto_leave: what & 4 != 0,
        },
        _ => Change::LeaveJoint,
    })
}
