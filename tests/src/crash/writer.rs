//! The process that is crashed: writes what nodes write, and says what it does.
//!
//! On standard output, a line each: `opened STARTS HELD` when its folder is open, `about STEP` before a call to the
//! store, `ack` when that has returned, `closed` after an orderly end. What is in the pipe when it is killed is
//! still there for who reads it.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use raft_core::{Entry, HardState, LogId, LogIndex, NodeId, SnapshotWrite, Term};
use raft_storage::{Batch, LogStore, Opened, Record, StorageError, open_rocksdb};
use rustix::process::{Signal, getpid, kill_process};

use crate::crash::held::{self, Held, Id, Step, entry, snapshot};
use crate::random::Random;

/// Exit code: the folder was refused.
pub const REFUSED: i32 = 4;
/// Exit code: the store failed.
pub const FAILED: i32 = 3;

/// How a writer writes.
#[derive(Clone, Debug, clap::Args)]
pub struct Writing {
    /// The data folder.
    pub dir: PathBuf,
    /// Whose it is.
    #[arg(long, default_value_t = 1)]
    pub node: u64,
    /// What it writes, together with what it finds.
    #[arg(long)]
    pub seed: u64,
    /// After so many steps it closes the store; without, it writes until it is killed.
    #[arg(long)]
    pub steps: Option<u64>,
    /// At most so many entries in a batch.
    #[arg(long, default_value_t = 150)]
    pub batch: u64,
    /// Every batch is as large as it may be.
    #[arg(long)]
    pub full: bool,
    /// Ends with kill -9 instead of closing the store.
    #[arg(long)]
    pub killed: bool,
    /// Keeps the mark as it was before the last step, which then is one record of the log file, and cuts nothing.
    #[arg(long)]
    pub mark_aside: Option<PathBuf>,
    /// Never records what it knows of its cluster.
    #[arg(long)]
    pub no_records: bool,
}

/// Writes; returns its exit code, unless it is killed first.
pub fn write(writing: &Writing) -> Result<i32> {
    let opened = match open_rocksdb(&writing.dir, Some(NodeId(writing.node))) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("writer: {error}");
            return Ok(REFUSED);
        }
    };
    let mut writer = Writer::new(writing, opened)?;
    match writer.run()? {
        Ok(()) => Ok(0),
        Err(error) => {
            eprintln!("writer: {error}");
            Ok(FAILED)
        }
    }
}

struct Writer<'w> {
    writing: &'w Writing,
    store: Box<dyn LogStore>,
    held: Held,
    random: Random,
    settled: Instant,
}

impl<'w> Writer<'w> {
    fn new(writing: &'w Writing, opened: Opened) -> Result<Self> {
        let held = Held::claimed(&opened);
        let starts = opened.identity.starts;
        say(&format!(
            "opened {starts} {}",
            serde_json::to_string(&held)?
        ))?;
        Ok(Self {
            writing,
            store: opened.store,
            held,
            random: Random::new(writing.seed ^ starts << 32),
            settled: Instant::now(),
        })
    }

    fn run(&mut self) -> Result<Result<(), StorageError>> {
        let mut left = self.writing.steps;
        while left != Some(0) {
            left = left.map(|left| left - 1);
            let step = self.choose(left == Some(0));
            if let (Some(0), Some(aside)) = (left, &self.writing.mark_aside) {
                let mark = self.writing.dir.join("mark");
                fs::copy(&mark, aside).with_context(|| format!("copy {}", mark.display()))?;
            }
            say(&format!("about {}", serde_json::to_string(&step)?))?;
            let held = self.held.after(&step);
            if let Err(error) = self.take(&step, &held) {
                return Ok(Err(error));
            }
            say("ack")?;
            self.held = held;
            // As the storage actor does between its writes.
            if self.settled.elapsed() > Duration::from_millis(500) {
                self.settled = Instant::now();
                if let Err(error) = self.store.settle() {
                    return Ok(Err(error));
                }
            }
        }
        if self.writing.killed {
            kill_process(getpid(), Signal::KILL)?;
        }
        if let Err(error) = self.store.close() {
            return Ok(Err(error));
        }
        say("closed")?;
        Ok(Ok(()))
    }

    fn choose(&mut self, is_last: bool) -> Step {
        let Held { term, vote, .. } = self.held;
        let last = self.held.last();
        let kept_aside = is_last && self.writing.mark_aside.is_some();
        let other = self.choose_other();
        // A snapshot is more than one record of the log file.
        let other = other.filter(|step| !kept_aside || matches!(step, Step::Record { .. }));
        if let Some(step) = other {
            return step;
        }
        let dice = self.random.below(100);
        let append = if self.writing.full {
            self.writing.batch
        } else if self.random.below(8) == 0 {
            1 + self.random.below(self.writing.batch)
        } else {
            1 + self.random.below(self.writing.batch.min(12))
        };
        let write = |hard_state, cut, append| Step::Write {
            hard_state,
            cut,
            append,
        };
        // What a snapshot covers is committed, and never cut.
        let covered = self.held.snapshot.map_or(0, |(_, index)| index);
        match dice {
            // A new term, and whom it voted for; or nobody yet, and the vote comes later.
            _ if term == 0 => write(Some((1, Some(1))), None, append),
            2..8 => write(Some((term + 1, Some(1 + self.random.below(5)))), None, 0),
            8..10 => write(Some((term + 1, None)), None, 0),
            10..14 if vote.is_none() => write(
                Some((term, Some(1 + self.random.below(5)))),
                None,
                append * self.random.below(2),
            ),
            // A leader of a newer term overwrites what this node has beyond it.
            14..20 if last > covered && !kept_aside => {
                let depth = if self.random.below(10) == 0 { 400 } else { 30 };
                let from = last - self.random.below((last - covered).min(depth));
                write(Some((term + 1, None)), Some(from), append)
            }
            20..24 => write(
                Some((term + 1, Some(1 + self.random.below(5)))),
                None,
                append,
            ),
            _ => write(None, None, append),
        }
    }

    /// Seldom something else than entries, terms and votes.
    fn choose_other(&mut self) -> Option<Step> {
        let held = &self.held;
        let (start, last) = (held.start.1, held.last());
        let covered = held.snapshot.map_or(0, |(_, index)| index).max(start);
        let dice = self.random.below(200);
        let is_first = held.members.is_none();
        match dice {
            _ if self.writing.no_records && (is_first || dice < 6) => None,
            _ if is_first || dice < 3 => Some(Step::Record {
                members: Some(self.random.below(1000)),
                cluster: held.cluster.is_none().then_some(77),
                cursor: None,
            }),
            3..6 => Some(Step::Record {
                members: None,
                cluster: None,
                cursor: Some((
                    format!("reader {}", self.random.below(4)),
                    (self.random.below(4) > 0).then_some(last),
                )),
            }),
            6..8 if last > covered => {
                let index = last - self.random.below((last - covered).min(200));
                let from = match self.random.below(3) {
                    0 => start,
                    1 => index,
                    _ => start + self.random.below(index - start + 1),
                };
                let id = |index| Some((held.term_at(index)?, index));
                Some(Step::Compact {
                    last: id(index)?,
                    start: id(from).unwrap_or(held.start),
                })
            }
            8 if held.term > 0 && self.random.below(3) == 0 => Some(Step::Install {
                last: (held.term, last + 1 + self.random.below(1000)),
            }),
            _ => None,
        }
    }

    fn take(&mut self, step: &Step, held: &Held) -> Result<(), StorageError> {
        match step {
            Step::Record {
                members,
                cluster,
                cursor,
            } => {
                let cursors = cursor.iter();
                self.store.record(&Record {
                    node: None,
                    known: members.map(held::members),
                    cluster: cluster.map(held::cluster),
                    cursors: cursors
                        .map(|(name, at)| (name.clone(), at.map(LogIndex)))
                        .collect(),
                })
            }
            Step::Compact { last, start } => self.write_snapshot(*last, *start, false),
            Step::Install { last } => self.write_snapshot(*last, *last, true),
            Step::Write {
                hard_state,
                cut,
                append,
            } => {
                let hard_state = hard_state.map(|(term, vote)| HardState {
                    term: Term(term),
                    voted_for: vote.map(NodeId),
                });
                let entries: Arc<[Entry]> = (held.last() + 1 - append..=held.last())
                    .map(|index| entry(held.term, index))
                    .collect();
                let mut batch = Batch::new();
                batch.push(hard_state, cut.map(LogIndex), entries);
                self.store.write(&batch)
            }
        }
    }

    fn write_snapshot(&mut self, last: Id, start: Id, replaces: bool) -> Result<(), StorageError> {
        let (meta, bytes) = snapshot(last);
        let mut sink = self.store.snapshots().create(&meta)?;
        for piece in bytes.chunks(100_000) {
            sink.write(piece)?;
        }
        sink.finish()?;
        let mut batch = Batch::new();
        batch.push_snapshot(SnapshotWrite {
            snapshot: meta,
            log_start: LogId::new(Term(start.0), LogIndex(start.1)),
            replaces_log: replaces,
        });
        self.store.write(&batch)
    }
}

/// One line, at once and whole.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush().context("standard output")
}
