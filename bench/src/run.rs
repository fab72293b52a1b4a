//! `bench run`: starts a cluster, measures each load that was asked for, and prints.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::builder::RangedU64ValueParser;

use crate::cluster::{Apart, Place, Shape};
use crate::clusters::Clusters;
use crate::machine::Machine;
use crate::plot;
use crate::protocol::{Load, Operation};
use crate::report::{Report, target, write_figures};

/// More on their way than this in an open loop, and the node would call itself busy.
const OPEN_IN_FLIGHT: usize = 32_768;

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many voters there are: 1 to 7.
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=7))]
    nodes: usize,
    /// How many clients ask at once, one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024", value_parser = at_least_one())]
    clients: Vec<usize>,
    /// How many proposals each client has on its way; in an open loop, how many there may be in all [default: 1; 32768].
    #[arg(long, value_parser = at_least_one())]
    in_flight: Option<usize>,
    /// An open loop instead of clients: so many are due each second, and latency counts from when each was due.
    #[arg(long, value_delimiter = ',', conflicts_with = "clients", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Vec<u64>,
    /// How many bytes each proposal has.
    #[arg(long, value_delimiter = ',', default_value = "256")]
    payload: Vec<usize>,
    /// Where the clients are.
    #[arg(long, value_enum, default_value_t = Place::Leader)]
    at: Place,
    /// Have the clients read and not propose: linearizable reads, asked at this node.
    #[arg(long, value_enum, conflicts_with_all = ["at", "payload"])]
    reads: Option<Place>,
    /// How many subscribers each node has.
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    /// Each node on the thread of its clients and subscribers.
    #[arg(long)]
    here: bool,
    /// Whether each node syncs its log on its own thread [default: with `--here` up to 16 proposals under way].
    #[arg(long, conflicts_with = "memory", num_args = 0..=1, default_missing_value = "true")]
    sync_inline: Option<bool>,
    /// Have the nodes speak TLS.
    #[arg(long, conflicts_with = "memory")]
    tls: bool,
    /// All nodes and the clients in one process without a wire, the logs in its memory.
    #[arg(long)]
    memory: bool,
    /// With `--memory`, which nodes apply, and hand over what they have applied, on a second thread [default: none, followers from
    /// 64 clients on, and all from 1,024 on].
    #[arg(long, requires = "memory")]
    apart: Option<Apart>,
    /// How long each measurement takes, after a warm-up of a third of it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    secs: u64,
    /// On whose disk the nodes keep their data, in a folder that is removed afterwards [default: the target folder].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Draw throughput and median latency over the number of clients into this file.
    #[arg(long, conflicts_with = "rate")]
    svg: Option<PathBuf>,
}

impl Options {
    fn shape(&self) -> Shape {
        Shape {
            nodes: self.nodes,
            outside: self.reads.unwrap_or(self.at) == Place::Outside,
            memory: self.memory,
            apart: self.apart,
            tls: self.tls,
            subscribers: self.subscribers,
            tally: false,
            here: self.here,
            sync_inline: self.sync_inline,
        }
    }

    fn loads(&self) -> Vec<Load> {
        let window_ms = self.secs * 1000;
        let load = Load {
            node: 0,
            operation: match self.reads {
                None => Operation::Propose,
                Some(_) => Operation::Read,
            },
            clients: 0,
            in_flight: self.in_flight.unwrap_or(1),
            rate: None,
            payload: 0,
            warm_up_ms: (window_ms / 3).max(500),
            window_ms,
        };
        // A read has none.
        let payloads = match self.reads {
            None => &self.payload[..],
            Some(_) => &[0],
        };
        let payloads = payloads.iter();
        let loads = payloads.flat_map(|payload| {
            let load = Load {
                payload: *payload,
                ..load
            };
            let closed = self.clients.iter().map(move |clients| Load {
                clients: *clients,
                ..load
            });
            let open = self.rate.iter().map(move |rate| Load {
                rate: Some(*rate),
                in_flight: self.in_flight.unwrap_or(OPEN_IN_FLIGHT),
                ..load
            });
            let closed = closed.filter(|_| self.rate.is_empty());
            open.chain(closed)
        });
        loads.collect()
    }
}

/// True when nothing failed and all nodes were handed the same commands.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let target = target()?;
    let data = options.data.as_deref().unwrap_or(&target);
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let mut report = Report {
        machine: Machine::look(data)?,
        shape: options.shape(),
        rows: Vec::new(),
    };
    let mut clusters = Clusters::default();
    if !options.json {
        println!("{}\n{}", report.heading(), Report::COLUMNS);
    }
    for load in options.loads() {
        let cluster = clusters.of(report.shape.under(&load), data)?;
        let row = cluster.measure(options.reads.unwrap_or(options.at), load)?;
        if !options.json {
            print!("{}", Report::lines(&row));
        }
        report.rows.push(row);
    }
    clusters.end()?;
    let delivered = clusters.delivered;
    let figures = report.figures();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}{}", report.shares(), figures.text());
    }
    write_figures("bench-run.txt", figures.text(), &target)?;
    if let Some(file) = &options.svg {
        let machine = &report.machine;
        let title = format!("raft-actor, {} nodes, {}", options.nodes, machine.date);
        plot::draw(&title, &report.series(), file)?;
    }
    Ok(!figures.missed() && delivered)
}
