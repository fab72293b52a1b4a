//! How a node is put together.

use std::collections::BTreeMap;
use std::time::Instant;

use actix::prelude::*;
use raft_core::{LogIndex, NodeId, Raft, Recovered};
use raft_net::{FrameEncoder, Limits, Listener, Local};
use raft_storage::{LogReads, LogStorage, Opened};
use tokio::sync::watch;

use crate::actor::{Life, Peer, RaftActor, dial};
use crate::birth::Forming;
use crate::clock::Clock;
use crate::config::{Store, TICK};
use crate::delivery::Delivery;
use crate::intake::Intake;
use crate::life::take_part;
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
        let core_config = core_config(&config, addresses.keys().copied());
        Raft::new(core_config.clone(), Recovered::default()).map_err(ConfigError::Core)?;
        let opened = open(&config)?;
        same_nodes(&opened, &addresses)?;
        let own_address = addresses.get(&config.id).cloned().unwrap_or_default();
        let listen = config.listen.clone().unwrap_or_else(|| own_address.clone());
        let bound = Listener::bind(listen.as_str())?;
        let arbiter = Arbiter::new();
        Ok(Self::start_in_arbiter(&arbiter.handle(), move |ctx| {
            assemble(ctx, &config, core_config, &addresses, opened, bound)
        }))
    }
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

/// Makes the actor, on the thread that it will run on, and starts its parts.
fn assemble(
    ctx: &mut Context<RaftActor>,
    config: &Config,
    mut core_config: raft_core::Config,
    addresses: &BTreeMap<NodeId, String>,
    opened: Opened,
    bound: raft_net::BoundListener,
) -> RaftActor {
    let node = ctx.address();
    let Opened {
        store,
        recovered,
        identity,
    } = opened;
    // Each start draws other election timeouts, so that nodes do not fall into step.
    core_config.seed = (identity.incarnation.0 as u64) ^ identity.starts.rotate_left(32);

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
    );
    let limits = Limits {
        frame_len_max: config.frame_len_max(core_config.append_bytes_max),
        ..Limits::default()
    };
    let encoder = || FrameEncoder::new(&limits);
    let events = node.clone().recipient();
    let listener = bound.start(
        local.clone(),
        limits.clone(),
        node.clone().recipient(),
        events.clone(),
    );
    let peers: BTreeMap<NodeId, Peer> = dial(config.id, addresses, &local, &limits, &events);

    let reads = LogReads::start(store.reader());
    let storage = LogStorage::start(store, node.clone().recipient()).addr;
    let (applied, applied_seen) = watch::channel(LogIndex::ZERO);
    let senders = peers
        .iter()
        .map(|(id, peer)| (*id, peer.sender.clone()))
        .collect();
    let delivery =
        Delivery::new(applied, reads.clone(), node.recipient(), senders, encoder()).start();

    let listed = addresses.keys().copied().collect();
    let life = match identity.members {
        None => {
            let forming = Forming::new(config.id, identity.incarnation, listed);
            Life::Forming { forming, recovered }
        }
        Some(members) => take_part(&mut core_config, members, recovered),
    };
    RaftActor {
        id: config.id,
        incarnation: identity.incarnation,
        cluster: identity.cluster,
        reading_birth: false,
        clock: Clock::new(TICK, core_config.heartbeat_ticks, Instant::now()),
        intake: Intake::new(config, identity.starts, peers.keys().copied()),
        core_config,
        life,
        own_address: addresses.get(&config.id).cloned().unwrap_or_default(),
        peers,
        local,
        listener,
        storage,
        reads,
        delivery,
        applied: applied_seen,
        encoder: encoder(),
        took_part: false,
        persists: Vec::new(),
        commits: Vec::new(),
        enders: Vec::new(),
    }
}
