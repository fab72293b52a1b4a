//! Connections between nodes that agree.

use super::{
    CLUSTER, Node, ONE, PATIENCE, Panic, TWO, ask_for, bulk, commit, encode, folder, known, limits,
    local, unborn,
};
use crate::{
    Ending, Frame, GetListenerStats, Held, Inbound, Limits, ListenError, Listener, Local,
    PeerEvent, PeerHello, SendError, Stop,
};

fn frames(batch: &Inbound) -> &[Frame] {
    &batch.frames
}

#[actix_rt::test]
async fn two_nodes_talk_both_ways() {
    let (mut one, mut two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    two.local.advertise("two.example:7002");
    let to_two = one.dial(TWO, two.address);
    let to_one = two.dial(ONE, one.address);
    let hello = one
        .event(|event| match event {
            PeerEvent::Connected { peer: TWO, hello } => Some(hello.clone()),
            _ => None,
        })
        .await;
    let expected = PeerHello {
        incarnation: folder(TWO),
        starts: 1,
        cluster: Some(CLUSTER),
        held: Held::default(),
        address: "two.example:7002".into(),
    };
    assert_eq!(hello, expected);
    two.connected(ONE).await;
    assert!(to_two.is_connected() && to_one.is_connected());
    to_two.try_send(encode(&commit(1))).unwrap();
    to_one.try_send(encode(&commit(2))).unwrap();
    let batch = two.batch().await;
    assert_eq!((batch.from, frames(&batch)), (ONE, &[commit(1)][..]));
    let batch = one.batch().await;
    assert_eq!((batch.from, frames(&batch)), (TWO, &[commit(2)][..]));
}

#[actix_rt::test]
async fn frames_of_all_sizes_arrive_in_order() {
    let (mut one, mut two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let wide = Limits {
        queue_bytes_max: 100 << 20,
        ..limits()
    };
    one.limits = wide;
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    let sent: Vec<Frame> = (0..400_usize)
        .map(|i| match i % 7 {
            0 => bulk(i * 400),
            1 if i > 300 => bulk(3 << 20),
            1 => bulk(15 << 10),
            _ => commit(i as u64),
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
    let stats = to_two.stats();
    assert_eq!((stats.frames, stats.connects), (400, 1));
    assert!(stats.writes < 400, "{} writes", stats.writes);
    let heard = two.listener.send(GetListenerStats).await.unwrap();
    assert_eq!(
        (heard.frames, heard.bytes, heard.accepted),
        (400, stats.bytes, 1)
    );
    assert_eq!((stats.queued_frames, stats.queued_bytes), (0, 0));
}

#[actix_rt::test]
async fn the_next_batch_waits_until_this_one_is_handled() {
    let small = Limits {
        batch_frames_max: 3,
        ..limits()
    };
    let mut two = Node::with(local(TWO), small);
    let mut one = Node::new(local(ONE));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    let held = two.hold().await;
    for term in 1..=7 {
        to_two.try_send(encode(&commit(term))).unwrap();
    }
    let mut received = two.batch().await.frames;
    // One turn of everything that could run; a second batch would be there now.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(two.inbound.try_recv().is_err());
    drop(held);
    while received.len() < 7 {
        let frames = two.batch().await.frames;
        assert!(frames.len() <= 3);
        received.extend(frames);
    }
    assert_eq!(received, (1..=7).map(commit).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn it_comes_back_when_the_listener_does() {
    let (mut one, mut two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    two.listener.send(Stop).await.unwrap();
    let reset = one
        .event(|event| match event {
            PeerEvent::Lost {
                peer: TWO, reset, ..
            } => Some(*reset),
            _ => None,
        })
        .await;
    assert!(reset);
    let full = encode(&commit(1));
    assert_eq!(
        to_two.try_send(full.clone()),
        Err(SendError::NotConnected { peer: TWO })
    );
    // Nobody listens: that is how a dead process is told from a broken link.
    one.event(|event| {
        matches!(
            event,
            PeerEvent::Unreachable {
                peer: TWO,
                refused: true,
                ..
            }
        )
        .then_some(())
    })
    .await;
    two.reopen();
    one.connected(TWO).await;
    to_two.try_send(full).unwrap();
    assert_eq!(frames(&two.batch().await), &[commit(1)]);
    two.restart_listener().await;
    one.connected(TWO).await;
    assert_eq!(to_two.stats().connects, 3);
}

#[actix_rt::test]
async fn a_peer_that_reads_nothing_fills_the_queue_and_no_more() {
    let narrow = Limits {
        queue_bytes_max: 256 << 10,
        queue_frames_max: 100,
        ..limits()
    };
    let mut one = Node::with(local(ONE), narrow);
    let mut two = Node::new(local(TWO));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    let held = two.hold().await;
    let too_large = to_two.try_send(encode(&bulk(300 << 10)));
    assert!(matches!(
        too_large,
        Err(SendError::TooLarge { peer: TWO, .. })
    ));
    let frame = encode(&bulk(60 << 10));
    let mut sent = 0;
    let full = loop {
        match to_two.try_send(frame.clone()) {
            Ok(()) => sent += 1,
            // What the sockets take is written meanwhile, and then no more.
            Err(SendError::Full { bytes, .. }) => {
                let before = to_two.stats().bytes;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                if to_two.stats().bytes == before {
                    break bytes;
                }
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(full <= 256 << 10);
    assert!(to_two.stats().dropped_full > 0);
    // By frames as well as by bytes, once it flows again.
    drop(held);
    let mut received = 0;
    while received < sent {
        received += two.batch().await.frames.len();
    }
    let small = encode(&commit(1));
    for _ in 0..100 {
        to_two.try_send(small.clone()).unwrap();
    }
    let full = to_two.try_send(small);
    assert!(matches!(full, Err(SendError::Full { frames: 100, .. })));
}

#[actix_rt::test]
async fn what_waited_for_a_lost_connection_is_dropped_and_counted() {
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    let _held = two.hold().await;
    let frame = encode(&bulk(1 << 20));
    while to_two.try_send(frame.clone()).is_ok() {
        tokio::task::yield_now().await;
    }
    two.listener.do_send(Stop);
    one.event(|event| matches!(event, PeerEvent::Lost { .. }).then_some(()))
        .await;
    let stats = to_two.stats();
    assert!(stats.dropped_lost > 0);
    assert_eq!(
        (stats.queued_frames, stats.queued_bytes, stats.connected),
        (0, 0, false)
    );
}

#[actix_rt::test]
async fn after_a_stop_nothing_is_left() {
    let (mut one, mut two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    to_two.stop();
    to_two.stopped().await;
    assert!(!to_two.is_connected());
    let closed = two
        .event(|event| match event {
            PeerEvent::Closed { peer: ONE, reason } => Some(reason.to_string()),
            _ => None,
        })
        .await;
    assert_eq!(closed, Ending::Closed.to_string());
    // The last sender that is dropped stops it too.
    drop(one.dial(TWO, two.address));
    two.listener.send(Stop).await.unwrap();
    assert!(!two.listener.connected());
    assert!(
        Listener::bind(two.address).is_ok(),
        "the address is free again"
    );
}

#[actix_rt::test]
async fn an_address_in_use_is_named() {
    let bound = Listener::bind("127.0.0.1:0").unwrap();
    let address = bound.local_addr().to_string();
    let error = Listener::bind(&address).unwrap_err();
    assert!(matches!(&error, ListenError::AddressInUse { address: named } if *named == address));
    assert!(error.to_string().contains(&address));
    assert!(matches!(
        Listener::bind("nonsense"),
        Err(ListenError::Bind { .. })
    ));
}

#[actix_rt::test]
async fn a_newer_connection_replaces_a_half_open_one() {
    let mut two = Node::new(local(TWO));
    let mut one = Node::new(local(ONE));
    // The first connection of node 1 stays open, with a batch that is not handled and more behind.
    let held = two.hold().await;
    let old = one.dial(TWO, two.address);
    one.connected(TWO).await;
    old.try_send(encode(&commit(1))).unwrap();
    two.batch().await;
    old.try_send(encode(&commit(2))).unwrap();
    // The same process dials again; nobody told the other side of the end of the first.
    let new = one.dial(TWO, two.address);
    one.connected(TWO).await;
    let ends = two
        .event(|event| match event {
            PeerEvent::Closed { peer: ONE, reason } => Some(matches!(reason, Ending::Replaced)),
            _ => None,
        })
        .await;
    assert!(ends);
    two.event(|event| matches!(event, PeerEvent::Accepted { peer: ONE, .. }).then_some(()))
        .await;
    old.stop();
    drop(held);
    new.try_send(encode(&commit(3))).unwrap();
    assert_eq!(frames(&two.batch().await), &[commit(3)]);
}

#[actix_rt::test]
async fn what_becomes_known_cuts_what_contradicts_it() {
    let nobody = |node| Local::new(node, folder(node), 1, None, unborn(), Held::default());
    let (mut one, mut two) = (Node::new(nobody(ONE)), Node::new(nobody(TWO)));
    let _to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    two.event(|event| matches!(event, PeerEvent::Accepted { .. }).then_some(()))
        .await;
    let set_members = |one| {
        let members = [(ONE, one), (TWO, folder(TWO))].map(|(id, is)| (id, known(id, Some(is))));
        two.local.set_members(members.into(), TWO);
    };
    // What agrees changes nothing.
    two.local.set_cluster(CLUSTER);
    set_members(folder(ONE));
    set_members(raft_core::Incarnation(99));
    let cut = two
        .event(|event| match event {
            PeerEvent::Closed { peer: ONE, reason } => Some(reason.to_string()),
            _ => None,
        })
        .await;
    assert!(cut.contains("disk was wiped"), "{cut}");
    one.event(|event| matches!(event, PeerEvent::Refused { peer: TWO, .. }).then_some(()))
        .await;
}

#[actix_rt::test]
async fn a_node_may_come_back_after_a_restart() {
    let mut two = Node::new(local(TWO));
    for starts in 1..=3 {
        let again = Local::new(
            ONE,
            folder(ONE),
            starts,
            Some(CLUSTER),
            super::born(),
            Held::default(),
        );
        let mut one = Node::new(again);
        let to_two = one.dial(TWO, two.address);
        one.connected(TWO).await;
        let seen = two
            .event(|event| match event {
                PeerEvent::Accepted { peer: ONE, hello } => Some(hello.starts),
                _ => None,
            })
            .await;
        assert_eq!(seen, starts);
        to_two.stop();
        to_two.stopped().await;
    }
}

#[actix_rt::test]
async fn a_peer_that_dials_is_dialled_without_waiting_for_the_backoff() {
    let patient = Limits {
        backoff_min: PATIENCE * 1000,
        backoff_max: PATIENCE * 1000,
        ..limits()
    };
    let mut one = Node::with(local(ONE), patient);
    let mut two = Node::new(local(TWO));
    two.listener.send(Stop).await.unwrap();
    let _to_two = one.dial(TWO, two.address);
    one.event(|event| matches!(event, PeerEvent::Unreachable { .. }).then_some(()))
        .await;
    two.reopen();
    let _to_one = two.dial(ONE, one.address);
    one.connected(TWO).await;
}

#[actix_rt::test]
async fn a_panic_ends_one_connection_and_is_told() {
    let (mut one, mut two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let (to_two, to_one) = (one.dial(TWO, two.address), two.dial(ONE, one.address));
    one.connected(TWO).await;
    two.connected(ONE).await;
    ask_for(Panic::Write);
    to_two.try_send(encode(&commit(1))).unwrap();
    let panicked = one
        .event(|event| match event {
            PeerEvent::Lost { reason, .. } => Some(matches!(reason, Ending::Panicked)),
            _ => None,
        })
        .await;
    assert!(panicked);
    one.connected(TWO).await;
    ask_for(Panic::Read);
    to_two.try_send(encode(&commit(2))).unwrap();
    let panicked = two
        .event(|event| match event {
            PeerEvent::Closed { reason, .. } if !matches!(reason, Ending::Closed) => {
                Some(matches!(reason, Ending::Panicked))
            }
            _ => None,
        })
        .await;
    assert!(panicked);
    one.connected(TWO).await;
    to_two.try_send(encode(&commit(3))).unwrap();
    assert_eq!(frames(&two.batch().await), &[commit(3)]);
    assert_eq!(to_two.stats().connects, 3);
    assert_eq!(to_one.stats().connects, 1, "the other connection stayed");
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert_eq!(stats.panicked, 1);
}

#[actix_rt::test]
async fn a_panic_while_a_loss_is_logged_or_told_does_not_end_the_dialling() {
    let mut one = Node::new(local(ONE));
    let mut two = Node::new(local(TWO));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    for panic in [Panic::Log, Panic::Tell] {
        ask_for(panic);
        two.restart_listener().await;
        let panicked = one
            .event(|event| match event {
                PeerEvent::Lost { reason, .. } => Some(matches!(reason, Ending::Panicked)),
                _ => None,
            })
            .await;
        assert_eq!(panicked, panic == Panic::Tell);
        one.connected(TWO).await;
    }
    assert_eq!(to_two.stats().connects, 3);
}
