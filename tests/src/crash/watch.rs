//! A writer as its harness sees it: a process, and what it has said so far.
//!
//! Invariant: what is known is complete when [`Writer::end`] returns: the pipe was read to its end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::crash::held::{Held, Step};
use crate::programs::{Programs, spawn};

/// What a folder must hold, from what its writers said.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What was acknowledged.
    pub acked: Held,
    /// What it is if the step under way has reached the disk.
    pub pending: Option<Held>,
    /// The last start that a writer saw.
    pub starts: u64,
    /// How many steps were acknowledged.
    pub acks: u64,
    /// Whether the last writer closed its store.
    pub closed: bool,
    /// What was acknowledged before the last step was.
    pub before_last: Held,
    /// A writer found something else when it opened its folder.
    pub contradiction: Option<String>,
}

impl Known {
    /// Takes in one line.
    fn hear(&mut self, line: &str) -> Result<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "opened" => {
                let (starts, held) = rest.split_once(' ').context("a start and what is held")?;
                self.opened(starts.parse()?, serde_json::from_str(held)?);
            }
            "about" => {
                let step: Step = serde_json::from_str(rest)?;
                self.pending = Some(self.acked.after(&step));
            }
            "ack" => {
                let acked = self.pending.take().context("an ack of nothing")?;
                self.before_last = std::mem::replace(&mut self.acked, acked);
                self.acks += 1;
            }
            "closed" => self.closed = true,
            _ => bail!("an unknown line"),
        }
        Ok(())
    }

    /// Takes over what was found by an opening, which is what counts from now on.
    pub fn opened(&mut self, starts: u64, held: Held) {
        let expected = held == self.acked || self.pending.as_ref() == Some(&held);
        if !expected || starts <= self.starts {
            self.contradiction.get_or_insert(format!(
                "start {starts} after {}: found {held:?}, acknowledged {:?}, under way {:?}",
                self.starts, self.acked, self.pending
            ));
        }
        self.starts = starts;
        self.acked = held;
        self.pending = None;
        self.closed = false;
    }
}

/// A running writer. Dropped, it is killed.
#[derive(Debug)]
pub struct Writer {
    child: Child,
    known: Arc<Mutex<Known>>,
    threads: Vec<JoinHandle<()>>,
    words: Arc<Mutex<String>>,
}

/// How a writer ended.
#[derive(Debug)]
pub struct Ended {
    /// What is known now.
    pub known: Known,
    /// Its exit.
    pub status: ExitStatus,
    /// What it wrote on standard error.
    pub words: String,
}

impl Writer {
    /// Starts one on `dir`, of which `known` is known, with more `arguments` for it.
    pub fn start(
        programs: &Programs,
        dir: &Path,
        known: Known,
        arguments: &[String],
    ) -> Result<Self> {
        let mut command = programs.guarded(&programs.harness);
        command.arg("write").arg(dir).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command)?;
        let stdout = child.stdout.take().context("its standard output")?;
        let mut stderr = child.stderr.take().context("its standard error")?;
        let known = Arc::new(Mutex::new(known));
        let words = Arc::new(Mutex::new(String::new()));
        let (ears, notes) = (Arc::clone(&known), Arc::clone(&words));
        let hearing = thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            // A line that has no end was cut off by the kill, before what it announces was done.
            while lines.read_line(&mut line).is_ok() && line.ends_with('\n') {
                let mut known = lock(&ears);
                if let Err(error) = known.hear(line.trim_end()) {
                    let text = format!("{line:?}: {error:#}");
                    known.contradiction.get_or_insert(text);
                }
                line.clear();
            }
        });
        let noting = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            *lock(&notes) = text;
        });
        Ok(Self {
            child,
            known,
            threads: vec![hearing, noting],
            words,
        })
    }

    /// Kills it with -9.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing a writer")
    }

    /// What it has said so far.
    #[must_use]
    pub fn known(&self) -> Known {
        lock(&self.known).clone()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("a writer's end")?.is_some())
    }

    /// Waits for its end, which must come within `timeout`, and for all that it said.
    pub fn end(mut self, timeout: Duration) -> Result<Ended> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().context("a writer's end")? {
                break status;
            }
            if started.elapsed() > timeout {
                bail!("a writer did not end within {} s", timeout.as_secs());
            }
            thread::sleep(Duration::from_millis(2));
        };
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        Ok(Ended {
            known: self.known(),
            status,
            words: lock(&self.words).clone(),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
