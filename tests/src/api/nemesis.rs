//! What befalls a cluster while clients use it: its leader, mostly, is killed, stopped, or cut off.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use super::cluster::{RECOVERY, Replicas};
use crate::random::Random;

/// A misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// `kill -9`, and a start.
    Kill,
    /// SIGSTOP, and SIGCONT when another leads.
    Pause,
    /// All its wires are cut, and mended when another leads.
    CutOff,
}

impl Blow {
    /// In turn.
    #[must_use]
    pub fn number(n: u64) -> Self {
        match n % 3 {
            0 => Self::Kill,
            1 => Self::Pause,
            _ => Self::CutOff,
        }
    }
}

/// Strikes the leader, waits until another one leads, and repairs. Returns how long the cluster was without.
pub fn strike_leader(replicas: &Replicas, blow: Blow, random: &mut Random) -> Result<Duration> {
    let leader = replicas.wait_leader(RECOVERY)?;
    // Not always right behind an election.
    thread::sleep(Duration::from_millis(random.below(150)));
    let struck = Instant::now();
    strike(replicas, leader, blow)?;
    let others = || replicas.leader(Some(leader)).filter(|next| *next != leader);
    let next = replicas.wait(RECOVERY, "another leader", others);
    let without = struck.elapsed();
    // What the old one does when it is back, beside clients that go on, is of interest too.
    thread::sleep(Duration::from_millis(random.below(300)));
    repair(replicas, leader, blow)?;
    next.map(|_| without)
}

/// Strikes node `id`.
pub fn strike(replicas: &Replicas, id: u64, blow: Blow) -> Result<()> {
    match blow {
        Blow::Kill => replicas.kill(id),
        Blow::Pause => replicas.signal(id, Signal::STOP),
        Blow::CutOff => {
            replicas.cut_off(id);
            Ok(())
        }
    }
}

/// Repairs what [`strike`] did.
pub fn repair(replicas: &Replicas, id: u64, blow: Blow) -> Result<()> {
    match blow {
        Blow::Kill => replicas.start(id),
        Blow::Pause => replicas.signal(id, Signal::CONT),
        Blow::CutOff => {
            replicas.mend();
            Ok(())
        }
    }
}
