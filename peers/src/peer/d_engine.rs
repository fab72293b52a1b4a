//! d-engine: three processes, each with one member of its embedded engine and files as its store; the clients are in the
//! leader's process, as ours are.
//!
//! What it says is committed is not yet on a disk: a follower acknowledges what it has in memory, and syncs behind that.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use d_engine::{EmbeddedClient, EmbeddedEngine, FileStateMachine, FileStorageEngine};

use super::{Ground, Outcome, PATIENCE, Peer, Stage, locked_version};
use crate::load::{Client, closed_loop};
use crate::process::Process;

const NODES: usize = 3;

pub(super) struct DEngine;

impl Peer for DEngine {
    fn name(&self) -> &'static str {
        "d_engine"
    }

    fn what(&self) -> String {
        let version = locked_version("d-engine");
        format!(
            "d-engine {version}, embedded in three processes, file store, timeouts of ten seconds; clients in the leader's process"
        )
    }

    fn differs(&self) -> &'static str {
        "it answers before its log is synced: followers acknowledge from memory; its clients are in the leader's process, as ours"
    }

    fn program(&self) -> Option<&'static str> {
        None
    }

    fn ports(&self) -> usize {
        NODES
    }

    fn start(&self, _: &Ground) -> Result<Vec<Process>> {
        Ok(Vec::new())
    }

    fn members(&self) -> usize {
        NODES
    }

    fn load<'a>(&'a self, stage: &'a Stage) -> Outcome<'a> {
        Box::pin(async move {
            let folder = stage
                .folder
                .join(format!("d-engine{}-{}", stage.member, stage.load.clients));
            fs::create_dir_all(&folder)?;
            let file = folder.join("config.toml");
            let data = folder.to_string_lossy();
            fs::write(&file, configuration(stage.member, &stage.ports, &data))?;
            let storage = FileStorageEngine::new(folder.join("storage"))?;
            let machine = FileStateMachine::new(folder.join("machine")).await?;
            let file = file.to_str().context("a folder with a name in UTF-8")?;
            let engine =
                EmbeddedEngine::start_custom(Arc::new(storage), Arc::new(machine), Some(file))
                    .await?;
            engine.wait_ready(PATIENCE).await?;
            if !engine.is_leader() {
                // It has only to be there, until the runner ends it.
                std::future::pending::<()>().await;
            }
            let command = stage.load.command();
            let clients = (0..stage.load.clients)
                .map(|number| Putter {
                    engine: engine.client(),
                    key: Bytes::from(format!("k{number:06}")),
                    value: command.clone(),
                })
                .collect();
            closed_loop(clients, stage.load, &stage.counted).await
        })
    }
}

/// What a member reads at its start.
fn configuration(member: usize, ports: &[u16], data: &str) -> String {
    // A voter that is there from the beginning: role 1 and status 3, as its protocol numbers them.
    let mut members = String::new();
    for (member, port) in ports.iter().enumerate() {
        let id = member + 1;
        // Writing to a string cannot fail.
        let _ = write!(
            members,
            "{{ id = {id}, address = \"127.0.0.1:{port}\", role = 1, status = 3 }}, "
        );
    }
    format!(
        "[cluster]\nnode_id = {}\nlisten_address = \"127.0.0.1:{}\"\ninitial_cluster = [{members}]\n\
         db_root_dir = {data:?}\nlog_dir = {data:?}\n\n\
         [raft]\n\
         # As it comes this is 50 ms, in which a put fails under load.\n\
         general_raft_timeout_duration_in_ms = 10000\n",
        member + 1,
        ports[member],
    )
}

struct Putter {
    engine: Arc<EmbeddedClient>,
    key: Bytes,
    value: Bytes,
}

impl Client for Putter {
    async fn commit(&mut self) -> Result<u64> {
        self.engine.put(&self.key, &self.value).await?;
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_knows_itself_and_all() {
        let told = configuration(2, &[11, 12, 13], "/data");
        assert!(told.contains("node_id = 3\nlisten_address = \"127.0.0.1:13\""));
        for (id, port) in [(1, 11), (2, 12), (3, 13)] {
            assert!(told.contains(&format!("id = {id}, address = \"127.0.0.1:{port}\"")));
        }
    }
}
