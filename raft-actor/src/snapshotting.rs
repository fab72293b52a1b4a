//! The node's part in snapshots: when one is taken, sent, received, and named.
//!
//! The way of one that is taken: [`Delivery`](crate::delivery::Delivery) captures the state between two entries; a thread of
//! its own writes it to a file; the protocol is told, and its next write names the file and lets the log begin behind it,
//! but for a margin. Nobody waits for any of it.
//!
//! Invariants:
//! - One snapshot is taken at a time. A threshold that is crossed meanwhile is looked at again behind it.
//! - A file is removed only if no write names it or is about to.
//! - A snapshot that cannot be written costs a line in the log, and is tried again later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{InstallSnapshot, LogId, LogIndex, NodeId, Persist, SnapshotMeta, WriteId};
use raft_net::{SnapshotArrived, SnapshotSender, SnapshotSent};
use raft_storage::{SnapshotInfo, Snapshots};

use crate::delivery::{CaptureState, LogBegins, guarded};
use crate::metrics::SnapshotEvent;
use crate::node::{Life, Node};
use crate::reply::{Answer, Later, later};
use crate::snapshot::{Captured, Outgoing};
use crate::{SnapshotError, TakeSnapshot};

/// How long a snapshot that could not be written is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// See the [module](self).
pub(crate) struct Snapshotting {
    pub(crate) snapshots: Arc<dyn Snapshots>,
    pub(crate) sender: SnapshotSender,
    every_entries: u64,
    every_bytes: u64,
    /// The last entry that the newest snapshot covers, and how many bytes had been applied then.
    newest: LogIndex,
    newest_bytes: u64,
    taking: Taking,
    not_before: Option<Instant>,
    asked: Vec<Answer<Result<LogId, SnapshotError>>>,
    /// Writes under way that name a snapshot, and where the log begins behind them.
    naming: VecDeque<(WriteId, LogBegins)>,
}

enum Taking {
    Nothing,
    Capturing,
    Writing(LogId),
    /// Its name is on its way to the disk.
    Naming(LogId),
}

/// A snapshot's file is whole, or is not to be.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SnapshotWritten {
    meta: SnapshotMeta,
    result: Result<SnapshotInfo, String>,
    took: Duration,
}

impl Snapshotting {
    pub(crate) fn new(
        snapshots: Arc<dyn Snapshots>,
        sender: SnapshotSender,
        policy: &crate::config::Snapshots,
        newest: LogIndex,
    ) -> Self {
        let or_never = |threshold: u64| if threshold == 0 { u64::MAX } else { threshold };
        Self {
            snapshots,
            sender,
            every_entries: or_never(policy.every_entries),
            every_bytes: or_never(policy.every_bytes),
            newest,
            newest_bytes: 0,
            taking: Taking::Nothing,
            not_before: None,
            asked: Vec::new(),
            naming: VecDeque::new(),
        }
    }

    /// Whether it is time for a snapshot.
    fn is_due(&self, applied: LogIndex, applied_bytes: u64, now: Instant) -> bool {
        matches!(self.taking, Taking::Nothing)
            && self.not_before.is_none_or(|at| now >= at)
            && (applied.0.saturating_sub(self.newest.0) >= self.every_entries
                || applied_bytes.saturating_sub(self.newest_bytes) >= self.every_bytes)
            && applied > self.newest
    }

    /// The protocol makes a write that names a snapshot.
    pub(crate) fn is_named_by(&mut self, persist: &Persist, applied_bytes: u64) {
        if let Some(write) = &persist.snapshot {
            let (last, first) = (write.snapshot.last, write.log_start.index.next());
            let begins = LogBegins {
                first,
                snapshot: last,
            };
            self.naming.push_back((persist.write, begins));
            self.newest = self.newest.max(last.index);
            self.newest_bytes = applied_bytes;
        }
    }

    /// Whether a write names this one, or is about to.
    fn is_needed(&self, last: LogId) -> bool {
        matches!(self.taking, Taking::Writing(at) | Taking::Naming(at) if at == last)
            || self
                .naming
                .iter()
                .any(|(_, begins)| begins.snapshot == last)
    }

    /// Whether a write that is on its way names a snapshot.
    pub(crate) fn is_naming(&self) -> bool {
        !self.naming.is_empty()
    }

    fn finish(&mut self, result: &Result<LogId, SnapshotError>) {
        self.taking = Taking::Nothing;
        for answer in self.asked.drain(..) {
            answer.give(result.clone());
        }
    }

    /// Ends all that is here.
    pub(crate) fn end(&mut self) {
        self.sender.stop();
        self.finish(&Err(SnapshotError::NodeEnded));
    }
}

impl Node {
    /// Begins a snapshot if it is time for one.
    pub(crate) fn consider_snapshot(&mut self) {
        let applied = self.progress.borrow().index;
        let bytes = self.lag.applied_bytes();
        if matches!(self.life, Life::Running(_))
            && self.snapshotting.is_due(applied, bytes, Instant::now())
        {
            self.capture();
        }
    }

    fn capture(&mut self) {
        self.snapshotting.taking = Taking::Capturing;
        self.parts.delivery.do_send(CaptureState);
    }

    /// Somebody wants a snapshot.
    pub(crate) fn take_snapshot(&mut self) -> Later<Result<LogId, SnapshotError>> {
        let error = if !matches!(self.life, Life::Running(_)) {
            SnapshotError::NodeEnded
        } else if !matches!(self.snapshotting.taking, Taking::Nothing) {
            SnapshotError::UnderWay
        } else if self.progress.borrow().index <= self.snapshotting.newest {
            SnapshotError::NothingNew
        } else {
            let (later, answer) = later(|| Err(SnapshotError::NodeEnded));
            self.snapshotting.asked.push(answer);
            self.capture();
            return later;
        };
        Later::now(Err(error))
    }

    /// The state is captured: it is written by a thread of its own.
    pub(crate) fn captured(&mut self, mut captured: Captured, ctx: &mut Context<Self>) {
        let Life::Running(raft) = &self.life else {
            return self.snapshotting.finish(&Err(SnapshotError::NodeEnded));
        };
        let Some(meta) = raft.snapshot_at(captured.index()) else {
            // A snapshot that came in meanwhile covers more; or the protocol knows too little yet.
            self.snapshotting.not_before = Some(Instant::now() + AGAIN_AFTER);
            return self.snapshotting.finish(&Err(SnapshotError::NothingNew));
        };
        captured.cluster = self.cluster;
        self.snapshotting.taking = Taking::Writing(meta.last);
        let (snapshots, node) = (Arc::clone(&self.snapshotting.snapshots), ctx.address());
        let write = move || {
            let began = Instant::now();
            let written = guarded(|| captured.write(snapshots.as_ref(), &meta));
            let result = written.and_then(|written| written);
            let took = began.elapsed();
            node.do_send(SnapshotWritten { meta, result, took });
        };
        let thread = std::thread::Builder::new().name("raft-snapshot".to_owned());
        if let Err(error) = thread.spawn(write) {
            self.snapshot_failed(error.to_string());
        }
    }

    fn snapshot_failed(&mut self, why: String) {
        tracing::error!("cannot write a snapshot: {why}");
        self.observer.snapshot(SnapshotEvent::NotTaken);
        self.snapshotting.not_before = Some(Instant::now() + AGAIN_AFTER);
        self.snapshotting.finish(&Err(SnapshotError::Write(why)));
    }

    /// Tells the protocol of a snapshot that this node took.
    fn snapshot_written(&mut self, written: SnapshotWritten, ctx: &mut Context<Self>) {
        let SnapshotWritten { meta, result, took } = written;
        let info = match result {
            Ok(info) => info,
            Err(why) => return self.snapshot_failed(why),
        };
        let last = meta.last;
        tracing::info!(%last, bytes = info.bytes, "took a snapshot within {took:?}");
        self.observer.snapshot_taken(took);
        self.snapshotting.taking = Taking::Naming(last);
        self.step(raft_core::Input::SnapshotTaken(meta), ctx);
        if !self.is_naming(last) {
            self.snapshotting.finish(&Err(SnapshotError::NothingNew));
            self.remove_snapshot(last);
        }
    }

    fn is_naming(&self, last: LogId) -> bool {
        let naming = &self.snapshotting.naming;
        naming.iter().any(|(_, begins)| begins.snapshot == last)
    }

    /// Removes the file of a snapshot that nobody wants.
    fn remove_snapshot(&self, last: LogId) {
        let is_own = match &self.life {
            Life::Running(raft)
            | Life::Draining {
                raft: Some(raft), ..
            } => raft.snapshot().is_some_and(|own| own.last == last),
            _ => true, // The next start removes it.
        };
        if is_own || self.snapshotting.is_needed(last) {
            return;
        }
        let snapshots = Arc::clone(&self.snapshotting.snapshots);
        actix_rt::task::spawn_blocking(move || {
            if let Err(error) = snapshots.remove(last) {
                tracing::warn!(%last, "cannot remove a snapshot that nobody wants: {error}");
            }
        });
    }

    /// All writes up to `through` are durable.
    pub(crate) fn named_through(&mut self, through: WriteId) {
        while let Some((write, _)) = self.snapshotting.naming.front()
            && *write <= through
            && let Some((_, begins)) = self.snapshotting.naming.pop_front()
        {
            let last = begins.snapshot;
            self.parts.delivery.do_send(begins);
            if matches!(self.snapshotting.taking, Taking::Naming(at) if at == last) {
                self.snapshotting.finish(&Ok(last));
            }
        }
    }

    /// Sends this node's snapshot to a peer. What comes of it the protocol is told.
    pub(crate) fn send_snapshot(
        &mut self,
        to: NodeId,
        message: InstallSnapshot,
        ctx: &mut Context<Self>,
    ) {
        let last = message.snapshot.last;
        let source = self.snapshotting.snapshots.open(last);
        let address = self.peers.get(&to).map(|peer| peer.sender.address());
        match (source, address) {
            (Ok(source), Some(address)) => {
                tracing::info!(peer = %to, %last, bytes = source.info().bytes, "sends a snapshot");
                let outgoing = Outgoing(source);
                let offer = outgoing.offer(message);
                let told = ctx.address().recipient();
                let source = Box::new(outgoing);
                self.snapshotting
                    .sender
                    .send(to, address, offer, source, told);
            }
            (source, _) => {
                if let Err(error) = source {
                    tracing::error!(peer = %to, %last, "cannot send the snapshot: {error}");
                }
                // Not within the step that asked for it.
                let arrived = false;
                ctx.notify(SnapshotEnded { to, arrived });
            }
        }
    }
}

/// A transfer to a peer is over.
#[derive(Message)]
#[rtype(result = "()")]
struct SnapshotEnded {
    to: NodeId,
    arrived: bool,
}

impl Handler<SnapshotEnded> for Node {
    type Result = ();

    fn handle(&mut self, SnapshotEnded { to, arrived }: SnapshotEnded, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.step(raft_core::Input::SnapshotSent { to, arrived }, ctx);
        self.end_turn(ctx);
    }
}

impl Handler<SnapshotSent> for Node {
    type Result = ();

    fn handle(&mut self, SnapshotSent { to, arrived }: SnapshotSent, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        match &arrived {
            Ok(()) => tracing::info!(peer = %to, "the snapshot has arrived"),
            Err(error) => tracing::warn!(peer = %to, "the snapshot has not arrived: {error}"),
        }
        let arrived = arrived.is_ok();
        self.observer.snapshot(if arrived {
            SnapshotEvent::Sent
        } else {
            SnapshotEvent::NotSent
        });
        self.step(raft_core::Input::SnapshotSent { to, arrived }, ctx);
        self.end_turn(ctx);
    }
}

impl Handler<SnapshotArrived> for Node {
    type Result = bool;

    fn handle(&mut self, arrived: SnapshotArrived, ctx: &mut Self::Context) -> bool {
        let SnapshotArrived {
            from,
            starts,
            message,
        } = arrived;
        let _span = self.span().entered();
        let last = message.snapshot.last;
        self.forget_lost(ctx);
        let mut wanted = false;
        if self.local.witness(from, starts, None) && self.greeting.is_over() {
            self.step(raft_core::Input::SnapshotReceived { from, message }, ctx);
            wanted = self.is_naming(last);
        }
        if wanted {
            self.observer.snapshot(SnapshotEvent::Received);
            tracing::info!(peer = %from, %last, "takes over the peer's snapshot");
        } else {
            self.remove_snapshot(last);
        }
        self.end_turn(ctx);
        wanted
    }
}

impl Handler<SnapshotWritten> for Node {
    type Result = ();

    fn handle(&mut self, written: SnapshotWritten, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.snapshot_written(written, ctx);
        self.end_turn(ctx);
    }
}

impl Handler<TakeSnapshot> for Node {
    type Result = Later<Result<LogId, SnapshotError>>;

    fn handle(&mut self, _: TakeSnapshot, _: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        self.take_snapshot()
    }
}
