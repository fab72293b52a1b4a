//! What a long log costs: to read it again, to start with it, to write on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::plan::PAYLOAD;
use super::ratios::{LENGTH_RATIO, REPLAY_PER_S, RESTART_S, median};
use crate::cluster::{Cluster, Place, Shape};
use crate::protocol::{Load, Operation};

/// So often each is done.
const TIMES: usize = 3;

/// A cluster that never takes a snapshot.
fn shape(tally: bool) -> Shape {
    Shape {
        nodes: 3,
        outside: false,
        memory: false,
        apart: None,
        tls: false,
        subscribers: usize::from(!tally),
        tally,
        here: false,
        sync_inline: None,
    }
}

fn load(clients: usize, warm_up_ms: u64, window_ms: u64) -> Load {
    Load {
        node: 0,
        operation: Operation::Propose,
        clients,
        in_flight: 1,
        rate: None,
        payload: PAYLOAD,
        warm_up_ms,
        window_ms,
    }
}

/// Proposes until so many are committed, and a few more.
fn fill(cluster: &mut Cluster, entries: u64) -> Result<()> {
    while cluster.committed() < entries {
        cluster.measure(Place::Leader, load(2_048, 0, 500))?;
    }
    Ok(())
}

/// How fast a new subscriber is handed the log from the disk, and how long a node that was killed takes until its state
/// machine, which has no snapshot, has applied all of it again.
pub(super) fn replay_and_restart(entries: u64, data: &Path) -> Result<BTreeMap<String, f64>> {
    let mut cluster = Cluster::start(shape(true), data)?;
    fill(&mut cluster, entries)?;
    let mut replays = Vec::new();
    let mut restarts = Vec::new();
    for _ in 0..TIMES {
        let replayed = cluster.replay(Place::Follower)?;
        println!(
            "           replay: {} deliveries in {:.2} s",
            replayed.deliveries, replayed.seconds
        );
        replays.push(replayed.deliveries as f64 / replayed.seconds);
        let (took, applied) = cluster.restart_follower()?;
        // By the entry: there may be a few more than were asked for.
        let seconds = took.as_secs_f64() * entries as f64 / applied as f64;
        println!("           restart with {applied} entries: {took:.2?}");
        restarts.push(seconds);
    }
    cluster.end()?;
    let medians = [(REPLAY_PER_S, replays), (RESTART_S, restarts)];
    let medians = medians.map(|(name, values)| (name.to_owned(), median(values)));
    Ok(medians
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect())
}

/// Throughput with a log of `long` entries, for each that there is with one of `short`.
pub(super) fn lengths(
    short: u64,
    long: u64,
    window_ms: u64,
    data: &Path,
) -> Result<BTreeMap<String, f64>> {
    let mut big = Cluster::start(shape(false), data)?;
    fill(&mut big, long)?;
    let mut ratios = Vec::new();
    for _ in 0..TIMES {
        let mut small = Cluster::start(shape(false), data)?;
        fill(&mut small, short)?;
        let load = load(1_024, 1_000, window_ms);
        let with_short = small.measure(Place::Leader, load)?.commits_per_s;
        let with_long = big.measure(Place::Leader, load)?.commits_per_s;
        println!("           {with_short}/s with {short} entries, {with_long}/s with {long}");
        ratios.push(with_long as f64 / with_short as f64);
        small.end()?;
        // What one has left to do must not fall on the other.
        std::thread::sleep(Duration::from_secs(1));
    }
    big.end()?;
    let ratio = median(ratios).map(|ratio| (LENGTH_RATIO.to_owned(), ratio));
    Ok(ratio.into_iter().collect())
}
