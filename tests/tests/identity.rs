//! Folders and processes that are not who they say: each is told so, takes no part, and the others go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tests::cluster::{Cluster, free_ports};
use tests::node::{Node, Spec};

use crate::{WAIT, programs, running, works};

/// Demands that a process that must not take part did not, and ended by itself, if it did, with an error.
fn takes_no_part(node: &Node) {
    std::thread::sleep(Duration::from_millis(500));
    if node.runs() {
        let status = node.status(WAIT).unwrap();
        assert_ne!(status.role, "leader", "{status:?}\n{}", node.tail(20));
        assert_eq!(
            (status.commit, status.applied),
            (0, 0),
            "{status:?}\n{}",
            node.tail(20)
        );
    } else {
        let code = node.wait_exit(WAIT).unwrap().code();
        assert!(
            code.is_some_and(|code| code != 0),
            "{code:?}\n{}",
            node.tail(20)
        );
    }
    assert!(
        node.output.lock().deliveries.is_empty(),
        "{:?}",
        node.output.lock().deliveries
    );
}

fn start(cluster: &Cluster, spec: &Spec, name: &str) -> Arc<Node> {
    let mut spec = spec.clone();
    spec.log = cluster.folder.join(format!("{name}.log"));
    Arc::new(Node::start(&programs(), spec).unwrap())
}

fn listen_elsewhere(spec: &mut Spec) {
    spec.args = vec![
        "--listen".into(),
        format!("127.0.0.1:{}", free_ports(1).unwrap()[0]),
    ];
}

#[test]
fn an_unknown_node_is_refused_on_both_sides() {
    let (mut cluster, _) = running("unknown", 3);
    let mut spec = cluster.spec(1).unwrap().clone();
    let port = free_ports(1).unwrap()[0];
    (spec.id, spec.name) = (4, "n4".into());
    spec.peers = format!("{},4=127.0.0.1:{port}", spec.peers);
    spec.data = cluster.folder.join("node4");
    let stranger = start(&cluster, &spec, "node4");
    stranger
        .logged(&["node 4 is not in", "list of peers"], WAIT)
        .unwrap();
    for node in cluster.running() {
        node.logged(&["node 4 is not in", "list of peers"], WAIT)
            .unwrap();
    }
    takes_no_part(&stranger);
    works(&cluster, "after");
}

#[test]
fn a_wiped_node_is_told_so_and_the_others_go_on() {
    let (mut cluster, leader) = running("wiped", 3);
    works(&cluster, "before");
    cluster.kill(&[leader]).unwrap();
    fs::remove_dir_all(cluster.folder.join(format!("node{leader}"))).unwrap();
    let spec = cluster.spec(leader).unwrap().clone();
    let wiped = start(&cluster, &spec, "wiped");
    wiped
        .logged(
            &[&format!("node {leader} is known by data folder"), "wiped"],
            WAIT,
        )
        .unwrap();
    for node in cluster.running() {
        node.logged(&[&format!("node {leader} is known by data folder")], WAIT)
            .unwrap();
    }
    cluster.wait_leader(WAIT).unwrap();
    takes_no_part(&wiped);
    works(&cluster, "two of three");
}

#[test]
fn all_but_one_wiped_elect_nobody() {
    // Two empty folders must not outvote what the third has committed.
    let (mut cluster, _) = running("two-wiped", 3);
    works(&cluster, "before");
    cluster.kill(&[1, 2, 3]).unwrap();
    for id in [1, 2] {
        fs::remove_dir_all(cluster.folder.join(format!("node{id}"))).unwrap();
    }
    let whole = cluster.start(3).unwrap();
    let wiped: Vec<_> = [1, 2]
        .map(|id| {
            let spec = cluster.spec(id).unwrap().clone();
            start(&cluster, &spec, &format!("wiped{id}"))
        })
        .into();
    for node in &wiped {
        node.logged(&["is known by data folder"], WAIT).unwrap();
    }
    for node in &wiped {
        takes_no_part(node);
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(whole.status(WAIT).unwrap().leader, None);
}

#[test]
fn a_folder_of_another_cluster_is_refused() {
    let (mut other, _) = running("cluster-a", 3);
    works(&other, "of a");
    other.terminate().unwrap();
    let (mut cluster, _) = running("cluster-b", 3);
    works(&cluster, "of b");
    cluster.kill(&[3]).unwrap();
    let mut spec = cluster.spec(3).unwrap().clone();
    spec.data = other.folder.join("node3");
    let stranger = start(&cluster, &spec, "stranger");
    stranger.logged(&["belongs to", "cluster"], WAIT).unwrap();
    for node in cluster.running() {
        node.logged(&["belongs to", "cluster"], WAIT).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    // It may show what it has, and nothing of this cluster.
    assert!(
        stranger
            .output
            .lock()
            .deliveries
            .iter()
            .all(|d| d.text.starts_with("of a"))
    );
    drop(stranger);
    works(&cluster, "two of three");
    cluster.start(3).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "after");
}

#[test]
fn the_same_id_with_another_folder_is_refused() {
    let (mut cluster, _) = running("same-id", 3);
    works(&cluster, "before");
    let mut spec = cluster.spec(3).unwrap().clone();
    spec.data = cluster.folder.join("another");
    listen_elsewhere(&mut spec);
    let second = start(&cluster, &spec, "second");
    second
        .logged(&["node 3 is known by data folder"], WAIT)
        .unwrap();
    takes_no_part(&second);
    works(&cluster, "after");
}

#[test]
fn a_copy_of_a_folder_beside_the_node_is_refused() {
    let (mut cluster, _) = running("copy", 3);
    works(&cluster, "before");
    cluster.kill(&[3]).unwrap();
    let mut spec = cluster.spec(3).unwrap().clone();
    let copied = cluster.folder.join("copy");
    copy(&spec.data, &copied);
    cluster.start(3).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "between");
    spec.data = copied;
    listen_elsewhere(&mut spec);
    let second = start(&cluster, &spec, "second");
    let told = |words: &[&str]| second.logged(words, WAIT);
    told(&["node 3"]).unwrap();
    let log = second.output.lock().log_text();
    std::thread::sleep(Duration::from_millis(500));
    let log = log + &second.output.lock().log_text();
    assert!(
        log.contains("another process runs as node 3") || log.contains("old copy"),
        "{log}"
    );
    // The rightful one, and the cluster, go on.
    works(&cluster, "after");
}

/// The log loses its end between two syncs of the mark, and the mark with it: nothing in the folder shows it.
#[test]
fn a_node_that_lost_what_it_acknowledged_is_told_so_and_the_others_go_on() {
    let (mut cluster, leader) = running("lost-end", 3);
    works(&cluster, "before");
    cluster.converge(WAIT).unwrap();
    let victim = leader % 3 + 1;
    let data = cluster.spec(victim).unwrap().data.clone();
    let (mark, wal) = (data.join("mark"), newest_wal(&data));
    let (old_mark, old_len) = (fs::read(&mark).unwrap(), wal.metadata().unwrap().len());
    works(&cluster, "acknowledged");
    cluster.converge(WAIT).unwrap();
    cluster.kill(&[victim]).unwrap();
    let whole = cluster.folder.join("whole");
    copy(&data, &whole);
    assert_eq!(newest_wal(&data), wal);
    let file = fs::File::options().write(true).open(&wal).unwrap();
    assert!(file.metadata().unwrap().len() > old_len);
    file.set_len(old_len).unwrap();
    fs::write(&mark, old_mark).unwrap();

    let spec = cluster.spec(victim).unwrap().clone();
    let damaged = start(&cluster, &spec, "damaged");
    let lost = [&*format!("node {victim} has acknowledged"), "synced writes"];
    damaged.logged(&lost, WAIT).unwrap();
    assert_eq!(damaged.wait_exit(WAIT).unwrap().code(), Some(2));
    cluster.node(leader).unwrap().logged(&lost, WAIT).unwrap();
    drop(damaged);
    assert_eq!(cluster.wait_leader(WAIT).unwrap(), leader);
    works(&cluster, "two of three");

    // The folder as it was is as good as ever. Who met the damaged one before it ended takes the next start of
    // this one, which has the same number, for a copy; the one after that is newer than both.
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&whole, &data).unwrap();
    cluster.start(victim).unwrap().status(WAIT).unwrap();
    cluster.kill(&[victim]).unwrap();
    cluster.start(victim).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "after");
}

/// The write-ahead log that is being written.
fn newest_wal(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("db")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let wals = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    wals.max().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target)
        } else {
            fs::copy(&path, &target).map(drop).unwrap()
        }
    }
}
