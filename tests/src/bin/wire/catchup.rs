//! A node that was away is sent a big snapshot, three times broken off and resumed, while the others commit at full load:
//! nobody else is to notice.
//!
//! The same load runs twice: quietly, and with the snapshot. What differs is what the snapshot costs. The node that is
//! neither sender nor receiver has the same state and the same load, so what the receiver has beyond it, it took for
//! receiving.

use std::collections::BTreeMap;
use std::process::Command as Process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::api::client::propose;
use tests::api::cluster::{RECOVERY, Replicas, Seat};
use tests::api::machine::Command;
use tests::api::memory;
use tests::api::wire::{Ask, Name};

use crate::load::{Committed, Load};
use crate::report::Report;

/// Who is away. Its id is of no matter.
const AWAY: u64 = 3;
/// Entries that the log keeps before a snapshot.
const MARGIN: u64 = 100;
const CLIENTS: usize = 8;
const BREAKS: u64 = 3;
/// For what takes as long as the disk does.
const PATIENCE: Duration = Duration::from_secs(600);
/// Of memory beside the state, and of the snapshot's bytes beside those that had to be sent.
const MIB_MAX: u64 = 64;
/// The latency that one commit in a hundred exceeds, of the quiet one. The short form has a few seconds of each, in
/// which anything else that the machine does weighs much.
const P99_PERCENT_MAX: (u64, u64) = (200, 400);
/// How often the connections are looked at.
const GLANCE: Duration = Duration::from_millis(20);

pub(crate) fn run(report: &mut Report, mib: u64, rate: Option<u64>) -> Result<()> {
    if let Err(why) = connections(1) {
        report.skip("the snapshot that is broken off", &why);
        return Ok(());
    }
    let (margin, rate) = (MARGIN.to_string(), rate.map(|rate| rate.to_string()));
    let mut args = vec!["--margin", &margin];
    if let Some(rate) = &rate {
        args.extend(["--snapshot-bytes-per-s", rate]);
    }
    let folder = report.dir().join("nodes");
    let seats = Seat::local(3)?;
    let port = seats[AWAY as usize - 1].address.port();
    let replicas = Arc::new(Replicas::at(&report.programs, &folder, &args, seats)?);
    replicas.start_all()?;
    replicas.kill(AWAY)?;
    let leader = replicas.wait_leader(RECOVERY)?;
    fill(&replicas, leader, mib)?;
    report.say(&format!("a state of {mib} MiB on two nodes"));

    let load = Load::start(&replicas, &[1, 2], CLIENTS, Duration::ZERO);
    // Caches fill, and the log goes on beyond its margin.
    thread::sleep(Duration::from_secs(report.form(5, 2)));
    snapshot(&replicas, leader)?;
    let quiet = quietly(report, &replicas, &load, leader)?;
    let taken = with_snapshot(report, &replicas, &load, leader, mib, port)?;
    drop(load);
    let hash = |id| replicas.link(id).value(Ask::BulkHash, PATIENCE);
    if hash(leader)? != hash(AWAY)? {
        report.fault("the node that was away has another state");
    }

    let sender = taken.sender_kib.saturating_sub(quiet.sender_kib) >> 10;
    let receiver = taken.receiver_kib.saturating_sub(taken.witness_kib) >> 10;
    let percent = 100 * taken.p99.as_micros() / quiet.p99.as_micros().max(1);
    let again = taken.sent.saturating_sub(mib << 20) >> 20;
    let (long, short) = P99_PERCENT_MAX;
    let percent_max = report.form(long, short);
    let figures = &mut report.figures;
    figures.exactly("catchup_state", mib, "MiB", mib);
    figures.exactly("catchup_breaks", taken.breaks, "count", BREAKS);
    figures.at_most("catchup_sent_again", again, "MiB", MIB_MAX);
    figures.exactly("catchup_elections", taken.elections, "count", 0);
    figures.at_most(
        "catchup_p99_of_quiet",
        percent as u64,
        "percent",
        percent_max,
    );
    figures.at_most("catchup_sender_extra", sender, "MiB", MIB_MAX);
    figures.at_most("catchup_receiver_extra", receiver, "MiB", MIB_MAX);
    Ok(())
}

/// Gives the cluster its state.
fn fill(replicas: &Replicas, leader: u64, mib: u64) -> Result<()> {
    let chunks = u32::try_from(mib).context("a size in MiB")?;
    let fill = Command::Fill { chunks, seed: 6 };
    propose(replicas.link(leader), &fill, Name::Node, PATIENCE).context("fill")?;
    let applied = |id| replicas.link(id).status().ok().map(|status| status.applied);
    replicas.wait(PATIENCE, "two nodes with the state", || {
        (applied(1)? == applied(2)?).then_some(())
    })
}

fn snapshot(replicas: &Replicas, id: u64) -> Result<()> {
    let taken = replicas.link(id).value(Ask::Snapshot, PATIENCE);
    taken.with_context(|| format!("a snapshot of node {id}"))?;
    Ok(())
}

/// The load by itself.
struct Quiet {
    p99: Duration,
    /// The most that the leader had.
    sender_kib: u64,
}

fn quietly(report: &Report, replicas: &Replicas, load: &Load, leader: u64) -> Result<Quiet> {
    let pid = replicas.pid(leader)?;
    memory::reset_peak(pid)?;
    load.take();
    let started = Instant::now();
    thread::sleep(Duration::from_secs(report.form(30, 8)));
    let p99 = said(report, "quiet", load.take(), started);
    let sender_kib = memory::look(pid)?.peak;
    Ok(Quiet { p99, sender_kib })
}

/// The load while the snapshot is sent.
struct Taken {
    p99: Duration,
    elections: u64,
    breaks: u64,
    /// Bytes that were sent to the receiver.
    sent: u64,
    sender_kib: u64,
    receiver_kib: u64,
    witness_kib: u64,
}

fn with_snapshot(
    report: &Report,
    replicas: &Replicas,
    load: &Load,
    leader: u64,
    mib: u64,
    port: u16,
) -> Result<Taken> {
    let witness = 3 - leader;
    let (sender_pid, witness_pid) = (replicas.pid(leader)?, replicas.pid(witness)?);
    memory::reset_peak(sender_pid)?;
    memory::reset_peak(witness_pid)?;
    let before = replicas.status(leader)?;
    load.take();
    let started = Instant::now();
    replicas.start(AWAY)?;
    let mut sent = Sent::default();
    let mut breaks = 0;
    loop {
        let now = connections(port)?;
        sent.saw(&now);
        let part = (mib << 20) * (breaks + 1) / (BREAKS + 1);
        if breaks < BREAKS && sent.bytes() >= part {
            breaks += 1;
            break_off(port)?;
            let mib = sent.bytes() >> 20;
            report.say(&format!("broken off behind {mib} MiB"));
        }
        let status = replicas.link(AWAY).status().ok();
        if status.is_some_and(|status| status.is_running && status.applied >= before.commit) {
            break;
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "node {AWAY} has not caught up within {PATIENCE:?}, with {} MiB sent\n{}",
            sent.bytes() >> 20,
            replicas.tail(AWAY)
        );
        thread::sleep(GLANCE);
    }
    let p99 = said(report, "with the snapshot", load.take(), started);
    let (after, bytes) = (replicas.status(leader)?, sent.bytes());
    report.say(&format!("{} MiB were sent", bytes >> 20));
    Ok(Taken {
        p99,
        elections: after.term - before.term,
        breaks,
        sent: bytes,
        sender_kib: memory::look(sender_pid)?.peak,
        receiver_kib: memory::look(replicas.pid(AWAY)?)?.peak,
        witness_kib: memory::look(witness_pid)?.peak,
    })
}

/// Says what was committed since `started`; the latency that one in a hundred exceeds.
fn said(report: &Report, when: &str, committed: Vec<Committed>, started: Instant) -> Duration {
    let took = committed.iter().map(|one| one.answered - one.begun);
    let mut took: Vec<_> = took.collect();
    took.sort_unstable();
    let at = |permille: usize| {
        let place = (took.len() * permille / 1000).min(took.len().saturating_sub(1));
        took.get(place).copied().unwrap_or(Duration::MAX)
    };
    let (seconds, count) = (started.elapsed().as_secs_f64(), took.len());
    report.say(&format!(
        "{when}: {seconds:.1} s, {:.0} commits/s, median {:.1?}, p99 {:.1?}, worst {:.1?}",
        count as f64 / seconds,
        at(500),
        at(990),
        at(1000),
    ));
    at(990)
}

/// What was sent on each connection that was seen, by its own address and how often that was begun anew.
#[derive(Default)]
struct Sent {
    over: u64,
    open: BTreeMap<String, u64>,
}

impl Sent {
    fn saw(&mut self, now: &BTreeMap<String, u64>) {
        let gone: Vec<_> = self
            .open
            .keys()
            .filter(|key| !now.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            self.over += self.open.remove(&key).unwrap_or(0);
        }
        self.open
            .extend(now.iter().map(|(key, sent)| (key.clone(), *sent)));
    }

    fn bytes(&self) -> u64 {
        self.over + self.open.values().sum::<u64>()
    }
}

/// The connections of this host that were dialled to `port`, by their own addresses, with the bytes sent on each.
fn connections(port: u16) -> Result<BTreeMap<String, u64>> {
    let said = ss(&["-tinOH"], port)?;
    let mut found = BTreeMap::new();
    for line in said.lines() {
        let own = line.split_whitespace().nth(2);
        let sent = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("bytes_sent:"));
        if let (Some(own), Some(sent)) = (own, sent) {
            let sent = sent.parse().with_context(|| format!("ss says {line:?}"))?;
            found.insert(own.to_owned(), sent);
        }
    }
    Ok(found)
}

/// Resets all connections that were dialled to `port`.
fn break_off(port: u16) -> Result<()> {
    let broken = ss(&["-tnHK"], port)?;
    ensure!(!broken.trim().is_empty(), "the system resets no connection");
    Ok(())
}

fn ss(flags: &[&str], port: u16) -> Result<String> {
    let filter = format!("( dport = :{port} )");
    let mut ss = Process::new("ss");
    ss.args(flags).args(["state", "established", &filter]);
    let output = ss.output().context("run ss, of iproute2")?;
    if !output.status.success() {
        bail!("{ss:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
