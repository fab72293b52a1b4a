//! Replicas, each asked over a connection that nothing cuts: with wires between them, or without.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::client::Link;
use super::proxy::Wire;
use super::wire::Status;
use crate::cluster::free_ports;
use crate::programs::{Programs, spawn};

/// How long a cluster may take to find itself again.
pub const RECOVERY: Duration = Duration::from_secs(30);

/// Three replicas; the nodes' ids are their places, from 1 up.
#[derive(Debug)]
pub struct Replicas {
    /// Of all: `nodeN` is the data of node N, `nodeN.log` its standard error.
    pub folder: PathBuf,
    /// To each, in the order of their ids.
    pub links: Vec<Link>,
    programs: Programs,
    args: Vec<String>,
    seats: Vec<Seat>,
    /// From each to each other, if there are wires.
    wires: Vec<(u64, u64, Wire)>,
    processes: Vec<Mutex<Option<Child>>>,
}

/// Where a replica is.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Where it listens for the others.
    pub address: SocketAddr,
    /// Where it is asked.
    pub control: SocketAddr,
    /// The network namespace that its process is in, if that is not this one.
    pub namespace: Option<String>,
}

impl Seat {
    /// So many on loopback.
    pub fn local(count: usize) -> Result<Vec<Self>> {
        let ports = free_ports(2 * count)?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let seat = |two: &[u16]| Self {
            address: local(two[0]),
            control: local(two[1]),
            namespace: None,
        };
        Ok(ports.chunks(2).map(seat).collect())
    }
}

impl Replicas {
    /// Three of them in an empty `folder`, with wires between them, none started; each will be given `args`.
    pub fn new(programs: &Programs, folder: &Path, args: &[&str]) -> Result<Self> {
        let mut replicas = Self::at(programs, folder, args, Seat::local(3)?)?;
        let pairs = replicas.ids().flat_map(|from| {
            let others = replicas.ids().filter(move |to| *to != from);
            others.map(move |to| (from, to))
        });
        let pairs: Vec<_> = pairs.collect();
        for ((from, to), via) in pairs.iter().zip(free_ports(pairs.len())?) {
            let wire = Wire::new(via, replicas.seat(*to).address)?;
            replicas.wires.push((*from, *to, wire));
        }
        Ok(replicas)
    }

    /// One on each of `seats`, in an empty `folder`, which reach each other without wires.
    pub fn at(programs: &Programs, folder: &Path, args: &[&str], seats: Vec<Seat>) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            links: seats.iter().map(|seat| Link::new(seat.control)).collect(),
            programs: programs.clone(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            wires: Vec::new(),
            processes: seats.iter().map(|_| Mutex::new(None)).collect(),
            seats,
        })
    }

    /// The ids.
    #[must_use]
    pub fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.seats.len() as u64
    }

    /// Where node `id` is.
    #[must_use]
    pub fn seat(&self, id: u64) -> &Seat {
        &self.seats[id as usize - 1]
    }

    /// To node `id`.
    #[must_use]
    pub fn link(&self, id: u64) -> &Link {
        &self.links[id as usize - 1]
    }

    /// Starts all and waits until one leads.
    pub fn start_all(&self) -> Result<u64> {
        for id in self.ids() {
            self.start(id)?;
        }
        self.wait_leader(RECOVERY)
    }

    /// Starts node `id`, which does not run.
    pub fn start(&self, id: u64) -> Result<()> {
        let seat = self.seat(id);
        let peers: Vec<_> = self
            .ids()
            .map(|to| {
                let wire = self.wires.iter().find(|(f, t, _)| (*f, *t) == (id, to));
                let address = wire.map_or(self.seat(to).address, |(.., wire)| wire.address);
                format!("{to}={address}")
            })
            .collect();
        let log = self.folder.join(format!("node{id}.log"));
        let log = File::options().create(true).append(true).open(&log);
        let log = log.context("open a node's log")?;
        // What stands for the node is the program beside the guard.
        let (programs, namespace) = (&self.programs, seat.namespace.as_deref());
        let mut command = programs.guarded_in(namespace, &programs.demo_chat);
        command
            .args(["--id", &id.to_string(), "--peers", &peers.join(",")])
            .arg("--data")
            .arg(self.folder.join(format!("node{id}")))
            .args(["--control", &seat.control.to_string()])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if !self.wires.is_empty() {
            // Nobody listens there. Else the others would go around a wire that is cut.
            command.args(["--advertise", "127.0.0.1:1"]);
        }
        let child = spawn(command)?;
        let before = self.process(id).replace(child);
        ensure!(before.is_none(), "node {id} ran already");
        Ok(())
    }

    fn process(&self, id: u64) -> MutexGuard<'_, Option<Child>> {
        let process = &self.processes[id as usize - 1];
        process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process of node `id`.
    pub fn pid(&self, id: u64) -> Result<i32> {
        let pid = self.process(id).as_ref().map(Child::id);
        let pid = pid.with_context(|| format!("node {id} does not run"))?;
        i32::try_from(pid).context("a process id")
    }

    /// Sends node `id` a signal.
    pub fn signal(&self, id: u64, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid(id)?).context("a process id")?;
        kill_process(pid, signal).with_context(|| format!("signal node {id}"))
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&self, id: u64) -> Result<()> {
        self.signal(id, Signal::KILL)?;
        let child = self.process(id).take();
        if let Some(mut child) = child {
            child.wait().context("wait for a killed process")?;
        }
        Ok(())
    }

    /// Waits until node `id` has ended by itself.
    pub fn wait_exit(&self, id: u64, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let mut process = self.process(id);
            let child = process.as_mut().context("it does not run")?;
            if let Some(status) = child.try_wait().context("wait for a process")? {
                *process = None;
                return Ok(status);
            }
            drop(process);
            thread::sleep(Duration::from_millis(5));
        }
        bail!("waited {timeout:?} in vain for the end of node {id}")
    }

    /// Cuts all wires between node `id` and the others.
    pub fn cut_off(&self, id: u64) {
        let of_it = |wire: &&(u64, u64, Wire)| wire.0 == id || wire.1 == id;
        self.wires
            .iter()
            .filter(of_it)
            .for_each(|wire| wire.2.cut());
    }

    /// Mends all wires.
    pub fn mend(&self) {
        self.wires.iter().for_each(|wire| wire.2.mend());
    }

    /// Who leads, in the eyes of most of those that answer; those in `but` are not asked.
    #[must_use]
    pub fn leader(&self, but: Option<u64>) -> Option<u64> {
        let mut says_so = None;
        let mut known = Vec::new();
        for id in self.ids().filter(|id| Some(*id) != but) {
            let Ok(status) = self.link(id).status() else {
                continue;
            };
            if status.is_leader && says_so.is_none_or(|(term, _)| status.term > term) {
                says_so = Some((status.term, id));
            }
            known.push((status.term, status.leader));
        }
        let (term, leader) = says_so?;
        // An old leader does not know that it is none.
        let agree = known.iter().filter(|k| **k == (term, Some(leader))).count();
        (agree * 2 > self.seats.len()).then_some(leader)
    }

    /// Waits until one leads a majority.
    pub fn wait_leader(&self, timeout: Duration) -> Result<u64> {
        self.wait(timeout, "a leader of most", || self.leader(None))
    }

    /// The status of node `id`.
    pub fn status(&self, id: u64) -> Result<Status> {
        self.link(id)
            .status()
            .with_context(|| format!("the status of node {id}"))
    }

    /// Waits until all nodes have applied as much as the one that has committed most.
    pub fn converge(&self, timeout: Duration) -> Result<u64> {
        self.wait(timeout, "all to have applied as much", || {
            let statuses: Vec<_> = self.ids().map(|id| self.link(id).status().ok()).collect();
            let statuses: Option<Vec<_>> = statuses.into_iter().collect();
            let statuses = statuses?;
            let most = statuses.iter().map(|s| s.commit).max()?;
            let led = statuses.iter().any(|s| s.is_leader);
            (led && statuses.iter().all(|s| s.applied == most)).then_some(most)
        })
    }

    /// Waits until `look` finds something; `what` says what that is.
    pub fn wait<T>(
        &self,
        timeout: Duration,
        what: &str,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if started.elapsed() > timeout {
                let seen: Vec<_> = self
                    .ids()
                    .map(|id| {
                        format!(
                            "  node {id}: {:?}\n{}",
                            self.link(id).status(),
                            self.tail(id)
                        )
                    })
                    .collect();
                bail!(
                    "waited {timeout:?} in vain for {what}:\n{}",
                    seen.join("\n")
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines that node `id` wrote on standard error.
    #[must_use]
    pub fn tail(&self, id: u64) -> String {
        let log = fs::read_to_string(self.folder.join(format!("node{id}.log")));
        let log = log.unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let from = lines.len().saturating_sub(5);
        lines[from..]
            .iter()
            .map(|line| format!("  | {line}\n"))
            .collect()
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        for id in self.ids() {
            // It may have ended by itself.
            let _ = self.kill(id);
        }
    }
}
