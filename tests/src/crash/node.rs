//! A node of a cluster of one, which proposes to itself without a pause and says what was committed.
//!
//! On standard output, a line each: `ack N INDEX TERM MICROS` for its N-th command, with the time of the day, and
//! `unknown N` for one whose outcome it was not told. One command at a time: the next is proposed when the one before
//! is said to be committed, so that an acknowledgement behind a failed write cannot be one from before it.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use raft_actor::{Config, Ended, Logged, NodeId, Propose, RaftActor};
use raft_core::{EntryKind, LogIndex};
use raft_storage::{StorageError, open_rocksdb};
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Exit code: the node did not start.
pub const NOT_STARTED: i32 = 2;
/// Exit code: the node failed.
pub const FAILED: i32 = 3;

/// Microseconds of the day's clock, which strace shows too.
#[must_use]
pub fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_micros() as u64)
}

/// Command number `n`: its number, and bytes that follow from it.
fn command(n: u64) -> Vec<u8> {
    let mut random = Random::new(n);
    let length = random.below(2000) as usize;
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.extend(std::iter::repeat_with(|| random.number() as u8).take(length));
    bytes
}

/// Runs the node until it fails, or until its standard input ends. Returns its exit code.
pub fn run(dir: &Path, port: u16, first: u64) -> i32 {
    // Under strace a node would outlive whoever started both.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let system = actix::System::new();
    let code = system.block_on(async {
        let config = Config::new(NodeId(1))
            .peers([(NodeId(1), format!("127.0.0.1:{port}"))])
            .heartbeat_interval(Duration::from_millis(20))
            .election_timeout(Duration::from_millis(100), Duration::from_millis(200))
            .data_dir(dir);
        let raft = match RaftActor::spawn(config) {
            Ok(raft) => raft,
            Err(error) => {
                eprintln!("node: {error}{}", causes(&error));
                return NOT_STARTED;
            }
        };
        actix::spawn(propose(raft.clone(), first));
        match raft.send(Ended).await {
            Ok(Ok(())) => 0,
            Ok(Err(failure)) => {
                eprintln!("node: {failure}{}", causes(&failure));
                FAILED
            }
            Err(error) => {
                eprintln!("node: {error}");
                FAILED
            }
        }
    });
    // Not dropped: that would wait for whatever still blocks.
    std::mem::forget(system);
    code
}

/// What lies behind an error, as far as its own sentence does not say so.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut more = String::new();
    let mut at = error.source();
    while let Some(cause) = at {
        let words = cause.to_string();
        if !text.contains(&words) {
            more.push_str(": ");
            more.push_str(&words);
            text.push_str(&words);
        }
        at = cause.source();
    }
    more
}

async fn propose(raft: actix::Addr<RaftActor>, first: u64) {
    for n in first.. {
        let line = match raft.send(Propose::new(command(n))).await {
            Ok(Ok(committed)) => format!(
                "ack {n} {} {} {}\n",
                committed.index,
                committed.term,
                now_micros()
            ),
            Ok(Err(error)) if error.is_certainly_not_applied() => {
                actix_pause().await;
                continue;
            }
            Ok(Err(_)) => format!("unknown {n}\n"),
            // The node is gone, and whoever waits for its end says why.
            Err(_) => return,
        };
        let mut out = std::io::stdout().lock();
        if out
            .write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            return;
        }
    }
}

async fn actix_pause() {
    actix::clock::sleep(Duration::from_millis(5)).await;
}

/// One committed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its number.
    pub n: u64,
    /// Its place.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

impl Command {
    /// Reads `N INDEX TERM MICROS`; the last is the time.
    pub fn parse(words: &str) -> Result<(Self, u64)> {
        let mut numbers = words.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next().context("a number")?.context("a number");
        let command = Self {
            n: next()?,
            index: next()?,
            term: next()?,
        };
        Ok((command, next()?))
    }
}

/// All commands in a stopped node's folder, each with its bytes as they were proposed; or why it is refused. For a
/// process of its own, which prints it.
pub fn commands(dir: &Path) -> Result<Vec<Command>, String> {
    let opened = open_rocksdb(dir, Some(NodeId(1))).map_err(|error| error.to_string())?;
    let (reader, last) = (opened.store.reader(), opened.recovered.last.index);
    let mut found = Vec::new();
    let mut next = LogIndex(1);
    while next <= last {
        let entries = reader.read(next, last, 1 << 20);
        for entry in entries.map_err(|error: StorageError| error.to_string())? {
            next = entry.id.index.next();
            if entry.kind != EntryKind::Command {
                continue;
            }
            let Some((_, Logged::Command { command: data, .. })) = Logged::decode(&entry.data)
            else {
                continue; // A session of the node's own.
            };
            let n = data.first_chunk().map(|n| u64::from_be_bytes(*n));
            let n = n.filter(|n| command(*n) == data[..]);
            found.push(Command {
                n: n.ok_or(format!(
                    "entry {} is no command that was proposed",
                    entry.id.index
                ))?,
                index: entry.id.index.0,
                term: entry.id.term.0,
            });
        }
    }
    Ok(found)
}
