//! The others: one small module for each, behind one trait.
//!
//! The runner starts a peer's servers; then, for each number of clients, `load` processes, which speak to them. A
//! system that is a library has no servers: it lives in the load processes, one for each of its members.

#[cfg(feature = "d-engine")]
mod d_engine;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "openraft")]
mod openraft;
#[cfg(feature = "redis")]
mod redis;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::load::{Counted, Load, Measured};
use crate::process::{Interrupted, Process};

/// How long servers may take to listen, or a cluster to have a leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a peer runs.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// For data, configuration and logs; on the disk that is measured.
    pub(crate) folder: PathBuf,
    /// As many as the peer asked for, free when they were looked for.
    pub(crate) ports: Vec<u16>,
    /// Seen by whoever waits.
    pub(crate) interrupted: Interrupted,
}

/// What a load process is told.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "d-engine"),
    expect(dead_code, reason = "only a member has a folder")
)]
pub(crate) struct Stage {
    pub(crate) folder: PathBuf,
    pub(crate) ports: Vec<u16>,
    /// Which of the members this process is, from 0.
    pub(crate) member: usize,
    pub(crate) load: Load,
    pub(crate) counted: Counted,
}

/// What a load comes to. A member that does not lead has only to be there, and comes to nothing.
pub(crate) type Outcome<'a> = Pin<Box<dyn Future<Output = Result<Measured>> + 'a>>;

/// One system beside ours.
pub(crate) trait Peer: Sync {
    /// Its name in tables and figures.
    fn name(&self) -> &'static str;

    /// What it is and how it is run, in a line.
    fn what(&self) -> String;

    /// What differs from ours, in a line.
    fn differs(&self) -> &'static str;

    /// The program that must be there. None: a library, which is linked in.
    fn program(&self) -> Option<&'static str>;

    /// How many ports it needs.
    fn ports(&self) -> usize;

    /// Starts its servers, and waits until they listen.
    fn start(&self, ground: &Ground) -> Result<Vec<Process>>;

    /// How many load processes there are: one, or one for each member that lives in them.
    fn members(&self) -> usize {
        1
    }

    /// Puts the load on the system, from within a load process.
    fn load<'a>(&'a self, stage: &'a Stage) -> Outcome<'a>;
}

/// All that this program was built with, in the order in which they are measured.
pub(crate) fn all() -> Vec<&'static dyn Peer> {
    vec![
        #[cfg(feature = "etcd")]
        &etcd::Etcd,
        #[cfg(feature = "nats")]
        &nats::Nats { sync: true },
        #[cfg(feature = "nats")]
        &nats::Nats { sync: false },
        #[cfg(feature = "redis")]
        &redis::Redis { pipeline: 1 },
        #[cfg(feature = "redis")]
        &redis::Redis { pipeline: 64 },
        #[cfg(feature = "d-engine")]
        &d_engine::DEngine,
        #[cfg(feature = "openraft")]
        &openraft::Openraft,
    ]
}

/// Every name that there can be, so that what this program was built without is skipped by name.
pub(crate) const NAMES: [&str; 7] = [
    "etcd",
    "nats",
    "nats_no_fsync",
    "redis",
    "redis_pipelined",
    "d_engine",
    "openraft_memory",
];

/// The peer of that name.
pub(crate) fn named(name: &str) -> Result<&'static dyn Peer> {
    let found = all().into_iter().find(|peer| peer.name() == name);
    found.with_context(|| format!("no peer {name}; there are {}", NAMES.join(", ")))
}

/// Whether a program can be run.
pub(crate) fn is_here(program: &str) -> bool {
    version(program).is_ok()
}

/// What a program says when it is asked `--version`: the first line that holds a digit, in the words from there on.
fn version(program: &str) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} --version failed");
    Ok(
        version_in(&String::from_utf8_lossy(&output.stdout))
            .unwrap_or_else(|| "unknown".to_owned()),
    )
}

/// The first word of the shape `1.2…`, without what is around it.
fn version_in(text: &str) -> Option<String> {
    text.split_whitespace()
        .map(|word| word.trim_start_matches("v=").trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(|word| word.trim_end_matches([',', ';']).to_owned())
}

/// The version of a crate that this program is linked with.
#[cfg(any(feature = "openraft", feature = "d-engine"))]
fn locked_version(krate: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{krate}\"");
    lock.lines()
        .skip_while(|line| *line != name)
        .find_map(|line| line.strip_prefix("version = \""))
        .map_or("unknown", |rest| rest.trim_end_matches('"'))
}

/// Asks again and again until there is an answer, or patience is over.
async fn until<T, F: Future<Output = Result<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let error = match tokio::time::timeout_at(deadline, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => bail!("{what}: no answer within {PATIENCE:?}"),
        };
        if tokio::time::Instant::now() + Duration::from_millis(50) > deadline {
            return Err(error).with_context(|| format!("{what}: not within {PATIENCE:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_its_name() {
        for peer in all() {
            assert!(NAMES.contains(&peer.name()), "{}", peer.name());
            assert_eq!(named(peer.name()).unwrap().name(), peer.name());
        }
        assert!(named("zookeeper").is_err());
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let etcd = "etcd Version: 3.4.23\nGit SHA: Not provided\nGo Version: go1.19.8\n";
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1\n";
        assert_eq!(version_in(etcd).as_deref(), Some("3.4.23"));
        assert_eq!(version_in(redis).as_deref(), Some("7.0.15"));
        assert_eq!(
            version_in("nats-server: v2.15.1\n").as_deref(),
            Some("2.15.1")
        );
        assert_eq!(version_in("no number here\n"), None);
    }

    #[cfg(feature = "openraft")]
    #[test]
    fn a_crates_version_is_the_locked_one() {
        assert!(locked_version("openraft").starts_with("0.10."));
        assert_eq!(locked_version("no-such-crate"), "unknown");
    }
}
