//! Folders that are somebody else's, nobody's, newer than this program, or in use: each is what it is, by name.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::crash::check::{Found, look};
use tests::crash::watch::{Known, Writer};
use tests::random::Random;

use crate::report::{PATIENCE, Report};

/// The mark's format: two slots, each a magic and a sealed value (version, checksum, body).
const SLOT_LEN: usize = 512;
const SLOT_AT: [usize; 2] = [0, 4096];
const MAGIC: &[u8] = b"raftmark";

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    let mut right = 0;
    let dir = report.dir().join("node");
    let mut arguments =
        ["--steps", "25", "--seed", &random.number().to_string()].map(str::to_owned);
    let ended =
        Writer::start(&report.programs, &dir, Known::default(), &arguments)?.end(PATIENCE)?;
    ensure!(
        ended.known.closed,
        "a writer that nothing was done to: {}",
        ended.words
    );

    let found = look(&report.programs, &dir, 7)?;
    right += refused(
        report,
        found,
        &dir,
        "another node's folder",
        &["node 1", "node 7"],
    );

    let empty = report.dir().join("empty");
    fs::create_dir(&empty)?;
    let found = look(&report.programs, &empty, 1)?;
    let is_fresh =
        matches!(&found, Found::Opened { starts: 1, held } if *held == Default::default());
    right += said(
        report,
        is_fresh,
        &format!("an empty folder starts anew: {found:?}"),
    );

    let strange = report.dir().join("strange");
    fs::create_dir(&strange)?;
    fs::write(strange.join("thesis.tex"), "x")?;
    let found = look(&report.programs, &strange, 1)?;
    right += refused(
        report,
        found,
        &strange,
        "a folder of other files",
        &["thesis.tex"],
    );

    let newer = report.dir().join("newer");
    tests::crash::harm::copy(&dir, &newer)?;
    make_newer(&newer.join("mark"))?;
    let found = look(&report.programs, &newer, 1)?;
    right += refused(
        report,
        found,
        &newer,
        "a newer format",
        &["version", "newer program"],
    );

    let used = report.dir().join("used");
    arguments[1] = "1000000".to_owned();
    let mut writer = Writer::start(&report.programs, &used, Known::default(), &arguments)?;
    let started = Instant::now();
    while writer.known().acks == 0 && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    let found = look(&report.programs, &used, 1)?;
    let acks = writer.known().acks;
    right += refused(report, found, &used, "a folder in use", &["in use"]);
    thread::sleep(Duration::from_millis(200));
    let goes_on = writer.known().acks > acks && !writer.has_ended()?;
    right += said(report, goes_on, "the first process goes on");
    writer.kill()?;
    writer.end(PATIENCE)?;

    report.figure("openings", right, 6);
    Ok(())
}

/// 1 if the refusal names the folder and says all of `words`.
fn refused(report: &mut Report, found: Found, dir: &Path, what: &str, words: &[&str]) -> u64 {
    let named = dir.to_string_lossy().into_owned();
    match found {
        Found::Refused(why)
            if why.contains(&named) && words.iter().all(|word| why.contains(word)) =>
        {
            1
        }
        other => {
            report.fault(
                "nameless_refusals",
                &format!("{what}: {other:?}"),
                Some(dir),
            );
            0
        }
    }
}

fn said(report: &mut Report, is_so: bool, what: &str) -> u64 {
    if !is_so {
        report.fault("other_faults", &format!("not so: {what}"), None);
    }
    u64::from(is_so)
}

/// Writes the mark as the next version would: the number is higher, and the checksum right.
fn make_newer(mark: &Path) -> Result<()> {
    let mut bytes = fs::read(mark).with_context(|| format!("read {}", mark.display()))?;
    for at in SLOT_AT {
        let slot = &mut bytes[at..at + SLOT_LEN];
        let (magic, sealed) = slot.split_at_mut(MAGIC.len());
        ensure!(
            magic == MAGIC,
            "the mark's format is another one than this part knows"
        );
        sealed[0] += 1;
        let sum = crc32c::crc32c_append(crc32c::crc32c(MAGIC), &sealed[..1]);
        let sum = crc32c::crc32c_append(sum, &sealed[5..]);
        sealed[1..5].copy_from_slice(&sum.to_be_bytes());
    }
    fs::write(mark, bytes).with_context(|| format!("write {}", mark.display()))
}
