//! Where and when this was measured, and what an fsync costs here.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What figures depend on that is not in this repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor, as it calls itself.
    pub(crate) cpu: String,
    /// How many of its threads this process may use.
    pub(crate) cores: usize,
    /// The day, in UTC.
    pub(crate) date: String,
    /// The median of 200 times 256 bytes appended and synced, on the disk of the data, in microseconds.
    pub(crate) fsync_us: u64,
    /// The commit of this repository, with a `+` if something was changed since; none where git does not say.
    pub(crate) commit: Option<String>,
    /// Whether this program was built with optimizations.
    pub(crate) release: bool,
}

impl Machine {
    /// Looks around, and measures fsync in `folder`.
    pub(crate) fn look(folder: &Path) -> Result<Self> {
        Ok(Self {
            cpu: cpu(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            date: date(SystemTime::now()),
            fsync_us: fsync_us(folder).context("cannot measure fsync")?,
            commit: commit(),
            release: !cfg!(debug_assertions),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            cpu,
            cores,
            date,
            fsync_us,
            commit,
            release,
        } = self;
        let commit = commit.as_deref().unwrap_or("unknown");
        let profile = if *release {
            ""
        } else {
            ", NOT OPTIMIZED: build it with --release"
        };
        write!(
            f,
            "{cpu}, {cores} cores, {date}, fdatasync {fsync_us} µs, commit {commit}{profile}"
        )
    }
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let name = model
        .and_then(|line| line.split_once(':'))
        .map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn fsync_us(folder: &Path) -> Result<u64> {
    let path = folder.join("fsync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let before = Instant::now();
        file.write_all(&[0x5a; 256])?;
        file.sync_data()?;
        times.push(before.elapsed().as_micros() as u64);
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    Some(if changed { commit + "+" } else { commit })
}

/// `YYYY-MM-DD` in UTC (Howard Hinnant's civil_from_days).
fn date(time: SystemTime) -> String {
    let days = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() / 86_400)
        + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_right() {
        let day = |days: u64| date(UNIX_EPOCH + Duration::from_secs(days * 86_400 + 86_399));
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(11_016), "2000-02-29");
        assert_eq!(day(20_453), "2025-12-31");
        assert_eq!(day(20_454), "2026-01-01");
    }
}
