//! Proposals that go on while something else happens.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::api::client::{Session, propose};
use tests::api::cluster::Replicas;
use tests::api::machine::Command;
use tests::api::wire::Name;

/// What proposers have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When each proposal was answered, and how long that took.
    pub(crate) answered: Vec<(Instant, Duration)>,
    /// At which index.
    pub(crate) indexes: Vec<u64>,
}

/// How proposers propose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) threads: u64,
    /// Between an answer and the next proposal of a thread.
    pub(crate) pause: Duration,
}

/// Who names the proposals.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'s> {
    /// The nodes.
    ByNodes,
    /// This session's client, who is so impatient that most of them reach the log twice.
    Twice(&'s Session),
}

/// An attempt that nobody waits for takes no longer.
const IMPATIENCE: Duration = Duration::from_millis(2);

/// Proposes what `command` makes at `nodes`, while `while_it_goes` runs.
pub(crate) fn proposing<T>(
    replicas: &Replicas,
    nodes: &[u64],
    pace: Pace,
    named: Named<'_>,
    command: impl Fn(u64) -> Command + Sync,
    while_it_goes: impl FnOnce() -> T,
) -> (T, Seen) {
    let stop = AtomicBool::new(false);
    let number = AtomicU64::new(0);
    let seen = Mutex::new(Seen::default());
    let (stopped, seen_by, make) = (&stop, &seen, &command);
    let done = thread::scope(|scope| {
        for thread_number in 0..pace.threads {
            let number = &number;
            scope.spawn(move || {
                let mut place = thread_number as usize;
                while !stopped.load(Ordering::Relaxed) {
                    let command = make(number.fetch_add(1, Ordering::Relaxed));
                    let link = replicas.link(nodes[place % nodes.len()]);
                    let started = Instant::now();
                    let name = match named {
                        Named::ByNodes => None,
                        Named::Twice(session) => Some(session.name()),
                    };
                    if let Some(name) = &name {
                        let other = replicas.link(nodes[(place + 1) % nodes.len()]);
                        // Whatever comes of it.
                        let _ = propose(other, &command, name.now(), IMPATIENCE);
                    }
                    let name = name.as_ref().map_or(Name::Node, |name| name.now());
                    match propose(link, &command, name, Duration::from_secs(5)) {
                        Ok((index, _)) => {
                            let mut seen = seen_by.lock().unwrap_or_else(PoisonError::into_inner);
                            seen.answered.push((Instant::now(), started.elapsed()));
                            seen.indexes.push(index);
                        }
                        // Elsewhere, then; what became of it is of no interest here.
                        Err(_) => {
                            place += 1;
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
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    match done {
        Ok(done) => (done, seen),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Seen {
    /// The median latency, in microseconds.
    pub(crate) fn median_micros(&self) -> u64 {
        let mut all: Vec<_> = self.answered.iter().map(|(_, took)| *took).collect();
        all.sort_unstable();
        all.get(all.len() / 2)
            .map_or(0, |took| took.as_micros() as u64)
    }

    /// The longest time without an answer to anybody.
    pub(crate) fn longest_gap(&self) -> Duration {
        let mut at: Vec<_> = self.answered.iter().map(|(at, _)| *at).collect();
        at.sort_unstable();
        let gaps = at.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or(Duration::MAX)
    }
}
