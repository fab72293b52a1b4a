//! What is seen of a node from outside: its status, its view for those who watch, its span for those who read
//! logs, and its metrics.
//!
//! Invariant: a turn in which nothing of the [`NodeView`] changed costs a comparison of a few numbers; the view
//! and the span are made anew only when they differ, and the gauges ten times a second.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{ClusterId, LogIndex, NodeId, Persist, Raft, Role, Term, WriteId};
use tokio::sync::watch;
use tracing::Span;

use crate::metrics::{NodeMetrics, SnapshotEvent};
use crate::node::{Life, Node};
use crate::tolerance::{Alarm, Notice};
use crate::{Health, NodeFailure, NodeStatus, NodeView, Phase};

/// How often gauges are brought up to date.
const SAMPLE: Duration = Duration::from_millis(100);

/// What the node shows, where [`RaftActor`](crate::RaftActor) can see it without asking.
pub(crate) struct Observed {
    view: watch::Sender<NodeView>,
    /// Committed entries that are not applied.
    unapplied: Cell<u64>,
}

impl Observed {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            view: watch::Sender::new(NodeView::unborn()),
            unapplied: Cell::new(0),
        })
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<NodeView> {
        self.view.subscribe()
    }

    pub(crate) fn health(&self) -> Health {
        Health::of(&self.view.borrow(), self.unapplied.get())
    }

    fn show(&self, view: NodeView) {
        self.view.send_if_modified(|old| {
            let differs = *old != view;
            *old = view;
            differs
        });
    }

    /// The node's actor has died, and cannot say so itself.
    pub(crate) fn died(&self, failure: NodeFailure) {
        self.show(NodeView {
            phase: Phase::Failed(failure),
            ..NodeView::unborn()
        });
    }
}

/// What a change of the view can be told by.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Signs {
    phase: std::mem::Discriminant<Life>,
    role: Role,
    term: Term,
    leader: Option<NodeId>,
    configuration: LogIndex,
    cluster: Option<ClusterId>,
    is_leaving: bool,
    /// What happened to connections.
    events: u64,
}

/// The node's own side of it.
pub(crate) struct Observer {
    shared: Rc<Observed>,
    signs: Option<Signs>,
    events: u64,
    last_leader: Option<NodeId>,
    span: Span,
    pub(crate) metrics: NodeMetrics,
    next_sample: Duration,
    alarm: Alarm,
    /// Writes that are not durable, and when each was handed over.
    writing: VecDeque<(WriteId, Instant)>,
}

impl Observer {
    pub(crate) fn new(id: NodeId, shared: Rc<Observed>) -> Self {
        crate::metrics::describe();
        Self {
            shared,
            signs: None,
            events: 0,
            last_leader: None,
            span: Span::none(),
            metrics: NodeMetrics::new(id),
            next_sample: Duration::ZERO,
            alarm: Alarm::default(),
            writing: VecDeque::new(),
        }
    }

    /// Something has happened that the view may show: a connection came or went, say.
    pub(crate) fn event(&mut self) {
        self.events += 1;
    }

    /// Something happened to a snapshot.
    pub(crate) fn snapshot(&self, event: SnapshotEvent) {
        self.metrics.snapshot_event(event);
    }

    /// This node has taken a snapshot.
    pub(crate) fn snapshot_taken(&self, took: Duration) {
        self.metrics.snapshot_event(SnapshotEvent::Taken);
        self.metrics.snapshot_written(took);
    }

    /// These writes are handed to the storage.
    pub(crate) fn writing(&mut self, persists: &[Persist]) {
        let Some(last) = persists.last() else { return };
        self.writing.push_back((last.write, Instant::now()));
        let entries = persists.iter().flat_map(|persist| persist.append.iter());
        self.metrics
            .appended(entries.map(|entry| entry.size_bytes() as u64).sum());
    }

    /// All writes up to this one are durable, since then.
    pub(crate) fn written(&mut self, through: WriteId, since: Instant) {
        let done = self.writing.partition_point(|(write, _)| *write <= through);
        let Some((_, oldest)) = self.writing.front().copied().filter(|_| done > 0) else {
            return;
        };
        self.writing.drain(..done);
        let took = since.saturating_duration_since(oldest);
        self.metrics
            .written(u32::try_from(done).unwrap_or(u32::MAX), took);
    }
}

impl Node {
    /// The node's span, to be entered by its handlers.
    pub(crate) fn span(&self) -> Span {
        self.observer.span.clone()
    }

    /// Shows what has changed since the last look. At the end of every turn, so ten times in 100 ms at least.
    pub(crate) fn observe(&mut self, now: Duration, ctx: &mut Context<Self>) {
        let raft = raft_of(&self.life);
        let (commit, applied) = (raft.map(Raft::commit), self.progress.borrow().index);
        let unapplied = commit.map_or(0, |commit| commit.0.saturating_sub(applied.0));
        self.observer.shared.unapplied.set(unapplied);
        let signs = Signs {
            phase: std::mem::discriminant(&self.life),
            role: raft.map_or(Role::Follower, Raft::role),
            term: raft.map(Raft::term).unwrap_or_default(),
            leader: raft.and_then(Raft::leader),
            configuration: raft.map(Raft::configuration_index).unwrap_or_default(),
            cluster: self.cluster,
            is_leaving: self.leaving.is_wanted(),
            events: self.observer.events,
        };
        if self.observer.signs != Some(signs) {
            self.observer.signs = Some(signs);
            self.observer.shared.show(self.view());
            // A new one, for a recorded field is added to the old text by many formatters; and not within the one
            // that is left, which it would keep.
            self.observer.span = tracing::error_span!(
                parent: None,
                "node",
                id = %self.id,
                cluster = self.cluster.map(tracing::field::display),
                term = signs.term.0,
                role = %signs.role,
            );
            if signs.leader.is_some() && signs.leader != self.observer.last_leader {
                self.observer.last_leader = signs.leader;
                self.observer.metrics.leader_changed();
            }
        }
        if now >= self.observer.next_sample {
            self.observer.next_sample = now + SAMPLE;
            self.sample();
            self.ask_listener(ctx);
        }
    }

    /// Asks what was turned away. There is one question at a time, for the next waits for a sample's time.
    fn ask_listener(&self, ctx: &mut Context<Self>) {
        let asked = self.parts.listener.send(raft_net::GetListenerStats);
        let asked = asked.into_actor(self);
        // A listener that is gone has nothing to say.
        ctx.spawn(asked.map(|stats, node, _| {
            if let Ok(stats) = stats {
                node.refused.listener(&stats);
            }
        }));
    }

    fn sample(&mut self) {
        let status = raft_of(&self.life).map(Raft::status);
        let leading = status.as_ref().filter(|status| status.role == Role::Leader);
        let tolerance = leading.and_then(|status| self.tolerance_of(status));
        let peers = self.peers.iter().map(|(id, peer)| {
            let fed = leading.and_then(|status| status.peers.iter().find(|fed| fed.id == *id));
            let last = leading.map_or(0, |status| status.last.index.0);
            let lag = fed.map_or(0, |fed| last.saturating_sub(fed.matched.0));
            let healthy = leading.map(|status| self.ailment(*id, status).is_none());
            (*id, peer.sender.stats(), lag, healthy)
        });
        let peers: Vec<_> = peers.collect();
        let (applied, waiting) = (self.progress.borrow().index.0, self.door.waiting_count());
        let metrics = &mut self.observer.metrics;
        metrics.sample(status.as_ref(), applied, waiting);
        metrics.sample_unapplied(self.lag.bytes());
        metrics.sample_tls(self.local.tls_stats());
        if let Some(status) = &status {
            metrics.sample_membership(&status.configuration, leading.is_some(), tolerance.as_ref());
        }
        for (id, stats, lag, healthy) in peers {
            metrics.sample_peer(id, &stats, lag, healthy);
        }
        match self.observer.alarm.sees(tolerance.as_ref(), Instant::now()) {
            Some(Notice::Reduced(tolerance)) => {
                tracing::warn!("the cluster tolerates less than it could: {tolerance}");
            }
            Some(Notice::Restored(tolerance)) => {
                tracing::info!("the cluster tolerates what it can: {tolerance}");
            }
            None => {}
        }
    }

    fn phase(&self) -> Phase {
        match &self.life {
            Life::Forming { forming, .. } => Phase::Forming {
                waiting_for: forming
                    .waiting_for()
                    .map(|id| (id, self.trouble_with(id)))
                    .collect(),
            },
            Life::Running(_) if self.leaving.is_wanted() => Phase::Leaving,
            Life::Running(_) => Phase::Running,
            Life::Draining { .. } | Life::Closing => Phase::ShuttingDown,
            Life::Failed { why, .. } => Phase::Failed(why.clone()),
        }
    }

    fn trouble_with(&self, id: NodeId) -> String {
        let trouble = self.peers.get(&id).and_then(|peer| peer.trouble.clone());
        trouble.unwrap_or_else(|| "no answer yet".to_owned())
    }

    fn view(&self) -> NodeView {
        let raft = raft_of(&self.life);
        let connected = self.peers.iter().filter(|(_, peer)| peer.connected);
        NodeView {
            phase: self.phase(),
            role: raft.map_or(Role::Follower, Raft::role),
            term: raft.map(Raft::term).unwrap_or_default(),
            leader: raft.and_then(Raft::leader),
            configuration: raft
                .map(|raft| raft.configuration().clone())
                .unwrap_or_default(),
            connected: connected.map(|(id, _)| *id).collect(),
        }
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let core = raft_of(&self.life).map(Raft::status);
        let members = self.member_statuses(core.as_ref());
        let view = self.view();
        let applied = self.progress.borrow().index;
        let commit = core.as_ref().map(|core| core.commit).unwrap_or_default();
        NodeStatus {
            id: self.id,
            incarnation: self.incarnation,
            cluster: self.cluster,
            phase: view.phase,
            role: view.role,
            term: view.term,
            leader: view.leader,
            commit,
            applied,
            unapplied: commit.0.saturating_sub(applied.0),
            durable: core.as_ref().map(|core| core.durable).unwrap_or_default(),
            last: core.as_ref().map(|core| core.last).unwrap_or_default(),
            log_start: core
                .as_ref()
                .map(|core| core.log_start.index)
                .unwrap_or_default(),
            snapshot: core
                .as_ref()
                .map(|core| core.snapshot.index)
                .unwrap_or_default(),
            configuration: view.configuration,
            members,
            tolerance: self.tolerance(),
            proposals_waiting: self.door.waiting_count(),
        }
    }
}

/// The protocol, while it runs.
pub(crate) fn raft_of(life: &Life) -> Option<&Raft> {
    match life {
        Life::Running(raft)
        | Life::Draining {
            raft: Some(raft), ..
        } => Some(raft),
        Life::Forming { .. }
        | Life::Draining { raft: None, .. }
        | Life::Closing
        | Life::Failed { .. } => None,
    }
}
