//! A cluster of child processes, and how one load on it is measured.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::child::Process;
use crate::protocol::{Answer, Counted, Load, Operation, Replayed, Request, State};
use crate::report::{Row, Share};
use crate::usage::{Processors, Usage};

/// From so many clients at once on, the followers of a process that has all nodes apply on a second thread,
pub(crate) const FOLLOWERS_APART_FROM: usize = 64;
/// and from so many on the leader does too, unless told otherwise.
pub(crate) const ALL_APART_FROM: usize = 1_024;
/// Up to so many proposals under way it is quicker to sync the log than to wake another thread that does.
pub(crate) const INLINE_UP_TO: usize = 16;
/// Behind so many bytes of commands a log's third file is under way: RocksDB begins one with each memtable of 32 MiB.
const WARM_BYTES: u64 = 100 << 20;

/// Where clients are.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    ValueEnum,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// In the leader's process.
    #[default]
    Leader,
    /// In the process of a voter that does not lead.
    Follower,
    /// In a process of their own, with a node that has joined as a learner and forwards.
    Outside,
}

impl Place {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Outside => "outside",
        }
    }
}

/// Which nodes of a process that has all of them apply, and hand over what they have applied, on a second thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Apart {
    None,
    Followers,
    All,
}

impl Apart {
    /// What is quickest under this load: to wake another thread costs more than it takes over, unless that is much.
    fn under(load: &Load) -> Self {
        match in_flight(load) {
            ALL_APART_FROM.. => Self::All,
            FOLLOWERS_APART_FROM.. => Self::Followers,
            _ => Self::None,
        }
    }

    /// As it is said on a command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Followers => "followers",
            Self::All => "all",
        }
    }
}

fn in_flight(load: &Load) -> usize {
    load.clients * load.in_flight.max(1)
}

impl Load {
    /// So few proposals under way at once that nodes are best to sync their logs themselves.
    pub(crate) fn is_few(&self) -> bool {
        let proposes = self.operation == Operation::Propose && self.rate.is_none();
        proposes && in_flight(self) <= INLINE_UP_TO
    }
}

/// What a cluster is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// How many voters.
    pub(crate) nodes: usize,
    /// Whether there is a learner in a process of its own, for clients outside.
    pub(crate) outside: bool,
    /// Whether all is in one process, without a wire, and no log is on a disk.
    pub(crate) memory: bool,
    /// Who applies on a second thread where one process has all nodes; none if the load decides.
    pub(crate) apart: Option<Apart>,
    /// Whether the nodes speak TLS.
    pub(crate) tls: bool,
    /// How many subscribers each node has.
    pub(crate) subscribers: usize,
    /// Whether the nodes have a state machine, of which they never take a snapshot.
    pub(crate) tally: bool,
    /// Whether each node runs on the thread of its clients and subscribers; where all share a process, it does.
    pub(crate) here: bool,
    /// Whether each node syncs its log on its own thread; none if the load decides.
    pub(crate) sync_inline: Option<bool>,
}

impl Shape {
    /// The same for this load.
    pub(crate) fn under(&self, load: &Load) -> Self {
        let apart = self.apart.unwrap_or(Apart::under(load));
        let inline = self.sync_inline.unwrap_or(self.here && load.is_few());
        Self {
            apart: self.memory.then_some(apart),
            sync_inline: Some(inline && !self.memory),
            ..self.clone()
        }
    }
}

/// A cluster that runs. Dropped, it is killed, and its data removed.
#[derive(Debug)]
pub(crate) struct Cluster {
    shape: Shape,
    processes: Vec<Process>,
    /// What clients were told is committed.
    committed: u64,
    _folder: TempDir,
}

/// A node, by the place of its process and its place in there.
type Seat = (usize, usize);

impl Cluster {
    /// Starts one whose data lie in a folder of its own below `data`, and waits until a node leads all.
    pub(crate) fn start(shape: Shape, data: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(data)
            .with_context(|| format!("cannot make a folder in {}", data.display()))?;
        let addresses = if shape.memory {
            let ports = 1..=shape.nodes;
            ports.map(|port| format!("memory/bench:{port}")).collect()
        } else {
            free_addresses(shape.nodes + usize::from(shape.outside))?
        };
        let voters = &addresses[..shape.nodes];
        let processes = if shape.memory {
            ensure!(
                !shape.tls && !shape.outside,
                "one process in memory has no TLS, and nobody outside"
            );
            vec![start_all(&shape, voters, folder.path())?]
        } else {
            let authority = shape.tls.then(|| Authority::new(folder.path()));
            let authority = authority.transpose().context("certificates")?;
            (1..=shape.nodes)
                .map(|id| start_node(id, &shape, voters, authority.as_ref(), folder.path()))
                .collect::<Result<Vec<_>>>()
                .and_then(|mut nodes| {
                    await_leader(&mut nodes)?;
                    if shape.outside {
                        let own = &addresses[shape.nodes];
                        let authority = authority.as_ref();
                        nodes.push(start_outside(
                            &shape,
                            own,
                            voters,
                            authority,
                            folder.path(),
                        )?);
                    }
                    Ok(nodes)
                })?
        };
        let mut cluster = Self {
            shape,
            processes,
            committed: 0,
            _folder: folder,
        };
        await_leader(&mut cluster.processes)?;
        Ok(cluster)
    }

    /// Puts clients at a place and measures what they see and what it costs.
    pub(crate) fn measure(&mut self, at: Place, load: Load) -> Result<Row> {
        let states = await_leader(&mut self.processes)?;
        let (process, node) = self.seat(at, &states)?;
        let load = Load { node, ..load };
        let patience =
            Duration::from_millis(load.warm_up_ms + load.window_ms) + Duration::from_secs(30);
        self.processes[process].ask(Request::Measure(load))?;
        let opened = match self.processes[process].answer(patience)? {
            Answer::Opened(counted) => self.look(process, counted)?,
            other => bail!("the window was to open, and {other:?} came"),
        };
        let closed = match self.processes[process].answer(patience)? {
            Answer::Closed(counted) => self.look(process, counted)?,
            other => bail!("the window was to close, and {other:?} came"),
        };
        let Answer::Measured(measured) = self.processes[process].answer(patience)? else {
            bail!("no measurement came")
        };
        if load.operation == Operation::Propose {
            self.committed += measured.commits_in_all;
        }
        let per = measured.commits.max(1) as f64;
        let elapsed_us = (closed.at - opened.at).as_secs_f64() * 1e6;
        let mut own_us = closed.parent.cpu_us.saturating_sub(opened.parent.cpu_us);
        let mut cpu_us = 0;
        let mut processes = Vec::new();
        for (place, ours) in self.processes.iter().enumerate() {
            let used = closed.usage[place] - opened.usage[place];
            let (before, after) = (opened.counted[place], closed.counted[place]);
            own_us += used.cpu_us;
            cpu_us += used.cpu_us;
            processes.push(Share {
                process: ours.name.clone(),
                leads: states[place].iter().any(|state| state.leads),
                clients: place == process,
                cpu_us_per_commit: used.cpu_us as f64 / per,
                voluntary_switches_per_commit: used.voluntary as f64 / per,
                involuntary_switches_per_commit: used.involuntary as f64 / per,
                syncs_per_commit: after.syncs.saturating_sub(before.syncs) as f64 / per,
                writes_per_commit: after.writes.saturating_sub(before.writes) as f64 / per,
                disk_bytes_per_commit: used.disk_bytes as f64 / per,
            });
        }
        let busy_us = closed
            .machine
            .busy_us
            .saturating_sub(opened.machine.busy_us);
        let stolen_us = (closed.machine.stolen_us).saturating_sub(opened.machine.stolen_us);
        Ok(Row {
            operation: load.operation,
            at,
            clients: load.clients,
            in_flight: load.in_flight,
            rate: load.rate,
            payload: load.payload,
            commits_per_s: (measured.commits as f64 / measured.seconds) as u64,
            cpu_us_per_commit: cpu_us as f64 / per,
            foreign_cores: busy_us.saturating_sub(own_us) as f64 / elapsed_us,
            stolen_cores: stolen_us as f64 / elapsed_us,
            processes,
            measured,
        })
    }

    /// Proposes until the logs' files are written over old ones, as they are for good from the third of each start on: a
    /// new one grows with each sync, for which the file system writes a second time.
    pub(crate) fn warm(&mut self) -> Result<()> {
        let load = Load {
            node: 0,
            operation: Operation::Propose,
            clients: 32,
            in_flight: 1,
            rate: None,
            payload: 16 << 10,
            warm_up_ms: 0,
            window_ms: 250,
        };
        let enough = self.committed + WARM_BYTES / load.payload as u64;
        while !self.shape.memory && self.committed < enough {
            self.measure(Place::Leader, load)?;
        }
        Ok(())
    }

    /// How many commands were committed, as far as clients were told.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Replays the whole log to a new subscriber.
    pub(crate) fn replay(&mut self, at: Place) -> Result<Replayed> {
        let states = await_leader(&mut self.processes)?;
        let (process, node) = self.seat(at, &states)?;
        let commands = self.committed;
        self.processes[process].ask(Request::Replay { node, commands })?;
        match self.processes[process].answer(Duration::from_secs(150))? {
            Answer::Replayed(replayed) => Ok(replayed),
            other => bail!("a replay was asked for, and {other:?} came"),
        }
    }

    /// Kills a follower and starts it again: how long it takes, from the kill, until it has applied all
    /// that the leader had, and which entry that was.
    pub(crate) fn restart_follower(&mut self) -> Result<(Duration, u64)> {
        let states = await_leader(&mut self.processes)?;
        let (process, node) = self.seat(Place::Follower, &states)?;
        let applied = states.iter().flatten().map(|state| state.applied).max();
        let applied = applied.context("no node")?;
        let process = &mut self.processes[process];
        let start = Instant::now();
        process.restart()?;
        loop {
            let states = process.states()?;
            let state = states.get(node).context("no such node")?;
            if state.running && state.applied >= applied {
                return Ok((start.elapsed(), applied));
            }
            ensure!(
                start.elapsed() < Duration::from_secs(120),
                "{} does not come to entry {applied}: {state:?}",
                process.name
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Where clients at this place ask.
    fn seat(&self, at: Place, states: &[Vec<State>]) -> Result<Seat> {
        let voters = self.shape.nodes as u64;
        let seats = states.iter().enumerate().flat_map(|(process, nodes)| {
            let node = nodes.iter().enumerate();
            node.map(move |(node, state)| ((process, node), state))
        });
        let mut seats = seats.filter(|(_, state)| match at {
            Place::Leader => state.leads,
            Place::Follower => !state.leads && state.id <= voters,
            Place::Outside => state.id > voters,
        });
        let found = seats.next().map(|(seat, _)| seat);
        found.with_context(|| format!("this cluster has no {}", at.name()))
    }

    /// What all have used by now. The process that measures is busy, and has said by itself what it has counted.
    fn look(&mut self, measuring: usize, its: Counted) -> Result<Look> {
        let at = Instant::now();
        let machine = Processors::now()?;
        let parent = Usage::of(std::process::id())?;
        let usage = self.processes.iter().map(|ours| Usage::of(ours.pid()));
        let usage = usage.collect::<Result<_>>()?;
        let mut counted = Vec::new();
        for (place, ours) in self.processes.iter_mut().enumerate() {
            counted.push(if place == measuring {
                its
            } else {
                let states = ours.states()?;
                states
                    .first()
                    .map(|state| state.counted)
                    .unwrap_or_default()
            });
        }
        Ok(Look {
            at,
            machine,
            parent,
            usage,
            counted,
        })
    }

    /// Waits until every subscriber has been handed every command that was committed; says so if one was not.
    pub(crate) fn all_delivered(&mut self) -> Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let states = states(&mut self.processes)?;
            let counts: Vec<_> = states
                .iter()
                .flatten()
                .filter_map(|state| state.delivered)
                .collect();
            let same = counts.windows(2).all(|two| two[0] == two[1]);
            if same && counts.iter().all(|count| *count >= self.committed) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                let committed = self.committed;
                eprintln!(
                    "bench: {committed} commands were committed, and the nodes were handed {counts:?}"
                );
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends all processes in order.
    pub(crate) fn end(self) -> Result<()> {
        // Who is outside first: the others could not do without each other.
        self.processes.into_iter().rev().try_for_each(Process::end)
    }
}

/// What was used by a moment.
struct Look {
    at: Instant,
    machine: Processors,
    parent: Usage,
    usage: Vec<Usage>,
    counted: Vec<Counted>,
}

fn states(processes: &mut [Process]) -> Result<Vec<Vec<State>>> {
    processes.iter_mut().map(Process::states).collect()
}

/// Waits until one node leads all; the states that show it.
fn await_leader(processes: &mut [Process]) -> Result<Vec<Vec<State>>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let states = states(processes)?;
        let all = || states.iter().flatten();
        if let Some(leading) = all().find(|state| state.running && state.leads)
            && all().all(|state| {
                state.running && state.leader == Some(leading.id) && state.term == leading.term
            })
        {
            return Ok(states);
        }
        ensure!(
            Instant::now() < deadline,
            "no node leads the others: {states:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn peers(voters: &[String]) -> String {
    let listed = (1..).zip(voters).map(|(id, at)| format!("{id}={at}"));
    listed.collect::<Vec<_>>().join(",")
}

fn start_node(
    id: usize,
    shape: &Shape,
    voters: &[String],
    authority: Option<&Authority>,
    folder: &Path,
) -> Result<Process> {
    let name = format!("node-{id}");
    let data: PathBuf = folder.join(&name);
    let mut arguments = arguments([
        "node".to_owned(),
        format!("--id={id}"),
        format!("--peers={}", peers(voters)),
        format!("--data={}", data.display()),
        format!("--subscribers={}", shape.subscribers),
    ]);
    arguments.extend(threads(shape));
    if shape.tally {
        let more = [
            "--tally",
            "--snapshot-every-entries=0",
            "--snapshot-every-bytes=0",
        ];
        arguments.extend(more.map(OsString::from));
    }
    if let Some(authority) = authority {
        arguments.extend(authority.arguments(&name)?.map(OsString::from));
    }
    Process::start(&name, &arguments, folder)
}

/// On which threads a node does what.
fn threads(shape: &Shape) -> Vec<OsString> {
    let here = shape.here.then_some("--here");
    let inline = (shape.sync_inline == Some(true)).then_some("--sync-inline=on");
    here.into_iter().chain(inline).map(OsString::from).collect()
}

fn start_outside(
    shape: &Shape,
    own: &str,
    voters: &[String],
    authority: Option<&Authority>,
    folder: &Path,
) -> Result<Process> {
    let name = "outside";
    let mut arguments = arguments([
        "node".to_owned(),
        format!("--at={own}"),
        format!("--join={}", voters.join(",")),
        "--learner=on".to_owned(),
        format!("--data={}", folder.join(name).display()),
        format!("--subscribers={}", shape.subscribers),
    ]);
    arguments.extend(threads(shape));
    if let Some(authority) = authority {
        arguments.push(format!("--own-tls-name={name}").into());
        arguments.extend(authority.arguments(name)?.map(OsString::from));
    }
    Process::start(name, &arguments, folder)
}

fn start_all(shape: &Shape, voters: &[String], folder: &Path) -> Result<Process> {
    let arguments = arguments([
        "nodes".to_owned(),
        format!("--addresses={}", voters.join(",")),
        format!("--subscribers={}", shape.subscribers),
        format!("--apart={}", shape.apart.unwrap_or(Apart::None).name()),
    ]);
    Process::start("all", &arguments, folder)
}

fn arguments<const N: usize>(arguments: [String; N]) -> Vec<OsString> {
    arguments.map(OsString::from).into()
}

/// Addresses with ports below those that the kernel gives to connections, so that no dial takes one.
fn free_addresses(count: usize) -> Result<Vec<String>> {
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let free: Vec<_> = (first..32_000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    ensure!(
        free.len() == count,
        "no {count} free ports from {first} to 32000"
    );
    Ok(free)
}
