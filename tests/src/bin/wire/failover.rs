//! How soon a proposal is committed again when there is no leader any more: its process was killed, or its host has
//! fallen silent.
//!
//! A killed leader is replaced without waiting for the clock, and the run shows what that is worth: it does the same with
//! the early campaign switched off. A silent host is told from a slow one by nothing but the clock.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::api::cluster::{Replicas, Seat};

use crate::hosts::{Hosts, Silence};
use crate::load::Load;
use crate::report::Report;

/// The shortest election timeout that nodes have unless told otherwise.
const TIMEOUT_MS: u64 = 500;
/// The median when the process dies. The short form runs beside other tests, on a machine that is busy: there it only has
/// to be earlier than any timer.
const MEDIAN_MS_MAX: (u64, u64) = (100, 400);
/// How long three nodes may take to be as one again.
const RECOVERY: Duration = Duration::from_secs(60);
/// Between a node's return and the next blow: connections that have lived for a second are what a leader has.
const CALM: Duration = Duration::from_millis(1200);
const CLIENTS: usize = 6;
/// Between two proposals of a client: the nodes are to be busy, not the machine at its end.
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) fn run(report: &mut Report, rounds: u64) -> Result<()> {
    let early = killed(report, "early", &[], rounds)?;
    let waiting = killed(report, "waiting", &["--no-early-campaign"], rounds)?;
    let (long, short) = MEDIAN_MS_MAX;
    let median_max = report.form(long, short);
    let figures = &mut report.figures;
    figures.exactly("failover_rounds", early.rounds(), "count", rounds);
    figures.at_most("failover_median_ms", early.median(), "ms", median_max);
    figures.at_most("failover_worst_ms", early.worst(), "ms", 4 * TIMEOUT_MS);
    // Else the campaign would be early in name only.
    let least = early.median() + 100;
    figures.at_least(
        "failover_by_the_clock_median_ms",
        waiting.median(),
        "ms",
        least,
    );
    let rounds = report.form(15, 3);
    match silent(report, rounds)? {
        None => {}
        Some(seen) => {
            for (name, times) in seen {
                let figures = &mut report.figures;
                let median = format!("silent_{name}_median_ms");
                figures.at_most(&median, times.median(), "ms", 2 * TIMEOUT_MS);
                let worst = format!("silent_{name}_worst_ms");
                figures.at_most(&worst, times.worst(), "ms", 4 * TIMEOUT_MS);
            }
        }
    }
    Ok(())
}

/// Kills the leader of a cluster under load, again and again.
fn killed(report: &Report, name: &str, args: &[&str], rounds: u64) -> Result<Times> {
    let folder = report.dir().join(name);
    let replicas = Replicas::at(&report.programs, &folder, args, Seat::local(3)?)?;
    let replicas = Arc::new(replicas);
    replicas.start_all()?;
    let nodes: Vec<_> = replicas.ids().collect();
    let load = Load::start(&replicas, &nodes, CLIENTS, PAUSE);
    let mut times = Times::default();
    for round in 1..=rounds {
        thread::sleep(CALM);
        let leader = settled(&replicas)?;
        load.take();
        let at = Instant::now();
        replicas.kill(leader)?;
        let again = load.first_since(at, &others(&replicas, leader));
        let again = again.with_context(|| format!("round {round}, leader {leader}"))?;
        times.add(again - at);
        replicas.start(leader)?;
    }
    report.say(&format!("killed, {name}: {times}"));
    Ok(times)
}

/// Silences the host of the leader of a cluster under load, again and again; none where that cannot be done.
fn silent(report: &mut Report, rounds: u64) -> Result<Option<Vec<(&'static str, Times)>>> {
    let hosts = match Hosts::new(3) {
        Ok(hosts) => hosts,
        Err(why) => {
            report.skip("the host that falls silent", &why);
            return Ok(None);
        }
    };
    let folder = report.dir().join("silent");
    let replicas = Arc::new(Replicas::at(&report.programs, &folder, &[], hosts.seats())?);
    replicas.start_all()?;
    let nodes: Vec<_> = replicas.ids().collect();
    let load = Load::start(&replicas, &nodes, CLIENTS, PAUSE);
    let mut seen = Vec::new();
    for (name, silence) in [("two_way", Silence::Both), ("one_way", Silence::Out)] {
        let mut times = Times::default();
        for round in 1..=rounds {
            thread::sleep(CALM);
            let leader = settled(&replicas)?;
            load.take();
            let at = Instant::now();
            hosts.silence(leader, silence)?;
            let since = Instant::now();
            let again = load.first_since(since, &others(&replicas, leader));
            let again = again.with_context(|| format!("{name}, round {round}, leader {leader}"))?;
            times.add(again - at);
            hosts.lift(leader)?;
        }
        report.say(&format!("silent, {name}: {times}"));
        seen.push((name, times));
    }
    Ok(Some(seen))
}

fn others(replicas: &Replicas, but: u64) -> Vec<u64> {
    replicas.ids().filter(|id| *id != but).collect()
}

/// Waits until all three follow one leader, and are not far behind it.
fn settled(replicas: &Replicas) -> Result<u64> {
    const BEHIND_MAX: u64 = 100;
    replicas.wait(RECOVERY, "three nodes that keep up", || {
        let statuses: Option<Vec<_>> = replicas
            .ids()
            .map(|id| replicas.link(id).status().ok())
            .collect();
        let statuses = statuses?;
        let leader = statuses[0].leader?;
        let most = statuses.iter().map(|status| status.commit).max()?;
        let keeps_up = statuses
            .iter()
            .all(|status| status.leader == Some(leader) && status.applied + BEHIND_MAX >= most);
        keeps_up.then_some(leader)
    })
}

/// How long it took, each time.
#[derive(Debug, Default)]
struct Times {
    sorted: Vec<Duration>,
}

impl Times {
    fn add(&mut self, time: Duration) {
        let place = self.sorted.partition_point(|other| *other <= time);
        self.sorted.insert(place, time);
    }

    fn rounds(&self) -> u64 {
        self.sorted.len() as u64
    }

    /// In milliseconds, rounded up, as all of these.
    fn at(&self, permille: usize) -> u64 {
        let place = (self.sorted.len() * permille / 1000).min(self.sorted.len().saturating_sub(1));
        let time = self.sorted.get(place).copied().unwrap_or(Duration::MAX);
        u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
    }

    fn median(&self) -> u64 {
        self.at(500)
    }

    fn worst(&self) -> u64 {
        self.at(1000)
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (least, median) = (self.at(0), self.median());
        let (late, worst) = (self.at(900), self.worst());
        let rounds = self.rounds();
        write!(
            f,
            "{rounds} rounds, {least} ms at best, {median} in the middle, {late} for one in ten, {worst} at worst"
        )
    }
}
