//! Three nodes with mutual TLS, and those who have no right to speak: each refused by its name, at a bounded cost.
//!
//! A TLS handshake costs the node a signature and a key exchange for whoever asks. So the crowd asks for it in full here, and
//! the figures of memory and latency are measured again: `hostile_tls_connection_memory`, `hostile_tls_crowd_latency`.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tests::api::cluster::{Replicas, Seat};

use super::crowd::Crowd;
use super::forge::{Introduction, connect, kind, send, wait_end};
use super::load::proposing;
use super::scene::{counted, refused, wait_counted};
use super::{PACE, Reign, TIMES};
use crate::report::Report;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A CA, and whatever it has signed.
struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both as PEM.
struct Shown {
    cert: String,
    key: String,
}

/// From when to when, of now.
#[derive(Clone, Copy)]
enum Valid {
    Now,
    Ended,
    Later,
}

impl Authority {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let cert = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { cert, issuer })
    }

    /// A certificate of node `id`.
    fn node(&self, id: u64, valid: Valid) -> Result<Shown> {
        let mut params = CertificateParams::new([format!("node-{id}")])?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let (from, to) = match valid {
            Valid::Now => (now - DAY, now + DAY),
            Valid::Ended => (now - 2 * DAY, now - DAY),
            Valid::Later => (now + DAY, now + 2 * DAY),
        };
        params.not_before = date_time_ymd(1970, 1, 1) + from;
        params.not_after = date_time_ymd(1970, 1, 1) + to;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        Ok(Shown { cert, key })
    }

    /// Whoever shows `shown`, and trusts this CA's nodes.
    fn client(&self, shown: Option<&Shown>) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.cert.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            Some(Shown { cert, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes())?];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
                config.with_client_auth_cert(chain, key)?
            }
        };
        Ok(Arc::new(config))
    }

    /// Gives three nodes their files.
    fn give(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("ca.pem"), &self.cert)?;
        for id in 1..=3 {
            let shown = self.node(id, Valid::Now)?;
            fs::write(folder.join(format!("node-{id}.pem")), shown.cert)?;
            let mut key = OpenOptions::new();
            let key = key.create_new(true).write(true).mode(0o600);
            let path = folder.join(format!("node-{id}.key"));
            key.open(path)?.write_all(shown.key.as_bytes())?;
        }
        Ok(())
    }
}

/// What a stranger does, and the name under which it is refused.
struct Case {
    name: &'static str,
    reason: &'static str,
    way: Way,
}

enum Way {
    /// Bytes on a socket.
    Bytes(Vec<u8>),
    /// A TLS client that introduces itself as node 3.
    Client(Arc<ClientConfig>),
}

/// Shows all of it. The nodes of `report`'s run without TLS are stopped by now.
pub(super) fn run(report: &mut Report) -> Result<()> {
    let ca = Authority::new()?;
    let dir = report.dir().join("tls");
    let (certs, cluster) = (dir.join("certs"), dir.join("cluster"));
    ca.give(&certs)?;
    let args = ["--tls", &certs.display().to_string()];
    let replicas = Replicas::at(&report.programs, &cluster, &args, Seat::local(3)?)?;
    let leader = replicas.start_all()?;

    let reign = Reign::of(&replicas)?;
    let hello = client_hello(&ca)?;
    let crowd = Crowd {
        name: "hostile_tls",
        held: &hello,
        attempts: &|_| &hello,
    };
    crowd.memory(report, &replicas, leader)?;
    crowd.flood(report, &replicas)?;

    let cases = cases(&ca)?;
    let nodes: Vec<u64> = replicas.ids().collect();
    let (tried, seen) = proposing(&replicas, &nodes, PACE, || {
        let tried = cases.iter().map(|case| case.run(&replicas, report));
        tried.sum::<Result<u64>>()
    });
    let sent = TIMES * cases.len() as u64;
    let figures = &mut report.figures;
    figures.exactly("hostile_tls_failed_proposals", seen.failed, "count", 0);
    figures.exactly("hostile_tls_refused", tried?, "count", sent);
    reign.judge(report, &replicas, "hostile_tls_elections")?;
    super::survivors(report, &replicas, &nodes, "hostile_tls_hurt")
}

fn cases(ca: &Authority) -> Result<[Case; 8]> {
    let other_ca = Authority::new()?;
    let client = |shown: Result<Shown>| -> Result<Way> {
        let config = ca.client(Some(&shown?))?;
        Ok(Way::Client(config))
    };
    let case = |name, reason, way| Case { name, reason, way };
    let plaintext = Introduction::nobodys(3).frame(kind::HELLO);
    Ok([
        case("plaintext", "tls_wanted", Way::Bytes(plaintext)),
        case(
            "a certificate of another CA",
            "certificate_chain",
            client(other_ca.node(3, Valid::Now))?,
        ),
        case(
            "an expired certificate",
            "certificate_expired",
            client(ca.node(3, Valid::Ended))?,
        ),
        case(
            "a certificate of the future",
            "certificate_not_yet_valid",
            client(ca.node(3, Valid::Later))?,
        ),
        case(
            "another node's certificate",
            "certificate_name",
            client(ca.node(2, Valid::Now))?,
        ),
        case(
            "no certificate",
            "certificate_missing",
            Way::Client(ca.client(None)?),
        ),
        case("a recorded session", "malformed", Way::Bytes(recorded(ca)?)),
        case(
            "garbage that begins as TLS does",
            "malformed",
            Way::Bytes([&[0x16, 3, 1, 0, 64][..], &[7; 64]].concat()),
        ),
    ])
}

impl Case {
    /// Sends it [`TIMES`] times. Gives how many were counted as refused by their name.
    fn run(&self, replicas: &Replicas, report: &mut Report) -> Result<u64> {
        let counter = refused("connection", self.reason);
        let before = counted(replicas, &counter)?;
        for number in 0..TIMES {
            let node = 1 + number % 3;
            let mut socket = connect(replicas.seat(node).address)?;
            match &self.way {
                Way::Bytes(bytes) => send(&mut socket, bytes),
                Way::Client(config) => {
                    let mut client = client(config, node, &mut socket)?;
                    // Who is refused finds out here, or below.
                    let hello = Introduction::nobodys(node).frame(kind::HELLO);
                    let _ = client.write_all(&hello).and_then(|()| client.flush());
                }
            }
            wait_end(&mut socket)?;
        }
        let counted = wait_counted(replicas, &counter, before + TIMES)? - before;
        if counted != TIMES {
            report.fault(&format!(
                "TLS, {}: of {TIMES}, {counted} were counted as refused for {}",
                self.name, self.reason
            ));
        }
        Ok(counted.min(TIMES))
    }
}

fn client<S: Read + Write>(
    config: &Arc<ClientConfig>,
    node: u64,
    socket: S,
) -> Result<StreamOwned<ClientConnection, S>> {
    let name = ServerName::try_from(format!("node-{node}"))?;
    let connection = ClientConnection::new(Arc::clone(config), name)?;
    Ok(StreamOwned::new(connection, socket))
}

/// What a TLS client says first.
pub(super) fn first_words() -> Result<Vec<u8>> {
    client_hello(&Authority::new()?)
}

fn client_hello(ca: &Authority) -> Result<Vec<u8>> {
    let name = ServerName::try_from("node-1")?;
    let mut connection = ClientConnection::new(ca.client(None)?, name)?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// All that node 3 would say to a node that trusts it, up to its introduction.
fn recorded(ca: &Authority) -> Result<Vec<u8>> {
    let server = ca.node(1, Valid::Now)?;
    let chain = vec![CertificateDer::from_pem_slice(server.cert.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.cert.as_bytes())?)?;
    let wants = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(wants.build()?)
        .with_single_cert(chain, key)?;
    let mut server = rustls::ServerConnection::new(Arc::new(config))?;
    let shown = ca.node(3, Valid::Now)?;
    let wire = Wire {
        server: &mut server,
        said: Vec::new(),
    };
    let mut client = client(&ca.client(Some(&shown))?, 1, wire)?;
    client.write_all(&Introduction::nobodys(1).frame(kind::HELLO))?;
    client.flush().context("a session to record")?;
    Ok(client.sock.said)
}

/// A server in the same thread, and all that was said to it.
struct Wire<'a> {
    server: &'a mut rustls::ServerConnection,
    said: Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, mut bytes: &mut [u8]) -> io::Result<usize> {
        self.server.write_tls(&mut bytes)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        self.said.extend(bytes);
        let len = bytes.len();
        while !bytes.is_empty() {
            self.server.read_tls(&mut bytes)?;
            self.server
                .process_new_packets()
                .map_err(io::Error::other)?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
