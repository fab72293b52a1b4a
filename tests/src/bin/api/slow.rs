//! A subscriber that handles nothing for a minute: its node's memory stays bounded, nobody waits longer for a proposal,
//! and it has lost nothing when it goes on.
//!
//! Two clusters are driven by turns of half a second: one with such a subscriber, one without. So whatever else the machine
//! does weighs on both alike; and each of them has it once.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::api::cluster::Replicas;
use tests::api::machine::Command;
use tests::api::memory;
use tests::api::sink::{self, Event};
use tests::api::wire::Ask;

use crate::load::{Named, Pace, Seen, proposing};
use crate::report::Report;

const SOON: Duration = Duration::from_secs(60);
/// The bytes of a command: enough that what is held back would show.
const COMMAND: usize = 16 << 10;
/// Beyond what the node takes without such a subscriber.
const MIB_MAX: u64 = 64;

/// How much longer a proposal may wait beside such a subscriber.
const PERCENT_MAX: u64 = 120;
/// How often the two are compared, at most.
const REPEATS_MAX: usize = 3;

/// How long one of the two is driven at a time.
const SLICE: Duration = Duration::from_millis(500);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let phase = Duration::from_secs(report.form(60, 10));
    let clusters = [report.replicas("one", &[])?, report.replicas("other", &[])?];
    let leaders = [clusters[0].start_all()?, clusters[1].start_all()?];
    let drive = |which: usize| drive(&clusters[which], leaders[which]);
    // Memory that is taken once and for all is taken now.
    by_turns(phase / 4, |which| drop(drive(which)));
    let (mut with, mut without) = (Seen::default(), Seen::default());
    let (mut most_kib, mut lost, mut withheld) = (0, 0, 0);
    // Half a second of another's work can fall on one side only: what surprises is measured again, with what there is.
    for slow in [0, 1].into_iter().cycle().take(2 * REPEATS_MAX) {
        if slow == 0 && percent(&with, &without).is_some_and(|percent| percent <= PERCENT_MAX) {
            break;
        }
        let (replicas, leader) = (&clusters[slow], leaders[slow]);
        let link = replicas.link(leader);
        let pid = replicas.pid(leader)?;
        let cursor = || "slow".to_owned();
        let file = replicas.folder.join("sink");
        let ask = Ask::Subscribe {
            cursor: cursor(),
            file: file.clone(),
            stalled: true,
        };
        let before = memory::look(pid)?.anonymous;
        link.ask(ask, SOON).context("subscribe")?;
        let mut held_back = Vec::new();
        by_turns(phase, |which| {
            let seen = drive(which);
            if which == slow {
                held_back.extend(&seen.indexes);
                with.answered.extend(seen.answered);
            } else {
                without.answered.extend(seen.answered);
            }
        });
        let after = memory::look(pid)?.anonymous;
        most_kib = most_kib.max(after.saturating_sub(before));
        withheld = withheld.max((held_back.len() * COMMAND) as u64 >> 20);
        report.say(&format!(
            "{} commands held back for {} s, memory {} -> {} MiB",
            held_back.len(),
            phase.as_secs(),
            before >> 10,
            after >> 10
        ));
        link.ask(Ask::GoOn { cursor: cursor() }, SOON)
            .context("go on")?;
        let handed = replicas.wait(SOON, "the subscriber to catch up", || {
            let handed = indexes(&sink::read(&file).ok()?);
            (handed.last() >= held_back.iter().max()).then_some(handed)
        })?;
        let is_missing = |index: &&u64| handed.binary_search(index).is_err();
        lost += held_back.iter().filter(is_missing).count() as u64;
        lost += handed.windows(2).filter(|pair| pair[0] >= pair[1]).count() as u64;
        link.ask(Ask::Unsubscribe { cursor: cursor() }, SOON)
            .context("unsubscribe")?;
    }
    if lost > 0 {
        report.fault(&format!("{lost} commands were lost, or out of order"));
    }
    let (slow, fast) = (with.median_micros(), without.median_micros());
    report.say(&format!(
        "median with it {slow} us of {}, without {fast} us of {}",
        with.answered.len(),
        without.answered.len()
    ));
    let figures = &mut report.figures;
    figures.at_least("slow_withheld", withheld, "MiB", withheld_min(phase));
    figures.at_most("slow_memory", most_kib >> 10, "MiB", MIB_MAX);
    let percent = percent(&with, &without).unwrap_or(u64::MAX);
    figures.at_most("slow_median_of_without", percent, "percent", PERCENT_MAX);
    figures.exactly("slow_lost", lost, "count", 0);
    Ok(())
}

/// The median with such a subscriber, in percent of that without.
fn percent(with: &Seen, without: &Seen) -> Option<u64> {
    let seen = !(with.answered.is_empty() || without.answered.is_empty());
    seen.then(|| with.median_micros() * 100 / without.median_micros().max(1))
}

/// Drives a cluster for a slice.
fn drive(replicas: &Replicas, leader: u64) -> Seen {
    let pace = Pace {
        threads: 4,
        pause: Duration::from_millis(4),
    };
    let text = "x".repeat(COMMAND);
    let note = |n| Command::Note(format!("{n} {text}"));
    let sleep = || thread::sleep(SLICE);
    proposing(replicas, &[leader], pace, Named::ByNodes, note, sleep).1
}

/// One and the other, and then the other first, until the time is up.
fn by_turns(length: Duration, mut drive: impl FnMut(usize)) {
    let started = Instant::now();
    while started.elapsed() < length {
        [0, 1, 1, 0].into_iter().for_each(&mut drive);
    }
}

/// Clearly more than the bound of the memory, in a minute: else that would say nothing.
fn withheld_min(phase: Duration) -> u64 {
    if phase >= Duration::from_secs(60) {
        MIB_MAX * 3 / 2
    } else {
        1
    }
}

fn indexes(events: &[Event]) -> Vec<u64> {
    let command = |event: &Event| match event {
        Event::Command { index, .. } => Some(*index),
        _ => None,
    };
    events.iter().filter_map(command).collect()
}
