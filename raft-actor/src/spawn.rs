//! How a node is put together.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use raft_core::{LogIndex, NodeId, Raft, Recovered};
use raft_net::{BoundListener, FrameEncoder, Held, Limits, Listener, Local};
use raft_storage::{Identity, LogReads, LogStorage, LogStore, Opened};
use tokio::sync::watch;

use crate::birth::Forming;
use crate::clock::Clock;
use crate::config::{Store, TICK};
use crate::delivery::Delivery;
use crate::door::Door;
use crate::front::RaftActor;
use crate::intake::Intake;
use crate::life::take_part;
use crate::node::{Life, Node, Peer, dial};
use crate::parts::Parts;
use crate::snapshots::NoSnapshots;
use crate::witness::Greeting;
use crate::{Config, ConfigError, StartError};

impl RaftActor {
    /// Starts a node: opens its folder, listens, and spawns its actors on threads of their own. It must be
    /// called inside an actix system, and blocks while it opens the log (about half a second for each
    /// million entries).
    ///
    /// The node takes part by itself; a cluster that starts for the first time needs all its nodes once,
    /// and then any majority of them. If it fails later, [`Ended`](crate::Ended) tells.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong with the configuration, the folder or the address.
    pub fn spawn(config: Config) -> Result<Addr<Self>, StartError> {
        System::try_current().ok_or(StartError::NoSystem)?;
        let addresses = config.validate()?;
        let mut core_config = core_config(&config, addresses.keys().copied());
        Raft::new(core_config.clone(), Recovered::default()).map_err(ConfigError::Core)?;
        let opened = open(&config)?;
        same_nodes(&opened, &addresses)?;
        let Opened {
            store,
            recovered,
            identity,
            cursors: _,
        } = opened;
        if let Some(snapshot) = &recovered.snapshot {
            let last = snapshot.last;
            return Err(StartError::NeedsStateMachine { last });
        }
        // Each start draws other election timeouts, so that nodes do not fall into step.
        core_config.seed = (identity.incarnation.0 as u64) ^ identity.starts.rotate_left(32);
        core_config.start = identity.starts;
        let held = Held {
            term: recovered.hard_state.term,
            last: recovered.last,
        };
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
            identity,
            held,
            life,
            bound,
        };
        Ok(Self::start_in_arbiter(&arbiter.handle(), move |ctx| {
            assemble(ctx, start)
        }))
    }
}

/// What a node is made of, on its way to its own thread.
struct Start {
    config: Config,
    core_config: raft_core::Config,
    addresses: BTreeMap<NodeId, String>,
    store: Box<dyn LogStore>,
    identity: Identity,
    held: Held,
    life: Life,
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

fn core_config(config: &Config, voters: impl Iterator<Item = NodeId>) -> raft_core::Config {
    let mut core = raft_core::Config::new(config.id, voters);
    core.heartbeat_ticks = Config::ticks(config.heartbeat_interval);
    core.election_timeout_ticks_min = Config::ticks(config.election_timeout_min);
    core.election_timeout_ticks_max = Config::ticks(config.election_timeout_max);
    core
}

/// Makes the actors, on the thread that they will run on, and starts the node's parts.
fn assemble(ctx: &mut Context<RaftActor>, start: Start) -> RaftActor {
    let Start {
        config,
        core_config,
        addresses,
        store,
        identity,
        held,
        life,
        bound,
    } = start;
    let front = ctx.address();
    let door = Rc::new(Door::new(&config));

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
    let limits = Limits {
        frame_len_max: config.frame_len_max(core_config.append_bytes_max),
        ..Limits::default()
    };

    let mut parts = None;
    let mut last_status = None;
    let node = Node::create(|ctx| {
        let address = ctx.address();
        let events = address.clone().recipient();
        let inbound = address.clone().recipient();
        let listener = bound.start(
            local.clone(),
            limits.clone(),
            inbound,
            events.clone(),
            Arc::new(NoSnapshots),
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
        let (applied, applied_seen) = watch::channel(LogIndex::ZERO);
        let encoder = FrameEncoder::new(&limits);
        let failed = address.recipient();
        let delivery =
            Delivery::new(applied, reads.clone(), failed, senders.clone(), encoder).start();
        let senders = senders.into_values().collect();
        let node = Node {
            id: config.id,
            incarnation: identity.incarnation,
            cluster: identity.cluster,
            members: identity.members,
            reading_birth: false,
            clock: Clock::new(TICK, core_config.heartbeat_ticks, Instant::now()),
            intake: Intake::new(&config, identity.starts, peers.keys().copied()),
            core_config,
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
            },
            reads,
            applied: applied_seen,
            encoder: FrameEncoder::new(&limits),
            greeting,
            took_part: false,
            persists: Vec::new(),
            commits: Vec::new(),
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
        parts,
        last_status,
        in_a_row: 0,
    }
}
