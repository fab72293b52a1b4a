//! Proposals that go on while something else happens.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tests::api::client::propose;
use tests::api::cluster::Replicas;
use tests::api::machine::Command;
use tests::api::wire::Name;

/// How proposers propose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) threads: usize,
    /// Between an answer and the next proposal of a thread.
    pub(crate) pause: Duration,
    /// The bytes of a proposal.
    pub(crate) bytes: usize,
}

/// Of one stretch of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) answered: usize,
    /// Of the proposals that were committed, the median latency in microseconds.
    pub(crate) median_micros: u64,
    /// Proposals that were not answered with success.
    pub(crate) failed: u64,
}

/// Proposes at `nodes` while `while_it_goes` runs.
pub(crate) fn proposing<T>(
    replicas: &Replicas,
    nodes: &[u64],
    pace: Pace,
    while_it_goes: impl FnOnce() -> T,
) -> (T, Seen) {
    let (stop, failed, took) = (
        AtomicBool::new(false),
        AtomicU64::new(0),
        Mutex::new(Vec::new()),
    );
    let (stopped, failures, times) = (&stop, &failed, &took);
    let done = thread::scope(|scope| {
        for thread_number in 0..pace.threads {
            scope.spawn(move || {
                let link = replicas.link(nodes[thread_number % nodes.len()]);
                let command = Command::Note("x".repeat(pace.bytes));
                while !stopped.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    match propose(link, &command, Name::Node, Duration::from_secs(5)) {
                        Ok(_) => times
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(started.elapsed()),
                        Err(_) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_millis(5));
                        }
                    }
                    thread::sleep(pace.pause);
                }
            });
        }
        // Whatever becomes of it, the proposers end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(while_it_goes));
        stop.store(true, Ordering::Relaxed);
        done
    });
    let mut took = took.into_inner().unwrap_or_else(PoisonError::into_inner);
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or(Duration::MAX);
    let seen = Seen {
        answered: took.len(),
        median_micros: u64::try_from(median.as_micros()).unwrap_or(u64::MAX),
        failed: failed.into_inner(),
    };
    match done {
        Ok(done) => (done, seen),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
