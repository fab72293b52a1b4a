//! One turn: inputs to the protocol, its effects to the storage, the peers and [`Delivery`].
//!
//! [`Delivery`]: crate::delivery::Delivery

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use actix::prelude::*;
use raft_core::{
    AppendEntries, ClusterId, Commit, Effect, EntryKind, Envelope, Input, LogIndex, Message,
    NodeId, OpenMessage, Raft, ReadFailure, Rejection, RequestId, Role, StepDown, Term,
};
use raft_net::Frame;
use raft_storage::{ReadEntries, StorageError, Write};
use tokio::sync::Semaphore;

use crate::NodeFailure;
use crate::birth::Birth;
use crate::boot_time::boot_time;
use crate::clock::Passed;
use crate::delivery::{Apply, Office, PeerDigest};
use crate::door::Knock;
use crate::ledger::TIME_MAX_MS;
use crate::node::{EntriesRead, Life, Node};
use crate::observe::raft_of;
use crate::snapshot::Expected;

/// What a step said of what somebody asked for.
pub(crate) enum Proposed {
    Appended {
        first: LogIndex,
        term: Term,
        count: usize,
    },
    Rejected(Rejection),
}

impl Node {
    /// Hands one input to the protocol, behind what the disk has said, and carries out what it asks for. What it says of a
    /// proposal, a change, a handover or a candidacy is given back.
    pub(crate) fn step(&mut self, input: Input, ctx: &mut Context<Self>) -> Option<Proposed> {
        self.hear_disk(ctx);
        self.take_in(input, ctx)
    }

    /// As [`step`](Self::step), without a look at what the disk has said: for those who go by what the protocol said just
    /// now, and to whom the end of the node in between would look like an answer.
    pub(crate) fn take_in(&mut self, input: Input, ctx: &mut Context<Self>) -> Option<Proposed> {
        let (Life::Running(raft)
        | Life::Draining {
            raft: Some(raft), ..
        }) = &mut self.life
        else {
            return None;
        };
        let asks = matches!(
            input,
            Input::Propose(_)
                | Input::TransferLeadership { .. }
                | Input::ChangeMembership(_)
                | Input::Campaign
        );
        let mut took = match &input {
            Input::Received(envelope) => Some(envelope.from),
            _ => None,
        };
        let mut proposed = None;
        for effect in raft.step(input) {
            match effect {
                Effect::Persist(persist) => {
                    self.snapshotting
                        .is_named_by(&persist, self.lag.applied_bytes());
                    self.persists.push(persist);
                }
                // Nobody waits for it as those do who proposed what is committed.
                Effect::Send {
                    to,
                    message: message @ OpenMessage::CommitAdvanced(_),
                } => self.not_urgent.push((to, message)),
                Effect::Send { to, message } => {
                    match &message {
                        OpenMessage::AppendEntries(append) => self.say_with(to, append),
                        // Whoever reads waits for it.
                        OpenMessage::ReadIndexResponse(_) => self.say_now(to),
                        _ => {}
                    }
                    self.send(to, message.into());
                }
                Effect::Commit(commit) => self.committed(commit, ctx),
                Effect::Read {
                    request,
                    from,
                    through,
                    bytes_max,
                } => {
                    self.read(
                        request,
                        ReadEntries {
                            from,
                            through,
                            bytes_max,
                        },
                        ctx,
                    );
                }
                Effect::Appended { first, term, count } if asks => {
                    proposed = Some(Proposed::Appended { first, term, count });
                }
                Effect::Rejected(rejection) if asks => {
                    proposed = Some(Proposed::Rejected(rejection));
                }
                Effect::ConfigurationChanged(configuration) => {
                    tracing::info!("the cluster is now: {configuration}");
                    self.following.changed = true;
                }
                Effect::SteppedDown(why) => self.stepped_down(why),
                Effect::RoleChanged { role, term, leader } => {
                    self.role_changed(role, term, leader, ctx)
                }
                // It said so alone, and has done nothing else.
                Effect::Ignored { from, reason } => {
                    took = None;
                    self.refused.message(from, reason);
                }
                Effect::Halt(violation) => self.fail(violation.into(), ctx),
                Effect::Appended { .. } | Effect::Rejected(_) => {
                    self.fail(NodeFailure::NotAsked("the outcome of a request"), ctx);
                }
                Effect::ReadReady(ready) => self.read_ready(ready),
                Effect::ReadFailed { reads, reason } => self.read_failed(reads, reason),
                Effect::TransferEnded { to } => self.transfer_ended(to),
                Effect::SendSnapshot { to, message } => self.send_snapshot(to, message, ctx),
                Effect::Restore(meta) => self.to_apply.push(Apply::Restore(meta)),
            }
        }
        if let Some(from) = took {
            self.refused.taken(from);
        }
        proposed
    }

    /// Takes in what a peer sent.
    pub(crate) fn receive(&mut self, from: NodeId, frame: Frame, ctx: &mut Context<Self>) {
        match frame {
            Frame::Raft(message) => {
                let envelope = Envelope {
                    from,
                    to: self.id,
                    message,
                };
                self.step(Input::Received(envelope), ctx);
            }
            Frame::Forward(proposals) => self.forwarded_here(from, proposals),
            Frame::Answers(answers) => self.answered(from, answers),
            Frame::Digest {
                index,
                digest,
                announced,
            } => self.digest_said(from, index, digest, announced),
            Frame::Manage { request, data } => self.manage_for(from, request, &data, ctx),
            Frame::Managed { request, data } => self.managed(from, request, &data, ctx),
        }
    }

    /// Hands on what a peer says its state came to. Only the leader asks for that of all, and of no peer are there more
    /// on their way than it takes: what is missed is said again of a later entry.
    fn digest_said(&self, from: NodeId, index: LogIndex, digest: u128, announced: bool) {
        let leader = raft_of(&self.life).and_then(Raft::leader);
        if announced && leader != Some(from) {
            return;
        }
        let digests = self.peers.get(&from).map(|peer| Arc::clone(&peer.digests));
        if let Some(Ok(permit)) = digests.map(Semaphore::try_acquire_owned) {
            self.parts.delivery.do_send(PeerDigest {
                from,
                index,
                digest,
                announced,
                _permit: permit,
            });
        }
    }

    /// What was left for the end of the turn, or until more comes, `append` says as well.
    fn say_with(&mut self, peer: NodeId, append: &AppendEntries) {
        self.not_urgent.retain(|(to, message)| {
            let covered = matches!(message, OpenMessage::CommitAdvanced(told)
                if (told.term, told.commit) <= (append.term, append.commit));
            *to != peer || !covered
        });
    }

    /// Says now what was left for later.
    fn say_now(&mut self, peer: NodeId) {
        let left = self.not_urgent.extract_if(.., |(to, _)| *to == peer);
        for (to, message) in left.collect::<Vec<_>>() {
            self.send(to, message.into());
        }
    }

    /// Whether this node leads, and does not mean to stop.
    fn stays_leader(&self) -> bool {
        let leads = matches!(&self.life, Life::Running(raft) if raft.role() == Role::Leader);
        leads && !self.leaving.is_wanted()
    }

    /// Sends a message of the protocol. One that cannot be sent is lost, which the protocol expects.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        if !peer.connected {
            return;
        }
        // A follower has more to do with entries than this node's own disk, and is to begin first. What follows in the same
        // turn is gathered.
        let now = matches!(message, Message::Open(OpenMessage::AppendEntries(_)))
            && std::mem::replace(&mut peer.fed_in, self.turn) != self.turn;
        match self.encoder.encode_for(&peer.sender, Frame::Raft(message)) {
            // The sender counts what it drops.
            Ok(frame) if now => drop(peer.sender.try_send_now(frame)),
            Ok(frame) => drop(peer.sender.try_send(frame)),
            Err(error) => tracing::error!(peer = %to, "cannot encode a message: {error}"),
        }
    }

    /// Ends a turn: hands the clock's ticks to the protocol, and all that was gathered to the others.
    pub(crate) fn end_turn(&mut self, ctx: &mut Context<Self>) {
        self.turn += 1;
        self.forget_lost(ctx);
        let now = boot_time();
        let Passed {
            ticks,
            paused_ticks,
        } = self.clock.passed(now);
        if paused_ticks > 0 {
            let ticks = u64::from(paused_ticks);
            self.step(Input::Paused { ticks }, ctx);
        }
        let has_leader = raft_of(&self.life).is_some_and(|raft| raft.leader().is_some());
        match self.listens {
            Some(_) if has_leader => self.listens = None,
            // It is no time in which a leader was missing. What this node slept through it did not listen.
            Some(left) if ticks < left => {
                self.listens = Some(left - ticks);
                let ticks = u64::from(ticks);
                self.step(Input::Paused { ticks }, ctx);
            }
            Some(_) => {
                self.listens = None;
                self.step(Input::Campaign, ctx);
            }
            None => {
                for _ in 0..ticks {
                    self.step(Input::Tick, ctx);
                }
            }
        }
        self.tend_leaving(ctx);
        self.tend_requests(ctx);
        self.tend_changes(ctx);
        self.follow_members();
        self.remember_committed();
        self.expect();
        if matches!(self.life, Life::Closing | Life::Failed { .. }) {
            self.persists.clear();
            self.to_apply.clear();
        }
        if !self.persists.is_empty() {
            self.observer.writing(&self.persists);
            self.parts
                .storage
                .do_send(Write(std::mem::take(&mut self.persists)));
        }
        self.report_steps();
        self.keep_rhythm(ctx);
        for apply in std::mem::take(&mut self.to_apply) {
            self.parts.delivery.do_send(apply);
        }
        // Behind that: who was sent something last has its turn last. And not at all, if the next entries are about to say
        // it too.
        if !self.intake.rhythm.expects_more(Instant::now()) || !self.stays_leader() {
            for (to, message) in std::mem::take(&mut self.not_urgent) {
                self.send(to, message.into());
            }
        }
        self.await_disk(ctx);
        self.door.set_lagging(self.is_lagging());
        self.observe(now, ctx);
    }

    /// Tells the threads that take snapshots in what to expect.
    fn expect(&mut self) {
        let Life::Running(raft) = &self.life else {
            return;
        };
        let expected = Expected {
            term: raft.term(),
            leader: raft.leader(),
            commit: raft.commit(),
            cluster: self.cluster,
        };
        // Nothing panics while it holds the lock.
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = expected;
    }

    /// Whether this node leads, and what is committed waits too long to be applied.
    pub(crate) fn is_lagging(&self) -> bool {
        let leads = matches!(&self.life, Life::Running(raft) if raft.role() == Role::Leader);
        leads && (self.lag.is_full() || self.left_on_disk > self.progress.borrow().index)
    }

    /// The log's time, for what this leader appends now: the time that there was a leader, as leaders count it.
    pub(crate) fn log_time_ms(&self) -> u64 {
        let applied = self.progress.borrow().time_ms;
        let led = self.leads_since.map_or(0, |(before, since)| {
            before.saturating_add(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
        });
        applied.max(led).min(TIME_MAX_MS)
    }

    fn committed(&mut self, mut commit: Commit, ctx: &mut Context<Self>) {
        if self.cluster.is_none() {
            match commit.entries.first() {
                Some(entry) if entry.id.index == LogIndex(1) => self.born(&entry.clone(), ctx),
                _ => self.read_birth(ctx),
            }
        }
        if self.lag.is_full() {
            commit.entries = [].into();
            self.left_on_disk = commit.through;
        } else {
            self.lag.handed_over(&commit.entries);
        }
        match self.to_apply.last_mut() {
            Some(Apply::Commits(commits)) => commits.push(commit),
            _ => self.to_apply.push(Apply::Commits(vec![commit])),
        }
    }

    /// The first entry of the log is committed: it says which cluster this is.
    pub(crate) fn born(&mut self, entry: &raft_core::Entry, ctx: &mut Context<Self>) {
        let birth = (entry.kind == EntryKind::Birth)
            .then(|| Birth::decode(&entry.data))
            .flatten();
        let Some(Birth { cluster, members }) = birth else {
            return self.fail(NodeFailure::Birth(entry.id.index), ctx);
        };
        if self.following.known.folders() != members {
            return self.fail(NodeFailure::OtherBirth { cluster }, ctx);
        }
        tracing::info!(%cluster, nodes = members.len(), "the cluster is born");
        self.cluster = Some(cluster);
        self.local.set_cluster(cluster);
        self.record(None, Some(cluster), ctx, |_, _| {});
    }

    /// A snapshot said which cluster it is of. The first entry, which says it too, may be gone.
    pub(crate) fn snapshot_of(&mut self, cluster: ClusterId, ctx: &mut Context<Self>) {
        match self.cluster {
            None => {
                self.cluster = Some(cluster);
                self.local.set_cluster(cluster);
                self.record(None, Some(cluster), ctx, |_, _| {});
            }
            Some(own) if own != cluster => self.fail(NodeFailure::OtherBirth { cluster }, ctx),
            Some(_) => {}
        }
    }

    /// This run of the node did not see the first entry: it was committed before.
    fn read_birth(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.reading_birth, true) {
            return;
        }
        let read = ReadEntries {
            from: LogIndex(1),
            through: LogIndex(1),
            bytes_max: 1,
        };
        let sent = self.reads.send(read).into_actor(self);
        ctx.spawn(sent.map(|result, node, ctx| match result {
            Ok(Ok(entries)) if !entries.is_empty() => node.born(&entries[0].clone(), ctx),
            // It is gone; the snapshot that stands for it says it.
            Ok(Err(StorageError::Compacted { .. } | StorageError::Closed)) => {}
            Ok(Err(error)) => node.fail(error.into(), ctx),
            _ => {}
        }));
    }

    fn read(&mut self, request: RequestId, read: ReadEntries, ctx: &mut Context<Self>) {
        let (sent, node) = (self.reads.send(read), ctx.address());
        actix_rt::spawn(async move {
            let result = match sent.await {
                Ok(Err(StorageError::Closed)) | Err(_) => return, // The node ends.
                Ok(result) => result.map_err(|error| match error {
                    StorageError::Compacted { .. } => ReadFailure::Compacted,
                    error => ReadFailure::Failed(error.to_string()),
                }),
            };
            node.do_send(EntriesRead { request, result });
        });
    }

    /// This node led, and leads no more. That somebody else was elected is an ordinary thing; everything
    /// else is for the operator, who learns here that a disk is stuck.
    fn stepped_down(&self, why: StepDown) {
        let node = self.id;
        match why {
            StepDown::HigherTerm => tracing::info!(%node, "leads no more: {why}"),
            StepDown::NoQuorum | StepDown::StuckDisk | StepDown::Removed => {
                tracing::warn!(%node, "leads no more: {why}");
            }
        }
    }

    fn role_changed(
        &mut self,
        role: Role,
        term: Term,
        leader: Option<NodeId>,
        ctx: &mut Context<Self>,
    ) {
        match leader {
            Some(leader) if leader == self.id => tracing::info!(%term, "leads"),
            Some(leader) => tracing::info!(%term, "follows node {leader}"),
            None => tracing::info!(%term, %role, "has no leader"),
        }
        self.took_part |= leader.is_some();
        let leads = leader == Some(self.id);
        self.leads_since = leads.then(|| (self.log_time_ms(), Instant::now()));
        if matches!(self.life, Life::Running(_)) {
            self.parts.delivery.do_send(Office { leads });
        }
        self.intake.leader_changed(leader);
        if leader.is_some() {
            ctx.notify(Knock);
        }
    }
}
