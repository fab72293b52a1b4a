//! A real process that writes, killed with -9 in the middle of it, again and again: what it acknowledged
//! must be there, and what is there must be what it wrote.
//!
//! The test binary starts itself as the writer.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    env,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use raft_core::{Entry, EntryKind, HardState, LogIndex, NodeId, Term};
use raft_storage::{Batch, open_rocksdb};

const NODE: NodeId = NodeId(1);
const DIR: &str = "RAFT_STORAGE_KILL_DIR";
const ROUNDS: u64 = 10;

/// The n-th of a row of numbers that look random.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

fn entry(term: u64, index: u64) -> Entry {
    let length = (mix(index) % 2000) as usize;
    let data = vec![(term + index) as u8; length].into();
    Entry::new(Term(term), LogIndex(index), EntryKind::Command, data)
}

/// Writes until it is killed. Says what it is about to cut before it cuts, and what is durable after.
fn write_until_killed(dir: &Path) {
    let mut opened = open_rocksdb(dir, Some(NODE)).unwrap();
    let mut term = opened.recovered.hard_state.term.0;
    let mut last = opened.recovered.last.index.0;
    let mut out = std::io::stdout();
    for step in (opened.identity.starts << 32).. {
        let mut batch = Batch::new();
        let mut cut = None;
        if mix(step).is_multiple_of(10) || term == 0 {
            term += 1;
            let voted_for = Some(NODE);
            let hard_state = HardState {
                term: Term(term),
                voted_for,
            };
            cut = (last > 0).then(|| last - mix(step + 1) % last.min(50));
            batch.push(Some(hard_state), cut.map(LogIndex), [].into());
        }
        if let Some(from) = cut {
            last = from - 1;
            writeln!(out, "cut {last}").unwrap();
        }
        let count = 1 + mix(step + 2) % 150;
        let entries: Arc<[Entry]> = (last + 1..=last + count)
            .map(|index| entry(term, index))
            .collect();
        batch.push(None, None, entries);
        opened.store.write(&batch).unwrap();
        last += count;
        writeln!(out, "ack {last} {term}").unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(dir) = env::var_os(DIR) {
        return write_until_killed(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut acknowledged_term) = (0, 0);
    for round in 1..=ROUNDS {
        let mut writer = Command::new(env::current_exe().unwrap())
            .args([
                "what_was_acknowledged_survives_kill_9",
                "--exact",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let listener = thread::spawn(move || {
            let (mut ack, mut term, mut count) = (None, None, 0);
            for line in lines.map_while(Result::ok) {
                // The test harness prints its own words before the first one, without a line's end.
                let words = line.split_whitespace().collect::<Vec<_>>();
                match words[..] {
                    [.., "ack", index, of] => {
                        (ack, term) = (index.parse::<u64>().ok(), of.parse::<u64>().ok());
                        count += 1;
                    }
                    [.., "cut", index] => ack = index.parse().ok(),
                    _ => {}
                }
            }
            (ack, term, count)
        });
        thread::sleep(Duration::from_millis(300 + mix(round) % 400));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let (ack, term, count) = listener.join().unwrap();
        acknowledged = ack.unwrap_or(acknowledged);
        acknowledged_term = term.unwrap_or(acknowledged_term);

        let opened = open_rocksdb(dir.path(), Some(NODE)).unwrap();
        let last = opened.recovered.last.index.0;
        eprintln!("round {round}: {count} writes acknowledged, up to {acknowledged}; found {last}");
        assert!(
            last >= acknowledged,
            "round {round}: {acknowledged} was acknowledged, {last} is there"
        );
        assert!(opened.recovered.hard_state.term.0 >= acknowledged_term);
        let log = opened
            .store
            .reader()
            .read(LogIndex(1), LogIndex(last), usize::MAX)
            .unwrap();
        assert_eq!(log.len() as u64, last);
        for found in log {
            assert_eq!(found, entry(found.id.term.0, found.id.index.0));
        }
    }
    assert!(acknowledged > 0, "the writer wrote");
}
