//! Clients that propose at all nodes for as long as a part lasts, and what they saw of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tests::api::client::propose;
use tests::api::cluster::Replicas;
use tests::api::machine::Command;
use tests::api::wire::Name;

/// How long a client waits for the outcome of one proposal.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an answer that does not help.
const PAUSE: Duration = Duration::from_millis(5);

/// A proposal that was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) begun: Instant,
    pub(crate) answered: Instant,
}

/// Clients at work. Dropped, they end.
pub(crate) struct Load {
    replicas: Arc<Replicas>,
    seen: Arc<Mutex<Vec<Committed>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients, at `nodes` by turns, each with one proposal on its way and `pause` behind each answer.
    pub(crate) fn start(
        replicas: &Arc<Replicas>,
        nodes: &[u64],
        clients: usize,
        pause: Duration,
    ) -> Self {
        let (seen, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let clients = (0..clients).map(|number| {
            let (replicas, nodes) = (Arc::clone(replicas), nodes.to_vec());
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || {
                let mut place = number;
                while !stop.load(Ordering::Relaxed) {
                    if once(&replicas, nodes[place % nodes.len()], &seen) {
                        thread::sleep(pause);
                    } else {
                        place += 1;
                        thread::sleep(PAUSE);
                    }
                }
            })
        });
        Self {
            clients: clients.collect(),
            replicas: Arc::clone(replicas),
            seen,
            stop,
        }
    }

    /// When the first proposal was answered of those that began at `since` or later. For this, a few more begin now at
    /// `nodes`: every client may be waiting for an outcome.
    pub(crate) fn first_since(&self, since: Instant, nodes: &[u64]) -> Result<Instant> {
        for wait in [0, 10, 20] {
            for node in nodes {
                let (replicas, seen, node) =
                    (Arc::clone(&self.replicas), Arc::clone(&self.seen), *node);
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(wait));
                    once(&replicas, node, &seen);
                });
            }
        }
        while since.elapsed() < PATIENCE {
            let seen = lock(&self.seen);
            let of_these = seen.iter().filter(|committed| committed.begun >= since);
            if let Some(first) = of_these.map(|committed| committed.answered).min() {
                return Ok(first);
            }
            drop(seen);
            thread::sleep(Duration::from_millis(1));
        }
        bail!("nothing was committed within {PATIENCE:?}")
    }

    /// What was committed so far, which is forgotten by this.
    pub(crate) fn take(&self) -> Vec<Committed> {
        std::mem::take(&mut lock(&self.seen))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // It proposes and waits, which does not panic.
            let _ = client.join();
        }
    }
}

/// Whether a proposal at `node` was committed.
fn once(replicas: &Replicas, node: u64, seen: &Mutex<Vec<Committed>>) -> bool {
    let begun = Instant::now();
    let proposed = propose(replicas.link(node), &Command::Add(1), Name::Node, PATIENCE);
    if proposed.is_ok() {
        let answered = Instant::now();
        lock(seen).push(Committed { begun, answered });
    }
    proposed.is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
