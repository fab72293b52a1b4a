//! Subscribers that write down what they are handed.
//!
//! A file of lines, each written before the event counts as handled:
//!
//! - `life`: a subscription began;
//! - `INDEX TERM R|L HASH`: a command, as a replay or live;
//! - `snapshot INDEX CHUNKS HASH COUNTER`: what stands for commands that are compacted;
//! - `broken WHY`: a snapshot that could not be read.
//!
//! A line without its newline is what a kill left behind: that event was not handled.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use actix::prelude::*;
use anyhow::{Context as _, Result, bail, ensure};
use raft_actor::{Compacted, DeliveredBatch};
use tokio::sync::watch;

use super::machine::{Hash, survey};

/// The subscriber: an actor on a thread of its own.
pub struct Sink {
    file: File,
    go_on: watch::Receiver<bool>,
}

impl Sink {
    /// Writes behind what is in `file`, when `go_on` allows it.
    pub fn new(mut file: File, go_on: watch::Receiver<bool>) -> std::io::Result<Self> {
        file.write_all(b"life\n")?;
        Ok(Self { file, go_on })
    }

    /// One write, so that a kill leaves whole lines but for the last.
    fn write(&mut self, lines: &str) {
        if let Err(error) = self.file.write_all(lines.as_bytes()) {
            eprintln!("replica: a sink cannot write: {error}");
            std::process::exit(1);
        }
    }
}

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<DeliveredBatch> for Sink {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, batch: DeliveredBatch, _: &mut Self::Context) -> Self::Result {
        let mut go_on = self.go_on.clone();
        let waiting = async move {
            // Who could say so is gone: so is the replica.
            let _ = go_on.wait_for(|go_on| *go_on).await;
        };
        let waiting = waiting.into_actor(self).map(move |(), sink, _| {
            let mut lines = String::new();
            for event in batch.0.iter() {
                let kind = if event.replay { 'R' } else { 'L' };
                let hash = Hash::of(&event.command);
                lines.push_str(&format!(
                    "{} {} {kind} {hash:016x}\n",
                    event.index, event.term
                ));
            }
            sink.write(&lines);
        });
        AtomicResponse::new(Box::pin(waiting))
    }
}

impl Handler<Compacted> for Sink {
    type Result = ();

    fn handle(&mut self, compacted: Compacted, _: &mut Self::Context) {
        let line = match compacted {
            Compacted::Gap { from, first } => format!("broken a gap from {from} to {first}\n"),
            Compacted::Snapshot(mut reader) => match survey(&mut reader) {
                Ok((chunks, hash, counter)) => {
                    let last = reader.last().index;
                    format!("snapshot {last} {chunks} {hash:016x} {counter}\n")
                }
                Err(error) => format!("broken {error}\n"),
            },
        };
        self.write(&line);
    }
}

/// What a sink was handed, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A subscription began.
    Life,
    /// A command.
    Command {
        /// Its place in the log.
        index: u64,
        /// The term in which it got there.
        term: u64,
        /// It may have been delivered before.
        replay: bool,
        /// Its hash.
        hash: String,
    },
    /// A snapshot in place of commands.
    Snapshot {
        /// The last entry that it includes.
        index: u64,
        /// The chunks of its bulk.
        chunks: usize,
        /// Their hash.
        hash: String,
        /// The counter.
        counter: u64,
    },
}

/// Reads what a sink wrote.
pub fn read(file: &Path) -> Result<Vec<Event>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    // What a kill left behind stands before the next life, or at the end.
    let mut events = Vec::new();
    for line in whole.lines() {
        let line = match line.strip_suffix("life") {
            Some(_) => "life",
            None => line,
        };
        events.push(parse(line).with_context(|| format!("{}: {line:?}", file.display()))?);
    }
    Ok(events)
}

fn parse(line: &str) -> Result<Event> {
    let words: Vec<_> = line.split(' ').collect();
    Ok(match words[..] {
        ["life"] => Event::Life,
        ["snapshot", index, chunks, hash, counter] => Event::Snapshot {
            index: index.parse()?,
            chunks: chunks.parse()?,
            hash: hash.to_owned(),
            counter: counter.parse()?,
        },
        [index, term, kind @ ("R" | "L"), hash] => {
            ensure!(hash.len() == 16, "no hash");
            Event::Command {
                index: index.parse()?,
                term: term.parse()?,
                replay: kind == "R",
                hash: hash.to_owned(),
            }
        }
        _ => bail!("no event"),
    })
}
