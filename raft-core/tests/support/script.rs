//! The language of the golden scripts; `tests/scripts/README.md` describes it.

use bytes::Bytes;
use raft_core::{Config, HardState, Input, NodeId, Term};

use super::cluster::{Cluster, Link};

/// Runs a script and gives it back with the output that it has now.
///
/// # Panics
/// On a command that is none.
pub(crate) fn run(script: &str) -> String {
    let mut cluster = Cluster::default();
    let mut text = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            text += &format!("{line}\n");
            let quiet = command.strip_prefix('(').and_then(|c| c.strip_suffix(')'));
            run_command(&mut cluster, quiet.unwrap_or(command));
            let lines = cluster.take_lines();
            if quiet.is_some() {
                continue;
            }
            if lines.is_empty() {
                text += "nothing\n";
            }
            for line in lines {
                text += &format!("{line}\n");
            }
        } else if line.is_empty() || line.starts_with('#') {
            text += &format!("{line}\n");
        }
    }
    text
}

fn run_command(cluster: &mut Cluster, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let (name, args) = words.split_first().expect("a command");
    let node = |at: usize| NodeId(number(args[at]));
    let count = |at: usize| args.get(at).map(|word| number(word));
    match *name {
        "nodes" => nodes(cluster, number(args[0]), &args[1..]),
        "disk" => disk(cluster, node(0), &args[1..]),
        "campaign" => cluster.step(node(0), Input::Campaign),
        "propose" => {
            let commands = args[1..].iter();
            let commands = commands.map(|word| Bytes::from((*word).to_owned()));
            cluster.step(node(0), Input::Propose(commands.collect()));
        }
        "tick" => {
            for _ in 0..count(1).unwrap_or(1) {
                for id in which(cluster, args[0]) {
                    cluster.step(id, Input::Tick);
                }
            }
        }
        "persist" => {
            for id in which(cluster, args[0]) {
                cluster.persist(id, count(1).map_or(usize::MAX, |n| n as usize));
            }
        }
        "read" => cluster.answer_reads(node(0)),
        "deliver" => cluster.deliver(link(args.first()), args.get(1) == Some(&"newest-first")),
        "drop" => cluster.drop_messages(link(args.first())),
        "duplicate" => cluster.duplicate(link(args.first())),
        "unreachable" => cluster.step(node(0), Input::PeerUnreachable(node(1))),
        "cut" | "isolate" => cut(cluster, args[0]),
        "heal" => cluster.heal(),
        "crash" => cluster.crash(node(0), count(1).unwrap_or(0) as usize),
        "restart" => cluster.restart(node(0), count(1).map_or(usize::MAX, |n| n as usize)),
        "settle" => cluster.settle(),
        "network" => cluster.show_network(),
        "status" => {
            for id in which(cluster, args.first().unwrap_or(&"all")) {
                cluster.show_status(id);
            }
        }
        "log" => {
            for id in which(cluster, args.first().unwrap_or(&"all")) {
                cluster.show_log(id);
            }
        }
        _ => panic!("no such command: {command}"),
    }
}

fn number(word: &str) -> u64 {
    word.parse()
        .unwrap_or_else(|_| panic!("{word:?} is no number"))
}

fn which(cluster: &Cluster, word: &str) -> Vec<NodeId> {
    match word {
        "all" => cluster.ids(),
        id => vec![NodeId(number(id))],
    }
}

/// `1->2`, `1->`, `->2`, or nothing for every link.
fn link(word: Option<&&str>) -> Link {
    let Some(word) = word else {
        return Link::default();
    };
    let (from, to) = word.split_once("->").expect("a link such as 1->2");
    let end = |id: &str| (!id.is_empty()).then(|| NodeId(number(id)));
    Link {
        from: end(from),
        to: end(to),
    }
}

/// `1->2` for one direction, `1` for all links of a node in both.
fn cut(cluster: &mut Cluster, word: &str) {
    if let (Some(from), Some(to)) = (link_end(word, 0), link_end(word, 1)) {
        return cluster.cut(from, to);
    }
    let id = NodeId(number(word));
    for other in cluster.ids() {
        cluster.cut(id, other);
        cluster.cut(other, id);
    }
}

fn link_end(word: &str, at: usize) -> Option<NodeId> {
    let end = word.contains("->").then(|| word.split("->").nth(at))??;
    Some(NodeId(number(end)))
}

fn setting<'a>(word: &&'a str) -> (&'a str, &'a str) {
    word.split_once('=')
        .unwrap_or_else(|| panic!("{word:?} is no setting"))
}

/// Nodes `1..=n`: a heartbeat each 2 ticks, an election timeout of 10 to 19.
fn nodes(cluster: &mut Cluster, n: u64, settings: &[&str]) {
    for id in (1..=n).map(NodeId) {
        let mut config = Config::new(id, (1..=n).map(NodeId));
        config.heartbeat_ticks = 2;
        config.election_timeout_ticks_min = 10;
        config.election_timeout_ticks_max = 20;
        for (name, value) in settings.iter().map(setting) {
            let value = number(value) as usize;
            match name {
                "append_entries_max" => config.append_entries_max = value,
                "inflight_max" => config.inflight_max = value,
                "tail_bytes_max" => config.tail_bytes_max = value,
                "uncommitted_bytes_max" => config.uncommitted_bytes_max = value,
                _ => panic!("no such setting: {name}"),
            }
        }
        cluster.add(config);
    }
}

/// `term=3 vote=1 log=1,1,3`
fn disk(cluster: &mut Cluster, id: NodeId, settings: &[&str]) {
    let mut hard_state = HardState::default();
    let mut log = Vec::new();
    for (name, value) in settings.iter().map(setting) {
        match name {
            "term" => hard_state.term = Term(number(value)),
            "vote" => hard_state.voted_for = Some(NodeId(number(value))),
            "log" => log = value.split(',').map(number).collect(),
            _ => panic!("no such setting: {name}"),
        }
    }
    cluster.set_disk(id, hard_state, &log);
}
