//! Measures the log store alone: [`raft_storage`] over RocksDB side by side with a plain file that is given the
//! same bytes and `fdatasync`, in one run, since a disk is never the same twice.
//!
//! - [`batches`] synced batches of several sizes, in turns with the plain file
//! - [`reader`] what somebody who reads old entries costs the writer
//! - [`snapshot`] what a snapshot that is being written costs the writer
//! - [`opening`] how long a start takes, after an orderly close and after a kill
//! - [`volume`] bytes that reach the disk and memory, over many entries with compaction behind
//! - [`writer`] who writes: the store, or the plain file

mod batches;
mod opening;
mod reader;
mod snapshot;
mod volume;
mod writer;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::figures::Figures;
use crate::machine::Machine;
use crate::report::{target, write_figures};
pub(crate) use opening::{Fill, fill};
pub(crate) use volume::{Volume, volume};

/// What each entry holds.
const PAYLOAD: usize = 256;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these parts.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "batches,reader,snapshot,opening,volume"
    )]
    parts: Vec<String>,
    /// Fewer rounds, and 10^6 entries where the long form has 10^7.
    #[arg(long)]
    quick: bool,
    /// On whose disk, in a folder that is removed afterwards [default: the target folder].
    #[arg(long)]
    data: Option<PathBuf>,
}

/// True when no floor was missed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let target = target()?;
    let data = options.data.as_deref().unwrap_or(&target);
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("bench-storage-")
        .tempdir_in(data)
        .with_context(|| format!("cannot make a folder in {}", data.display()))?;
    let machine = Machine::look(folder.path())?;
    println!(
        "raft-storage over RocksDB, one thread ({machine}), entries of {PAYLOAD} bytes, random"
    );
    let mut figures = Figures::of("storage");
    for part in &options.parts {
        let path = folder.path().join(part);
        measure(part, &path, options.quick, &mut figures)
            .with_context(|| format!("measuring {part}"))?;
        std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {part}"))?;
    }
    print!("\n{}", figures.text());
    write_figures("bench-storage.txt", figures.text(), &target)?;
    Ok(!figures.missed())
}

fn measure(part: &str, folder: &Path, quick: bool, figures: &mut Figures) -> Result<()> {
    std::fs::create_dir(folder)?;
    match part {
        "batches" => batches::measure(folder, quick, figures),
        "reader" => reader::measure(folder, quick, figures),
        "snapshot" => snapshot::measure(folder, quick, figures),
        "opening" => opening::measure(folder, quick, figures),
        "volume" => volume::measure(folder, quick, figures),
        _ => anyhow::bail!("there is no such part"),
    }
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
