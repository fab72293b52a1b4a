//! What a node prints, parsed as it comes.
//!
//! Standard output carries deliveries, `index<TAB>from<TAB>text`, and nothing else. Standard error carries
//! outcomes (`ack n index`, `err n REASON`, `unknown n REASON`), a JSON line for each `/status`, and logs.
//!
//! A line without its newline is what a kill left behind: it is not read, because a number may be cut in it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// One line of standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message's place in the log.
    pub index: u64,
    /// Who sent it.
    pub from: String,
    /// The message, control characters escaped.
    pub text: String,
}

impl Delivery {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, '\t');
        let index = fields.next()?.parse().ok()?;
        Some(Self {
            index,
            from: fields.next()?.to_owned(),
            text: fields.next()?.to_owned(),
        })
    }
}

/// What a node said of a message that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, at this index.
    Ack(u64),
    /// Certainly not in the log, and never will be.
    Err(String),
    /// Perhaps in the log, now or later.
    Unknown(String),
}

impl Outcome {
    /// `ack n index`, `err n REASON` or `unknown n REASON`.
    fn parse(line: &str) -> Option<(u64, Self)> {
        let mut words = line.splitn(3, ' ');
        let kind = words.next()?;
        let number = words.next()?.parse().ok()?;
        let rest = words.next()?;
        let outcome = match kind {
            "ack" => Self::Ack(rest.parse().ok()?),
            "err" => Self::Err(rest.to_owned()),
            "unknown" => Self::Unknown(rest.to_owned()),
            _ => return None,
        };
        Some((number, outcome))
    }
}

/// The answer to `/status`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The node.
    pub id: u64,
    /// `leader`, `follower`, `candidate` or `pre-candidate`.
    pub role: String,
    /// Who leads, where that is known.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// How far the log is known to be committed.
    pub commit: u64,
    /// How far it was applied here.
    pub applied: u64,
    /// All nodes of the cluster.
    pub members: Vec<Member>,
    /// `forming`, `running`, and perhaps more.
    pub phase: String,
    /// Whom a node that is forming waits for.
    #[serde(default)]
    pub waiting_for: serde_json::Value,
}

/// A node as another sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Where it is reached.
    pub address: String,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// `voter`, `learner`, `joining` or `leaving`, where it is known.
    #[serde(default)]
    pub role: Option<String>,
}

/// The answer to `/members`.
#[derive(Clone, Debug, Deserialize)]
pub struct Members {
    /// The leader, whose word it is.
    pub leader: u64,
    /// All of them.
    pub members: Vec<Member>,
    /// How many voters may fail, unless the leader cannot know yet.
    pub tolerance: Option<Tolerance>,
}

/// How many voters may fail.
#[derive(Clone, Debug, Deserialize)]
pub struct Tolerance {
    /// Now.
    pub now: usize,
    /// If all were healthy.
    pub possible: usize,
}

/// Everything that a process has printed so far.
#[derive(Debug, Default)]
pub struct Printed {
    /// What it delivered, in the order in which it did.
    pub deliveries: Vec<Delivery>,
    /// Lines on standard output that are no deliveries.
    pub not_deliveries: Vec<String>,
    /// What it said of its messages, by their numbers.
    pub outcomes: BTreeMap<u64, Outcome>,
    /// Messages of which it said two things.
    pub answered_twice: Vec<u64>,
    /// Its answers to `/status`, the last ones of them as they were.
    pub statuses: VecDeque<(Status, String)>,
    /// How many answers to `/status` there were.
    pub statuses_count: usize,
    /// Its answers to `/members`, the last ones of them.
    pub members: VecDeque<Members>,
    /// How many answers to `/members` there were.
    pub members_count: usize,
    /// The last lines of its log.
    pub log: VecDeque<String>,
    /// How many of its two streams have ended.
    pub ended: u8,
}

/// How many lines of the log are kept in memory; the file has them all.
const LOG_LINES_MAX: usize = 5_000;

impl Printed {
    /// The log lines that are kept, as one text.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.log
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }

    fn take_stdout(&mut self, line: &str) {
        match Delivery::parse(line) {
            Some(delivery) => self.deliveries.push(delivery),
            None => self.not_deliveries.push(line.to_owned()),
        }
    }

    fn take_stderr(&mut self, line: &str) {
        if let Some((number, outcome)) = Outcome::parse(line) {
            if self.outcomes.insert(number, outcome).is_some() {
                self.answered_twice.push(number);
            }
        } else if line.starts_with('{')
            && let Ok(status) = serde_json::from_str(line)
        {
            self.statuses.push_back((status, line.to_owned()));
            self.statuses_count += 1;
            if self.statuses.len() > 16 {
                self.statuses.pop_front();
            }
        } else if line.starts_with('{')
            && let Ok(members) = serde_json::from_str(line)
        {
            self.members.push_back(members);
            self.members_count += 1;
            if self.members.len() > 16 {
                self.members.pop_front();
            }
        } else {
            self.log.push_back(line.to_owned());
            if self.log.len() > LOG_LINES_MAX {
                self.log.pop_front();
            }
        }
    }
}

/// [`Printed`], filled by two threads and waited for by others.
#[derive(Debug, Default)]
pub struct Output {
    printed: Mutex<Printed>,
    changed: Condvar,
}

impl Output {
    /// Reads both streams until they end; standard error is copied to `log` too.
    pub(crate) fn read(
        stdout: impl Read + Send + 'static,
        stderr: impl Read + Send + 'static,
        mut log: File,
    ) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        let output = Arc::new(Self::default());
        let (first, second) = (Arc::clone(&output), Arc::clone(&output));
        let readers = vec![
            thread::spawn(move || first.lines(stdout, Printed::take_stdout)),
            thread::spawn(move || {
                second.lines(stderr, |printed, line| {
                    // A full disk shows elsewhere; the log file is for reading only.
                    let _ = writeln!(log, "{line}");
                    printed.take_stderr(line);
                });
            }),
        ];
        (output, readers)
    }

    fn lines(&self, stream: impl Read, mut take: impl FnMut(&mut Printed, &str)) {
        let mut reader = BufReader::with_capacity(64 * 1024, stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            // An error is the end: the process is gone.
            let read = reader.read_until(b'\n', &mut line).unwrap_or(0);
            let whole = line.pop() == Some(b'\n');
            if read == 0 || !whole {
                break;
            }
            let text = String::from_utf8_lossy(&line);
            take(&mut self.lock(), &text);
            // Waiters look again when there is nothing more to read at once, or they would slow the reader down.
            if reader.buffer().is_empty() {
                self.changed.notify_all();
            }
        }
        self.lock().ended += 1;
        self.changed.notify_all();
    }

    /// What was printed so far.
    pub fn lock(&self) -> MutexGuard<'_, Printed> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds what it looks for, or `None` when `timeout` is over, or both streams have ended
    /// without it.
    pub fn wait<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&Printed) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut printed = self.lock();
        loop {
            if let Some(found) = look(&printed) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || printed.ended == 2 {
                return None;
            }
            // Not longer than this at once: see `lines` for when it notifies.
            let turn = left.min(Duration::from_millis(50));
            let (guard, _) = self
                .changed
                .wait_timeout(printed, turn)
                .unwrap_or_else(PoisonError::into_inner);
            printed = guard;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_by_a_kill_is_not_read() {
        let log = std::env::temp_dir().join(format!("raft-actor-output-{}", std::process::id()));
        let (output, readers) = Output::read(
            &b"7\tann\thello\tyou\n8\tann\tcu"[..],
            &b"a log line\nack 1 7\nunknown 2 it broke\nerr 3 busy\nack 4 10"[..],
            File::create(&log).unwrap(),
        );
        for reader in readers {
            reader.join().unwrap();
        }
        std::fs::remove_file(log).unwrap();
        let printed = output.lock();
        let hello = Delivery {
            index: 7,
            from: "ann".into(),
            text: "hello\tyou".into(),
        };
        assert_eq!(printed.deliveries, [hello]);
        assert_eq!(printed.log, ["a log line"]);
        let outcomes: Vec<_> = printed.outcomes.clone().into_iter().collect();
        assert_eq!(
            outcomes,
            [
                (1, Outcome::Ack(7)),
                (2, Outcome::Unknown("it broke".into())),
                (3, Outcome::Err("busy".into())),
            ]
        );
    }
}
