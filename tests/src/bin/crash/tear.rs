//! The last record of the log, cut at any byte or torn, behind what the mark claims and before it.
//!
//! A writer is killed behind its last step, and its folder is copied twice for each tear. In one copy the mark claims
//! the last record: that it is torn must be noticed, and refused by name. In the other the mark is the one from
//! just before that step, as if the writer had been killed between the two files: the step was never acknowledged,
//! and the folder must open with everything before it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tests::crash::check::look;
use tests::crash::harm::{TEARS, copy, tear};
use tests::crash::verdict::{Verdict, judge};
use tests::crash::wal::{LastRecord, last_record};
use tests::crash::watch::{Known, Writer};
use tests::random::Random;

use crate::report::{PATIENCE, Report};

/// So many tears for each writer.
const TEARS_EACH: u64 = 10;

/// A killed writer's folder.
struct Killed {
    dir: PathBuf,
    mark_before: PathBuf,
    known: Known,
    record: LastRecord,
}

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    let rounds = report.rounds(200, 40);
    let (mut right, mut refused, mut round) = (0, 0, 0);
    while round < rounds {
        let killed = prepare(report, &mut random, round)?;
        for _ in 0..TEARS_EACH.min(rounds - round) {
            round += 1;
            let claimed = random.below(2) == 0;
            if one(report, &mut random, &killed, claimed)? {
                right += 1;
                refused += u64::from(claimed);
            }
        }
        fs::remove_dir_all(&killed.dir)?;
        report.say(&format!(
            "{round} of {rounds}: {refused} refused, {} opened, the last record had {} bytes{}",
            right - refused,
            killed.record.range.len(),
            if killed.record.is_over_another {
                ", over an older log file"
            } else {
                ""
            }
        ));
    }
    report.figure("tears_judged_right", right, rounds);
    Ok(())
}

fn prepare(report: &Report, random: &mut Random, round: u64) -> Result<Killed> {
    let dir = report.dir().join(format!("{round}"));
    let mark_before = report.dir().join(format!("{round}.mark"));
    let mut known = Known::default();
    // Half of them have table files, from a life before.
    if random.below(2) == 0 {
        known = life(report, &dir, known, random, &["--steps", "20"])?;
    }
    let (mut steps, mut batch) = (1 + random.below(40), [3, 40, 400][random.below(3) as usize]);
    // Some live until the log file is written over an old one.
    let is_long = round % (5 * TEARS_EACH) == TEARS_EACH;
    if is_long {
        (steps, batch) = (2200, 150);
    }
    let (steps, batch) = (steps.to_string(), batch.to_string());
    let aside = mark_before.to_string_lossy().into_owned();
    let mut arguments = vec![
        "--steps",
        &steps,
        "--batch",
        &batch,
        "--killed",
        "--mark-aside",
        &aside,
    ];
    if is_long {
        arguments.push("--full");
    }
    let known = life(report, &dir, known, random, &arguments)?;
    ensure!(
        known.pending.is_none(),
        "the last step was not acknowledged"
    );
    let record = last_record(&dir)?;
    Ok(Killed {
        dir,
        mark_before,
        known,
        record,
    })
}

/// One life of a writer, which must go as it should.
fn life(
    report: &Report,
    dir: &Path,
    known: Known,
    random: &mut Random,
    arguments: &[&str],
) -> Result<Known> {
    let seed = random.number().to_string();
    let arguments: Vec<_> = ["--seed", &seed]
        .iter()
        .chain(arguments)
        .map(|word| (*word).to_owned())
        .collect();
    let ended = Writer::start(&report.programs, dir, known, &arguments)?.end(PATIENCE)?;
    let contradiction = ended.known.contradiction.clone();
    ensure!(
        contradiction.is_none() && ended.words.is_empty(),
        "a writer that nothing was done to: {contradiction:?} {}",
        ended.words
    );
    Ok(ended.known)
}

/// One tear. Whether what came of it is right.
fn one(report: &mut Report, random: &mut Random, killed: &Killed, claimed: bool) -> Result<bool> {
    let dir = report.dir().join("torn");
    copy(&killed.dir, &dir)?;
    let name = killed.record.file.file_name().context("a name")?;
    let file = dir.join("db").join(name);
    let mut told = None;
    while told.is_none() {
        let kind = random.below(TEARS.len() as u64) as usize;
        told = tear(&file, &killed.record.range, kind, random)?;
    }
    let mut known = killed.known.clone();
    if !claimed {
        fs::copy(&killed.mark_before, dir.join("mark"))?;
        known.pending = Some(known.acked.clone());
        known.acked = killed.known.before_last.clone();
    }
    let what = format!(
        "{}, the mark {} it",
        told.unwrap_or_default(),
        if claimed { "claims" } else { "does not claim" }
    );
    let verdict = judge(look(&report.programs, &dir, 1)?, &known, &dir);
    let right = match &verdict {
        Verdict::Refused(why) if claimed && why.contains("has lost what was synced") => true,
        Verdict::Whole { .. } if !claimed => true,
        Verdict::Refused(why) => {
            report.fault("wrong_refusals", &format!("{what}: {why}"), Some(&dir));
            false
        }
        Verdict::Whole { .. } => {
            report.fault("silent_losses", &format!("{what}: {verdict}"), Some(&dir));
            false
        }
        Verdict::Faulty(..) => report.accept(&verdict, &what, &dir),
    };
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(right)
}
