//! Measures raft-actor beside the others: each of them in turns with ours, in one run, on one machine, on one disk.
//!
//! - [`run`] the runner: rounds and turns, and where an interrupted run goes on
//! - [`ours`] our side of a turn: the `bench` of the main workspace, and what it says in JSON
//! - [`peer`] the others' side: one module for each, behind one trait
//! - [`load`] the closed loop, in a process of its own
//! - [`process`] processes that end with us, whatever happens
//! - [`cpu`] CPU time of processes
//! - [`row`] one measurement, from either side
//! - [`verdict`] medians, ratios, and the figures with their floors
//! - [`report`] the table for people, JSON
//! - [`plot`] the same as a picture

mod cpu;
mod load;
mod ours;
mod peer;
mod plot;
mod process;
mod report;
mod row;
mod run;
mod verdict;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Measures raft-actor beside etcd, NATS JetStream, Redis, openraft and d-engine.
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
    /// Clients of one peer.
    #[command(hide = true)]
    Load(LoadOptions),
    /// Becomes a program that is killed when its parent ends.
    #[command(hide = true)]
    Guard {
        parent: u32,
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct LoadOptions {
    /// Which peer.
    peer: String,
    /// Where its data is.
    #[arg(long)]
    folder: PathBuf,
    /// Its ports.
    #[arg(long, value_delimiter = ',')]
    ports: Vec<u16>,
    /// Which of the members this process is.
    #[arg(long, default_value_t = 0)]
    member: usize,
    #[command(flatten)]
    load: load::Load,
    /// A file with the process ids of all that is the system but this process, one a line; read when the window opens.
    #[arg(long)]
    pids: PathBuf,
    /// Whether the system lives in the load processes.
    #[arg(long)]
    embedded: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => run::run(&arguments.run),
        Some(Command::Load(options)) => load(options).map(|()| true),
        Some(Command::Guard { parent, program }) => process::guard(parent, &program).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A load process: prints what it measured as a line of JSON.
fn load(options: LoadOptions) -> Result<()> {
    // A thousand connections are more files than a process may usually have open.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).context("the limit on open files")?;
    let peer = peer::named(&options.peer)?;
    let stage = peer::Stage {
        folder: options.folder,
        ports: options.ports,
        member: options.member,
        load: options.load,
        counted: load::Counted {
            servers: options.pids,
            embedded: options.embedded,
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("a runtime")?;
    let measured = runtime.block_on(peer.load(&stage))?;
    println!("{}", serde_json::to_string(&measured)?);
    // Clients that never came back are left behind.
    runtime.shutdown_background();
    Ok(())
}
