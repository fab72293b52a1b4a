//! Power losses: what was not synced is gone, or any part of it, on one node or on three of them at once.
//!
//! The writers write to a disk that this process serves, and whose power fails at a chosen call: in the middle of a
//! write, between a write and its sync, while the folder is made, while the log is recovered from the loss before.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::crash::check::look;
use tests::crash::disk::{Disk, Loss};
use tests::crash::forgetful::{Mounted, lock};
use tests::crash::mounts;
use tests::crash::verdict::{Verdict, judge};
use tests::crash::watch::{Known, Writer};
use tests::random::Random;

use crate::report::{PATIENCE, Report};

/// A disk is used so often; then the next is an empty one.
const LIVES: u64 = 5;
/// A power that has not failed by then is switched off.
const ON_MAX: Duration = Duration::from_secs(4);

pub(crate) fn run(report: &mut Report, random: Random) -> Result<()> {
    let rounds = report.rounds(50, 10);
    if let Some(missing) = mounts::missing(true) {
        report.skip(&missing);
        return Ok(());
    }
    let mut losses = Losses::new(report, random, false)?;
    let opened = losses.rounds(rounds)?;
    report.figure("unsynced_opened", opened, rounds);
    Ok(())
}

/// The same on a disk that lies: what this part would say if syncs were missing.
pub(crate) fn lie(report: &mut Report, random: Random) -> Result<()> {
    let rounds = report.rounds(10, 10);
    if let Some(missing) = mounts::missing(true) {
        report.skip(&missing);
        return Ok(());
    }
    let mut losses = Losses::new(report, random, true)?;
    let opened = losses.rounds(rounds)?;
    report.figure("lied_to_and_opened", opened, rounds);
    Ok(())
}

struct Losses<'r> {
    report: &'r mut Report,
    random: Random,
    lies: bool,
    disk: Arc<Mutex<Disk>>,
    /// Whether much is written to this disk.
    is_heavy: bool,
    nodes: Vec<Known>,
}

impl<'r> Losses<'r> {
    fn new(report: &'r mut Report, random: Random, lies: bool) -> Result<Self> {
        let point = report.dir().join("mnt");
        fs::create_dir_all(&point).with_context(|| format!("make {}", point.display()))?;
        Ok(Self {
            report,
            random,
            lies,
            disk: Arc::default(),
            is_heavy: false,
            nodes: Vec::new(),
        })
    }

    fn rounds(&mut self, rounds: u64) -> Result<u64> {
        let point = self.report.dir().join("mnt");
        let (mut opened, mut reused) = (0, 0);
        let mut is_good = false;
        for round in 1..=rounds {
            if !is_good || round % LIVES == 1 {
                reused += lock(&self.disk).logs_reused();
                self.disk = Arc::default();
                self.is_heavy = (round / LIVES) % 3 == 1;
                let count = if (round / LIVES).is_multiple_of(2) {
                    1
                } else {
                    3
                };
                self.nodes = vec![Known::default(); count];
            }
            let mounted = Mounted::mount(Arc::clone(&self.disk), &point)?;
            let calls = self.write(&point, &mounted)?;
            mounted.unmount()?;
            let loss = Loss::KINDS[self.random.below(5) as usize];
            let lost = lock(&self.disk).lose(loss, &mut self.random);
            let mounted = Mounted::mount(Arc::clone(&self.disk), &point)?;
            is_good = self.judge(&point, round, &lost)?;
            mounted.unmount()?;
            opened += u64::from(is_good);
            let ends: Vec<_> = self.nodes.iter().map(|known| known.acked.last()).collect();
            self.report.say(&format!(
                "{round} of {rounds}: power lost at call {calls} of {} nodes; {lost}; {}, ending at {ends:?}",
                self.nodes.len(),
                if is_good { "opened" } else { "NOT AS IT MUST BE" },
            ));
        }
        reused += lock(&self.disk).logs_reused();
        self.report
            .say(&format!("{reused} log files were written over old ones"));
        Ok(opened)
    }

    /// Lets all write until the power fails; says after how many calls.
    fn write(&mut self, point: &Path, mounted: &Mounted) -> Result<u64> {
        // Some early, in the making or the recovery of a folder.
        let within = match self.random.below(3) {
            0 => 60,
            1 => 500,
            // Until log files are written over old ones.
            _ if self.is_heavy => 20_000,
            _ => 5000,
        };
        let calls = 1 + self.random.below(within * self.nodes.len() as u64);
        {
            let mut disk = mounted.disk();
            disk.cut_after(calls);
            if self.lies {
                disk.lie();
            }
        }
        let mut writers = Vec::new();
        for (node, known) in (1..).zip(&self.nodes) {
            let seed = self.random.number();
            let arguments = ["--seed", &seed.to_string(), "--node", &node.to_string()];
            let more = self.is_heavy.then_some("--full");
            let arguments: Vec<_> = arguments
                .into_iter()
                .chain(more)
                .map(str::to_owned)
                .collect();
            let dir = point.join(node.to_string());
            let writer = Writer::start(&self.report.programs, &dir, known.clone(), &arguments)?;
            writers.push(writer);
        }
        let started = Instant::now();
        while !mounted.disk().is_off() {
            if started.elapsed() > ON_MAX {
                mounted.disk().cut();
            }
            thread::sleep(Duration::from_millis(1));
        }
        // What fails now may not be acknowledged any more; a little time to do it wrong.
        thread::sleep(Duration::from_millis(20));
        for (writer, known) in writers.iter_mut().zip(&mut self.nodes) {
            writer.kill()?;
            *known = writer.known();
        }
        for (writer, known) in writers.into_iter().zip(&mut self.nodes) {
            *known = writer.end(PATIENCE)?.known;
        }
        Ok(calls)
    }

    fn judge(&mut self, point: &Path, round: u64, lost: &str) -> Result<bool> {
        let mut all = true;
        for (node, known) in (1..).zip(&mut self.nodes) {
            let dir = point.join(node.to_string());
            let what = format!("round {round}, node {node}, {lost}");
            all &= self.report.consistent(known, &what);
            match judge(look(&self.report.programs, &dir, node)?, known, &dir) {
                Verdict::Whole { starts, held } => known.opened(starts, held),
                Verdict::Refused(why) => {
                    let words = format!("{what}: {why}");
                    self.report.fault("wrong_refusals", &words, Some(&dir));
                    all = false;
                }
                verdict @ Verdict::Faulty(..) => {
                    self.report.accept(&verdict, &what, &dir);
                    all = false;
                }
            }
        }
        Ok(all)
    }
}
