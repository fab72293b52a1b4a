//! One process: a life of a node, from its start to its end.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::output::{Delivery, Members, Outcome, Output, Printed, Status};
use crate::programs::{Programs, spawn};

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `--id`
    pub id: u64,
    /// `--name`
    pub name: String,
    /// `--peers`
    pub peers: String,
    /// Instead of `--id` and `--peers`: `--at` this address, to join these members ("": to wait for an invitation),
    /// or to lead.
    pub at: Option<(String, Option<String>)>,
    /// `--data`
    pub data: PathBuf,
    /// More arguments.
    pub args: Vec<String>,
    /// Where its standard error is kept, of one life after the other.
    pub log: PathBuf,
}

/// A running node. Dropped, it is killed.
#[derive(Debug)]
pub struct Node {
    /// What it was started with.
    pub spec: Spec,
    /// What it prints.
    pub output: Arc<Output>,
    pid: Pid,
    child: Mutex<Child>,
    input: Mutex<Input>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Input {
    /// To the thread that writes: a node that reads slowly, or is stopped, holds up nobody.
    lines: Option<mpsc::Sender<String>>,
    /// The messages, in the order of their numbers, which begin with 1.
    sent: Vec<String>,
}

/// What is known of a process that has ended.
#[derive(Debug)]
pub struct Life {
    /// The node's name.
    pub name: String,
    /// Its messages, with what it said of each.
    pub sent: Vec<(String, Option<Outcome>)>,
    /// What it delivered.
    pub deliveries: Vec<Delivery>,
    /// What it did that no node may do: other lines than deliveries, two answers to one message.
    pub faults: Vec<String>,
}

impl Node {
    /// Starts it. Whether it runs is for the caller to see.
    pub fn start(programs: &Programs, spec: Spec) -> Result<Self> {
        let mut command = programs.guarded(&programs.demo_chat);
        match &spec.at {
            None => command
                .args(["node", "--id", &spec.id.to_string(), "--peers"])
                .arg(&spec.peers),
            Some((at, None)) => command.args(["lead", "--at", at]),
            Some((at, Some(members))) => {
                let members = (!members.is_empty()).then_some(members);
                command.arg("join").args(members).args(["--at", at])
            }
        };
        command
            .arg("--data")
            .arg(&spec.data)
            .arg("--name")
            .arg(&spec.name)
            .arg("--plain");
        command.args(&spec.args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .with_context(|| format!("cannot write {}", spec.log.display()))?;
        let mut child = spawn(command)?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("no process id")?;
        let _ = writeln!(log, "-- process {} starts", child.id());
        let mut stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let (output, mut threads) = Output::read(stdout, stderr, log);
        let (lines, queue) = mpsc::channel::<String>();
        threads.push(thread::spawn(move || {
            for line in queue {
                // The process is gone: what it did not read has no answer either.
                if stdin.write_all(line.as_bytes()).is_err() {
                    break;
                }
            }
        }));
        Ok(Self {
            spec,
            output,
            pid,
            child: Mutex::new(child),
            input: Mutex::new(Input {
                lines: Some(lines),
                sent: Vec::new(),
            }),
            threads: Mutex::new(threads),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a message, which is one line, and returns its number.
    pub fn send(&self, text: &str) -> u64 {
        let mut input = lock(&self.input);
        // A line that begins with a slash is a command; two make a message that begins with one.
        let escape = if text.starts_with('/') { "/" } else { "" };
        if let Some(lines) = &input.lines {
            // The writer is gone when the process is: no answer then, which is what the caller will find.
            let _ = lines.send(format!("{escape}{text}\n"));
        }
        input.sent.push(text.to_owned());
        input.sent.len() as u64
    }

    /// Writes a line that is a command, or anything else that gets no number.
    pub fn command(&self, line: &str) {
        if let Some(lines) = &lock(&self.input).lines {
            let _ = lines.send(format!("{line}\n"));
        }
    }

    /// Ends its standard input, when all that was sent is written.
    pub fn close_input(&self) {
        lock(&self.input).lines = None;
    }

    /// How many messages it was sent, and how many of them it has answered.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        let sent = lock(&self.input).sent.len();
        (sent, self.output.lock().outcomes.len())
    }

    /// Waits until `look` finds what it looks for in what the node prints; `what` says what that is.
    pub fn wait<T>(
        &self,
        timeout: Duration,
        what: &str,
        look: impl FnMut(&Printed) -> Option<T>,
    ) -> Result<T> {
        let started = Instant::now();
        self.output.wait(timeout, look).ok_or_else(|| {
            anyhow!(
                "node {} ({}): waited {:.1} s in vain for {what}{}\n{}",
                self.spec.id,
                self.spec.name,
                started.elapsed().as_secs_f64(),
                if self.output.lock().ended == 2 {
                    "; the process has ended"
                } else {
                    ""
                },
                self.tail(15),
            )
        })
    }

    /// Asks for its status and waits for the answer.
    pub fn status(&self, timeout: Duration) -> Result<Status> {
        let before = self.output.lock().statuses_count;
        self.command("/status");
        self.wait(timeout, "the answer to /status", |printed| {
            if printed.statuses_count > before {
                printed.statuses.back().map(|(s, _)| s.clone())
            } else {
                None
            }
        })
    }

    /// Asks for the members and waits for the answer; what was answered instead is the error.
    pub fn members(&self, timeout: Duration) -> Result<Members> {
        let before = self.output.lock().members_count;
        self.command("/members");
        self.wait(timeout, "the answer to /members", |printed| {
            let answered = printed.members_count > before;
            answered.then(|| printed.members.back().cloned()).flatten()
        })
    }

    /// Types a command, and waits for the line that says what came of it: `done …` or `failed …`. Each is to be typed once.
    pub fn wish(&self, command: &str, timeout: Duration) -> Result<String> {
        self.command(command);
        let (done, failed) = (format!("done {command}: "), format!("failed {command}: "));
        let is_it = |line: &&String| line.starts_with(&done) || line.starts_with(&failed);
        self.wait(timeout, &format!("what comes of {command}"), |printed| {
            printed.log.iter().find(is_it).cloned()
        })
    }

    /// Waits for what it says of message `number`.
    pub fn outcome(&self, number: u64, timeout: Duration) -> Result<Outcome> {
        let what = format!("the outcome of message {number}");
        self.wait(timeout, &what, |printed| {
            printed.outcomes.get(&number).cloned()
        })
    }

    /// Sends a message and waits for its index.
    pub fn say(&self, text: &str, timeout: Duration) -> Result<u64> {
        let number = self.send(text);
        match self.outcome(number, timeout)? {
            Outcome::Ack(index) => Ok(index),
            other => bail!(
                "node {}: {text:?} is not committed: {other:?}\n{}",
                self.spec.id,
                self.tail(15)
            ),
        }
    }

    /// Waits for a line of its log that contains every one of `words`, whatever their case, and returns it.
    pub fn logged(&self, words: &[&str], timeout: Duration) -> Result<String> {
        let words: Vec<String> = words.iter().map(|w| w.to_lowercase()).collect();
        self.wait(
            timeout,
            &format!("a line of its log with {words:?}"),
            |printed| {
                let holds = |line: &&String| words.iter().all(|w| line.to_lowercase().contains(w));
                printed.log.iter().find(holds).cloned()
            },
        )
    }

    /// Sends it a signal. A process that has ended already is nobody's trouble.
    pub fn signal(&self, signal: Signal) {
        let mut child = lock(&self.child);
        // Not yet waited for, so the id cannot have gone to somebody else.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for its end.
    pub fn wait_exit(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = lock(&self.child).try_wait().context("wait for a process")? {
                self.join();
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "node {} ({}): waited {timeout:?} in vain for its end\n{}",
                    self.spec.id,
                    self.spec.name,
                    self.tail(15)
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the process has not ended yet.
    #[must_use]
    pub fn runs(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }

    /// What is known of the process, which must have ended.
    #[must_use]
    pub fn life(&self) -> Life {
        let sent = std::mem::take(&mut lock(&self.input).sent);
        let mut printed = std::mem::take(&mut *self.output.lock());
        let mut faults = Vec::new();
        let name = &self.spec.name;
        for line in printed.not_deliveries {
            faults.push(format!(
                "{name} printed a line that is no delivery: {line:?}"
            ));
        }
        for number in printed.answered_twice {
            faults.push(format!("{name} answered message {number} twice"));
        }
        let mut number = 0;
        let sent: Vec<_> = sent
            .into_iter()
            .map(|text| {
                number += 1;
                (text, printed.outcomes.remove(&number))
            })
            .collect();
        for number in printed.outcomes.into_keys() {
            faults.push(format!(
                "{name} answered message {number} of {}",
                sent.len()
            ));
        }
        Life {
            name: name.clone(),
            sent,
            deliveries: printed.deliveries,
            faults,
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let printed = self.output.lock();
        let skip = printed.log.len().saturating_sub(lines);
        let tail: Vec<_> = printed
            .log
            .iter()
            .skip(skip)
            .map(|l| format!("  | {l}"))
            .collect();
        if tail.is_empty() {
            "  | (it logged nothing)".to_owned()
        } else {
            tail.join("\n")
        }
    }

    /// Waits for the threads that read and write, which end with the process.
    fn join(&self) {
        lock(&self.input).lines = None;
        for thread in lock(&self.threads).drain(..) {
            // A reader that panicked has lost lines, and the checks will say so.
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        // A killed process ends; a zombie is what is left if this fails, and only until the harness ends.
        let _ = lock(&self.child).wait();
        self.join();
    }
}

/// A program that is expected to end by itself: its exit code and what it wrote on standard error.
pub fn run_to_end(
    programs: &Programs,
    spec: Spec,
    timeout: Duration,
) -> Result<(Option<i32>, String)> {
    if let Some(folder) = spec.log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let node = Node::start(programs, spec)?;
    let status = node.wait_exit(timeout)?;
    let printed = node.output.lock();
    Ok((status.code(), printed.log_text()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
