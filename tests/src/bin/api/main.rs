//! Drives a small replicated program as its users would, and holds the API to what it promises.
//!
//! Exit code 0: all is as it must be. 1: it is not, and the last lines say what. 2: wrong arguments.

mod big;
mod cursor;
mod diverge;
mod first;
mod linear;
mod load;
mod once;
mod report;
mod slow;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::programs::guard;
use tests::random::fresh_seed;

use report::{Part, Report};

/// Outcomes, reads, subscriptions and snapshots under kills, pauses and cuts.
#[derive(Debug, Parser)]
struct Arguments {
    /// The part that is run, and no other [default: all but first-from-nothing; in the short form, but first too].
    #[command(subcommand)]
    command: Option<Command>,
    /// The short form.
    #[arg(long, global = true)]
    quick: bool,
    /// Repeats the choices of an earlier run, which printed it.
    #[arg(long, global = true)]
    seed: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Increments that are retried on every error: each counts once.
    Once,
    /// Histories of registers are linearizable, and a stale read is found.
    Linear,
    /// A subscriber that is killed resumes from its cursor.
    Cursor,
    /// A subscriber that handles nothing costs little, and nobody else anything.
    Slow,
    /// A big state is snapshotted, handed over and restored in little memory.
    Big,
    /// A replica that differs names itself and stops serving.
    Diverge,
    /// The README's first program, in an empty project, with the prebuilt archive.
    First,
    /// The same without the archive: RocksDB is compiled, which takes many minutes.
    FirstFromNothing,
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
            eprintln!("api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it must be.
fn run(arguments: Arguments) -> Result<bool> {
    let parts = match arguments.command {
        None => Part::all(arguments.quick),
        Some(Command::Once) => vec![Part::Once],
        Some(Command::Linear) => vec![Part::Linear],
        Some(Command::Cursor) => vec![Part::Cursor],
        Some(Command::Slow) => vec![Part::Slow],
        Some(Command::Big) => vec![Part::Big],
        Some(Command::Diverge) => vec![Part::Diverge],
        Some(Command::First) => vec![Part::First],
        Some(Command::FirstFromNothing) => vec![Part::FirstFromNothing],
        Some(Command::Guard { parent, program }) => {
            return guard(parent, &program).map(|()| false);
        }
    };
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let mut report = Report::new(arguments.quick, seed)?;
    for part in parts {
        report.run(part)?;
    }
    report.end()
}
