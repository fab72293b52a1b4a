//! The simulation's program: see the README beside it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use sim::{Campaign, Event, Report};

/// Whole clusters of the core in virtual time, each from one seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run so many seeds.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Begin with this seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run one seed, and print every step.
    #[arg(long)]
    seed: Option<u64>,
    /// The short form: few seeds, and each event at least once.
    #[arg(long)]
    quick: bool,
    /// Run the first so many seeds twice: both runs must be the same.
    #[arg(long)]
    twice: Option<u64>,
    /// End at the first violation.
    #[arg(long)]
    stop_at_first: bool,
    /// Write finished seeds below this folder, and begin where an earlier run stopped.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Print nothing while it runs.
    #[arg(long)]
    silent: bool,
}

/// Seeds of the short form.
const QUICK: u64 = 120;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return Ok(run_one(seed));
    }
    let campaign = Campaign {
        from: arguments.from,
        seeds: match (arguments.quick, arguments.twice) {
            (_, Some(seeds)) => seeds,
            (true, None) => QUICK,
            (false, None) => arguments.seeds,
        },
        threads: arguments.threads,
        state: arguments.state.clone(),
        stop_at_first: arguments.stop_at_first,
        twice: arguments.twice.is_some(),
        progress: !arguments.silent,
    };
    let report = campaign.run()?;
    let stopped = arguments.stop_at_first && !report.violations.is_empty();
    if campaign.twice && !stopped {
        print_twice(&report)?;
    }
    let least = match arguments.quick {
        true => 1,
        false => campaign.seeds * 100 / 2_000,
    };
    let well = match stopped || campaign.twice {
        true => report.violations.is_empty(),
        false => print_report(&campaign, &report, least)?,
    };
    for (seed, broken) in &report.violations {
        println!("VIOLATION seed={seed} {broken}");
    }
    Ok(match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn run_one(seed: u64) -> ExitCode {
    let outcome = sim::run_traced(seed);
    println!("{} steps, digest {:016x}", outcome.steps, outcome.digest);
    for event in Event::ALL {
        println!("{:8}  {}", outcome.counts.of(*event), event.words());
    }
    match outcome.broken {
        None => ExitCode::SUCCESS,
        Some(broken) => {
            println!("VIOLATION seed={seed} {broken}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the figure of seeds that were run twice, which has a file of its own.
fn print_twice(report: &Report) -> Result<()> {
    let mut figures = Figures::default();
    let same = report.seeds - report.violations.len() as u64;
    figures.add(
        "same_twice",
        same,
        "seeds",
        report.seeds,
        same == report.seeds,
    );
    figures.write("sim-twice.txt")
}

/// Prints the table of events and the figures. True when all is as it must be.
fn print_report(campaign: &Campaign, report: &Report, least: u64) -> Result<bool> {
    for event in Event::ALL {
        let count = report.counts.of(*event);
        let mark = if count < least { "  TOO RARE" } else { "" };
        println!("{count:10}  {}{mark}", event.words());
    }
    let rare = report.counts.rarer_than(least);
    let mut figures = Figures::default();
    figures.add(
        "violations",
        report.violations.len() as u64,
        "count",
        0,
        report.violations.is_empty(),
    );
    figures.add(
        "seeds",
        report.seeds,
        "count",
        campaign.seeds,
        report.seeds >= campaign.seeds,
    );
    let steps = report.steps_min;
    let enough = steps >= 20_000 || steps == u64::MAX;
    figures.add("steps_per_seed_min", steps, "count", 20_000, enough);
    figures.add("steps", report.steps, "count", 0, true);
    figures.add(
        "steps_per_second",
        report.steps_per_second(),
        "1/s",
        0,
        true,
    );
    let all = Event::ALL.len() as u64;
    figures.add(
        "events_covered",
        all - rare.len() as u64,
        "count",
        all,
        rare.is_empty(),
    );
    figures.write("sim.txt")?;
    Ok(figures.well)
}

/// `FIGURE sim.name value unit floor ok|missed`, printed and written to a file in `FIGURES_DIR`.
struct Figures {
    lines: String,
    well: bool,
}

impl Default for Figures {
    fn default() -> Self {
        let lines = String::new();
        Self { lines, well: true }
    }
}

impl Figures {
    fn add(&mut self, name: &str, value: u64, unit: &str, floor: u64, ok: bool) {
        let verdict = if ok { "ok" } else { "missed" };
        let line = format!("FIGURE sim.{name} {value} {unit} {floor} {verdict}");
        println!("{line}");
        self.lines += &line;
        self.lines.push('\n');
        self.well &= ok;
    }

    fn write(&self, name: &str) -> Result<()> {
        let Some(folder) = std::env::var_os("FIGURES_DIR").map(PathBuf::from) else {
            return Ok(());
        };
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(name);
        fs::write(&file, &self.lines).with_context(|| format!("cannot write {}", file.display()))
    }
}
