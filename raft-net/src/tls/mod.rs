//! Mutual TLS: who may speak at all, shown by a certificate.
//!
//! Each side verifies the other's certificate against one file of CAs, and that it holds the name that belongs to
//! the other's id ([`Known::tls_name`](crate::Known)): the dialling side as the name of the server, and both when the
//! introduction has said whose connection it is, before that is judged any further. Of a node whose id is not known
//! yet, any certificate of the CA will do.
//!
//! Invariants:
//! - TLS 1.3 only, never resumed, no early data: what a connection is trusted for was shown on it.
//! - Until the other side has shown a certificate of the CA, it makes this node hold less than 64 KiB: what is
//!   read from it before is bounded ([`Metered`](crate::stream::Metered)).
//! - Files that are no good are never put to use; those that were loaded last stay. What is put to use holds for
//!   new connections; those that run go on.
//! - Whatever of a certificate is wrong is told by its [`CertificateProblem`], on the side that refuses it and,
//!   as far as a TLS alert can say it, on the side that is refused.

mod files;
mod problem;
mod verify;
mod watch;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use raft_core::NodeId;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) use files::Loaded;
pub use files::{TlsFile, TlsFileError, TlsFileProblem, TlsFiles};
pub use problem::CertificateProblem;
pub(crate) use problem::{explain, time, unix_seconds};

use crate::decode::FrameDecoder;
use crate::handshake::{Broken, read_frame};
use crate::header::FrameKind;
use crate::refusal::printable;
use crate::socket::linger;
use crate::stream::{HandshakeTooLong, Metered, NotTls, Stream};
use crate::{Ending, Refusal};
use watch::Watching;

/// A node's TLS: its certificate, its key, and whom it trusts. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    /// The name that the own certificate must hold.
    name: Option<TlsName>,
    loaded: RwLock<Arc<Loaded>>,
    watching: Mutex<Watching>,
}

/// What has become of a node's TLS files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsStats {
    /// How often changed files were put to use since the start.
    pub reloads: u64,
    /// How often changed files were no good, and those before them stayed in use.
    pub reloads_failed: u64,
    /// When the node's own certificate expires.
    pub not_after: SystemTime,
}

impl Tls {
    /// Loads a node's files, and verifies that its own certificate is one that its peers will accept: for `name`, or
    /// for any name while it is not known which one the node will need.
    ///
    /// Once a [`Listener`](crate::Listener) runs with it, the files are looked at every few seconds, and put to
    /// use when they have changed.
    ///
    /// # Errors
    /// Which file is no good, and why.
    pub fn load(files: TlsFiles, name: Option<TlsName>) -> Result<Self, TlsFileError> {
        let loaded = Loaded::load(&files, name.as_ref())?;
        let tls = Self(Arc::new(Shared {
            files,
            name,
            loaded: RwLock::new(Arc::new(loaded)),
            watching: Mutex::default(),
        }));
        tls.warn_of_expiry();
        Ok(tls)
    }

    /// The name that a node's certificate must hold unless another one is bound to it: `node-` and its id.
    #[must_use]
    pub fn default_name(node: NodeId) -> String {
        format!("node-{node}")
    }

    /// What has become of the files.
    #[must_use]
    pub fn stats(&self) -> TlsStats {
        let watching = self.watching();
        TlsStats {
            reloads: watching.reloads,
            reloads_failed: watching.reloads_failed,
            not_after: self.loaded().not_after,
        }
    }

    /// The accepting side's part of the TLS handshake; its caller has the deadline.
    pub(crate) async fn accept(&self, socket: TcpStream) -> Result<Stream, Insecure> {
        let own = self.loaded();
        let acceptor = TlsAcceptor::from(Arc::clone(&own.server));
        match acceptor.accept(Metered::new(socket)).into_fallible().await {
            Ok(stream) => Ok(Stream::secured(stream, own)),
            Err((error, socket)) => Err(self.insecure(error, socket, &own).await),
        }
    }

    /// The dialling side's part of the TLS handshake with the node that has `name`, or with any node of the CA; its
    /// caller has the deadline.
    ///
    /// It ends before the other side has judged this node's certificate: if that is refused, the next read says so.
    pub(crate) async fn connect(
        &self,
        name: Option<TlsName>,
        stream: Stream,
        decoder: &mut FrameDecoder,
    ) -> Result<Stream, Broken> {
        let Stream::Plain(socket) = stream else {
            return Err(Broken::Ended(Ending::NotTls));
        };
        let own = self.loaded();
        let client = match name {
            Some(_) => &own.client,
            None => &own.client_of_any,
        };
        let connector = TlsConnector::from(Arc::clone(client));
        let TlsName(name) = name.unwrap_or_else(TlsName::of_any);
        let connected = connector.connect(name, Metered::new(socket));
        match connected.into_fallible().await {
            Ok(stream) => Ok(Stream::secured(stream, own)),
            Err((error, socket)) => Err(match self.insecure(error, socket, &own).await {
                Insecure::Plaintext(socket) => plaintext_refusal(socket, decoder).await,
                Insecure::Broken(broken) => broken,
            }),
        }
    }

    /// Why a TLS handshake came to nothing, after the other side had the time to hear of it.
    async fn insecure(&self, error: io::Error, socket: Metered, own: &Loaded) -> Insecure {
        let Some(mut socket) = socket.into_inner() else {
            return Insecure::Broken(error.into());
        };
        let inner = error.get_ref();
        let is_tls = inner
            .is_some_and(|inner| inner.is::<rustls::Error>() || inner.is::<HandshakeTooLong>());
        if is_tls {
            let malformed = Refusal::Malformed {
                what: printable(&format!("TLS: {error}")),
            };
            let broken = Broken::from(explain(error, own));
            linger(&mut socket).await;
            return Insecure::Broken(match broken {
                Broken::Ended(Ending::Io(_)) => Broken::Refused(malformed),
                broken => broken,
            });
        }
        if inner.is_some_and(|inner| inner.is::<NotTls>()) {
            return Insecure::Plaintext(socket);
        }
        Insecure::Broken(error.into())
    }

    fn loaded(&self) -> Arc<Loaded> {
        let loaded = self.0.loaded.read();
        Arc::clone(&loaded.unwrap_or_else(PoisonError::into_inner))
    }

    fn watching(&self) -> MutexGuard<'_, Watching> {
        let watching = self.0.watching.lock();
        watching.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.0.files)
            .finish_non_exhaustive()
    }
}

/// A name that a certificate may hold: a DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsName(ServerName<'static>);

/// No DNS name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no DNS name")]
pub struct TlsNameError(String);

impl TlsName {
    /// `name`, if it is a DNS name.
    ///
    /// # Errors
    /// It is none.
    pub fn new(name: impl Into<String>) -> Result<Self, TlsNameError> {
        let name = name.into();
        match ServerName::try_from(name.clone()) {
            Ok(dns @ ServerName::DnsName(_)) => Ok(Self(dns)),
            _ => Err(TlsNameError(name)),
        }
    }

    /// The name that a node has unless it was given another one: its [`default_name`](Tls::default_name).
    #[must_use]
    pub fn of(node: NodeId) -> Self {
        match ServerName::try_from(Tls::default_name(node)) {
            Ok(name) => Self(name),
            Err(_) => unreachable!("node- and a number is a DNS name"),
        }
    }

    /// Stands where the library wants a name and none is looked at.
    fn of_any() -> Self {
        Self::of(NodeId(0))
    }

    /// Whether the certificate that the other side has `shown` is for this name.
    pub(crate) fn check(&self, shown: Option<&CertificateDer<'_>>) -> Result<(), Refusal> {
        let refused = |problem| Refusal::Certificate {
            ours: false,
            problem,
        };
        let shown = shown.ok_or_else(|| refused(CertificateProblem::Missing))?;
        ParsedCertificate::try_from(shown)
            .and_then(|shown| rustls::client::verify_server_name(&shown, &self.0))
            .map_err(|error| refused(CertificateProblem::of(&error)))
    }
}

/// Why a socket has not become a TLS connection.
pub(crate) enum Insecure {
    /// The other side does not speak TLS. Nothing of what it has said is read yet.
    Plaintext(TcpStream),
    /// Anything else.
    Broken(Broken),
}

/// What the node at the dialled address answers in plaintext. Whoever can write into the connection can have
/// written it, so nothing is believed but what says that there is no connection.
async fn plaintext_refusal(mut socket: TcpStream, decoder: &mut FrameDecoder) -> Broken {
    match read_frame(&mut socket, decoder).await {
        Ok(frame) if frame.kind == FrameKind::Refuse => match Refusal::decode(&frame) {
            Ok(refusal @ (Refusal::NoTls | Refusal::TooManyConnections)) => {
                Broken::Refused(refusal)
            }
            _ => Broken::Ended(Ending::NotTls),
        },
        _ => Broken::Ended(Ending::NotTls),
    }
}
