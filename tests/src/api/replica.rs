//! One node in a process of its own, with the [`Machine`], asked over a control connection on loopback.
//!
//! It says nothing on standard output; what it has to say of itself is on standard error. When its node fails, the
//! process stays, so that it can be asked why.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use std::cell::RefCell;

use actix::prelude::*;
use anyhow::{Context as _, Result, bail, ensure};
use raft_actor::{
    ChangeMembership, Config, Consistency, DeliveredBatch, Ended, GetMembers, GetStatus, Leave,
    MemberRole, MemberStatus, NodeFailure, NodeId, OpenSession, Phase, ProposalId, Propose,
    ProposeError, RaftActor, Read, ReadError, Role, SessionId, Shutdown, Snapshots, StartError,
    Step, Subscribe, Subscribed, TakeSnapshot, TransferLeadership,
};
use rustix::process::{Signal, getpid, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::machine::{Command, Machine};
use super::recorder::Kept;
use super::sink::Sink;
use super::wire::{Ask, Member, Membership, Name, Refused, Reply, Request, Status, Told};

/// How a replica is started.
#[derive(Clone, Debug, clap::Parser)]
pub struct Arguments {
    /// The node's id, if it has one from the beginning.
    #[arg(long, requires = "peers")]
    pub id: Option<u64>,
    /// All nodes as `id=address`, with commas between: where this node reaches them.
    #[arg(long, requires = "id")]
    pub peers: Option<String>,
    /// It begins a cluster, or goes on with its own.
    #[arg(long, requires = "at", conflicts_with_all = ["peers", "join"])]
    pub lead: bool,
    /// It joins the cluster of these members, with commas between, or goes on with its own.
    #[arg(long, requires = "at", conflicts_with = "peers", value_delimiter = ',')]
    pub join: Option<Vec<String>>,
    /// Where it is, if it has no id from the beginning.
    #[arg(long)]
    pub at: Option<String>,
    /// In whose place it joins.
    #[arg(long)]
    pub replace: Option<u64>,
    /// It stays a learner.
    #[arg(long)]
    pub learner: bool,
    /// It lets nobody join.
    #[arg(long)]
    pub no_joins: bool,
    /// The process ends itself at this step of a join or of a leave.
    #[arg(long)]
    pub die_at: Option<String>,
    /// Its data folder.
    #[arg(long)]
    pub data: PathBuf,
    /// Where it is asked.
    #[arg(long)]
    pub control: SocketAddr,
    /// A snapshot after so many entries; 0: none by itself.
    #[arg(long, default_value_t = 0)]
    pub every_entries: u64,
    /// Entries that the log keeps before one.
    #[arg(long, default_value_t = 100)]
    pub margin: u64,
    /// Reads by lease, with clocks that drift so much from each other.
    #[arg(long)]
    pub lease_drift_ms: Option<u64>,
    /// A leader whose process has died is replaced only when the election timeout is over.
    #[arg(long)]
    pub no_early_campaign: bool,
    /// How fast it sends snapshots, in bytes per second, unless as nodes do by themselves.
    #[arg(long)]
    pub snapshot_bytes_per_s: Option<u64>,
    /// Where it tells the others to find it, if not at its address among the peers.
    #[arg(long)]
    pub advertise: Option<String>,
    /// Mutual TLS with the files of this folder: `ca.pem`, `node-ID.pem`, `node-ID.key`.
    #[arg(long)]
    pub tls: Option<PathBuf>,
}

/// Exit code: the node did not start.
pub const NOT_STARTED: i32 = 2;
/// Exit code: it did not start, because it has left the cluster, or was removed.
pub const DEPARTED: i32 = 3;

/// The lines of requests are at most so many under way on one connection; then no more are read.
const UNDER_WAY_MAX: usize = 1024;

/// How long what is answered last may take on its way.
const LAST_WORDS: Duration = Duration::from_millis(100);

struct Replica {
    raft: Addr<RaftActor>,
    flip: Arc<AtomicBool>,
    kept: Kept,
    subscriptions: RefCell<HashMap<String, Subscription>>,
}

struct Subscription {
    subscribed: Subscribed,
    go_on: watch::Sender<bool>,
    arbiter: Arbiter,
}

/// Runs a replica until it is shut down. Returns the exit code of its process.
pub fn run(arguments: &Arguments) -> i32 {
    let system = System::new();
    let code = match system.block_on(serve(arguments)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("replica: {error:#}");
            match error.downcast_ref() {
                Some(StartError::Departed { .. }) => DEPARTED,
                _ => NOT_STARTED,
            }
        }
    };
    // Not dropped: that would wait for whatever still blocks.
    std::mem::forget(system);
    code
}

fn config(arguments: &Arguments) -> Result<Config> {
    let config = match (arguments.id, &arguments.peers, &arguments.at) {
        (Some(id), Some(list), None) => {
            let mut peers = Vec::new();
            for peer in list.split(',') {
                let (id, address) = peer.split_once('=').context("a peer is id=address")?;
                peers.push((NodeId(id.parse().context("a node's id")?), address));
            }
            Config::new(NodeId(id)).peers(peers)
        }
        (None, None, Some(address)) => Config::at(address),
        _ => bail!("--id and --peers, or --at with --lead or --join"),
    };
    let config = match arguments.replace {
        Some(node) => config.replacing(NodeId(node)),
        None => config,
    };
    let snapshots = Snapshots {
        every_entries: arguments.every_entries,
        every_bytes: 0,
        margin_entries: arguments.margin,
    };
    let config = config
        .learner(arguments.learner)
        .joins(!arguments.no_joins)
        .at_step(die_at)
        .data_dir(&arguments.data)
        .snapshots(snapshots)
        .early_campaign(!arguments.no_early_campaign)
        .lease_reads(arguments.lease_drift_ms.map(Duration::from_millis));
    let config = match arguments.snapshot_bytes_per_s {
        Some(rate) => config.snapshot_bytes_per_s(rate),
        None => config,
    };
    let config = match &arguments.advertise {
        Some(address) => config.advertise(address),
        None => config,
    };
    Ok(match &arguments.tls {
        Some(folder) => {
            let id = arguments.id.context("TLS is for nodes with an id")?;
            let own = |ending| folder.join(format!("node-{id}.{ending}"));
            config.tls(folder.join("ca.pem"), own("pem"), own("key"))
        }
        // Some are in network namespaces, whose addresses are not loopback's.
        None => config.insecure(),
    })
}

/// At which step of a join or of a leave the process is to end.
static DIES_AT: Mutex<Option<String>> = Mutex::new(None);

fn set_die_at(step: &str) -> Result<()> {
    let is_one = Step::ALL.iter().any(|known| known.name() == step);
    ensure!(is_one, "no step {step}");
    let mut dies_at = DIES_AT.lock().unwrap_or_else(PoisonError::into_inner);
    *dies_at = Some(step.to_owned());
    Ok(())
}

/// Ends the process as a kill would, in the midst of the step.
fn die_at(step: Step) {
    let dies_at = DIES_AT.lock().unwrap_or_else(PoisonError::into_inner);
    if *dies_at == Some(step.name()) {
        eprintln!("replica: dies at {step:?}");
        // Nothing can stand in its way.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

async fn serve(arguments: &Arguments) -> Result<()> {
    if let Some(step) = &arguments.die_at {
        set_die_at(step)?;
    }
    // Before the node is there: what it counts is kept from the beginning on.
    let kept = Kept::default();
    metrics::set_global_recorder(kept.clone()).context("another recorder")?;
    let flip = Arc::new(AtomicBool::new(false));
    let machine = Machine::new(Arc::clone(&flip));
    let config = config(arguments)?;
    let raft = match &arguments.join {
        Some(members) => RaftActor::join_with(config, members.clone(), machine).await?,
        None if arguments.lead => RaftActor::lead_with(config, machine).await?,
        None => RaftActor::spawn_with(config, machine)?,
    };
    let replica = Rc::new(Replica {
        raft: raft.clone(),
        flip,
        kept,
        subscriptions: RefCell::default(),
    });
    let listener = TcpListener::bind(arguments.control).await;
    let listener = listener.with_context(|| format!("listen at {}", arguments.control))?;
    eprintln!("replica: serves at {}", arguments.control);
    let (end, mut ended) = mpsc::channel(1);
    let failed = async {
        match raft.send(Ended).await {
            // What is answered last is on its way.
            Ok(Ok(())) => actix::clock::sleep(LAST_WORDS).await,
            Ok(Err(failure)) => {
                eprintln!("replica: failed: {failure}");
                std::future::pending().await
            }
            Err(error) => {
                eprintln!("replica: failed: {error}");
                std::future::pending().await
            }
        }
    };
    let accepted = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    actix::spawn(converse(Rc::clone(&replica), stream, end.clone()));
                }
                Err(error) => eprintln!("replica: accept: {error}"),
            }
        }
    };
    tokio::select! {
        () = failed => {}
        () = accepted => {}
        _ = ended.recv() => {}
    }
    Ok(())
}

async fn converse(replica: Rc<Replica>, stream: TcpStream, end: mpsc::Sender<()>) {
    // Small answers are not to wait for each other.
    let _ = stream.set_nodelay(true);
    let (from, mut to) = stream.into_split();
    let (replies, mut queue) = mpsc::channel::<String>(UNDER_WAY_MAX);
    actix::spawn(async move {
        while let Some(line) = queue.recv().await {
            // The client is gone, and its answers with it.
            if to.write_all(line.as_bytes()).await.is_err() {
                break;
            }
        }
    });
    let places = Arc::new(tokio::sync::Semaphore::new(UNDER_WAY_MAX));
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(Request { number, ask }) = serde_json::from_str(&line) else {
            eprintln!("replica: no request: {line:?}");
            return;
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (replica, replies, end) = (Rc::clone(&replica), replies.clone(), end.clone());
        actix::spawn(async move {
            let ends = matches!(ask, Ask::Shutdown | Ask::Leave);
            let told = replica.answer(ask).await;
            let is_done = told.is_ok();
            if let Ok(line) = serde_json::to_string(&Reply { number, told }) {
                let _ = replies.send(line + "\n").await;
            }
            drop(place);
            if ends && is_done {
                actix::clock::sleep(LAST_WORDS).await;
                let _ = end.send(()).await;
            }
        });
    }
}

type Answered = Result<Told, Refused>;

impl Replica {
    async fn answer(&self, ask: Ask) -> Answered {
        match ask {
            Ask::OpenSession => {
                let opened = self.raft.send(OpenSession::new()).await.map_err(gone)?;
                opened
                    .map(|session| Told::Session(session.0))
                    .map_err(unproposed)
            }
            Ask::Propose {
                command,
                name,
                timeout_ms,
            } => self.propose(&command, name, timeout_ms).await,
            Ask::Read {
                key,
                stale,
                timeout_ms,
            } => {
                let read = Read::new(move |machine: &Machine| machine.register(key));
                let timeout = Duration::from_millis(timeout_ms);
                self.read(read.timeout(timeout), stale).await
            }
            Ask::Counter { stale } => self.read(Read::new(Machine::counter), stale).await,
            Ask::BulkHash => self.read(Read::new(Machine::bulk_hash), true).await,
            Ask::Status => self.status().await,
            Ask::Subscribe {
                cursor,
                file,
                stalled,
            } => self.subscribe(cursor, file, stalled).await.map_err(failed),
            Ask::GoOn { cursor } => match self.subscriptions.borrow().get(&cursor) {
                Some(subscription) => {
                    subscription.go_on.send_replace(true);
                    Ok(Told::Done)
                }
                None => Err(failed("no such subscription")),
            },
            Ask::Unsubscribe { cursor } => {
                let subscription = self.subscriptions.borrow_mut().remove(&cursor);
                let Some(subscription) = subscription else {
                    return Err(failed("no such subscription"));
                };
                // Not in order: the subscriber is gone in the middle of whatever it was at.
                subscription.arbiter.stop();
                subscription.subscribed.cancel();
                subscription.subscribed.ended().await;
                Ok(Told::Done)
            }
            Ask::Snapshot => {
                let taken = self.raft.send(TakeSnapshot).await.map_err(gone)?;
                taken.map(|last| Told::Value(last.index.0)).map_err(failed)
            }
            Ask::Metrics => Ok(Told::Metrics(self.kept.all())),
            Ask::Flip => {
                self.flip.store(true, Ordering::Relaxed);
                Ok(Told::Done)
            }
            Ask::Marks { below } => {
                let read = Read::new(move |machine: &Machine| machine.marks(below));
                let read = self.raft.send(read.consistency(Consistency::Stale)).await;
                let read = read.map_err(gone)?.map_err(failed)?;
                Ok(Told::Marks(read.value))
            }
            Ask::Members => self.members().await,
            Ask::Change { remove, forced } => {
                let nothing = ChangeMembership::new();
                let remove = remove.into_iter().map(NodeId);
                let change = remove.fold(nothing, ChangeMembership::remove);
                let change = if forced { change.forced() } else { change };
                let changed = self.raft.send(change).await.map_err(gone)?;
                changed.map(|_| Told::Done).map_err(failed)
            }
            Ask::Transfer { to } => {
                let to = to.map(NodeId);
                let transferred = self.raft.send(TransferLeadership { to }).await;
                let transferred = transferred.map_err(gone)?;
                transferred.map(|node| Told::Value(node.0)).map_err(failed)
            }
            Ask::Leave => {
                let left = self.raft.send(Leave::default()).await.map_err(gone)?;
                left.map(|()| Told::Done).map_err(failed)
            }
            Ask::DieAt { step } => set_die_at(&step).map(|()| Told::Done).map_err(failed),
            Ask::Shutdown => {
                let ended = self.raft.send(Shutdown).await.map_err(gone)?;
                ended.map(|()| Told::Done).map_err(failed)
            }
        }
    }

    async fn propose(&self, command: &Command, name: Name, timeout_ms: u64) -> Answered {
        let propose = Propose::of(command).map_err(failed)?;
        let propose = propose.timeout(Duration::from_millis(timeout_ms));
        let propose = match name {
            Name::Node => propose,
            Name::Nothing => propose.without_session(),
            Name::Client {
                session,
                sequence,
                done_below,
            } => {
                let session = SessionId(session);
                let id = ProposalId { session, sequence };
                propose.with_id(id).done_below(done_below)
            }
        };
        let committed = self.raft.send(propose).await.map_err(gone)?;
        let committed = committed.map_err(unproposed)?;
        Ok(Told::Applied {
            index: committed.index.0,
            response: committed.response_as().map_err(failed)?,
        })
    }

    async fn read(&self, read: Read<Machine, u64>, stale: bool) -> Answered {
        let consistency = match stale {
            true => Consistency::Stale,
            false => Consistency::Linearizable,
        };
        let read = self.raft.send(read.consistency(consistency)).await;
        match read.map_err(gone)? {
            Ok(read) => Ok(Told::Value(read.value)),
            Err(error @ ReadError::Panicked(_)) => Err(failed(error)),
            Err(error) => Err(Refused {
                for_certain: true,
                for_good: false,
                why: error.to_string(),
            }),
        }
    }

    async fn members(&self) -> Answered {
        let members = self.raft.send(GetMembers).await.map_err(gone)?;
        let all = members.map_err(failed)?;
        let member = |member: &MemberStatus| Member {
            id: member.id.0,
            votes: member.role == Some(MemberRole::Voter),
            address: member.address.clone(),
            healthy: member.healthy == Some(true),
        };
        let is_leaving = |member: &&MemberStatus| member.role == Some(MemberRole::Leaving);
        Ok(Told::Members(Membership {
            leader: all.leader.0,
            term: all.term.0,
            index: all.index.0,
            settled: all.committed && !all.joint && !all.members.iter().any(|m| is_leaving(&m)),
            members: all.members.iter().map(member).collect(),
            tolerance: all.tolerance.map(|tolerance| tolerance.now as u64),
        }))
    }

    async fn status(&self) -> Answered {
        let status = self.raft.send(GetStatus).await.map_err(gone)?;
        let failure = match &status.phase {
            Phase::Failed(failure) => Some(failure),
            _ => None,
        };
        let others = status.members.iter().filter(|m| m.id != status.id);
        Ok(Told::Status(Status {
            id: status.id.0,
            connected: others.filter(|m| m.connected).count() as u64,
            is_leader: status.role == Role::Leader,
            leader: status.leader.map(|leader| leader.0),
            term: status.term.0,
            commit: status.commit.0,
            applied: status.applied.0,
            snapshot: status.snapshot.0,
            is_running: status.phase == Phase::Running,
            is_diverged: matches!(failure, Some(NodeFailure::Diverged { .. })),
            is_removed: matches!(failure, Some(NodeFailure::Removed { .. })),
            failure: failure.map(ToString::to_string),
        }))
    }

    async fn subscribe(&self, cursor: String, file: PathBuf, stalled: bool) -> Result<Told> {
        let opened = File::options().create(true).append(true).open(&file);
        let file = opened.with_context(|| format!("open {}", file.display()))?;
        let (go_on, goes_on) = watch::channel(!stalled);
        let sink = Sink::new(file, goes_on)?;
        let arbiter = Arbiter::new();
        let sink = Sink::start_in_arbiter(&arbiter.handle(), |_| sink);
        let subscribe = Subscribe::from_cursor(&cursor, sink.clone().recipient::<DeliveredBatch>())
            .or_compacted(sink.recipient());
        let subscribed = self.raft.send(subscribe).await??;
        let next = subscribed.next.0;
        let subscription = Subscription {
            subscribed,
            go_on,
            arbiter,
        };
        if self
            .subscriptions
            .borrow_mut()
            .insert(cursor, subscription)
            .is_some()
        {
            bail!("the node let two subscriptions use one cursor");
        }
        Ok(Told::Subscribed(next))
    }
}

fn failed(why: impl ToString) -> Refused {
    Refused {
        for_certain: false,
        for_good: false,
        why: why.to_string(),
    }
}

/// The node's actor is gone.
fn gone(error: MailboxError) -> Refused {
    failed(error)
}

fn unproposed(error: ProposeError) -> Refused {
    Refused {
        for_certain: error.is_certainly_not_applied(),
        for_good: matches!(
            error,
            ProposeError::SessionExpired(_)
                | ProposeError::Done(_)
                | ProposeError::ResponseForgotten { .. }
                | ProposeError::BeyondWindow(_)
        ),
        why: error.to_string(),
    }
}
