//! A conversation of three nodes, told as a story: messages from all three, kill -9 of the leader, more messages,
//! its restart, and the histories of all three.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::cluster::{Cluster, RECOVERY, SOON};
use tests::output::Delivery;
use tests::programs::Programs;

const NAMES: [&str; 3] = ["ann", "bob", "cleo"];

const BEFORE: [(u64, &str); 6] = [
    (1, "hello, is anybody there?"),
    (
        2,
        "I am. Every line here is on three disks before you read it",
    ),
    (3, "and in the same order for all of us"),
    (1, "who decides the order?"),
    (2, "whoever leads. Right now"),
    (3, "somebody is about to pull a plug"),
];
const DURING: [&str; 3] = [
    "did you hear that?",
    "two of three are enough",
    "so we go on",
];
const AFTER: [&str; 3] = [
    "I am back. What did I miss?",
    "nothing: you have it all from the log",
    "good",
];

/// True when the three histories are equal, and complete.
pub(crate) fn run(programs: &Programs, port: u16, data: Option<PathBuf>) -> Result<bool> {
    let folder = match data {
        Some(folder) => {
            let mut entries = fs::read_dir(&folder).into_iter().flatten();
            ensure!(
                entries.next().is_none(),
                "{} is not empty: it must be, or not be there",
                folder.display()
            );
            folder
        }
        None => {
            let folder = programs.target().join("demo").join("script");
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("cannot empty {}", folder.display()))?;
            }
            folder
        }
    };
    let mut cluster = Cluster::new(programs, &folder, &[port, port + 1, port + 2])?;
    cluster.keep();
    let told = tell(&mut cluster, port);
    if told.is_err() {
        println!("demo: failed; {}", cluster.keep_evidence());
    }
    told
}

fn tell(cluster: &mut Cluster, port: u16) -> Result<bool> {
    for (id, name) in (1..).zip(NAMES) {
        cluster.spec(id)?.name = name.to_owned();
    }
    println!(
        "demo: three processes, ports {port} to {}, data in {}",
        port + 2,
        cluster.folder.display()
    );
    let leader = cluster.start_all()?;
    println!("demo: {} (node {leader}) is elected", name(leader));
    let mut said = Vec::new();
    for (id, text) in BEFORE {
        say(cluster, id, text, &mut said)?;
    }

    println!(
        "demo: kill -9 of {} (node {leader}), who leads",
        name(leader)
    );
    let killed = cluster.kill(&[leader])?;
    let started = Instant::now();
    let next = cluster.wait_leader(RECOVERY)?;
    println!(
        "demo: {} (node {next}) is elected, {} ms later",
        name(next),
        started.elapsed().as_millis()
    );
    let alive: Vec<u64> = cluster
        .ids()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    for (text, id) in DURING.iter().zip(alive.iter().cycle()) {
        say(cluster, *id, text, &mut said)?;
    }

    cluster.start(leader)?;
    cluster.wait_leader(RECOVERY)?;
    wait_for_all(cluster, said.len())?;
    println!(
        "demo: {} (node {leader}) is back, and has all {} messages",
        name(leader),
        said.len()
    );
    for (text, id) in AFTER.iter().zip([leader, alive[0], leader]) {
        say(cluster, id, text, &mut said)?;
    }
    wait_for_all(cluster, said.len())?;

    let mut ok = true;
    for node in cluster.running() {
        let history = node.output.lock().deliveries.clone();
        let id = node.spec.id;
        println!(
            "demo: node {id} ({}): {} messages, digest {:016x}",
            name(id),
            history.len(),
            digest(&history)
        );
        for (at, wanted) in said.iter().enumerate() {
            if history.get(at) != Some(wanted) {
                println!(
                    "demo: node {id}: {:?} where {wanted:?} was said",
                    history.get(at)
                );
                ok = false;
            }
        }
        if history.len() > said.len() {
            println!(
                "demo: node {id}: more than was said: {:?}",
                &history[said.len()..]
            );
            ok = false;
        }
    }
    for life in killed.iter().map(|node| node.life()) {
        if !said.starts_with(&life.deliveries) {
            println!(
                "demo: before it was killed, node {leader} delivered {:?}",
                life.deliveries
            );
            ok = false;
        }
    }
    cluster.terminate()?;
    println!("demo: {}", if ok { "ok" } else { "the histories differ" });
    Ok(ok)
}

fn say(cluster: &Cluster, id: u64, text: &str, said: &mut Vec<Delivery>) -> Result<()> {
    let index = cluster.node(id)?.say(text, SOON + SOON)?;
    println!("  {index:>4}  {:<5} {text}", name(id));
    said.push(Delivery {
        index,
        from: name(id).to_owned(),
        text: text.to_owned(),
    });
    Ok(())
}

fn wait_for_all(cluster: &Cluster, count: usize) -> Result<()> {
    for node in cluster.running() {
        let what = format!("{count} deliveries");
        node.wait(RECOVERY, &what, |printed| {
            (printed.deliveries.len() >= count).then_some(())
        })?;
    }
    // What should not come would come now.
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}

fn name(id: u64) -> &'static str {
    usize::try_from(id)
        .ok()
        .and_then(|id| NAMES.get(id.wrapping_sub(1)))
        .copied()
        .unwrap_or("nobody")
}

/// FNV-1a over all lines: for eyes; what decides is the comparison.
fn digest(history: &[Delivery]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for Delivery { index, from, text } in history {
        for byte in format!("{index}\t{from}\t{text}\n").bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
