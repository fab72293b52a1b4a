//! Nothing outlives the harness, however it ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::programs;

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        // pid (name) state ppid ...
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let ppid: u32 = rest.split(' ').nth(1)?.parse().ok()?;
        (ppid == parent).then_some(pid)
    });
    processes.collect()
}

fn ends_all_children_on(signal: Signal) {
    let programs = programs();
    let mut harness = Command::new(&programs.harness)
        .args(["kill", "--rounds", "1000"])
        .env("DEMO_CHAT", &programs.demo_chat)
        .env("FIGURES_DIR", std::env::temp_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(harness.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("seed"), "{first}");
    let deadline = Instant::now() + Duration::from_secs(10);
    let nodes = loop {
        let nodes = children(harness.id());
        if nodes.len() == 3 {
            break nodes;
        }
        assert!(Instant::now() < deadline, "the harness started {nodes:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    kill_process(
        Pid::from_raw(i32::try_from(harness.id()).unwrap()).unwrap(),
        signal,
    )
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while harness.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            harness.kill().unwrap();
            panic!("the harness did not end by {signal:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for node in nodes {
        while fs::read_to_string(format!("/proc/{node}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            assert!(
                Instant::now() < deadline,
                "node process {node} outlived the harness"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let folder = programs
        .target()
        .join("harness")
        .join(format!("kill-{}-0", harness.id()));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_harness_killed_with_9_takes_its_nodes_with_it() {
    ends_all_children_on(Signal::KILL);
}

/// Not by an interrupt: a shell that starts the tests in the background has that one ignored.
#[test]
fn a_harness_that_is_terminated_takes_its_nodes_with_it() {
    ends_all_children_on(Signal::TERM);
}
