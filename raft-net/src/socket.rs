//! How a socket is set up and written to.
//!
//! Invariants: no small frame waits for an acknowledgement (`TCP_NODELAY`); a peer whose host is
//! gone, or which reads nothing, is noticed within [`Limits::stall_timeout`], so that every wait
//! ends.

use std::io::{self, IoSlice};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::handshake::write_frame;
use crate::stream::Stream;
use crate::{EncodeError, EncodedFrame, Ending, Limits};

/// Sets what every socket has set; a pipe has nothing to set.
pub(crate) fn configure(stream: &Stream, limits: &Limits) -> io::Result<()> {
    let Stream::Plain(stream) = stream else {
        return Ok(());
    };
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    // Three silent probes after half of the time make the whole.
    let probe = (limits.stall_timeout / 6).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new()
        .with_time((limits.stall_timeout / 2).max(Duration::from_secs(1)))
        .with_interval(probe)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(limits.stall_timeout))?;
    #[cfg(test)]
    crate::tests::configured(stream);
    Ok(())
}

/// How long a refused connection is kept so that the refusal arrives: a socket closed over unread bytes
/// resets the connection, and takes the refusal with it.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_millis(500);

/// So much is read of what a stranger goes on sending that is refused, so that it hears why.
pub(crate) const LINGER_LEN_MAX: usize = 64 << 10;

/// Waits, after something was said that ends the connection, for the other side to have read it.
pub(crate) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = timeout(LINGER_TIMEOUT, drain(stream, LINGER_LEN_MAX)).await;
}

/// Says a last word and waits for the other side to have read it, which shows in the end of what it sends,
/// of which `len_max` bytes are read. If it cannot be said in time, the end of the connection must do.
pub(crate) async fn farewell(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    frame: Result<EncodedFrame, EncodeError>,
    len_max: usize,
) {
    let farewell = async {
        write_frame(stream, frame).await?;
        Ok::<_, Ending>(drain(stream, len_max).await?)
    };
    let _ = timeout(LINGER_TIMEOUT, farewell).await;
}

/// Says that no more will come, and reads until the other side says so, or `len_max` bytes.
async fn drain(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    len_max: usize,
) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = stream.take(len_max as u64);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Writes `first` and then `second`, whole, with as few calls as the system allows; tells how many.
/// Fails when nothing moves for `stall_timeout`, or when what TLS has buffered of it does not go out in that time.
pub(crate) async fn write_both(
    stream: &mut (impl AsyncWrite + Unpin),
    mut first: &[u8],
    mut second: &[u8],
    stall_timeout: Duration,
) -> Result<u64, Ending> {
    let mut writes = 0;
    while !(first.is_empty() && second.is_empty()) {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let slices = if first.is_empty() {
            &slices[1..]
        } else {
            &slices[..]
        };
        let written = timeout(stall_timeout, stream.write_vectored(slices))
            .await
            .map_err(|_| Ending::Stalled(stall_timeout))??;
        if written == 0 {
            return Err(Ending::Closed);
        }
        writes += 1;
        let of_first = written.min(first.len());
        first = &first[of_first..];
        second = &second[written - of_first..];
    }
    timeout(stall_timeout, stream.flush())
        .await
        .map_err(|_| Ending::Stalled(stall_timeout))??;
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[actix_rt::test]
    async fn writes_both_whole_through_a_narrow_pipe() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let first: Vec<u8> = (0..50).collect();
        let second: Vec<u8> = (50..151).collect();
        let write = async {
            write_both(&mut near, &first, &second, Duration::from_secs(5))
                .await
                .unwrap();
            drop(near);
        };
        let mut read = Vec::new();
        let (_, result) = tokio::join!(write, far.read_to_end(&mut read));
        result.unwrap();
        assert_eq!(read, (0..151).collect::<Vec<u8>>());
    }

    #[actix_rt::test]
    async fn a_reader_that_reads_nothing_stalls_the_write() {
        let (mut near, _far) = tokio::io::duplex(7);
        let limit = Duration::from_millis(10);
        let result = write_both(&mut near, &[0; 50], &[], limit).await;
        assert!(matches!(result, Err(Ending::Stalled(_))));
    }
}
