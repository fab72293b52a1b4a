//! kill -9 at any moment: while the folder is made, while it is opened, between any two calls of a write.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use tests::crash::check::look;
use tests::crash::verdict::{Verdict, judge};
use tests::crash::watch::{Known, Writer};
use tests::random::Random;

use crate::report::{PATIENCE, Report};

/// A folder is used so often; then the next begins with an empty one.
const LIVES: u64 = 10;

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    let rounds = report.rounds(200, 25);
    let (mut killed, mut opened, mut acks, mut within_writes) = (0, 0, 0, 0);
    let mut known = Known::default();
    let mut dir = report.dir();
    for round in 1..=rounds {
        if round % LIVES == 1 {
            dir = report.dir().join(format!("{round}"));
            known = Known::default();
        }
        let seed = random.number().to_string();
        let before = known.acks;
        let mut writer = Writer::start(
            &report.programs,
            &dir,
            known.clone(),
            &["--seed".to_owned(), seed],
        )?;
        // The opening takes some tens of milliseconds, and is to be hit too.
        let within_ms = if random.below(4) == 0 { 80 } else { 500 };
        thread::sleep(Duration::from_micros(random.below(within_ms * 1000)));
        writer.kill()?;
        let ended = writer.end(PATIENCE)?;
        known = ended.known;
        let what = format!("round {round}");
        if ended.status.code().is_some() {
            let words = format!("{what}: ended by itself, {}: {}", ended.status, ended.words);
            report.fault("other_faults", &words, Some(&dir));
        }
        killed += 1;
        within_writes += u64::from(known.pending.is_some());
        acks += known.acks - before;
        report.consistent(&mut known, &what);
        let verdict = judge(look(&report.programs, &dir, 1)?, &known, &dir);
        match &verdict {
            Verdict::Whole { starts, held } => {
                opened += 1;
                known.opened(*starts, held.clone());
            }
            Verdict::Refused(why) => {
                report.fault("wrong_refusals", &format!("{what}: {why}"), Some(&dir));
            }
            Verdict::Faulty(..) => {
                report.accept(&verdict, &what, &dir);
            }
        }
        if !matches!(verdict, Verdict::Whole { .. }) {
            dir = report.dir().join(format!("{round}-next"));
            known = Known::default();
        }
        if round % 10 == 0 || round == rounds {
            report.say(&format!(
                "{round} of {rounds}: {within_writes} within a write, opened {opened}; {acks} steps acknowledged, the log ends at {}",
                known.acked.last()
            ));
        }
    }
    report.figure("killed", killed, rounds);
    report.figure("opened_after_kill", opened, rounds);
    Ok(())
}
