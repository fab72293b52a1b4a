//! A child: one node, a subscriber that counts what it is handed, and clients when the parent asks for them.
//!
//! It ends when the parent asks it to, or when its standard input ends, which it does with the parent.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::prelude::*;
use anyhow::{Context as _, Result, anyhow};
use raft_actor::{
    Config, ConfigArgs, DeliveredBatch, GetStatus, Phase, RaftActor, Role, Shutdown, Subscribe,
};
use tokio::sync::mpsc;

use crate::clients;
use crate::protocol::{Answer, Request, State};

/// What a child is told at its start.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    node: ConfigArgs,
}

/// Runs a node until the parent ends it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let config = options.node.config()?;
    System::new().block_on(serve(config))
}

async fn serve(config: Config) -> Result<()> {
    let raft = RaftActor::spawn(config)?;
    let delivered = Arc::new(AtomicU64::new(0));
    // On a thread of its own, as a program would have it.
    let counter = Counter {
        delivered: Arc::clone(&delivered),
    };
    let counter = Counter::start_in_arbiter(&Arbiter::new().handle(), |_| counter);
    raft.send(Subscribe::from_start(counter.recipient::<DeliveredBatch>()))
        .await
        .context("the node")?
        .context("subscribe")?;
    let mut requests = requests();
    while let Some(request) = requests.recv().await {
        match request? {
            Request::State => {
                let status = raft.send(GetStatus).await.context("the node")?;
                say(&Answer::State(State {
                    running: status.phase == Phase::Running,
                    leads: status.role == Role::Leader,
                    leader: status.leader.map(|id| id.0),
                    term: status.term.0,
                    delivered: delivered.load(Ordering::Relaxed),
                }))?;
            }
            Request::Measure(load) => {
                let raft = raft.clone();
                let measured = actix_rt::task::spawn_blocking(move || {
                    // If the parent is gone, so are we when its input ends.
                    let tell = |answer| drop(say(&answer));
                    clients::measure(
                        &raft,
                        load,
                        || tell(Answer::Opened),
                        || tell(Answer::Closed),
                    )
                });
                let answer = match measured.await.context("the clients")? {
                    Ok(measured) => Answer::Measured(measured),
                    Err(error) => Answer::Failed(format!("{error:#}")),
                };
                say(&answer)?;
            }
            Request::End => {
                raft.send(Shutdown)
                    .await
                    .context("the node")?
                    .context("the node ended in failure")?;
                return say(&Answer::Ended);
            }
        }
    }
    // The parent is gone, and nobody reads what a measurement under way would find.
    std::process::exit(1);
}

/// Counts what it is handed.
struct Counter {
    delivered: Arc<AtomicU64>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<DeliveredBatch> for Counter {
    type Result = ();

    fn handle(&mut self, DeliveredBatch(batch): DeliveredBatch, _: &mut Self::Context) {
        self.delivered
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
}

/// The lines of standard input, read by a thread that ends the process with its parent, whatever it is doing.
fn requests() -> mpsc::Receiver<Result<Request>> {
    let (requests, queue) = mpsc::channel(4);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let request = line
                .map_err(|error| anyhow!(error))
                .and_then(|line| serde_json::from_str(&line).context("a request"));
            if requests.blocking_send(request).is_err() {
                return;
            }
        }
        std::process::exit(1);
    });
    queue
}

fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
