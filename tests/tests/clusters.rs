//! One node, three, five; restarts, pauses, minorities.

use rustix::process::Signal;
use tests::output::Outcome;

use crate::{WAIT, running, texts, works};

#[test]
fn a_single_node_is_a_cluster() {
    let (mut cluster, leader) = running("single", 1);
    assert_eq!(leader, 1);
    works(&cluster, "alone");
    cluster.kill(&[1]).unwrap();
    cluster.start_all().unwrap();
    works(&cluster, "again");
}

#[test]
fn five_nodes_go_on_without_two() {
    let (mut cluster, leader) = running("five", 5);
    works(&cluster, "all");
    let other = leader % 5 + 1;
    cluster.kill(&[leader, other]).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "three");
    cluster.start(leader).unwrap();
    cluster.start(other).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "five");
}

#[test]
fn a_restart_shows_the_history() {
    let (mut cluster, _) = running("restart", 3);
    works(&cluster, "before");
    let before: Vec<_> = cluster
        .running()
        .iter()
        .map(|node| node.output.lock().deliveries.clone())
        .collect();
    cluster.terminate().unwrap();
    // Nobody leads yet that could tell a node alone what is committed: it is shown when a majority is there.
    cluster.start_all().unwrap();
    for (node, before) in cluster.running().iter().zip(before) {
        let count = before.len();
        let after = node.wait(WAIT, "its history", |printed| {
            (printed.deliveries.len() >= count).then(|| printed.deliveries.clone())
        });
        assert_eq!(after.unwrap(), before);
    }
    works(&cluster, "after");
}

#[test]
fn a_leader_that_is_stopped_is_replaced_and_follows_when_it_goes_on() {
    let (cluster, leader) = running("paused", 3);
    works(&cluster, "before");
    let paused = cluster.node(leader).unwrap();
    paused.signal(Signal::STOP);
    let other = cluster.node(leader % 3 + 1).unwrap();
    // The first may be lost with the leader, as long as it is not acknowledged.
    let deadline = std::time::Instant::now() + WAIT;
    let mut number = 0;
    let index = loop {
        number += 1;
        match other
            .outcome(other.send(&format!("without it {number}")), WAIT)
            .unwrap()
        {
            Outcome::Ack(index) => break index,
            failed => assert!(std::time::Instant::now() < deadline, "{failed:?}"),
        }
    };
    paused.signal(Signal::CONT);
    paused
        .wait(WAIT, "what was said while it was stopped", |printed| {
            printed
                .deliveries
                .iter()
                .any(|d| d.index == index)
                .then_some(())
        })
        .unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "after");
}

#[test]
fn a_minority_acknowledges_nothing_and_recovers() {
    let (mut cluster, leader) = running("minority", 3);
    works(&cluster, "before");
    let others: Vec<_> = cluster
        .ids()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    cluster.kill(&others).unwrap();
    let node = cluster.node(leader).unwrap();
    let outcome = node.outcome(node.send("too few to hear it"), WAIT).unwrap();
    assert!(!matches!(outcome, Outcome::Ack(_)), "{outcome:?}");
    for id in others {
        cluster.start(id).unwrap();
    }
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "after");
    let heard = texts(&node)
        .iter()
        .filter(|text| *text == "too few to hear it")
        .count();
    let may = usize::from(matches!(outcome, Outcome::Unknown(_)));
    assert!(
        heard <= may,
        "{outcome:?}, and it stands {heard} times in the log"
    );
}
