//! NATS JetStream: three servers, one stream on files with three replicas; with `sync_interval: always`, and as it comes,
//! which is an fsync every two minutes.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, StorageType};
use bytes::Bytes;

use super::{Ground, Outcome, PATIENCE, Peer, Stage, until, version};
use crate::load::{Client, closed_loop};
use crate::process::Process;

const NODES: usize = 3;
const STREAM: &str = "log";
const SUBJECT: &str = "log.entry";

/// How many clients share a connection.
const CLIENTS_FOR_EACH_CONNECTION: usize = 64;

pub(super) struct Nats {
    /// `sync_interval: always`.
    pub(super) sync: bool,
}

impl Peer for Nats {
    fn name(&self) -> &'static str {
        if self.sync { "nats" } else { "nats_no_fsync" }
    }

    fn what(&self) -> String {
        let version = version("nats-server").unwrap_or_else(|error| format!("({error:#})"));
        let sync = if self.sync {
            "sync_interval: always"
        } else {
            "as it comes, without fsync before the answer"
        };
        format!(
            "NATS JetStream {version}, three servers, a stream of three replicas on files, {sync}; clients at the stream's leader"
        )
    }

    fn differs(&self) -> &'static str {
        if self.sync {
            "its clients come over a socket; ours are in the leader's process"
        } else {
            "it answers before anything is on a disk; its clients come over a socket"
        }
    }

    fn program(&self) -> Option<&'static str> {
        Some("nats-server")
    }

    fn ports(&self) -> usize {
        2 * NODES
    }

    fn start(&self, ground: &Ground) -> Result<Vec<Process>> {
        let (clients, routes) = ground.ports.split_at(NODES);
        let mut processes = Vec::new();
        for node in 0..NODES {
            let file = ground.folder.join(format!("nats{node}.conf"));
            let store = ground.folder.join(format!("nats{node}"));
            let text = configuration(node, &store.to_string_lossy(), clients, routes, self.sync);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            let mut command = Command::new("nats-server");
            command.arg("--config").arg(file);
            processes.push(Process::start(
                &format!("nats{node}"),
                &command,
                &ground.folder,
            )?);
        }
        for (process, port) in processes.iter_mut().zip(clients) {
            process.listens(*port, PATIENCE, &ground.interrupted)?;
        }
        Ok(processes)
    }

    fn load<'a>(&'a self, stage: &'a Stage) -> Outcome<'a> {
        Box::pin(async move {
            let clients = &stage.ports[..NODES];
            let leader = until("the stream's leader", || leader(clients)).await?;
            let command = stage.load.command();
            let connections = stage.load.clients.div_ceil(CLIENTS_FOR_EACH_CONNECTION);
            let mut contexts = Vec::new();
            for _ in 0..connections {
                contexts.push(connect(leader).await?);
            }
            let clients = (0..stage.load.clients)
                .map(|number| Publisher {
                    context: contexts[number % connections].clone(),
                    payload: command.clone(),
                })
                .collect();
            closed_loop(clients, stage.load, &stage.counted).await
        })
    }
}

/// What server `node` reads at its start.
fn configuration(node: usize, store: &str, clients: &[u16], routes: &[u16], sync: bool) -> String {
    let others = routes
        .iter()
        .map(|port| format!("nats://127.0.0.1:{port}"))
        .collect::<Vec<_>>()
        .join(", ");
    let sync = if sync {
        "\n  sync_interval: always"
    } else {
        ""
    };
    format!(
        "server_name: {}\nlisten: 127.0.0.1:{}\njetstream {{\n  store_dir: {store:?}{sync}\n}}\n\
         cluster {{\n  name: peers\n  listen: 127.0.0.1:{}\n  routes: [{others}]\n}}\n",
        server(node),
        clients[node],
        routes[node],
    )
}

/// The name of a server, by which it is found as a leader.
fn server(node: usize) -> String {
    format!("n{node}")
}

async fn connect(port: u16) -> Result<jetstream::Context> {
    let client = async_nats::connect(format!("127.0.0.1:{port}")).await?;
    Ok(jetstream::context::ContextBuilder::new()
        .timeout(Duration::from_secs(5))
        .build(client))
}

/// Makes the stream where it is not there, and gives the port of the server that leads it.
async fn leader(ports: &[u16]) -> Result<u16> {
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        storage: StorageType::File,
        num_replicas: NODES,
        ..Config::default()
    };
    let mut stream = connect(ports[0])
        .await?
        .get_or_create_stream(config)
        .await?;
    let cluster = stream.info().await?.cluster.clone();
    let cluster = cluster.context("the stream is in no cluster")?;
    if cluster.replicas.len() != NODES - 1
        || cluster.replicas.iter().any(|replica| !replica.current)
    {
        bail!("not all replicas are there: {:?}", cluster.replicas);
    }
    let leader = cluster.leader.context("the stream has no leader")?;
    let place = (0..ports.len()).find(|node| server(*node) == leader);
    place
        .map(|place| ports[place])
        .with_context(|| format!("{leader} is none of ours"))
}

struct Publisher {
    context: jetstream::Context,
    payload: Bytes,
}

impl Client for Publisher {
    async fn commit(&mut self) -> Result<u64> {
        self.context
            .publish(SUBJECT, self.payload.clone())
            .await?
            .await?;
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_that_syncs_is_told_to() {
        let told = |sync| configuration(1, "/data", &[1, 2, 3], &[4, 5, 6], sync);
        assert!(told(true).contains("sync_interval: always"));
        assert!(!told(false).contains("sync_interval"));
        assert!(told(true).contains("server_name: n1\nlisten: 127.0.0.1:2\n"));
        assert!(told(true).contains("listen: 127.0.0.1:5\n  routes: [nats://127.0.0.1:4, "));
    }
}
