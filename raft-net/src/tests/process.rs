//! Nodes of one process, without a wire. All else is as over TCP; here is what they differ in, and that each kind of
//! connection works.

use bytes::Bytes;
use tokio::sync::mpsc::channel;

use super::snapshots::content;
use super::tls::{Pki, secured};
use super::{Node, ONE, TWO, bulk, encode, heartbeat, limits, local};
use crate::{
    DialError, Ending, FrameEncoder, ListenError, Listener, Local, PeerEvent, Refusal, SendError,
    Stop, VisitError, visit,
};

fn at(local: Local, address: &str) -> Node {
    Node::with_listener(local, limits(), Listener::bind(address).unwrap())
}

#[actix_rt::test]
async fn frames_come_on_both_lanes_and_who_is_gone_is_known_to_be() {
    const ADDRESS: &str = "memory/lanes:2";
    let mut one = Node::new(local(ONE));
    let mut two = at(local(TWO), ADDRESS);
    one.local.list(TWO, ADDRESS);
    let to_two = one.dial_where_it_is(TWO);
    one.connected(TWO).await;
    assert_eq!(to_two.address(), ADDRESS);
    let mut encoder = FrameEncoder::new(&limits());
    for frame in [bulk(7), bulk(1 << 20), heartbeat(1)] {
        let whole = encoder.encode_for(&to_two, frame.clone()).unwrap();
        to_two.try_send(whole).unwrap();
        assert_eq!(two.batch().await.frames, [frame]);
    }
    assert_eq!(to_two.stats().queued_frames, 0);
    assert_eq!(to_two.stats().queued_bytes, 0);
    for frame in [bulk(7), heartbeat(1)] {
        let refused = to_two.try_send(encode(&frame));
        assert_eq!(refused, Err(SendError::NotConnected { peer: TWO }));
    }
    assert_eq!(to_two.stats().dropped_not_connected, 2);
    two.listener.send(Stop).await.unwrap();
    one.event(|event| matches!(event, PeerEvent::Lost { reset: true, .. }).then_some(()))
        .await;
    one.event(|event| matches!(event, PeerEvent::Unreachable { refused: true, .. }).then_some(()))
        .await;
    let _again = at(two.local.clone(), ADDRESS);
    one.connected(TWO).await;
}

#[actix_rt::test]
async fn an_address_in_use_is_named() {
    const ADDRESS: &str = "memory/named:1";
    let bound = Listener::bind(ADDRESS).unwrap();
    let error = Listener::bind(ADDRESS).unwrap_err();
    assert!(matches!(&error, ListenError::AddressInUse { address } if address == ADDRESS));
    assert!(bound.local_addr().ip().is_loopback());
    drop(bound);
    Listener::bind(ADDRESS).unwrap();
    let nonsense = Listener::bind("memory/named");
    assert!(matches!(nonsense, Err(ListenError::Bind { .. })));
}

/// Both of its ends are on threads, and runtimes, of their own.
#[actix_rt::test]
async fn a_snapshot_arrives_byte_for_byte() {
    const ADDRESS: &str = "memory/snapshot:2";
    const BYTES: u64 = (4 << 20) + 17;
    let (mut one, two) = (Node::new(local(ONE)), at(local(TWO), ADDRESS));
    let sender = one.snapshots();
    let _handed = one.offers(&sender, TWO, ADDRESS, BYTES);
    one.ended().await.unwrap();
    assert!(two.folder.finished.lock().unwrap()[..] == [content(0..BYTES)]);
}

#[actix_rt::test]
async fn who_has_no_id_yet_is_visited_there_and_then_listens() {
    const ADDRESS: &str = "memory/visited:2";
    let (visits, mut visits_told) = channel(1);
    let (dialled, _dialled_told) = channel(1);
    let bound = Listener::bind(ADDRESS).unwrap();
    let visited = bound.visited(None, limits(), visits, dialled).unwrap();
    let limits = limits();
    let asked = visit(ADDRESS, Bytes::from_static(b"you?"), None, &limits);
    let answers = async {
        let visit = visits_told.recv().await.unwrap();
        visit.reply.send(Ok(visit.data)).unwrap();
    };
    let (asked, ()) = tokio::join!(asked, answers);
    assert_eq!(asked.unwrap(), b"you?".as_slice());
    let bound = visited.stop().await;
    let two = Node::with_listener(local(TWO), limits, bound);
    let mut one = Node::new(local(ONE));
    one.local.list(TWO, ADDRESS);
    let _to_two = one.dial_where_it_is(TWO);
    one.connected(TWO).await;
    drop(two);
}

#[actix_rt::test]
async fn a_node_that_has_tls_neither_reaches_anybody_there_nor_is_reached() {
    const ADDRESS: &str = "memory/tls:2";
    let pki = Pki::new();
    let tls = pki.tls(ONE);
    let plain = at(local(TWO), ADDRESS);
    let answer = visit(ADDRESS, Bytes::new(), Some(&tls), &limits()).await;
    let Err(VisitError::Unreachable(DialError::Handshake { source, .. })) = answer else {
        panic!("not refused: {answer:?}");
    };
    assert!(matches!(source, Ending::NotTls));
    let mut one = secured(ONE, &tls);
    one.local.list(TWO, ADDRESS);
    let _to_two = one.dial_where_it_is(TWO);
    let why = one.event(|event| match event {
        PeerEvent::Unreachable { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    assert!(why.await.contains("does not speak TLS"));
    plain.listener.send(Stop).await.unwrap();
    let _secured = at(local(TWO).with_tls(pki.tls(TWO)), ADDRESS);
    let answer = visit(ADDRESS, Bytes::new(), None, &limits()).await;
    let Err(VisitError::Refused { refusal, .. }) = answer else {
        panic!("not refused: {answer:?}");
    };
    assert_eq!(refusal, Refusal::TlsWanted);
}
