//! etcd: three processes, all as it comes, so fsync before the answer; `Put` over gRPC.

use std::process::Command;

use anyhow::{Result, bail};
use bytes::Bytes;
use etcd_client::KvClient;

use super::{Ground, Outcome, PATIENCE, Peer, Stage, until, version};
use crate::load::{Client, closed_loop};
use crate::process::Process;

const NODES: usize = 3;

/// How many clients share a connection.
const CLIENTS_FOR_EACH_CONNECTION: usize = 16;

pub(super) struct Etcd;

impl Peer for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn what(&self) -> String {
        let version = version("etcd").unwrap_or_else(|error| format!("({error:#})"));
        format!("etcd {version}, three processes, fsync, gRPC to the leader")
    }

    fn differs(&self) -> &'static str {
        "its clients come over a socket, and it keeps every revision of a key-value store; ours are in the leader's process"
    }

    fn program(&self) -> Option<&'static str> {
        Some("etcd")
    }

    fn ports(&self) -> usize {
        2 * NODES
    }

    fn start(&self, ground: &Ground) -> Result<Vec<Process>> {
        let (clients, peers) = ground.ports.split_at(NODES);
        let cluster = peers
            .iter()
            .enumerate()
            .map(|(node, port)| format!("n{node}=http://127.0.0.1:{port}"))
            .collect::<Vec<_>>()
            .join(",");
        let mut processes = Vec::new();
        for node in 0..NODES {
            let (client, peer) = (clients[node], peers[node]);
            let mut command = Command::new("etcd");
            command
                .arg("--data-dir")
                .arg(ground.folder.join(format!("etcd{node}")))
                .args(["--name", &format!("n{node}")])
                .args([
                    "--listen-client-urls",
                    &format!("http://127.0.0.1:{client}"),
                ])
                .args([
                    "--advertise-client-urls",
                    &format!("http://127.0.0.1:{client}"),
                ])
                .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
                .args([
                    "--initial-advertise-peer-urls",
                    &format!("http://127.0.0.1:{peer}"),
                ])
                .args(["--initial-cluster", &cluster])
                // Nothing of it is for speed: so that it says only what went wrong, and never stops for its size.
                .args(["--log-level", "warn", "--quota-backend-bytes", "8589934592"]);
            processes.push(Process::start(
                &format!("etcd{node}"),
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
            let leader = until("etcd's leader", || leader(&stage.ports[..NODES])).await?;
            let command = stage.load.command();
            let connections = stage.load.clients.div_ceil(CLIENTS_FOR_EACH_CONNECTION);
            let mut kvs = Vec::new();
            for _ in 0..connections {
                kvs.push(connect(leader).await?.kv_client());
            }
            let clients = (0..stage.load.clients)
                .map(|number| Putter {
                    kv: kvs[number % connections].clone(),
                    key: format!("k{number:06}").into_bytes(),
                    value: command.clone(),
                })
                .collect();
            closed_loop(clients, stage.load, &stage.counted).await
        })
    }
}

async fn connect(port: u16) -> Result<etcd_client::Client> {
    Ok(etcd_client::Client::connect([format!("http://127.0.0.1:{port}")], None).await?)
}

/// The port of the node that leads.
async fn leader(ports: &[u16]) -> Result<u16> {
    for port in ports {
        let status = connect(*port).await?.status().await?;
        let id = status.header().map(|header| header.member_id());
        if status.leader() != 0 && id == Some(status.leader()) {
            return Ok(*port);
        }
    }
    bail!("no node leads")
}

struct Putter {
    kv: KvClient,
    key: Vec<u8>,
    value: Bytes,
}

impl Client for Putter {
    async fn commit(&mut self) -> Result<u64> {
        self.kv
            .put(self.key.clone(), self.value.clone(), None)
            .await?;
        Ok(1)
    }
}
