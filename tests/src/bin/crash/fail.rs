//! The k-th system call of a whole node fails, or stalls for ten seconds.
//!
//! A node whose write or sync has failed must end within a second, by name, acknowledge nothing behind that, and its
//! folder must hold all that it had acknowledged. One whose sync stalls acknowledges nothing meanwhile, and goes on
//! when it is over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::cluster::free_ports;
use tests::crash::check::ask;
use tests::crash::node::{Command, FAILED, NOT_STARTED};
use tests::crash::strace::{Ended, Injection, Traced, missing};
use tests::random::Random;

use crate::report::Report;

/// The calls that fail. Their k-th call fails for each k up to 50.
const KINDS: [Injection; 3] = [
    injection("fdatasync", "error=EIO", false),
    injection("write", "error=ENOSPC", true),
    injection("pwrite64", "error=EIO", false),
];
/// Calls that a node makes when it starts, and seldom later.
const AT_START: Injection = injection("fsync", "error=EIO", false);
/// So many of them a new node makes at least.
const AT_START_MAX: u64 = 8;
/// A stall of ten seconds, once the node is well on its way.
const STALL: Injection = Injection {
    when: 60,
    ..injection("fdatasync", "delay_enter=10s", false)
};

const K_MAX: u64 = 50;
/// A folder is used so often; then the next node begins with an empty one.
const LIVES: u64 = 5;
/// How soon a node must have ended.
const END_WITHIN_MICROS: u64 = 1_000_000;
/// How long an acknowledgement from before may be on its way, where the call was none of the next command's.
const ON_ITS_WAY_MICROS: u64 = 50_000;
/// A call that has not come by then never does.
const PATIENCE: Duration = Duration::from_secs(15);

const fn injection(call: &'static str, how: &'static str, logs_only: bool) -> Injection {
    Injection {
        call,
        how,
        when: 1,
        logs_only,
    }
}

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    if let Some(missing) = missing() {
        report.skip(&missing);
        return Ok(());
    }
    // In the short form a few of each, from the start's calls on.
    let each = report.rounds(K_MAX, 5);
    let (mut failed, mut stalled) = (0, 0);
    for kind in KINDS {
        let mut node = Node::new(report, kind.call)?;
        let mut starts = 0;
        for nth in 1..=each {
            let when = if each == K_MAX {
                nth
            } else {
                nth * nth * 2 - 1
            };
            if nth % LIVES == 0 {
                node = Node::new(report, &format!("{}-{nth}", kind.call))?;
            }
            match node.fail(report, Injection { when, ..kind })? {
                Some(end) => {
                    failed += 1;
                    starts += u64::from(end == NOT_STARTED);
                }
                None => node = Node::new(report, &format!("{}-{nth}-next", kind.call))?,
            }
        }
        report.say(&format!(
            "{}: {each} calls failed, {starts} of them at a start",
            kind.call
        ));
    }
    let mut extra = 0;
    for when in 1..=if report.quick { 2 } else { AT_START_MAX } {
        let mut node = Node::new(report, &format!("{}-{when}", AT_START.call))?;
        extra += u64::from(node.fail(report, Injection { when, ..AT_START })?.is_some());
    }
    report.say(&format!("fsync: {extra} calls failed"));
    let stalls = if report.quick { 1 } else { 5 };
    for nth in 0..stalls {
        let mut node = Node::new(report, &format!("stall-{nth}"))?;
        let when = STALL.when + random.below(100);
        stalled += u64::from(node.stall(report, Injection { when, ..STALL })?);
    }
    let kinds = KINDS.len() as u64;
    report.figure("failed_calls", failed, each * kinds);
    report.figure("stalled_calls", stalled, stalls);
    Ok(())
}

/// A node's folder, and what was acknowledged there.
struct Node {
    dir: PathBuf,
    port: u16,
    acked: Vec<Command>,
    next: u64,
}

impl Node {
    fn new(report: &Report, name: &str) -> Result<Self> {
        let port = free_ports(1)?;
        Ok(Self {
            dir: report.dir().join(name),
            port: *port.first().context("a port")?,
            acked: Vec::new(),
            next: 1,
        })
    }

    fn start(&self, report: &Report, injection: Injection) -> Result<Traced> {
        Traced::start(
            &report.programs,
            &self.dir,
            self.port,
            self.next,
            Some(injection),
        )
    }

    /// Fails one call. The exit code, if all went as it must.
    fn fail(&mut self, report: &mut Report, injection: Injection) -> Result<Option<i32>> {
        let mut traced = self.start(report, injection)?;
        traced.wait(PATIENCE, |_| false)?;
        let ended = traced.end()?;
        let what = format!("{} {} {}", injection.call, injection.how, injection.when);
        let code = ended.status.and_then(|status| status.code());
        let mut right = self.take(report, &ended, &what)?;
        let Some(tampered) = &ended.tampered else {
            let words = format!("{what}: never happened: {}", ended.words);
            report.fault("other_faults", &words, Some(&self.dir));
            return Ok(None);
        };
        let what = format!("{what}: {}", tampered.line);
        let late = ended.at_micros.saturating_sub(tampered.at_micros);
        if ended.status.is_none() || late > END_WITHIN_MICROS {
            report.fault(
                "ended_late",
                &format!("{what}: after {late} µs"),
                Some(&self.dir),
            );
            right = false;
        }
        // Beside the first command of a life the node records what it is a member of.
        let is_first = !ended.acks.iter().any(|(_, at)| *at < tampered.at_micros);
        let grace = if tampered.is_in_a_write() && !is_first {
            0
        } else {
            ON_ITS_WAY_MICROS
        };
        let until = tampered.at_micros + grace;
        let after: Vec<_> = ended.acks.iter().filter(|(_, at)| *at > until).collect();
        if !after.is_empty() {
            let first = &after[..after.len().min(3)];
            let words = format!(
                "{what}: {} acknowledged, the first ones {first:?}",
                after.len()
            );
            report.fault("acks_after_failure", &words, Some(&self.dir));
            right = false;
        }
        // The first sync of all is that of the folder above.
        let above = self.dir.parent().unwrap_or(&self.dir);
        let by_name = ended.words.contains(&*above.to_string_lossy())
            && ["Input/output error", "No space left"]
                .iter()
                .any(|why| ended.words.contains(why))
            && !ended.words.contains("panicked");
        // RocksDB's own threads may still be at work when the program exits, and find its globals destroyed.
        let aborted = ended.words.contains("pthread lock: Invalid argument");
        if aborted {
            report.aborted_exit(&format!("{what}: {:?}", ended.words));
        }
        if !(aborted || matches!(code, Some(FAILED | NOT_STARTED))) || !by_name {
            let words = format!("{what}: {:?}: {:?}", ended.status, ended.words);
            report.fault("nameless_refusals", &words, Some(&self.dir));
            right = false;
        }
        Ok(code.or(aborted.then_some(FAILED)).filter(|_| right))
    }

    /// Stalls one call. Whether all went as it must.
    fn stall(&mut self, report: &mut Report, injection: Injection) -> Result<bool> {
        let mut traced = self.start(report, injection)?;
        let over = 10_000_000;
        let has_gone_on = |traced: &Traced| {
            let tampered = traced.tampered().ok().flatten();
            let last = traced.acks().last().map_or(0, |(_, at)| *at);
            tampered.is_some_and(|tampered| last > tampered.at_micros + over)
        };
        traced.wait(Duration::from_secs(40), has_gone_on)?;
        let goes_on = has_gone_on(&traced);
        let ended = traced.end()?;
        let what = format!("a stall at fdatasync {}", injection.when);
        let mut right = self.take(report, &ended, &what)?;
        let from = ended
            .tampered
            .as_ref()
            .map_or(0, |tampered| tampered.at_micros);
        let grace = ended.tampered.as_ref().map_or(0, |tampered| {
            if tampered.is_in_a_write() {
                0
            } else {
                ON_ITS_WAY_MICROS
            }
        });
        // The clocks of the two agree, and a margin at the end is for the call itself.
        let during = ended
            .acks
            .iter()
            .filter(|(_, at)| (from + grace..from + over - 100_000).contains(at));
        let during = during.count();
        if during > 0 {
            report.fault(
                "acks_after_failure",
                &format!("{what}: {during} during it"),
                Some(&self.dir),
            );
            right = false;
        }
        if !goes_on {
            let words = format!(
                "{what}: it did not go on: {:?} {}",
                ended.tampered, ended.words
            );
            report.fault("other_faults", &words, Some(&self.dir));
            right = false;
        }
        report.say(&format!(
            "{what}: {} acknowledged, none of them during it",
            ended.acks.len()
        ));
        Ok(right)
    }

    /// Takes note of what was acknowledged, and looks whether the folder holds it.
    fn take(&mut self, report: &mut Report, ended: &Ended, what: &str) -> Result<bool> {
        self.acked
            .extend(ended.acks.iter().map(|(command, _)| *command));
        // Those that were under way were never answered; no number is used twice.
        self.next = self.acked.last().map_or(self.next, |last| last.n + 1) + 1000;
        let dir: &Path = &self.dir;
        let found: Result<Vec<Command>, String> = match ask(&report.programs, "commands", dir, &[])?
        {
            Ok(answer) => answer,
            Err(died) => {
                report.fault("died", &format!("{what}: {died}"), Some(dir));
                return Ok(false);
            }
        };
        let found: BTreeSet<_> = match found {
            Ok(found) => found
                .iter()
                .map(|command| (command.n, command.index, command.term))
                .collect(),
            Err(why) => {
                report.fault("wrong_refusals", &format!("{what}: {why}"), Some(dir));
                return Ok(false);
            }
        };
        let is_lost =
            |command: &&Command| !found.contains(&(command.n, command.index, command.term));
        let lost: Vec<_> = self.acked.iter().filter(is_lost).collect();
        if !lost.is_empty() {
            report.fault("lost_acks", &format!("{what}: {lost:?}"), Some(dir));
            return Ok(false);
        }
        Ok(true)
    }
}
