//! A counter on three processes, which all add to it while whichever leads is killed with -9, again and again.
//!
//! Each process is a node, and a client of it. A client that is killed cannot know what became of the add that was under way.
//! So it keeps the add's name on its disk before it proposes it, and when it is back it proposes it again under that name: what
//! was applied is answered as it was then, the rest is applied now. In the end the counter says what the clients have counted.
//!
//! The program that kills is the same one: it starts itself as `counter ID FIRST-PORT FOLDER`, three times.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use examples::Processes;
use raft_actor::{
    ApplyError, At, Capture, Config, NodeId, OpenSession, Propose, Raft, Role, Session, SessionId,
    StateMachine, capture, restored,
};

const KILLS: u64 = 6;
/// So many adds of its own a leader has seen through before it is killed.
const ADDS_EACH: u32 = 100;

#[derive(Default)]
struct Counter(u64);

impl StateMachine for Counter {
    type Command = u64;
    type Response = u64;

    fn apply(&mut self, _: At, add: u64) -> Result<u64, ApplyError> {
        self.0 += add;
        Ok(self.0)
    }

    fn snapshot(&self) -> Capture {
        capture(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        self.0 = restored(from)?;
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => kill_the_leaders(),
        [id, port, folder] => add(NodeId(id.parse()?), port.parse()?, Path::new(folder)),
        _ => bail!("usage: counter"),
    }
}

/// A process: adds one after the other until it is told something, then says what the counter says as often as it is asked.
#[tokio::main(flavor = "current_thread")]
async fn add(id: NodeId, first_port: u16, folder: &Path) -> Result<()> {
    let mut told = examples::told();
    let config = Config::new(id)
        .peers(examples::peers(first_port))
        .data_dir(folder.join("node"))
        .propose_timeout(Duration::from_secs(30));
    let raft = Raft::start_with(config, Counter::default()).await?;
    let view = raft.watch().await?;

    let (session, mut sequence) = session(&raft, folder).await?;
    let mut led = 0;
    // At least one: what became of the first may be open since the last life.
    loop {
        keep(folder, session.id(), sequence)?;
        // The node sends it again by itself, to one leader after the other, until the time is up.
        session.propose_as(sequence, Propose::of(&1_u64)?).await?;
        sequence += 1;
        let leads = view.borrow().role == Role::Leader;
        led = if leads { led + 1 } else { 0 };
        if led == ADDS_EACH {
            println!("leads");
        }
        if !told.is_empty() || told.is_closed() {
            break;
        }
    }
    // The first word is to stop, each behind it a question. Without any, nobody is there to be told.
    if told.recv().await.is_some() {
        println!("added {}", sequence - 1);
    }
    while told.recv().await.is_some() {
        let read = raft.read(|counter: &Counter| counter.0).await?;
        println!("counter {}", read.value);
    }
    Ok(raft.shutdown().await?)
}

/// A new session, or the one of the process's life before, and the name of its next add.
async fn session(raft: &Raft, folder: &Path) -> Result<(Session, u64)> {
    let kept = match fs::read_to_string(folder.join("next")) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok((raft.open_session(OpenSession::new()).await?, 1));
        }
        kept => kept?,
    };
    let (session, sequence) = kept.split_once(' ').context("no name of an add")?;
    let sequence = sequence.parse()?;
    let session = raft.resume_session(SessionId(session.parse()?), sequence);
    // Only to be seen: it is proposed again either way.
    let became = if session.resolve(sequence).await?.is_some() {
        "applied"
    } else {
        "not applied yet"
    };
    println!("is back; its add {sequence} was {became}");
    Ok((session, sequence))
}

/// Keeps the name of the next add, safe from this process's end and from the power's. All before it are done.
fn keep(folder: &Path, session: SessionId, sequence: u64) -> io::Result<()> {
    let mut file = File::create(folder.join("next.new"))?;
    write!(file, "{session} {sequence}")?;
    file.sync_all()?;
    fs::rename(folder.join("next.new"), folder.join("next"))?;
    File::open(folder)?.sync_all()
}

fn kill_the_leaders() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let port = examples::free_ports()?.to_string();
    let mut processes = Processes::none();
    let start = |processes: &mut Processes, id: u64| {
        let folder = folder.path().join(id.to_string());
        fs::create_dir_all(&folder)?;
        let arguments: [OsString; 3] = [id.to_string().into(), port.clone().into(), folder.into()];
        processes.start(id, &arguments)
    };
    for id in 1..=3 {
        start(&mut processes, id)?;
    }
    for kill in 0..KILLS {
        let (leader, _) = processes.hear("leads")?;
        // At another point of an add each time.
        thread::sleep(Duration::from_millis(kill));
        processes.kill(leader)?;
        println!("node {leader} led, and is killed");
        start(&mut processes, leader)?;
    }

    let mut added = 0;
    for id in 1..=3 {
        processes.tell(id, "stop")?;
    }
    for _ in 1..=3 {
        let (id, count) = processes.hear("added")?;
        println!("node {id} has added {count}");
        added += count.parse::<u64>()?;
    }
    processes.tell(1, "read")?;
    let counter: u64 = processes.hear("counter")?.1.parse()?;
    processes.end()?;
    println!("{added} were added, and the counter says {counter}");
    ensure!(added == counter, "some were lost, or added twice");
    Ok(())
}
