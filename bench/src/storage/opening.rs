//! How long a start takes: opening a log that another process left, closed or killed.
//!
//! Each opening has a copy of its own, since the first one tidies up.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use raft_storage::open_rocksdb;

use super::median;
use super::writer::{NODE, Store};
use crate::figures::Figures;

/// What the child is told that fills a store.
#[derive(Debug, clap::Args)]
pub(crate) struct Fill {
    /// The store's folder.
    #[arg(long)]
    folder: PathBuf,
    /// How many entries.
    #[arg(long)]
    entries: u64,
    /// How many at once.
    #[arg(long)]
    batch: u64,
    /// Close it in an orderly way; else wait to be killed.
    #[arg(long)]
    close: bool,
}

/// The child that fills a store.
pub(crate) fn fill(options: &Fill) -> Result<()> {
    let mut store = Store::open(&options.folder)?;
    store.fill(options.entries, options.batch)?;
    if options.close {
        store.close()?;
        println!("closed");
        return Ok(());
    }
    println!("written");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

/// A child that ends with its parent's interest in it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn measure(folder: &Path, quick: bool, figures: &mut Figures) -> Result<()> {
    let rounds = if quick { 3 } else { 5 };
    println!("\n  opening                                     seconds (median)   slowest");
    let mut slowest_kind: f64 = 0.0;
    for (entries, batch, close) in [
        (1_000_000, 64, true),
        (1_000_000, 64, false),
        (20_000, 1, false),
    ] {
        let made = folder.join("made");
        make(&made, entries, batch, close)?;
        let mut times = Vec::new();
        for _ in 0..rounds {
            let copied = folder.join("copy");
            copy(&made, &copied)?;
            let before = Instant::now();
            let opened = open_rocksdb(&copied, Some(NODE))?;
            times.push(before.elapsed().as_secs_f64());
            let found = opened.recovered.last.index.0;
            ensure!(found == entries, "{found} of {entries} entries are there");
            drop(opened);
            fs::remove_dir_all(&copied)?;
        }
        fs::remove_dir_all(&made)?;
        let end = if close { "closed" } else { "killed" };
        let what = format!("{entries} entries, {batch} at once, {end}");
        let slowest = times.iter().copied().fold(0.0, f64::max);
        let middle = median(times);
        println!("  {what:<44}{middle:>16.3} {slowest:>9.3}");
        if batch == 64 {
            figures.seen(&format!("open_million_{end}"), middle, "s");
            slowest_kind = slowest_kind.max(middle);
        }
    }
    figures.at_most("open_million", slowest_kind, "s", 1.0);
    Ok(())
}

/// Fills a store in a process of its own.
fn make(folder: &Path, entries: u64, batch: u64, close: bool) -> Result<()> {
    let mut command = Command::new(std::env::current_exe().context("where this program is")?);
    command
        .arg("storage-fill")
        .arg("--folder")
        .arg(folder)
        .args(["--entries", &entries.to_string()])
        .args(["--batch", &batch.to_string()])
        .args(close.then_some("--close"))
        .stdout(Stdio::piped());
    let mut child = Killed(command.spawn().context("cannot start the filler")?);
    let output = child.0.stdout.take().context("no standard output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let wanted = if close { "closed\n" } else { "written\n" };
    ensure!(line == wanted, "the filler failed");
    if close {
        ensure!(child.0.wait()?.success(), "the filler failed at its end");
    }
    Ok(())
}

/// Copies a folder, and has it on the disk before anybody measures.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let to = to.join(file.file_name());
        if file.file_type()?.is_dir() {
            copy(&file.path(), &to)?;
        } else {
            fs::copy(file.path(), &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    Ok(())
}
