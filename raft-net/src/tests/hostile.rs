//! Strangers and broken peers.

use std::sync::Arc;

use actix::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::codec::forge;
use super::snapshots::Shared;
use super::{Node, ONE, TWO, commit, encode, limits, local, told};
use crate::decode::FrameDecoder;
use crate::handshake::{Introduction, confirm, read_frame};
use crate::{
    Ending, FrameKind, GetListenerStats, Inbound, Limits, Listener, Local, PeerEvent, Recipients,
    Refusal,
};

/// A main connection of node 1 to `node` whose handshake is over.
pub(super) async fn established(node: &Node) -> TcpStream {
    greeted(node, &local(ONE), FrameKind::Hello).await
}

/// A connection of `from` to `node` that began with `hello` and whose handshake is over.
pub(super) async fn greeted(node: &Node, from: &Local, hello: FrameKind) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let introduction = from.introduction(node.local.node());
    let hello = introduction.encode(hello, &limits()).unwrap();
    stream.write_all(hello.as_bytes()).await.unwrap();
    let mut decoder = FrameDecoder::new(&Limits::default());
    let frame = read_frame(&mut stream, &mut decoder).await.unwrap();
    assert_eq!(frame.kind, FrameKind::Welcome);
    let nonce = Introduction::decode(&frame).unwrap().nonce;
    assert_ne!(nonce, 0);
    confirm(&mut stream, nonce, &limits()).await.unwrap();
    stream
}

/// All that a peer had said, its acceptor's number confirmed: played again it touches nothing.
#[actix_rt::test]
async fn a_recorded_session_is_of_no_use() {
    let mut two = Node::new(local(TWO));
    let one = local(ONE);
    let mut live = greeted(&two, &one, FrameKind::Hello).await;
    live.write_all(encode(&commit(1)).as_bytes()).await.unwrap();
    assert_eq!(two.batch().await.frames, [commit(1)]);
    for kind in [
        FrameKind::Hello,
        FrameKind::UrgentHello,
        FrameKind::SnapshotHello,
    ] {
        let mut recorded = TcpStream::connect(two.address).await.unwrap();
        let hello = one.introduction(TWO).encode(kind, &limits());
        recorded.write_all(hello.unwrap().as_bytes()).await.unwrap();
        confirm(&mut recorded, 7, &limits()).await.unwrap();
        // The node may have closed it by now.
        let _ = recorded.write_all(encode(&commit(9)).as_bytes()).await;
        let turned = two
            .event(|event| match event {
                PeerEvent::Turned { peer, reason, .. } => Some((*peer, reason.clone())),
                _ => None,
            })
            .await;
        assert_eq!(turned, (Some(ONE), Refusal::Replayed));
    }
    // The peer's own connection goes on.
    live.write_all(encode(&commit(2)).as_bytes()).await.unwrap();
    assert_eq!(two.batch().await.frames, [commit(2)]);
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert_eq!((stats.accepted, stats.frames), (1, 2));
}

/// Else a stranger would choose under which name it is counted, and what the log says.
#[actix_rt::test]
async fn a_strangers_refusal_is_none_of_this_nodes() {
    let mut two = Node::new(local(TWO));
    let mut stream = TcpStream::connect(two.address).await.unwrap();
    let refusal = Refusal::UnknownNode { node: ONE }.encode(&limits());
    let refusal = refusal.unwrap();
    stream.write_all(refusal.as_bytes()).await.unwrap();
    let turned = two
        .event(|event| match event {
            PeerEvent::Turned { peer, reason, .. } => Some((*peer, reason.clone())),
            _ => None,
        })
        .await;
    let named = matches!(turned, (None, Refusal::Malformed { .. }));
    assert!(named, "{turned:?}");
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    let malformed = turned.1.number();
    assert_eq!(stats.refused.keys().collect::<Vec<_>>(), [&malformed]);
}

#[actix_rt::test]
async fn a_bad_frame_ends_the_connection_after_the_good_ones_before_it() {
    let mut two = Node::new(local(TWO));
    let mut stream = established(&two).await;
    let mut bytes = encode(&commit(1)).as_bytes().to_vec();
    bytes.extend(forge(FrameKind::Heartbeat, &(u64::MAX, 1, 1)));
    bytes.extend_from_slice(encode(&commit(2)).as_bytes());
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(two.batch().await.frames, [commit(1)]);
    let reason = two
        .event(|event| match event {
            PeerEvent::Closed { peer: ONE, reason } => Some(reason.to_string()),
            _ => None,
        })
        .await;
    assert!(reason.contains("out of range"), "{reason}");
    assert!(two.inbound.try_recv().is_err());
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert_eq!(stats.malformed, [("number", 1)].into());
    assert_eq!(stats.frames, 1);
    let _ = stream.read(&mut [0]).await;
}

#[actix_rt::test]
async fn strangers_that_hold_connections_do_not_keep_a_peer_out() {
    let narrow = Limits {
        handshakes_max: 4,
        connections_max: 6,
        ..limits()
    };
    let mut two = Node::with(local(TWO), narrow);
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(TcpStream::connect(two.address).await.unwrap());
    }
    let turned = two
        .event(|event| match event {
            PeerEvent::Turned {
                peer: None, reason, ..
            } => Some(reason.clone()),
            _ => None,
        })
        .await;
    assert_eq!(turned, Refusal::TooManyConnections);
    let mut one = Node::new(local(ONE));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    to_two.try_send(encode(&commit(1))).unwrap();
    assert_eq!(two.batch().await.frames, [commit(1)]);
    for _ in 0..20 {
        strangers.push(TcpStream::connect(two.address).await.unwrap());
    }
    // The strangers push out each other; the first of them heard why.
    let mut decoder = FrameDecoder::new(&Limits::default());
    let frame = read_frame(&mut strangers[0], &mut decoder).await.unwrap();
    assert_eq!(
        Refusal::decode(&frame).unwrap(),
        Refusal::TooManyConnections
    );
    to_two.try_send(encode(&commit(2))).unwrap();
    assert_eq!(two.batch().await.frames, [commit(2)]);
    assert_eq!(to_two.stats().connects, 1);
}

#[actix_rt::test]
async fn strangers_of_a_peers_address_give_way_to_it_and_it_never_to_them() {
    let narrow = Limits {
        connections_per_address_max: 2,
        ..limits()
    };
    let mut two = Node::with(local(TWO), narrow);
    let mut strangers = Vec::new();
    for _ in 0..2 {
        strangers.push(TcpStream::connect(two.address).await.unwrap());
    }
    let one = local(ONE);
    let mut main = greeted(&two, &one, FrameKind::Hello).await;
    let _urgent = greeted(&two, &one, FrameKind::UrgentHello).await;
    let mut decoder = FrameDecoder::new(&Limits::default());
    let mut refusal = async |stranger: &mut TcpStream| {
        let frame = read_frame(stranger, &mut decoder).await.unwrap();
        Refusal::decode(&frame).unwrap()
    };
    for stranger in &mut strangers {
        assert_eq!(refusal(stranger).await, Refusal::TooManyConnections);
    }
    // Now that the address has its two for good, there is no place for a third.
    let mut stranger = TcpStream::connect(two.address).await.unwrap();
    assert_eq!(refusal(&mut stranger).await, Refusal::TooManyConnections);
    main.write_all(encode(&commit(1)).as_bytes()).await.unwrap();
    assert_eq!(two.batch().await.frames, [commit(1)]);
}

#[actix_rt::test]
async fn the_dialled_side_may_say_nothing_but_a_refusal() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut one = Node::new(local(ONE));
    let _sender = one.dial(TWO, socket.local_addr().unwrap());
    let (mut stream, _) = socket.accept().await.unwrap();
    let mut decoder = FrameDecoder::new(&Limits::default());
    read_frame(&mut stream, &mut decoder).await.unwrap();
    let welcome = local(TWO).introduction(ONE);
    let welcome = welcome.encode(FrameKind::Welcome, &limits()).unwrap();
    stream.write_all(welcome.as_bytes()).await.unwrap();
    one.connected(TWO).await;
    stream
        .write_all(encode(&commit(9)).as_bytes())
        .await
        .unwrap();
    let malformed = one
        .event(|event| match event {
            PeerEvent::Lost { reason, reset, .. } => {
                assert!(!reset);
                Some(matches!(reason, Ending::Malformed(_)))
            }
            _ => None,
        })
        .await;
    assert!(malformed);
    assert!(one.inbound.try_recv().is_err());
}

/// Panics at what it is told.
struct Fragile;

impl Actor for Fragile {
    type Context = Context<Self>;
}

impl Handler<Inbound> for Fragile {
    type Result = ();

    fn handle(&mut self, _: Inbound, _: &mut Self::Context) {
        panic!("on purpose");
    }
}

#[actix_rt::test]
async fn a_receiver_that_dies_ends_the_connection_and_not_the_listener() {
    let events = Node::new(local(TWO));
    let bound = Listener::bind("127.0.0.1:0").unwrap();
    let address = bound.local_addr();
    let recipients = Recipients {
        inbound: Fragile.start().recipient(),
        ..told(&events.sink)
    };
    let folder = Arc::new(Shared(events.folder.clone()));
    let listener = bound.start(local(TWO), limits(), recipients, folder);
    let mut one = Node::new(local(ONE));
    let to_two = one.dial(TWO, address);
    one.connected(TWO).await;
    to_two.try_send(encode(&commit(1))).unwrap();
    one.event(|event| matches!(event, PeerEvent::Lost { reset: true, .. }).then_some(()))
        .await;
    one.connected(TWO).await;
    assert_eq!(listener.send(GetListenerStats).await.unwrap().accepted, 2);
}
