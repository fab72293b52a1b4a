//! Drives clusters of real demo-chat processes: the scripted demo, the order test, the kill test.
//!
//! Exit code 0: all is as it must be. 1: it is not, and the last lines say what. 2: wrong arguments.

mod demo;
mod kill;
mod order;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::programs::{Programs, guard};

/// Drives clusters of real demo-chat processes. DEMO_CHAT= names the program; else it lies beside this one.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A conversation of three nodes, through a kill of the leader.
    Demo {
        /// The first of three ports.
        #[arg(long, default_value_t = 7001, value_parser = clap::value_parser!(u16).range(1..=65_533))]
        port: u16,
        /// A folder that is empty or not there [default: demo/script in the target folder].
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// Messages from three nodes at once, through kills: one order, none lost, none twice.
    Order {
        /// How many messages in each of the three parts.
        #[arg(long, default_value_t = 10_000)]
        messages: u64,
        /// A tenth of them.
        #[arg(long)]
        quick: bool,
    },
    /// A random node killed with -9 under load, again and again.
    Kill {
        /// How many times.
        #[arg(long, default_value_t = 50)]
        rounds: u64,
        /// Repeats the choices of an earlier run, which printed it.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs a program that is killed when this process's parent ends.
    #[command(hide = true)]
    Guard {
        parent: u32,
        #[arg(last = true)]
        program: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("harness: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it must be.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Demo { port, data } => demo::run(&Programs::beside_harness()?, port, data),
        Command::Order { messages, quick } => order::run(
            &Programs::beside_harness()?,
            if quick {
                messages.div_ceil(10)
            } else {
                messages
            },
        ),
        Command::Kill { rounds, seed } => kill::run(&Programs::beside_harness()?, rounds, seed),
        Command::Guard { parent, program } => guard(parent, &program).map(|()| false),
    }
}
