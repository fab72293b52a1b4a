//! `raftctl`: the tool for people in trouble.
//!
//! It looks into a node's data folder, checks it, copies it and, when it is told to with `--yes`, repairs it. It
//! reads arguments and prints; the work is [`raft_storage::offline`]'s. Beside that it makes certificates.
//!
//! Exit codes: 0, done and all is well; 1, something is wrong with the folder, or what was asked for was refused
//! or failed; 2, the question was wrong (usage, no data folder), or `--yes` is missing and nothing was done.

mod args;
mod backup;
mod cert;
mod entries;
mod log;
mod members;
mod out;
mod recover;
mod snapshot;
mod text;

use clap::Parser;
use raft_net::TlsNameError;
use raft_storage::offline::OfflineError;

use crate::args::{Args, CertCommand, Command, LogCommand, SnapshotCommand};
use crate::out::{Exit, Out};

fn main() {
    let args = Args::parse();
    let mut out = Out::new(args.json);
    let exit = match &args.command {
        Command::Log(LogCommand::Status { dir }) => log::status(dir, &mut out),
        Command::Log(LogCommand::Entries(args)) => entries::entries(args, &mut out),
        Command::Log(LogCommand::Verify { dir }) => log::verify(dir, &mut out),
        Command::Members { dir } => members::members(dir, &mut out),
        Command::Snapshot(SnapshotCommand::Export(args)) => snapshot::export(args, &mut out),
        Command::Snapshot(SnapshotCommand::Import(args)) => snapshot::import(args, &mut out),
        Command::Backup(args) => backup::backup(args, &mut out),
        Command::Cert(CertCommand::Ca(args)) => cert::ca(args, &mut out),
        Command::Cert(CertCommand::Node(args)) => cert::node(args, &mut out),
        Command::Recover(args) => recover::recover(args, &mut out),
    };
    let exit = exit.and_then(|exit| out.finish().map(|()| exit));
    std::process::exit(match exit {
        Ok(exit) => exit as i32,
        Err(error) if out::is_broken_pipe(&error) => Exit::Good as i32,
        Err(error) => {
            let mut out = Out::new(args.json);
            // Whoever reads the standard output may be gone; the standard error has it too.
            let _ = out
                .json(|| serde_json::json!({ "error": format!("{error:#}") }))
                .and_then(|()| out.finish());
            eprintln!("raftctl: {error:#}");
            exit_of(&error) as i32
        }
    });
}

/// Whether it was the question that was wrong, or what it was asked of.
fn exit_of(error: &anyhow::Error) -> Exit {
    if error.is::<cert::Exists>() || error.is::<TlsNameError>() {
        return Exit::NotDone;
    }
    match error.downcast_ref() {
        Some(
            OfflineError::NotADataFolder { .. }
            | OfflineError::Exists { .. }
            | OfflineError::NotEmpty { .. }
            | OfflineError::NoVoters
            | OfflineError::NotAMember { .. }
            | OfflineError::NotAVoter { .. }
            | OfflineError::Departed { .. },
        ) => Exit::NotDone,
        _ => Exit::Bad,
    }
}
