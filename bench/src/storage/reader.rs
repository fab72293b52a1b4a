//! What it costs the writer that somebody far behind reads the whole log, over and over.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use raft_core::LogIndex;
use raft_storage::LogReader;

use super::median;
use super::writer::{Round, Store, Writer};
use crate::figures::Figures;

/// What the writer writes at once.
const BATCH: usize = 64;
/// Batches of a turn, and turns with and without the reader that make a round, as in [`batches`](super::batches).
const BATCHES: usize = 512;
const TURNS: usize = 12;
/// What the reader reads at once.
const PIECE: usize = 1 << 20;

pub(crate) fn measure(folder: &Path, quick: bool, figures: &mut Figures) -> Result<()> {
    let (rounds, before) = if quick { (3, 200_000) } else { (9, 1_000_000) };
    let mut store = Store::open(&folder.join("store"))?;
    store.fill(before, 1_024)?;
    let (mut alone, mut watched, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (mut alone_times, mut watched_times) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            alone_times.extend(store.turn(BATCH, BATCHES)?);
            let (times, bytes_per_s) = with(&mut store)?;
            watched_times.extend(times);
            read.push(bytes_per_s);
        }
        alone.push(Round::new(BATCH, alone_times));
        watched.push(Round::new(BATCH, watched_times));
    }
    store.close()?;
    println!("\n  a writer of {BATCH} at once   entries/s   median µs      p99 µs");
    for (who, rounds) in [("alone", &alone), ("with a reader", &watched)] {
        let round = Round::median(rounds);
        println!(
            "  {who:<24}{:>12.0} {:>11.1} {:>11.1}",
            round.entries_per_s, round.median_us, round.p99_us
        );
    }
    let mb = median(read) / 1e6;
    println!("  the reader reads {mb:.0} MB/s, from entry 1 to the end, again and again");
    let pairs = alone.iter().zip(&watched);
    let costs = pairs.map(|(a, w)| (1.0 - w.entries_per_s / a.entries_per_s) * 100.0);
    figures.at_most("reader_cost", median(costs.collect()), "percent", 20.0);
    figures.seen("reader_mb_per_s", mb, "MB/s");
    Ok(())
}

/// The writer's turn while somebody reads, and how fast that one was.
fn with(store: &mut Store) -> Result<(Vec<Duration>, f64)> {
    let reader = store.reader();
    let stop = Arc::new(AtomicBool::new(false));
    let end = store.last().index;
    let reading = thread::spawn({
        let stop = Arc::clone(&stop);
        move || read(&*reader, end, &stop)
    });
    let times = store.turn(BATCH, BATCHES);
    stop.store(true, Ordering::Relaxed);
    let read = reading
        .join()
        .map_err(|_| anyhow!("the reader panicked"))??;
    Ok((times?, read))
}

/// Bytes a second.
fn read(reader: &dyn LogReader, end: LogIndex, stop: &AtomicBool) -> Result<f64> {
    let started = Instant::now();
    let (mut from, mut bytes) = (LogIndex(1), 0);
    while !stop.load(Ordering::Relaxed) {
        let entries = reader.read(from, end, PIECE)?;
        ensure!(entries[0].id.index == from, "another entry than asked for");
        bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        from = LogIndex(from.0 + entries.len() as u64);
        if from > end {
            from = LogIndex(1);
        }
    }
    Ok(bytes as f64 / started.elapsed().as_secs_f64())
}
