//! What a connection's bytes go through: TCP as it is, or TLS over it; or a pipe, when both sides are in one process.
//!
//! Invariants:
//! - Without TLS nothing stands between a connection and its socket but one branch.
//! - Of a side that has not shown its certificate no more than [`HANDSHAKE_LEN_MAX`] bytes are read, and nothing
//!   at all if its first byte is no TLS.
//! - What is written may wait in TLS's own buffer, of at most 64 KiB, until it is flushed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::process::Pipe;
use crate::queue::Way;
use crate::tls::{Loaded, explain};

/// The most bytes of the other side's TLS handshake. A certificate with its chain has one to six thousand.
pub(crate) const HANDSHAKE_LEN_MAX: usize = 16 << 10;

/// The first byte of a TLS connection: a record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// The first byte of one whose other side gives up at once: an alert.
const TLS_ALERT: u8 = 0x15;

/// A connection, in the clear or not.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<Secured>),
    /// Inside this process, where there is no TLS.
    Process(Pipe),
}

/// A TLS connection whose other side has shown a certificate that this side trusts.
pub(crate) struct Secured {
    tls: TlsStream<Metered>,
    /// What this side has shown.
    own: Arc<Loaded>,
}

impl Stream {
    /// The certificate that the other side has shown, with TLS.
    pub(crate) fn shown(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) | Self::Process(_) => None,
            Self::Tls(secured) => secured.tls.get_ref().1.peer_certificates()?.first(),
        }
    }

    /// How frames get to the other side, beside being written here.
    pub(crate) fn way(&self) -> Way {
        match self {
            // Without a second handle on it, as there may be too few, all is written here.
            Self::Plain(socket) => match SockRef::from(socket).try_clone() {
                Ok(socket) => Way::Socket(Arc::new(socket.into())),
                Err(_) => Way::Lane,
            },
            Self::Process(pipe) => pipe.way(),
            Self::Tls(_) => Way::Lane,
        }
    }

    /// The handshake is over: from now on nothing is metered.
    pub(crate) fn secured(stream: impl Into<TlsStream<Metered>>, own: Arc<Loaded>) -> Self {
        let mut tls = stream.into();
        tls.get_mut().0.left = None;
        Self::Tls(Box::new(Secured { tls, own }))
    }

    /// Takes it from this thread's runtime, so that another thread can go on with it.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        let (socket, secured) = match self {
            Self::Plain(socket) => (Some(socket), None),
            Self::Tls(mut secured) => (secured.tls.get_mut().0.socket.take(), Some(secured)),
            Self::Process(pipe) => return Ok(Detached::Process(pipe)),
        };
        let socket = socket.ok_or_else(detached)?.into_std()?;
        Ok(Detached::Socket(socket, secured))
    }
}

/// A stream on its way to another thread.
pub(crate) enum Detached {
    Socket(std::net::TcpStream, Option<Box<Secured>>),
    /// No runtime's.
    Process(Pipe),
}

impl Detached {
    /// Goes on, on this thread's runtime.
    pub(crate) fn attach(self) -> io::Result<Stream> {
        let (socket, secured) = match self {
            Self::Socket(socket, secured) => (TcpStream::from_std(socket)?, secured),
            Self::Process(pipe) => return Ok(Stream::Process(pipe)),
        };
        Ok(match secured {
            None => Stream::Plain(socket),
            Some(mut secured) => {
                secured.tls.get_mut().0.socket = Some(socket);
                Stream::Tls(secured)
            }
        })
    }
}

fn detached() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Stream::Tls(secured) => {
                let own = &secured.own;
                let $stream = Pin::new(&mut secured.tls);
                $call.map_err(|error| explain(error, own))
            }
            Stream::Process(pipe) => {
                let $stream = Pin::new(&mut pipe.bytes);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(cx))
    }
}

/// A socket of which, until the TLS handshake is over, a bounded number of bytes is read.
pub(crate) struct Metered {
    /// Gone while the stream is [`Detached`].
    socket: Option<TcpStream>,
    /// How many bytes the other side may still send; none once it is known.
    left: Option<usize>,
}

/// What came first is no TLS. It is still unread.
#[derive(Debug, thiserror::Error)]
#[error("the other side does not speak TLS")]
pub(crate) struct NotTls;

/// The handshake is longer than any should be.
#[derive(Debug, thiserror::Error)]
#[error("the TLS handshake is longer than {HANDSHAKE_LEN_MAX} bytes")]
pub(crate) struct HandshakeTooLong;

impl Metered {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            socket: Some(socket),
            left: Some(HANDSHAKE_LEN_MAX),
        }
    }

    pub(crate) fn into_inner(self) -> Option<TcpStream> {
        self.socket
    }

    fn socket(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let socket = self.get_mut().socket.as_mut();
        Ok(Pin::new(socket.ok_or_else(detached)?))
    }

    /// Reads no more than `left`, and nothing that does not begin as TLS does.
    fn poll_read_metered(
        &mut self,
        left: usize,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.socket.as_mut().ok_or_else(detached)?;
        if left == 0 {
            return Poll::Ready(Err(io::Error::other(HandshakeTooLong)));
        }
        if left == HANDSHAKE_LEN_MAX {
            let mut first = [0];
            let peeked = ready!(socket.poll_peek(cx, &mut ReadBuf::new(&mut first)))?;
            if peeked > 0 && !matches!(first[0], TLS_HANDSHAKE | TLS_ALERT) {
                return Poll::Ready(Err(io::Error::other(NotTls)));
            }
        }
        let mut piece = buf.take(left);
        ready!(Pin::new(socket).poll_read(cx, &mut piece))?;
        let read = piece.filled().len();
        buf.advance(read);
        self.left = Some(left - read);
        Poll::Ready(Ok(()))
    }
}

/// Whether the other side begins with TLS. It is told by the first byte, which stays unread.
pub(crate) async fn begins_with_tls(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let peeked = socket.peek(&mut first).await?;
    Ok(peeked > 0 && first[0] == TLS_HANDSHAKE)
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.left {
            None => self.socket()?.poll_read(cx, buf),
            Some(left) => self.poll_read_metered(left, cx, buf),
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(cx)
    }
}
