//! What is urgent does not wait behind bulk, and silence is noticed.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::codec::forge;
use super::hostile::{established, greeted};
use super::{
    CLUSTER, Node, ONE, PATIENCE, TWO, born, bulk, commit, encode, folder, heartbeat, limits, local,
};
use crate::decode::FrameDecoder;
use crate::handshake::read_frame;
use crate::{
    Ending, FrameKind, GetListenerStats, Held, Limits, Local, PeerEvent, PeerSender, PeerStats,
    SendError,
};

/// Pings often, and waits for little.
fn hasty() -> Limits {
    Limits {
        ping_interval: Duration::from_millis(20),
        idle_timeout: Duration::from_millis(300),
        ..limits()
    }
}

async fn until(sender: &PeerSender, what: &str, wanted: impl Fn(&PeerStats) -> bool) {
    let since = Instant::now();
    while !wanted(&sender.stats()) {
        assert!(since.elapsed() < PATIENCE, "{what}: {:?}", sender.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn both_lanes(sender: &PeerSender) {
    until(sender, "both lanes", |stats| {
        stats.connected && stats.urgent_connected
    })
    .await;
}

impl Node {
    async fn lost(&mut self) -> Ending {
        let event = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.events.recv().await {
                    Some(PeerEvent::Lost { reason, .. } | PeerEvent::Closed { reason, .. }) => {
                        return reason;
                    }
                    Some(_) => {}
                    None => panic!("the sink is gone"),
                }
            }
        });
        event.await.expect("a connection is lost")
    }
}

#[actix_rt::test]
async fn a_heartbeat_does_not_wait_behind_bulk() {
    let narrow = Limits {
        queue_bytes_max: 1 << 20,
        ..limits()
    };
    let mut one = Node::with(local(ONE), narrow);
    let mut two = Node::new(local(TWO));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    both_lanes(&to_two).await;
    // A batch that is not handled stops the reading; the sockets fill, and then the queue.
    let _held = two.hold().await;
    let frame = encode(&bulk(60 << 10));
    let mut stuffed_at = 0;
    loop {
        match to_two.try_send(frame.clone()) {
            Ok(()) => {}
            Err(SendError::Full { .. }) if to_two.stats().bytes == stuffed_at => break,
            Err(SendError::Full { .. }) => {
                stuffed_at = to_two.stats().bytes;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_ne!(two.batch().await.frames, [heartbeat(1)]);
    for term in 1..=3 {
        let since = Instant::now();
        to_two.try_send(encode(&heartbeat(term))).unwrap();
        if term == 1 {
            assert_eq!(two.batch().await.frames, [heartbeat(term)]);
        }
        // The first one is not handled either: the next stay in its lane.
        assert!(since.elapsed() < Duration::from_millis(500));
    }
    let stats = to_two.stats();
    assert!(stats.queued_bytes_max > 900 << 10 && stats.queued_bytes_max <= 1 << 20);
    until(&to_two, "urgent frames", |stats| stats.urgent_frames == 3).await;
}

#[actix_rt::test]
async fn the_urgent_lane_has_a_bound_of_its_own() {
    let narrow = Limits {
        urgent_frames_max: 4,
        ..limits()
    };
    let mut one = Node::with(local(ONE), narrow);
    let two = Node::new(local(TWO));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    both_lanes(&to_two).await;
    for term in 1..=4 {
        to_two.try_send(encode(&heartbeat(term))).unwrap();
    }
    // No other task has run meanwhile.
    let full = to_two.try_send(encode(&heartbeat(5)));
    assert!(
        matches!(full, Err(SendError::Full { frames: 4, .. })),
        "{full:?}"
    );
    to_two.try_send(encode(&commit(6))).unwrap();
}

#[actix_rt::test]
async fn without_an_urgent_lane_all_takes_the_main_one() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut one = Node::new(local(ONE));
    let to_two = one.dial(TWO, socket.local_addr().unwrap());
    // The second connection is accepted by the system and never greeted.
    let (mut stream, mut decoder) = welcome(&socket).await;
    one.connected(TWO).await;
    to_two.try_send(encode(&heartbeat(1))).unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        kinds.push(read_frame(&mut stream, &mut decoder).await.unwrap().kind);
    }
    assert!(kinds.contains(&FrameKind::Heartbeat), "{kinds:?}");
    assert!(!to_two.stats().urgent_connected);
}

#[actix_rt::test]
async fn behind_a_silent_urgent_lane_all_takes_the_main_one() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let patient = Limits {
        idle_timeout: PATIENCE,
        ..hasty()
    };
    let mut one = Node::with(local(ONE), patient);
    let to_two = one.dial(TWO, socket.local_addr().unwrap());
    let two = local(TWO);
    let (mut main, mut decoder) = welcome_as(&two, &socket).await;
    one.connected(TWO).await;
    // It is greeted, and then nothing on it is answered.
    let _silent = welcome_as(&two, &socket).await;
    both_lanes(&to_two).await;
    to_two.try_send(encode(&heartbeat(1))).unwrap();
    tokio::time::sleep(hasty().ping_interval * 4).await;
    to_two.try_send(encode(&heartbeat(2))).unwrap();
    let heard = async {
        loop {
            let frame = read_frame(&mut main, &mut decoder).await.unwrap();
            if frame.kind == FrameKind::Heartbeat {
                return crate::decode::decode_frame(frame.kind, &frame.body).unwrap();
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await.unwrap();
    assert_eq!(heard, heartbeat(2));
    assert!(to_two.stats().urgent_connected);
}

#[actix_rt::test]
async fn the_urgent_lane_comes_back_and_ends_with_the_main_one() {
    let mut two = Node::new(local(TWO));
    let mut one = Node::new(local(ONE));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    both_lanes(&to_two).await;
    // Another urgent connection of the same process takes the place of the first.
    let _stream = greeted(&two, &one.local, FrameKind::UrgentHello).await;
    until(&to_two, "a new lane", |stats| stats.urgent_connects == 2).await;
    both_lanes(&to_two).await;
    to_two.try_send(encode(&heartbeat(7))).unwrap();
    assert_eq!(two.batch().await.frames, [heartbeat(7)]);
    assert_eq!(to_two.stats().connects, 1, "the main one stayed");
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert_eq!((stats.accepted, stats.accepted_urgent), (1, 3));
    two.restart_listener().await;
    one.connected(TWO).await;
    both_lanes(&to_two).await;
    to_two.stop();
    to_two.stopped().await;
    let stats = to_two.stats();
    assert!(!stats.connected && !stats.urgent_connected && stats.round_trip.is_none());
}

#[actix_rt::test]
async fn a_later_start_ends_every_connection_of_the_earlier_one() {
    let mut two = Node::new(local(TWO));
    let started = |starts| {
        let cluster = Some(CLUSTER);
        Local::new(ONE, folder(ONE), starts, cluster, born(), Held::default())
    };
    let _main = greeted(&two, &started(1), FrameKind::Hello).await;
    // Another process, with another run, though a test has it in this one.
    let mut urgent = greeted(&two, &started(2), FrameKind::UrgentHello).await;
    let ending = two.lost().await;
    assert!(matches!(ending, Ending::Replaced), "{ending}");
    let beat = encode(&heartbeat(3));
    urgent.write_all(beat.as_bytes()).await.unwrap();
    assert_eq!(two.batch().await.starts, 2);
    let _main = greeted(&two, &started(3), FrameKind::Hello).await;
    let end = tokio::time::timeout(PATIENCE, urgent.read(&mut [0])).await;
    assert_eq!(end.expect("it ends").unwrap_or(0), 0);
}

#[actix_rt::test]
async fn a_later_start_is_not_spoken_to_where_the_earlier_one_was() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut one = Node::new(local(ONE));
    let started = |starts| {
        let cluster = Some(CLUSTER);
        Local::new(TWO, folder(TWO), starts, cluster, born(), Held::default())
    };
    let _to_two = one.dial(TWO, socket.local_addr().unwrap());
    let _silent = welcome_as(&started(1), &socket).await;
    one.connected(TWO).await;
    // Its host is silent, and it comes from another one.
    let _again = greeted(&one, &started(2), FrameKind::Hello).await;
    let ending = one.lost().await;
    assert!(matches!(ending, Ending::Replaced), "{ending}");
}

#[actix_rt::test]
async fn the_end_is_told_behind_the_last_urgent_word() {
    let mut two = Node::new(local(TWO));
    let one = local(ONE);
    let main = greeted(&two, &one, FrameKind::Hello).await;
    let mut urgent = greeted(&two, &one, FrameKind::UrgentHello).await;
    let held = two.hold().await;
    let beat = encode(&heartbeat(1));
    urgent.write_all(beat.as_bytes()).await.unwrap();
    two.batch().await;
    // Its process dies, and its last heartbeat is being handled.
    drop((main, urgent));
    let early = tokio::time::timeout(Duration::from_millis(100), two.lost()).await;
    assert!(early.is_err(), "the end is told too early");
    drop(held);
    let ending = two.lost().await;
    assert!(ending.is_reset(), "{ending}");
    // It does not wait for ever: here the urgent connection lives on.
    let main = greeted(&two, &one, FrameKind::Hello).await;
    let _urgent = greeted(&two, &one, FrameKind::UrgentHello).await;
    drop(main);
    two.lost().await;
}

#[actix_rt::test]
async fn the_round_trip_is_measured() {
    let mut one = Node::with(local(ONE), hasty());
    let two = Node::new(local(TWO));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    until(&to_two, "a round trip", |stats| stats.round_trip.is_some()).await;
    let trip = to_two.stats().round_trip.unwrap();
    assert!(trip.smoothed > Duration::ZERO && trip.smoothed < Duration::from_secs(5));
    // Pings are no frames.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(to_two.stats().frames, 0);
    let heard = two.listener.send(GetListenerStats).await.unwrap();
    assert_eq!((heard.frames, heard.bytes, heard.batches), (0, 0, 0));
}

/// Accepts one connection and plays node 2 through its handshake.
async fn welcome(socket: &TcpListener) -> (TcpStream, FrameDecoder) {
    welcome_as(&local(TWO), socket).await
}

/// The same, in the name of one process each time.
async fn welcome_as(two: &Local, socket: &TcpListener) -> (TcpStream, FrameDecoder) {
    let (mut stream, _) = socket.accept().await.unwrap();
    let mut decoder = FrameDecoder::new(&Limits::default());
    read_frame(&mut stream, &mut decoder).await.unwrap();
    let welcome = two.introduction(ONE);
    let welcome = welcome.encode(FrameKind::Welcome, &limits()).unwrap();
    stream.write_all(welcome.as_bytes()).await.unwrap();
    let confirm = read_frame(&mut stream, &mut decoder).await.unwrap();
    assert_eq!(confirm.kind, FrameKind::Confirm);
    (stream, decoder)
}

#[actix_rt::test]
async fn who_does_not_answer_is_not_there() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut one = Node::with(local(ONE), hasty());
    let to_two = one.dial(TWO, socket.local_addr().unwrap());
    let (_stream, _) = welcome(&socket).await;
    one.connected(TWO).await;
    // What is written is no sign of life.
    let chatter = async {
        loop {
            let _ = to_two.try_send(encode(&commit(1)));
            let waits = to_two.stats().round_trip.map(|trip| trip.last);
            assert!(waits.is_none_or(|waits| waits < Duration::from_secs(10)));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        ending = one.lost() => assert!(matches!(ending, Ending::Idle(_)), "{ending}"),
        () = chatter => {}
    }
}

#[actix_rt::test]
async fn who_says_nothing_is_not_there() {
    let mut two = Node::with(local(TWO), hasty());
    let _stream = established(&two).await;
    let since = Instant::now();
    let ending = two.lost().await;
    assert!(matches!(ending, Ending::Idle(_)), "{ending}");
    assert!(since.elapsed() >= Duration::from_millis(250));
}

#[actix_rt::test]
async fn who_pings_is_there_and_so_is_who_is_busy() {
    let impatient = Limits {
        idle_timeout: Duration::from_secs(2),
        ..hasty()
    };
    let mut two = Node::with(local(TWO), impatient);
    let patient = Limits {
        idle_timeout: PATIENCE,
        ..hasty()
    };
    let mut one = Node::with(local(ONE), patient);
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // A batch takes longer than a silence may: that is this side's own silence.
    let held = two.hold().await;
    to_two.try_send(encode(&commit(1))).unwrap();
    two.batch().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(held);
    to_two.try_send(encode(&commit(2))).unwrap();
    assert_eq!(two.batch().await.frames, [commit(2)]);
    let stats = to_two.stats();
    assert_eq!((stats.connects, stats.urgent_connects), (1, 1));
}

#[actix_rt::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut one = Node::new(local(ONE));
    let _to_two = one.dial(TWO, socket.local_addr().unwrap());
    let (mut stream, mut decoder) = welcome(&socket).await;
    let ping = read_frame(&mut stream, &mut decoder).await.unwrap();
    assert_eq!(ping.kind, FrameKind::Ping);
    // The answer, and the answer again.
    for _ in 0..2 {
        let pong = forge(FrameKind::Pong, &(1_u64,));
        stream.write_all(&pong).await.unwrap();
    }
    let ending = one.lost().await;
    assert!(matches!(ending, Ending::Malformed(_)), "{ending}");
}

#[actix_rt::test]
async fn the_accepting_side_is_asked_and_does_not_answer_unasked() {
    let mut two = Node::new(local(TWO));
    let mut stream = established(&two).await;
    let pong = forge(FrameKind::Pong, &(1_u64,));
    stream.write_all(&pong).await.unwrap();
    let ending = two.lost().await;
    assert!(matches!(ending, Ending::Malformed(_)), "{ending}");
    // Many pings are read as one.
    let two = Node::new(local(TWO));
    let mut stream = established(&two).await;
    let pings: Vec<u8> = (1_u64..=100)
        .flat_map(|n| forge(FrameKind::Ping, &(n,)))
        .collect();
    stream.write_all(&pings).await.unwrap();
    let mut decoder = FrameDecoder::new(&Limits::default());
    loop {
        let pong = read_frame(&mut stream, &mut decoder).await.unwrap();
        assert_eq!(pong.kind, FrameKind::Pong);
        let (number,): (u64,) = rmp_serde::from_slice(&pong.body).unwrap();
        if number == 100 {
            break;
        }
    }
}
