//! Nodes that lead, join, leave and are removed, as `demo-chat` has it.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tests::cluster::free_ports;
use tests::node::{Node, Spec, run_to_end};
use tests::output::Members;
use tests::programs::Programs;

use crate::{WAIT, programs};

/// Nodes that were not told of each other. `seat`s are counted from 0; ids are given.
struct Seats {
    programs: Programs,
    folder: PathBuf,
    ports: Vec<u16>,
}

impl Seats {
    fn new(name: &str, count: usize) -> Self {
        let programs = programs();
        let name = format!("{name}-{}", std::process::id());
        let folder = programs.target().join("harness").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let ports = free_ports(count).unwrap();
        Self {
            programs,
            folder,
            ports,
        }
    }

    fn address(&self, seat: usize) -> String {
        format!("127.0.0.1:{}", self.ports[seat])
    }

    /// How the node of a seat is started, to join that of another, or to lead.
    fn spec(&self, seat: usize, joins: Option<usize>) -> Spec {
        let members = joins.map(|member| self.address(member));
        Spec {
            id: seat as u64,
            name: format!("seat{seat}"),
            peers: String::new(),
            at: Some((self.address(seat), members)),
            data: self.folder.join(seat.to_string()),
            args: Vec::new(),
            log: self.folder.join(format!("{seat}.log")),
        }
    }

    fn start(&self, seat: usize, joins: Option<usize>) -> Arc<Node> {
        let spec = self.spec(seat, joins);
        Arc::new(Node::start(&self.programs, spec).unwrap())
    }

    /// All went well: nothing is left.
    fn end(self) {
        std::fs::remove_dir_all(self.folder).unwrap();
    }
}

/// The members, once they are as they should be.
fn members(node: &Node, what: &str, are_so: impl Fn(&Members) -> bool) -> Members {
    let deadline = Instant::now() + WAIT;
    loop {
        let members = node.members(WAIT).unwrap();
        if are_so(&members) {
            return members;
        }
        assert!(Instant::now() < deadline, "not {what}: {members:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn voters(members: &Members) -> Vec<u64> {
    let voters = members.members.iter();
    let voters = voters.filter(|member| member.role.as_deref() == Some("voter"));
    voters.map(|member| member.id).collect()
}

fn vote(node: &Node, ids: &[u64], tolerance: usize) -> Members {
    let what = format!("{ids:?} vote and {tolerance} may fail");
    members(node, &what, |members| {
        let now = members.tolerance.as_ref().map(|known| known.now);
        voters(members) == ids && now == Some(tolerance)
    })
}

/// It delivers this, and nothing else.
fn delivers(node: &Node, said: &[&str]) {
    node.wait(WAIT, &format!("the messages {said:?}"), |printed| {
        let texts: Vec<_> = printed.deliveries.iter().map(|d| d.text.as_str()).collect();
        (texts == said).then_some(())
    })
    .unwrap();
}

#[test]
fn a_cluster_grows_and_shrinks_and_every_node_knows_when_it_may_go() {
    let seats = Seats::new("grow", 4);
    let first = seats.start(0, None);
    first.say("alone", WAIT).unwrap();
    let second = seats.start(1, Some(0));
    vote(&first, &[1, 2], 0);
    let third = seats.start(2, Some(1));
    vote(&third, &[1, 2, 3], 1);
    third.say("three", WAIT).unwrap();
    for (node, id) in [(&first, 1), (&second, 2), (&third, 3)] {
        assert_eq!(node.status(WAIT).unwrap().id, id);
        delivers(node, &["alone", "three"]);
    }

    // From any node, whoever leads; asked again, it is so already.
    let leads = members(&first, "led", |members| members.tolerance.is_some()).leader;
    let next = leads % 3 + 1;
    let said = third.wish(&format!("/transfer {next}"), WAIT).unwrap();
    assert!(said.contains(&format!("node {next} takes over")), "{said}");
    vote(&first, &[1, 2, 3], 1);
    let said = second.wish("/priority 2 7", WAIT).unwrap();
    assert!(
        said.starts_with("done /priority 2 7: since entry"),
        "{said}"
    );
    let said = first.wish("/priority 2 7", WAIT).unwrap();
    assert!(said.starts_with("done /priority 2 7: it was so"), "{said}");
    let said = first.wish("/remove 9", WAIT).unwrap();
    assert!(
        said.starts_with("failed /remove 9: node 9 is no member"),
        "{said}"
    );
    let said = first.wish("/demote 3", WAIT).unwrap();
    assert!(said.starts_with("done /demote 3: "), "{said}");
    vote(&first, &[1, 2], 0);
    let said = first.wish("/promote 3", WAIT).unwrap();
    assert!(said.starts_with("done /promote 3: "), "{said}");
    vote(&first, &[1, 2, 3], 1);

    // Removed by another, it ends, and says for good why.
    let said = first.wish("/remove 3", WAIT).unwrap();
    assert!(said.starts_with("done /remove 3: "), "{said}");
    assert_eq!(third.wait_exit(WAIT).unwrap().code(), Some(3));
    let again = seats.start(2, Some(0));
    assert_eq!(again.wait_exit(WAIT).unwrap().code(), Some(3));

    // Its id is nobody's again: who comes in its place is 4.
    let fourth = seats.start(3, Some(0));
    vote(&fourth, &[1, 2, 4], 1);

    // Whoever leads goes, and hands over first.
    let leader = members(&fourth, "led", |_| true).leader;
    let nodes = [(1, &first), (2, &second), (4, &fourth)];
    let (_, leaves) = nodes.iter().find(|(id, _)| *id == leader).unwrap();
    let said = leaves.wish("/leave", WAIT).unwrap();
    assert!(said.starts_with("done /leave: "), "{said}");
    assert_eq!(leaves.wait_exit(WAIT).unwrap().code(), Some(0));
    let left: Vec<u64> = [1, 2, 4].into_iter().filter(|id| *id != leader).collect();
    let rest: Vec<_> = nodes.iter().filter(|(id, _)| *id != leader).collect();
    vote(rest[0].1, &left, 0);
    rest[1].1.say("two", WAIT).unwrap();
    delivers(rest[1].1, &["alone", "three", "two"]);

    // One of two cannot go without the other's consent, and the last one not at all.
    let said = rest[0].1.wish("/leave", WAIT).unwrap();
    assert!(said.starts_with("done /leave: "), "{said}");
    let said = rest[1].1.wish("/leave", WAIT).unwrap();
    assert!(
        said.starts_with("failed /leave: no voter would be left"),
        "{said}"
    );
    rest[1].1.say("alone again", WAIT).unwrap();
    seats.end();
}

#[test]
fn a_node_whose_folder_is_lost_takes_its_own_place_by_joining() {
    let seats = Seats::new("lost", 3);
    let first = seats.start(0, None);
    let second = seats.start(1, Some(0));
    vote(&first, &[1, 2], 0);
    let third = seats.start(2, Some(0));
    vote(&first, &[1, 2, 3], 1);
    first.say("before", WAIT).unwrap();
    third.kill();
    third.wait_exit(WAIT).unwrap();
    std::fs::remove_dir_all(&third.spec.data).unwrap();
    let third = seats.start(2, Some(1));
    vote(&second, &[1, 2, 4], 1);
    third.say("after", WAIT).unwrap();
    delivers(&third, &["before", "after"]);

    // What would leave too few is refused, and said to be.
    second.kill();
    second.wait_exit(WAIT).unwrap();
    vote(&first, &[1, 2, 4], 0);
    let said = first.wish("/remove 4", WAIT).unwrap();
    assert!(
        said.starts_with("failed /remove 4: ") && said.contains("force it"),
        "{said}"
    );
    vote(&third, &[1, 2, 4], 0);
    let said = first.wish("/remove 2", WAIT).unwrap();
    assert!(said.starts_with("done /remove 2: "), "{said}");
    vote(&third, &[1, 4], 0);
    seats.end();
}

#[test]
fn a_node_that_waits_is_added_by_a_member() {
    let seats = Seats::new("added", 2);
    let first = seats.start(0, None);
    first.say("here", WAIT).unwrap();
    let mut spec = seats.spec(1, None);
    // `join` without an address.
    spec.at = Some((seats.address(1), Some(String::new())));
    let second = Node::start(&seats.programs, spec).unwrap();
    // It listens when it can be reached: until then it is asked again.
    let deadline = Instant::now() + WAIT;
    while std::net::TcpStream::connect(seats.address(1)).is_err() {
        assert!(Instant::now() < deadline, "{}", second.tail(15));
        thread::sleep(Duration::from_millis(20));
    }
    let said = first
        .wish(&format!("/add {}", seats.address(1)), WAIT)
        .unwrap();
    assert!(said.ends_with("it is node 2"), "{said}");
    vote(&first, &[1, 2], 0);
    second.say("and here", WAIT).unwrap();
    seats.end();
}

#[test]
fn who_cannot_join_and_who_must_not_lead_is_told_why() {
    let seats = Seats::new("told", 3);
    // Nobody is there.
    let mut spec = seats.spec(1, Some(0));
    spec.args = vec!["--join-timeout".into(), "1s".into()];
    let (code, said) = run_to_end(&seats.programs, spec, WAIT).unwrap();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nobody let this node in within"), "{said}");

    // A founder whose folder is lost would begin a second cluster beside its own.
    let first = seats.start(0, None);
    let second = seats.start(1, Some(0));
    vote(&first, &[1, 2], 0);
    let third = seats.start(2, Some(0));
    vote(&first, &[1, 2, 3], 1);
    first.say("before", WAIT).unwrap();
    first.kill();
    first.wait_exit(WAIT).unwrap();
    std::fs::remove_dir_all(&first.spec.data).unwrap();
    let (code, said) = run_to_end(&seats.programs, seats.spec(0, None), WAIT).unwrap();
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("looks here for node 1: join that cluster"),
        "{said}"
    );
    let first = seats.start(0, Some(2));
    vote(&second, &[2, 3, 4], 1);
    first.say("after", WAIT).unwrap();
    delivers(&first, &["before", "after"]);

    // What is asked for wrongly is no message, and nothing happens.
    third.command("/remove");
    third.logged(&["unknown command /remove"], WAIT).unwrap();
    vote(&third, &[2, 3, 4], 1);
    seats.end();
}
