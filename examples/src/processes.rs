//! A program that starts itself: processes that are told lines and say lines, over pipes.
//!
//! A process ends with its input, and so with the one who started it, however that ends.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;

/// Lines that wait to be heard, at most; then the processes wait.
const LINES_MAX: usize = 64;
/// How long a process may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processes of this very program, each under a number.
#[derive(Debug)]
pub struct Processes {
    running: BTreeMap<u64, Child>,
    say: SyncSender<(u64, String)>,
    said: Receiver<(u64, String)>,
}

impl Processes {
    /// None yet.
    #[must_use]
    pub fn none() -> Self {
        let (say, said) = sync_channel(LINES_MAX);
        let running = BTreeMap::new();
        Self { running, say, said }
    }

    /// Starts one, with these arguments.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start<A: AsRef<OsStr>>(&mut self, id: u64, arguments: &[A]) -> Result<()> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let output = process.stdout.take().context("its output is a pipe")?;
        let say = self.say.clone();
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.all(|line| say.send((id, line)).is_ok())
        });
        self.running.insert(id, process);
        Ok(())
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, id: u64) -> Result<()> {
        let mut process = self.running.remove(&id).context("no such process")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Tells one a line.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, id: u64, line: &str) -> Result<()> {
        let process = self.running.get_mut(&id).context("no such process")?;
        let input = process.stdin.as_mut().context("its input is a pipe")?;
        writeln!(input, "{line}").with_context(|| format!("node {id} has ended by itself"))
    }

    /// Waits until one says a line that begins with `word`: who, and the rest of the line. What others are heard to say is
    /// printed.
    ///
    /// # Errors
    /// For a minute nobody says anything.
    pub fn hear(&self, word: &str) -> Result<(u64, String)> {
        loop {
            let said = self.said.recv_timeout(PATIENCE);
            let (id, line) = said.with_context(|| format!("nobody says {word:?}"))?;
            match line.strip_prefix(word) {
                Some(rest) => return Ok((id, rest.trim().to_owned())),
                None => println!("node {id} {line}"),
            }
        }
    }

    /// Ends the input of all, and waits for their end.
    ///
    /// # Errors
    /// One of them has failed.
    pub fn end(mut self) -> Result<()> {
        for process in self.running.values_mut() {
            drop(process.stdin.take());
        }
        for (id, mut process) in self.running {
            let status = process.wait()?;
            ensure!(status.success(), "node {id} ended with {status}");
        }
        Ok(())
    }
}

/// In such a process: what it is told, until the channel closes with its input.
#[must_use]
pub fn told() -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel(1);
    thread::spawn(move || {
        let mut lines = io::stdin().lines().map_while(Result::ok);
        lines.all(|line| tell.blocking_send(line).is_ok())
    });
    told
}
