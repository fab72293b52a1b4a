//! The numbers that a run is judged by: `FIGURE model.name value unit floor ok|missed`, on standard output and
//! in `model.txt` of the folder that `FIGURES_DIR` names.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::check::Report;
use crate::models;

/// The states that the largest scene must have, in a whole run.
const STATES_MIN: u64 = 1_000_000;
/// The time that a whole run may take.
const SECONDS_MAX: u64 = 30 * 60;
/// The memory that a run may take.
const MEMORY_MIB_MAX: u64 = 12 << 10;

/// Prints the one figure of a run that found a broken law.
pub(crate) fn violated() {
    println!("FIGURE model.violations 1 count 0 missed");
}

/// Prints and writes the figures of a run that went to its end. Says whether all are as they must be.
pub(crate) fn write(reports: &[Report], time: Duration) -> Result<bool> {
    let mut figures: Vec<(String, u64, &str, u64, bool)> = Vec::new();
    for model in models::NAMES {
        let of = reports.iter().filter(|report| report.model == model);
        let states: u64 = of.map(|report| report.states).sum();
        if states > 0 {
            figures.push((format!("{model}_states"), states, "states", 0, true));
        }
    }
    // The small bounds, and a part of the models, promise nothing about the largest.
    let whole = reports.len() == models::scenes(false).len();
    let largest = reports
        .iter()
        .map(|report| report.states)
        .max()
        .unwrap_or_default();
    let floor = if whole && !reports.iter().any(|report| report.quick) {
        STATES_MIN
    } else {
        0
    };
    figures.push((
        "largest_states".into(),
        largest,
        "states",
        floor,
        largest >= floor,
    ));
    let missed = reports
        .iter()
        .flat_map(|r| &r.properties)
        .filter(|v| !v.good)
        .count() as u64;
    figures.push(("unreached".into(), missed, "count", 0, missed == 0));
    figures.push(("violations".into(), 0, "count", 0, true));
    let seconds = time.as_secs();
    figures.push((
        "seconds".into(),
        seconds,
        "s",
        SECONDS_MAX,
        seconds <= SECONDS_MAX,
    ));
    if let Some(peak) = peak_memory_mib() {
        figures.push((
            "memory".into(),
            peak,
            "MiB",
            MEMORY_MIB_MAX,
            peak <= MEMORY_MIB_MAX,
        ));
    }
    let mut text = String::new();
    for (name, value, unit, bound, ok) in &figures {
        let verdict = if *ok { "ok" } else { "missed" };
        writeln!(text, "FIGURE model.{name} {value} {unit} {bound} {verdict}")?;
    }
    print!("{text}");
    if let Some(folder) = std::env::var_os("FIGURES_DIR").map(PathBuf::from) {
        let file = folder.join("model.txt");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&file, &text))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(figures.iter().all(|(.., ok)| *ok))
}

/// The most memory that this process has had, where the system says it.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib >> 10)
}
