//! Many entries in a process of its own, with compaction behind: what reaches the disk for each byte, what stays
//! there, and how much memory it takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use raft_core::LogId;
use serde::{Deserialize, Serialize};

use super::PAYLOAD;
use super::writer::{Store, write_snapshot};
use crate::figures::Figures;

/// What the child is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Volume {
    /// The store's folder.
    #[arg(long)]
    folder: PathBuf,
    /// How many entries.
    #[arg(long)]
    entries: u64,
}

/// What the child answers, in JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    seconds: f64,
    /// What the process caused to be written to the device.
    written: u64,
    peak_rss: u64,
    rss: u64,
    /// The most that lay in the folder behind a compaction, and what was left at the end.
    disk_peak: u64,
    disk: u64,
    slowest_compaction: f64,
}

const BATCH: u64 = 64;
/// After so many entries the log is compacted, and keeps the last so many.
const COMPACT_EVERY: u64 = 100_000;
/// How large the snapshots are: the log's own bytes are what is looked at.
const SNAPSHOT: usize = 64 << 10;

pub(crate) fn measure(folder: &Path, quick: bool, figures: &mut Figures) -> Result<()> {
    let entries: u64 = if quick { 1_000_000 } else { 10_000_000 };
    let output = Command::new(std::env::current_exe().context("where this program is")?)
        .arg("storage-volume")
        .arg("--folder")
        .arg(folder.join("store"))
        .args(["--entries", &entries.to_string()])
        .output()?;
    ensure!(
        output.status.success(),
        "the writer failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen: Seen = serde_json::from_slice(&output.stdout)?;
    let payload = (entries * PAYLOAD as u64) as f64;
    let amplification = seen.written as f64 / payload;
    let per_s = entries as f64 / seen.seconds;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "\n  {entries} entries, {BATCH} at once, compacted every {COMPACT_EVERY}: {per_s:.0} entries/s, {amplification:.2} bytes to the device for each byte, \
         memory {:.0} MB at its peak and {:.0} MB at the end, disk {:.0} MB at its peak and {:.0} MB at the end, \
         the slowest compaction {:.1} ms",
        mb(seen.peak_rss),
        mb(seen.rss),
        mb(seen.disk_peak),
        mb(seen.disk),
        seen.slowest_compaction * 1e3,
    );
    figures.seen("write_amplification", amplification, "ratio");
    figures.seen("memory_peak", mb(seen.peak_rss), "MB");
    figures.seen("disk_peak", mb(seen.disk_peak), "MB");
    figures.seen("volume_throughput", per_s, "1/s");
    Ok(())
}

/// The child that writes.
pub(crate) fn volume(options: &Volume) -> Result<()> {
    let written_before = field("/proc/self/io", "write_bytes:")?;
    let before = Instant::now();
    let mut store = Store::open(&options.folder)?;
    let mut rest = options.entries;
    let mut start = LogId::ZERO;
    let (mut disk_peak, mut slowest) = (0, Duration::ZERO);
    while rest > 0 {
        let entries = rest.min(COMPACT_EVERY);
        store.fill(entries, BATCH)?;
        rest -= entries;
        let last = store.last();
        write_snapshot(&*store.snapshots(), last, SNAPSHOT)?;
        let compaction = Instant::now();
        store.compact(last, start)?;
        slowest = slowest.max(compaction.elapsed());
        start = last;
        disk_peak = disk_peak.max(size(&options.folder)?);
    }
    let seconds = before.elapsed().as_secs_f64();
    let rss = 1024 * field("/proc/self/status", "VmRSS:")?;
    store.close()?;
    let seen = Seen {
        seconds,
        written: field("/proc/self/io", "write_bytes:")? - written_before,
        peak_rss: 1024 * field("/proc/self/status", "VmHWM:")?,
        rss,
        disk_peak,
        disk: size(&options.folder)?,
        slowest_compaction: slowest.as_secs_f64(),
    };
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// A number that the kernel gives under a name.
fn field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    let number = number.with_context(|| format!("{path} says nothing of {name}"))?;
    Ok(number.parse()?)
}

/// The bytes of a folder's files.
fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        let file = file?;
        bytes += if file.file_type()?.is_dir() {
            size(&file.path())?
        } else {
            file.metadata()?.len()
        };
    }
    Ok(bytes)
}
