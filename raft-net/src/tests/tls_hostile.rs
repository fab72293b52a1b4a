//! Those who have no certificate, or have no right to the one that they show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tls::{Pki, Wanted, secured};
use super::{Node, ONE, TWO, limits, local};
use crate::decode::FrameDecoder;
use crate::handshake::read_frame;
use crate::stream::HANDSHAKE_LEN_MAX;
use crate::{FrameKind, GetListenerStats, Limits, ListenerStats, PeerEvent, Refusal};

/// Trusts anybody.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What somebody shows: `cert`, with a key that may be another's.
fn shown((cert, key): &(String, String)) -> Arc<SingleCertAndKey> {
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let key = default_provider()
        .key_provider
        .load_private_key(key)
        .unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

fn client(shows: Option<&(String, String)>) -> TlsConnector {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting));
    let config = match shows {
        Some(shows) => config.with_client_cert_resolver(shown(shows)),
        None => config.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

/// Dials `node` as a TLS client that shows that; gives the alert that it gets.
async fn alert(node: &Node, shows: Option<&(String, String)>) -> AlertDescription {
    let socket = TcpStream::connect(node.address).await.unwrap();
    let name = ServerName::try_from("node-2").unwrap();
    let mut stream = client(shows).connect(name, socket).await.unwrap();
    // It introduces itself at once, as a node does.
    let hello = local(ONE).introduction(TWO);
    let hello = hello.encode(FrameKind::Hello, &limits()).unwrap();
    stream.write_all(hello.as_bytes()).await.unwrap();
    let error = stream.read(&mut [0; 64]).await.unwrap_err();
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error}"),
    }
}

async fn turned(node: &mut Node) -> Refusal {
    node.event(|event| match event {
        PeerEvent::Turned {
            peer: None, reason, ..
        } => Some(reason.clone()),
        _ => None,
    })
    .await
}

async fn stats(node: &Node) -> ListenerStats {
    node.listener.send(GetListenerStats).await.unwrap()
}

#[actix_rt::test]
async fn who_shows_no_certificate_or_a_wrong_one_is_refused_by_name() {
    let pki = Pki::new();
    let mut two = secured(TWO, &pki.tls(TWO));
    let good = pki.make(&Wanted::of(&["node-1"]));
    let early = Wanted {
        from: 3600,
        ..Wanted::of(&["node-1"])
    };
    let expired = Wanted {
        to: -3600,
        ..Wanted::of(&["node-1"])
    };
    let stolen = (good.0.clone(), pki.make(&Wanted::of(&["node-1"])).1);
    for (shows, alerted, number) in [
        (
            Some(pki.make(&expired)),
            AlertDescription::CertificateExpired,
            16,
        ),
        (
            Some(pki.make(&early)),
            AlertDescription::CertificateExpired,
            17,
        ),
        (
            Some(Pki::new().make(&Wanted::of(&["node-1"]))),
            AlertDescription::UnknownCA,
            19,
        ),
        (Some(stolen), AlertDescription::DecryptError, 20),
        (None, AlertDescription::CertificateRequired, 21),
    ] {
        assert_eq!(alert(&two, shows.as_ref()).await, alerted);
        let refusal = turned(&mut two).await;
        assert!(
            matches!(refusal, Refusal::Certificate { ours: false, .. }),
            "{refusal}"
        );
        assert_eq!(refusal.number(), number, "{refusal}");
        assert_eq!(stats(&two).await.refused[&number], 1);
    }
    assert_eq!(stats(&two).await.accepted, 0);
    assert!(two.inbound.try_recv().is_err());
}

#[actix_rt::test]
async fn a_server_with_a_wrong_certificate_is_refused_by_name() {
    let pki = Pki::new();
    let mut one = secured(ONE, &pki.tls(ONE));
    let good = pki.make(&Wanted::of(&["node-2"]));
    let early = Wanted {
        from: 3600,
        ..Wanted::of(&["node-2"])
    };
    let stolen = (good.0, pki.make(&Wanted::of(&["node-2"])).1);
    for (shows, number) in [(pki.make(&early), 17), (stolen, 20)] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(shown(&shows));
        let sender = one.dial(TWO, socket.local_addr().unwrap());
        let (stream, _) = socket.accept().await.unwrap();
        let error = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
        assert!(error.unwrap_err().to_string().contains("alert"));
        let refused = one.event(|event| match event {
            PeerEvent::Refused { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        let refusal = refused.await;
        assert!(
            matches!(refusal, Refusal::Certificate { ours: false, .. }),
            "{refusal}"
        );
        assert_eq!(refusal.number(), number, "{refusal}");
        sender.stop();
    }
}

/// What is refused in plaintext, anybody on the way could have said.
#[actix_rt::test]
async fn a_forged_refusal_in_plaintext_is_not_believed() {
    let pki = Pki::new();
    let mut one = secured(ONE, &pki.tls(ONE));
    for (said, believed) in [
        (Refusal::DuplicateNode { node: ONE }, false),
        (Refusal::UnknownNode { node: ONE }, false),
        (Refusal::TooManyConnections, true),
        (Refusal::NoTls, true),
    ] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sender = one.dial(TWO, socket.local_addr().unwrap());
        let (mut stream, _) = socket.accept().await.unwrap();
        let frame = said.encode(&limits()).unwrap();
        stream.write_all(frame.as_bytes()).await.unwrap();
        let heard = one.event(|event| match event {
            PeerEvent::Refused { reason, .. } => Some(Ok(reason.clone())),
            PeerEvent::Unreachable { reason, .. } => Some(Err(reason.to_string())),
            _ => None,
        });
        match heard.await {
            Ok(reason) => assert!(believed && reason == said, "{reason}"),
            Err(reason) => {
                assert!(!believed, "{reason}");
                assert!(reason.contains("does not speak TLS"), "{reason}");
            }
        }
        sender.stop();
    }
}

#[actix_rt::test]
async fn garbage_is_refused_and_the_listener_goes_on() {
    let pki = Pki::new();
    let mut two = secured(TWO, &pki.tls(TWO));
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 14),
        (&[0; 100][..], 14),
        // A TLS record of the handshake, with nothing of one in it.
        (&[0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9][..], 9),
        // One that claims more than a record may have.
        (&[0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 0][..], 9),
    ] {
        let mut stream = TcpStream::connect(two.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let refusal = turned(&mut two).await;
        assert_eq!(refusal.number(), expected, "{refusal}");
    }
    let mut one = secured(ONE, &pki.tls(ONE));
    let _to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    assert_eq!(stats(&two).await.accepted, 1);
}

/// A ClientHello of 60 KiB, as TLS allows, in records that are each in order.
#[actix_rt::test]
async fn a_stranger_cannot_make_the_node_hold_a_long_handshake() {
    let pki = Pki::new();
    let mut two = secured(TWO, &pki.tls(TWO));
    let mut stream = TcpStream::connect(two.address).await.unwrap();
    let len: usize = 60 << 10;
    let mut hello = vec![1, 0, (len >> 8) as u8, len as u8];
    hello.resize(4 + len, 0);
    let mut sent = 0;
    for piece in hello.chunks(1 << 10) {
        let mut record = vec![0x16, 3, 1, (piece.len() >> 8) as u8, piece.len() as u8];
        record.extend_from_slice(piece);
        if stream.write_all(&record).await.is_err() {
            break;
        }
        sent += record.len();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let refusal = turned(&mut two).await;
    assert!(
        refusal.to_string().contains("longer than 16384"),
        "{refusal}"
    );
    assert_eq!(stats(&two).await.refused[&9], 1);
    assert!(sent >= HANDSHAKE_LEN_MAX, "{sent}");
}

#[actix_rt::test]
async fn half_a_client_hello_is_cut_in_time_and_holds_its_place_until_then() {
    let pki = Pki::new();
    let narrow = Limits {
        handshake_timeout: Duration::from_millis(300),
        handshakes_max: 4,
        ..limits()
    };
    let mut two = Node::with(local(TWO).with_tls(pki.tls(TWO)), narrow);
    let mut hello = Vec::new();
    let name = ServerName::try_from("node-2").unwrap();
    let config = Arc::clone(client(None).config());
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    connection.write_tls(&mut hello).unwrap();
    let began = Instant::now();
    let mut stream = TcpStream::connect(two.address).await.unwrap();
    stream.write_all(&hello[..hello.len() / 2]).await.unwrap();
    assert_eq!(turned(&mut two).await, Refusal::Slow { limit_ms: 300 });
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    assert!((300..3000).contains(&began.elapsed().as_millis()));

    // Many of them push out each other, and not a peer.
    let mut strangers = Vec::new();
    for _ in 0..20 {
        let mut stranger = TcpStream::connect(two.address).await.unwrap();
        stranger.write_all(&hello[..hello.len() / 2]).await.unwrap();
        strangers.push(stranger);
    }
    let mut one = secured(ONE, &pki.tls(ONE));
    let _to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
}

/// The TLS handshake is over, and the introduction does not come.
#[actix_rt::test]
async fn a_member_that_says_nothing_is_told_that_it_was_slow() {
    let pki = Pki::new();
    let quick = Limits {
        handshake_timeout: Duration::from_millis(500),
        ..limits()
    };
    let two = Node::with(local(TWO).with_tls(pki.tls(TWO)), quick);
    let socket = TcpStream::connect(two.address).await.unwrap();
    let name = ServerName::try_from("node-2").unwrap();
    let good = pki.make(&Wanted::of(&["node-1"]));
    let mut stream = client(Some(&good)).connect(name, socket).await.unwrap();
    let mut decoder = FrameDecoder::for_handshake(&limits());
    let frame = read_frame(&mut stream, &mut decoder).await.unwrap();
    let refusal = Refusal::decode(&frame).unwrap();
    assert_eq!(refusal, Refusal::Slow { limit_ms: 500 });
}
