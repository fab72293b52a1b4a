//! A disk without space: the writer ends by name, loses nothing, and goes on when there is space again.

use std::fs;

use anyhow::Result;
use tests::crash::check::{Found, look};
use tests::crash::harm::ballast;
use tests::crash::mounts::{missing, tmpfs};
use tests::crash::verdict::{Verdict, judge};
use tests::crash::watch::{Known, Writer};
use tests::crash::writer::{FAILED, REFUSED};
use tests::random::Random;

use crate::report::{PATIENCE, Report};

const MIB: u64 = 1 << 20;

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    let rounds = report.rounds(20, 3);
    if let Some(missing) = missing(false) {
        report.skip(&missing);
        return Ok(());
    }
    let (mut right, mut while_full) = (0, 0);
    for round in 1..=rounds {
        let (is_right, opened) = one(report, &mut random, round)?;
        right += u64::from(is_right);
        while_full += u64::from(opened);
    }
    report.say(&format!(
        "{rounds} disks filled, {while_full} folders opened while theirs was full"
    ));
    report.figure("full_disks", right, rounds);
    Ok(())
}

/// Fills one disk. Whether all went as it must, and whether the folder could be opened while it was full.
fn one(report: &mut Report, random: &mut Random, round: u64) -> Result<(bool, bool)> {
    let point = report.dir().join("mnt");
    fs::create_dir_all(&point)?;
    // Small ones fill up while the first log file grows, larger ones in the middle of a flush.
    let size = if round.is_multiple_of(4) {
        80 * MIB
    } else {
        (4 + random.below(12)) * MIB
    };
    // Opening brings what the log files hold into table files, and needs as much space for that.
    let spare = 8 * MIB + size;
    let disk = tmpfs(&point, size + spare)?;
    let filler = point.join("ballast");
    // Every second disk gets its space by a file that goes, the others by growing.
    let by_file = round.is_multiple_of(2);
    if by_file {
        ballast(&filler, spare as usize)?;
    } else {
        disk.resize(size)?;
    }
    let dir = point.join("node");
    let what = format!("round {round}, {} MiB", size / MIB);
    let start = |report: &Report, known: Known, seed: u64, more: &[&str]| {
        let seed = seed.to_string();
        let words = ["--seed", &seed].into_iter().chain(more.iter().copied());
        let arguments: Vec<_> = words.map(str::to_owned).collect();
        Writer::start(&report.programs, &dir, known, &arguments)
    };
    let ended = start(report, Known::default(), random.number(), &["--full"])?.end(PATIENCE)?;
    let mut known = ended.known;
    let mut right = report.consistent(&mut known, &what);
    let by_name = ended.words.contains("No space left")
        && ended.words.contains(&*dir.to_string_lossy())
        && !ended.words.contains("panicked");
    if !matches!(ended.status.code(), Some(FAILED | REFUSED)) || !by_name {
        let words = format!("{what}: ended with {}: {:?}", ended.status, ended.words);
        report.fault("nameless_refusals", &words, None);
        right = false;
    }
    // While it is full it may be refused, for want of space and by name, or opened.
    let found = look(&report.programs, &dir, 1)?;
    let opened = matches!(found, Found::Opened { .. });
    match (found.clone(), judge(found, &known, &dir)) {
        (Found::Refused(why), _)
            if why.contains("No space left") && why.contains(&*dir.to_string_lossy()) => {}
        (_, Verdict::Whole { starts, held }) => known.opened(starts, held),
        (_, verdict) => {
            right = false;
            report.fault(
                "wrong_refusals",
                &format!("{what}, while full: {verdict}"),
                Some(&dir),
            );
        }
    }
    if by_file {
        fs::remove_file(&filler)?;
    } else {
        disk.resize(size + spare)?;
    }
    match judge(look(&report.programs, &dir, 1)?, &known, &dir) {
        Verdict::Whole { starts, held } => known.opened(starts, held),
        verdict => {
            right = false;
            let words = format!("{what}, with space again: {verdict}");
            if report.accept(&verdict, &words, &dir) {
                report.fault("wrong_refusals", &words, Some(&dir));
            }
            return Ok((right, opened));
        }
    }
    let before = known.acks;
    let ended = start(report, known, random.number(), &["--steps", "30"])?.end(PATIENCE)?;
    let mut known = ended.known;
    right &= report.consistent(&mut known, &what);
    if !known.closed || known.acks < before + 30 {
        right = false;
        let words = format!("{what}: no writes with space again: {}", ended.words);
        report.fault("other_faults", &words, None);
    }
    let verdict = judge(look(&report.programs, &dir, 1)?, &known, &dir);
    right &= matches!(verdict, Verdict::Whole { .. });
    report.accept(&verdict, &what, &dir);
    Ok((right, opened))
}
