//! The three files, from paths to what rustls takes.
//!
//! Invariant: what is loaded is what the peers, which have the same CA file, will accept now: the key fits, the
//! chain is of a CA in the file, the time has come and is not over, the name is this node's (if that is known), and
//! the certificate serves for both sides of a connection.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig,
};

use super::problem::{now, time};
use super::verify::{Clients, Servers};
use super::{CertificateProblem, TlsName};

/// No such file is longer, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Where a node's TLS files are, all of them PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the CAs that are trusted, one or more.
    pub ca: PathBuf,
    /// The node's own certificate, and behind it those of the intermediate CAs, if any.
    pub cert: PathBuf,
    /// The key of the node's own certificate, not encrypted.
    pub key: PathBuf,
}

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFile {
    /// [`TlsFiles::ca`].
    #[error("the CA file")]
    Ca,
    /// [`TlsFiles::cert`].
    #[error("the certificate file")]
    Cert,
    /// [`TlsFiles::key`].
    #[error("the key file")]
    Key,
}

/// A file that is no good.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {file} {}: {problem}", .path.display())]
pub struct TlsFileError {
    /// Which one.
    pub file: TlsFile,
    /// Where.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: TlsFileProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFileProblem {
    /// There is none.
    #[error("there is no such file")]
    Missing,
    /// It cannot be read: permissions, or the disk.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It is longer than any such file.
    #[error("has {len} bytes, and {FILE_LEN_MAX} is the most")]
    TooLong {
        /// Its length, in bytes.
        len: u64,
    },
    /// A key that every user of this host could read or change.
    #[error("every user of this host has access to it (mode {mode:04o}): chmod 600")]
    Exposed {
        /// Its permissions.
        mode: u32,
    },
    /// It is not PEM.
    #[error("is not PEM: {0}")]
    NotPem(String),
    /// It holds no certificate.
    #[error("holds no certificate")]
    NoCertificate,
    /// It holds no key that can be used.
    #[error("holds no private key in the clear (PKCS#8, SEC1 or PKCS#1)")]
    NoKey,
    /// The key is of a kind that is not supported, or broken.
    #[error("holds a key that cannot be used: {0}")]
    BadKey(String),
    /// The key is not the one of the certificate.
    #[error("holds another key than that of the certificate")]
    KeyMismatch,
    /// The certificate is one that peers would refuse.
    #[error("the certificate {0}")]
    Certificate(CertificateProblem),
}

/// What the files hold, as it was read.
#[derive(PartialEq, Eq)]
pub(super) struct Content {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsFileError> {
        Ok(Self {
            ca: read(&files.ca, TlsFile::Ca)?,
            cert: read(&files.cert, TlsFile::Cert)?,
            key: read(&files.key, TlsFile::Key)?,
        })
    }
}

/// Files that are good.
pub(crate) struct Loaded {
    pub(super) content: Content,
    /// Dials the one node that has the name that is asked for.
    pub(super) client: Arc<ClientConfig>,
    /// Dials any node of the CA.
    pub(super) client_of_any: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    /// From when on the node's own certificate is valid.
    pub(super) not_before: SystemTime,
    /// When it expires.
    pub(super) not_after: SystemTime,
}

impl Loaded {
    pub(super) fn load(files: &TlsFiles, name: Option<&TlsName>) -> Result<Self, TlsFileError> {
        Self::parse(Content::read(files)?, files, name)
    }

    pub(super) fn parse(
        content: Content,
        files: &TlsFiles,
        name: Option<&TlsName>,
    ) -> Result<Self, TlsFileError> {
        let wrong = |file, problem| TlsFileError {
            file,
            path: match file {
                TlsFile::Ca => files.ca.clone(),
                TlsFile::Cert => files.cert.clone(),
                TlsFile::Key => files.key.clone(),
            },
            problem,
        };
        let in_ca = |problem| wrong(TlsFile::Ca, problem);
        let in_cert = |problem| wrong(TlsFile::Cert, problem);
        let in_key = |problem| wrong(TlsFile::Key, problem);
        let refused =
            |error: &Error| in_cert(TlsFileProblem::Certificate(CertificateProblem::of(error)));

        let mut roots = RootCertStore::empty();
        for ca in certificates(&content.ca).map_err(in_ca)? {
            let added = roots.add(ca);
            added.map_err(|error| {
                in_ca(TlsFileProblem::Certificate(CertificateProblem::of(&error)))
            })?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&content.cert).map_err(in_cert)?;
        let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|error| {
            in_key(match error {
                pem::Error::NoItemsFound => TlsFileProblem::NoKey,
                error => TlsFileProblem::NotPem(error.to_string()),
            })
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let own =
            CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    in_key(TlsFileProblem::KeyMismatch)
                }
                Error::InvalidCertificate(_) => refused(&error),
                error => in_key(TlsFileProblem::BadKey(error.to_string())),
            })?;
        let own = Arc::new(SingleCertAndKey::from(own));

        // The CA file holds a certificate, which is all that they ask for.
        let unusable = |error: &dyn ToString| in_ca(TlsFileProblem::NotPem(error.to_string()));
        let servers = Servers::new(&roots, &provider).map_err(|error| unusable(&error))?;
        let of_any = servers.of_any_name();
        let clients = Clients::new(&roots, &provider).map_err(|error| unusable(&error))?;
        let (leaf, rest) = chain
            .split_first()
            .ok_or_else(|| in_cert(TlsFileProblem::NoCertificate))?;
        let any = TlsName::of_any();
        let verify = |at| match name {
            Some(TlsName(name)) => servers.verify_server_cert(leaf, rest, name, &[], at),
            None => of_any.verify_server_cert(leaf, rest, &any.0, &[], at),
        };
        verify(now()).map_err(|error| refused(&error))?;
        clients
            .verify_client_cert(leaf, rest, now())
            .map_err(|error| refused(&error))?;
        // When it begins and ends, nothing says but the refusal at another time.
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let not_before = match verify(at(0)) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => time(not_before.as_secs()),
            _ => SystemTime::UNIX_EPOCH,
        };
        let not_after = match verify(at(u64::MAX)) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => time(not_after.as_secs()),
            _ => time(u64::MAX),
        };

        Ok(Self {
            content,
            client: Arc::new(
                client(&provider, servers, Arc::clone(&own)).map_err(|e| refused(&e))?,
            ),
            client_of_any: Arc::new(
                client(&provider, of_any, Arc::clone(&own)).map_err(|e| refused(&e))?,
            ),
            server: Arc::new(server(&provider, clients, own).map_err(|e| refused(&e))?),
            not_before,
            not_after,
        })
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    servers: Servers,
    own: Arc<SingleCertAndKey>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers))
        .with_client_cert_resolver(own);
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server(
    provider: &Arc<CryptoProvider>,
    clients: Clients,
    own: Arc<SingleCertAndKey>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(own);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileProblem> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| TlsFileProblem::NotPem(error.to_string()))?;
    if certificates.is_empty() {
        return Err(TlsFileProblem::NoCertificate);
    }
    Ok(certificates)
}

fn read(path: &Path, file: TlsFile) -> Result<Vec<u8>, TlsFileError> {
    content(path, file).map_err(|problem| TlsFileError {
        file,
        path: path.to_owned(),
        problem,
    })
}

fn content(path: &Path, file: TlsFile) -> Result<Vec<u8>, TlsFileProblem> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => TlsFileProblem::Missing,
        _ => TlsFileProblem::Unreadable(error),
    };
    // To open what is no file, a pipe perhaps, could take for ever.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a file");
        return Err(TlsFileProblem::Unreadable(error));
    }
    #[cfg(unix)]
    if file == TlsFile::Key {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o007 != 0 {
            return Err(TlsFileProblem::Exposed { mode });
        }
    }
    let mut bytes = Vec::new();
    let opened = File::open(path).map_err(unreadable)?;
    let read = opened.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes);
    let len = read.map_err(unreadable)? as u64;
    if len > FILE_LEN_MAX {
        let len = metadata.len();
        return Err(TlsFileProblem::TooLong { len });
    }
    Ok(bytes)
}
