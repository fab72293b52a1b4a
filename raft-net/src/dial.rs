//! To a peer's address, and through the handshake.
//!
//! Invariant: both have a deadline, and leave nothing behind when they fail.

use std::io;

use raft_core::NodeId;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cut::Cut;
use crate::decode::FrameDecoder;
use crate::handshake::{Broken, confirm, read_introduction, write_frame};
use crate::header::FrameKind;
use crate::local::{Admission, Purpose, Side};
use crate::socket::configure;
use crate::{DialError, Ending, Limits, Local, PeerHello};

/// Connects to `address`.
pub(crate) async fn dial(address: &str, limits: &Limits) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect {
        address: address.to_owned(),
        source,
    };
    let limit = limits.connect_timeout;
    #[cfg(not(test))]
    let target = address;
    #[cfg(test)]
    let target = crate::tests::looked_up(address);
    let stream = timeout(limit, TcpStream::connect(target))
        .await
        .map_err(|_| DialError::TimedOut {
            address: address.to_owned(),
            limit,
        })?
        .map_err(failed)?;
    // A dial of a free port of this host can meet itself, and would then hold the port.
    if stream.local_addr().map_err(failed)? == stream.peer_addr().map_err(failed)? {
        return Err(failed(io::ErrorKind::ConnectionRefused.into()));
    }
    configure(&stream, limits).map_err(failed)?;
    Ok(stream)
}

/// The dialling side's handshake.
pub(crate) async fn greet(
    peer: NodeId,
    purpose: Purpose,
    local: &Local,
    limits: &Limits,
    stream: &mut TcpStream,
    decoder: &mut FrameDecoder,
    cut: &Cut,
) -> Result<(Admission, PeerHello), Broken> {
    let limit = limits.handshake_timeout;
    let handshake = async {
        let hello = local.introduction(peer).encode(purpose.hello(), limits);
        write_frame(stream, hello).await?;
        let (_, theirs) = read_introduction(stream, decoder, &[FrameKind::Welcome]).await?;
        confirm(stream, theirs.nonce, limits).await?;
        match local.admit(Side::Dialled(peer), purpose, &theirs, cut) {
            Ok(admission) => Ok((admission, theirs.hello())),
            Err(refusal) => {
                // If it cannot be told, the end of the connection must do.
                let refuse = refusal.without_secrets().encode(limits);
                let _ = write_frame(stream, refuse).await;
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
