//! Holds the wire to what it promises, between real processes: how soon somebody leads again, and what a big snapshot
//! costs those who do not need it.
//!
//! Exit code 0: all is as it must be. 1: it is not, and the last lines say what. 2: wrong arguments.

mod catchup;
mod failover;
mod hostile;
mod hosts;
mod load;
mod report;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::programs::guard;

use report::{Part, Report};

/// Leaders that die or fall silent, and snapshots under load.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The short form.
    #[arg(long, global = true)]
    quick: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A leader's process is killed, or its host falls silent: how soon the next proposal is committed.
    Failover {
        /// How many leaders are killed, each with the early campaign and without [default: 50, short: 8].
        #[arg(long)]
        rounds: Option<u64>,
    },
    /// A big snapshot reaches a node that was away, broken off and resumed, while the cluster commits at full load.
    Catchup {
        /// Its size, in MiB [default: 2048, short: 128].
        #[arg(long)]
        mib: Option<u64>,
        /// How many MiB of it are sent in a second, at most [default: what nodes do unless told otherwise].
        #[arg(long)]
        mib_per_s: Option<u64>,
    },
    /// Strangers, broken members and crowds: each is refused by its name, and the leader stays.
    Hostile,
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
            eprintln!("wire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it must be.
fn run(arguments: Arguments) -> Result<bool> {
    let quick = arguments.quick;
    let form = |given: Option<u64>, long, short| given.unwrap_or(if quick { short } else { long });
    let part = match arguments.command {
        Command::Failover { rounds } => Part::Failover {
            rounds: form(rounds, 50, 8),
        },
        Command::Catchup { mib, mib_per_s } => Part::Catchup {
            mib: form(mib, 2048, 128),
            rate: mib_per_s.map(|mib| mib << 20),
        },
        Command::Hostile => Part::Hostile,
        Command::Guard { parent, program } => {
            return guard(parent, &program).map(|()| false);
        }
    };
    Report::new(part, quick)?.run()
}
