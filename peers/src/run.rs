//! The runner: rounds of turns, and where an interrupted run goes on.
//!
//! - A turn is one peer beside ours: the two are measured one right after the other, ours first in every other round. A
//!   ratio is taken within a turn and nowhere else.
//! - Each side of a turn starts from nothing, in an empty folder, and is gone before the next begins: nobody is
//!   measured while somebody else idles beside.
//! - What a side came to is written down at once. A run that was interrupted goes on behind it, if programs and
//!   options are still the same.
//! - One run at a time in a folder: the second is refused by a lock.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::load::{Load, Measured};
use crate::ours::{self, Mode};
use crate::peer::{self, Ground, Peer};
use crate::process::{Interrupted, Process, free_ports, this_program};
use crate::report::{self, Report, System};
use crate::row::{Row, Side, Turn};
use crate::verdict;

/// How many clients the mode with clients outside is measured with.
const OUTSIDE: usize = 1_024;

/// What only ours is measured with: the others would show errors.
const OURS_ALONE: usize = 4_096;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each peer has its turn [default: 5, with --quick 1].
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each measurement takes, after a warm-up of a third of it [default: 3, with --quick 1].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    secs: Option<u64>,
    /// How many clients ask at once [default: 1,16,64,256,1024, with --quick 1,64,1024].
    #[arg(long, value_delimiter = ',')]
    clients: Option<Vec<usize>>,
    /// How many bytes each command has.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// One round of short measurements.
    #[arg(long)]
    quick: bool,
    /// Only these [default: all that are here].
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// The bench of the main workspace, optimized [default: release/bench beside this program's target folder].
    #[arg(long)]
    bench: Option<PathBuf>,
    /// On whose disk all keep their data [default: the target folder].
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// The options with all that was left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    rounds: usize,
    secs: u64,
    clients: Vec<usize>,
    /// Beside these, for ours alone.
    ours_alone: Vec<usize>,
    payload: usize,
    /// Of the programs: what was measured with others is not gone on with.
    programs: Vec<(PathBuf, u64, u128)>,
}

impl Plan {
    fn new(options: &Options, bench: &Path) -> Result<Self> {
        let clients = options
            .clients
            .clone()
            .unwrap_or_else(|| match options.quick {
                true => vec![1, 64, 1_024],
                false => vec![1, 16, 64, 256, 1_024],
            });
        ensure!(
            !clients.is_empty() && !clients.contains(&0),
            "no client, no measurement"
        );
        let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
        ensure!(rounds > 0, "no round, no measurement");
        Ok(Self {
            rounds,
            secs: options.secs.unwrap_or(if options.quick { 1 } else { 3 }),
            clients,
            ours_alone: if options.quick || options.clients.is_some() {
                Vec::new()
            } else {
                vec![OURS_ALONE]
            },
            payload: options.payload,
            programs: vec![fingerprint(bench)?, fingerprint(&this_program()?)?],
        })
    }

    fn load(&self, clients: usize) -> Load {
        Load {
            clients,
            payload: self.payload,
            // As `bench` does it.
            warm_up_ms: (self.secs * 1_000 / 3).max(500),
            window_ms: self.secs * 1_000,
        }
    }

    /// What ours is measured with.
    fn our_clients(&self, mode: Mode) -> Vec<usize> {
        match mode {
            Mode::Outside => vec![OUTSIDE],
            Mode::Leader => [&self.clients[..], &self.ours_alone].concat(),
            Mode::Memory => self.clients.clone(),
        }
    }
}

fn fingerprint(program: &Path) -> Result<(PathBuf, u64, u128)> {
    let what = || format!("cannot look at {}", program.display());
    let data = fs::metadata(program).with_context(what)?;
    let age = data.modified().with_context(what)?;
    let age = age
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_nanos());
    Ok((program.to_path_buf(), data.len(), age))
}

/// The mode of ours that stands beside a peer.
fn beside(peer: &str) -> Mode {
    if peer == "openraft_memory" {
        Mode::Memory
    } else {
        Mode::Leader
    }
}

/// The sides of a turn, in the order of this round.
fn sides(peer: &str, round: usize, plan: &Plan) -> Vec<Side> {
    let mut sides = vec![Side::Ours, Side::Peer];
    if ["etcd", "nats"].contains(&peer) && plan.clients.contains(&OUTSIDE) {
        sides.push(Side::Outside);
    }
    if round % 2 == 1 {
        sides.reverse();
    }
    sides
}

/// What is known before the first measurement, and what was measured so far.
struct Runner<'a> {
    plan: &'a Plan,
    bench: PathBuf,
    data: PathBuf,
    interrupted: Interrupted,
    cores: usize,
    machine: serde_json::Value,
    state: File,
    turns: Vec<Turn>,
}

/// True when no figure is missed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let bench = match &options.bench {
        Some(bench) => ours::program(bench)?,
        None => ours::program(&report::target()?.join("../release/bench"))?,
    };
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => report::target()?,
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let interrupted = Interrupted::watch()?;
    let _lock = lock(&folder)?;
    let data = Data::new(&folder)?;
    let plan = Plan::new(options, &bench)?;
    let (peers, skipped) = who(&options.peers)?;
    for (name, why) in &skipped {
        println!("skipped {name}: {why}");
    }
    ensure!(!peers.is_empty(), "nobody is left to stand beside");
    let path = folder.join("peers-state.jsonl");
    let (turns, machine, state) = resume(&path, &plan)?;
    if !turns.is_empty() {
        println!(
            "going on behind {} measurements of an earlier run",
            turns.len()
        );
    }
    let mut runner = Runner {
        plan: &plan,
        bench,
        data: data.0.clone(),
        interrupted,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        machine,
        state,
        turns,
    };
    runner.all(&peers)?;

    let figures = verdict::figures(&runner.turns, &plan.clients);
    let report = Report::new(
        runner.machine,
        plan.payload,
        plan.rounds,
        systems(&peers),
        skipped,
        &runner.turns,
        figures,
    );
    let ok = report.write(&runner.turns)?;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(ok)
}

/// Refuses a second run in the same folder. Held until the file is closed.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("peers.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(error) => bail!("another run is on in {} ({error})", folder.display()),
    }
}

/// Where all data is: removed at the end, and at the start what a killed run has left.
struct Data(PathBuf);

impl Data {
    fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("peers-data");
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // What stays is removed by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Who = (Vec<&'static dyn Peer>, Vec<(String, String)>);

/// Who is measured; and who is not, with the reason.
fn who(wanted: &[String]) -> Result<Who> {
    for name in wanted {
        ensure!(
            peer::NAMES.contains(&name.as_str()),
            "no peer {name}; there are {}",
            peer::NAMES.join(", ")
        );
    }
    let (mut peers, mut skipped) = (Vec::new(), Vec::new());
    for name in peer::NAMES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        match peer::named(name) {
            Err(_) => skipped.push((
                name.to_owned(),
                "this program was built without it".to_owned(),
            )),
            Ok(peer) => match peer.program().filter(|program| !peer::is_here(program)) {
                Some(program) => skipped.push((name.to_owned(), format!("{program} is not here"))),
                None => peers.push(peer),
            },
        }
    }
    Ok((peers, skipped))
}

fn systems(peers: &[&'static dyn Peer]) -> Vec<System> {
    let theirs = peers.iter().map(|peer| System {
        name: peer.name().to_owned(),
        what: peer.what(),
        differs: peer.differs().to_owned(),
    });
    theirs.collect()
}

type Resumed = (Vec<Turn>, serde_json::Value, File);

/// What an earlier run of the same plan has left, and the file that goes on with it.
fn resume(path: &Path, plan: &Plan) -> Result<Resumed> {
    let what = || format!("cannot write {}", path.display());
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    let same = lines
        .next()
        .is_some_and(|line| serde_json::from_str(line).is_ok_and(|old: Plan| old == *plan));
    // The last line may be torn; what is behind it is measured again.
    let kept: Vec<Noted> = if same {
        lines
            .map_while(|line| serde_json::from_str(line).ok())
            .collect()
    } else {
        Vec::new()
    };
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(path)
        .with_context(what)?;
    writeln!(file, "{}", serde_json::to_string(plan)?).with_context(what)?;
    for noted in &kept {
        writeln!(file, "{}", serde_json::to_string(noted)?).with_context(what)?;
    }
    let machine = kept
        .iter()
        .map(|noted| noted.machine.clone())
        .find(|machine| !machine.is_null());
    let turns = kept.into_iter().map(|noted| noted.turn).collect();
    Ok((turns, machine.unwrap_or_default(), file))
}

/// A line of the state.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    turn: Turn,
    machine: serde_json::Value,
}

impl Runner<'_> {
    fn all(&mut self, peers: &[&'static dyn Peer]) -> Result<()> {
        for round in 0..self.plan.rounds {
            for peer in peers {
                for side in sides(peer.name(), round, self.plan) {
                    let done = |turn: &Turn| {
                        turn.round == round && turn.peer == peer.name() && turn.side == side
                    };
                    if !self.turns.iter().any(done) {
                        self.side(round, *peer, side)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn side(&mut self, round: usize, peer: &'static dyn Peer, side: Side) -> Result<()> {
        let started = Instant::now();
        let folder = self.data.join("turn");
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut rows = Vec::new();
        let outcome = match side {
            Side::Ours => self.ours(beside(peer.name()), &folder, &mut rows),
            Side::Outside => self.ours(Mode::Outside, &folder, &mut rows),
            Side::Peer => self.theirs(peer, &folder, &mut rows),
        };
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
        // Who is interrupted has not failed.
        self.interrupted.check()?;
        let turn = Turn {
            round,
            peer: peer.name().to_owned(),
            side,
            rows,
            failed: outcome.err().map(|error| format!("{error:#}")),
        };
        println!(
            "{}",
            report::progress(&turn, self.plan.rounds, started.elapsed())
        );
        let noted = Noted {
            turn,
            machine: self.machine.clone(),
        };
        writeln!(self.state, "{}", serde_json::to_string(&noted)?)
            .context("cannot write the state")?;
        self.turns.push(noted.turn);
        Ok(())
    }

    fn ours(&mut self, mode: Mode, folder: &Path, rows: &mut Vec<Row>) -> Result<()> {
        let clients = self.plan.our_clients(mode);
        let asked = ours::Asked {
            program: &self.bench,
            mode,
            clients: &clients,
            payload: self.plan.payload,
            secs: self.plan.secs,
        };
        let answered = ours::measure(&asked, folder, &self.interrupted)?;
        rows.extend(answered.rows);
        self.machine = answered.machine;
        Ok(())
    }

    /// A number of clients that fails keeps none of the others from being measured.
    fn theirs(
        &mut self,
        peer: &'static dyn Peer,
        folder: &Path,
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let ground = Ground {
            folder: folder.to_path_buf(),
            ports: free_ports(peer.ports())?,
            interrupted: self.interrupted.clone(),
        };
        let servers = peer.start(&ground)?;
        let mut failed = Ok(());
        for clients in &self.plan.clients {
            self.interrupted.check()?;
            match load(peer, &ground, &servers, self.plan.load(*clients)) {
                Ok(measured) => rows.push(Row::of(*clients, measured, self.cores)),
                Err(error) => failed = Err(error.context(format!("{clients} clients"))),
            }
        }
        failed
    }
}

/// One load on a peer: a process for each of its members, until one of them has measured.
fn load(peer: &dyn Peer, ground: &Ground, servers: &[Process], load: Load) -> Result<Measured> {
    let pids = ground.folder.join("pids");
    let ports: Vec<_> = ground.ports.iter().map(u16::to_string).collect();
    let mut members = Vec::new();
    for member in 0..peer.members() {
        let mut command = Command::new(this_program()?);
        command
            .args(["load", peer.name()])
            .args(["--member", &member.to_string()])
            .args(["--clients", &load.clients.to_string()])
            .args(["--payload", &load.payload.to_string()])
            .args(["--warm-up-ms", &load.warm_up_ms.to_string()])
            .args(["--window-ms", &load.window_ms.to_string()])
            .arg("--folder")
            .arg(&ground.folder)
            .arg("--pids")
            .arg(&pids);
        if !ports.is_empty() {
            command.args(["--ports", &ports.join(",")]);
        }
        if peer.program().is_none() {
            command.arg("--embedded");
        }
        members.push(Process::start(
            &format!("load{member}"),
            &command,
            &ground.folder,
        )?);
    }
    // Of servers all but the load; of an embedded system all, each of which leaves itself out.
    let counted = if peer.program().is_none() {
        &members[..]
    } else {
        servers
    };
    let lines: String = counted
        .iter()
        .map(|process| format!("{}\n", process.pid()))
        .collect();
    fs::write(&pids, lines).with_context(|| format!("cannot write {}", pids.display()))?;

    let patience =
        Duration::from_millis(load.warm_up_ms + load.window_ms) + Duration::from_secs(60);
    let deadline = Instant::now() + patience;
    loop {
        for member in &mut members {
            if let Some(status) = member.ended()? {
                if !status.success() {
                    return Err(member.complain(&format!("it ended ({status})")));
                }
                return measurement(&member.said()?);
            }
        }
        if Instant::now() > deadline {
            return Err(members[0].complain(&format!("no measurement within {patience:?}")));
        }
        ground.interrupted.check()?;
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a member says of its load: a line. A system that lives in its process may print others.
fn measurement(said: &str) -> Result<Measured> {
    let mut lines = said.lines().rev();
    let found = lines.find_map(|line| serde_json::from_str(line).ok());
    found.with_context(|| format!("no measurement in {said:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_found_among_what_others_print() {
        let measured = Measured {
            commits: 3,
            seconds: 1.5,
            median_us: 1,
            p99_us: 2,
            max_us: 3,
            errors: 0,
            first_error: None,
            servers_cpu_us: None,
            cpu_us: 9,
            foreign_cpu_us: 0,
        };
        let line = serde_json::to_string(&measured).unwrap();
        for said in [line.clone(), format!("[WARN] slow\n{line}\n[INFO] bye\n")] {
            assert_eq!(measurement(&said).unwrap(), measured);
        }
        assert!(measurement("[WARN] slow\n").is_err());
    }

    fn plan(rounds: usize) -> Plan {
        Plan {
            rounds,
            secs: 1,
            clients: vec![1, 1_024],
            ours_alone: vec![4_096],
            payload: 256,
            programs: Vec::new(),
        }
    }

    #[test]
    fn who_is_first_alternates() {
        let first = |round| sides("etcd", round, &plan(2))[0];
        assert_eq!(
            (first(0), first(1), first(2)),
            (Side::Ours, Side::Outside, Side::Ours)
        );
        assert_eq!(sides("redis", 1, &plan(2)), [Side::Peer, Side::Ours]);
    }

    #[test]
    fn only_ours_in_the_leader_has_more_clients() {
        assert_eq!(plan(5).our_clients(Mode::Leader), [1, 1_024, 4_096]);
        assert_eq!(plan(5).our_clients(Mode::Outside), [1_024]);
        assert_eq!(plan(5).our_clients(Mode::Memory), [1, 1_024]);
    }

    #[test]
    fn a_run_goes_on_with_what_was_written_and_not_with_another_plan() {
        let path = std::env::temp_dir().join(format!("peers-state-{}", std::process::id()));
        let turn = Turn {
            round: 0,
            peer: "etcd".to_owned(),
            side: Side::Peer,
            rows: Vec::new(),
            failed: Some("as told".to_owned()),
        };
        let noted = Noted {
            turn: turn.clone(),
            machine: serde_json::json!({"cores": 2}),
        };
        let (_, _, mut file) = resume(&path, &plan(2)).unwrap();
        writeln!(file, "{}", serde_json::to_string(&noted).unwrap()).unwrap();
        // A line that was torn.
        write!(file, "{{\"turn\": {{").unwrap();
        drop(file);
        let (turns, machine, _) = resume(&path, &plan(2)).unwrap();
        assert_eq!((turns, machine["cores"].as_u64()), (vec![turn], Some(2)));
        let (turns, ..) = resume(&path, &plan(3)).unwrap();
        assert!(turns.is_empty());
        fs::remove_file(path).unwrap();
    }
}
