//! `Delivery`: applies what is committed, answers the proposers, feeds the subscribers, answers reads.
//!
//! It runs on a thread of its own where there is a state machine, whose code may take its time.
//!
//! Invariants:
//! - What reaches it is committed, and durable on this node, and is applied in the order of the log, each entry once. What
//!   is not in memory is read from the log.
//! - A proposal is answered with what the ledger says of its entry when that is applied; it is superseded when an entry of
//!   another term is applied in its place: nothing else proves either.
//! - One turn's work is bounded, so that whoever asks something waits no longer than that and one command.
//!
//! Bounds: what waits to be applied is bounded by the node, which hands over positions in place of entries beyond a limit.

mod answers;
mod cursors;
mod digests;
mod handlers;
mod message;
mod reads;
mod replica;
mod waiting;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{Entry, LogId, LogIndex, NodeId, SnapshotMeta};
use raft_net::{Frame, FrameEncoder, PeerSender};
use raft_storage::{LogReads, LogStorage, ReadEntries, Snapshots, StorageError};
use tokio::sync::watch;

use crate::front::Stop;
use crate::intake::send_answers;
use crate::lag::Lag;
use crate::ledger::{Lookup, Settlement};
use crate::message::{Start, Subscribe};
use crate::metrics::DeliveryMetrics;
use crate::proposals::{Proposal, Settled};
use crate::recent::Recent;
use crate::subscription::{Ending, Log, Subscription};
use crate::{ForgetCursor, NodeFailure, SubscribeError, Subscribed, UnknownCause};
use answers::Answers;
use cursors::Cursors;
use digests::{Digests, Verdict};
pub(crate) use message::{
    Apply, Await, Back, CaptureState, Circle, Finish, LogBegins, Office, PartFailed, PeerDigest,
    Progress, Told,
};
use reads::Reads;
pub(crate) use reads::{ReadJob, ReadsReady};
pub(crate) use replica::{RecoverError, Replica, guarded};
use waiting::Waiting;

/// Committed entries kept in memory for subscribers, in bytes.
const RECENT_BYTES_MAX: usize = 8 << 20;
/// How often deadlines are looked at, cursors kept, digests announced.
const SWEEP: Duration = Duration::from_millis(50);
/// Digests are announced each second or third sweep.
const ANNOUNCE: Duration = Duration::from_millis(100);
/// The time that one turn spends on applying.
const TURN: Duration = Duration::from_millis(5);
/// After how many entries it looks at the clock.
const LOOK_AT_CLOCK: usize = 16;
/// So long after its node is gone it ends by itself: who ends it in order takes less.
const ALONE: Duration = Duration::from_secs(15);
/// Entries that are read from the log at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// Go on applying.
#[derive(Message)]
#[rtype(result = "()")]
struct GoOn;

/// Where `Delivery` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// With the node.
    Nodes,
    /// By itself, and ends its thread when it ends.
    Own,
    /// Where the program said.
    Given,
}

/// What `Delivery` is made of.
pub(crate) struct Making {
    pub(crate) id: NodeId,
    pub(crate) replica: Replica,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) lag: Arc<Lag>,
    pub(crate) reads: Addr<LogReads>,
    pub(crate) storage: Addr<LogStorage>,
    pub(crate) snapshots: Arc<dyn Snapshots>,
    pub(crate) node: Recipient<Told>,
    pub(crate) failed: Recipient<PartFailed>,
    pub(crate) encoder: FrameEncoder,
    /// Where the log begins,
    pub(crate) first: LogIndex,
    /// the snapshot before that,
    pub(crate) snapshot: LogId,
    /// and where it ended when the node was started.
    pub(crate) last: LogIndex,
    pub(crate) cursors: BTreeMap<String, LogIndex>,
}

/// See the [module](self).
pub(crate) struct Delivery {
    replica: Rc<RefCell<Replica>>,
    log: Rc<Log>,
    progress: watch::Sender<Progress>,
    lag: Arc<Lag>,
    reads: Addr<LogReads>,
    snapshots: Arc<dyn Snapshots>,
    node: Recipient<Told>,
    failed: Recipient<PartFailed>,
    peers: BTreeMap<NodeId, PeerSender>,
    voters: BTreeSet<NodeId>,
    encoder: FrameEncoder,
    /// Committed entries that are not applied yet, as far as they are in memory.
    ready: VecDeque<Arc<[Entry]>>,
    /// How far the log is committed.
    target: LogIndex,
    /// Entries are being read from the log.
    reading: bool,
    going_on: bool,
    waiting: Waiting,
    waiting_reads: Reads,
    digests: Digests,
    office: Office,
    announced_at: Instant,
    cursors: Cursors,
    subscriptions: Vec<tokio::task::JoinHandle<()>>,
    /// Where those that live stand.
    positions: Vec<Weak<Cell<LogIndex>>>,
    metrics: DeliveryMetrics,
    ended: bool,
    thread: Thread,
    /// Since when the node is gone, and nobody has said so.
    alone_since: Option<Instant>,
}

impl Delivery {
    pub(crate) fn new(making: Making, thread: Thread) -> Self {
        let applied = making.replica.applied().index;
        let digests = Digests::new(making.id);
        let replica = Rc::new(RefCell::new(making.replica));
        making.progress.send_replace(Progress {
            index: applied,
            time_ms: replica.borrow().ledger.time_ms(),
        });
        let log = Log {
            recent: RefCell::new(Recent::new(RECENT_BYTES_MAX)),
            replica: Rc::clone(&replica),
            snapshots: Arc::clone(&making.snapshots),
            reads: making.reads.clone(),
            begins: Cell::new((making.first, making.snapshot)),
            at_start: making.last,
            subscriptions: Cell::new(0),
            shared: RefCell::new(None),
        };
        Self {
            replica,
            log: Rc::new(log),
            progress: making.progress,
            lag: making.lag,
            reads: making.reads,
            snapshots: making.snapshots,
            node: making.node,
            failed: making.failed,
            peers: BTreeMap::new(),
            voters: BTreeSet::new(),
            encoder: making.encoder,
            ready: VecDeque::new(),
            target: applied,
            reading: false,
            going_on: false,
            waiting: Waiting::default(),
            waiting_reads: Reads::default(),
            digests,
            office: Office { leads: false },
            announced_at: Instant::now(),
            cursors: Cursors::new(making.cursors, making.storage),
            subscriptions: Vec::new(),
            positions: Vec::new(),
            metrics: DeliveryMetrics::new(making.id),
            ended: false,
            thread,
            alone_since: None,
        }
    }

    fn applied(&self) -> LogIndex {
        self.replica.borrow().applied().index
    }

    /// Applies what there is, for a turn's time; then goes on later.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        let began = Instant::now();
        let mut settled = Vec::new();
        while !self.ended && self.applied() < self.target {
            if began.elapsed() >= TURN {
                if !std::mem::replace(&mut self.going_on, true) {
                    ctx.notify(GoOn);
                }
                break;
            }
            let next = self.applied().next();
            let Some(run) = self.ready.front().cloned() else {
                self.read(next, self.target, ctx);
                break;
            };
            if let Some(first) = run.first().map(|entry| entry.id.index)
                && first > next
            {
                self.read(next, first.prev(), ctx);
                break;
            }
            if let Err(failure) = self.apply(&run, next, began, &mut settled) {
                self.fail(failure);
                break;
            }
            if run
                .last()
                .is_none_or(|last| last.id.index <= self.applied())
            {
                self.ready.pop_front();
                self.lag.applied(&run);
            }
        }
        let applied = self.applied();
        self.waiting_reads
            .answer(&self.replica.borrow(), &self.node);
        let news = self.progress.borrow().index != applied;
        // Whoever is answered on another thread sees the progress that its answer is about. On this one nobody sees anything
        // before all is done, and those who are answered go first.
        if self.thread != Thread::Nodes {
            self.show_progress(news, applied);
            self.answer(settled);
        } else {
            self.answer(settled);
            self.show_progress(news, applied);
        }
        if news {
            self.metrics.applied(began.elapsed());
            self.compare_digests();
        }
    }

    fn show_progress(&self, news: bool, applied: LogIndex) {
        if news {
            let time_ms = self.replica.borrow().ledger.time_ms();
            self.progress.send_replace(Progress {
                index: applied,
                time_ms,
            });
        }
    }

    /// Answers those who wait for these entries, and those who wait in vain since they are in the log.
    fn answer(&mut self, settled: Vec<(LogId, Option<Settlement>)>) {
        if settled.is_empty() {
            return;
        }
        let mut answers = Answers::new();
        for (at, settlement) in settled {
            let met = self.waiting.meet(at, |other| answers.superseded(other));
            match (met, settlement) {
                (Some(proposal), Some(settlement)) => {
                    answers.settled(proposal, Settled { at, settlement });
                }
                (Some(proposal), None) => answers.unsure(proposal, UnknownCause::NodeEnded),
                (None, _) => {}
            }
        }
        self.tell(answers);
    }

    /// Applies those of `run` from `next` on, as far as the turn's time goes. What came of them is told to those who wait
    /// when all is done.
    fn apply(
        &mut self,
        run: &Arc<[Entry]>,
        next: LogIndex,
        began: Instant,
        settled: &mut Vec<(LogId, Option<Settlement>)>,
    ) -> Result<(), NodeFailure> {
        let start = run.partition_point(|entry| entry.id.index < next);
        let mut end = start;
        if !self.waiting.is_empty() {
            settled.reserve(run.len() - start);
        }
        let mut replica = self.replica.borrow_mut();
        for entry in &run[start..] {
            // The clock costs as much as a small command.
            if (end - start) % LOOK_AT_CLOCK == LOOK_AT_CLOCK - 1 && began.elapsed() >= TURN {
                break;
            }
            end += 1;
            let settlement = replica.apply(entry)?;
            self.digests.push(entry.id.index, replica.ledger.digest());
            if !self.waiting.is_empty() {
                settled.push((entry.id, settlement));
            }
        }
        replica.keep()?;
        drop(replica);
        self.log.recent.borrow_mut().extend(run, start..end);
        Ok(())
    }

    /// Reads entries from the log.
    fn read(&mut self, from: LogIndex, through: LogIndex, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.reading, true) {
            return;
        }
        let read = ReadEntries {
            from,
            through,
            bytes_max: READ_BYTES,
        };
        let sent = self.reads.send(read).into_actor(self);
        ctx.spawn(sent.map(|result, delivery, ctx| {
            delivery.reading = false;
            match result {
                Ok(Ok(entries)) => {
                    let run: Arc<[Entry]> = entries.into();
                    delivery.lag.handed_over(&run);
                    delivery.ready.push_front(run);
                    delivery.go_on(ctx);
                }
                // A snapshot has replaced this part of the log, and is on its way here; or the node ends.
                Ok(Err(StorageError::Compacted { .. } | StorageError::Missing { .. })) => {
                    ctx.run_later(SWEEP, |delivery, ctx| delivery.go_on(ctx));
                }
                Ok(Err(StorageError::Closed)) | Err(_) => {}
                Ok(Err(error)) => delivery.fail(error.into()),
            }
        }));
    }

    /// Replaces the state.
    fn restore(&mut self, meta: &SnapshotMeta) {
        let last = meta.last;
        if self.ended || self.applied() >= last.index {
            return;
        }
        for run in self.ready.drain(..) {
            self.lag.applied(&run);
        }
        let began = Instant::now();
        let restored = self
            .replica
            .borrow_mut()
            .restore(self.snapshots.as_ref(), last);
        if let Err(why) = restored {
            let index = last.index;
            let message = format!("cannot restore the snapshot: {why}");
            return self.fail(NodeFailure::StateMachine { index, message });
        }
        tracing::info!(%last, "restored a snapshot within {:?}", began.elapsed());
        self.target = self.target.max(last.index);
        // Of the log that it replaced nothing is left, and the new ledger knows none of what was suppressed there.
        self.begins(last.index.next(), last);
        if let Some(cluster) = self.replica.borrow().cluster {
            self.node.do_send(Told::Cluster(cluster));
        }
        let mut answers = Answers::new();
        for proposal in self.waiting.take_through(last.index) {
            match proposal
                .id()
                .map(|id| self.replica.borrow().ledger.lookup(id))
            {
                Some(Lookup::Settled(settlement)) => answers.settled(
                    proposal,
                    Settled {
                        at: last,
                        settlement,
                    },
                ),
                _ => answers.unsure(proposal, UnknownCause::Compacted),
            }
        }
        self.tell(answers);
    }

    /// The log begins here now: nothing before is handed out, neither from memory nor from the disk.
    fn begins(&mut self, first: LogIndex, snapshot: LogId) {
        self.log.begins.set((first, snapshot));
        self.replica.borrow_mut().log_begins_at(first);
    }

    /// Answers those whose time is up, and does what is done now and then.
    fn sweep(&mut self) {
        let now = Instant::now();
        let mut answers = Answers::new();
        for proposal in self.waiting.expired(now) {
            answers.late(proposal);
        }
        self.tell(answers);
        self.waiting_reads.expire(now);
        if self.office.leads
            && now.saturating_duration_since(self.announced_at) >= ANNOUNCE
            && let Some((index, digest)) = self.digests.announce()
        {
            self.announced_at = now;
            self.say_digest(index, digest, true);
        }
        self.compare_digests();
        if !self.ended {
            self.cursors.keep(now);
        }
        self.measure();
    }

    /// Whether the node, with all that would end this, was gone a while ago without a word, as with its thread.
    fn is_left_alone(&mut self) -> bool {
        if self.node.connected() {
            return false;
        }
        self.alone_since.get_or_insert_with(Instant::now).elapsed() >= ALONE
    }

    fn measure(&mut self) {
        let applied = self.applied();
        self.positions.retain(|at| at.strong_count() > 0);
        let lags = self.positions.iter().filter_map(Weak::upgrade);
        let lag = lags.map(|at| applied.0.saturating_sub(at.get().0)).max();
        let sessions = self.replica.borrow().ledger.sessions();
        self.metrics
            .sample(sessions, self.positions.len(), lag.unwrap_or(0));
    }

    fn compare_digests(&mut self) {
        for (index, digest) in self.digests.answers() {
            self.say_digest(index, digest, false);
        }
        match self.digests.verdict(&self.voters) {
            Verdict::Fine => {}
            Verdict::Diverged {
                index,
                own,
                majority,
            } => self.fail(NodeFailure::Diverged {
                index,
                own,
                majority,
            }),
            Verdict::NobodyAgrees { index } => {
                tracing::error!(%index, "the nodes' states differ, and no majority agrees on one");
            }
        }
    }

    fn say_digest(&mut self, index: LogIndex, digest: u128, announced: bool) {
        let frame = Frame::Digest {
            index,
            digest,
            announced,
        };
        for (id, peer) in &self.peers {
            match self.encoder.encode_for(peer, frame.clone()) {
                // The next one says more than one that is dropped.
                Ok(frame) => drop(peer.try_send(frame)),
                Err(error) => tracing::error!(peer = %id, "cannot encode a digest: {error}"),
            }
        }
    }

    /// Sends peers the outcomes of what they forwarded, and gives back what is the node's. A peer that cannot be told
    /// stops waiting by itself.
    fn tell(&mut self, answers: Answers) {
        for (id, answers) in answers.peers {
            if let Some(sender) = self.peers.get(&id) {
                send_answers(id, sender, &mut self.encoder, answers);
            }
        }
        if !answers.back.is_empty() {
            self.node.do_send(Told::Back(answers.back));
        }
    }

    /// Nothing is applied any more, and the node ends.
    fn fail(&mut self, failure: NodeFailure) {
        self.ended = true;
        self.failed.do_send(PartFailed(failure));
    }
}

#[cfg(test)]
mod tests;
