//! To a peer's address, and through the handshake.
//!
//! Invariant: both have a deadline, and leave nothing behind when they fail.

use std::io;

use raft_core::NodeId;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::cut::Cut;
use crate::decode::FrameDecoder;
use crate::handshake::{Broken, confirm, read_introduction, write_frame};
use crate::header::FrameKind;
use crate::local::{Admission, Purpose, Side};
use crate::process::{self, is_within_process};
use crate::socket::configure;
use crate::stream::Stream;
use crate::{DialError, Ending, Limits, Local, PeerHello};

/// So many addresses are taken of what a name leads to.
const ADDRESSES_MAX: usize = 16;

/// What `address` leads to.
pub(crate) async fn resolve(address: &str, limits: &Limits) -> Result<Vec<String>, DialError> {
    if is_within_process(address) {
        return Ok(vec![address.to_owned()]);
    }
    let limit = limits.connect_timeout;
    #[cfg(not(test))]
    let target = address;
    #[cfg(test)]
    let target = crate::tests::looked_up(address);
    let found = timeout(limit, lookup_host(target)).await;
    let found = found.map_err(|_| DialError::TimedOut {
        address: address.to_owned(),
        limit,
    })?;
    let found = found.map_err(|source| DialError::Connect {
        address: address.to_owned(),
        source,
    })?;
    let found = found.take(ADDRESSES_MAX);
    Ok(found.map(|address| address.to_string()).collect())
}

/// Connects to `address`.
pub(crate) async fn dial(address: &str, limits: &Limits) -> Result<Stream, DialError> {
    let failed = |source| DialError::Connect {
        address: address.to_owned(),
        source,
    };
    let limit = limits.connect_timeout;
    #[cfg(not(test))]
    let target = address;
    #[cfg(test)]
    let target = crate::tests::looked_up(address);
    let connect = async {
        if is_within_process(address) {
            return Ok(Stream::Process(process::connect(address).await?));
        }
        let socket = TcpStream::connect(target).await?;
        // A dial of a free port of this host can meet itself, and would then hold the port.
        if socket.local_addr()? == socket.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Stream::Plain(socket))
    };
    let stream = timeout(limit, connect)
        .await
        .map_err(|_| DialError::TimedOut {
            address: address.to_owned(),
            limit,
        })?
        .map_err(failed)?;
    configure(&stream, limits).map_err(failed)?;
    Ok(stream)
}

/// The dialling side's handshake, with TLS if this node has it.
pub(crate) async fn greet(
    peer: NodeId,
    purpose: Purpose,
    local: &Local,
    limits: &Limits,
    stream: Stream,
    decoder: &mut FrameDecoder,
    cut: &Cut,
) -> Result<(Stream, Admission, PeerHello), Broken> {
    let limit = limits.handshake_timeout;
    let handshake = async {
        let mut stream = match local.tls() {
            Some(tls) => {
                let name = local.tls_name(peer);
                tls.connect(name, stream, decoder).await?
            }
            None => stream,
        };
        let hello = local.introduction(peer).encode(purpose.hello(), limits);
        write_frame(&mut stream, hello).await?;
        let (_, theirs) = read_introduction(&mut stream, decoder, &[FrameKind::Welcome]).await?;
        confirm(&mut stream, theirs.nonce, limits).await?;
        let shown = stream.shown();
        match local.admit(Side::Dialled(peer), purpose, &theirs, shown, cut) {
            Ok(admission) => Ok((stream, admission, theirs.hello())),
            Err(refusal) => {
                // If it cannot be told, the end of the connection must do.
                let refuse = refusal.without_secrets().encode(limits);
                let _ = write_frame(&mut stream, refuse).await;
                Err(Broken::Refused(refusal))
            }
        }
    };
    let limited = async {
        Ok(timeout(limit, handshake)
            .await
            .unwrap_or(Err(Broken::Ended(Ending::Stalled(limit)))))
    };
    cut.guard(limited).await.map_err(Broken::Ended)?
}
