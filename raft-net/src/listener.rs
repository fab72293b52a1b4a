//! The accepting side: one actor with one socket, and a task for each connection.
//!
//! Invariant: after a [`Stop`] neither socket nor task is left.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::accepted::Doorkeeper;
use crate::accepting::{self, Socket};
use crate::process::{HERE, Listening, is_within_process};
use crate::{
    Ending, Inbound, Limits, Local, PeerEvent, ReceptionStats, SnapshotArrived, SnapshotReceiver,
    Tls, TlsStats, Visit,
};

/// Why a node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process, or another node of this one, listens there.
    #[error("address {address} is in use: something else listens there already")]
    AddressInUse {
        /// The address.
        address: String,
    },
    /// The system does not allow it, or there is no such address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Who is told what comes in.
#[derive(Clone, Debug)]
pub struct Recipients {
    /// What peers send. A connection ends when the actor behind it is gone.
    pub inbound: Recipient<Inbound>,
    /// Who comes, goes and is refused.
    pub events: Recipient<PeerEvent>,
    /// Snapshots that have come whole.
    pub arrived: Recipient<SnapshotArrived>,
    /// What those ask who are no peers, or none yet.
    pub visits: Recipient<Visit>,
}

/// A socket that listens, on which nobody is accepted yet.
#[derive(Debug)]
pub struct BoundListener {
    pub(crate) socket: Socket,
    pub(crate) local_addr: SocketAddr,
}

impl BoundListener {
    /// Where it listens; with the port that the system chose, if port 0 was asked for. For one inside this process
    /// `127.0.0.1:0` stands.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Starts to accept, on the current arbiter. What snapshots bring goes to `receiver`, all else to `recipients`.
    #[must_use]
    pub fn start(
        self,
        local: Local,
        limits: Limits,
        recipients: Recipients,
        receiver: Arc<dyn SnapshotReceiver>,
    ) -> Addr<Listener> {
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        let keeper = Arc::new(Doorkeeper::new(local, limits, recipients, receiver));
        Context::new().run(Listener {
            socket: Some(self.socket),
            local_addr: self.local_addr,
            keeper,
            stop,
            ended,
        })
    }
}

/// Accepts the peers' connections.
pub struct Listener {
    socket: Option<Socket>,
    local_addr: SocketAddr,
    keeper: Arc<Doorkeeper>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Listener {
    /// Listens on `address` (`host:port`); nobody is accepted before
    /// [`start`](BoundListener::start).
    ///
    /// At `memory/NAME:PORT` it listens inside this process: whoever dials that address in it is connected by a pipe and no
    /// socket, and no other process can. It is for tests, and for measuring a cluster without its network; all else is as
    /// over TCP, but that there is no TLS: a node that has TLS is not reached so, and reaches nobody. Everybody who comes
    /// counts as one address ([`Limits::connections_per_address_max`]).
    ///
    /// # Errors
    /// The address is in use, or cannot be listened on.
    pub fn bind(address: impl Display) -> Result<BoundListener, ListenError> {
        let address = address.to_string();
        let bind = || {
            if is_within_process(&address) {
                let socket = Socket::Process(Arc::new(Listening::bind(&address)?));
                let local_addr = HERE;
                return Ok(BoundListener { socket, local_addr });
            }
            let socket = std::net::TcpListener::bind(&address)?;
            socket.set_nonblocking(true)?;
            let local_addr = socket.local_addr()?;
            let socket = Socket::Tcp(socket);
            Ok(BoundListener { socket, local_addr })
        };
        bind().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::AddressInUse { address },
            _ => ListenError::Bind { address, source },
        })
    }
}

impl Actor for Listener {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        let (keeper, stop) = (Arc::clone(&self.keeper), self.stop.clone());
        let ended = self.ended.clone().drop_guard();
        let span =
            tracing::info_span!("listen", node = %keeper.local.node(), at = %self.local_addr);
        let task = async move {
            let accepting = AssertUnwindSafe(accept(socket, &keeper, &stop));
            let reason = match accepting.catch_unwind().await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Ending::Io(error)),
                Err(_) => Some(Ending::Panicked),
            };
            drop(ended);
            if let Some(reason) = reason {
                tracing::error!(%reason, "the listener failed");
                keeper.events.do_send(PeerEvent::ListenerFailed { reason });
            }
        };
        actix_rt::spawn(task.instrument(span));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stop.cancel();
    }
}

/// Closes a [`Listener`], its socket and all its connections, and drops the beginnings of snapshots. It is
/// answered when nothing is left; then the actor is gone. Only a snapshot that waits for the disk is not
/// waited for longer than a second; its thread ends when the disk answers.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

impl Handler<Stop> for Listener {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) -> Self::Result {
        self.stop.cancel();
        ctx.stop();
        let ended = self.ended.clone();
        Box::pin(async move { ended.cancelled().await })
    }
}

/// Asks a [`Listener`] what it has done so far.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ListenerStats")]
pub struct GetListenerStats;

/// What a [`Listener`] has done since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, MessageResponse)]
pub struct ListenerStats {
    /// Connections that came.
    pub connections: u64,
    /// Main connections of peers that became established.
    pub accepted: u64,
    /// Urgent ones that did.
    pub accepted_urgent: u64,
    /// Connections that ended in the middle of the handshake, neither accepted nor refused.
    pub broken: u64,
    /// Refusals, by [`Refusal::number`](crate::Refusal::number).
    pub refused: BTreeMap<u8, u64>,
    /// Established connections that ended because of a malformed frame, by
    /// [`DecodeError::name`](crate::DecodeError::name).
    pub malformed: BTreeMap<&'static str, u64>,
    /// Connections whose task panicked.
    pub panicked: u64,
    /// Failures of `accept`.
    pub accept_failures: u64,
    /// Frames handed over.
    pub frames: u64,
    /// Batches that they were handed over in.
    pub batches: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// Visits that were answered, and not refused.
    pub visits: u64,
    /// What came of the snapshots that were offered.
    pub snapshots: ReceptionStats,
    /// What has become of the TLS files, if this node has TLS.
    pub tls: Option<TlsStats>,
}

impl Handler<GetListenerStats> for Listener {
    type Result = ListenerStats;

    fn handle(&mut self, _: GetListenerStats, _: &mut Self::Context) -> Self::Result {
        ListenerStats {
            snapshots: self.keeper.receiving.stats().clone(),
            tls: self.keeper.local.tls().map(Tls::stats),
            ..self.keeper.stats().clone()
        }
    }
}

/// Accepts until `stop`, and keeps what hangs on time meanwhile.
async fn accept(
    socket: Socket,
    keeper: &Arc<Doorkeeper>,
    stop: &CancellationToken,
) -> io::Result<()> {
    tokio::select! {
        biased;
        ended = accepting::accept(socket, keeper, stop) => ended?,
        never = keeper.receiving.expire() => match never {},
        never = accepting::watch(keeper.local.tls()) => match never {},
    }
    keeper.receiving.close().await;
    Ok(())
}
