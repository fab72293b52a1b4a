//! Measures raft-actor: three processes of this program on one machine, fsync on, RocksDB, and clients that each
//! wait for their commit before they propose again (a closed loop), in the leader's process on threads of their own.
//!
//! - [`run`] the parent: starts the nodes, asks for each measurement, prints table, JSON and figures
//! - [`node`] a child: one node, and the clients while they are asked for
//! - [`clients`] the closed loop
//! - [`protocol`] what parent and child say to each other, a line of JSON each
//! - [`child`] the parent's end of a child
//! - [`machine`] where and when this was measured, and what an fsync costs here
//! - [`report`] table, JSON, figures
//! - [`storage`] the log store alone, beside a plain file (`bench storage`)

mod child;
mod clients;
mod machine;
mod node;
mod protocol;
mod report;
mod run;
mod storage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures raft-actor: commits per second, latency and CPU of three processes with fsync on.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts three nodes and measures them (also without this word).
    Run(run::Options),
    /// One of the three nodes.
    #[command(hide = true)]
    Node(node::Options),
    /// Measures the log store alone, beside a plain file.
    Storage(storage::Options),
    /// Fills a store.
    #[command(hide = true)]
    StorageFill(storage::Fill),
    /// Writes many entries.
    #[command(hide = true)]
    StorageVolume(storage::Volume),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => run::run(&arguments.run),
        Some(Command::Run(options)) => run::run(&options),
        Some(Command::Node(options)) => node::run(&options).map(|()| true),
        Some(Command::Storage(options)) => storage::run(&options),
        Some(Command::StorageFill(options)) => storage::fill(&options).map(|()| true),
        Some(Command::StorageVolume(options)) => storage::volume(&options).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
