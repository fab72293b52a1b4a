//! Synced batches: the store and a plain file in turns.

use std::path::Path;

use anyhow::Result;

use super::median;
use super::writer::{Plain, Round, Store, Writer};
use crate::figures::Figures;

/// Entries of a batch, and batches of a turn: a turn takes a tenth of a second or so, and what others do to the
/// disk meanwhile hits both alike.
const SIZES: [(usize, usize); 3] = [(1, 200), (64, 512), (1_024, 64)];

/// Turns of each in a round: enough for the store to move what it holds in memory to its tables, more than
/// once, so that it pays for it. What that takes from the plain file's turns meanwhile, it takes from its own too.
const TURNS: usize = 16;

/// What the store has written before it is measured. The first two log files of a start are new ones that grow;
/// from then on it overwrites old ones. A node runs for days, and is measured as it is then; how it begins is in
/// the table.
const LIVED: u64 = 1_000_000;

pub(crate) fn measure(folder: &Path, quick: bool, figures: &mut Figures) -> Result<()> {
    println!(
        "\n  batch    who            entries/s   median µs      p99 µs   (medians of rounds; ratios: ours to plain)"
    );
    for (entries, batches) in SIZES {
        let rounds = if quick { 3 } else { 9 };
        let mut store = Store::open(&folder.join(format!("store{entries}")))?;
        let mut plain = Plain::create(&folder.join(format!("plain{entries}")))?;
        let (fresh, _) = round(&mut store, &mut plain, entries, batches)?;
        store.fill(LIVED, 1_024)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (our, their) = round(&mut store, &mut plain, entries, batches)?;
            ours.push(our);
            theirs.push(their);
        }
        store.close()?;
        line(entries, "just begun", fresh);
        line(entries, "raft-storage", Round::median(&ours));
        line(entries, "plain file", Round::median(&theirs));
        let pairs = || ours.iter().zip(&theirs);
        let throughput = median(
            pairs()
                .map(|(a, b)| a.entries_per_s / b.entries_per_s)
                .collect(),
        );
        let latency = median(pairs().map(|(a, b)| a.median_us / b.median_us).collect());
        println!("{entries:>7}    ratio       {throughput:>12.2} {latency:>11.2}");
        match entries {
            1 => figures.at_most("latency_1", latency, "ratio", 1.3),
            64 => figures.at_least("throughput_64", throughput, "ratio", 0.6),
            _ => figures.at_least("throughput_1024", throughput, "ratio", 0.4),
        }
        std::fs::remove_file(folder.join(format!("plain{entries}")))?;
        std::fs::remove_dir_all(folder.join(format!("store{entries}")))?;
    }
    Ok(())
}

/// A round of both.
fn round(
    store: &mut Store,
    plain: &mut Plain,
    entries: usize,
    batches: usize,
) -> Result<(Round, Round)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.extend(store.turn(entries, batches)?);
        theirs.extend(plain.turn(entries, batches)?);
    }
    Ok((Round::new(entries, ours), Round::new(entries, theirs)))
}

fn line(entries: usize, who: &str, round: Round) {
    println!(
        "{entries:>7}    {who:<12}{:>12.0} {:>11.1} {:>11.1}",
        round.entries_per_s, round.median_us, round.p99_us
    );
}
