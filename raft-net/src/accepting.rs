//! Accepting: the loop that has one socket and a task for each connection, and what happens at the door before it
//! is known who comes.
//!
//! Invariants: connections are bounded (`lobby.rs`); an error of one connection, or of `accept`, ends nothing else; when
//! the loop ends neither socket nor task is left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::cut::Cut;
use crate::gate::Gate;
use crate::handshake::Broken;
use crate::lobby::{Lobby, Place};
use crate::process::{HERE, Listening};
use crate::stream::{Stream, begins_with_tls};
use crate::tls::Insecure;
use crate::{Ending, Limits, Refusal, Tls};

/// How long to wait after `accept` has failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections may take to end after a stop, before they are dropped.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Where connections come in.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(std::net::TcpListener),
    Process(Arc<Listening>),
}

impl Socket {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Process(listening) => Self::Process(Arc::clone(listening)),
        })
    }

    fn open(self) -> io::Result<Open> {
        Ok(match self {
            Self::Tcp(socket) => Open::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Process(listening) => Open::Process(listening),
        })
    }
}

/// A socket, on this thread's runtime.
enum Open {
    Tcp(tokio::net::TcpListener),
    Process(Arc<Listening>),
}

impl Open {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, remote) = socket.accept().await?;
                Ok((Stream::Plain(stream), remote))
            }
            Self::Process(listening) => Ok((Stream::Process(listening.accept().await?), HERE)),
        }
    }
}

/// Whose connections come in.
pub(crate) trait Host: 'static {
    fn limits(&self) -> &Limits;

    /// One came.
    fn came(&self) {}

    /// `accept` failed.
    fn failed(&self) {}

    /// Turns away one for which there is no place. In the middle of a TLS handshake nothing can be said.
    fn full(&self, stream: Option<Stream>, remote: SocketAddr);

    /// Serves one until it ends.
    async fn serve(self: Arc<Self>, stream: Stream, remote: SocketAddr, cut: Cut, place: Place);
}

/// Accepts until `stop`.
pub(crate) async fn accept(
    socket: Socket,
    host: &Arc<impl Host>,
    stop: &CancellationToken,
) -> io::Result<()> {
    let socket = socket.open()?;
    let lobby = Lobby::default();
    let mut tasks = JoinSet::new();
    let mut gate = Gate::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                host.came();
                let address = remote.ip().to_canonical();
                if lobby.has_room(address, tasks.len(), host.limits()) {
                    let cut = Cut::below(stop);
                    let place = lobby.enter(address, cut.clone());
                    let span = tracing::info_span!("accepted", %remote);
                    let task = Arc::clone(host).serve(stream, remote, cut, place);
                    tasks.spawn_local(task.instrument(span));
                } else {
                    host.full(Some(stream), remote);
                }
            }
            Err(error) => {
                host.failed();
                if let Some(suppressed) = gate.pass(Instant::now()) {
                    tracing::warn!(%error, suppressed, "accept failed");
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(socket);
    // Every task hears of the stop by its cut.
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
        tasks.shutdown().await;
    }
    Ok(())
}

/// Looks at a node's TLS files for as long as it is polled; of one without TLS there are none.
pub(crate) async fn watch(tls: Option<&Tls>) -> std::convert::Infallible {
    match tls {
        Some(tls) => tls.watch().await,
        None => std::future::pending().await,
    }
}

/// The beginning of a connection, with TLS if this node has it; its caller has the deadline. What is in `door` is what
/// can be spoken on: nothing in the middle of a TLS handshake, or after one that came to nothing.
pub(crate) async fn enter<'a>(
    door: &'a mut Option<Stream>,
    tls: Option<&Tls>,
) -> Result<&'a mut Stream, Broken> {
    let stream = match (tls, door.take()) {
        (Some(tls), Some(Stream::Plain(socket))) => match tls.accept(socket).await {
            Ok(stream) => door.insert(stream),
            Err(Insecure::Plaintext(socket)) => {
                *door = Some(Stream::Plain(socket));
                return Err(Broken::Refused(Refusal::TlsWanted));
            }
            Err(Insecure::Broken(broken)) => return Err(broken),
        },
        (Some(_), Some(stream @ Stream::Process(_))) => {
            *door = Some(stream);
            return Err(Broken::Refused(Refusal::TlsWanted));
        }
        (_, Some(stream)) => door.insert(stream),
        (_, None) => return Err(Broken::Ended(Ending::Closed)),
    };
    if let Stream::Plain(socket) = stream
        && begins_with_tls(socket).await?
    {
        return Err(Broken::Refused(Refusal::NoTls));
    }
    Ok(stream)
}

/// What a side is told for which the handshake took too long.
pub(crate) fn slow(limits: &Limits) -> Refusal {
    let limit_ms = u64::try_from(limits.handshake_timeout.as_millis()).unwrap_or(u64::MAX);
    Refusal::Slow { limit_ms }
}

/// Says goodbye to a connection for which there is no time to be polite.
pub(crate) fn last_word(mut stream: Stream, refusal: &Refusal, limits: &Limits) {
    let Ok(frame) = refusal.encode(limits) else {
        return;
    };
    let word = async {
        stream.write_all(frame.as_bytes()).await?;
        stream.flush().await
    };
    // If it cannot be said at once, the end of the connection must do.
    let _: Option<io::Result<()>> = word.now_or_never();
}
