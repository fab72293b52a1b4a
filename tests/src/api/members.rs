//! Replicas that come and go, each in a place of its own, whose node is given its id.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Link, Trouble};
use super::wire::{Ask, Membership, Status, Told};
use crate::cluster::free_ports;
use crate::programs::{Programs, spawn};

/// How long anything may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to answer what the leader must be asked.
const ANSWER: Duration = Duration::from_secs(15);

/// A cluster whose members come and go.
#[derive(Debug)]
pub struct Members {
    /// Of all: `placeN` is the data of the node in place N, `placeN.log` its standard error.
    pub folder: PathBuf,
    programs: Programs,
    args: Vec<String>,
    places: RwLock<Vec<Arc<Place>>>,
}

/// Where a replica is, and the process there, if one runs.
#[derive(Debug)]
pub struct Place {
    /// Its number, from 1 up; no node's id.
    pub number: usize,
    /// Where it listens for the others.
    pub address: SocketAddr,
    /// To whom it is asked.
    pub link: Link,
    /// Its data folder.
    pub data: PathBuf,
    control: SocketAddr,
    log: PathBuf,
    /// How it comes to its cluster: `--lead`, or `--join` and whose.
    comes_by: Vec<String>,
    process: Mutex<Option<Child>>,
}

impl Members {
    /// None yet, in an empty `folder`; each will be given `args`.
    pub fn new(programs: &Programs, folder: &Path, args: &[&str]) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            programs: programs.clone(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            places: RwLock::default(),
        })
    }

    /// A place for one that comes by `comes_by`. Nobody is there yet.
    pub fn place(&self, comes_by: &[&str]) -> Result<Arc<Place>> {
        let ports = free_ports(2)?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, control) = (local(ports[0]), local(ports[1]));
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let number = places.len() + 1;
        let place = Arc::new(Place {
            number,
            address,
            link: Link::new(control),
            data: self.folder.join(format!("place{number}")),
            control,
            log: self.folder.join(format!("place{number}.log")),
            comes_by: comes_by.iter().map(|&arg| arg.to_owned()).collect(),
            process: Mutex::new(None),
        });
        places.push(Arc::clone(&place));
        Ok(place)
    }

    /// The first of them.
    pub fn lead(&self) -> Result<Arc<Place>> {
        let place = self.place(&["--lead"])?;
        self.start(&place, &[])?;
        self.wait_running(&place)?;
        Ok(place)
    }

    /// One more is started, and joins by those that run. It may take a while until it is a member.
    pub fn join(&self, more: &[&str]) -> Result<Arc<Place>> {
        let place = self.place(&["--join", &self.addresses()])?;
        self.start(&place, more)?;
        Ok(place)
    }

    /// One more, which votes when this ends. Gives its id too.
    pub fn join_and_vote(&self, more: &[&str]) -> Result<(Arc<Place>, u64)> {
        let place = self.join(more)?;
        let id = self.wait_voter(&place)?;
        Ok((place, id))
    }

    /// Where those are that run, with commas between.
    #[must_use]
    pub fn addresses(&self) -> String {
        let running = self.running();
        let addresses: Vec<_> = running.iter().map(|at| at.address.to_string()).collect();
        addresses.join(",")
    }

    /// Starts a replica in `place`, the same way each time but for `more`.
    pub fn start(&self, place: &Place, more: &[&str]) -> Result<()> {
        let line: Vec<_> = place.comes_by.iter().map(String::as_str).collect();
        self.start_by(place, &[&line, more].concat())
    }

    /// Starts a replica in `place` that comes by something else.
    pub fn start_by(&self, place: &Place, comes_by: &[&str]) -> Result<()> {
        let log = File::options().create(true).append(true).open(&place.log);
        let log = log.context("open a replica's log")?;
        // What stands for the node is the program beside the guard.
        let mut command = self.programs.guarded(&self.programs.demo_chat);
        command
            .args(comes_by)
            .arg("--data")
            .arg(&place.data)
            .args(["--control", &place.control.to_string()])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if !comes_by.contains(&"--peers") {
            command.args(["--at", &place.address.to_string()]);
        }
        let child = spawn(command)?;
        let before = place.process().replace(child);
        ensure!(before.is_none(), "{place} ran already");
        Ok(())
    }

    /// Those in which a process runs, in the order of their numbers.
    #[must_use]
    pub fn running(&self) -> Vec<Arc<Place>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.iter().filter(|at| at.runs()).cloned().collect()
    }

    /// Who leads, in the eyes of most of those that run.
    #[must_use]
    pub fn leader(&self) -> Option<Arc<Place>> {
        let running = self.running();
        let statuses: Vec<_> = running.iter().map(|at| at.link.status().ok()).collect();
        let known = statuses.iter().flatten();
        let leads = known.clone().filter(|status| status.is_leader);
        let leads = leads.max_by_key(|status| status.term)?;
        let same = |status: &&Status| (status.term, status.leader) == (leads.term, Some(leads.id));
        // An old leader does not know that it is none, and who is about to join is not heard yet.
        if known.clone().filter(same).count() * 2 <= known.count() {
            return None;
        }
        let is_it = |status: &Option<Status>| status.as_ref().is_some_and(|s| s.id == leads.id);
        Some(Arc::clone(&running[statuses.iter().position(is_it)?]))
    }

    /// Waits until one leads.
    pub fn wait_leader(&self) -> Result<Arc<Place>> {
        self.wait("a leader of most", || self.leader())
    }

    /// One that runs and does not lead.
    pub fn follower(&self) -> Result<Arc<Place>> {
        let leader = self.wait_leader()?;
        let mut others = self.running().into_iter();
        let other = others.find(|at| at.number != leader.number);
        other.context("nobody but the leader runs")
    }

    /// Waits until the node in `place` takes part; gives its id.
    pub fn wait_running(&self, place: &Place) -> Result<u64> {
        self.wait(&format!("{place} to take part"), || {
            let status = place.link.status().ok()?;
            status.is_running.then_some(status.id)
        })
    }

    /// Waits until the node in `place` votes, and no change is under way; gives its id.
    pub fn wait_voter(&self, place: &Place) -> Result<u64> {
        let id = self.wait_running(place)?;
        self.wait(&format!("node {id} to vote"), || {
            let all = self.membership().ok()?;
            let votes = all.members.iter().any(|m| m.id == id && m.votes);
            (votes && all.settled).then_some(id)
        })
    }

    /// Who belongs to the cluster, as the leader tells it.
    pub fn membership(&self) -> Result<Membership, Trouble> {
        let leader = self.leader().ok_or(Trouble::Gone)?;
        match leader.link.ask(Ask::Members, ANSWER)? {
            Told::Members(members) => Ok(members),
            _ => Err(Trouble::Gone),
        }
    }

    /// Waits until exactly these belong to the cluster, all vote, and no change is under way.
    pub fn wait_members(&self, ids: &BTreeSet<u64>) -> Result<Membership> {
        self.wait(&format!("{ids:?} to be the members"), || {
            let all = self.membership().ok()?;
            let are = all.members.iter().map(|member| member.id);
            let vote = all.members.iter().all(|member| member.votes);
            (vote && all.settled && are.collect::<BTreeSet<_>>() == *ids).then_some(all)
        })
    }

    /// Asks the node in `place` until it does not answer that it cannot.
    pub fn insist(&self, place: &Place, ask: &Ask) -> Result<Told> {
        let mut last = None;
        let told = self.wait_for(PATIENCE, || match place.link.ask(ask.clone(), ANSWER) {
            Ok(told) => Some(told),
            Err(trouble) => {
                last = Some(trouble);
                None
            }
        });
        match (told, last) {
            (Some(told), _) => Ok(told),
            (None, last) => bail!("{place}: {ask:?}: {last:?}\n{}", self.seen()),
        }
    }

    /// Waits until all that run have applied as much as the one that has committed most.
    pub fn converge(&self) -> Result<u64> {
        self.wait("all to have applied as much", || {
            let statuses = self.running().into_iter().map(|at| at.link.status().ok());
            let statuses = statuses.collect::<Option<Vec<_>>>()?;
            let most = statuses.iter().map(|status| status.commit).max()?;
            let led = statuses.iter().any(|status| status.is_leader);
            (led && statuses.iter().all(|status| status.applied == most)).then_some(most)
        })
    }

    /// Waits until `look` finds something; `what` says what that is.
    pub fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> Result<T> {
        let found = self.wait_for(PATIENCE, look);
        found.with_context(|| format!("waited {PATIENCE:?} in vain for {what}:\n{}", self.seen()))
    }

    fn wait_for<T>(&self, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let started = Instant::now();
        while started.elapsed() < timeout {
            if let Some(found) = look() {
                return Some(found);
            }
            thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// What all that run say of themselves, for whoever waited in vain.
    fn seen(&self) -> String {
        let mut seen = format!("  {:?}\n", self.membership());
        for at in self.running() {
            seen += &format!("  {at}: {:?}\n{}", at.link.status(), at.tail());
        }
        seen
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for place in self.running() {
            // It may have ended by itself.
            let _ = place.kill();
        }
    }
}

impl Place {
    /// Whether a process was started here, and its end not waited for.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process().is_some()
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&self) -> Result<()> {
        self.strike()?;
        let child = self.process().take();
        if let Some(mut child) = child {
            child.wait().context("wait for a killed process")?;
        }
        Ok(())
    }

    /// `kill -9`, without waiting for its end, for which [`kill`](Self::kill) waits.
    pub fn strike(&self) -> Result<()> {
        let pid = self.process().as_ref().map(Child::id);
        let pid = pid.with_context(|| format!("{self} does not run"))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process id")?;
        kill_process(pid, Signal::KILL).with_context(|| format!("kill {self}"))
    }

    /// Waits until its process has ended by itself.
    pub fn wait_exit(&self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut process = self.process();
            let child = process.as_mut();
            let child = child.with_context(|| format!("{self} does not run"))?;
            if let Some(status) = child.try_wait().context("wait for a process")? {
                *process = None;
                return Ok(status);
            }
            drop(process);
            thread::sleep(Duration::from_millis(5));
        }
        bail!(
            "waited {PATIENCE:?} in vain for the end of {self}:\n{}",
            self.tail()
        )
    }

    /// How its process has ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut process = self.process();
        let status = process.as_mut()?.try_wait().ok()??;
        *process = None;
        Some(status)
    }

    /// Removes its data folder.
    pub fn wipe(&self) -> Result<()> {
        ensure!(!self.runs(), "{self} runs");
        fs::remove_dir_all(&self.data).with_context(|| format!("remove {}", self.data.display()))
    }

    /// The last lines that were written on standard error here.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(5)..];
        last.iter().map(|line| format!("  | {line}\n")).collect()
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "place {}", self.number)
    }
}
