//! The numbers that a run is judged by: `FIGURE area.name value unit floor ok|missed`, on standard output and in
//! a file of the folder that `FIGURES_DIR` names.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The figures of one area, each printed as it is added.
#[derive(Debug)]
pub struct Figures {
    area: &'static str,
    file: PathBuf,
    lines: String,
    missed: bool,
}

impl Figures {
    /// Figures of `area`, written to `AREA.txt` in `FIGURES_DIR`, or in `figures` of the target folder.
    #[must_use]
    pub fn new(area: &'static str, target: &Path) -> Self {
        Self::in_file(area, area, target)
    }

    /// Figures of `area` that a part of its own measures, written to `AREA-PART.txt` in the same folder.
    #[must_use]
    pub fn of_part(area: &'static str, part: &str, target: &Path) -> Self {
        Self::in_file(area, &format!("{area}-{part}"), target)
    }

    fn in_file(area: &'static str, name: &str, target: &Path) -> Self {
        let folder =
            std::env::var_os("FIGURES_DIR").map_or_else(|| target.join("figures"), PathBuf::from);
        Self {
            area,
            file: folder.join(format!("{name}.txt")),
            lines: String::new(),
            missed: false,
        }
    }

    /// A figure that must be exactly `wanted`.
    pub fn exactly(&mut self, name: &str, value: u64, unit: &str, wanted: u64) {
        self.add(name, value, unit, wanted, value == wanted);
    }

    /// A figure that must be at least `floor`.
    pub fn at_least(&mut self, name: &str, value: u64, unit: &str, floor: u64) {
        self.add(name, value, unit, floor, value >= floor);
    }

    /// A figure that must be at most `bound`.
    pub fn at_most(&mut self, name: &str, value: u64, unit: &str, bound: u64) {
        self.add(name, value, unit, bound, value <= bound);
    }

    fn add(&mut self, name: &str, value: impl Display, unit: &str, floor: impl Display, ok: bool) {
        let verdict = if ok { "ok" } else { "missed" };
        let line = format!(
            "FIGURE {}.{name} {value} {unit} {floor} {verdict}",
            self.area
        );
        println!("{line}");
        self.lines.push_str(&line);
        self.lines.push('\n');
        self.missed |= !ok;
    }

    /// Writes the file. True when every figure is as it must be.
    pub fn write(&self) -> Result<bool> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&self.file, &self.lines)
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        Ok(!self.missed)
    }
}
