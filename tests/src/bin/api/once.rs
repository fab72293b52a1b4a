//! Exactly once: increments from three clients that retry on every error, while leaders are killed, stopped and cut off.
//!
//! Each client has one session and several increments under way. Its patience is short, so that many attempts are
//! repeated at another node while the first is still on its way. Without sessions the same clients count too much: that
//! shows that the test can fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tests::api::client::{Named, Session, Trouble, propose};
use tests::api::cluster::{RECOVERY, Replicas};
use tests::api::machine::Command;
use tests::api::nemesis::{Blow, strike_leader};
use tests::api::wire::{Ask, Name};
use tests::random::Random;

use crate::report::Report;

/// How often clients without sessions are tried.
const TRIES: u64 = 6;
const CLIENTS: u64 = 3;
const UNDER_WAY: u64 = 8;
/// So many increments are made without sessions, to see some of them count twice.
const LOOSE: u64 = 2_000;
/// No increment takes so long, whatever befalls the cluster.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    let (increments, strikes) = report.form((10_000, 50), (1_000, 6));
    let lived = live(report, increments, strikes, true, &mut random)?;
    if lived.counted != increments {
        report.fault(&format!(
            "{increments} increments counted {}",
            lived.counted
        ));
    }
    let figures = &mut report.figures;
    figures.exactly("once_increments", increments, "count", increments);
    figures.exactly("once_strikes", strikes, "count", strikes);
    let wrong = lived.counted.abs_diff(increments);
    figures.exactly("once_lost_or_twice", wrong, "count", 0);
    figures.at_least("once_attempts_repeated", lived.repeated, "count", strikes);

    // Which attempts reach the log twice is chance; there must be enough of them that some are under way at each strike.
    let (increments, strikes) = (LOOSE, strikes.div_ceil(3));
    let mut loose = live(report, increments, strikes, false, &mut random)?;
    for _ in 1..TRIES {
        if loose.counted > increments {
            break;
        }
        loose = live(report, increments, strikes, false, &mut random)?;
    }
    report.say(&format!(
        "without sessions, {increments} increments counted {}",
        loose.counted
    ));
    let differs = u64::from(loose.counted > increments);
    report
        .figures
        .exactly("without_sessions_differs", differs, "bool", 1);
    Ok(())
}

struct Lived {
    counted: u64,
    /// Attempts beyond the first of each increment.
    repeated: u64,
}

fn live(
    report: &Report,
    increments: u64,
    strikes: u64,
    sessions: bool,
    random: &mut Random,
) -> Result<Lived> {
    let replicas = report.replicas(if sessions { "sessions" } else { "none" }, &[])?;
    replicas.start_all()?;
    let opened: Vec<_> = (0..CLIENTS)
        .map(|_| Session::open(&replicas.links, RECOVERY))
        .collect::<Result<_>>()?;
    let (taken, allowed, attempts) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (replicas, taken, allowed, attempts) = (&replicas, &taken, &allowed, &attempts);
    thread::scope(|scope| -> Result<()> {
        let mut workers = Vec::new();
        for session in &opened {
            for _ in 0..UNDER_WAY {
                let mut random = Random::new(random.number());
                workers.push(scope.spawn(move || -> Result<()> {
                    loop {
                        let number = taken.fetch_add(1, Ordering::Relaxed);
                        if number >= increments {
                            return Ok(());
                        }
                        // So that increments are under way at each strike.
                        while number >= allowed.load(Ordering::Relaxed) {
                            thread::sleep(Duration::from_millis(1));
                        }
                        let named = sessions.then(|| session.name());
                        increment(replicas, named.as_ref(), &mut random, attempts)?;
                    }
                }));
            }
        }
        let mut strike_all = || -> Result<()> {
            let mut longest = Duration::ZERO;
            for strike in 0..strikes {
                allowed.store(increments * (strike + 1) / (strikes + 1), Ordering::Relaxed);
                let without = strike_leader(replicas, Blow::number(strike), random)?;
                longest = longest.max(without);
                if (strike + 1) % 10 == 0 || strike + 1 == strikes {
                    report.say(&format!(
                        "{} of {strikes} leaders struck, at most {} ms without one; {} attempts for {} increments",
                        strike + 1,
                        longest.as_millis(),
                        attempts.load(Ordering::Relaxed),
                        taken.load(Ordering::Relaxed).min(increments),
                    ));
                }
            }
            Ok(())
        };
        let struck = strike_all();
        allowed.store(u64::MAX, Ordering::Relaxed);
        if struck.is_err() {
            taken.store(increments, Ordering::Relaxed);
        }
        let worked: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        struck?;
        for worker in worked {
            match worker {
                Ok(done) => done?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    })?;
    let counted = count(replicas)?;
    let repeated = attempts.load(Ordering::Relaxed) - increments;
    Ok(Lived { counted, repeated })
}

/// One increment, until a node says that it is applied.
fn increment(
    replicas: &Replicas,
    named: Option<&Named<'_>>,
    random: &mut Random,
    attempts: &AtomicU64,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        attempts.fetch_add(1, Ordering::Relaxed);
        let link = replicas.link(1 + random.below(3));
        let name = named.map_or(Name::Nothing, Named::now);
        let timeout = Duration::from_millis(40 + random.below(400));
        let trouble = match propose(link, &Command::Add(1), name, timeout) {
            Ok(_) => return Ok(()),
            Err(trouble) => trouble,
        };
        if let Trouble::Refused(refused) = &trouble {
            ensure!(
                !refused.for_good,
                "an increment lost its name: {}",
                refused.why
            );
        }
        ensure!(
            Instant::now() < deadline,
            "no outcome in {PATIENCE:?}: {trouble}"
        );
        thread::sleep(Duration::from_millis(random.below(10)));
    }
}

/// What all nodes say, which must be the same.
fn count(replicas: &Replicas) -> Result<u64> {
    replicas.wait_leader(RECOVERY)?;
    replicas.converge(RECOVERY)?;
    let mut counted = Vec::new();
    for id in replicas.ids() {
        for stale in [false, true] {
            let ask = Ask::Counter { stale };
            counted.push(replicas.link(id).value(ask, Duration::from_secs(10))?);
        }
    }
    let first = counted[0];
    ensure!(
        counted.iter().all(|other| *other == first),
        "the nodes counted {counted:?}: linearizable and stale, one after the other"
    );
    Ok(first)
}
