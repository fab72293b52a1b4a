//! What [`Delivery`] does with each message.

use std::rc::Rc;

use actix::prelude::*;
use raft_core::LogIndex;

use super::*;

impl Actor for Delivery {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |delivery, ctx| {
            delivery.sweep();
            if delivery.is_left_alone() {
                ctx.stop();
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        for subscription in self.subscriptions.drain(..) {
            subscription.abort();
        }
        if self.thread == Thread::Own {
            Arbiter::current().stop();
        }
    }
}

impl Handler<Stop> for Delivery {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Await> for Delivery {
    type Result = ();

    fn handle(&mut self, message: Await, _: &mut Self::Context) {
        if !self.ended {
            // Else they are dropped, and told that their outcome is unknown.
            self.waiting
                .add(message.first, message.term, message.proposals);
        }
    }
}

impl Handler<Apply> for Delivery {
    type Result = ();

    fn handle(&mut self, message: Apply, ctx: &mut Self::Context) {
        match message {
            Apply::Commits(commits) => {
                for commit in commits {
                    self.target = self.target.max(commit.through);
                    if !commit.entries.is_empty() {
                        self.ready.push_back(commit.entries);
                    }
                }
            }
            Apply::Restore(meta) => self.restore(&meta),
        }
        self.go_on(ctx);
    }
}

impl Handler<GoOn> for Delivery {
    type Result = ();

    fn handle(&mut self, _: GoOn, ctx: &mut Self::Context) {
        self.going_on = false;
        self.go_on(ctx);
    }
}

impl Handler<Office> for Delivery {
    type Result = ();

    fn handle(&mut self, office: Office, _: &mut Self::Context) {
        if self.office.leads && !office.leads {
            // The next leader may have these or not: the node sends them again, to be applied once.
            let mut answers = Answers::new();
            for proposal in self.waiting.take(Proposal::may_be_sent_again) {
                answers.unsure(proposal, UnknownCause::NodeEnded);
            }
            self.tell(answers);
        }
        self.office = office;
    }
}

impl Handler<Circle> for Delivery {
    type Result = ();

    fn handle(&mut self, Circle { senders, voters }: Circle, _: &mut Self::Context) {
        (self.peers, self.voters) = (senders, voters);
    }
}

impl Handler<LogBegins> for Delivery {
    type Result = ();

    fn handle(&mut self, LogBegins { first, snapshot }: LogBegins, _: &mut Self::Context) {
        self.begins(first, snapshot);
    }
}

impl Handler<PeerDigest> for Delivery {
    type Result = ();

    fn handle(&mut self, said: PeerDigest, _: &mut Self::Context) {
        if !self.ended {
            self.digests
                .heard(said.from, said.index, said.digest, said.announced);
            self.compare_digests();
        }
    }
}

impl Handler<CaptureState> for Delivery {
    type Result = ();

    fn handle(&mut self, _: CaptureState, _: &mut Self::Context) {
        if self.ended {
            return;
        }
        let captured = self.replica.borrow_mut().capture();
        match captured {
            Ok(captured) => self.node.do_send(Told::Captured(Box::new(captured))),
            Err(failure) => self.fail(failure),
        }
    }
}

impl Handler<ReadsReady> for Delivery {
    type Result = ();

    fn handle(&mut self, ready: ReadsReady, _: &mut Self::Context) {
        if self.ended {
            return; // Dropped reads are told that the node has ended.
        }
        self.waiting_reads.add(ready);
        self.waiting_reads
            .answer(&self.replica.borrow(), &self.node);
    }
}

impl Handler<Subscribe> for Delivery {
    type Result = Result<Subscribed, SubscribeError>;

    fn handle(&mut self, message: Subscribe, ctx: &mut Self::Context) -> Self::Result {
        if self.ended {
            return Err(SubscribeError::NodeEnded);
        }
        let (next, cursor) = match message.from {
            Start::Index(LogIndex::ZERO) => return Err(SubscribeError::IndexZero),
            Start::Index(index) => (index, None),
            Start::Now => (self.applied().next(), None),
            Start::Cursor(name) => {
                let cursor = self.cursors.take(&name)?;
                (cursor.next(), Some(cursor))
            }
        };
        let (first, _) = self.log.begins.get();
        if next < first && message.compacted.is_none() {
            return Err(SubscribeError::Compacted { first });
        }
        let ending = Ending::default();
        self.log.subscriptions.update(|count| count + 1);
        let subscription = Subscription {
            to: message.to,
            compacted: message.compacted,
            next,
            replays_through: self.applied().max(self.log.at_start),
            cursor,
            progress: self.progress.subscribe(),
            log: Rc::clone(&self.log),
            ending: ending.clone(),
            handed: None,
            stands_at: Rc::new(Cell::new(next.prev())),
        };
        self.positions.push(Rc::downgrade(&subscription.stands_at));
        let delivery = ctx.address();
        self.subscriptions.retain(|task| !task.is_finished());
        self.subscriptions.push(actix_rt::spawn(async move {
            if let Err(error) = subscription.run().await {
                // Once for each subscription; without a Delivery the node ends anyway.
                delivery.do_send(Unreadable(error));
            }
        }));
        Ok(Subscribed { next, ending })
    }
}

impl Handler<ForgetCursor> for Delivery {
    type Result = ResponseFuture<Result<(), SubscribeError>>;

    fn handle(&mut self, ForgetCursor(name): ForgetCursor, _: &mut Self::Context) -> Self::Result {
        self.cursors.forget(name)
    }
}

/// A subscription could not read the log.
#[derive(Message)]
#[rtype(result = "()")]
struct Unreadable(NodeFailure);

impl Handler<Unreadable> for Delivery {
    type Result = ();

    fn handle(&mut self, Unreadable(failure): Unreadable, _: &mut Self::Context) {
        self.fail(failure);
    }
}

impl Handler<Finish> for Delivery {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Finish, _: &mut Self::Context) -> Self::Result {
        self.ended = true;
        let mut answers = Answers::new();
        for proposal in self.waiting.take(|_| true) {
            let error = proposal.unknown(UnknownCause::NodeEnded);
            answers.give(proposal, Err(error));
        }
        self.tell(answers);
        self.waiting_reads = Reads::default();
        for task in self.subscriptions.drain(..) {
            task.abort();
        }
        let kept = self.cursors.keep_all().into_actor(self);
        Box::pin(kept.map(|(), _, ctx| ctx.stop()))
    }
}
