//! Any file of a stopped node's folder damaged: a bit flipped, a range zeroed, cut, swapped, the file removed.
//!
//! The answer must be one of two: everything acknowledged is there and can be read to the last byte, or a refusal
//! that names the folder or file, the reason and what to do.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tests::crash::check::look;
use tests::crash::harm::{copy, damage, files};
use tests::crash::verdict::{Verdict, judge};
use tests::crash::watch::{Known, Writer};
use tests::random::Random;

use crate::report::{PATIENCE, Report};

/// Stopped nodes that are damaged: what their writers were told in each of their lives.
const PREPARED: [(&str, &[&[&str]]); 5] = [
    (
        "a log in the log file only",
        &[&["--steps", "40", "--killed"]],
    ),
    (
        "several lives, closed in order",
        &[&["--steps", "60"], &["--steps", "60"], &["--steps", "60"]],
    ),
    (
        "several lives, the last one killed",
        &[
            &["--steps", "150"],
            &["--steps", "100", "--killed"],
            &["--steps", "80", "--killed"],
        ],
    ),
    (
        "a long life, compacted",
        &[&["--steps", "900"], &["--steps", "200", "--killed"]],
    ),
    (
        "more than a memtable",
        &[
            &["--steps", "1100", "--full", "--no-records"],
            &["--steps", "30"],
        ],
    ),
];

/// A stopped node's folder.
struct Stopped {
    name: &'static str,
    dir: PathBuf,
    known: Known,
}

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    let rounds = report.rounds(500, 60);
    let mut stopped = Vec::new();
    for (name, lives) in PREPARED {
        // The large one takes its time.
        if report.quick && name == PREPARED[4].0 {
            continue;
        }
        stopped.push(prepare(report, &mut random, name, lives)?);
    }
    let (mut whole, mut refused) = (0, 0);
    for round in 1..=rounds {
        let at = random.below(stopped.len() as u64 * 8);
        // The large one less often than the others.
        let which = if at < 4 {
            stopped.len() - 1
        } else {
            at as usize % (stopped.len() - 1)
        };
        match one(report, &mut random, &stopped[which])? {
            Verdict::Whole { .. } => whole += 1,
            Verdict::Refused(_) => refused += 1,
            Verdict::Faulty(..) => {}
        }
        if round % 50 == 0 || round == rounds {
            report.say(&format!(
                "{round} of {rounds}: whole {whole}, refused {refused}"
            ));
        }
    }
    report.figure("damages", rounds, rounds);
    report.figure("damages_judged_right", whole + refused, rounds);
    Ok(())
}

fn prepare(
    report: &Report,
    random: &mut Random,
    name: &'static str,
    lives: &[&[&str]],
) -> Result<Stopped> {
    let dir = report.dir().join(name.replace([' ', ','], "-"));
    let mut known = Known::default();
    for life in lives {
        let seed = random.number().to_string();
        let words = ["--seed", &seed].into_iter().chain(life.iter().copied());
        let arguments: Vec<_> = words.map(str::to_owned).collect();
        let ended = Writer::start(&report.programs, &dir, known, &arguments)?.end(PATIENCE)?;
        known = ended.known;
        let is_well = known.contradiction.is_none() && known.pending.is_none();
        ensure!(is_well && ended.words.is_empty(), "{name}: {}", ended.words);
    }
    let files = files(&dir)?;
    let bytes: u64 = files
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|file| file.len())
        .sum();
    report.say(&format!(
        "{name}: {} files, {} KiB, the log from {} to {}, a snapshot through {:?}",
        files.len(),
        bytes >> 10,
        known.acked.start.1 + 1,
        known.acked.last(),
        known.acked.snapshot
    ));
    Ok(Stopped { name, dir, known })
}

fn one(report: &mut Report, random: &mut Random, stopped: &Stopped) -> Result<Verdict> {
    let dir = report.dir().join("damaged");
    copy(&stopped.dir, &dir)?;
    let mut told = None;
    let mut name = String::new();
    while told.is_none() {
        let files = files(&dir)?;
        let file = &files[random.below(files.len() as u64) as usize];
        name = file
            .strip_prefix(&dir)
            .context("a file of it")?
            .display()
            .to_string();
        told = damage(file, random)?;
    }
    let what = format!("{}: {name}: {}", stopped.name, told.unwrap_or_default());
    let verdict = judge(look(&report.programs, &dir, 1)?, &stopped.known, &dir);
    if matches!(verdict, Verdict::Faulty(..)) {
        report.accept(&verdict, &what, &dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(verdict)
}
