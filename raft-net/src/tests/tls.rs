//! Mutual TLS between nodes, and between nodes and those who have no right to be one.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use raft_core::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::snapshots::{CHUNK, content};
use super::{CLUSTER, Node, ONE, TWO, born, bulk, encode, folder, heartbeat, local};
use crate::{
    CertificateProblem, GetListenerStats, Held, Local, PeerEvent, Refusal, Tls, TlsFile,
    TlsFileError, TlsFileProblem, TlsFiles, TlsName,
};

const DAY: i64 = 24 * 60 * 60;

/// A CA, and the folder of its files.
pub(super) struct Pki {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// How a certificate is to be.
pub(super) struct Wanted<'a> {
    pub(super) names: &'a [&'a str],
    /// Seconds from now.
    pub(super) from: i64,
    pub(super) to: i64,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(names: &'a [&'a str]) -> Self {
        Self {
            names,
            from: -DAY,
            to: 365 * DAY,
        }
    }
}

fn in_seconds(seconds: i64) -> SystemTime {
    let offset = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    if seconds < 0 {
        now - offset
    } else {
        now + offset
    }
}

impl Pki {
    /// A CA. All of them have the same name, as those that somebody makes twice.
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "CA");
        let ca = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    pub(super) fn files(&self, node: NodeId) -> TlsFiles {
        let path = |name: &str| self.dir.path().join(name);
        TlsFiles {
            ca: path("ca.pem"),
            cert: path(&format!("{node}.pem")),
            key: path(&format!("{node}.key")),
        }
    }

    /// Makes a certificate and its key; gives both as PEM.
    pub(super) fn make(&self, wanted: &Wanted<'_>) -> (String, String) {
        let names: Vec<String> = wanted.names.iter().map(|name| (*name).into()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let time = |seconds| {
            let since = in_seconds(seconds).duration_since(SystemTime::UNIX_EPOCH);
            date_time_ymd(1970, 1, 1) + since.unwrap()
        };
        params.not_before = time(wanted.from);
        params.not_after = time(wanted.to);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// Gives `node` a certificate.
    pub(super) fn give(&self, node: NodeId, wanted: &Wanted<'_>) -> TlsFiles {
        let files = self.files(node);
        let (cert, key) = self.make(wanted);
        fs::write(&files.cert, cert).unwrap();
        write_key(&files.key, &key);
        files
    }

    /// A node's TLS with the certificate that it should have.
    pub(super) fn tls(&self, node: NodeId) -> Tls {
        let name = Tls::default_name(node);
        self.give(node, &Wanted::of(&[&name]));
        load(node, self.files(node)).unwrap()
    }
}

fn write_key(path: &PathBuf, key: &str) {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(key.as_bytes()).unwrap();
}

fn load(node: NodeId, files: TlsFiles) -> Result<Tls, TlsFileError> {
    Tls::load(files, Some(TlsName::of(node)))
}

pub(super) fn secured(node: NodeId, tls: &Tls) -> Node {
    Node::new(local(node).with_tls(tls.clone()))
}

/// The same, and it knows node 1 by another name.
fn secured_knowing_the_first(node: NodeId, tls: &Tls) -> Node {
    let mut members = born();
    members.get_mut(&ONE).unwrap().tls_name = Some(first());
    let (folder, held) = (folder(node), Held::default());
    let local = Local::new(node, folder, 1, Some(CLUSTER), members, held);
    Node::new(local.with_tls(tls.clone()))
}

fn first() -> TlsName {
    TlsName::new("first.example").unwrap()
}

/// What `node` was told of a dial that was refused, and of who dialled it.
async fn refused(node: &mut Node) -> Refusal {
    node.event(|event| match event {
        PeerEvent::Refused { reason, .. } => Some(reason.clone()),
        _ => None,
    })
    .await
}

async fn turned(node: &mut Node) -> (Option<NodeId>, Refusal) {
    node.event(|event| match event {
        PeerEvent::Turned { peer, reason, .. } => Some((*peer, reason.clone())),
        _ => None,
    })
    .await
}

fn certificate(ours: bool, problem: CertificateProblem) -> Refusal {
    Refusal::Certificate { ours, problem }
}

#[actix_rt::test]
async fn frames_of_all_sizes_arrive_in_order() {
    let pki = Pki::new();
    let (mut one, mut two) = (secured(ONE, &pki.tls(ONE)), secured(TWO, &pki.tls(TWO)));
    one.limits.queue_bytes_max = 100 << 20;
    let to_two = one.dial(TWO, two.address);
    let to_one = two.dial(ONE, one.address);
    one.connected(TWO).await;
    two.connected(ONE).await;
    let sent: Vec<_> = (0..200_usize)
        .map(|i| match i % 7 {
            0 => bulk(i * 400),
            1 if i > 150 => bulk(3 << 20),
            1 => bulk(15 << 10),
            _ => heartbeat(i as u64),
        })
        .collect();
    for frame in &sent {
        to_two.try_send(encode(frame)).unwrap();
    }
    let mut received = Vec::new();
    while received.len() < sent.len() {
        received.extend(two.batch().await.frames);
    }
    assert!(received == sent);
    to_one.try_send(encode(&heartbeat(2))).unwrap();
    assert_eq!(one.batch().await.frames, [heartbeat(2)]);
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert_eq!((stats.accepted, stats.refused.len()), (1, 0));
}

/// A snapshot, and the frames beside it, through somebody who listens in.
#[actix_rt::test]
async fn a_snapshot_arrives_and_nobody_on_the_way_reads_it() {
    const BYTES: u64 = (3 << 20) + 17;
    let pki = Pki::new();
    let (mut one, mut two) = (secured(ONE, &pki.tls(ONE)), secured(TWO, &pki.tls(TWO)));
    let (address, heard) = listen_in(two.address).await;
    let to_two = one.dial(TWO, address);
    one.connected(TWO).await;
    to_two.try_send(encode(&bulk(100_000))).unwrap();
    assert_eq!(two.batch().await.frames, [bulk(100_000)]);
    let sender = one.snapshots();
    one.offers(&sender, TWO, address, BYTES);
    one.ended().await.unwrap();
    assert!(two.folder.finished.lock().unwrap()[..] == [content(0..BYTES)]);
    assert_eq!(two.receptions().await.chunks, BYTES.div_ceil(CHUNK as u64));
    let heard = heard.lock().unwrap();
    assert!(heard.len() as u64 > BYTES + 100_000);
    for secret in [&b"rAFt"[..], &[7; 16], &content(5000..5016)] {
        assert!(!heard.windows(secret.len()).any(|heard| heard == secret));
    }
}

/// Passes everything on to `to`, and keeps what it has heard of it.
async fn listen_in(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    actix_rt::spawn(async move {
        while let Ok((near, _)) = socket.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            for (mut from, mut to) in [(near_read, far_write), (far_read, near_write)] {
                let hears = Arc::clone(&hears);
                actix_rt::spawn(async move {
                    let mut piece = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = from.read(&mut piece).await {
                        hears.lock().unwrap().extend_from_slice(&piece[..read]);
                        to.write_all(&piece[..read]).await.unwrap();
                    }
                });
            }
        }
    });
    (address, heard)
}

#[actix_rt::test]
async fn certificates_of_another_ca_are_refused_on_both_sides() {
    // Both CAs have the same name: the signature shows that they are two.
    let (mut one, mut two) = (
        secured(ONE, &Pki::new().tls(ONE)),
        secured(TWO, &Pki::new().tls(TWO)),
    );
    let _to_two = one.dial(TWO, two.address);
    assert_eq!(
        refused(&mut one).await,
        certificate(false, CertificateProblem::Chain)
    );
    let expected = (None, certificate(true, CertificateProblem::Chain));
    assert_eq!(turned(&mut two).await, expected);
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert!(stats.refused[&19] >= 1 && stats.accepted == 0, "{stats:?}");
}

/// Node 1 runs, and its certificate ends.
#[actix_rt::test]
async fn what_has_expired_is_refused_on_both_sides_and_told_to_whose_it_is() {
    let pki = Pki::new();
    let short = Wanted {
        to: 2,
        ..Wanted::of(&["node-1"])
    };
    let tls = load(ONE, pki.give(ONE, &short)).unwrap();
    let not_after = tls.stats().not_after;
    let (mut one, mut two) = (secured(ONE, &tls), secured(TWO, &pki.tls(TWO)));
    let left = not_after.duration_since(SystemTime::now());
    tokio::time::sleep(left.unwrap_or_default() + Duration::from_secs(1)).await;
    let expired = |ours| certificate(ours, CertificateProblem::Expired { not_after });

    let _to_two = one.dial(TWO, two.address);
    assert_eq!(refused(&mut one).await, expired(true));
    assert_eq!(turned(&mut two).await, (None, expired(false)));
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert!(stats.refused[&16] >= 1 && stats.accepted == 0, "{stats:?}");

    let _to_one = two.dial(ONE, one.address);
    assert_eq!(refused(&mut two).await, expired(false));
    assert_eq!(turned(&mut one).await, (None, expired(true)));
}

/// Node 2 takes node 1 for one that has another name.
#[actix_rt::test]
async fn another_nodes_certificate_is_refused_on_both_sides() {
    let pki = Pki::new();
    let mut two = secured_knowing_the_first(TWO, &pki.tls(TWO));
    let mut one = secured(ONE, &pki.tls(ONE));
    let name = |expected: &str| CertificateProblem::Name {
        expected: expected.into(),
    };
    let theirs = certificate(false, name("first.example, but node-1"));

    let _to_two = one.dial(TWO, two.address);
    // The connection is secured when it is refused, so that all can be said.
    let ours = certificate(true, name("first.example, but node-1"));
    assert_eq!(refused(&mut one).await, ours);
    assert_eq!(turned(&mut two).await, (Some(ONE), theirs.clone()));
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert!(stats.refused[&18] >= 1 && stats.accepted == 0, "{stats:?}");
    assert!(two.inbound.try_recv().is_err());

    let _to_one = two.dial(ONE, one.address);
    assert_eq!(refused(&mut two).await, theirs);
    let (_, refusal) = turned(&mut one).await;
    assert_eq!(
        refusal,
        certificate(true, name("that the other node wants"))
    );
}

#[actix_rt::test]
async fn a_name_of_its_own_is_what_a_node_is_known_by() {
    let pki = Pki::new();
    let ones = pki.give(ONE, &Wanted::of(&["first.example"]));
    let twos = pki.give(TWO, &Wanted::of(&["also.example", "node-2"]));
    let ones = Tls::load(ones, Some(first())).unwrap();
    let mut one = secured_knowing_the_first(ONE, &ones);
    let mut two = secured_knowing_the_first(TWO, &load(TWO, twos).unwrap());
    let (_to_two, _to_one) = (one.dial(TWO, two.address), two.dial(ONE, one.address));
    one.connected(TWO).await;
    two.connected(ONE).await;
    for name in ["", "a b", "10.0.0.1", "-"] {
        assert!(TlsName::new(name).is_err(), "{name}");
    }
}

#[actix_rt::test]
async fn plaintext_and_tls_name_each_other() {
    let pki = Pki::new();
    let (mut plain, mut tls) = (Node::new(local(ONE)), secured(TWO, &pki.tls(TWO)));
    let _dials = plain.dial(TWO, tls.address);
    assert_eq!(refused(&mut plain).await, Refusal::TlsWanted);
    assert_eq!(turned(&mut tls).await, (None, Refusal::TlsWanted));
    let _dials = tls.dial(ONE, plain.address);
    assert_eq!(refused(&mut tls).await, Refusal::NoTls);
    assert_eq!(turned(&mut plain).await, (None, Refusal::NoTls));
    let count = |node: &Node| node.listener.send(GetListenerStats);
    assert!(count(&tls).await.unwrap().refused[&14] >= 1);
    assert!(count(&plain).await.unwrap().refused[&15] >= 1);
}

#[test]
fn a_node_that_does_not_know_its_name_yet_has_files_that_are_good_but_for_that() {
    let pki = Pki::new();
    let files = pki.give(ONE, &Wanted::of(&["joins.example"]));
    let named = load(ONE, files.clone()).unwrap_err();
    assert!(named.to_string().contains("joins.example"), "{named}");
    Tls::load(files.clone(), None).unwrap();
    let over = Wanted {
        to: -1,
        ..Wanted::of(&["joins.example"])
    };
    pki.give(ONE, &over);
    let over = Tls::load(files.clone(), None).unwrap_err();
    assert!(over.to_string().contains("expired"), "{over}");
    pki.give(ONE, &Wanted::of(&["joins.example"]));
    let other = TlsFiles {
        ca: Pki::new().files(ONE).ca,
        ..files
    };
    assert!(Tls::load(other, None).is_err());
}

#[test]
fn new_files_are_put_to_use_and_bad_ones_are_told_once_and_are_not() {
    let pki = Pki::new();
    let (tls, files) = (pki.tls(ONE), pki.files(ONE));
    let reloads = || (tls.stats().reloads, tls.stats().reloads_failed);
    // The same files again are no news.
    assert!(!tls.reload().unwrap());
    tls.look();
    assert_eq!(reloads(), (0, 0));
    // A certificate whose key has not come yet: told when it stays so, and once.
    let wanted = Wanted {
        to: 7 * DAY,
        ..Wanted::of(&["node-1"])
    };
    let (cert, key) = pki.make(&wanted);
    let not_after = tls.stats().not_after;
    fs::write(&files.cert, &cert).unwrap();
    for failed in [0, 1, 1, 1] {
        tls.look();
        assert_eq!(reloads(), (0, failed));
    }
    let error = tls.reload().unwrap_err();
    assert!(
        matches!(error.problem, TlsFileProblem::KeyMismatch),
        "{error}"
    );
    assert_eq!(reloads(), (0, 2));
    assert_eq!(tls.stats().not_after, not_after);
    write_key(&files.key, &key);
    tls.look();
    assert_eq!(reloads(), (1, 2));
    assert!(tls.stats().not_after < not_after);
    // A file that is gone for a moment only, as when it is replaced.
    fs::remove_file(&files.cert).unwrap();
    tls.look();
    fs::write(&files.cert, &cert).unwrap();
    tls.look();
    assert_eq!(reloads(), (1, 2));
}

/// All of it while the nodes run: a new CA beside the old one, a certificate of the new one, the old one gone.
#[actix_rt::test]
async fn a_cluster_changes_its_ca_without_a_restart() {
    let (old, new) = (Pki::new(), Pki::new());
    let (tls_one, tls_two) = (old.tls(ONE), old.tls(TWO));
    let (mut one, mut two) = (secured(ONE, &tls_one), secured(TWO, &tls_two));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    let ca = |pki: &Pki| fs::read(pki.files(ONE).ca).unwrap();
    let (old_ca, new_ca) = (ca(&old), ca(&new));
    // The watch of the listeners may have been here first.
    let reload = |tls: &Tls| tls.reload().map(drop).unwrap();
    let files = old.files(ONE);
    fs::write(&files.ca, [old_ca.clone(), new_ca].concat()).unwrap();
    reload(&tls_one);
    reload(&tls_two);
    let (cert, key) = new.make(&Wanted::of(&["node-1"]));
    // A rename is at once, and the key comes first: until both are there, the old ones are in use.
    write_key(&files.key, &key);
    fs::write(&files.cert, cert).unwrap();
    reload(&tls_one);
    let dialled = two.dial(ONE, one.address);
    two.connected(ONE).await;
    // Node 2 trusts the old CA alone again, which node 1's certificate is not of. What is connected stays so.
    fs::write(&files.ca, old_ca).unwrap();
    reload(&tls_two);
    to_two.try_send(encode(&heartbeat(1))).unwrap();
    assert_eq!(two.batch().await.frames, [heartbeat(1)]);
    dialled.stop();
    let _dials = two.dial(ONE, one.address);
    let chain = certificate(false, CertificateProblem::Chain);
    assert_eq!(refused(&mut two).await, chain);
}

#[test]
fn files_that_are_no_good_are_named_with_what_is_wrong() {
    let pki = Pki::new();
    let (good, other) = (
        pki.make(&Wanted::of(&["node-1"])),
        pki.make(&Wanted::of(&["node-1"])),
    );
    let ca = fs::read_to_string(pki.files(ONE).ca).unwrap();
    let wrong = |ca: &str, cert: &str, key: &str| {
        let files = pki.files(ONE);
        fs::write(&files.ca, ca).unwrap();
        fs::write(&files.cert, cert).unwrap();
        write_key(&files.key, key);
        let error = load(ONE, files).expect_err("it is no good");
        let path = error.path.display().to_string();
        assert!(error.to_string().contains(&path), "{error}");
        (error.file, error.problem.to_string())
    };
    let cert_of = |wanted: Wanted<'_>| pki.make(&wanted);
    let expired = cert_of(Wanted {
        to: -60,
        ..Wanted::of(&["node-1"])
    });
    let early = cert_of(Wanted {
        from: 60,
        ..Wanted::of(&["node-1"])
    });
    let named = cert_of(Wanted::of(&["node-2", "b.example"]));
    let foreign = Pki::new().make(&Wanted::of(&["node-1"]));
    let long = "x".repeat((1 << 20) + 1);
    for ((file, problem), (expected, text)) in [
        (wrong(&ca, &good.0, &other.1), (TlsFile::Key, "another key")),
        (
            wrong(&ca, &good.0, &good.0),
            (TlsFile::Key, "no private key"),
        ),
        (wrong(&ca, &good.0, ""), (TlsFile::Key, "no private key")),
        (wrong(&ca, "", &good.1), (TlsFile::Cert, "no certificate")),
        (
            wrong("junk", &good.0, &good.1),
            (TlsFile::Ca, "no certificate"),
        ),
        (
            wrong(&ca[..200], &good.0, &good.1),
            (TlsFile::Ca, "not PEM"),
        ),
        (wrong(&long, &good.0, &good.1), (TlsFile::Ca, "is the most")),
        (
            wrong(&ca, &expired.0, &expired.1),
            (TlsFile::Cert, "has expired, at 20"),
        ),
        (
            wrong(&ca, &early.0, &early.1),
            (TlsFile::Cert, "is not valid before 20"),
        ),
        (
            wrong(&ca, &named.0, &named.1),
            (TlsFile::Cert, "node-1, but node-2, b.example"),
        ),
        (
            wrong(&ca, &foreign.0, &foreign.1),
            (TlsFile::Cert, "is of a CA that is not"),
        ),
    ] {
        assert_eq!(file, expected, "{problem}");
        assert!(problem.contains(text), "{problem}");
    }

    fs::write(pki.files(ONE).ca, &ca).unwrap();
    let files = pki.give(ONE, &Wanted::of(&["node-1"]));
    load(ONE, files.clone()).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o604)).unwrap();
    let exposed = load(ONE, files.clone()).unwrap_err();
    assert!(
        matches!(exposed.problem, TlsFileProblem::Exposed { mode: 0o604 }),
        "{exposed}"
    );
    fs::remove_file(&files.key).unwrap();
    let missing = load(ONE, files.clone()).unwrap_err();
    assert!(
        matches!(missing.problem, TlsFileProblem::Missing),
        "{missing}"
    );
    fs::create_dir(&files.key).unwrap();
    let folder = load(ONE, files).unwrap_err();
    assert!(
        matches!(folder.problem, TlsFileProblem::Unreadable(_)),
        "{folder}"
    );
}
