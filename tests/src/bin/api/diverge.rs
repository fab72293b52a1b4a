//! A replica whose state machine answers one command with one other bit names itself within a second, and stops serving;
//! the others go on. The leader is tried as well as a follower.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::api::client::{Trouble, propose};
use tests::api::cluster::{RECOVERY, Replicas};
use tests::api::machine::Command;
use tests::api::wire::{Ask, Name};

use crate::load::{Named, Pace, proposing};
use crate::report::Report;

const SOON: Duration = Duration::from_secs(10);
/// How long a node may take to find that it differs.
const NAMED_MAX: Duration = Duration::from_secs(1);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let rounds = report.form(10, 2);
    let (mut slowest, mut named, mut served, mut went_on) = (Duration::ZERO, 0, 0, 0);
    for round in 0..rounds {
        let replicas = report.replicas(&format!("{round}"), &[])?;
        let leader = replicas.start_all()?;
        let of = if round % 2 == 0 {
            "a follower"
        } else {
            "the leader"
        };
        let victim = match round % 2 {
            0 => leader % 3 + 1,
            _ => leader,
        };
        let others: Vec<_> = replicas.ids().filter(|id| *id != victim).collect();
        let pace = Pace {
            threads: 2,
            pause: Duration::from_millis(2),
        };
        let add = |_| Command::Add(1);
        let (after, _) = proposing(
            &replicas,
            &others,
            pace,
            Named::ByNodes,
            add,
            || -> Result<_> {
                thread::sleep(Duration::from_millis(500));
                replicas.link(victim).ask(Ask::Flip, SOON).context("flip")?;
                let flipped = Instant::now();
                let what = format!("{of}, node {victim}, to find that it differs");
                let diverged = || {
                    replicas
                        .link(victim)
                        .status()
                        .ok()
                        .filter(|s| s.is_diverged)
                };
                let status = replicas.wait(SOON, &what, diverged);
                Ok(status.map(|status| (flipped.elapsed(), status)))
            },
        );
        let (after, status) = match after? {
            Ok(found) => found,
            Err(error) => {
                report.fault(&format!("{error:#}"));
                continue;
            }
        };
        report.say(&format!(
            "round {}: {of}, after {} ms: {}",
            round + 1,
            after.as_millis(),
            status.failure.unwrap_or_default()
        ));
        named += 1;
        slowest = slowest.max(after);
        if serves(&replicas, victim) {
            served += 1;
            report.fault(&format!("{of}, node {victim}, differs and serves"));
        }
        let goes_on = replicas.wait(RECOVERY, "the others to go on", || {
            let proposed =
                |id: &u64| propose(replicas.link(*id), &Command::Add(1), Name::Node, SOON).is_ok();
            others.iter().all(proposed).then_some(())
        });
        let is_alone = others.iter().all(|id| {
            let status = replicas.status(*id);
            status.is_ok_and(|status| status.is_running && status.failure.is_none())
        });
        match goes_on {
            Ok(()) if is_alone => went_on += 1,
            Ok(()) => report.fault("another node failed too"),
            Err(error) => report.fault(&format!("{error:#}")),
        }
    }
    let figures = &mut report.figures;
    figures.exactly("diverged_named", named, "count", rounds);
    let slowest = slowest.as_millis() as u64;
    figures.at_most(
        "diverged_after",
        slowest,
        "ms",
        NAMED_MAX.as_millis() as u64,
    );
    figures.exactly("diverged_served", served, "count", 0);
    figures.exactly("diverged_others_went_on", went_on, "count", rounds);
    Ok(())
}

/// Whether a node answers a read, even a stale one, or takes a proposal.
fn serves(replicas: &Replicas, id: u64) -> bool {
    let link = replicas.link(id);
    let counter = |stale| link.ask(Ask::Counter { stale }, SOON);
    let proposed = propose(link, &Command::Add(1), Name::Node, Duration::from_secs(2));
    let is_refused = |trouble: Option<Trouble>| matches!(trouble, Some(Trouble::Refused(_)));
    !(is_refused(counter(true).err())
        && is_refused(counter(false).err())
        && is_refused(proposed.err()))
}
