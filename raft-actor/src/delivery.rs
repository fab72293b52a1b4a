//! `Delivery`: applies what is committed, answers the proposers, feeds the subscribers.
//!
//! Invariants:
//! - What reaches it is committed, and durable on this node, and comes in the order of the log.
//! - A waiter is answered `Ok` when the entry of its own term at its own index is applied, and
//!   `Superseded` when another term's is: nothing else proves either.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use raft_core::{Commit, Entry, LogIndex, NodeId, Term};
use raft_net::{Answer, FrameEncoder, PeerSender};
use raft_storage::{LogReads, StorageError};
use tokio::sync::watch;

use crate::intake::send_answers;
use crate::message::{Start, Subscribe};
use crate::proposals::{Outcome, Waiter};
use crate::recent::Recent;
use crate::subscription::Subscription;
use crate::{Committed, NodeFailure, ProposeError, SubscribeError, Subscribed, UnknownCause};

/// Committed entries kept in memory for subscribers, in bytes.
const RECENT_BYTES_MAX: usize = 8 << 20;
/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(50);

/// Tells a node that a part of it cannot go on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct PartFailed(pub(crate) NodeFailure);

/// Proposals that a leader has appended: from `first` on, in `term`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Await {
    pub(crate) first: LogIndex,
    pub(crate) term: Term,
    pub(crate) waiters: Vec<Waiter>,
}

/// The log is committed further.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Apply(pub(crate) Vec<Commit>);

/// The node ends: whoever still waits is answered.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Finish;

/// See the [module](self).
pub(crate) struct Delivery {
    applied: watch::Sender<LogIndex>,
    recent: Rc<RefCell<Recent>>,
    reads: Addr<LogReads>,
    failed: Recipient<PartFailed>,
    peers: BTreeMap<NodeId, PeerSender>,
    encoder: FrameEncoder,
    /// In the order of their terms, and of their indexes within one.
    waiting: VecDeque<Run>,
    /// No deadline of a waiter is before this.
    next_deadline: Option<Instant>,
    subscriptions: Vec<tokio::task::JoinHandle<()>>,
    ended: bool,
}

/// Waiters for consecutive entries of one term; those whose time was up leave an empty place.
struct Run {
    first: LogIndex,
    term: Term,
    waiters: VecDeque<Option<Waiter>>,
}

impl Delivery {
    pub(crate) fn new(
        applied: watch::Sender<LogIndex>,
        reads: Addr<LogReads>,
        failed: Recipient<PartFailed>,
        peers: BTreeMap<NodeId, PeerSender>,
        encoder: FrameEncoder,
    ) -> Self {
        Self {
            applied,
            recent: Rc::new(RefCell::new(Recent::new(RECENT_BYTES_MAX))),
            reads,
            failed,
            peers,
            encoder,
            waiting: VecDeque::new(),
            next_deadline: None,
            subscriptions: Vec::new(),
            ended: false,
        }
    }

    /// Answers those who wait for this entry, and those whose place it has taken.
    fn settle(&mut self, entry: &Entry, told: &mut Told) {
        while let Some(run) = self.waiting.front_mut() {
            if run.term < entry.id.term {
                // An entry of a later term is committed at or before the rest of this run, so by log
                // matching nothing of the run can be committed any more.
                if let Some(run) = self.waiting.pop_front() {
                    for waiter in run.waiters.into_iter().flatten() {
                        told.add(waiter, Err(ProposeError::Superseded));
                    }
                }
                continue;
            }
            if run.term == entry.id.term && run.first == entry.id.index {
                if let Some(waiter) = run.waiters.pop_front().flatten() {
                    let (index, term) = (entry.id.index, entry.id.term);
                    told.add(
                        waiter,
                        Ok(Committed {
                            index,
                            term,
                            response: Bytes::new(),
                        }),
                    );
                }
                run.first = run.first.next();
                if run.waiters.is_empty() {
                    self.waiting.pop_front();
                }
            }
            return;
        }
    }

    /// Answers those whose time is up.
    fn sweep(&mut self, now: Instant) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let mut told = Told::default();
        self.next_deadline = None;
        for waiter in self
            .waiting
            .iter_mut()
            .flat_map(|run| run.waiters.iter_mut())
        {
            match waiter.as_ref().map(|waiter| waiter.deadline) {
                Some(deadline) if deadline <= now => {
                    if let Some(waiter) = waiter.take() {
                        told.add(waiter, Err(ProposeError::Unknown(UnknownCause::TimedOut)));
                    }
                }
                Some(deadline) => {
                    self.next_deadline = Some(
                        self.next_deadline
                            .map_or(deadline, |next| next.min(deadline)),
                    );
                }
                None => {}
            }
        }
        self.tell(told);
    }

    /// Sends peers the outcomes of what they forwarded. A peer that cannot be told stops waiting by itself.
    fn tell(&mut self, told: Told) {
        for (id, answers) in told.peers {
            if let Some(sender) = self.peers.get(&id) {
                send_answers(id, sender, &mut self.encoder, answers);
            }
        }
    }
}

/// What peers are to be told, gathered while one message is handled.
#[derive(Default)]
struct Told {
    peers: BTreeMap<NodeId, Vec<Answer>>,
}

impl Told {
    fn add(&mut self, waiter: Waiter, outcome: Outcome) {
        if let Some((peer, answer)) = waiter.answer(outcome) {
            self.peers.entry(peer).or_default().push(answer);
        }
    }
}

impl Actor for Delivery {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |delivery, _| delivery.sweep(Instant::now()));
    }
}

impl Handler<Await> for Delivery {
    type Result = ();

    fn handle(
        &mut self,
        Await {
            first,
            term,
            waiters,
        }: Await,
        _: &mut Self::Context,
    ) {
        let earliest = waiters.iter().map(|waiter| waiter.deadline).min();
        self.next_deadline = self.next_deadline.into_iter().chain(earliest).min();
        let waiters: VecDeque<_> = waiters.into_iter().map(Some).collect();
        if self.ended || waiters.is_empty() {
            return; // A dropped waiter is told that its outcome is unknown.
        }
        match self.waiting.back_mut() {
            Some(run) if run.term == term && run.first.0 + run.waiters.len() as u64 == first.0 => {
                run.waiters.extend(waiters);
            }
            _ => self.waiting.push_back(Run {
                first,
                term,
                waiters,
            }),
        }
    }
}

impl Handler<Apply> for Delivery {
    type Result = ();

    fn handle(&mut self, Apply(commits): Apply, _: &mut Self::Context) {
        let mut told = Told::default();
        let mut through = *self.applied.borrow();
        for commit in commits {
            if !self.waiting.is_empty() {
                for entry in commit.entries.iter() {
                    self.settle(entry, &mut told);
                }
            }
            self.recent.borrow_mut().extend(&commit.entries);
            through = through.max(commit.through);
        }
        self.applied.send_replace(through);
        self.tell(told);
        self.sweep(Instant::now());
    }
}

impl Handler<Subscribe> for Delivery {
    type Result = Result<Subscribed, SubscribeError>;

    fn handle(&mut self, message: Subscribe, ctx: &mut Self::Context) -> Self::Result {
        if self.ended {
            return Err(SubscribeError::NodeEnded);
        }
        let next = match message.from {
            Start::Index(LogIndex::ZERO) => return Err(SubscribeError::IndexZero),
            Start::Index(index) => index,
            Start::Now => self.applied.borrow().next(),
        };
        let subscription = Subscription {
            to: message.to,
            next,
            applied: self.applied.subscribe(),
            recent: Rc::clone(&self.recent),
            reads: self.reads.clone(),
        };
        let delivery = ctx.address();
        self.subscriptions.retain(|task| !task.is_finished());
        self.subscriptions.push(actix_rt::spawn(async move {
            if let Err(error) = subscription.run().await {
                // Once for each subscription; without a Delivery the node ends anyway.
                delivery.do_send(Unreadable(error));
            }
        }));
        Ok(Subscribed { next })
    }
}

/// A subscription could not read the log.
#[derive(Message)]
#[rtype(result = "()")]
struct Unreadable(StorageError);

impl Handler<Unreadable> for Delivery {
    type Result = ();

    fn handle(&mut self, Unreadable(error): Unreadable, _: &mut Self::Context) {
        self.failed.do_send(PartFailed(error.into()));
    }
}

impl Handler<Finish> for Delivery {
    type Result = ();

    fn handle(&mut self, _: Finish, ctx: &mut Self::Context) {
        self.ended = true;
        let mut told = Told::default();
        for waiter in self.waiting.drain(..).flat_map(|run| run.waiters).flatten() {
            told.add(waiter, Err(ProposeError::Unknown(UnknownCause::NodeEnded)));
        }
        self.tell(told);
        for task in self.subscriptions.drain(..) {
            task.abort();
        }
        ctx.stop();
    }
}

#[cfg(test)]
mod tests;
