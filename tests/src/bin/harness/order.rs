//! Messages from three nodes at once: in calm, with the leader killed in the middle, with all killed at once.
//!
//! Each part has a fresh cluster. At its end all nodes are ended in order and started once more, so that every
//! node's replay from its own log is compared with what it delivered live.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::audit::{Audit, Findings};
use tests::cluster::{Cluster, RECOVERY};
use tests::figures::Figures;
use tests::load::{Loader, Pace, Work};
use tests::programs::Programs;

/// So small a part of the messages is on its way at a time that a kill in the middle leaves most to be acknowledged.
fn pace(messages: u64) -> Pace {
    Pace {
        window: usize::try_from(messages / 30)
            .unwrap_or(usize::MAX)
            .clamp(10, 300),
        per_second: 0,
    }
}

/// Who is killed in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    None,
    Leader,
    All,
}

/// True when all figures are as they must be.
pub(crate) fn run(programs: &Programs, messages: u64) -> Result<bool> {
    let mut total = Findings::default();
    let mut clean = true;
    for victims in [Victims::None, Victims::Leader, Victims::All] {
        let title = match victims {
            Victims::None => "nobody is killed",
            Victims::Leader => "the leader is killed with -9 in the middle",
            Victims::All => "all three are killed with -9 in the middle, at once",
        };
        println!("order: {messages} messages from three nodes at once; {title}");
        let mut cluster = Cluster::fresh(programs, "order", 3)?;
        let part = part(&mut cluster, messages, victims);
        let found = match part {
            Ok(found) => found,
            Err(error) => {
                println!("order: {}", cluster.keep_evidence());
                return Err(error);
            }
        };
        println!("order:   {found}");
        // Without a kill there is no excuse for anything but an acknowledgement. With one, what was on its way may
        // be lost; were it more, the test would show little.
        let wanted = if victims == Victims::None {
            messages
        } else {
            messages * 4 / 5
        };
        if found.acks < wanted {
            println!(
                "order:   only {} were acknowledged, and it should be {wanted}",
                found.acks
            );
        }
        if !found.is_clean() || found.acks < wanted {
            println!("order:   {}", cluster.keep_evidence());
        }
        clean &= found.acks >= wanted;
        total.merge(found);
    }
    let mut figures = Figures::new("order", &programs.target());
    total.report(&mut figures);
    figures.at_least("messages", total.sent, "count", 3 * messages);
    figures.at_least(
        "acks",
        total.acks,
        "count",
        messages + 2 * (messages * 4 / 5),
    );
    let ok = figures.write()? && clean;
    println!("order: {}", if ok { "ok" } else { "failed" });
    Ok(ok)
}

fn part(cluster: &mut Cluster, messages: u64, victims: Victims) -> Result<Findings> {
    let mut audit = Audit::default();
    let leader = cluster.start_all()?;
    let ids = cluster.ids();
    let works: BTreeMap<u64, Arc<Work>> = (0..)
        .zip(&ids)
        .map(|(i, id)| {
            (
                *id,
                Work::new(*id, messages / 3 + u64::from(i < messages % 3)),
            )
        })
        .collect();
    let pace = pace(messages);
    let mut loaders = BTreeMap::new();
    for id in &ids {
        loaders.insert(
            *id,
            Loader::start(cluster.node(*id)?, Arc::clone(&works[id]), pace),
        );
    }
    let started = Instant::now();

    let killed = match victims {
        Victims::None => Vec::new(),
        Victims::Leader => vec![leader],
        Victims::All => ids.clone(),
    };
    if !killed.is_empty() {
        let deadline = Instant::now() + limit(messages);
        while works.values().map(|work| work.taken()).sum::<u64>() < messages * 2 / 5 {
            ensure!(
                Instant::now() < deadline,
                "two fifths of the messages were not even sent"
            );
            thread::sleep(Duration::from_millis(1));
        }
        for node in cluster.kill(&killed)? {
            loaders.get_mut(&node.spec.id).context("a loader")?.stop();
            audit.take(node.life(), true);
        }
        println!(
            "order:   killed {killed:?} after {} ms",
            started.elapsed().as_millis()
        );
        if victims == Victims::Leader {
            thread::sleep(Duration::from_millis(700));
        }
        for id in &killed {
            let node = cluster.start(*id)?;
            loaders.insert(*id, Loader::start(node, Arc::clone(&works[id]), pace));
        }
    }

    // A proposal has its outcome within 10 s, so a node that is stuck is found out in a multiple of that.
    let deadline = Instant::now() + limit(messages);
    for (id, loader) in &loaders {
        let node = cluster.node(*id)?;
        while !loader.is_done() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        ensure!(
            loader.is_done(),
            "node {id} did not take all messages in time\n{}",
            node.tail(15)
        );
        let (sent, _) = node.progress();
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_secs(1));
        // What is never answered is a finding, not a failure of the run.
        let _ = node.output.wait(left, |printed| {
            (printed.outcomes.len() >= sent).then_some(())
        });
    }
    drop(loaders);
    println!(
        "order:   all answered after {} ms",
        started.elapsed().as_millis()
    );
    cluster.converge(RECOVERY)?;

    let mut live = BTreeMap::new();
    for life in cluster.terminate()? {
        live.insert(life.name.clone(), life.deliveries.len());
        audit.take(life, false);
    }
    for (name, delivered) in live {
        audit.demand_whole(&name, delivered);
    }
    let whole = audit.history().len();
    cluster.start_all()?;
    for node in cluster.running() {
        // A replay that ends early is a finding, too.
        let _ = node.output.wait(RECOVERY, |printed| {
            (printed.deliveries.len() >= whole).then_some(())
        });
    }
    for life in cluster.terminate()? {
        let (name, delivered) = (life.name.clone(), life.deliveries.len());
        audit.take(life, false);
        audit.demand_whole(&name, delivered);
    }
    Ok(audit.judge())
}

/// How long `messages` may take: far more than they do.
fn limit(messages: u64) -> Duration {
    Duration::from_secs(60 + messages / 100)
}
