//! The parent: starts the nodes, asks the leader for each measurement, and prints.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::child::Node;
use crate::machine::{Machine, cpu_us};
use crate::protocol::{Answer, Load, Request};
use crate::report::{Report, Row, target, write_figures};

const NODES: u64 = 3;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many clients propose at once, one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024")]
    clients: Vec<usize>,
    /// How many bytes each proposal has.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// How long each measurement takes, after a warm-up of a third of it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    secs: u64,
    /// On whose disk the nodes keep their data, in a folder that is removed afterwards [default: the target folder].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// True when no proposal failed and all nodes were handed the same number of commands.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let target = target()?;
    let data = options.data.as_deref().unwrap_or(&target);
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(data)
        .with_context(|| format!("cannot make a folder in {}", data.display()))?;
    let mut report = Report {
        machine: Machine::look(folder.path())?,
        nodes: NODES as usize,
        payload: options.payload,
        rows: Vec::new(),
    };
    let mut nodes = start(folder.path())?;
    if !options.json {
        println!("{}\n{}", report.heading(), Report::COLUMNS);
    }
    for clients in &options.clients {
        ensure!(*clients > 0, "no client, no measurement");
        let load = Load {
            clients: *clients,
            payload: options.payload,
            warm_up_ms: (options.secs * 1000 / 3).max(500),
            window_ms: options.secs * 1000,
        };
        let row = measure(&mut nodes, load)?;
        if !options.json {
            println!("{}", Report::line(&row));
            if let Some(error) = &row.measured.first_error {
                println!("        the first error: {error}");
            }
        }
        report.rows.push(row);
    }
    let committed: u64 = report
        .rows
        .iter()
        .map(|row| row.measured.commits_in_all)
        .sum();
    let delivered = all_delivered(&mut nodes, committed)?;
    for node in nodes {
        node.end()?;
    }
    let figures = report.figures();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{figures}");
    }
    write_figures("bench.txt", &figures, &target)?;
    Ok(report.errors() == 0 && delivered)
}

/// Starts the nodes and waits until one leads all.
fn start(folder: &Path) -> Result<Vec<Node>> {
    let ports = free_ports(NODES as usize)?;
    let mut nodes: Vec<_> = (1..=NODES)
        .map(|id| Node::start(id, &ports, folder))
        .collect::<Result<_>>()?;
    leader(&mut nodes)?;
    Ok(nodes)
}

/// Which of the nodes leads, by its place.
fn leader(nodes: &mut [Node]) -> Result<usize> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let states: Vec<_> = nodes.iter_mut().map(Node::state).collect::<Result<_>>()?;
        let leading = states.iter().position(|state| state.running && state.leads);
        if let Some(place) = leading
            && states.iter().all(|s| {
                s.running && s.leader == Some(nodes[place].id) && s.term == states[place].term
            })
        {
            return Ok(place);
        }
        ensure!(
            Instant::now() < deadline,
            "no node leads the others: {states:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn measure(nodes: &mut [Node], load: Load) -> Result<Row> {
    let pids: Vec<_> = nodes.iter().map(Node::pid).collect();
    let place = leader(nodes)?;
    let node = &mut nodes[place];
    let patience =
        Duration::from_millis(load.warm_up_ms + load.window_ms) + Duration::from_secs(30);
    node.ask(Request::Measure(load))?;
    let expect = |wanted: &Answer| -> Result<u64> {
        let answer = node.answer(patience)?;
        let cpu = cpu_us(&pids)?;
        ensure!(
            answer == *wanted,
            "{wanted:?} was expected, and {answer:?} came"
        );
        Ok(cpu)
    };
    let before = expect(&Answer::Opened)?;
    let cpu = expect(&Answer::Closed)? - before;
    let Answer::Measured(measured) = node.answer(patience)? else {
        bail!("no measurement came")
    };
    Ok(Row {
        clients: load.clients,
        commits_per_s: (measured.commits as f64 / measured.seconds) as u64,
        cpu_us_per_commit: cpu as f64 / measured.commits.max(1) as f64,
        measured,
    })
}

/// Waits until every node has been handed every command that was committed; says so if one was not.
fn all_delivered(nodes: &mut [Node], committed: u64) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let counts: Vec<_> = nodes
            .iter_mut()
            .map(|node| Ok(node.state()?.delivered))
            .collect::<Result<_>>()?;
        if counts.iter().all(|count| *count == counts[0]) && counts[0] >= committed {
            return Ok(true);
        }
        if Instant::now() > deadline {
            eprintln!(
                "bench: {committed} commands were committed, and the nodes were handed {counts:?}"
            );
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Ports below those that the kernel gives to connections, so that no dial takes one.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let free: Vec<_> = (first..32_000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect();
    ensure!(
        free.len() == count,
        "no {count} free ports from {first} to 32000"
    );
    Ok(free)
}
