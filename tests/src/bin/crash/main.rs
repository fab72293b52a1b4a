//! Crashes a store and a node on purpose, on real files, and holds them to what they said.
//!
//! Exit code 0: all is as it must be. 1: it is not, and the last lines say what. 2: wrong arguments.

mod damage;
mod fail;
mod full;
mod kill;
mod opening;
mod report;
mod tear;
mod unsynced;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::crash::writer::{self, Writing};
use tests::crash::{check, mounts, node};
use tests::programs::guard;
use tests::random::fresh_seed;

use report::{Part, Report};

/// Kills writers, forgets what was not synced, tears, damages, fails and fills disks; nothing acknowledged may be lost.
#[derive(Debug, Parser)]
struct Arguments {
    /// The part that is run, and no other [default: all].
    #[command(subcommand)]
    command: Option<Command>,
    /// The short form.
    #[arg(long, global = true)]
    quick: bool,
    /// Repeats the choices of an earlier run, which printed it.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// How many times, instead of what the form has.
    #[arg(long, global = true)]
    rounds: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writers killed with -9.
    Kill,
    /// Power losses: everything that was not synced is gone, or any part of it.
    Unsynced {
        /// The disk says that it synced, and did not: this must be noticed, and fail.
        #[arg(long)]
        lie: bool,
    },
    /// The last record of the log cut or torn.
    Tear,
    /// Any file of a stopped node damaged.
    Damage,
    /// System calls of a node that fail or stall.
    Fail,
    /// Full disks.
    Full,
    /// Folders of others, of nobody, of newer versions, and in use.
    Opening,
    /// Runs a program that is killed when this process's parent ends.
    #[command(hide = true)]
    Guard {
        parent: u32,
        #[arg(last = true)]
        program: Vec<OsString>,
    },
    /// The process that is crashed.
    #[command(hide = true)]
    Write(Writing),
    /// Says what a folder holds.
    #[command(hide = true)]
    Check {
        dir: PathBuf,
        #[arg(long)]
        node: u64,
    },
    /// A node that proposes to itself.
    #[command(hide = true)]
    Node {
        dir: PathBuf,
        #[arg(long)]
        port: u16,
        #[arg(long)]
        first: u64,
    },
    /// Says which commands a node's folder holds.
    #[command(hide = true)]
    Commands { dir: PathBuf },
    /// Unmounts when its standard input ends.
    #[command(hide = true)]
    Sweep { dir: PathBuf },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it must be.
fn run(arguments: Arguments) -> Result<bool> {
    let parts = match arguments.command {
        None => Part::ALL.to_vec(),
        Some(Command::Kill) => vec![Part::Kill],
        Some(Command::Unsynced { lie: false }) => vec![Part::Unsynced],
        Some(Command::Unsynced { lie: true }) => vec![Part::Lie],
        Some(Command::Tear) => vec![Part::Tear],
        Some(Command::Damage) => vec![Part::Damage],
        Some(Command::Fail) => vec![Part::Fail],
        Some(Command::Full) => vec![Part::Full],
        Some(Command::Opening) => vec![Part::Opening],
        Some(Command::Guard { parent, program }) => {
            return guard(parent, &program).map(|()| false);
        }
        Some(Command::Write(writing)) => std::process::exit(writer::write(&writing)?),
        Some(Command::Check { dir, node }) => return answer(&check::check(&dir, node)),
        Some(Command::Node { dir, port, first }) => {
            std::process::exit(node::run(&dir, port, first));
        }
        Some(Command::Commands { dir }) => return answer(&node::commands(&dir)),
        Some(Command::Sweep { dir }) => {
            mounts::wait_and_sweep(&dir);
            return Ok(true);
        }
    };
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    let mut report = Report::new(arguments.quick, seed, arguments.rounds)?;
    for part in parts {
        report.run(part)?;
    }
    report.end()
}

fn answer(answer: &impl serde::Serialize) -> Result<bool> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(true)
}
