//! How a node is put together.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use raft_core::membership::Configuration;
use raft_core::{LogId, LogIndex, NodeId, Raft, Recovered, Term};
use raft_net::{
    BoundListener, FrameEncoder, Held, Limits, Listener, Local, PeerEvent, Recipients,
    SnapshotSender, Tls, TlsFiles, TlsName,
};
use raft_storage::{Identity, LogReads, LogStorage, LogStore, Opened, Record};
use tokio::sync::watch;

use crate::birth::Forming;
use crate::boot_time::boot_time;
use crate::changing::Changes;
use crate::clock::Clock;
use crate::config::{Store, TICK};
use crate::delivery::{Delivery, Making, Progress, RecoverError, Replica, Thread};
use crate::disk::Disk;
use crate::door::Door;
use crate::front::RaftActor;
use crate::intake::Intake;
use crate::joining::{Hosting, Search};
use crate::lag::Lag;
use crate::leaving::Leaving;
use crate::life::take_part;
use crate::machine::{BytesStateMachine, Machine};
use crate::managing::Managing;
use crate::members::{Following, complete};
use crate::node::{Life, Node};
use crate::observe::{Observed, Observer};
use crate::parts::{Parts, Senders};
use crate::reads::{Reading, Unconfirmed};
use crate::refused::Refused;
use crate::snapshot::Incoming;
use crate::snapshotting::Snapshotting;
use crate::witness::Greeting;
use crate::{Config, ConfigError, NodeFailure, StartError};

impl RaftActor {
    /// Starts a node without a state machine: a durable, totally ordered broadcast.
    ///
    /// It opens its folder, listens, and spawns its actors on threads of their own. It must be called inside an actix
    /// system, and blocks while it opens the log (about half a second for each million entries).
    ///
    /// The node takes part by itself; a cluster that starts for the first time needs all its nodes once,
    /// and then any majority of them. If it fails later, [`Ended`](crate::Ended) tells.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong with the configuration, the folder or the address.
    pub fn spawn(config: Config) -> Result<Addr<Self>, StartError> {
        start(config, None)
    }

    /// Starts a node that replicates `machine`, which has applied nothing: it is brought to where it was from the last
    /// snapshot and the log, unless it [keeps its state itself](BytesStateMachine::has_own_disk). All nodes of a cluster have
    /// the same machine. For the rest, see [`spawn`](Self::spawn).
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn); and if the state cannot be had back.
    pub fn spawn_with(
        config: Config,
        machine: impl BytesStateMachine,
    ) -> Result<Addr<Self>, StartError> {
        start(config, Some(Box::new(machine)))
    }
}

/// Goes on with the life that the folder has, or begins one with the peers that are listed.
fn start(config: Config, machine: Option<Box<dyn Machine>>) -> Result<Addr<RaftActor>, StartError> {
    let prepared = Prepared::new(config, machine)?;
    let identity = &prepared.opened.identity;
    match (identity.node, &identity.known) {
        (None, _) => Err(ConfigError::NotBorn.into()),
        (Some(id), None) if prepared.addresses.is_empty() => Err(ConfigError::Unborn { id }.into()),
        (Some(id), _) => prepared.go(id),
    }
}

/// A node that has its folder and its address, and does not run yet.
pub(crate) struct Prepared {
    pub(crate) config: Config,
    machine: Option<Box<dyn Machine>>,
    pub(crate) addresses: BTreeMap<NodeId, String>,
    /// Where others say that the nodes are.
    pub(crate) found: BTreeMap<NodeId, String>,
    /// That of a node that may be anybody's.
    pub(crate) tls: Option<Tls>,
    files: Option<TlsFiles>,
    tls_names: BTreeMap<NodeId, TlsName>,
    pub(crate) opened: Opened,
    /// None while the node is visited before it has an id.
    pub(crate) bound: Option<BoundListener>,
}

impl Prepared {
    pub(crate) fn new(
        config: Config,
        machine: Option<Box<dyn Machine>>,
    ) -> Result<Self, StartError> {
        System::try_current().ok_or(StartError::NoSystem)?;
        if config.here {
            // Its actors are tasks of this thread's runtime, which must have begun.
            let runs = tokio::runtime::Handle::try_current().is_ok();
            let here = Arbiter::try_current().filter(|_| runs);
            here.ok_or(StartError::NoSystem)?;
        }
        let addresses = config.validate()?;
        let any = config.id.unwrap_or(NodeId(1));
        let core_config = config.core(any, addresses.keys().copied());
        Raft::new(core_config, Recovered::default()).map_err(ConfigError::Core)?;
        let (tls, files, tls_names) = match config.checked_tls()? {
            Some((files, names)) => (Some(Tls::load(files.clone(), None)?), Some(files), names),
            None => (None, None, BTreeMap::new()),
        };
        let mut opened = open(&config)?;
        if opened.identity.has_departed() {
            let node = opened.identity.node;
            return Err(StartError::Departed { node });
        }
        if let Some(known) = &mut opened.identity.known {
            complete(known, &addresses);
        }
        let listed = config.id.and_then(|id| addresses.get(&id));
        let own = [config.listen.as_ref(), config.at.as_ref(), listed];
        let listen = own
            .into_iter()
            .flatten()
            .next()
            .cloned()
            .unwrap_or_default();
        let bound = Listener::bind(listen.as_str())?;
        let address = bound.local_addr();
        if tls.is_none() && !config.insecure && !address.ip().to_canonical().is_loopback() {
            return Err(StartError::Insecure { address });
        }
        Ok(Self {
            config,
            machine,
            addresses,
            found: BTreeMap::new(),
            tls,
            files,
            tls_names,
            opened,
            bound: Some(bound),
        })
    }

    /// Makes durable who this node is.
    pub(crate) fn record(&mut self, record: Record) -> Result<(), StartError> {
        let failed = |error| StartError::Node(NodeFailure::from(error));
        self.opened.store.record(&record).map_err(failed)?;
        let identity = &mut self.opened.identity;
        identity.node = record.node.or(identity.node);
        identity.cluster = record.cluster.or(identity.cluster);
        identity.known = record.known.or(identity.known.take());
        Ok(())
    }

    /// The name that its own certificate must hold, as node `id`.
    fn own_tls_name(&self, id: NodeId) -> TlsName {
        let known = self.opened.identity.known.as_ref();
        let recorded = known.and_then(|known| Some(known.about.get(&id)?.tls_name.clone()));
        let own = [self.config.own_tls_name.clone(), recorded];
        let own = own
            .into_iter()
            .flatten()
            .find_map(|name| TlsName::new(name).ok());
        let listed = || self.tls_names.get(&id).cloned();
        own.or_else(listed).unwrap_or_else(|| TlsName::of(id))
    }

    /// Runs it as node `id`.
    pub(crate) fn go(self, id: NodeId) -> Result<Addr<RaftActor>, StartError> {
        let own_name = self.own_tls_name(id);
        let Self {
            config,
            machine,
            addresses,
            found,
            tls: _,
            files,
            tls_names,
            opened,
            bound,
        } = self;
        let tls = files.map(|files| Tls::load(files, Some(own_name)));
        let tls = tls.transpose()?;
        let Some(bound) = bound else {
            unreachable!("a node that goes listens")
        };
        let mut core_config = config.core(id, []);
        if machine.is_none() {
            core_config.compaction_margin_entries = config.retention.unwrap_or(u64::MAX);
        }
        let Opened {
            store,
            mut recovered,
            mut identity,
            cursors,
        } = opened;
        let mut replica = Replica::new(machine);
        let snapshot = recovered.snapshot.as_ref().map(|snapshot| snapshot.last);
        replica
            .recover(store.snapshots().as_ref(), snapshot)
            .map_err(|error| match error {
                RecoverError::OwnDisk(why) => StartError::OwnDisk(why),
                RecoverError::Snapshot { last, why } => StartError::Restore { last, why },
            })?;
        let applied = replica.applied();
        if term_at(&recovered, applied.index) != Some(applied.term) {
            let last = recovered.last;
            return Err(StartError::OwnDisk(format!(
                "it has applied entry {applied}, which the log, ending at {last}, does not hold"
            )));
        }
        recovered.applied = applied.index;
        identity.cluster = identity.cluster.or(replica.cluster);
        replica.log_begins_at(recovered.log_start.index.next());
        // Each start draws other election timeouts, so that nodes do not fall into step.
        core_config.seed = (identity.incarnation.0 as u64) ^ identity.starts.rotate_left(32);
        core_config.start = identity.starts;
        let held = Held {
            term: recovered.hard_state.term,
            last: recovered.last,
        };
        let position = Position {
            first: recovered.log_start.index.next(),
            snapshot: snapshot.unwrap_or(LogId::ZERO),
            last: recovered.last.index,
            cursors,
        };
        let took_part_since = boot_time();
        let life = match &identity.known {
            None => {
                let listed = addresses.keys().copied().collect();
                let forming = Forming::new(id, identity.incarnation, listed);
                Life::Forming { forming, recovered }
            }
            Some(known) => {
                let raft = take_part(&mut core_config, known, recovered)?;
                same_nodes(&raft, known, &addresses)?;
                Life::Running(Box::new(raft))
            }
        };
        let start = Start {
            id,
            config,
            core_config,
            addresses,
            found,
            store,
            replica,
            position,
            identity,
            held,
            life,
            took_part_since,
            bound,
            tls,
            tls_names,
        };
        Ok(if start.config.here {
            RaftActor::create(|ctx| assemble(ctx, start))
        } else {
            RaftActor::start_in_arbiter(&Arbiter::new().handle(), |ctx| assemble(ctx, start))
        })
    }
}

/// Where the log and its readers stand at the start.
struct Position {
    first: LogIndex,
    snapshot: LogId,
    last: LogIndex,
    cursors: BTreeMap<String, LogIndex>,
}

/// The term of the entry at `index`, if the log reaches there.
fn term_at(recovered: &Recovered, index: LogIndex) -> Option<Term> {
    if index > recovered.last.index || index < recovered.log_start.index {
        return None;
    }
    let mut runs = std::iter::once(&recovered.log_start).chain(&recovered.terms);
    runs.rfind(|run| run.index <= index).map(|run| run.term)
}

/// What a node is made of, on its way to its own thread.
struct Start {
    id: NodeId,
    config: Config,
    core_config: raft_core::Config,
    addresses: BTreeMap<NodeId, String>,
    found: BTreeMap<NodeId, String>,
    store: Box<dyn LogStore>,
    replica: Replica,
    position: Position,
    identity: Identity,
    held: Held,
    life: Life,
    took_part_since: Duration,
    bound: BoundListener,
    tls: Option<Tls>,
    tls_names: BTreeMap<NodeId, TlsName>,
}

fn open(config: &Config) -> Result<Opened, StartError> {
    Ok(match &config.store {
        Store::Missing => return Err(ConfigError::NoDataDir.into()),
        #[cfg(feature = "rocksdb")]
        Store::Folder(dir) => raft_storage::open_rocksdb(dir, config.id)?,
        #[cfg(not(feature = "rocksdb"))]
        Store::Folder(_) => return Err(StartError::NoRocksDb),
        Store::Memory(disk) => disk.open(config.id)?,
    })
}

/// A cluster that was born of one list cannot go on with another, as long as it is what it was born as. When its
/// membership has changed since, the list says no more than where to look first.
fn same_nodes(
    raft: &Raft,
    known: &Configuration,
    addresses: &BTreeMap<NodeId, String>,
) -> Result<(), StartError> {
    let members = raft.configuration().members();
    let is_as_born = known.votes(raft.id()) && members == known.members();
    if is_as_born && !addresses.is_empty() && !members.iter().eq(addresses.keys()) {
        return Err(StartError::OtherPeers {
            stored: members.into_iter().collect(),
            listed: addresses.keys().copied().collect(),
        });
    }
    for id in addresses.keys().filter(|id| !members.contains(id)) {
        if !members.is_empty() {
            tracing::warn!(peer = %id, "node {id} is listed, and is no member as far as this node's log says");
        }
    }
    Ok(())
}

/// Makes the actors, on the thread that they will run on, and starts the node's parts.
fn assemble(ctx: &mut Context<RaftActor>, start: Start) -> RaftActor {
    let Start {
        id,
        config,
        core_config,
        addresses,
        found,
        store,
        replica,
        position,
        identity,
        held,
        life,
        took_part_since,
        bound,
        tls,
        tls_names,
    } = start;
    let front = ctx.address();
    let recorded = || {
        let about = identity
            .known
            .as_ref()
            .and_then(|known| known.about.get(&id));
        about.map(|about| about.address.clone())
    };
    let own_address = config.own_address().or_else(recorded).unwrap_or_default();
    let propose_timeout = config.propose_timeout;
    let door = Rc::new(Door::new(&config, id));
    let observed = Observed::new();

    let limits = Limits {
        frame_len_max: config.frame_len_max(core_config.append_bytes_max),
        snapshot_bytes_per_s: config.snapshot_bytes_per_s,
        ..Limits::default()
    };

    let mut parts = None;
    let mut last_status = None;
    let node = Node::create(|ctx| {
        let address = ctx.address();
        let events: Recipient<PeerEvent> = address.clone().recipient();
        let following = Following {
            known: identity.known.unwrap_or_default(),
            listed: addresses.clone(),
            tls_names,
            limits: limits.clone(),
            events: events.clone(),
            changed: false,
            seen: None,
        };
        let mut first = following.first();
        if let Some(own) = first.get_mut(&id) {
            own.incarnation = Some(identity.incarnation);
        }
        let mut local = Local::new(
            id,
            identity.incarnation,
            identity.starts,
            identity.cluster,
            first,
            held,
        );
        if let Some(tls) = &tls {
            local = local.with_tls(tls.clone());
        }
        for (id, address) in found.iter().chain(&addresses) {
            local.list(*id, address);
        }
        local.advertise(&own_address);
        let snapshots = store.snapshots();
        let expected = Arc::default();
        let listener = bound.start(
            local.clone(),
            limits.clone(),
            Recipients {
                inbound: address.clone().recipient(),
                events,
                arrived: address.clone().recipient(),
                visits: address.clone().recipient(),
            },
            Arc::new(Incoming {
                snapshots: Arc::clone(&snapshots),
                has_machine: replica.has_machine(),
                expected: Arc::clone(&expected),
            }),
        );
        let reads = LogReads::start(store.reader());
        let (disk, senders) = (Disk::default(), Senders::default());
        let told = address.clone().recipient();
        let speaker = disk.speaker(id, told, senders.clone(), &limits);
        let inline = config.sync_inline || config.here && matches!(config.store, Store::Memory(_));
        let storage = match inline {
            true => LogStorage::start_here(store, speaker),
            false => LogStorage::start(store, speaker),
        };
        let storage = storage.addr;
        let (progress, progress_seen) = watch::channel(Progress::default());
        let lag = Arc::new(Lag::new(config.unapplied_bytes_max));
        let has_machine = replica.has_machine();
        let making = Making {
            id,
            replica,
            progress,
            lag: Arc::clone(&lag),
            reads: reads.clone(),
            storage: storage.clone(),
            snapshots: Arc::clone(&snapshots),
            node: address.clone().recipient(),
            failed: address.recipient(),
            encoder: FrameEncoder::new(&limits),
            first: position.first,
            snapshot: position.snapshot,
            last: position.last,
            cursors: position.cursors,
        };
        // The program's code may take its time, and must not keep the protocol from going on.
        let delivery = match &config.delivers_on {
            Some(thread) => {
                Delivery::start_in_arbiter(thread, |_| Delivery::new(making, Thread::Given))
            }
            None if has_machine => {
                let arbiter = Arbiter::new().handle();
                Delivery::start_in_arbiter(&arbiter, |_| Delivery::new(making, Thread::Own))
            }
            None => Delivery::new(making, Thread::Nodes).start(),
        };
        let snapshot_sender = SnapshotSender::new(local.clone(), &limits);
        // With leases on, no tick may count time that passed before a message that was handed over earlier.
        let ticks_max = match core_config.lease_drift_ticks {
            Some(_) => 1,
            None => core_config.heartbeat_ticks,
        };
        let node = Node {
            id,
            incarnation: identity.incarnation,
            cluster: identity.cluster,
            reading_birth: false,
            clock: Clock::new(TICK, ticks_max, boot_time()),
            intake: Intake::new(&config, identity.starts),
            core_config,
            early_campaign: config.early_campaign,
            life,
            own_address,
            peers: BTreeMap::new(),
            local,
            following,
            door: Rc::clone(&door),
            front,
            parts: Parts {
                storage,
                delivery,
                listener,
                senders,
                snapshots: snapshot_sender.clone(),
            },
            reads,
            progress: progress_seen,
            lag,
            left_on_disk: LogIndex::ZERO,
            hosting: Hosting::new(&config, tls),
            listens: None,
            invitations: Vec::new(),
            search: Search::default(),
            snapshotting: Snapshotting::new(
                snapshots,
                snapshot_sender,
                &config.snapshots,
                position.snapshot.index,
            ),
            unconfirmed: Unconfirmed::default(),
            managing: Managing::new(identity.starts),
            changes: Changes::default(),
            leaving: Leaving::default(),
            took_part_since,
            leads_since: None,
            encoder: FrameEncoder::new(&limits),
            greeting: Greeting::new(config.election_timeout_min),
            took_part: false,
            persists: Vec::new(),
            disk,
            written_through: None,
            turn: 1,
            observer: Observer::new(id, Rc::clone(&observed)),
            to_apply: Vec::new(),
            not_urgent: Vec::new(),
            expected,
            refused: Refused::new(id),
            close_result: None,
            ended: Vec::new(),
            let_go: Vec::new(),
        };
        last_status = Some(node.status());
        parts = Some(node.parts.clone());
        node
    });
    // The closure above has run by now, and has set both.
    let (Some(parts), Some(last_status)) = (parts, last_status) else {
        unreachable!("an actor is made before it is started")
    };
    let delivery = parts.delivery.clone();
    RaftActor {
        node,
        delivery,
        door,
        reading: Reading::new(propose_timeout),
        parts,
        last_status,
        observed,
        in_a_row: 0,
        has_own_thread: !config.here,
    }
}
