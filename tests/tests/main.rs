//! Whole-cluster tests on real processes, sockets and disks. One binary, so that it links once.
//!
//! - [`clusters`] one node, three, five; restarts, pauses, minorities
//! - [`plain`] what `--plain` promises to scripts
//! - [`starting`] starts that must fail, each with exit code and message
//! - [`identity`] folders and processes that are not who they say
//! - [`wire`] what strangers send to a node's port, made by hand in [`stranger`]
//! - [`membership`] nodes that lead, join, leave and are removed, as `demo-chat` has it
//! - [`recovery`] what raftctl does for a cluster that lost its majority, and to a running node's folder
//! - [`guard`] nothing outlives the harness

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail by panicking, its helpers too"
)]

mod clusters;
mod guard;
mod identity;
mod membership;
mod plain;
mod recovery;
mod starting;
mod stranger;
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use tests::cluster::Cluster;
use tests::node::Node;
use tests::programs::Programs;

/// The programs, demo-chat built anew unless `DEMO_CHAT` names one.
fn programs() -> Programs {
    Programs::built(env!("CARGO_BIN_EXE_harness")).unwrap()
}

/// `count` nodes, none of them started.
fn cluster(name: &str, count: usize) -> Cluster {
    Cluster::fresh(&programs(), name, count).unwrap()
}

/// A running cluster, and who leads it.
fn running(name: &str, count: usize) -> (Cluster, u64) {
    let mut cluster = cluster(name, count);
    let leader = cluster.start_all().unwrap();
    (cluster, leader)
}

/// Every running node takes a message and delivers all of them, in the same order. `mark` must be new.
fn works(cluster: &Cluster, mark: &str) {
    let nodes = cluster.running();
    let said = |node: &Node| format!("{mark} {}", node.spec.id);
    let all: BTreeSet<_> = nodes.iter().map(|node| said(node)).collect();
    for node in &nodes {
        node.say(&said(node), WAIT).unwrap();
    }
    let mut histories = Vec::new();
    for node in &nodes {
        let what = format!("the messages {all:?}");
        let history = node.wait(WAIT, &what, |printed| {
            let count = printed
                .deliveries
                .iter()
                .filter(|d| all.contains(&d.text))
                .count();
            (count >= all.len()).then(|| printed.deliveries.clone())
        });
        histories.push(history.unwrap());
    }
    assert!(
        histories.iter().all(|history| *history == histories[0]),
        "{histories:?}"
    );
}

/// What a node has delivered.
fn texts(node: &Node) -> Vec<String> {
    node.output
        .lock()
        .deliveries
        .iter()
        .map(|delivery| delivery.text.clone())
        .collect()
}

const WAIT: Duration = Duration::from_secs(20);
