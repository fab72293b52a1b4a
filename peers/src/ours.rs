//! Our side of a turn: the `bench` of the main workspace, started as anybody would, and what it says in JSON.
//!
//! It ends its own nodes when it is killed: they read its pipes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::process::{Interrupted, Process};
use crate::row::Row;

/// Which of its modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Three processes, fsync on, clients on the leader's thread.
    Leader,
    /// The same, clients in a process of their own that joins and forwards.
    Outside,
    /// Three nodes in one process, the log in memory, no wire.
    Memory,
}

impl Mode {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Leader => &["--here"],
            Self::Outside => &["--here", "--at", "outside"],
            Self::Memory => &["--memory"],
        }
    }

    /// What it is, in a line.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Leader => "raft-actor, three processes, fsync; clients on the leader's thread",
            Self::Outside => {
                "raft-actor, the same; clients in a process of their own, which joins and forwards"
            }
            Self::Memory => "raft-actor, three nodes and the clients in one process, log in memory",
        }
    }
}

/// What `bench` is asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) program: &'a Path,
    pub(crate) mode: Mode,
    pub(crate) clients: &'a [usize],
    pub(crate) payload: usize,
    pub(crate) secs: u64,
}

/// What it answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answered {
    pub(crate) rows: Vec<Row>,
    /// The machine as it describes it, for the report.
    pub(crate) machine: serde_json::Value,
}

/// Runs `bench` with its data in `folder`.
pub(crate) fn measure(asked: &Asked, folder: &Path, interrupted: &Interrupted) -> Result<Answered> {
    let clients: Vec<_> = asked.clients.iter().map(usize::to_string).collect();
    let mut command = Command::new(asked.program);
    command
        .args(asked.mode.arguments())
        .args(["--json", "--clients", &clients.join(",")])
        .args(["--payload", &asked.payload.to_string()])
        .args(["--secs", &asked.secs.to_string()])
        .arg("--data")
        .arg(folder)
        // Its own figures are not those of this run.
        .env("FIGURES_DIR", folder);
    let mut process = Process::start("bench", &command, folder)?;
    let patience = Duration::from_secs(60 + asked.clients.len() as u64 * (2 * asked.secs + 10));
    let status = process.wait(patience, interrupted)?;
    // It fails when one of its own figures is missed; what it measured counts here all the same.
    let answered = parse(&process.said()?).with_context(|| format!("it ended with {status}"));
    let answered = answered.map_err(|error| process.complain(&format!("{error:#}")))?;
    let counts: Vec<_> = answered.rows.iter().map(|row| row.clients).collect();
    ensure!(
        counts == asked.clients,
        "bench measured {counts:?} clients, and was asked for {clients:?}"
    );
    Ok(answered)
}

/// Of its JSON, what a row is made of.
#[derive(Deserialize)]
struct Report {
    machine: serde_json::Value,
    rows: Vec<BenchRow>,
}

#[derive(Deserialize)]
struct BenchRow {
    clients: usize,
    commits_per_s: f64,
    cpu_us_per_commit: f64,
    foreign_cores: f64,
    processes: Vec<BenchProcess>,
    measured: BenchMeasured,
}

impl BenchRow {
    /// CPU time without the clients; none where the leader is in their process, for then nobody can tell them apart.
    fn servers_cpu_us(&self) -> Option<f64> {
        let together = self
            .processes
            .iter()
            .any(|process| process.clients && process.leads);
        let servers = self.processes.iter().filter(|process| !process.clients);
        (!together).then(|| servers.map(|process| process.cpu_us_per_commit).sum())
    }
}

#[derive(Deserialize)]
struct BenchProcess {
    leads: bool,
    clients: bool,
    cpu_us_per_commit: f64,
}

#[derive(Deserialize)]
struct BenchMeasured {
    median_us: u64,
    p99_us: u64,
    errors: u64,
    first_error: Option<String>,
}

fn parse(json: &str) -> Result<Answered> {
    let report: Report = serde_json::from_str(json).context("no report of bench")?;
    let cores = report.machine["cores"]
        .as_u64()
        .context("a machine without cores")?;
    let rows = report.rows.into_iter().map(|row| Row {
        clients: row.clients,
        commits_per_s: row.commits_per_s,
        median_us: row.measured.median_us,
        p99_us: row.measured.p99_us,
        cpu_us: row.cpu_us_per_commit,
        servers_cpu_us: row.servers_cpu_us(),
        foreign: row.foreign_cores / cores.max(1) as f64,
        errors: row.measured.errors,
        first_error: row.measured.first_error,
    });
    Ok(Answered {
        rows: rows.collect(),
        machine: report.machine,
    })
}

/// The program that is measured, absolute.
pub(crate) fn program(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| {
        format!(
            "{} is not there: make peers builds it, or make programs",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"machine": {"cores": 2}, "nodes": 3, "payload": 256, "rows": [{"clients": 64,
        "commits_per_s": 90000, "cpu_us_per_commit": 12.5, "foreign_cores": 0.5, "processes": [PROCESSES], "measured": {"commits": 5, "commits_in_all": 9,
        "seconds": 1.0, "median_us": 700, "p99_us": 1500, "max_us": 9000, "errors": 1, "first_error": "busy"}}]}"#;

    const LEADER: &str = r#"{"leads": true, "clients": false, "cpu_us_per_commit": 6.0}"#;
    const FOLLOWER: &str = r#"{"leads": false, "clients": false, "cpu_us_per_commit": 3.0}"#;
    const CLIENTS: &str = r#"{"leads": false, "clients": true, "cpu_us_per_commit": 3.5}"#;
    const LEADER_WITH_CLIENTS: &str =
        r#"{"leads": true, "clients": true, "cpu_us_per_commit": 9.5}"#;

    fn parsed(processes: &[&str]) -> Answered {
        parse(&JSON.replace("PROCESSES", &processes.join(", "))).unwrap()
    }

    #[test]
    fn a_report_of_bench_is_understood() {
        let answered = parsed(&[LEADER_WITH_CLIENTS, FOLLOWER]);
        let [row] = &answered.rows[..] else {
            panic!("{answered:?}")
        };
        assert_eq!(
            (row.clients, row.commits_per_s, row.cpu_us),
            (64, 90_000.0, 12.5)
        );
        assert_eq!((row.median_us, row.p99_us, row.errors), (700, 1_500, 1));
        assert_eq!(row.first_error.as_deref(), Some("busy"));
        assert_eq!((row.foreign, row.servers_cpu_us), (0.25, None));
        assert_eq!(answered.machine["cores"], 2);
    }

    #[test]
    fn clients_outside_are_told_apart() {
        let answered = parsed(&[LEADER, FOLLOWER, CLIENTS]);
        assert_eq!(answered.rows[0].servers_cpu_us, Some(9.0));
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse("{\"rows\": []}").is_err());
    }
}
