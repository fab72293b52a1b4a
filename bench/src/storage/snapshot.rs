//! What it costs the writer that a snapshot is streamed to the disk meanwhile.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use raft_core::LogId;

use super::median;
use super::writer::{Round, Store, Writer, write_snapshot};
use crate::figures::Figures;

/// What the writer writes at once.
const BATCH: usize = 64;

pub(crate) fn measure(folder: &Path, quick: bool, figures: &mut Figures) -> Result<()> {
    let (rounds, bytes) = if quick { (3, 64 << 20) } else { (7, 256 << 20) };
    let mut store = Store::open(&folder.join("store"))?;
    store.fill(1_000_000, 1_024)?;
    let (mut alone, mut meanwhile, mut speed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (times, seconds) = with(&mut store, bytes)?;
        speed.push(bytes as f64 / 1e6 / seconds);
        alone.push(Round::new(BATCH, store.turn(BATCH, times.len())?));
        meanwhile.push(Round::new(BATCH, times));
    }
    store.close()?;
    println!("\n  a writer of {BATCH} at once   entries/s   median µs      p99 µs");
    for (who, rounds) in [("alone", &alone), ("with a snapshot", &meanwhile)] {
        let round = Round::median(rounds);
        println!(
            "  {who:<24}{:>12.0} {:>11.1} {:>11.1}",
            round.entries_per_s, round.median_us, round.p99_us
        );
    }
    let mib = bytes >> 20;
    println!(
        "  a snapshot of {mib} MiB is written at {:.0} MB/s meanwhile",
        median(speed)
    );
    let ratio = |of: fn(&Round) -> f64| {
        let pairs = meanwhile.iter().zip(&alone);
        median(pairs.map(|(m, a)| of(m) / of(a)).collect())
    };
    figures.seen("snapshot_median", ratio(|round| round.median_us), "ratio");
    figures.seen("snapshot_p99", ratio(|round| round.p99_us), "ratio");
    Ok(())
}

/// Writes while a snapshot is written, and lets the store name it. How long each write took, and the snapshot.
fn with(store: &mut Store, bytes: usize) -> Result<(Vec<Duration>, f64)> {
    let last = store.last();
    let snapshots = store.snapshots();
    let before = Instant::now();
    let writing = thread::spawn(move || {
        write_snapshot(&*snapshots, last, bytes)?;
        anyhow::Ok(before.elapsed().as_secs_f64())
    });
    let mut times = Vec::new();
    while !writing.is_finished() {
        times.push(store.write(BATCH)?);
    }
    let seconds = writing
        .join()
        .map_err(|_| anyhow!("the snapshot panicked"))??;
    store.compact(last, LogId::ZERO)?;
    Ok((times, seconds))
}
