//! A big state is snapshotted, handed to a new subscriber and to a node that was away, and restored at a start, in little
//! more memory than it has itself, while proposals go on.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::api::client::propose;
use tests::api::cluster::Replicas;
use tests::api::machine::Command;
use tests::api::memory;
use tests::api::sink::{self, Event};
use tests::api::wire::{Ask, Name, Status};

use crate::load::{Named, Pace, proposing};
use crate::report::Report;

const SOON: Duration = Duration::from_secs(10);
/// For what takes as long as the disk does.
const PATIENCE: Duration = Duration::from_secs(300);
/// Beyond the state itself.
const MIB_MAX: u64 = 64;
/// Twice the longest election timeout: a leader that lost its office meanwhile would show.
const GAP_MAX: Duration = Duration::from_secs(2);
/// More entries than the log keeps before a snapshot.
const PASSED: u64 = 400;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let chunks = report.form(256, 64);
    let replicas = report.replicas("nodes", &["--margin", "100"])?;
    let leader = replicas.start_all()?;
    let (away, witness) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let fill = Command::Fill { chunks, seed: 9 };
    propose(
        replicas.link(leader),
        &fill,
        Name::Node,
        Duration::from_secs(60),
    )
    .context("fill")?;
    replicas.converge(PATIENCE)?;
    let hash = bulk_hash(&replicas, leader)?;
    let rest = rest(&replicas)?;
    report.say(&format!(
        "a state of {chunks} MiB in processes of {} MiB",
        rest >> 10
    ));
    let state = State { chunks, hash, rest };
    let pace = Pace {
        threads: 2,
        pause: Duration::from_millis(2),
    };
    let (done, seen) = proposing(
        &replicas,
        &[leader, witness],
        pace,
        Named::ByNodes,
        |_| Command::Add(1),
        || -> Result<Taken> { steps(report, &replicas, leader, away, &state) },
    );
    let taken = done?;
    let gap = seen.longest_gap();
    report.say(&format!(
        "{} proposals meanwhile, at most {} ms between two answers",
        seen.answered.len(),
        gap.as_millis()
    ));
    let figures = &mut report.figures;
    figures.exactly("big_state", u64::from(chunks), "MiB", u64::from(chunks));
    for (name, mib) in taken {
        figures.at_most(name, mib, "MiB", MIB_MAX);
    }
    figures.at_most(
        "big_longest_gap",
        gap.as_millis() as u64,
        "ms",
        GAP_MAX.as_millis() as u64,
    );
    Ok(())
}

/// What each step took of memory, in MiB beyond the state.
type Taken = Vec<(&'static str, u64)>;

fn steps(
    report: &Report,
    replicas: &Replicas,
    leader: u64,
    away: u64,
    state: &State,
) -> Result<Taken> {
    let State { chunks, hash, rest } = *state;
    let mut taken = Taken::new();
    let mut note = |name, mib, started: Instant| {
        let seconds = started.elapsed().as_secs_f64();
        report.say(&format!("{name}: {mib} MiB extra, {seconds:.1} s"));
        taken.push((name, mib));
    };

    let applied = |id| Ok::<_, anyhow::Error>(replicas.status(id)?.applied);
    let pass = |from: u64| {
        replicas.wait(PATIENCE, "the log to go on", || {
            (applied(leader).ok()? > from + PASSED).then_some(())
        })
    };
    pass(0)?;
    let (started, pid) = (Instant::now(), replicas.pid(leader)?);
    memory::reset_peak(pid)?;
    snapshot(replicas, leader)?;
    note("big_snapshot_extra", extra(pid, rest)?, started);

    let (started, pid) = (Instant::now(), replicas.pid(leader)?);
    memory::reset_peak(pid)?;
    let file = replicas.folder.join("sink");
    let ask = Ask::Subscribe {
        cursor: "new".to_owned(),
        file: file.clone(),
        stalled: false,
    };
    replicas.link(leader).ask(ask, SOON).context("subscribe")?;
    let handed = replicas.wait(PATIENCE, "a snapshot to be handed over", || {
        let events = sink::read(&file).ok()?;
        events.into_iter().find(|event| *event != Event::Life)
    })?;
    let Event::Snapshot {
        chunks: had,
        hash: of,
        ..
    } = &handed
    else {
        anyhow::bail!("a new subscriber was handed {handed:?} in place of a snapshot");
    };
    let is_whole = *had == chunks as usize && *of == format!("{hash:016x}");
    ensure!(
        is_whole,
        "a new subscriber was handed another state: {handed:?}"
    );
    note("big_subscriber_extra", extra(pid, rest)?, started);

    replicas.kill(away)?;
    let from = applied(leader)?;
    pass(from)?;
    snapshot(replicas, leader)?;
    let (started, pid) = (Instant::now(), replicas.pid(leader)?);
    memory::reset_peak(pid)?;
    replicas.start(away)?;
    caught_up(replicas, away, from + PASSED)?;
    ensure!(
        bulk_hash(replicas, away)? == hash,
        "the node that was away has another state"
    );
    note("big_sender_extra", extra(pid, rest)?, started);
    note(
        "big_receiver_extra",
        extra(replicas.pid(away)?, rest)?,
        started,
    );

    replicas.kill(away)?;
    let started = Instant::now();
    replicas.start(away)?;
    caught_up(replicas, away, applied(leader)?)?;
    ensure!(
        bulk_hash(replicas, away)? == hash,
        "the restarted node has another state"
    );
    note(
        "big_restart_extra",
        extra(replicas.pid(away)?, rest)?,
        started,
    );
    Ok(taken)
}

fn bulk_hash(replicas: &Replicas, id: u64) -> Result<u64> {
    let hash = replicas
        .link(id)
        .value(Ask::BulkHash, Duration::from_secs(60));
    hash.with_context(|| format!("the state of node {id}"))
}

fn snapshot(replicas: &Replicas, id: u64) -> Result<u64> {
    let taken = replicas.link(id).value(Ask::Snapshot, PATIENCE);
    taken.with_context(|| format!("a snapshot of node {id}"))
}

fn caught_up(replicas: &Replicas, id: u64, index: u64) -> Result<()> {
    let is_there = |status: Status| status.is_running && status.applied >= index;
    replicas.wait(PATIENCE, &format!("node {id} to catch up"), || {
        replicas
            .link(id)
            .status()
            .ok()
            .filter(|s| is_there(s.clone()))
            .map(drop)
    })
}

/// The state that all nodes have.
struct State {
    chunks: u32,
    hash: u64,
    /// What a process with this state has when it does nothing, in KiB.
    rest: u64,
}

/// The least that any node has: what others have beyond that is extra already.
fn rest(replicas: &Replicas) -> Result<u64> {
    let all: Vec<_> = replicas
        .ids()
        .map(|id| Ok(memory::look(replicas.pid(id)?)?.resident))
        .collect::<Result<_>>()?;
    all.into_iter().min().context("there is no node")
}

/// The most that a process had since its start or since the mark was reset, beyond `rest`, in MiB.
fn extra(pid: i32, rest: u64) -> Result<u64> {
    Ok(memory::look(pid)?.peak.saturating_sub(rest) >> 10)
}
