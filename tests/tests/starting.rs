//! Starts that must fail, each with exit code 2 and a message that says what is wrong; and one that must wait.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use tests::cluster::{Cluster, SOON, free_ports};
use tests::node::{Spec, run_to_end};

use crate::{WAIT, cluster, programs, running, works};

/// Starts it, demands that it ends with 2, and that its log contains every one of `words`.
fn refuses(spec: Spec, words: &[&str]) {
    let (code, log) = run_to_end(&programs(), spec, SOON).unwrap();
    assert_eq!(code, Some(2), "{log}");
    let lower = log.to_lowercase();
    for word in words {
        assert!(
            lower.contains(&word.to_lowercase()),
            "no {word:?} in:\n{log}"
        );
    }
    assert!(!lower.contains("panicked"), "{log}");
}

fn spec(cluster: &mut Cluster, id: u64) -> Spec {
    cluster.spec(id).unwrap().clone()
}

#[test]
fn a_first_start_waits_for_the_missing_node_and_says_so() {
    let mut cluster = cluster("missing", 3);
    for id in [1, 2] {
        cluster.start(id).unwrap();
    }
    for node in cluster.running() {
        node.logged(&["wait", "3"], WAIT).unwrap();
        let status = node
            .wait(WAIT, "a status that waits for node 3 alone", |printed| {
                node.command("/status");
                let (status, _) = printed.statuses.back()?;
                let others = status.members.iter().filter(|m| m.connected).count();
                (others == 2).then(|| status.clone())
            })
            .unwrap();
        assert_eq!(status.phase, "forming");
        let waiting_for = status.waiting_for.to_string();
        assert!(waiting_for.contains('3'), "{waiting_for}");
        assert_eq!((status.leader, status.commit), (None, 0), "{status:?}");
    }
    // A message waits, too, and is not lost by waiting.
    let early = cluster.node(1).unwrap();
    let number = early.send("said early");
    std::thread::sleep(Duration::from_millis(300));
    cluster.start(3).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    early.outcome(number, WAIT).unwrap();
    works(&cluster, "complete");
}

#[test]
fn a_list_that_cannot_be_is_refused() {
    let mut cluster = cluster("lists", 3);
    let mut twice = spec(&mut cluster, 1);
    twice.peers = "1=127.0.0.1:7001,2=127.0.0.1:7002,2=127.0.0.1:7003".into();
    refuses(twice, &["2", "twice"]);
    let mut same_address = spec(&mut cluster, 1);
    same_address.peers = "1=127.0.0.1:7001,2=127.0.0.1:7001".into();
    refuses(same_address, &["both", "127.0.0.1:7001"]);
    let mut not_listed = spec(&mut cluster, 1);
    not_listed.id = 4;
    refuses(not_listed, &["4", "not in"]);
    let mut zero = spec(&mut cluster, 1);
    zero.peers = "0=127.0.0.1:7001,1=127.0.0.1:7002".into();
    refuses(zero, &["0"]);
    for nonsense in [
        "1=127.0.0.1",
        "1",
        "one=127.0.0.1:7001",
        "",
        "1=127.0.0.1:70001",
    ] {
        let mut spec = spec(&mut cluster, 1);
        spec.peers = nonsense.into();
        refuses(spec, &[]);
    }
    // None of these has left a folder behind that would be in the way of the next start.
    assert!(!cluster.folder.join("node1").exists());
}

#[test]
fn an_address_in_use_is_refused() {
    let mut cluster = cluster("address", 3);
    let listener = TcpListener::bind(("127.0.0.1", free_ports(1).unwrap()[0])).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut spec = spec(&mut cluster, 1);
    spec.args = vec!["--listen".into(), address.clone()];
    refuses(spec, &[&address, "in use"]);
}

#[test]
fn a_second_process_on_a_folder_is_refused_and_the_first_goes_on() {
    let (mut cluster, _) = running("locked", 3);
    let mut second = spec(&mut cluster, 2);
    second.args = vec![
        "--listen".into(),
        format!("127.0.0.1:{}", free_ports(1).unwrap()[0]),
    ];
    second.log = cluster.folder.join("second.log");
    refuses(second, &["in use by another process"]);
    works(&cluster, "after");
}

#[test]
fn a_folder_of_another_node_is_refused() {
    let (mut cluster, _) = running("other-node", 3);
    works(&cluster, "before");
    cluster.kill(&[3]).unwrap();
    let mut wrong = spec(&mut cluster, 2);
    wrong.data = cluster.folder.join("node3");
    wrong.log = cluster.folder.join("wrong.log");
    refuses(wrong, &["belongs to node 3", "node 2"]);
    cluster.start(3).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "after");
}

#[test]
fn a_folder_that_is_no_data_folder_is_refused_and_left_alone() {
    let mut cluster = cluster("not-empty", 3);
    let spec = spec(&mut cluster, 1);
    fs::create_dir_all(&spec.data).unwrap();
    let letter = spec.data.join("letter.txt");
    fs::write(&letter, "dear diary").unwrap();
    refuses(spec, &["letter.txt"]);
    assert_eq!(fs::read_to_string(letter).unwrap(), "dear diary");
}

#[test]
fn another_list_than_the_cluster_was_born_with_is_refused() {
    let (mut cluster, _) = running("other-list", 3);
    works(&cluster, "before");
    cluster.kill(&[1]).unwrap();
    let mut longer = spec(&mut cluster, 1);
    longer.peers = format!("{},4=127.0.0.1:{}", longer.peers, free_ports(1).unwrap()[0]);
    refuses(longer, &["4"]);
    cluster.start(1).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "after");
}

#[test]
fn a_folder_that_lost_a_part_is_refused_and_the_others_go_on() {
    let (mut cluster, _) = running("torn", 3);
    works(&cluster, "before");
    cluster.kill(&[1, 2]).unwrap();
    let mut parts = 0;
    // Whatever lies in the folder beside the lock is needed: without it, the node does not start.
    let folder = cluster.folder.join("node1");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.to_lowercase().contains("lock") {
            continue;
        }
        let aside = cluster.folder.join("aside");
        fs::rename(&path, &aside).unwrap();
        refuses(spec(&mut cluster, 1), &["node1"]);
        if path.exists() {
            let remove = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            remove.unwrap();
        }
        fs::rename(&aside, &path).unwrap();
        parts += 1;
    }
    assert!(
        parts >= 2,
        "database and mark were expected in {}",
        folder.display()
    );
    cluster.start(2).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "without it");
    cluster.start(1).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "with it");
}
