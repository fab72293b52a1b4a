//! Whole-cluster tests on real processes, sockets and disks. One binary, so that it links once.
//!
//! - [`clusters`] one node, three, five; restarts, pauses, minorities
//! - [`plain`] what `--plain` promises to scripts
//! - [`starting`] starts that must fail, each with exit code and message
//! - [`identity`] folders and processes that are not who they say
//! - [`wire`] what strangers send to a node's port, made by hand in [`stranger`]
//! - [`guard`] nothing outlives the harness

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail by panicking, its helpers too"
)]

mod clusters;
mod guard;
mod identity;
mod plain;
mod starting;
mod stranger;
mod wire;

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

/// Every running node takes a message and delivers all of them in the same order.
fn works(cluster: &Cluster, mark: &str) {
    let nodes = cluster.running();
    for node in &nodes {
        node.say(&format!("{mark} {}", node.spec.id), WAIT).unwrap();
    }
    let mut histories = Vec::new();
    for node in &nodes {
        let what = format!("the {} messages \"{mark} N\"", nodes.len());
        let history = node.wait(WAIT, &what, |printed| {
            let marked = printed
                .deliveries
                .iter()
                .filter(|d| d.text.starts_with(mark))
                .count();
            (marked == nodes.len()).then(|| printed.deliveries.clone())
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
