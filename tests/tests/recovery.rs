//! A cluster that lost its majority for good goes on with those who are left, once an operator has said so.

use std::path::Path;
use std::process::Command;

use tests::cluster::Cluster;

use crate::{WAIT, programs, running, texts, works};

/// Runs raftctl, which lies beside demo-chat: its exit code, and what it said.
fn raftctl(args: &[&str]) -> (Option<i32>, String) {
    let program = programs().demo_chat.with_file_name("raftctl");
    let output = Command::new(&program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn recover(folder: &Path, voters: &str) -> String {
    let folder = folder.to_str().unwrap();
    let (code, said) = raftctl(&["recover", folder, "--voters", voters]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("never come back"), "{said}");
    let (code, said) = raftctl(&["--json", "recover", folder, "--voters", voters, "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    said["cluster"].as_str().unwrap().to_owned()
}

/// Lets the nodes `left` go on without the others, whose folders stay as they are, and checks what comes of it.
fn goes_on(mut cluster: Cluster, left: &[u64]) {
    works(&cluster, "before");
    let before = texts(&cluster.node(left[0]).unwrap());
    assert_eq!(before.len(), cluster.ids().len());
    cluster.kill(&cluster.ids()).unwrap();

    let voters: Vec<_> = left.iter().map(u64::to_string).collect();
    let mut clusters = Vec::new();
    let lost = left.len() as u64 + 1;
    let old = cluster.spec(lost).unwrap().clone();
    let peers: Vec<_> = old.peers.split(',').map(str::to_owned).collect();
    let peers = peers[..left.len()].join(",");
    for id in left {
        let spec = cluster.spec(*id).unwrap();
        clusters.push(recover(&spec.data, &voters.join(",")));
        spec.peers = peers.clone();
        cluster.start(*id).unwrap();
    }
    assert!(clusters.iter().all(|id| *id == clusters[0]), "{clusters:?}");
    let leader = cluster.wait_leader(WAIT).unwrap();
    assert!(left.contains(&leader));
    works(&cluster, "after");
    for node in cluster.running() {
        let now = texts(&node);
        assert_eq!(now[..before.len()], before, "all that it had is there");
    }

    // Back from the dead, with its old folder and its old list.
    let returned = cluster.start(lost).unwrap();
    returned.logged(&["belongs to", "cluster"], WAIT).unwrap();
    for id in left {
        let node = cluster.node(*id).unwrap();
        node.logged(&["belongs to", "cluster"], WAIT).unwrap();
    }
    // It may show what it has, and nothing that came after.
    let shown = texts(&returned);
    assert!(
        shown.iter().all(|text| text.starts_with("before")),
        "{shown:?}"
    );
    cluster.kill(&[lost]).unwrap();
    works(&cluster, "without the dead");

    // The recovered ones are an ordinary cluster, that can be started again.
    cluster.terminate().unwrap();
    for id in left {
        cluster.start(*id).unwrap();
    }
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "again");
    cluster.terminate().unwrap();
    for id in left {
        let data = cluster.spec(*id).unwrap().data.clone();
        let (code, said) = raftctl(&["log", "verify", data.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn one_of_three_goes_on_after_a_recovery() {
    let (cluster, _) = running("recover-one", 3);
    goes_on(cluster, &[1]);
}

#[test]
fn two_of_five_go_on_after_a_recovery() {
    let (cluster, _) = running("recover-two", 5);
    goes_on(cluster, &[1, 2]);
}

#[test]
fn a_backup_of_a_running_node_holds_what_was_acknowledged() {
    let (mut cluster, leader) = running("backup", 3);
    works(&cluster, "before");
    let index = cluster.node(leader).unwrap().say("the last", WAIT).unwrap();
    let data = cluster.spec(leader).unwrap().data.clone();
    let to = cluster.folder.join("copy");
    let (data, to) = (data.to_str().unwrap(), to.to_str().unwrap());
    let (code, said) = raftctl(&["log", "status", data]);
    assert_eq!(code, Some(0), "{said}");
    let pid = cluster.node(leader).unwrap().pid();
    assert!(
        said.contains(&format!("by process {pid}")) || said.contains("in use         yes"),
        "{said}"
    );
    let (code, said) = raftctl(&["backup", data, to]);
    assert_eq!(code, Some(0), "{said}");
    let at = index.to_string();
    let (_, entries) = raftctl(&["log", "entries", to, "--from", &at]);
    assert!(entries.contains("the last"), "{entries}");
    let (code, said) = raftctl(&["log", "verify", to]);
    assert_eq!(code, Some(0), "{said}");
    // Started beside its cluster, the copy is refused.
    cluster.kill(&[leader]).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    cluster.spec(leader).unwrap().data = to.into();
    let copy = cluster.start(leader).unwrap();
    let refused = copy.wait(WAIT, "that it is refused", |printed| {
        let log = printed.log.iter();
        let mut told = log.filter(|line| {
            line.contains("another process runs as node") || line.contains("old copy")
        });
        told.next().cloned()
    });
    refused.unwrap();
}
