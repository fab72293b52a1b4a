//! A key-value store over HTTP, on one node or on many: what is put on any of them is read on all.
//!
//! `kv HTTP-ADDRESS ADDRESS FOLDER` begins a cluster, or goes on with the one of its folder; with addresses of members behind
//! it, it joins theirs. The node is an actor in the same system as the server, and each request is a message to it. A read is
//! linearizable unless it says `?stale`: it sees every put that was answered before it was asked, on whichever node.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use actix::{Addr, MailboxError};
use actix_web::http::StatusCode;
use actix_web::rt::signal::ctrl_c;
use actix_web::{App, HttpResponse, HttpServer, ResponseError, delete, get, post, put, web};
use anyhow::bail;
use raft_actor::{
    ApplyError, At, Capture, CodecError, Config, Consistency, Ended, GetMembers, GetStatus, Leave,
    MemberStatus, MembershipError, Propose, ProposeError, RaftActor, Read, ReadError, Shutdown,
    StateMachine, capture, restored,
};
use serde::{Deserialize, Serialize};

type Node = web::Data<Addr<RaftActor>>;

#[derive(Serialize, Deserialize)]
enum Command {
    Put { key: String, value: String },
    Delete { key: String },
}

#[derive(Default)]
struct Store(BTreeMap<String, String>);

impl StateMachine for Store {
    type Command = Command;
    /// What was there before.
    type Response = Option<String>;

    fn apply(&mut self, _: At, command: Command) -> Result<Option<String>, ApplyError> {
        Ok(match command {
            Command::Put { key, value } => self.0.insert(key, value),
            Command::Delete { key } => self.0.remove(&key),
        })
    }

    fn snapshot(&self) -> Capture {
        capture(self.0.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        self.0 = restored(from)?;
        Ok(())
    }
}

#[put("/kv/{key}")]
async fn put(node: Node, key: web::Path<String>, value: String) -> Result<HttpResponse, Failure> {
    let key = key.into_inner();
    apply(&node, &Command::Put { key, value }).await
}

#[delete("/kv/{key}")]
async fn delete(node: Node, key: web::Path<String>) -> Result<HttpResponse, Failure> {
    let key = key.into_inner();
    apply(&node, &Command::Delete { key }).await
}

/// On any node: it is forwarded to the leader, sent again if that dies, and applied once.
async fn apply(node: &Node, command: &Command) -> Result<HttpResponse, Failure> {
    let committed = node.send(Propose::of(command)?).await??;
    Ok(shown(committed.index, committed.response_as()?))
}

#[get("/kv/{key}")]
async fn read(
    node: Node,
    key: web::Path<String>,
    how: web::Query<BTreeMap<String, String>>,
) -> Result<HttpResponse, Failure> {
    let key = key.into_inner();
    let consistency = match how.contains_key("stale") {
        true => Consistency::Stale,
        false => Consistency::Linearizable,
    };
    let read = Read::new(move |store: &Store| store.0.get(&key).cloned());
    let read = node.send(read.consistency(consistency)).await??;
    Ok(match read.value {
        Some(value) => shown(read.index, Some(value)),
        None => HttpResponse::NotFound().finish(),
    })
}

/// A value, as of an entry of the log; nothing if there was none.
fn shown(index: impl fmt::Display, value: Option<String>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header(("index", index.to_string()));
    match value {
        Some(value) => response.body(value + "\n"),
        None => response.finish(),
    }
}

#[get("/members")]
async fn members(node: Node) -> Result<String, Failure> {
    let members = node.send(GetMembers).await??;
    let mut text = String::new();
    for MemberStatus {
        id, address, role, ..
    } in &members.members
    {
        let leads = if *id == members.leader { ", leads" } else { "" };
        text += &match role {
            Some(role) => format!("node {id} at {address}: {role:?}{leads}\n"),
            None => format!("node {id} at {address}\n"),
        };
    }
    if let Some(tolerance) = members.tolerance {
        text += &format!("{tolerance}\n");
    }
    Ok(text)
}

/// The node goes, for good; and with it this program.
#[post("/leave")]
async fn leave(node: Node) -> Result<&'static str, Failure> {
    node.send(Leave::default()).await??;
    Ok("gone for good\n")
}

/// Why a request was not answered with what it asked for, for who may ask again.
#[derive(Debug)]
struct Failure {
    /// Whether what was asked may have been done, or be done later.
    unknown: bool,
    why: String,
}

impl Failure {
    fn new(unknown: bool, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self { unknown, why }
    }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Self {
        Self::new(!error.is_certainly_not_applied(), error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(false, error)
    }
}

impl From<MembershipError> for Failure {
    fn from(error: MembershipError) -> Self {
        // What was asked for of the cluster may be asked for again, whatever has become of it.
        Self::new(false, error)
    }
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Self {
        Self::new(true, error)
    }
}

impl From<MailboxError> for Failure {
    fn from(error: MailboxError) -> Self {
        Self::new(true, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.why)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        match self.unknown {
            true => StatusCode::GATEWAY_TIMEOUT,
            false => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [http, address, folder, others @ ..] = &arguments[..] else {
        bail!("usage: kv HTTP-ADDRESS ADDRESS FOLDER [MEMBER-ADDRESS ...]");
    };
    let config = Config::at(address).data_dir(folder);
    let node = match others {
        [] => RaftActor::lead_with(config, Store::default()).await?,
        others => RaftActor::join_with(config, others, Store::default()).await?,
    };
    let id = node.send(GetStatus).await?.id;

    let shared = node.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(shared.clone()))
            .service((put, delete, read, members, leave))
    });
    // It would end the system at a signal, and the node with it, which is to be asked.
    let server = server.workers(2).disable_signals().bind(http)?;
    for address in server.addrs() {
        println!("node {id} serves http://{address}/kv/");
    }
    let server = server.run();
    let serving = server.handle();
    actix_web::rt::spawn(server);
    let ended = tokio::select! {
        signal = ctrl_c() => {
            signal?;
            node.send(Shutdown).await?
        }
        // It has left, or failed.
        ended = node.send(Ended) => ended?,
    };
    // What was asked last is still answered.
    serving.stop(true).await;
    Ok(ended?)
}
