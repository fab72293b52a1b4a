//! `bench matrix`: every group of the plan, round for round, and the figures of all rounds.
//!
//! - [`plan`] which clusters, and what is measured on each
//! - [`logs`] replay, restart, and logs of different lengths
//! - [`visits`] what has been measured so far, kept so that it can go on
//! - [`ratios`] the figures
//!
//! Each group is visited once in each round, on a cluster that is started for it: none runs beside another one, and none has a
//! longer log than the rest. Every second round goes backwards, so that what drifts does not always fall on the same side.

mod logs;
mod plan;
mod ratios;
mod visits;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::cluster::Place;
use crate::clusters::Clusters;
use crate::machine::Machine;
use crate::physics::Physics;
use crate::plot::{self, Point, Series};
use crate::protocol::Operation;
use crate::report::{Report, Row, figures_folder, target, write_figures};
use plan::{Cell, Group, Kind, PAYLOAD};
use ratios::{BOUND_US, median};
use visits::{Visit, Visits};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fewer clients and payloads, windows of a second: two to three minutes.
    #[arg(long)]
    quick: bool,
    /// How many rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How long each measurement takes, after a warm-up [default: 5; 1 with --quick].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    secs: Option<u64>,
    /// Only the groups whose name holds one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// On whose disk the nodes keep their data, in folders that are removed afterwards [default: the target folder].
    #[arg(long)]
    data: Option<PathBuf>,
}

/// What is written as JSON.
#[derive(Serialize)]
struct Written<'a> {
    machine: &'a Machine,
    visits: &'a [Visit],
}

/// True when no floor was missed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let target = target()?;
    let data = options.data.as_deref().unwrap_or(&target);
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let wanted = |group: &Group| {
        let only = &options.only;
        only.is_empty() || only.iter().any(|part| group.name.contains(part))
    };
    let mut groups = plan::groups(options.quick);
    groups.retain(wanted);
    ensure!(!groups.is_empty(), "there is no such group");
    let window_ms = options.secs.unwrap_or(if options.quick { 1 } else { 5 }) * 1_000;
    let form = format!("{} {window_ms}", options.quick);
    let mut visits = Visits::open(&target.join("bench-matrix"), &form)?;
    let machine = Machine::look(data)?;
    println!("{machine}\n{}", Report::COLUMNS);
    let rounds = options.rounds as usize;
    for round in 0..rounds {
        let forwards = round % 2 == 0;
        for number in 0..groups.len() {
            let place = if forwards {
                number
            } else {
                groups.len() - 1 - number
            };
            let group = &groups[place];
            println!("round {} of {rounds}, {}", round + 1, group.name);
            if let Some(visit) = visits.find(round, group.name) {
                for row in &visit.rows {
                    print!("{}", Report::lines(row));
                }
                continue;
            }
            let visit = visit(round, group, window_ms, data);
            visits.add(visit.with_context(|| format!("measuring {}", group.name))?)?;
        }
    }
    let figures = ratios::figures(&visits, rounds);
    print!("\n{}", figures.text());
    write_figures("bench.txt", figures.text(), &target)?;
    let written = serde_json::to_string_pretty(&Written {
        machine: &machine,
        visits: &visits.done,
    })?;
    write_figures("bench.json", &written, &target)?;
    draw(&groups, &visits, &machine, &figures_folder(&target))?;
    visits.remove()?;
    Ok(!figures.missed())
}

fn visit(round: usize, group: &Group, window_ms: u64, data: &Path) -> Result<Visit> {
    let (mut rows, mut numbers, mut delivered) = (Vec::new(), BTreeMap::new(), true);
    match &group.kind {
        Kind::Loads(shape, cells) => {
            let mut clusters = Clusters::default();
            for cell in cells {
                let load = cell.load(window_ms);
                let cluster = clusters.of(shape.under(&load), data)?;
                let alone = group.name == plan::THREE && cell.is_one_proposal();
                let before = alone.then(|| physics(data)).transpose()?;
                let row = cluster.measure(cell.at, load)?;
                let after = alone.then(|| physics(data)).transpose()?;
                print!("{}", Report::lines(&row));
                if let (Some(before), Some(after)) = (before, after) {
                    let bound = f64::midpoint(before.bound_us(), after.bound_us());
                    println!(
                        "           one write on each of three disks and a round trip: {bound:.0} µs"
                    );
                    numbers.insert(BOUND_US.to_owned(), bound);
                }
                rows.push(row);
            }
            clusters.end()?;
            delivered = clusters.delivered;
        }
        Kind::Log { entries } => numbers = logs::replay_and_restart(*entries, data)?,
        Kind::Length { short, long } => {
            numbers = logs::lengths(*short, *long, window_ms, data)?;
        }
    }
    Ok(Visit {
        round,
        group: group.name.to_owned(),
        rows,
        numbers,
        delivered,
    })
}

/// What bounds one client, now.
fn physics(data: &Path) -> Result<Physics> {
    Physics::measure(data, Duration::from_millis(400))
}

impl Cell {
    fn is_one_proposal(&self) -> bool {
        (self.at, self.operation, self.clients) == (Place::Leader, Operation::Propose, 1)
            && self.payload == PAYLOAD
    }
}

/// Proposals and reads over clients, and proposals by payload, each point the median of all rounds.
fn draw(groups: &[Group], visits: &Visits, machine: &Machine, folder: &Path) -> Result<()> {
    let mut proposals = Vec::new();
    let mut reads = Vec::new();
    for group in groups {
        let Kind::Loads(_, cells) = &group.kind else {
            continue;
        };
        let rows_of = |cell: &Cell| -> Vec<&Row> {
            let visits = visits.done.iter().filter(|visit| visit.group == group.name);
            visits.filter_map(|visit| visit.row(cell)).collect()
        };
        for at in [Place::Leader, Place::Follower, Place::Outside] {
            for (operation, plot) in [
                (Operation::Propose, &mut proposals),
                (Operation::Read, &mut reads),
            ] {
                let cells = cells.iter().filter(|cell| {
                    let usual = operation == Operation::Read || cell.payload == PAYLOAD;
                    (cell.at, cell.operation) == (at, operation) && usual
                });
                let points: Vec<_> = cells.filter_map(|cell| middle(&rows_of(cell))).collect();
                if !points.is_empty() {
                    let name = match at {
                        Place::Follower => format!("{}, at a follower", group.name),
                        Place::Leader | Place::Outside => group.name.to_owned(),
                    };
                    plot.push(Series { name, points });
                }
            }
        }
    }
    for (name, what, series) in [
        (
            "bench.svg",
            "Proposals of 256 bytes, with fsync but in memory",
            proposals,
        ),
        ("bench-reads.svg", "Linearizable reads", reads),
    ] {
        if !series.is_empty() {
            plot::draw(
                &format!("{what}, {}", machine.date),
                &series,
                &folder.join(name),
            )?;
        }
    }
    Ok(())
}

/// The medians of several measurements of the same.
fn middle(rows: &[&Row]) -> Option<Point> {
    let over = |value: fn(&Row) -> u64| {
        let values = rows.iter().map(|row| value(row) as f64).collect();
        median(values).map(|value| value as u64)
    };
    Some(Point {
        clients: rows.first()?.clients,
        commits_per_s: over(|row| row.commits_per_s)?,
        median_us: over(|row| row.measured.median_us)?,
    })
}
