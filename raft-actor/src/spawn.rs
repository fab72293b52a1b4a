//! How a node is put together.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use raft_core::{LogId, LogIndex, NodeId, Raft, Recovered, Term};
use raft_net::{BoundListener, FrameEncoder, Held, Limits, Listener, Local, SnapshotSender};
use raft_storage::{Identity, LogReads, LogStorage, LogStore, Opened};
use tokio::sync::watch;

use crate::birth::Forming;
use crate::boot_time::boot_time;
use crate::clock::Clock;
use crate::config::{Store, TICK};
use crate::delivery::{Delivery, Making, Progress, RecoverError, Replica};
use crate::door::Door;
use crate::front::RaftActor;
use crate::intake::Intake;
use crate::lag::Lag;
use crate::life::take_part;
use crate::machine::{BytesStateMachine, Machine};
use crate::node::{Life, Node, Peer, dial};
use crate::observe::{Observed, Observer};
use crate::parts::Parts;
use crate::reads::{Reading, Unconfirmed};
use crate::refused::Refused;
use crate::snapshot::Incoming;
use crate::snapshotting::Snapshotting;
use crate::transfer::Transfers;
use crate::witness::Greeting;
use crate::{Config, ConfigError, StartError};

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

fn start(config: Config, machine: Option<Box<dyn Machine>>) -> Result<Addr<RaftActor>, StartError> {
    System::try_current().ok_or(StartError::NoSystem)?;
    let addresses = config.validate()?;
    let mut core_config = config.core(addresses.keys().copied());
    if machine.is_none() {
        core_config.compaction_margin_entries = config.retention.unwrap_or(u64::MAX);
    }
    Raft::new(core_config.clone(), Recovered::default()).map_err(ConfigError::Core)?;
    let opened = open(&config)?;
    same_nodes(&opened, &addresses)?;
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
    let life = match identity.members.clone() {
        None => {
            let listed = addresses.keys().copied().collect();
            let forming = Forming::new(config.id, identity.incarnation, listed);
            Life::Forming { forming, recovered }
        }
        Some(members) => {
            let raft = take_part(&mut core_config, members, recovered)?;
            Life::Running(Box::new(raft))
        }
    };
    let own_address = addresses.get(&config.id).cloned().unwrap_or_default();
    let listen = config.listen.clone().unwrap_or_else(|| own_address.clone());
    let bound = Listener::bind(listen.as_str())?;
    let arbiter = Arbiter::new();
    let start = Start {
        config,
        core_config,
        addresses,
        store,
        replica,
        position,
        identity,
        held,
        life,
        took_part_since,
        bound,
    };
    Ok(RaftActor::start_in_arbiter(&arbiter.handle(), move |ctx| {
        assemble(ctx, start)
    }))
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
    config: Config,
    core_config: raft_core::Config,
    addresses: BTreeMap<NodeId, String>,
    store: Box<dyn LogStore>,
    replica: Replica,
    position: Position,
    identity: Identity,
    held: Held,
    life: Life,
    took_part_since: Duration,
    bound: BoundListener,
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

/// A cluster that was born of one list cannot go on with another.
fn same_nodes(opened: &Opened, addresses: &BTreeMap<NodeId, String>) -> Result<(), StartError> {
    let Some(members) = &opened.identity.members else {
        return Ok(());
    };
    if members.keys().eq(addresses.keys()) {
        return Ok(());
    }
    Err(StartError::OtherPeers {
        stored: members.keys().copied().collect(),
        listed: addresses.keys().copied().collect(),
    })
}

/// Makes the actors, on the thread that they will run on, and starts the node's parts.
fn assemble(ctx: &mut Context<RaftActor>, start: Start) -> RaftActor {
    let Start {
        config,
        core_config,
        addresses,
        store,
        replica,
        position,
        identity,
        held,
        life,
        took_part_since,
        bound,
    } = start;
    let front = ctx.address();
    let propose_timeout = config.propose_timeout;
    let door = Rc::new(Door::new(&config));
    let observed = Observed::new();

    let mut members: BTreeMap<_, _> = addresses.keys().map(|id| (*id, None)).collect();
    for (id, incarnation) in identity.members.iter().flatten() {
        members.insert(*id, Some(*incarnation));
    }
    members.insert(config.id, Some(identity.incarnation));
    let local = Local::new(
        config.id,
        identity.incarnation,
        identity.starts,
        identity.cluster,
        members,
        held,
    );
    local.advertise(config.advertise.as_ref().map_or_else(
        || addresses.get(&config.id).cloned().unwrap_or_default(),
        Clone::clone,
    ));
    let limits = Limits {
        frame_len_max: config.frame_len_max(core_config.append_bytes_max),
        snapshot_bytes_per_s: config.snapshot_bytes_per_s,
        ..Limits::default()
    };

    let mut parts = None;
    let mut last_status = None;
    let node = Node::create(|ctx| {
        let address = ctx.address();
        let events = address.clone().recipient();
        let inbound = address.clone().recipient();
        let snapshots = store.snapshots();
        let expected = Arc::default();
        let listener = bound.start(
            local.clone(),
            limits.clone(),
            inbound,
            events.clone(),
            Arc::new(Incoming {
                snapshots: Arc::clone(&snapshots),
                has_machine: replica.has_machine(),
                expected: Arc::clone(&expected),
            }),
            address.clone().recipient(),
        );
        let peers: BTreeMap<NodeId, Peer> = dial(config.id, &addresses, &local, &limits, &events);
        let greeting = Greeting::new(&peers, config.election_timeout_min);
        let senders: BTreeMap<_, _> = peers
            .iter()
            .map(|(id, peer)| (*id, peer.sender.clone()))
            .collect();
        let reads = LogReads::start(store.reader());
        let storage = LogStorage::start(store, address.clone().recipient()).addr;
        let (progress, progress_seen) = watch::channel(Progress::default());
        let lag = Arc::new(Lag::new(config.unapplied_bytes_max));
        let has_machine = replica.has_machine();
        let making = Making {
            id: config.id,
            replica,
            progress,
            lag: Arc::clone(&lag),
            reads: reads.clone(),
            storage: storage.clone(),
            snapshots: Arc::clone(&snapshots),
            node: address.clone().recipient(),
            failed: address.recipient(),
            peers: senders.clone(),
            encoder: FrameEncoder::new(&limits),
            first: position.first,
            snapshot: position.snapshot,
            last: position.last,
            cursors: position.cursors,
        };
        // The program's code may take its time, and must not keep the protocol from going on.
        let delivery = if has_machine {
            let arbiter = Arbiter::new().handle();
            Delivery::start_in_arbiter(&arbiter, |_| Delivery::new(making, true))
        } else {
            Delivery::new(making, false).start()
        };
        let snapshot_sender = SnapshotSender::new(local.clone(), &limits);
        let senders = senders.into_values().collect();
        // With leases on, no tick may count time that passed before a message that was handed over earlier.
        let ticks_max = match core_config.lease_drift_ticks {
            Some(_) => 1,
            None => core_config.heartbeat_ticks,
        };
        let node = Node {
            id: config.id,
            incarnation: identity.incarnation,
            cluster: identity.cluster,
            members: identity.members,
            reading_birth: false,
            clock: Clock::new(TICK, ticks_max, boot_time()),
            intake: Intake::new(&config, identity.starts, peers.keys().copied()),
            core_config,
            early_campaign: config.early_campaign,
            life,
            own_address: addresses.get(&config.id).cloned().unwrap_or_default(),
            peers,
            local,
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
            snapshotting: Snapshotting::new(
                snapshots,
                snapshot_sender,
                &config.snapshots,
                position.snapshot.index,
            ),
            unconfirmed: Unconfirmed::default(),
            transfers: Transfers::default(),
            took_part_since,
            leads_since: None,
            encoder: FrameEncoder::new(&limits),
            greeting,
            took_part: false,
            persists: Vec::new(),
            observer: Observer::new(config.id, Rc::clone(&observed)),
            to_apply: Vec::new(),
            expected,
            refused: Refused::new(config.id),
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
    }
}
