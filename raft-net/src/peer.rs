//! The dialling side of a connection: one actor for each peer, which dials it, and again whenever
//! the connection is lost.
//!
//! Invariants:
//! - What is sent on one lane goes out in order (`lane.rs`). What is told is told of the main connection; the
//!   urgent one lives and ends below it.
//! - A connection that lived is dialled again at once, so that a dead process is told from a broken
//!   link within one round trip; anything else is dialled after a random, growing delay.
//! - A panic ends one connection and is reported as its loss; one while that is logged or told ends
//!   nothing. After a stop no task is left.

use std::cell::Cell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::FutureExt;
use raft_core::NodeId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::backoff::Backoff;
use crate::cut::Cut;
use crate::gate::Repeats;
use crate::lane::{LIVED, Lane, Outcome, keep_urgent};
use crate::local::Purpose;
use crate::queue::Queue;
use crate::random::random_u64;
use crate::{DialError, Ending, Limits, Local, PeerEvent, PeerSender};

/// The longest pause, in microseconds, before a peer that has just dialled us is dialled.
const WAKE_MICROS: u64 = 10_000;
/// Dials one peer and sends it what its [`PeerSender`] is given.
pub struct PeerConnection {
    driver: Option<Driver>,
    stop: CancellationToken,
}

impl PeerConnection {
    /// Starts dialling `peer` on the current arbiter, at [`Local::addresses`] by turns until it answers at one. They
    /// are looked up at each dial, and names in them resolved.
    ///
    /// It goes on until [`PeerSender::stop`], or until the last sender is dropped. What happens is
    /// told to `events`; when its actor is gone, nothing is told and all goes on.
    #[must_use]
    pub fn start(
        peer: NodeId,
        local: Local,
        limits: Limits,
        events: Recipient<PeerEvent>,
    ) -> PeerSender {
        let main = Arc::new(Queue::new(peer, &limits));
        let urgent = Arc::new(Queue::urgent(peer, &limits));
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let lane = Lane {
            purpose: Purpose::Main,
            peer,
            local,
            limits,
            queue: Arc::clone(&main),
        };
        let driver = Driver {
            address: String::new(),
            met_at: String::new(),
            urgent: Lane {
                purpose: Purpose::Urgent,
                queue: Arc::clone(&urgent),
                ..lane.clone()
            },
            main: lane,
            events,
            stop: stop.clone(),
            ended: ended.clone(),
            connected_at: Cell::new(None),
        };
        let actor = Self {
            driver: Some(driver),
            stop: stop.clone(),
        };
        Context::new().run(actor);
        PeerSender::new(main, urgent, stop, ended)
    }
}

impl Actor for PeerConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(driver) = self.driver.take() {
            let span = tracing::info_span!("dial", node = %driver.main.local.node(), peer = %driver.main.peer);
            let address = ctx.address();
            let task = async move {
                driver.drive().await;
                address.do_send(Ended);
            };
            actix_rt::spawn(task.instrument(span));
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stop.cancel();
    }
}

/// The driver is done.
#[derive(Message)]
#[rtype(result = "()")]
struct Ended;

impl Handler<Ended> for PeerConnection {
    type Result = ();

    fn handle(&mut self, _: Ended, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Whether the host at the dialled address is there, and says that nobody listens.
fn is_refused(error: &DialError) -> bool {
    let DialError::Connect { source, .. } = error else {
        return false;
    };
    source.kind() == io::ErrorKind::ConnectionRefused
}

/// Runs `work`; none if it panics.
async fn survive<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}

struct Driver {
    /// Where it is dialled now, or was last; empty while no address is known.
    address: String,
    /// Where it was connected last.
    met_at: String,
    main: Lane,
    urgent: Lane,
    events: Recipient<PeerEvent>,
    stop: CancellationToken,
    ended: CancellationToken,
    /// Since when the dial under way is a connection.
    connected_at: Cell<Option<Instant>>,
}

impl Driver {
    async fn drive(mut self) {
        let _ended = self.ended.clone().drop_guard();
        let waker = self.main.local.waker(self.main.peer);
        let mut backoff = Backoff::new(&self.main.limits);
        let mut repeats = Repeats::default();
        loop {
            if self.connected_at.take().is_none() {
                self.address = self.next_address();
            }
            if !self.address.is_empty() {
                self.main.queue.dialled(&self.address);
            }
            let cut = Cut::below(&self.stop);
            let outcome = survive(self.attempt(&cut)).await;
            if self.stop.is_cancelled() {
                return;
            }
            let outcome = outcome.unwrap_or(Outcome::Lost(Ending::Panicked));
            // Whatever panics here (a log's subscriber may), the owner is told, and the dialling
            // goes on.
            survive(async { self.log(&outcome, &mut repeats) }).await;
            if survive(self.tell(outcome)).await.is_none() {
                survive(self.tell(Outcome::Lost(Ending::Panicked))).await;
            }
            let mut delay = backoff.next();
            if let Some(at) = self.connected_at.get() {
                self.met_at.clone_from(&self.address);
                if at.elapsed() > LIVED {
                    backoff.reset();
                    delay = Duration::ZERO;
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
                () = waker.notified() => {
                    // The peer is there. Not quite at once: two nodes that cannot keep their
                    // connections must not drive each other in a circle.
                    let pause = Duration::from_micros(random_u64() % WAKE_MICROS);
                    tokio::time::sleep(delay.min(pause)).await;
                }
            }
        }
    }

    /// Where the peer is tried next, when it was not found where it was dialled: at the address behind that, and
    /// behind the last one at the first again.
    fn next_address(&self) -> String {
        let mut all = self.main.local.addresses(self.main.peer);
        let last = all.iter().position(|address| *address == self.address);
        let next = last.map_or(0, |last| (last + 1) % all.len());
        if all.is_empty() {
            return String::new();
        }
        all.swap_remove(next)
    }

    async fn attempt(&self, cut: &Cut) -> Outcome {
        let main = &self.main;
        if self.address.is_empty() {
            return Outcome::Unreachable(DialError::NoAddress);
        }
        let mut greeted = match main.connect(&self.address, cut).await {
            Ok(greeted) => greeted,
            Err(outcome) => return outcome,
        };
        let hello = greeted.hello.clone();
        let opened = main.open(&greeted);
        self.connected_at.set(Some(Instant::now()));
        tracing::info!(address = %self.address, incarnation = %hello.incarnation, starts = hello.starts, "connected");
        let urgent = keep_urgent(self.urgent.clone(), self.address.clone(), self.stop.clone());
        let urgent = AbortOnDropHandle::new(actix_rt::spawn(urgent.in_current_span()));
        let peer = main.peer;
        let connection = async {
            let connected = PeerEvent::Connected { peer, hello };
            // Without a receiver of events there is nobody to tell, and the work goes on.
            let _ = self.events.send(connected).await;
            Err::<(), _>(main.run(&mut greeted).await)
        };
        let ending = cut.guard(connection).await.err().unwrap_or(Ending::Stopped);
        drop((opened, greeted));
        urgent.abort();
        // Aborted, or it has panicked: either way nothing of it is left.
        let _ = urgent.await;
        Outcome::Lost(ending)
    }

    async fn tell(&self, outcome: Outcome) {
        #[cfg(test)]
        crate::tests::panic_if_asked(crate::tests::Panic::Tell);
        let peer = self.main.peer;
        let event = match outcome {
            Outcome::Refused(reason) => {
                self.main.queue.refused();
                PeerEvent::Refused { peer, reason }
            }
            Outcome::Unreachable(reason) => PeerEvent::Unreachable {
                peer,
                refused: self.address == self.met_at && is_refused(&reason),
                reason,
            },
            Outcome::Lost(reason) if self.connected_at.get().is_some() => PeerEvent::Lost {
                peer,
                reset: reason.is_reset(),
                reason,
            },
            Outcome::Lost(source) => PeerEvent::Unreachable {
                peer,
                refused: false,
                reason: DialError::Handshake {
                    address: self.address.clone(),
                    source,
                },
            },
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = self.events.send(event) => {}
        }
    }

    fn log(&self, outcome: &Outcome, repeats: &mut Repeats) {
        #[cfg(test)]
        crate::tests::panic_if_asked(crate::tests::Panic::Log);
        let address = &self.address;
        let now = Instant::now();
        match outcome {
            Outcome::Unreachable(error) => {
                if let Some(suppressed) = repeats.pass(now, error.to_string()) {
                    tracing::info!(%error, suppressed, "cannot reach the peer");
                }
            }
            Outcome::Refused(reason) => {
                if let Some(suppressed) = repeats.pass(now, reason.to_string()) {
                    tracing::warn!(%address, %reason, suppressed, "refused");
                }
            }
            Outcome::Lost(ending @ Ending::Panicked) => {
                tracing::error!(%address, %ending, "connection lost");
            }
            Outcome::Lost(ending) => {
                repeats.reset();
                tracing::warn!(%address, %ending, "connection lost");
            }
        }
    }
}
