//! A subscriber that is killed, with its whole process or alone, resumes from its cursor: without a gap, in order, and
//! nothing twice within a life, while the log is compacted all the time.
//!
//! What it was handed is compared with what a subscriber on another node was, which nobody touches. Every command adds
//! one, so that the counter in a snapshot says which commands it stands for; and most of them are in the log twice, so
//! that a copy which is delivered shows.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::api::client::Session;
use tests::api::cluster::{RECOVERY, Replicas};
use tests::api::machine::Command;
use tests::api::sink::{self, Event};
use tests::api::wire::Ask;
use tests::random::Random;

use crate::load::{Named, Pace, proposing};
use crate::report::Report;

/// Whose subscriber is killed, and whose is not.
const STRUCK: u64 = 3;
const SPARED: u64 = 1;
const SOON: Duration = Duration::from_secs(20);

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    let kills = report.form(50, 8);
    let args = ["--every-entries", "300", "--margin", "50"];
    let replicas = report.replicas("nodes", &args)?;
    replicas.start_all()?;
    let (reference, struck) = (sink_of(&replicas, SPARED), sink_of(&replicas, STRUCK));
    subscribe(&replicas, SPARED, reference.clone())?;
    subscribe(&replicas, STRUCK, struck.clone())?;
    let session = Session::open(&replicas.links, RECOVERY)?;
    let pace = Pace {
        threads: 6,
        pause: Duration::from_millis(1),
    };
    let (done, seen) = proposing(
        &replicas,
        &[1, 2],
        pace,
        Named::Twice(&session),
        |_| Command::Add(1),
        || -> Result<()> {
            for kill in 0..kills {
                thread::sleep(Duration::from_millis(100 + random.below(400)));
                // Alone, or with all that is around it; for a moment, or until the log goes on without it.
                let away = Duration::from_millis(random.below(2) * random.below(1500));
                if kill % 2 == 0 {
                    replicas.kill(STRUCK)?;
                    thread::sleep(away);
                    replicas.start(STRUCK)?;
                } else {
                    let ask = Ask::Unsubscribe { cursor: cursor() };
                    replicas
                        .link(STRUCK)
                        .ask(ask, SOON)
                        .context("unsubscribe")?;
                    thread::sleep(away);
                }
                subscribe(&replicas, STRUCK, struck.clone())?;
                if (kill + 1) % 10 == 0 || kill + 1 == kills {
                    report.say(&format!("{} of {kills} killed", kill + 1));
                }
            }
            Ok(())
        },
    );
    done?;
    replicas.converge(RECOVERY)?;
    let last = |events: &[Event]| events.iter().rev().find_map(index);
    replicas.wait(SOON, "the subscribers to be handed everything", || {
        let [spared, struck] = [&reference, &struck].map(|file| sink::read(file).ok());
        let (spared, struck) = (last(&spared?), last(&struck?));
        (spared.is_some() && spared <= struck).then_some(())
    })?;
    let reference = sink::read(&reference)?;
    let handed = sink::read(&struck)?;
    let truth = truth(&reference, &seen.indexes)?;
    let found = judge(&truth, &handed);
    for fault in found.faults.iter().take(10) {
        report.fault(fault);
    }
    report.say(&format!(
        "{} commands, {} handed over in {} lives, {} snapshots among them",
        truth.len(),
        found.commands,
        found.lives,
        found.snapshots
    ));
    let figures = &mut report.figures;
    figures.exactly(
        "cursor_kills",
        found.lives.saturating_sub(1),
        "count",
        kills,
    );
    figures.exactly("cursor_gaps", found.gaps, "count", 0);
    figures.exactly("cursor_out_of_order_or_twice", found.disorder, "count", 0);
    figures.exactly("cursor_wrong", found.wrong, "count", 0);
    figures.at_least("cursor_snapshots_handed", found.snapshots, "count", 1);
    Ok(())
}

fn cursor() -> String {
    "reader".to_owned()
}

fn sink_of(replicas: &Replicas, id: u64) -> PathBuf {
    replicas.folder.join(format!("sink{id}"))
}

/// As soon as the node takes it: it may just have been started.
fn subscribe(replicas: &Replicas, id: u64, file: PathBuf) -> Result<()> {
    replicas.wait(SOON, "a subscription to begin", || {
        let ask = Ask::Subscribe {
            cursor: cursor(),
            file: file.clone(),
            stalled: false,
        };
        replicas.link(id).ask(ask, SOON).ok()
    })?;
    Ok(())
}

fn index(event: &Event) -> Option<u64> {
    match event {
        Event::Life => None,
        Event::Command { index, .. } | Event::Snapshot { index, .. } => Some(*index),
    }
}

/// A command as it must be delivered: index, term, hash.
type Truth = Vec<(u64, u64, String)>;

/// What the spared subscriber was handed, which must be all that was acknowledged.
fn truth(reference: &[Event], acknowledged: &[u64]) -> Result<Truth> {
    let mut truth = Truth::new();
    for event in reference.iter().skip(1) {
        let Event::Command {
            index, term, hash, ..
        } = event
        else {
            anyhow::bail!("the subscriber that nobody touched was handed {event:?}");
        };
        let before = truth.last().map_or(0, |last| last.0);
        ensure!(
            *index > before,
            "the subscriber that nobody touched was handed {index} behind {before}"
        );
        truth.push((*index, *term, hash.clone()));
    }
    for index in acknowledged {
        let is_there = truth
            .binary_search_by_key(index, |command| command.0)
            .is_ok();
        ensure!(
            is_there,
            "entry {index} was acknowledged, and not delivered"
        );
    }
    Ok(truth)
}

#[derive(Debug, Default)]
struct Found {
    lives: u64,
    commands: u64,
    snapshots: u64,
    gaps: u64,
    disorder: u64,
    wrong: u64,
    faults: Vec<String>,
}

fn judge(truth: &[(u64, u64, String)], handed: &[Event]) -> Found {
    let mut found = Found::default();
    // How many of the commands were handed over in any life so far, and in this one.
    let mut covered = 0;
    let mut at: Option<usize> = None;
    let upto = |index: u64| truth.partition_point(|command| command.0 <= index);
    for event in handed {
        match event {
            Event::Life => {
                found.lives += 1;
                at = None;
            }
            Event::Snapshot { index, counter, .. } => {
                found.snapshots += 1;
                let place = upto(*index);
                if *counter != place as u64 {
                    found.wrong += 1;
                    found.faults.push(format!(
                        "the snapshot through {index} counts {counter}, and there were {place} commands"
                    ));
                }
                if at.is_some_and(|at| place < at) {
                    found.disorder += 1;
                    found
                        .faults
                        .push(format!("a snapshot through {index} behind command {at:?}"));
                }
                at = Some(place);
                covered = covered.max(place);
            }
            Event::Command {
                index, term, hash, ..
            } => {
                found.commands += 1;
                let place = upto(*index).saturating_sub(1);
                if truth.get(place).map(|t| (t.0, t.1, &t.2)) != Some((*index, *term, hash)) {
                    found.wrong += 1;
                    found
                        .faults
                        .push(format!("{event:?} is a copy, or was never committed"));
                    continue;
                }
                // Where a life goes on; a new one anywhere at or before what was covered.
                let next = at.unwrap_or(place.min(covered));
                if place > next {
                    found.gaps += 1;
                    found.faults.push(format!(
                        "{} commands before {index} are missing",
                        place - next
                    ));
                }
                if place < next {
                    found.disorder += 1;
                    found.faults.push(format!(
                        "{index} came again, or late, in life {}",
                        found.lives
                    ));
                }
                at = Some(place + 1);
                covered = covered.max(place + 1);
            }
        }
    }
    if covered < truth.len() {
        found.gaps += 1;
        found.faults.push(format!(
            "the last {} commands never came",
            truth.len() - covered
        ));
    }
    found
}

#[cfg(test)]
mod test {
    use super::*;

    fn command(index: u64) -> Event {
        Event::Command {
            index,
            term: 1,
            replay: false,
            hash: "0".repeat(16),
        }
    }

    fn snapshot(index: u64, counter: u64) -> Event {
        Event::Snapshot {
            index,
            chunks: 0,
            hash: "0".repeat(16),
            counter,
        }
    }

    /// Gaps, disorder, wrong ones.
    fn counts(handed: &[Event]) -> (u64, u64, u64) {
        let truth: Truth = [2, 3, 5, 6, 8]
            .map(|index| (index, 1, "0".repeat(16)))
            .into();
        let found = judge(&truth, handed);
        (found.gaps, found.disorder, found.wrong)
    }

    #[test]
    fn what_a_subscriber_was_handed_is_judged() {
        let [a, b, c, d, e] = [2, 3, 5, 6, 8].map(command);
        let life = Event::Life;
        let list = |events: &[&Event]| events.iter().map(|&e| e.clone()).collect::<Vec<_>>();
        assert_eq!(counts(&list(&[&life, &a, &b, &c, &d, &e])), (0, 0, 0));
        // Again in a new life, but not in one.
        assert_eq!(
            counts(&list(&[&life, &a, &b, &life, &b, &c, &d, &e])),
            (0, 0, 0)
        );
        assert_eq!(counts(&list(&[&life, &a, &b, &b, &c, &d, &e])), (0, 1, 0));
        assert_eq!(counts(&list(&[&life, &a, &b, &life, &d, &e])), (1, 0, 0));
        assert_eq!(counts(&list(&[&life, &a, &b, &d, &e])), (1, 0, 0));
        assert_eq!(counts(&list(&[&life, &a, &b, &c, &d])), (1, 0, 0));
        assert_eq!(
            counts(&list(&[&life, &a, &snapshot(5, 3), &d, &e])),
            (0, 0, 0)
        );
        assert_eq!(
            counts(&list(&[&life, &a, &snapshot(5, 2), &d, &e])),
            (0, 0, 1)
        );
        assert_eq!(counts(&list(&[&life, &a, &snapshot(5, 3), &e])), (1, 0, 0));
        assert_eq!(
            counts(&list(&[&life, &a, &snapshot(5, 3), &c, &d, &e])),
            (0, 1, 0)
        );
        assert_eq!(
            counts(&list(&[&life, &a, &command(4), &b, &c, &d, &e])),
            (0, 0, 1)
        );
    }
}
