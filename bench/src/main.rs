//! Measures raft-actor: processes of this program on one machine, fsync on, RocksDB, and clients on threads of their own, in
//! the process of the leader, of a follower, or of a node that has joined for their sake.
//!
//! - [`run`] the parent: starts a cluster, asks for each measurement, prints table, JSON and figures
//! - [`matrix`] everything, round for round (`bench matrix`)
//! - [`cluster`] the processes of a cluster, and one load on it
//! - [`node`] a child: a node, and the clients while they are asked for
//! - [`subscribers`] who count what they are handed
//! - [`tally`] a state machine
//! - [`clients`] the closed loop and the open one
//! - [`protocol`] what parent and child say to each other, a line of JSON each
//! - [`child`] the parent's end of a child
//! - [`usage`] what processes have used, and what everybody else has
//! - [`counted`] what the nodes count of themselves
//! - [`certificates`] for clusters with TLS
//! - [`machine`] where and when this was measured, and what an fsync costs here
//! - [`physics`] what the machine allows one proposal
//! - [`figures`] figures, their floors and targets
//! - [`report`] table, JSON, figures
//! - [`plot`] throughput and latency over clients, as an SVG
//! - [`storage`] the log store alone, beside a plain file (`bench storage`)

mod certificates;
mod child;
mod clients;
mod cluster;
mod clusters;
mod counted;
mod figures;
mod machine;
mod matrix;
mod node;
mod physics;
mod plot;
mod protocol;
mod report;
mod run;
mod storage;
mod subscribers;
mod tally;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures raft-actor: commits per second, latency and CPU of several processes with fsync on.
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
    /// Starts a cluster and measures it (also without this word).
    Run(run::Options),
    /// Measures the whole matrix, with floors and targets.
    Matrix(matrix::Options),
    /// A node of it.
    #[command(hide = true)]
    Node(node::Options),
    /// All its nodes in one process.
    #[command(hide = true)]
    Nodes(node::AllOptions),
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
        Some(Command::Matrix(options)) => matrix::run(&options),
        Some(Command::Node(options)) => node::run(&options).map(|()| true),
        Some(Command::Nodes(options)) => node::run_all(&options).map(|()| true),
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
