//! Where a peer is dialled, and how its sockets are set up.

use std::time::Duration;

use socket2::SockRef;

use super::{CLUSTER, CONFIGURED, Node, ONE, TWO, born, bulk, encode, folder, lead, limits, local};
use crate::decode::is_address;
use crate::socket::configure;
use crate::{
    ADDRESS_LEN_MAX, EncodeError, FrameKind, Held, Local, PeerConnection, PeerEvent, Stop,
};

#[actix_rt::test]
async fn a_node_that_comes_back_at_another_port_is_found() {
    let (mut one, mut two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    two.listener.send(Stop).await.unwrap();
    // Its next process listens somewhere else, and says so when it dials.
    let again = Local::new(TWO, folder(TWO), 2, Some(CLUSTER), born(), Held::default());
    let mut moved = Node::new(again);
    assert_ne!(moved.address, two.address);
    moved.local.advertise(moved.address.to_string());
    let to_one = moved.dial(ONE, one.address);
    one.connected(TWO).await;
    assert_eq!(to_two.address(), moved.address.to_string());
    to_two.try_send(encode(&bulk(7))).unwrap();
    assert_eq!(moved.batch().await.frames, [bulk(7)]);
    // And back again, at the address of the list, without a word.
    to_one.stop();
    moved.listener.send(Stop).await.unwrap();
    two.local = Local::new(TWO, folder(TWO), 3, Some(CLUSTER), born(), Held::default());
    two.reopen();
    one.connected(TWO).await;
    assert_eq!(to_two.address(), two.address.to_string());
}

/// A link that breaks resets the connection, and then a host at which the peer never was refuses a dial: the peer lives.
#[actix_rt::test]
async fn a_process_is_gone_only_from_where_it_was() {
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let nobodys = "127.0.0.1:1";
    two.local.advertise(nobodys);
    let _to_two = one.dial(TWO, two.address);
    let _to_one = two.dial(ONE, one.address);
    one.connected(TWO).await;
    while one.local.said_address(TWO).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    two.listener.send(Stop).await.unwrap();
    let mut seen = [false; 2];
    while seen != [true; 2] {
        let (there, refused) = one
            .event(|event| match event {
                PeerEvent::Unreachable {
                    refused, reason, ..
                } => Some((reason.to_string().contains(nobodys), *refused)),
                _ => None,
            })
            .await;
        assert_eq!(refused, !there);
        seen[usize::from(there)] = true;
    }
}

#[actix_rt::test]
async fn a_name_is_looked_up_at_each_dial() {
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    lead("two.example:7002", two.address);
    let to_two = PeerConnection::start(
        TWO,
        "two.example:7002".into(),
        one.local.clone(),
        limits(),
        one.sink.clone().recipient(),
    );
    one.connected(TWO).await;
    let again = Local::new(TWO, folder(TWO), 2, Some(CLUSTER), born(), Held::default());
    let moved = Node::new(again);
    lead("two.example:7002", moved.address);
    two.listener.send(Stop).await.unwrap();
    one.connected(TWO).await;
    assert_eq!(to_two.address(), "two.example:7002");
}

#[test]
fn what_is_an_address() {
    let longest = format!("{}:65535", "x".repeat(ADDRESS_LEN_MAX - 6));
    for good in ["", "host:7001", "[::1]:7001", "10.0.0.1:1", &longest] {
        assert!(is_address(good), "{good}");
    }
    let too_long = format!("x{longest}");
    let bad = [
        "host",
        ":7001",
        "host:",
        "host:0",
        "host:65536",
        "ho st:1",
        "host:1\n",
        "h\u{f6}st:1",
        &too_long,
    ];
    for bad in bad {
        assert!(!is_address(bad), "{bad}");
        let node = local(ONE);
        node.advertise(bad);
        let hello = node.introduction(TWO).encode(FrameKind::Hello, &limits());
        assert!(matches!(hello, Err(EncodeError::Address { .. })), "{bad}");
    }
}

#[actix_rt::test]
async fn every_connection_is_set_up() {
    let mut one = Node::new(local(ONE));
    let mut two = Node::new(local(TWO));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    while !to_two.stats().urgent_connected {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    to_two.try_send(encode(&bulk(1))).unwrap();
    two.batch().await;
    let ends = CONFIGURED.with_borrow(Clone::clone);
    let accepted = ends.iter().filter(|(ours, _)| *ours == two.address);
    let both = accepted.filter(|(ours, theirs)| ends.contains(&(*theirs, *ours)));
    assert_eq!(both.count(), 2, "{ends:?}");
    let stream = tokio::net::TcpStream::connect(two.address).await.unwrap();
    configure(&stream, &limits()).unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
    assert_eq!(
        socket.tcp_user_timeout().unwrap(),
        Some(limits().stall_timeout)
    );
    let probes = socket.tcp_keepalive_retries().unwrap();
    let after =
        socket.tcp_keepalive_time().unwrap() + socket.tcp_keepalive_interval().unwrap() * probes;
    assert!(
        after <= limits().stall_timeout + Duration::from_secs(1),
        "{after:?}"
    );
}
