//! The closed loop: each client proposes, waits for the commit, and proposes again.
//!
//! Clients run as tasks on threads of their own, as many as there are processors, and share one histogram for each
//! thread: memory does not grow with the number of clients.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actix::Addr;
use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use hdrhistogram::Histogram;
use raft_actor::{Propose, RaftActor};

use crate::protocol::{Load, Measured};

const WARM_UP: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

/// Latencies from 1 µs to two minutes, with three digits.
fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 120_000_000, 3).context("a histogram")
}

/// What the clients of one thread saw.
struct Seen {
    latencies: Histogram<u64>,
    commits_in_all: u64,
    errors: u64,
    first_error: Option<String>,
}

/// Runs `load` and blocks until it is over; `opened` and `closed` are called at the window's two ends.
pub(crate) fn measure(
    raft: &Addr<RaftActor>,
    load: Load,
    opened: impl FnOnce(),
    closed: impl FnOnce(),
) -> Result<Measured> {
    let phase = Arc::new(AtomicU8::new(WARM_UP));
    let count = thread::available_parallelism()
        .map_or(2, usize::from)
        .min(load.clients)
        .max(1);
    let mut threads = Vec::new();
    for number in 0..count {
        let (raft, phase) = (raft.clone(), Arc::clone(&phase));
        let clients = load.clients / count + usize::from(number < load.clients % count);
        let thread = thread::Builder::new().name(format!("clients-{number}"));
        threads
            .push(thread.spawn(move || clients_of_thread(&raft, clients, load.payload, &phase))?);
    }
    thread::sleep(Duration::from_millis(load.warm_up_ms));
    opened();
    let start = Instant::now();
    phase.store(OPEN, Ordering::Relaxed);
    thread::sleep(Duration::from_millis(load.window_ms));
    phase.store(CLOSED, Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    closed();

    let mut latencies = histogram()?;
    let (mut commits_in_all, mut errors, mut first_error) = (0, 0, None);
    for thread in threads {
        let seen = thread
            .join()
            .map_err(|_| anyhow!("a thread of clients panicked"))??;
        latencies
            .add(&seen.latencies)
            .context("histograms of the same bounds")?;
        commits_in_all += seen.commits_in_all;
        errors += seen.errors;
        first_error = first_error.or(seen.first_error);
    }
    Ok(Measured {
        commits: latencies.len(),
        commits_in_all,
        seconds,
        median_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
        max_us: latencies.max(),
        errors,
        first_error,
    })
}

fn clients_of_thread(
    raft: &Addr<RaftActor>,
    clients: usize,
    payload: usize,
    phase: &AtomicU8,
) -> Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let seen = Rc::new(RefCell::new(Seen {
        latencies: histogram()?,
        commits_in_all: 0,
        errors: 0,
        first_error: None,
    }));
    let command = Bytes::from(vec![b'x'; payload]);
    runtime.block_on(async {
        let loops = (0..clients).map(|_| client(raft, &command, phase, &seen));
        // All on this thread: they share `seen`, and borrow from it only between awaits.
        futures_util::future::join_all(loops).await;
    });
    drop(runtime);
    Rc::try_unwrap(seen)
        .map(RefCell::into_inner)
        .map_err(|_| anyhow!("a client is left over"))
}

async fn client(raft: &Addr<RaftActor>, command: &Bytes, phase: &AtomicU8, seen: &RefCell<Seen>) {
    loop {
        let before = Instant::now();
        let outcome = raft.send(Propose::new(command.clone())).await;
        let took = before.elapsed();
        let now = phase.load(Ordering::Relaxed);
        let error = match outcome {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        {
            let mut seen = seen.borrow_mut();
            match &error {
                None => {
                    seen.commits_in_all += 1;
                    if now == OPEN {
                        // Longer than the bound cannot be: a proposal times out before.
                        seen.latencies
                            .saturating_record(took.as_micros().max(1) as u64);
                    }
                }
                Some(error) => {
                    seen.errors += 1;
                    seen.first_error.get_or_insert_with(|| error.clone());
                }
            }
        }
        if now == CLOSED {
            return;
        }
        if error.is_some() {
            // Something is wrong, and hammering will not mend it.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
