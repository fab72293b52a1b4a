//! System calls that fail, or stall, on purpose: strace's fault injection around a whole node.
//!
//! strace counts the calls of each thread for itself: the k-th call of a thread is the one that fails.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command as Process, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::crash::node::{Command, now_micros};
use crate::programs::{Programs, spawn};

/// Log files and manifests have lower numbers, if a folder is not opened more than a few times.
const LOG_NUMBERS: u32 = 200;

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// The system call.
    pub call: &'static str,
    /// `error=EIO`, or `delay_enter=10s`.
    pub how: &'static str,
    /// The how-manieth call of a thread.
    pub when: u64,
    /// Of the calls, only those on log files and manifests.
    pub logs_only: bool,
}

/// What strace is missing here, in words; none if it is there.
#[must_use]
pub fn missing() -> Option<String> {
    let found = Process::new("strace").arg("-V").output();
    match found {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("strace: {}", output.status)),
        Err(error) => Some(format!("strace: {error}")),
    }
}

/// One call that strace tampered with.
#[derive(Clone, Debug)]
pub struct Tampered {
    /// When it was entered, in microseconds of the day's clock.
    pub at_micros: u64,
    /// The line in strace's words.
    pub line: String,
}

impl Tampered {
    /// Whether nothing that was acknowledged later can have been durable before: the call belongs to the write
    /// of an entry.
    #[must_use]
    pub fn is_in_a_write(&self) -> bool {
        self.line.contains(".log>") || self.line.contains(" pwrite64(")
    }
}

/// A node under strace.
#[derive(Debug)]
pub struct Traced {
    child: Child,
    /// While it is open the node lives.
    _stdin: ChildStdin,
    heard: Arc<Mutex<Vec<(Command, u64)>>>,
    threads: Vec<JoinHandle<()>>,
    words: Arc<Mutex<String>>,
    trace: PathBuf,
}

/// How a node ended.
#[derive(Debug)]
pub struct Ended {
    /// What it acknowledged, each with the time.
    pub acks: Vec<(Command, u64)>,
    /// Its exit; none if it had to be killed.
    pub status: Option<ExitStatus>,
    /// When that was noticed, in microseconds of the day's clock.
    pub at_micros: u64,
    /// What it wrote on standard error.
    pub words: String,
    /// The first call that was tampered with.
    pub tampered: Option<Tampered>,
}

impl Traced {
    /// Starts a node on `dir`, whose commands are numbered from `first` on; its trace is kept beside the folder.
    pub fn start(
        programs: &Programs,
        dir: &Path,
        port: u16,
        first: u64,
        injection: Option<Injection>,
    ) -> Result<Self> {
        let trace = dir.with_extension("strace");
        let strace = PathBuf::from("strace");
        let mut command = match injection {
            None => programs.guarded(&programs.harness),
            Some(Injection {
                call,
                how,
                when,
                logs_only,
            }) => {
                let mut command = programs.guarded(&strace);
                command
                    .args(["-f", "--seccomp-bpf", "-qq", "-ttt", "-y", "-o"])
                    .arg(&trace);
                command.args(["-e", &format!("trace={call}")]);
                command.args(["-e", &format!("inject={call}:{how}:when={when}")]);
                if logs_only {
                    for number in 1..LOG_NUMBERS {
                        for name in [format!("{number:06}.log"), format!("MANIFEST-{number:06}")] {
                            command.arg("-P").arg(dir.join("db").join(name));
                        }
                    }
                }
                command.arg(&programs.harness);
                command
            }
        };
        command.arg("node").arg(dir);
        command.args(["--port", &port.to_string(), "--first", &first.to_string()]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let _ = fs::remove_file(&trace);
        let mut child = spawn(command)?;
        let stdin = child.stdin.take().context("its standard input")?;
        let stdout = child.stdout.take().context("its standard output")?;
        let mut stderr = child.stderr.take().context("its standard error")?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let words = Arc::new(Mutex::new(String::new()));
        let (ears, notes) = (Arc::clone(&heard), Arc::clone(&words));
        let threads = vec![
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Some(Ok(ack)) = line.strip_prefix("ack ").map(Command::parse) {
                        ears.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(ack);
                    }
                }
            }),
            thread::spawn(move || {
                let mut text = String::new();
                let _ = stderr.read_to_string(&mut text);
                *notes.lock().unwrap_or_else(PoisonError::into_inner) = text;
            }),
        ];
        Ok(Self {
            child,
            _stdin: stdin,
            heard,
            threads,
            words,
            trace,
        })
    }

    /// What it has acknowledged so far.
    #[must_use]
    pub fn acks(&self) -> Vec<(Command, u64)> {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The first call that was tampered with so far.
    pub fn tampered(&self) -> Result<Option<Tampered>> {
        let Ok(text) = fs::read_to_string(&self.trace) else {
            return Ok(None);
        };
        let hit = |line: &&str| line.contains("(INJECTED)") || line.contains("(DELAYED)");
        let Some(line) = text.lines().find(hit) else {
            return Ok(None);
        };
        let seconds = line.split_whitespace().nth(1).context("a time")?;
        let (whole, part) = seconds.split_once('.').context("a time")?;
        Ok(Some(Tampered {
            at_micros: whole.parse::<u64>()? * 1_000_000 + part.parse::<u64>()?,
            line: line.to_owned(),
        }))
    }

    /// Waits until it has ended, or `enough` says so, or `timeout` is over.
    pub fn wait(
        &mut self,
        timeout: Duration,
        mut enough: impl FnMut(&Self) -> bool,
    ) -> Result<bool> {
        let started = Instant::now();
        while started.elapsed() < timeout {
            if self.child.try_wait().context("a node's end")?.is_some() {
                return Ok(true);
            }
            if enough(self) {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    /// Its end, which is made if it has not come: a node ends with its standard input.
    pub fn end(mut self) -> Result<Ended> {
        let status = self.child.try_wait().context("a node's end")?;
        let at_micros = now_micros();
        let tampered = self.tampered()?;
        let Self {
            mut child,
            _stdin,
            heard,
            threads,
            words,
            ..
        } = self;
        drop(_stdin);
        let started = Instant::now();
        while child.try_wait().context("a node's end")?.is_none() {
            if started.elapsed() > Duration::from_secs(20) {
                child.kill().context("ending strace")?;
                bail!("a node did not end with its standard input");
            }
            thread::sleep(Duration::from_millis(2));
        }
        for thread in threads {
            let _ = thread.join();
        }
        let acks = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let words = words.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Ended {
            acks,
            status,
            at_micros,
            words,
            tampered,
        })
    }
}
