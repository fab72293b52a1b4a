//! What a message costs that stays on its thread, or leaves it.
//!
//! Each loop runs within an actor system, and ends when everything that was sent has been handled.

use actix::prelude::*;
use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

/// Counts what it is told.
#[derive(Default)]
struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

/// One thing, or many at once.
#[derive(Message)]
#[rtype(result = "()")]
struct Told(Vec<u64>);

/// Asks how many things it was told.
#[derive(Message)]
#[rtype(result = "u64")]
struct Count;

/// A question whose answer goes another way.
#[derive(Message)]
#[rtype(result = "()")]
struct Ask(oneshot::Sender<u64>);

impl Handler<Told> for Counter {
    type Result = ();

    fn handle(&mut self, Told(things): Told, _: &mut Self::Context) {
        self.0 += things.len() as u64;
    }
}

impl Handler<Count> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> u64 {
        self.0
    }
}

impl Handler<Ask> for Counter {
    type Result = ();

    fn handle(&mut self, Ask(answer): Ask, _: &mut Self::Context) {
        self.0 += 1;
        // Who does not wait any more needs no answer.
        let _ = answer.send(self.0);
    }
}

/// An actor to talk to, on this thread or on one of its own.
pub struct Mailbox {
    addr: Addr<Counter>,
    arbiter: Option<Arbiter>,
}

impl Mailbox {
    /// One on this thread. Needs a running actor system, as all else here.
    #[must_use]
    pub fn here() -> Self {
        Self {
            addr: Counter::default().start(),
            arbiter: None,
        }
    }

    /// One on a thread of its own, which ends with it.
    #[must_use]
    pub fn across() -> Self {
        let arbiter = Arbiter::new();
        Self {
            addr: Counter::start_in_arbiter(&arbiter.handle(), |_| Counter::default()),
            arbiter: Some(arbiter),
        }
    }

    /// So many messages of `size` things each, with `do_send`; 1,024 of them at most are on their way.
    ///
    /// # Errors
    /// The actor is gone.
    pub async fn tell(&self, messages: usize, size: usize) -> Result<()> {
        let mut left = messages;
        while left > 0 {
            let now = left.min(1024);
            for _ in 0..now {
                self.addr.do_send(Told(vec![7; size]));
            }
            self.addr.send(Count).await.context("the actor")?;
            left -= now;
        }
        Ok(())
    }

    /// So many questions with `send`, one after the other.
    ///
    /// # Errors
    /// The actor is gone.
    pub async fn round_trips(&self, questions: usize) -> Result<()> {
        for _ in 0..questions {
            self.addr.send(Count).await.context("the actor")?;
        }
        Ok(())
    }

    /// So many questions, 64 at a time, that are told with `do_send` and answered by oneshots.
    ///
    /// # Errors
    /// The actor is gone.
    pub async fn oneshots(&self, questions: usize) -> Result<()> {
        let mut left = questions;
        while left > 0 {
            let now = left.min(64);
            let ask = |_| {
                let (answer, answered) = oneshot::channel();
                self.addr.do_send(Ask(answer));
                answered
            };
            let answers: Vec<_> = (0..now).map(ask).collect();
            for answer in answers {
                answer.await.context("the actor")?;
            }
            left -= now;
        }
        Ok(())
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        if let Some(arbiter) = self.arbiter.take() {
            arbiter.stop();
            // What it panicked with, it has said itself.
            let _ = arbiter.join();
        }
    }
}
