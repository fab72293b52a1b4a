//! The load: clients that propose, or read, on threads of their own, and what they saw.
//!
//! - [`closed`] a closed loop: each client waits for its answer before it asks again
//! - [`open`] an open loop: proposals are due at a rate, whatever has become of those before
//! - [`seen`] latencies and counts, and how those of several threads become one
//!
//! Invariants:
//! - Memory does not grow with what was answered: latencies go into histograms.
//! - What falls into the window is decided by the window's own two moments, which are known before it opens.

mod closed;
mod open;
mod seen;

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use actix::Addr;
use anyhow::{Result, anyhow};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use raft_actor::{Propose, RaftActor, ReadIndex};

use crate::protocol::{Load, Measured, Operation};
use seen::Seen;

/// When the window is open: from the first moment on, and before the second.
#[derive(Clone, Copy, Debug)]
struct Window {
    opens: Instant,
    closes: Instant,
}

impl Window {
    fn contains(&self, moment: Instant) -> bool {
        self.opens <= moment && moment < self.closes
    }
}

/// Runs `load` and blocks until it is over; `opened` and `closed` are called at the window's two ends.
pub(crate) fn measure(
    raft: &Addr<RaftActor>,
    load: Load,
    opened: impl FnOnce(),
    closed: impl FnOnce(),
) -> Result<Measured> {
    let command = Bytes::from(vec![b'x'; load.payload]);
    let (window, length) = window(load);
    let threads = match load.rate {
        None => closed_loop(raft, load, &command, window)?,
        Some(rate) => {
            let (raft, in_flight) = (raft.clone(), load.in_flight);
            let ask = move || ask(&raft, load.operation, &command);
            vec![spawn("clients", move || {
                open::run(ask, rate, in_flight, window)
            })?]
        }
    };
    sleep_until(window.opens);
    opened();
    sleep_until(window.closes);
    closed();
    let mut seen = Seen::new()?;
    for thread in threads {
        let of_thread = thread
            .join()
            .map_err(|_| anyhow!("a thread of clients panicked"))??;
        seen.add(of_thread)?;
    }
    Ok(seen.measured(length, load.rate))
}

/// Runs a closed loop on this thread, between whatever else runs there; else as [`measure`].
pub(crate) async fn measure_here(
    raft: &Addr<RaftActor>,
    load: Load,
    opened: impl FnOnce(),
    closed: impl FnOnce(),
) -> Result<Measured> {
    let command = Bytes::from(vec![b'x'; load.payload]);
    let (window, length) = window(load);
    let ask = || ask(raft, load.operation, &command);
    let bounds = async {
        tokio::time::sleep_until(window.opens.into()).await;
        opened();
        tokio::time::sleep_until(window.closes.into()).await;
        closed();
    };
    let clients = closed::clients(ask, load.clients * load.in_flight.max(1), window);
    let (seen, ()) = tokio::join!(clients, bounds);
    Ok(seen?.measured(length, load.rate))
}

fn window(load: Load) -> (Window, Duration) {
    let opens = Instant::now() + Duration::from_millis(load.warm_up_ms);
    let length = Duration::from_millis(load.window_ms);
    let closes = opens + length;
    (Window { opens, closes }, length)
}

type Clients = thread::JoinHandle<Result<Seen>>;

/// As many threads as there are processors share the clients.
fn closed_loop(
    raft: &Addr<RaftActor>,
    load: Load,
    command: &Bytes,
    window: Window,
) -> Result<Vec<Clients>> {
    // A client with several proposals on its way is to the node as several clients with one.
    let clients = load.clients * load.in_flight.max(1);
    let count = thread::available_parallelism()
        .map_or(2, usize::from)
        .min(clients)
        .max(1);
    (0..count)
        .map(|number| {
            let of_thread = clients / count + usize::from(number < clients % count);
            let (raft, command) = (raft.clone(), command.clone());
            spawn(&format!("clients-{number}"), move || {
                closed::run(|| ask(&raft, load.operation, &command), of_thread, window)
            })
        })
        .collect()
}

fn spawn(name: &str, run: impl FnOnce() -> Result<Seen> + Send + 'static) -> Result<Clients> {
    let thread = thread::Builder::new().name(name.to_owned());
    Ok(thread.spawn(run)?)
}

/// Asks the node, now; the future is the answer.
fn ask(
    raft: &Addr<RaftActor>,
    operation: Operation,
    command: &Bytes,
) -> impl Future<Output = Result<(), String>> + Send + use<> {
    match operation {
        Operation::Propose => {
            let asked = raft.send(Propose::new(command.clone()));
            Either::Left(asked.map(|answer| flat(answer.map(|answer| answer.map(drop)))))
        }
        Operation::Read => {
            let asked = raft.send(ReadIndex::new());
            Either::Right(asked.map(|answer| flat(answer.map(|answer| answer.map(drop)))))
        }
    }
}

fn flat<E: ToString, F: ToString>(answer: Result<Result<(), E>, F>) -> Result<(), String> {
    match answer {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
