//! Several nodes with ports and folders of their own.
//!
//! The cluster's folder is removed when all went well, and kept, and named, when something did not.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::node::{Life, Node, Spec};
use crate::output::Status;
use crate::programs::Programs;
use crate::random::{Random, fresh_seed};

/// How long a node may take for what it does at once.
pub const SOON: Duration = Duration::from_secs(10);

/// How long a cluster may take to find itself: elections, redials, replay.
pub const RECOVERY: Duration = Duration::from_secs(20);

/// Nodes that run, or did, or will.
#[derive(Debug)]
pub struct Cluster {
    /// The folder of all: `nodeN` is the data of node N, `nodeN.log` its standard error.
    pub folder: PathBuf,
    programs: Programs,
    specs: BTreeMap<u64, Spec>,
    nodes: BTreeMap<u64, Arc<Node>>,
    keep: bool,
}

impl Cluster {
    /// A cluster of `count` nodes in an empty folder, none of them started.
    pub fn new(programs: &Programs, folder: &Path, ports: &[u16]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let peers: Vec<_> = (1..)
            .zip(ports)
            .map(|(id, port)| format!("{id}=127.0.0.1:{port}"))
            .collect();
        let peers = peers.join(",");
        let spec = |id: u64| Spec {
            id,
            name: format!("n{id}"),
            peers: peers.clone(),
            at: None,
            data: folder.join(format!("node{id}")),
            args: Vec::new(),
            log: folder.join(format!("node{id}.log")),
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            programs: programs.clone(),
            specs: (1..=ports.len() as u64).map(|id| (id, spec(id))).collect(),
            nodes: BTreeMap::new(),
            keep: false,
        })
    }

    /// A cluster of `count` nodes with free ports and a new folder in the target folder.
    pub fn fresh(programs: &Programs, name: &str, count: usize) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let runs = programs.target().join("harness");
        let folder = runs.join(format!("{name}-{}-{number}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        Self::new(programs, &folder, &free_ports(count)?)
    }

    /// How node `id` is started; it can be changed until it is.
    pub fn spec(&mut self, id: u64) -> Result<&mut Spec> {
        self.specs
            .get_mut(&id)
            .with_context(|| format!("there is no node {id}"))
    }

    /// The ids of all nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.specs.keys().copied().collect()
    }

    /// Starts node `id`.
    pub fn start(&mut self, id: u64) -> Result<Arc<Node>> {
        let spec = self.spec(id)?.clone();
        let node = Arc::new(Node::start(&self.programs, spec)?);
        self.nodes.insert(id, Arc::clone(&node));
        Ok(node)
    }

    /// Starts all nodes and waits until one leads all of them.
    pub fn start_all(&mut self) -> Result<u64> {
        for id in self.ids() {
            self.start(id)?;
        }
        self.wait_leader(RECOVERY)
    }

    /// The running node `id`.
    pub fn node(&self, id: u64) -> Result<Arc<Node>> {
        self.nodes
            .get(&id)
            .cloned()
            .with_context(|| format!("node {id} is not running"))
    }

    /// The nodes that run, in the order of their ids.
    #[must_use]
    pub fn running(&self) -> Vec<Arc<Node>> {
        self.nodes.values().cloned().collect()
    }

    /// Kills nodes with -9, all at once, and returns them, ended: what is known of their lives can be had when
    /// nobody feeds them any more.
    pub fn kill(&mut self, ids: &[u64]) -> Result<Vec<Arc<Node>>> {
        let nodes: Vec<_> = ids.iter().map(|id| self.node(*id)).collect::<Result<_>>()?;
        for node in &nodes {
            node.kill();
        }
        for node in &nodes {
            node.wait_exit(SOON)?;
            self.nodes.remove(&node.spec.id);
        }
        Ok(nodes)
    }

    /// Ends all nodes with SIGTERM and demands exit code 0 of each.
    pub fn terminate(&mut self) -> Result<Vec<Life>> {
        for node in self.nodes.values() {
            node.signal(rustix::process::Signal::TERM);
        }
        let mut lives = Vec::new();
        for (id, node) in std::mem::take(&mut self.nodes) {
            let status = node.wait_exit(RECOVERY)?;
            ensure!(
                status.code() == Some(0),
                "node {id} was asked to end and did with {status}\n{}",
                node.tail(15)
            );
            lives.push(node.life());
        }
        Ok(lives)
    }

    /// Waits until every running node takes part and knows one leader, the same, in one term, which says so
    /// itself, and returns it.
    pub fn wait_leader(&self, timeout: Duration) -> Result<u64> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut statuses = Vec::new();
            for node in self.nodes.values() {
                let left = deadline.saturating_duration_since(Instant::now());
                statuses.push(node.status(left.max(Duration::from_secs(1)))?);
            }
            if let Some(leader) = agreed(&statuses) {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                let states: Vec<_> = statuses.iter().map(|s| format!("  {s:?}")).collect();
                let tails: Vec<_> = self
                    .nodes
                    .values()
                    .map(|n| format!("node {}:\n{}", n.spec.id, n.tail(10)))
                    .collect();
                bail!(
                    "waited {timeout:?} in vain for one leader of all:\n{}\n{}",
                    states.join("\n"),
                    tails.join("\n")
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until every running node has delivered as much as the one that delivered most, and nothing more has
    /// come for a moment.
    pub fn converge(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let counts = || -> Vec<usize> {
            self.nodes
                .values()
                .map(|node| node.output.lock().deliveries.len())
                .collect()
        };
        let mut same_since = Instant::now();
        let mut before = counts();
        loop {
            thread::sleep(Duration::from_millis(20));
            let now = counts();
            if now != before {
                same_since = Instant::now();
                before = now;
            } else if before.iter().all(|n| Some(n) == before.first())
                && same_since.elapsed() > Duration::from_millis(300)
            {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "waited {timeout:?} in vain for all nodes to deliver as much as each other: they delivered {before:?}"
            );
        }
    }

    /// Keeps the folder, with each node's status in it, for somebody to look at; returns a sentence that names it.
    pub fn keep_evidence(&mut self) -> String {
        self.keep = true;
        for node in self.nodes.values() {
            let status = match node.status(Duration::from_secs(2)) {
                Ok(_) => {
                    let printed = node.output.lock();
                    printed
                        .statuses
                        .back()
                        .map_or_else(String::new, |(_, line)| line.clone() + "\n")
                }
                Err(error) => format!("{error:#}\n"),
            };
            // Evidence is best effort: the failure itself is what counts.
            let _ = fs::write(
                self.folder.join(format!("node{}.status", node.spec.id)),
                status,
            );
        }
        format!(
            "logs, states and data of all nodes are in {}",
            self.folder.display()
        )
    }

    /// Leaves the folder where it is.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        if thread::panicking() {
            eprintln!(
                "harness: logs and data of the nodes are in {}",
                self.folder.display()
            );
        } else if !self.keep {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The leader, if all agree on it.
fn agreed(statuses: &[Status]) -> Option<u64> {
    let first = statuses.first()?;
    let leader = first.leader?;
    let same =
        |s: &Status| s.leader == Some(leader) && s.term == first.term && s.phase == "running";
    // With the leader's process dead, others may name it for a while.
    let says_so = statuses
        .iter()
        .any(|s| s.id == leader && s.role == "leader");
    (statuses.iter().all(same) && says_so).then_some(leader)
}

/// Ports that nobody listens on.
///
/// Not by binding port 0: the kernel takes those from the range from which it also takes the source ports of
/// connections, and while a node is down, another that dials it can be given the very port that it dials (TCP's
/// simultaneous open: it is then connected with itself, and the node cannot come back).
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Below 32768, where Linux's range of source ports begins.
    const FIRST: u64 = 10_000;
    const RANGE: u64 = 22_000;
    let start = Random::new(u64::from(std::process::id()) ^ fresh_seed()).below(RANGE);
    let _ = NEXT.compare_exchange(0, start + 1, Ordering::Relaxed, Ordering::Relaxed);
    let mut ports = Vec::new();
    for _ in 0..RANGE {
        if ports.len() == count {
            return Ok(ports);
        }
        let next = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % RANGE;
        let port = u16::try_from(next).context("a port")?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    bail!("no {count} free ports from {FIRST} to {}", FIRST + RANGE)
}
