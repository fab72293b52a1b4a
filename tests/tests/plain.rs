//! What `--plain` promises to scripts.

use std::time::Duration;

use rustix::process::Signal;
use tests::cluster::SOON;
use tests::output::Outcome;

use crate::{WAIT, running, texts, works};

#[test]
fn sigterm_and_quit_end_a_node_with_0() {
    let (cluster, _) = running("end", 3);
    let nodes = cluster.running();
    nodes[0].signal(Signal::TERM);
    nodes[1].command("/quit");
    nodes[2].signal(Signal::INT);
    for node in nodes {
        let status = node.wait_exit(SOON).unwrap();
        assert_eq!(
            status.code(),
            Some(0),
            "node {}: {}",
            node.spec.id,
            node.tail(10)
        );
    }
}

#[test]
fn status_is_one_line_of_json() {
    let (cluster, leader) = running("status", 3);
    works(&cluster, "said");
    for node in cluster.running() {
        let status = node.status(SOON).unwrap();
        assert_eq!(status.id, node.spec.id);
        assert_eq!(status.role == "leader", status.id == leader, "{status:?}");
        assert_eq!(status.leader, Some(leader));
        assert!(
            status.term >= 1 && status.commit >= 3 && status.applied >= 3,
            "{status:?}"
        );
        assert_eq!(status.phase, "running");
        let members: Vec<_> = status
            .members
            .iter()
            .map(|member| format!("{}={}", member.id, member.address))
            .collect();
        assert_eq!(members.join(","), node.spec.peers);
        assert!(
            status.members.iter().all(|member| member.connected),
            "{status:?}"
        );
    }
}

#[test]
fn the_end_of_input_leaves_the_node_running() {
    let (cluster, _) = running("eof", 3);
    let nodes = cluster.running();
    nodes[0].say("the last from here", SOON).unwrap();
    nodes[0].close_input();
    std::thread::sleep(Duration::from_millis(500));
    nodes[1].say("still there?", SOON).unwrap();
    nodes[0]
        .wait(SOON, "what another said", |printed| {
            printed
                .deliveries
                .iter()
                .any(|d| d.text == "still there?")
                .then_some(())
        })
        .unwrap();
    assert!(nodes[0].runs());
    nodes[0].signal(Signal::TERM);
    assert_eq!(nodes[0].wait_exit(SOON).unwrap().code(), Some(0));
}

#[test]
fn control_characters_are_escaped_and_text_is_not() {
    let (cluster, _) = running("escape", 3);
    let nodes = cluster.running();
    nodes[0].say("a\tb\u{1b}[31mc\u{7}d\re", SOON).unwrap();
    nodes[0].say("grüße, 世界 🦀", SOON).unwrap();
    nodes[0].say("/not a command", SOON).unwrap();
    for node in &nodes {
        node.wait(SOON, "three deliveries", |printed| {
            (printed.deliveries.len() == 3).then_some(())
        })
        .unwrap();
        let texts = texts(node);
        assert!(!texts[0].chars().any(char::is_control), "{:?}", texts[0]);
        for visible in ["a", "b", "[31mc", "d", "e"] {
            assert!(texts[0].contains(visible), "{:?}", texts[0]);
        }
        assert_eq!(texts[1..], ["grüße, 世界 🦀", "/not a command"]);
        assert!(node.output.lock().not_deliveries.is_empty());
    }
    let from = nodes[2].output.lock().deliveries[0].from.clone();
    assert_eq!(from, nodes[0].spec.name);
}

#[test]
fn a_message_over_the_limit_is_refused_and_the_next_is_not() {
    let (cluster, leader) = running("large", 3);
    for id in [leader, leader % 3 + 1] {
        let node = cluster.node(id).unwrap();
        let large = node.send(&"x".repeat((1 << 20) + 1));
        let next = node.send("after the large one");
        match node.outcome(large, SOON).unwrap() {
            Outcome::Err(reason) => assert!(reason.contains("bytes"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(node.outcome(next, SOON).unwrap(), Outcome::Ack(_)));
        // Nearly as much as may be.
        node.say(&format!("{id}{}", "y".repeat((1 << 20) - 1000)), SOON)
            .unwrap();
    }
    works(&cluster, "after");
    assert!(
        !texts(&cluster.running()[0])
            .iter()
            .any(|text| text.starts_with('x'))
    );
}

#[test]
fn many_lines_at_once_are_answered_each() {
    let (cluster, leader) = running("burst", 3);
    let node = cluster.node(leader % 3 + 1).unwrap();
    for number in 1..=2000 {
        node.send(&format!("burst {number}"));
    }
    node.wait(WAIT, "2000 outcomes", |printed| {
        (printed.outcomes.len() == 2000).then_some(())
    })
    .unwrap();
    let printed = node.output.lock();
    assert!(printed.answered_twice.is_empty());
    assert!(
        printed
            .outcomes
            .values()
            .all(|o| matches!(o, Outcome::Ack(_))),
        "{:?}",
        printed.outcomes
    );
}
