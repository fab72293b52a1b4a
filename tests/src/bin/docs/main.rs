//! Runs every command of README and of the documents, and looks at what they say of the repository.
//!
//! Document by document, each in an empty folder, in bash, with the built programs behind all others in PATH and the documents'
//! ports moved to free ones; [`document`] says how a document steers it. The Rust in the documents is compiled by
//! `cargo test`: see the end of this package's `src/lib.rs`.
//!
//! Exit code 0: every command did what its document says. 1: one did not, and the last lines say which. 2: wrong arguments.

mod check;
mod document;
mod ports;
mod stand_in;
mod terminal;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use stand_in::Repository;

/// Runs every command of README and of the documents.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only these documents, by their paths in the repository [default: all].
    documents: Vec<String>,
    /// Leaves to themselves the targets of make that are named in passing: that they are there is enough.
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs what stands behind a name in the documents' shells.
    #[command(hide = true)]
    StandIn {
        name: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("docs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it must be.
fn run(arguments: Arguments) -> Result<bool> {
    let repository = Repository::here()?;
    if let Some(Command::StandIn { name, arguments }) = arguments.command {
        repository.stand_in(&name, &arguments)?;
        return Ok(true);
    }
    check::run(&repository, &arguments.documents, arguments.quick)
}
