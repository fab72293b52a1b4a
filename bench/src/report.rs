//! Table, JSON, figures.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::cluster::{ALL_APART_FROM, Apart, FOLLOWERS_APART_FROM, INLINE_UP_TO, Place, Shape};
use crate::figures::Figures;
use crate::machine::Machine;
use crate::plot::{Point, Series};
use crate::protocol::{Measured, Operation};

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) operation: Operation,
    /// Where the clients are.
    pub(crate) at: Place,
    /// 0 in an open loop.
    pub(crate) clients: usize,
    pub(crate) in_flight: usize,
    /// How many were due each second, in an open loop.
    pub(crate) rate: Option<u64>,
    pub(crate) payload: usize,
    /// Commits, or reads.
    pub(crate) commits_per_s: u64,
    /// Of all processes of the cluster and the clients.
    pub(crate) cpu_us_per_commit: f64,
    /// How many processors were busy with something else.
    pub(crate) foreign_cores: f64,
    /// How many the host took away.
    pub(crate) stolen_cores: f64,
    pub(crate) processes: Vec<Share>,
    pub(crate) measured: Measured,
}

/// What one process had to do with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) process: String,
    /// Whether the leader is in it.
    pub(crate) leads: bool,
    /// Whether the clients are in it.
    pub(crate) clients: bool,
    pub(crate) cpu_us_per_commit: f64,
    pub(crate) voluntary_switches_per_commit: f64,
    pub(crate) involuntary_switches_per_commit: f64,
    /// Batches synced.
    pub(crate) syncs_per_commit: f64,
    /// Writes that these were gathered from.
    pub(crate) writes_per_commit: f64,
    pub(crate) disk_bytes_per_commit: f64,
}

/// All that was measured on one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    #[serde(flatten)]
    pub(crate) shape: Shape,
    pub(crate) rows: Vec<Row>,
}

impl Row {
    /// As a plot shows it.
    pub(crate) fn point(&self) -> Point {
        Point {
            clients: self.clients,
            commits_per_s: self.commits_per_s,
            median_us: self.measured.median_us,
        }
    }

    /// What tells it from the other rows of its report, for a figure's name.
    fn name(&self, of: &Report) -> String {
        let mut name = match self.rate {
            None => self.clients.to_string(),
            Some(rate) => format!("rate_{rate}"),
        };
        if self.payload != of.rows[0].payload {
            let _ = write!(name, "_payload_{}", self.payload);
        }
        name
    }
}

impl Report {
    /// How many questions failed.
    pub(crate) fn errors(&self) -> u64 {
        self.rows.iter().map(|row| row.measured.errors).sum()
    }

    /// The line that says where this was measured.
    pub(crate) fn heading(&self) -> String {
        let Shape {
            nodes,
            outside,
            memory,
            apart,
            tls,
            subscribers,
            tally: _,
            here,
            sync_inline,
        } = &self.shape;
        let what = if *memory {
            let on = match apart {
                None => format!(
                    "one thread; from {FOLLOWERS_APART_FROM} clients on followers apply on a second, from {ALL_APART_FROM} \
                     on all"
                ),
                Some(Apart::None) => "one thread".to_owned(),
                Some(Apart::Followers) => "one thread, followers apply on a second".to_owned(),
                Some(Apart::All) => "one thread, all apply on a second".to_owned(),
            };
            format!("{nodes} nodes in one process on {on}, logs in memory, no wire")
        } else {
            let tls = if *tls { ", TLS" } else { "" };
            let voters = match nodes {
                1 => "1 voter".to_owned(),
                n => format!("{n} voters"),
            };
            let outside = if *outside { " and a learner" } else { "" };
            let on = if *here {
                ", on one thread with their clients and subscribers"
            } else {
                ""
            };
            let synced = match sync_inline {
                Some(true) => ", which syncs its log".to_owned(),
                None if *here => {
                    format!(", which syncs its log up to {INLINE_UP_TO} proposals under way")
                }
                Some(false) | None => String::new(),
            };
            let on = match (here, sync_inline) {
                (false, Some(true)) => ", on one thread",
                _ => on,
            };
            format!("{voters}{outside}, a process each{on}{synced}, fsync on{tls}")
        };
        let machine = &self.machine;
        format!("{what}; subscribers on each: {subscribers}\n{machine}")
    }

    pub(crate) const COLUMNS: &str = "   clients  payload     per s   median ms      p90      p99    p99.9      max   CPU µs   foreign   errors";

    /// A measurement in the table, and what is to be said about it.
    pub(crate) fn lines(row: &Row) -> String {
        let ms = |us: u64| us as f64 / 1_000.0;
        let m = &row.measured;
        let clients = match row.rate {
            None => row.clients.to_string(),
            Some(rate) => format!("{rate}/s"),
        };
        let mut text = format!(
            "{clients:>10} {:>8} {:>9} {:>11.3} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.1} {:>9.2} {:>8}\n",
            row.payload,
            row.commits_per_s,
            ms(m.median_us),
            ms(m.p90_us),
            ms(m.p99_us),
            ms(m.p999_us),
            ms(m.max_us),
            row.cpu_us_per_commit,
            row.foreign_cores,
            m.errors
        );
        if let (false, Some(rate)) = (m.held, row.rate) {
            let answered = row.commits_per_s;
            let _ = writeln!(
                text,
                "           the rate was not held: {answered} of {rate} each second were answered"
            );
        }
        if let Some(error) = &m.first_error {
            let _ = writeln!(text, "           the first error: {error}");
        }
        text
    }

    /// What each process had to do for a commit.
    pub(crate) fn shares(&self) -> String {
        let mut text = String::from(
            "for each commit, by process                 CPU µs   waits  preempted     syncs    writes   disk bytes\n",
        );
        for row in &self.rows {
            for share in &row.processes {
                let role = match (share.leads, share.clients) {
                    (true, true) => "leads, clients",
                    (true, false) => "leads",
                    (false, true) => "clients",
                    (false, false) => "",
                };
                let _ = writeln!(
                    text,
                    "{:>16} {:>8} {role:<15} {:>8.2} {:>7.3} {:>10.4} {:>9.4} {:>9.4} {:>12.0}",
                    row.name(self),
                    share.process,
                    share.cpu_us_per_commit,
                    share.voluntary_switches_per_commit,
                    share.involuntary_switches_per_commit,
                    share.syncs_per_commit,
                    share.writes_per_commit,
                    share.disk_bytes_per_commit,
                );
            }
        }
        text
    }

    /// What a plot shows: a line for each payload.
    pub(crate) fn series(&self) -> Vec<Series> {
        let mut payloads: Vec<_> = self.rows.iter().map(|row| row.payload).collect();
        payloads.dedup();
        let line = |payload: usize| {
            let rows = self.rows.iter().filter(|row| row.payload == payload);
            let mut points: Vec<_> = rows.map(Row::point).collect();
            points.sort_by_key(|point| point.clients);
            Series {
                name: format!("{payload} bytes"),
                points,
            }
        };
        payloads.into_iter().map(line).collect()
    }

    /// The figures, none of which has a floor but that nothing may fail.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures::of("bench");
        for row in &self.rows {
            let (n, m) = (row.name(self), &row.measured);
            let rate = row.commits_per_s as f64;
            figures.seen(&format!("commits_per_s_{n}"), rate, "1/s");
            figures.seen(&format!("median_us_{n}"), m.median_us as f64, "us");
            figures.seen(&format!("p99_us_{n}"), m.p99_us as f64, "us");
            figures.seen(
                &format!("cpu_us_per_commit_{n}"),
                row.cpu_us_per_commit,
                "us",
            );
        }
        figures.seen("fsync_us", self.machine.fsync_us as f64, "us");
        figures.at_most("errors", self.errors() as f64, "count", 0.0);
        figures
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

/// Where figures are written: the folder that `FIGURES_DIR` names, or `figures` in the target folder.
pub(crate) fn figures_folder(target: &Path) -> PathBuf {
    env::var_os("FIGURES_DIR").map_or_else(|| target.join("figures"), PathBuf::from)
}

/// Writes the figures as file `name` to their folder.
pub(crate) fn write_figures(name: &str, text: &str, target: &Path) -> Result<()> {
    let folder = figures_folder(target);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join(name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with one row for each number of clients.
    pub(crate) fn report(clients: &[usize]) -> Report {
        let machine = Machine {
            cpu: "some".into(),
            cores: 2,
            date: "2026-11-22".into(),
            fsync_us: 180,
            commit: Some("abc".into()),
            release: true,
        };
        let row = |clients: &usize| Row {
            operation: Operation::Propose,
            at: Place::Leader,
            clients: *clients,
            in_flight: 1,
            rate: None,
            payload: 256,
            commits_per_s: 1_000 * *clients as u64,
            cpu_us_per_commit: 8.5,
            foreign_cores: 0.25,
            stolen_cores: 0.0,
            processes: vec![Share {
                process: "node-1".into(),
                leads: true,
                clients: true,
                cpu_us_per_commit: 4.25,
                voluntary_switches_per_commit: 0.5,
                involuntary_switches_per_commit: 0.125,
                syncs_per_commit: 0.0625,
                writes_per_commit: 0.0625,
                disk_bytes_per_commit: 300.0,
            }],
            measured: Measured {
                commits: 5_000,
                commits_in_all: 7_000,
                seconds: 5.0,
                mean_us: 401.5,
                median_us: 400,
                p90_us: 500,
                p99_us: 800,
                p999_us: 900,
                max_us: 1_000,
                held: true,
                errors: 0,
                first_error: None,
            },
        };
        Report {
            machine,
            shape: Shape {
                nodes: 3,
                outside: false,
                memory: false,
                apart: None,
                tls: false,
                subscribers: 1,
                tally: false,
                here: false,
                sync_inline: None,
            },
            rows: clients.iter().map(row).collect(),
        }
    }

    #[test]
    fn json_comes_back_as_it_went_and_keeps_the_names_that_others_read() {
        let report = report(&[1, 64]);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let row = &value["rows"][1];
        assert_eq!(value["nodes"], 3);
        assert_eq!(row["clients"], 64);
        assert_eq!(row["commits_per_s"], 64_000);
        assert_eq!(row["cpu_us_per_commit"], 8.5);
        assert_eq!(row["foreign_cores"], 0.25);
        assert_eq!(row["measured"]["median_us"], 400);
        assert_eq!(row["measured"]["p99_us"], 800);
        assert_eq!(row["measured"]["p999_us"], 900);
        assert_eq!(row["measured"]["errors"], 0);
    }

    #[test]
    fn one_error_misses() {
        let mut report = report(&[1]);
        assert!(
            report
                .figures()
                .text()
                .contains("bench.errors 0 count 0 ok")
        );
        report.rows[0].measured.errors = 1;
        assert!(
            report
                .figures()
                .text()
                .contains("bench.errors 1 count 0 missed")
        );
    }
}
