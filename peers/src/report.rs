//! What is handed out: lines as it goes, tables for people, JSON, the plot, the figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::ours::Mode;
use crate::plot;
use crate::process::this_program;
use crate::row::{Row, Side, Turn};
use crate::verdict::{self, Figure, median};

/// Who was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct System {
    pub(crate) name: String,
    /// What it is and how it was run.
    pub(crate) what: String,
    /// What differs from ours.
    pub(crate) differs: String,
}

/// One system with one number of clients: each column the median of all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cell {
    pub(crate) commits_per_s: f64,
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_us: f64,
    pub(crate) servers_cpu_us: Option<f64>,
    /// In all rounds.
    pub(crate) errors: u64,
}

/// The cells of one system, by the number of clients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) cells: BTreeMap<usize, Cell>,
}

/// All that came of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    machine: serde_json::Value,
    payload: usize,
    rounds: usize,
    systems: Vec<System>,
    skipped: Vec<(String, String)>,
    lines: Vec<Line>,
    figures: Vec<Figure>,
    /// What others took of the machine's CPU meanwhile, 0 to 1: the median, and the most.
    foreign: Option<(f64, f64)>,
}

impl Report {
    /// Of these turns.
    pub(crate) fn new(
        machine: serde_json::Value,
        payload: usize,
        rounds: usize,
        mut systems: Vec<System>,
        skipped: Vec<(String, String)>,
        turns: &[Turn],
        figures: Vec<Figure>,
    ) -> Self {
        let ours = [
            ("ours", Mode::Leader, "as a library user has it"),
            (
                "ours_outside",
                Mode::Outside,
                "a socket between, as with the servers",
            ),
            ("ours_memory", Mode::Memory, "beside openraft_memory"),
        ];
        let ours = ours.map(|(name, mode, differs)| System {
            name: name.to_owned(),
            what: mode.what().to_owned(),
            differs: differs.to_owned(),
        });
        systems.splice(0..0, ours);
        let lines: Vec<_> = systems
            .iter()
            .map(|system| line(&system.name, turns))
            .collect();
        let lines: Vec<_> = lines
            .into_iter()
            .filter(|line| !line.cells.is_empty())
            .collect();
        systems.retain(|system| lines.iter().any(|line| line.name == system.name));
        let foreign = turns
            .iter()
            .flat_map(|turn| &turn.rows)
            .map(|row| row.foreign);
        let foreign = sorted(foreign);
        Self {
            machine,
            payload,
            rounds,
            systems,
            skipped,
            lines,
            figures,
            foreign: median(&foreign).zip(foreign.last().copied()),
        }
    }

    /// Prints and writes all of it. True when no figure is missed.
    pub(crate) fn write(&self, turns: &[Turn]) -> Result<bool> {
        let text = self.text();
        let (figures, ok) = verdict::lines(&self.figures, turns);
        let folder = env::var_os("FIGURES_DIR")
            .map_or_else(|| target().map(|t| t.join("figures")), |f| Ok(f.into()))?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let put = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        put("peers.txt", &figures)?;
        put("peers.md", &text)?;
        put("peers.json", &serde_json::to_string_pretty(self)?)?;
        put("peers.svg", &plot::svg(&self.lines)?)?;
        // Last, so that nothing is lost when nobody reads on.
        println!("\n{text}\n{figures}");
        println!(
            "peers.md, peers.json, peers.svg and peers.txt are in {}",
            folder.display()
        );
        Ok(ok)
    }

    /// For people, in Markdown.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        add(format!(
            "All on one machine and one disk, in turns with ours; {} bytes, closed loop, medians of {} round{}.",
            self.payload,
            self.rounds,
            if self.rounds == 1 { "" } else { "s" },
        ));
        add(format!("Machine: {}", self.machine));
        if let Some((middle, most)) = self.foreign {
            add(format!(
                "Others took {:.0} % of the CPU (median), {:.0} % at most.",
                middle * 100.0,
                most * 100.0
            ));
        }
        for (title, cell) in TABLES {
            add(String::new());
            add(self.table(title, cell));
        }
        add("Who is who:".to_owned());
        for system in &self.systems {
            add(format!(
                "- `{}`: {}; {}",
                system.name, system.what, system.differs
            ));
        }
        for (name, why) in &self.skipped {
            add(format!("- `{name}` was skipped: {why}"));
        }
        if !self.figures.is_empty() {
            add("\nOurs over theirs, median of the rounds (least to most):".to_owned());
        }
        for figure in &self.figures {
            add(self.beside(figure));
        }
        text
    }

    fn table(&self, title: &str, show: fn(&Cell) -> String) -> String {
        let mut counts: Vec<_> = self
            .lines
            .iter()
            .flat_map(|line| line.cells.keys().copied())
            .collect();
        counts.sort_unstable();
        counts.dedup();
        let mut text = format!("| {title}, clients: |");
        for count in &counts {
            // Writing to a string cannot fail.
            let _ = write!(text, " {count} |");
        }
        let _ = write!(text, "\n|---|{}", "---|".repeat(counts.len()));
        for line in &self.lines {
            let _ = write!(text, "\n| {} |", line.name);
            for count in &counts {
                let cell = line.cells.get(count).map_or_else(String::new, show);
                let _ = write!(text, " {cell} |");
            }
        }
        text.push('\n');
        text
    }

    /// A ratio, and what differs between the two.
    fn beside(&self, figure: &Figure) -> String {
        let theirs = self
            .systems
            .iter()
            .find(|system| system.name == figure.peer);
        let differs = match figure.side {
            Side::Outside => {
                "the clients of both come over a socket; ours through a learner of their own"
            }
            _ => theirs.map_or("", |system| &system.differs),
        };
        let Some(ratio) = figure.ratio else {
            return format!("- {}: none, it failed", figure.name);
        };
        let spread = match &figure.of_rounds[..] {
            [least, .., most] => format!(" ({least:.2} to {most:.2})"),
            _ => String::new(),
        };
        let floor = figure
            .floor
            .map_or_else(String::new, |floor| format!("floor {floor}, "));
        let target = if ratio >= figure.target {
            "reached"
        } else {
            "not reached"
        };
        format!(
            "- {}: {ratio:.2} ×{spread}; {floor}target {} {target}. {differs}",
            figure.name, figure.target
        )
    }
}

/// A table's heading, and what it shows of a cell.
type Table = (&'static str, fn(&Cell) -> String);

const TABLES: [Table; 3] = [
    ("commits/s (median ms)", |cell| {
        format!("{} ({})", thousands(cell.commits_per_s), ms(cell.median_us))
    }),
    ("p99 ms", |cell| ms(cell.p99_us)),
    (
        "CPU µs for each commit, with the clients (without them); errors",
        |cell| {
            let servers = cell
                .servers_cpu_us
                .map_or_else(String::new, |us| format!(" ({us:.1})"));
            let errors = if cell.errors > 0 {
                format!("; {} errors", cell.errors)
            } else {
                String::new()
            };
            format!("{:.1}{servers}{errors}", cell.cpu_us)
        },
    ),
];

fn ms(us: f64) -> String {
    if us < 10_000.0 {
        format!("{:.2}", us / 1_000.0)
    } else {
        format!("{:.0}", us / 1_000.0)
    }
}

/// `1,234,567`.
fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The name under which a side of a turn is shown.
fn shown(turn: &Turn) -> &str {
    match (turn.side, turn.peer.as_str()) {
        (Side::Peer, peer) => peer,
        (Side::Outside, _) => "ours_outside",
        (Side::Ours, "openraft_memory") => "ours_memory",
        (Side::Ours, _) => "ours",
    }
}

fn line(name: &str, turns: &[Turn]) -> Line {
    let mut rows: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
    for row in turns
        .iter()
        .filter(|turn| shown(turn) == name)
        .flat_map(|turn| &turn.rows)
    {
        rows.entry(row.clients).or_default().push(row);
    }
    Line {
        name: name.to_owned(),
        cells: rows
            .into_iter()
            .map(|(clients, rows)| (clients, cell(&rows)))
            .collect(),
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn cell(rows: &[&Row]) -> Cell {
    let middle =
        |of: fn(&Row) -> f64| median(&sorted(rows.iter().map(|row| of(row)))).unwrap_or(0.0);
    Cell {
        commits_per_s: middle(|row| row.commits_per_s),
        median_us: middle(|row| row.median_us as f64),
        p99_us: middle(|row| row.p99_us as f64),
        cpu_us: middle(|row| row.cpu_us),
        servers_cpu_us: median(&sorted(rows.iter().filter_map(|row| row.servers_cpu_us))),
        errors: rows.iter().map(|row| row.errors).sum(),
    }
}

/// What is said when a side of a turn is over.
pub(crate) fn progress(turn: &Turn, rounds: usize, took: Duration) -> String {
    let mut text = format!("{}/{rounds} {:<16}", turn.round + 1, shown(turn));
    for row in &turn.rows {
        let _ = write!(
            text,
            " {}: {}/s {} ms",
            row.clients,
            thousands(row.commits_per_s),
            ms(row.median_us as f64)
        );
        if row.errors > 0 {
            let first = row.first_error.as_deref().unwrap_or("unknown");
            let _ = write!(text, " ({} errors: {first})", row.errors);
        }
        text.push(';');
    }
    let _ = write!(text, " {:.0} s", took.as_secs_f64());
    if let Some(why) = &turn.failed {
        let _ = write!(text, "\n    failed: {why}");
    }
    text
}

/// The target folder of cargo that this program lies in.
pub(crate) fn target() -> Result<PathBuf> {
    let program = this_program()?;
    let folder = program.parent().and_then(Path::parent);
    Ok(folder
        .context("this program lies in no target folder")?
        .to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(clients: usize, commits_per_s: f64, errors: u64) -> Row {
        Row {
            clients,
            commits_per_s,
            median_us: 1_500,
            p99_us: 12_345,
            cpu_us: 10.0,
            servers_cpu_us: Some(7.0),
            foreign: 0.1,
            errors,
            first_error: (errors > 0).then(|| "busy".to_owned()),
        }
    }

    fn turns() -> Vec<Turn> {
        let turn = |round, side, rows| Turn {
            round,
            peer: "etcd".to_owned(),
            side,
            rows,
            failed: None,
        };
        vec![
            turn(0, Side::Ours, vec![row(64, 90_000.0, 0)]),
            turn(0, Side::Peer, vec![row(64, 5_000.0, 1)]),
            turn(
                1,
                Side::Ours,
                vec![row(64, 110_000.0, 0), row(4_096, 1_234_567.0, 0)],
            ),
            turn(1, Side::Peer, vec![row(64, 7_000.0, 2)]),
        ]
    }

    fn report() -> Report {
        let etcd = System {
            name: "etcd".to_owned(),
            what: "etcd 3".to_owned(),
            differs: "a socket".to_owned(),
        };
        let figures = verdict::figures(&turns(), &[64]);
        let skipped = vec![("nats".to_owned(), "nats-server is not here".to_owned())];
        Report::new(
            serde_json::Value::Null,
            256,
            2,
            vec![etcd],
            skipped,
            &turns(),
            figures,
        )
    }

    #[test]
    fn a_cell_is_the_median_of_its_rounds_and_adds_the_errors() {
        let report = report();
        let names: Vec<_> = report.lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["ours", "etcd"]);
        assert_eq!(report.lines[0].cells[&64].commits_per_s, 100_000.0);
        let etcd = &report.lines[1].cells[&64];
        assert_eq!(
            (etcd.commits_per_s, etcd.errors, etcd.servers_cpu_us),
            (6_000.0, 3, Some(7.0))
        );
    }

    #[test]
    fn the_text_says_who_was_skipped_what_differs_and_what_is_not_reached() {
        let text = report().text();
        assert!(
            text.contains("| ours | 100,000 (1.50) | 1,234,567 (1.50) |"),
            "{text}"
        );
        assert!(text.contains("| etcd | 6,000 (1.50) |  |"), "{text}");
        assert!(text.contains("`nats` was skipped: nats-server is not here"));
        assert!(
            text.contains(
                "etcd_64: 16.86 × (15.71 to 18.00); floor 10, target 15 reached. a socket"
            ),
            "{text}"
        );
        assert!(text.contains("Others took 10 % of the CPU (median), 10 % at most."));
    }

    #[test]
    fn progress_names_the_first_error() {
        let line = progress(&turns()[3], 2, Duration::from_secs(9));
        assert_eq!(
            line,
            "2/2 etcd             64: 7,000/s 1.50 ms (2 errors: busy); 9 s"
        );
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let all = [0.0, 999.4, 1_000.0, 1_234_567.0].map(thousands);
        assert_eq!(all, ["0", "999", "1,000", "1,234,567"]);
    }
}
