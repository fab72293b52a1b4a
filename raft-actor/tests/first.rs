//! The README's first program: it is the example, and the example does what the README says.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "rocksdb")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const EXAMPLE: &str = include_str!("../examples/first.rs");
const README: &str = include_str!("../../README.md");

/// The ports that stand in the example.
const PORTS: [u16; 3] = [7001, 7002, 7003];

#[test]
fn the_readme_shows_the_example_in_at_most_40_lines() {
    let quoted = format!("```rust,no_run\n{EXAMPLE}```\n");
    assert!(
        README.contains(&quoted),
        "the README's first program is not examples/first.rs"
    );
    assert!(EXAMPLE.lines().count() <= 40);
}

/// A running example; it ends with this.
struct Node {
    process: Child,
    lines: Receiver<String>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Node {
    fn start(program: &Path, id: u32, folder: &Path) -> Self {
        let mut command = Command::new(program);
        command.arg(id.to_string()).current_dir(folder);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (line, lines) = channel();
        std::thread::spawn(move || {
            for read in output.lines() {
                let Ok(read) = read else { return };
                if line.send(read).is_err() {
                    return;
                }
            }
        });
        Self { process, lines }
    }

    /// The next lines that tell of deliveries.
    fn delivered(&self, count: usize) -> Vec<String> {
        let mut delivered = Vec::new();
        while delivered.len() < count {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            let line = line.expect("another line within a minute");
            if !line.starts_with("committed at") {
                delivered.push(line);
            }
        }
        delivered
    }
}

/// Cargo builds it with the tests, beside them.
fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples/first");
    assert!(
        program.exists(),
        "cargo build -p raft-actor --example first"
    );
    program
}

#[test]
fn three_times_the_first_program_delivers_three_times_the_same() {
    // Another copy of this test may run on this machine.
    let deadline = Instant::now() + Duration::from_secs(60);
    while PORTS
        .iter()
        .any(|port| TcpListener::bind(("127.0.0.1", *port)).is_err())
    {
        assert!(
            Instant::now() < deadline,
            "the example's ports {PORTS:?} are in use"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let (program, folder) = (example(), tempfile::tempdir().unwrap());
    let start = || [1, 2, 3].map(|id| Node::start(&program, id, folder.path()));
    let texts = |lines: &[String]| {
        let text = |line: &String| line.split_once(' ').unwrap().1.to_owned();
        let mut texts: Vec<_> = lines.iter().map(text).collect();
        texts.sort();
        texts
    };
    let hellos = ["hello from 1", "hello from 2", "hello from 3"];

    let nodes = start();
    let first = nodes.each_ref().map(|node| node.delivered(3));
    assert_eq!(first[0], first[1]);
    assert_eq!(first[0], first[2]);
    assert_eq!(texts(&first[0]), hellos);
    // Killed, and started once more: the same again, and then what is new.
    drop(nodes);
    let nodes = start();
    let second = nodes.each_ref().map(|node| node.delivered(6));
    assert_eq!(second[0], second[1]);
    assert_eq!(second[0], second[2]);
    assert_eq!(second[0][..3], first[0]);
    assert_eq!(texts(&second[0][3..]), hellos);
}
