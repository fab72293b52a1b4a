//! A subscriber that handles nothing for a minute: its node's memory stays bounded, nobody waits longer for a proposal,
//! and it has lost nothing when it goes on.
//!
//! Phases with it and without it take turns in one run, so that whatever else the machine does weighs on both.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::api::cluster::RECOVERY;
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

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let phase = Duration::from_secs(report.form(60, 10));
    let replicas = report.replicas("nodes", &[])?;
    let leader = replicas.start_all()?;
    let nodes = [leader];
    let pace = Pace {
        threads: 4,
        pause: Duration::from_millis(4),
    };
    let text = "x".repeat(COMMAND);
    let drive = |length: Duration| {
        let note = |n| Command::Note(format!("{n} {text}"));
        proposing(&replicas, &nodes, pace, Named::ByNodes, note, || {
            thread::sleep(length)
        })
        .1
    };
    // Memory that is taken once and for all is taken now.
    drive(phase / 4);
    let (mut with, mut without) = (Seen::default(), Seen::default());
    let (mut most_kib, mut lost, mut withheld) = (0, 0, 0);
    let turns = report.form(3, 2);
    for turn in 0..turns {
        let pid = replicas.pid(leader)?;
        // Begun and ended by turns, too.
        for stalled in [turn % 2 == 0, turn % 2 != 0] {
            if !stalled {
                extend(&mut without, drive(phase / 2));
                continue;
            }
            let cursor = format!("slow {turn}");
            let file = replicas.folder.join(format!("sink{turn}"));
            let ask = Ask::Subscribe {
                cursor: cursor.clone(),
                file: file.clone(),
                stalled: true,
            };
            let before = memory::look(pid)?.anonymous;
            replicas.link(leader).ask(ask, SOON).context("subscribe")?;
            let seen = drive(phase);
            let after = memory::look(pid)?.anonymous;
            most_kib = most_kib.max(after.saturating_sub(before));
            withheld = withheld.max((seen.indexes.len() * COMMAND) as u64 >> 20);
            report.say(&format!(
                "turn {}: {} commands held back, memory {} -> {} MiB",
                turn + 1,
                seen.indexes.len(),
                before >> 10,
                after >> 10
            ));
            let wanted = seen.indexes.clone();
            extend(&mut with, seen);
            let go_on = Ask::GoOn {
                cursor: cursor.clone(),
            };
            replicas.link(leader).ask(go_on, SOON).context("go on")?;
            let last = replicas.converge(RECOVERY)?;
            let handed = replicas.wait(SOON, "the subscriber to catch up", || {
                let handed = indexes(&sink::read(&file).ok()?);
                let newest = wanted.iter().max();
                (handed.last().max(newest) == handed.last()).then_some(handed)
            })?;
            lost += wanted
                .iter()
                .filter(|i| handed.binary_search(i).is_err())
                .count() as u64;
            lost += handed.windows(2).filter(|pair| pair[0] >= pair[1]).count() as u64;
            let end = Ask::Unsubscribe { cursor };
            replicas
                .link(leader)
                .ask(end, SOON)
                .context("unsubscribe")?;
            report.say(&format!("turn {}: caught up with entry {last}", turn + 1));
        }
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
    figures.at_least("slow_withheld", withheld, "MiB", report_floor(phase));
    figures.at_most("slow_memory", most_kib >> 10, "MiB", MIB_MAX);
    let percent = slow * 100 / fast.max(1);
    figures.at_most("slow_median_of_without", percent, "percent", 120);
    figures.exactly("slow_lost", lost, "count", 0);
    Ok(())
}

/// As much as the memory's bound again, in a minute: else the bound would say nothing.
fn report_floor(phase: Duration) -> u64 {
    if phase >= Duration::from_secs(60) {
        2 * MIB_MAX
    } else {
        1
    }
}

fn extend(all: &mut Seen, more: Seen) {
    all.answered.extend(more.answered);
    all.indexes.extend(more.indexes);
}

fn indexes(events: &[Event]) -> Vec<u64> {
    let command = |event: &Event| match event {
        Event::Command { index, .. } => Some(*index),
        _ => None,
    };
    events.iter().filter_map(command).collect()
}
