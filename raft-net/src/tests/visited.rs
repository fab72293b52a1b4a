//! A node that has no id yet, at its address.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, channel};

use super::tls::{Pki, Wanted, secured};
use super::{CLUSTER, Node, ONE, PATIENCE, THREE, TWO, commit, encode, folder, limits, local};
use crate::decode::FrameDecoder;
use crate::handshake::read_frame;
use crate::{
    Dialled, Limits, Listener, PeerEvent, Refusal, Tls, TlsName, Visit, VisitError, Visited, visit,
};

/// One who waits to be told who it is.
struct Joiner {
    visited: Visited,
    address: SocketAddr,
    visits: Receiver<Visit>,
    dialled: Receiver<Dialled>,
}

impl Joiner {
    fn new(tls: Option<Tls>, limits: Limits) -> Self {
        let bound = Listener::bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr();
        let (visits, visits_told) = channel(8);
        let (dialled, dialled_told) = channel(8);
        Self {
            visited: bound.visited(tls, limits, visits, dialled).unwrap(),
            address,
            visits: visits_told,
            dialled: dialled_told,
        }
    }

    async fn visitor(&mut self) -> Visit {
        let visit = tokio::time::timeout(PATIENCE, self.visits.recv()).await;
        visit.expect("a visit comes").expect("it is visited")
    }

    /// Answers the next visit by the leader of its cluster.
    async fn answers(&mut self, tls: Option<&Tls>) -> Result<Bytes, VisitError> {
        let address = self.address.to_string();
        let limits = limits();
        let asked = visit(&address, b"you?".as_slice().into(), tls, &limits);
        let answers = async {
            let visit = self.visitor().await;
            assert_eq!(visit.data, b"you?".as_slice());
            visit.reply.send(Ok(b"yes".as_slice().into())).unwrap();
            visit.shown
        };
        let (asked, shown) = tokio::join!(asked, answers);
        assert_eq!(shown.is_some(), tls.is_some());
        asked
    }
}

async fn refused(node: &mut Node) -> Refusal {
    node.event(|event| match event {
        PeerEvent::Refused { reason, .. } => Some(reason.clone()),
        _ => None,
    })
    .await
}

#[actix_rt::test]
async fn it_is_visited_and_hears_whom_it_is_taken_for() {
    let mut joiner = Joiner::new(None, limits());
    assert_eq!(joiner.answers(None).await.unwrap(), b"yes".as_slice());
    let mut one = Node::new(local(ONE));
    let _to_three = one.dial(THREE, joiner.address);
    assert_eq!(refused(&mut one).await, Refusal::Joining);
    let dialled = tokio::time::timeout(PATIENCE, joiner.dialled.recv()).await;
    let dialled = dialled.unwrap().unwrap();
    let expected = Dialled {
        from: ONE,
        to: THREE,
        cluster: Some(CLUSTER),
        known: Some(folder(THREE)),
        remote: dialled.remote,
    };
    assert_eq!(dialled, expected);
    assert_eq!(dialled.remote.ip(), joiner.address.ip());
}

/// It is told that it is node 3, and becomes that: who has dialled it finds it, at the same address.
#[actix_rt::test]
async fn the_listener_comes_back_and_nobody_who_dials_is_lost() {
    let mut joiner = Joiner::new(None, limits());
    let mut one = Node::new(local(ONE));
    let to_three = one.dial(THREE, joiner.address);
    assert_eq!(refused(&mut one).await, Refusal::Joining);
    // In the middle of something when it ends.
    let mut stranger = TcpStream::connect(joiner.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let bound = tokio::time::timeout(PATIENCE, joiner.visited.stop()).await;
    let bound = bound.expect("it stops");
    assert_eq!(bound.local_addr(), joiner.address);
    let ended = tokio::time::timeout(PATIENCE, stranger.read(&mut [0])).await;
    assert!(!matches!(ended.expect("it is cut"), Ok(1..)));
    assert!(joiner.visits.recv().await.is_none());
    // Whoever comes now waits in the socket's queue.
    let mut early = TcpStream::connect(joiner.address).await.unwrap();
    early.write_all(b"what?").await.unwrap();
    let mut three = Node::with_listener(local(THREE), limits(), bound);
    one.connected(THREE).await;
    to_three.try_send(encode(&commit(1))).unwrap();
    assert_eq!(three.batch().await.frames, [commit(1)]);
    let mut decoder = FrameDecoder::new(&Limits::default());
    let frame = read_frame(&mut early, &mut decoder).await.unwrap();
    let refusal = Refusal::decode(&frame).unwrap();
    assert!(matches!(refusal, Refusal::Malformed { .. }), "{refusal}");
}

#[actix_rt::test]
async fn dropped_it_leaves_nothing() {
    let joiner = Joiner::new(None, limits());
    let mut stranger = TcpStream::connect(joiner.address).await.unwrap();
    drop(joiner.visited);
    let ended = tokio::time::timeout(PATIENCE, stranger.read(&mut [0])).await;
    assert!(!matches!(ended.expect("it is cut"), Ok(1..)));
    let rebound = async {
        while Listener::bind(joiner.address).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rebound)
        .await
        .expect("the socket is closed");
}

#[actix_rt::test]
async fn strangers_push_out_each_other_and_no_channel_overflows() {
    let narrow = Limits {
        handshakes_max: 4,
        connections_max: 6,
        handshake_timeout: Duration::from_millis(500),
        ..limits()
    };
    let mut joiner = Joiner::new(None, narrow);
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(TcpStream::connect(joiner.address).await.unwrap());
    }
    let mut refusal = async |at: usize| {
        let mut decoder = FrameDecoder::new(&Limits::default());
        let stream: &mut TcpStream = &mut strangers[at];
        let frame = tokio::time::timeout(PATIENCE, read_frame(stream, &mut decoder)).await;
        Refusal::decode(&frame.unwrap().unwrap()).unwrap()
    };
    assert_eq!(refusal(0).await, Refusal::TooManyConnections);
    assert_eq!(refusal(19).await, Refusal::Slow { limit_ms: 500 });
    // More of them dial than there is room for in the channel, and nobody takes them out.
    let hello = local(ONE).introduction(THREE);
    let hello = hello.encode(crate::FrameKind::Hello, &limits()).unwrap();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(joiner.address).await.unwrap();
        stream.write_all(hello.as_bytes()).await.unwrap();
        let mut decoder = FrameDecoder::new(&Limits::default());
        let frame = read_frame(&mut stream, &mut decoder).await.unwrap();
        assert_eq!(Refusal::decode(&frame).unwrap(), Refusal::Joining);
    }
    assert_eq!(joiner.dialled.len(), 8);
    joiner.answers(None).await.unwrap();
}

#[actix_rt::test]
async fn with_tls_nobody_without_it_is_heard() {
    let pki = Pki::new();
    let name = TlsName::new("new.example").unwrap();
    let own = pki.give(THREE, &Wanted::of(&["new.example"]));
    let own = Tls::load(own, Some(name)).unwrap();
    let mut joiner = Joiner::new(Some(own), limits());
    let leader = pki.tls(ONE);
    assert_eq!(
        joiner.answers(Some(&leader)).await.unwrap(),
        b"yes".as_slice()
    );
    for tls in [None, Some(&Pki::new().tls(TWO))] {
        let address = joiner.address.to_string();
        let refused = visit(&address, Bytes::new(), tls, &limits()).await;
        assert!(
            matches!(refused, Err(VisitError::Refused { .. })),
            "{refused:?}"
        );
    }
    // A member that knows its name.
    let mut one = secured(ONE, &leader);
    let mut members = super::born();
    members.get_mut(&THREE).unwrap().tls_name = Some(TlsName::new("new.example").unwrap());
    one.local.set_members(members, THREE);
    let _to_three = one.dial(THREE, joiner.address);
    assert_eq!(refused(&mut one).await, Refusal::Joining);
    assert_eq!(joiner.dialled.recv().await.unwrap().to, THREE);
    assert!(joiner.visits.try_recv().is_err());
}
