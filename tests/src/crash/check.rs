//! What a folder holds, found out by a process of its own: one that ends by itself, panics or never ends is seen too.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use raft_core::{EntryKind, LogIndex, NodeId, Recovered};
use raft_storage::{Opened, Snapshots, StorageError, open_rocksdb};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::crash::held::{Held, Id, entry, snapshot};
use crate::programs::{Programs, spawn};

/// A folder that is not judged by then never is.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is read at once, as for a follower far behind.
const PIECE_BYTES: usize = 1 << 20;

/// What came of opening a folder and reading all of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Found {
    /// It was opened, read to the last byte, and closed.
    Opened {
        /// How often it was opened, this time included.
        starts: u64,
        /// All that it holds.
        held: Held,
    },
    /// It was opened, and handed out what was never written, or not what it says it has.
    Wrong(String),
    /// It was refused: by the opening, or by a read or the close of what was opened.
    Refused(String),
    /// The process did not live to say.
    Died(String),
}

/// Opens the folder, reads all, closes. For a process of its own, which prints it.
#[must_use]
pub fn check(dir: &Path, node: u64) -> Found {
    match open_rocksdb(dir, Some(NodeId(node))) {
        Err(error) => Found::Refused(error.to_string()),
        Ok(opened) => read_all(opened).unwrap_or_else(|error| Found::Refused(error.to_string())),
    }
}

fn read_all(opened: Opened) -> Result<Found, StorageError> {
    let held = Held::claimed(&opened);
    let Opened {
        mut store,
        recovered,
        identity,
        ..
    } = opened;
    if let Some(last) = held.snapshot
        && let Some(wrong) = read_snapshot(&*store.snapshots(), last, &recovered)?
    {
        return Ok(Found::Wrong(wrong));
    }
    let reader = store.reader();
    let mut next = recovered.log_start.index.next();
    let mut read = Held {
        runs: Vec::new(),
        ..held.clone()
    };
    let mut configurations = Vec::new();
    while next <= recovered.last.index {
        for found in reader.read(next, recovered.last.index, PIECE_BYTES)? {
            let (term, index) = (found.id.term.0, found.id.index.0);
            if found.id.index != next {
                return Ok(Found::Wrong(format!("entry {index} in place of {next}")));
            }
            if found != entry(term, index) {
                return Ok(Found::Wrong(format!(
                    "entry {index} of term {term} is not what was written"
                )));
            }
            if found.kind == EntryKind::Configuration {
                configurations.push((found.id.index, found.data));
            }
            read.push(term, index);
            next = next.next();
        }
    }
    if read != held {
        return Ok(Found::Wrong(format!(
            "it says that it holds {held:?}, and {read:?} was read"
        )));
    }
    // What the snapshot covers may be told or not.
    let covered = LogIndex(held.snapshot.map_or(0, |(_, index)| index));
    let told = recovered
        .configurations
        .iter()
        .filter(|(at, _)| *at > covered);
    let told: Vec<_> = told.map(|(at, of)| (*at, of.encode())).collect();
    configurations.retain(|(at, _)| *at > covered);
    if told != configurations {
        return Ok(Found::Wrong(
            "the configurations that were told are not those of the log".to_owned(),
        ));
    }
    let behind = recovered.tail.last().map(|entry| entry.id);
    let is_tail = recovered
        .tail
        .windows(2)
        .all(|pair| pair[1].id.index == pair[0].id.index.next());
    if behind.is_some_and(|id| id != recovered.last) || !is_tail {
        return Ok(Found::Wrong("the tail is not the log's end".to_owned()));
    }
    store.close()?;
    Ok(Found::Opened {
        starts: identity.starts,
        held,
    })
}

/// What is wrong with the snapshot; nothing if it is what was written.
fn read_snapshot(
    snapshots: &dyn Snapshots,
    last: Id,
    recovered: &Recovered,
) -> Result<Option<String>, StorageError> {
    let (meta, bytes) = snapshot(last);
    let source = snapshots.open(meta.last)?;
    let mut found = Vec::new();
    for number in 0..source.info().chunks() {
        found.extend_from_slice(&source.read_chunk(number)?);
    }
    let is_right =
        found == bytes && source.info().meta == meta && recovered.snapshot.as_ref() == Some(&meta);
    Ok((!is_right).then(|| format!("the snapshot through {last:?} is not what was written")))
}

/// Lets a process look into the folder.
pub fn look(programs: &Programs, dir: &Path, node: u64) -> Result<Found> {
    let asked = ask(programs, "check", dir, &["--node", &node.to_string()])?;
    Ok(asked.unwrap_or_else(Found::Died))
}

/// Starts this program with a subcommand for `dir` and reads its answer; or how it died.
pub fn ask<T: DeserializeOwned>(
    programs: &Programs,
    subcommand: &str,
    dir: &Path,
    arguments: &[&str],
) -> Result<Result<T, String>> {
    let mut command = programs.guarded(&programs.harness);
    command.arg(subcommand).arg(dir).args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let stdout = child.stdout.take().context("its standard output")?;
    let stderr = child.stderr.take().context("its standard error")?;
    let (answer, words) = (to_the_end(stdout), to_the_end(stderr));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for a check")? {
            break Some(status);
        }
        if started.elapsed() > PATIENCE {
            child.kill().context("ending a check")?;
            child.wait().context("waiting for a check")?;
            break None;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let (Ok(answer), Ok(words)) = (answer.join(), words.join()) else {
        bail!("a thread that reads has panicked")
    };
    Ok(match status {
        None => Err(format!("no end after {} s", PATIENCE.as_secs())),
        Some(status) if !status.success() || words.contains("panicked") => {
            Err(format!("{status}: {}", words.trim()))
        }
        Some(_) => Ok(serde_json::from_str(&answer)
            .with_context(|| format!("a check's answer: {answer:?}"))?),
    })
}

fn to_the_end(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
