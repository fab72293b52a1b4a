//! Table, JSON, figures.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::Machine;
use crate::protocol::Measured;

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) clients: usize,
    pub(crate) commits_per_s: u64,
    pub(crate) cpu_us_per_commit: f64,
    pub(crate) measured: Measured,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) nodes: usize,
    pub(crate) payload: usize,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// How many proposals failed.
    pub(crate) fn errors(&self) -> u64 {
        self.rows.iter().map(|row| row.measured.errors).sum()
    }

    /// The line that says where this was measured.
    pub(crate) fn heading(&self) -> String {
        format!(
            "{} processes on one machine ({}), payload {} bytes",
            self.nodes, self.machine, self.payload,
        )
    }

    pub(crate) const COLUMNS: &str =
        "clients   commits/s   median ms      p99 ms      max ms   CPU µs/commit   errors";

    /// A line of the table.
    pub(crate) fn line(row: &Row) -> String {
        let ms = |us: u64| us as f64 / 1_000.0;
        let m = &row.measured;
        format!(
            "{:>7} {:>11} {:>11.2} {:>11.2} {:>11.2} {:>15.1} {:>8}",
            row.clients,
            row.commits_per_s,
            ms(m.median_us),
            ms(m.p99_us),
            ms(m.max_us),
            row.cpu_us_per_commit,
            m.errors
        )
    }

    /// The figures, none of which has a floor yet but that nothing may fail.
    pub(crate) fn figures(&self) -> String {
        let mut text = String::new();
        let mut add = |name: String, value: String, unit: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "FIGURE bench.{name} {value} {unit} - ok");
        };
        for row in &self.rows {
            let n = row.clients;
            add(
                format!("commits_per_s_{n}"),
                row.commits_per_s.to_string(),
                "1/s",
            );
            add(
                format!("median_us_{n}"),
                row.measured.median_us.to_string(),
                "us",
            );
            add(format!("p99_us_{n}"), row.measured.p99_us.to_string(), "us");
            add(
                format!("cpu_us_per_commit_{n}"),
                format!("{:.1}", row.cpu_us_per_commit),
                "us",
            );
        }
        add(
            "fsync_us".to_owned(),
            self.machine.fsync_us.to_string(),
            "us",
        );
        let errors = self.errors();
        let verdict = if errors == 0 { "ok" } else { "missed" };
        let _ = writeln!(text, "FIGURE bench.errors {errors} count 0 {verdict}");
        text
    }
}

/// The target folder of cargo that this program lies in.
pub(crate) fn target() -> Result<PathBuf> {
    let program = env::current_exe().context("where this program is")?;
    let folder = program
        .parent()
        .and_then(Path::parent)
        .context("this program lies in no target folder")?;
    Ok(folder.to_path_buf())
}

/// Writes the figures as file `name` to the folder that `FIGURES_DIR` names, or to `figures` in the target folder.
pub(crate) fn write_figures(name: &str, text: &str, target: &Path) -> Result<()> {
    let folder = env::var_os("FIGURES_DIR").map_or_else(|| target.join("figures"), PathBuf::from);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join(name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}
