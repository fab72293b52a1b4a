//! Strangers, broken members and crowds, against three real processes under load: each is refused by its name and
//! counted, nothing of it reaches the protocol, and the leader stays.
//!
//! The figures, all of the whole run where nothing else is said:
//! - `hostile_refused`: of all that was sent, what was counted under the name that it must have.
//! - `hostile_in_core`: messages that the protocol took in from the node whose identity was borrowed.
//! - `hostile_elections`: leaders that anybody learned of after the first, and terms that anybody entered.
//! - `hostile_connection_memory`: of a connection in the middle of its handshake, as the kernel counts the process.
//! - `hostile_crowd_latency`: the median of a commit while ten thousand strangers come, of that when none does.
//! - `hostile_slow_cut`: the longest time that one byte a second was suffered.
//! - `hostile_hung_memory`: what the leader takes more when a peer reads nothing.
//!
//! And those of `hostile_tls`, of three nodes with mutual TLS (`tls.rs`).

mod cases;
mod crowd;
mod forge;
mod hung;
mod load;
mod members;
mod scene;
mod strangers;
mod tls;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::api::cluster::{RECOVERY, Replicas, Seat};

use crate::report::Report;
use crowd::Crowd;
use forge::{frame, kind};
use load::{Pace, proposing};
use scene::{BORROWED, Scene, counted};

/// What goes on while strangers and members are tried.
const PACE: Pace = Pace {
    threads: 4,
    pause: Duration::from_millis(2),
    bytes: 256,
};
/// How often each is sent.
const TIMES: u64 = 100;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let dir = report.dir().join("cluster");
    let replicas = Replicas::at(&report.programs, &dir, &[], Seat::local(3)?)?;
    replicas.start_all()?;
    let leader = lead_by_other(&replicas)?;
    let reign = Reign::of(&replicas)?;
    let half = frame(0, kind::HELLO, 4_072, &[0xc0; 4_000]);
    let crowd = Crowd {
        name: "hostile",
        held: &half,
        attempts: &|number| &b"rAFt"[number % 4..][..1],
    };
    crowd.memory(report, &replicas, leader)?;
    crowd::slow(report, &replicas)?;
    crowd.flood(report, &replicas)?;
    reign.judge(report, &replicas, "hostile_crowd_elections")?;

    let scene = Scene::borrow(&replicas)?;
    for node in scene.nodes() {
        // From now on this program is that node, to all of them.
        drop(scene.established(node, forge::kind::HELLO)?);
    }
    let reign = Reign::of(&replicas)?;
    let nodes = scene.nodes();
    let (tried, seen) = proposing(&replicas, &nodes, PACE, || try_all(report, &scene));
    let (refused, sent) = tried?;
    report.say(&format!(
        "{} proposals were committed meanwhile",
        seen.answered
    ));
    report
        .figures
        .exactly("hostile_failed_proposals", seen.failed, "count", 0);
    report
        .figures
        .exactly("hostile_refused", refused, "count", sent);
    reign.judge(report, &replicas, "hostile_elections")?;

    let reign = Reign::of(&replicas)?;
    hung::run(report, &scene)?;
    reign.judge(report, &replicas, "hostile_hung_elections")?;
    survivors(report, &replicas, &nodes, "hostile_hurt")?;
    drop(scene);
    drop(replicas);
    tls::run(report)
}

/// Sends everything; says how much of it was refused by its name, and how much was sent.
fn try_all(report: &mut Report, scene: &Scene<'_>) -> Result<(u64, u64)> {
    let name = format!("raft_peer_messages_total{{peer=\"{BORROWED}\"}}");
    let (mut refused, mut sent) = (0, 0);
    let before = counted(scene.replicas, &name)?;
    for case in strangers::CASES.iter().chain(members::CASES) {
        refused += case.run(scene, report, TIMES)?;
        sent += TIMES;
    }
    let in_core = counted(scene.replicas, &name)? - before;
    report
        .figures
        .exactly("hostile_in_core", in_core, "count", 0);
    Ok((refused, sent))
}

/// Waits until another node leads than the one whose identity will be borrowed.
fn lead_by_other(replicas: &Replicas) -> Result<u64> {
    let leader = replicas.wait_leader(RECOVERY)?;
    if leader != BORROWED {
        return Ok(leader);
    }
    replicas.kill(BORROWED)?;
    replicas.wait(RECOVERY, "another leader", || {
        replicas.leader(Some(BORROWED))
    })?;
    replicas.start(BORROWED)?;
    let leader = replicas.wait(RECOVERY, "all to follow it", || {
        let leader = replicas.leader(None)?;
        let follows = replicas.status(BORROWED).ok()?.leader == Some(leader);
        (follows && leader != BORROWED).then_some(leader)
    });
    leader.context("node 3 leads again")
}

/// Who led, before something was tried.
struct Reign {
    terms: Vec<(u64, u64)>,
    changes: u64,
}

impl Reign {
    fn of(replicas: &Replicas) -> Result<Self> {
        let mut terms = Vec::new();
        for id in replicas.ids().filter(|id| replicas.pid(*id).is_ok()) {
            terms.push((id, replicas.status(id)?.term));
        }
        Ok(Self {
            terms,
            changes: counted(replicas, "raft_leader_changes_total")?,
        })
    }

    /// Whether all is as it was.
    fn judge(self, report: &mut Report, replicas: &Replicas, name: &str) -> Result<()> {
        let mut elections = counted(replicas, "raft_leader_changes_total")? - self.changes;
        for (id, term) in self.terms {
            elections += replicas.status(id)?.term - term;
        }
        report.figures.exactly(name, elections, "count", 0);
        Ok(())
    }
}

/// The nodes are what they were: no process has ended, none has failed, nothing has panicked.
fn survivors(report: &mut Report, replicas: &Replicas, nodes: &[u64], figure: &str) -> Result<()> {
    let mut hurt = 0;
    for id in nodes {
        let status = replicas.status(*id)?;
        if let Some(failure) = status.failure {
            report.fault(&format!("node {id} has failed: {failure}"));
            hurt += 1;
        }
        let log = replicas.folder.join(format!("node{id}.log"));
        let log = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        let panics = log.lines().filter(|line| line.contains("panicked")).count();
        if panics > 0 {
            report.fault(&format!("node {id}'s log tells of {panics} panics"));
            hurt += 1;
        }
    }
    let stopped = replicas.ids().find(|id| !nodes.contains(id));
    ensure!(replicas.leader(stopped).is_some(), "nobody leads");
    report.figures.exactly(figure, hurt, "count", 0);
    Ok(())
}
