//! Redis: one process, no replica, `appendfsync always`; `SET`, one for each round trip, or pipelines of them.

use std::process::Command;

use anyhow::Result;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline};

use super::{Ground, Outcome, PATIENCE, Peer, Stage, version};
use crate::load::{Client, closed_loop};
use crate::process::Process;

pub(super) struct Redis {
    /// How many commands a client sends before it waits.
    pub(super) pipeline: usize,
}

impl Peer for Redis {
    fn name(&self) -> &'static str {
        if self.pipeline > 1 {
            "redis_pipelined"
        } else {
            "redis"
        }
    }

    fn what(&self) -> String {
        let version = version("redis-server").unwrap_or_else(|error| format!("({error:#})"));
        let pipeline = match self.pipeline {
            1 => "one command for each round trip".to_owned(),
            many => format!("each client in pipelines of {many}"),
        };
        format!("one Redis {version}, appendfsync always, {pipeline}")
    }

    fn differs(&self) -> &'static str {
        if self.pipeline > 1 {
            "one node and one copy: what it answered is gone with its disk; each client has 64 commands on their way, ours one"
        } else {
            "one node and one copy: what it answered is gone with its disk; its clients come over a socket"
        }
    }

    fn program(&self) -> Option<&'static str> {
        Some("redis-server")
    }

    fn ports(&self) -> usize {
        1
    }

    fn start(&self, ground: &Ground) -> Result<Vec<Process>> {
        let port = ground.ports[0];
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(&ground.folder)
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            // Neither snapshots nor rewrites of the log beside the load: the best that it can do.
            .args(["--save", "", "--auto-aof-rewrite-percentage", "0"]);
        let mut process = Process::start("redis", &command, &ground.folder)?;
        process.listens(port, PATIENCE, &ground.interrupted)?;
        Ok(vec![process])
    }

    fn load<'a>(&'a self, stage: &'a Stage) -> Outcome<'a> {
        Box::pin(async move {
            let redis = redis::Client::open(format!("redis://127.0.0.1:{}", stage.ports[0]))?;
            // The load has its own way of not waiting for ever.
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_connection_timeout(Some(PATIENCE));
            let command = stage.load.command();
            let mut clients = Vec::new();
            for number in 0..stage.load.clients {
                // Each has a connection of its own; on a shared one they would be a pipeline.
                clients.push(Setter {
                    connection: redis
                        .get_multiplexed_async_connection_with_config(&config)
                        .await?,
                    pipeline: pipeline(number, &command, self.pipeline),
                    many: self.pipeline as u64,
                });
            }
            closed_loop(clients, stage.load, &stage.counted).await
        })
    }
}

fn pipeline(client: usize, command: &Bytes, many: usize) -> Pipeline {
    let mut pipeline = redis::pipe();
    for _ in 0..many {
        pipeline
            .cmd("SET")
            .arg(format!("k{client:06}"))
            .arg(&command[..])
            .ignore();
    }
    pipeline
}

struct Setter {
    connection: MultiplexedConnection,
    pipeline: Pipeline,
    many: u64,
}

impl Client for Setter {
    async fn commit(&mut self) -> Result<u64> {
        let () = self.pipeline.query_async(&mut self.connection).await?;
        Ok(self.many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_has_as_many_commands_as_it_counts() {
        let command = Bytes::from_static(b"xyz");
        for many in [1, 64] {
            let packed = pipeline(7, &command, many).get_packed_pipeline();
            let sets = String::from_utf8(packed).unwrap().matches("SET").count();
            assert_eq!(sets, many);
        }
    }
}
