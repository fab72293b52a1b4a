//! Many entries in a process of its own: what reaches the disk for each byte, and how much memory it takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::PAYLOAD;
use super::figures::Figures;
use super::writer::Store;

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
    on_disk: u64,
}

const BATCH: u64 = 64;

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
        "\n  {entries} entries, {BATCH} at once: {per_s:.0} entries/s, {amplification:.2} bytes to the device for each byte, \
         memory {:.0} MB at its peak and {:.0} MB at the end, {:.0} MB on disk",
        mb(seen.peak_rss),
        mb(seen.rss),
        mb(seen.on_disk),
    );
    figures.seen("write_amplification", amplification, "ratio");
    figures.seen("memory_peak", mb(seen.peak_rss), "MB");
    figures.seen("volume_throughput", per_s, "1/s");
    Ok(())
}

/// The child that writes.
pub(crate) fn volume(options: &Volume) -> Result<()> {
    let written_before = field("/proc/self/io", "write_bytes:")?;
    let before = Instant::now();
    let mut store = Store::open(&options.folder)?;
    store.fill(options.entries, BATCH)?;
    let seconds = before.elapsed().as_secs_f64();
    let rss = 1024 * field("/proc/self/status", "VmRSS:")?;
    store.close()?;
    let seen = Seen {
        seconds,
        written: field("/proc/self/io", "write_bytes:")? - written_before,
        peak_rss: 1024 * field("/proc/self/status", "VmHWM:")?,
        rss,
        on_disk: size(&options.folder)?,
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
