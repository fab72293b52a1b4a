//! The load on one system, in a process of its own: clients in a closed loop, each of which waits for its commit before
//! it asks for the next.
//!
//! - As in `bench`: what is answered in the window counts, with its whole latency; errors count from the first moment.
//! - Nothing is added to the way of a command: no timer, no task for each. A client that has not come back ten seconds
//!   after the window is an error, and is left behind with the process.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::cpu;

/// What a load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub(crate) struct Load {
    /// How many clients, each with one request on its way.
    #[arg(long)]
    pub(crate) clients: usize,
    /// How many bytes each command has.
    #[arg(long)]
    pub(crate) payload: usize,
    /// How long the clients run before the window opens.
    #[arg(long)]
    pub(crate) warm_up_ms: u64,
    /// How long the window is open.
    #[arg(long)]
    pub(crate) window_ms: u64,
}

impl Load {
    /// The bytes of a command.
    pub(crate) fn command(&self) -> Bytes {
        Bytes::from(vec![b'x'; self.payload])
    }
}

/// What the clients saw, and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Commits inside the window.
    pub(crate) commits: u64,
    /// How long the window was, in seconds.
    pub(crate) seconds: f64,
    /// Half of the commits in the window took at most this long, in microseconds.
    pub(crate) median_us: u64,
    /// 99 of 100.
    pub(crate) p99_us: u64,
    /// The slowest.
    pub(crate) max_us: u64,
    /// Requests that failed or never came back, warm-up included.
    pub(crate) errors: u64,
    /// The first of their errors.
    pub(crate) first_error: Option<String>,
    /// The CPU time of the system's servers in the window, in microseconds. None where it lives in the clients' process.
    pub(crate) servers_cpu_us: Option<u64>,
    /// The CPU time of the servers and the clients.
    pub(crate) cpu_us: u64,
    /// The CPU time of everybody else on the machine.
    pub(crate) foreign_cpu_us: u64,
}

/// One client.
pub(crate) trait Client: Send + 'static {
    /// Asks for one commit, or one pipeline of them, and waits until the system says that all are done; how many they
    /// were.
    fn commit(&mut self) -> impl Future<Output = Result<u64>> + Send;
}

/// Whose CPU time is counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    /// A file with the process ids of the servers, one a line: they are all there by the time that the window opens.
    pub(crate) servers: PathBuf,
    /// Whether the system lives in the processes of its clients, so that the two cannot be told apart.
    pub(crate) embedded: bool,
}

impl Counted {
    /// All of them but this process.
    fn others(&self) -> Result<Vec<u32>> {
        let what = || format!("the process ids in {}", self.servers.display());
        let text = fs::read_to_string(&self.servers).with_context(what)?;
        let me = std::process::id();
        let mut pids: Vec<u32> = text
            .lines()
            .map(|line| line.parse().with_context(what))
            .collect::<Result<_>>()?;
        pids.retain(|pid| *pid != me);
        Ok(pids)
    }
}

const WARM_UP: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

/// How long the last requests may take once the window is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Locks that clients share, so that a thousand of them do not take a histogram each.
const SHARDS: usize = 16;

struct Seen {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Seen {
    fn new() -> Result<Self> {
        Ok(Self {
            latencies: histogram()?,
            errors: 0,
            first_error: None,
        })
    }
}

/// Latencies from 1 µs to two minutes, with three digits.
fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 120_000_000, 3).context("a histogram")
}

/// Runs the clients through warm-up and window.
pub(crate) async fn closed_loop<C: Client>(
    clients: Vec<C>,
    load: Load,
    counted: &Counted,
) -> Result<Measured> {
    closed_loop_until(clients, load, counted, LAST_ANSWERS).await
}

async fn closed_loop_until<C: Client>(
    clients: Vec<C>,
    load: Load,
    counted: &Counted,
    last_answers: Duration,
) -> Result<Measured> {
    let phase = Arc::new(AtomicU8::new(WARM_UP));
    let shards: Arc<Vec<_>> = Arc::new(
        (0..SHARDS)
            .map(|_| Seen::new().map(Mutex::new))
            .collect::<Result<_>>()?,
    );
    let count = clients.len();
    ensure!(count > 0, "no client, no measurement");
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let (phase, shards) = (Arc::clone(&phase), Arc::clone(&shards));
        tasks.spawn(async move { run(client, &phase, &shards[number % SHARDS]).await });
    }

    tokio::time::sleep(Duration::from_millis(load.warm_up_ms)).await;
    let (me, others) = ([std::process::id()], counted.others()?);
    let cpu = || -> Result<_> { Ok((cpu::of(&others)?, cpu::of(&me)?, cpu::of_machine()?)) };
    let before = cpu()?;
    let start = Instant::now();
    phase.store(OPEN, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(load.window_ms)).await;
    phase.store(CLOSED, Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    let after = cpu()?;

    // A client that panicked did not come back either.
    let mut back = 0;
    let all_back = async {
        while let Some(end) = tasks.join_next().await {
            back += usize::from(end.is_ok());
        }
    };
    // Whether it was in time is seen from the count.
    let _ = tokio::time::timeout(last_answers, all_back).await;
    let (latencies, mut errors, mut first_error) = gather(&shards)?;
    let lost = (count - back) as u64;
    if lost > 0 {
        errors += lost;
        first_error.get_or_insert_with(|| format!("{lost} requests were never answered"));
    }
    let servers = after.0 - before.0;
    let with_load = servers + (after.1 - before.1);
    Ok(Measured {
        commits: latencies.len(),
        seconds,
        median_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
        max_us: latencies.max(),
        errors,
        first_error,
        servers_cpu_us: (!counted.embedded).then_some(servers),
        cpu_us: with_load,
        foreign_cpu_us: (after.2 - before.2).saturating_sub(with_load),
    })
}

type Gathered = (Histogram<u64>, u64, Option<String>);

fn gather(shards: &[Mutex<Seen>]) -> Result<Gathered> {
    let (mut latencies, mut errors, mut first_error) = (histogram()?, 0, None);
    for shard in shards {
        let seen = shard.lock().unwrap_or_else(PoisonError::into_inner);
        latencies
            .add(&seen.latencies)
            .context("histograms of the same bounds")?;
        errors += seen.errors;
        first_error = first_error.or_else(|| seen.first_error.clone());
    }
    Ok((latencies, errors, first_error))
}

async fn run<C: Client>(mut client: C, phase: &AtomicU8, seen: &Mutex<Seen>) {
    let mut before = Instant::now();
    loop {
        let outcome = client.commit().await;
        let answered = Instant::now();
        let took = answered - before;
        let now = phase.load(Ordering::Relaxed);
        let failed = outcome.is_err();
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(commits) if now == OPEN => {
                    let us = took.as_micros().max(1) as u64;
                    seen.latencies.saturating_record_n(us, commits);
                }
                Ok(_) => {}
                Err(error) => {
                    seen.errors += 1;
                    seen.first_error.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        if now == CLOSED {
            return;
        }
        // It asks again as soon as it is answered: the same moment.
        before = answered;
        if failed {
            // Something is wrong, and hammering will not mend it.
            tokio::time::sleep(Duration::from_millis(10)).await;
            before = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    const LOAD: Load = Load {
        clients: 2,
        payload: 16,
        warm_up_ms: 50,
        window_ms: 200,
    };

    fn alone() -> Counted {
        Counted {
            servers: PathBuf::from("/dev/null"),
            embedded: true,
        }
    }

    /// Answers after `delay`, as `many` at once; every `fails`-th request fails, and none after `hangs` ends.
    struct Fake {
        delay: Duration,
        many: u64,
        fails: Option<u64>,
        hangs: Option<u64>,
        asked: u64,
        commits: Arc<AtomicU64>,
    }

    impl Fake {
        fn new(delay_ms: u64, commits: &Arc<AtomicU64>) -> Self {
            Self {
                delay: Duration::from_millis(delay_ms),
                many: 1,
                fails: None,
                hangs: None,
                asked: 0,
                commits: Arc::clone(commits),
            }
        }
    }

    impl Client for Fake {
        async fn commit(&mut self) -> Result<u64> {
            self.asked += 1;
            if self.hangs.is_some_and(|hangs| self.asked > hangs) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.delay).await;
            ensure!(
                self.fails
                    .is_none_or(|fails| !self.asked.is_multiple_of(fails)),
                "as told"
            );
            self.commits.fetch_add(self.many, Ordering::Relaxed);
            Ok(self.many)
        }
    }

    fn measure(clients: Vec<Fake>) -> Measured {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(closed_loop_until(
                clients,
                LOAD,
                &alone(),
                Duration::from_millis(300),
            ))
            .unwrap()
    }

    #[test]
    fn only_the_window_counts() {
        let all = Arc::new(AtomicU64::new(0));
        let measured = measure(vec![Fake::new(10, &all), Fake::new(10, &all)]);
        // Twice twenty at most; sleeps take longer than they are told, never shorter.
        assert!((10..=40).contains(&measured.commits), "{measured:?}");
        assert!(measured.commits < all.load(Ordering::Relaxed));
        assert!(
            (10_000..100_000).contains(&measured.median_us),
            "{measured:?}"
        );
        assert!((0.2..2.0).contains(&measured.seconds));
        assert_eq!((measured.errors, measured.servers_cpu_us), (0, None));
    }

    #[test]
    fn a_pipeline_counts_as_many() {
        let all = Arc::new(AtomicU64::new(0));
        let mut client = Fake::new(10, &all);
        client.many = 64;
        let measured = measure(vec![client]);
        assert!(
            measured.commits >= 64 && measured.commits.is_multiple_of(64),
            "{measured:?}"
        );
    }

    #[test]
    fn errors_count_and_the_client_goes_on() {
        let all = Arc::new(AtomicU64::new(0));
        let mut client = Fake::new(5, &all);
        client.fails = Some(2);
        let measured = measure(vec![client]);
        assert!(measured.errors >= 2, "{measured:?}");
        assert_eq!(measured.first_error.as_deref(), Some("as told"));
        assert!(measured.commits >= 2);
    }

    #[test]
    fn who_never_comes_back_is_an_error() {
        let all = Arc::new(AtomicU64::new(0));
        let mut stuck = Fake::new(5, &all);
        stuck.hangs = Some(3);
        let measured = measure(vec![stuck, Fake::new(5, &all)]);
        assert_eq!(measured.errors, 1);
        let error = measured.first_error.unwrap();
        assert_eq!(error, "1 requests were never answered");
    }
}
