//! Clusters whose members come and go: under load, killed at every step of it, and with those who have no right to come.
//!
//! Exit code 0: all is as it must be. 1: it is not, and the last lines say what. 2: wrong arguments.

mod kills;
mod life;
mod load;
mod refusals;
mod report;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::programs::guard;
use tests::random::fresh_seed;

use report::Report;

/// Lives of clusters: one node, three, five, and others in their places.
#[derive(Debug, Parser)]
struct Arguments {
    /// The part that is run, and no other.
    #[command(subcommand)]
    command: Option<Command>,
    /// The short form.
    #[arg(long, global = true)]
    quick: bool,
    /// How many lives.
    #[arg(long, global = true, default_value_t = 3)]
    runs: u64,
    /// Of the first life; each further one has the next. An earlier run printed it.
    #[arg(long, global = true)]
    seed: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Under load: joining, leaving, removing, replacing, and the restart of all.
    Run,
    /// A process is killed at each step of a join and of a leave.
    Kills,
    /// Those who must not come in, by the names of their refusals.
    Refusals,
    /// Runs a program that is killed when this process's parent ends.
    #[command(hide = true)]
    Guard {
        parent: u32,
        #[arg(last = true)]
        program: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it must be.
fn run(arguments: Arguments) -> Result<bool> {
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let mut report = Report::new(arguments.quick, seed)?;
    let runs = if arguments.quick { 1 } else { arguments.runs };
    match arguments.command {
        None => {
            life::run(&mut report, runs)?;
            kills::run(&mut report)?;
            refusals::run(&mut report)?;
        }
        Some(Command::Run) => life::run(&mut report, runs)?,
        Some(Command::Kills) => kills::run(&mut report)?,
        Some(Command::Refusals) => refusals::run(&mut report)?,
        Some(Command::Guard { parent, program }) => {
            return guard(parent, &program).map(|()| false);
        }
    }
    report.end()
}
