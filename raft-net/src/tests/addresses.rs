//! Where a peer is dialled, and how its sockets are set up.

use std::time::Duration;

use socket2::SockRef;
use tokio_util::sync::CancellationToken;

use super::{
    CLUSTER, CONFIGURED, Node, ONE, THREE, TWO, born, bulk, encode, folder, knowing, lead, limits,
    local,
};
use crate::cut::Cut;
use crate::dial::dial;
use crate::local::{Purpose, Side};
use crate::stream::Stream;
use crate::{
    ADDRESS_LEN_MAX, DialError, EncodeError, FrameKind, Held, Local, PeerEvent, Stop, is_address,
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
    while one.local.addresses(TWO).len() < 2 {
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
    one.local.list(TWO, "two.example:7002");
    let to_two = one.dial_where_it_is(TWO);
    one.connected(TWO).await;
    let again = Local::new(TWO, folder(TWO), 2, Some(CLUSTER), born(), Held::default());
    let moved = Node::new(again);
    lead("two.example:7002", moved.address);
    two.listener.send(Stop).await.unwrap();
    one.connected(TWO).await;
    assert_eq!(to_two.address(), "two.example:7002");
}

/// Node 2 is known to be at `address`.
fn knows_where_two_is(address: &str) -> Local {
    let mut members = born();
    members.get_mut(&TWO).unwrap().address = address.into();
    Local::new(ONE, folder(ONE), 1, Some(CLUSTER), members, Held::default())
}

#[test]
fn an_address_comes_first_from_the_list_then_from_the_node_then_from_the_cluster() {
    let one = knows_where_two_is("known:1");
    assert_eq!(one.addresses(TWO), ["known:1"]);
    let two = local(TWO);
    let says = |address: &str| {
        two.advertise(address);
        let cut = Cut::below(&CancellationToken::new());
        let theirs = two.introduction(ONE);
        drop(one.admit(Side::Accepted, Purpose::Main, &theirs, None, &cut));
    };
    says("said:1");
    assert_eq!(one.addresses(TWO), ["said:1", "known:1"]);
    one.list(TWO, "listed:1");
    assert_eq!(one.addresses(TWO), ["listed:1", "said:1", "known:1"]);
    // Nothing is there twice, and nothing where there is nothing.
    says("known:1");
    assert_eq!(one.addresses(TWO), ["listed:1", "known:1"]);
    one.list(TWO, "");
    assert_eq!(one.addresses(TWO), ["known:1"]);
    assert!(one.addresses(THREE).is_empty());
    // What a node has said is forgotten with it.
    one.set_members(knowing([ONE]), THREE);
    assert!(one.addresses(TWO).is_empty());
}

#[actix_rt::test]
async fn a_node_is_found_where_the_cluster_knows_it() {
    let mut two = Node::new(local(TWO));
    let mut one = Node::new(knows_where_two_is(&two.address.to_string()));
    one.local.list(TWO, "127.0.0.1:1");
    let to_two = one.dial_where_it_is(TWO);
    one.connected(TWO).await;
    assert_eq!(to_two.address(), two.address.to_string());
    // And found again.
    two.restart_listener().await;
    one.connected(TWO).await;
    assert_eq!(to_two.stats().connects, 2);
}

#[actix_rt::test]
async fn a_node_that_nobody_knows_the_address_of_is_found_when_it_says_so() {
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let to_two = one.dial_where_it_is(TWO);
    let nowhere = one.event(|event| match event {
        PeerEvent::Unreachable {
            refused, reason, ..
        } => Some((matches!(reason, DialError::NoAddress), *refused)),
        _ => None,
    });
    assert_eq!(nowhere.await, (true, false));
    assert_eq!((to_two.address(), to_two.stats().dials), (String::new(), 0));
    two.local.advertise(two.address.to_string());
    let _to_one = two.dial(ONE, one.address);
    one.connected(TWO).await;
    assert_eq!(to_two.address(), two.address.to_string());
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
    let Stream::Plain(stream) = dial(&two.address.to_string(), &limits()).await.unwrap() else {
        panic!("a socket was dialled");
    };
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
