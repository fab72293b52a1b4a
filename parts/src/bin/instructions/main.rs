//! Counts what a commit makes a processor execute, part by part, under valgrind's callgrind: figures that no load on the
//! machine moves, judged against those that were kept in `parts/instructions.toml`. A change that costs more than the
//! tolerance fails, and one that saves more should be kept: `make instructions KEEP=1` writes the file anew, and whoever
//! commits it says why.
//!
//! - [`measured`] what is run: this program again, under valgrind, with the word `run`
//! - [`callgrind`] what valgrind wrote down
//! - [`kept`] what was kept, and the judgement
//!
//! Only what runs in user space is counted: no system call's inside, no wait, no cache miss. Of a long copy each byte counts
//! as one instruction, since that is how the C library copies where the processor is good at it.

mod callgrind;
mod kept;
mod measured;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

/// Counts instructions and allocations for each commit, part by part, under callgrind.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the figures are kept that these are judged by.
    #[arg(long, default_value = "parts/instructions.toml")]
    kept: PathBuf,
    /// Keep what is counted now instead of judging it.
    #[arg(long)]
    keep: bool,
    /// Keep what callgrind wrote in this folder, for callgrind_annotate: `callgrind.2`, `.4` and so on are the parts.
    #[arg(long)]
    dumps: Option<PathBuf>,
    /// Without valgrind, say so and be content.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    command: Option<Inner>,
}

#[derive(Debug, clap::Subcommand)]
enum Inner {
    /// Runs all parts; under valgrind.
    #[command(hide = true)]
    Run,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Inner::Run) => measured::run().map(|()| true),
        None => count(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when nothing costs more than was kept.
fn count(arguments: &Arguments) -> Result<bool> {
    let program = std::env::current_exe().context("where this program is")?;
    let target = program.parent().and_then(Path::parent);
    let target = target.context("this program lies in no target folder")?;
    let Some(toolchain) = kept::toolchain()? else {
        println!("instructions: skipped: there is no valgrind here (scripts/setup bench)");
        return Ok(arguments.quick);
    };
    let folder = tempfile::Builder::new()
        .prefix("instructions-")
        .tempdir_in(target)
        .with_context(|| format!("cannot make a folder in {}", target.display()))?;
    let status = Command::new("valgrind")
        .args(callgrind::OPTIONS)
        .arg(format!(
            "--callgrind-out-file={}",
            folder.path().join(callgrind::DUMP).display()
        ))
        .arg(&program)
        .arg("run")
        // Where RocksDB's data goes.
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .status()
        .context("cannot run valgrind")?;
    ensure!(status.success(), "the run under valgrind ended: {status}");
    let counted = callgrind::read(folder.path(), &measured::PARTS)?;
    if let Some(dumps) = &arguments.dumps {
        callgrind::copy(folder.path(), dumps)?;
    }
    if arguments.keep {
        kept::keep(&arguments.kept, &toolchain, &counted)?;
    }
    kept::judge(&arguments.kept, &toolchain, &counted, target)
}
