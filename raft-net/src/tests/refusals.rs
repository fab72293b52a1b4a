//! Every refusal, by a real handshake, as both sides see it.

use std::time::Duration;

use raft_core::{ClusterId, Incarnation, LogId, LogIndex, NodeId, Term};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CLUSTER, Node, ONE, THREE, TWO, born, folder, limits, local, unborn};
use crate::decode::FrameDecoder;
use crate::handshake::{Introduction, confirm, read_frame};
use crate::header::Header;
use crate::{
    Claim, EncodeError, Ending, FrameKind, GetListenerStats, Held, Limits, Local, PeerEvent,
    PeerSender, Refusal,
};

impl Node {
    /// What the next refusal by a peer says.
    async fn refused(&mut self) -> Refusal {
        self.event(|event| match event {
            PeerEvent::Refused { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Who was turned away next, and why.
    pub(super) async fn turned(&mut self) -> (Option<NodeId>, Refusal) {
        self.event(|event| match event {
            PeerEvent::Turned { peer, reason, .. } => Some((*peer, reason.clone())),
            _ => None,
        })
        .await
    }

    async fn refusals(&self) -> u64 {
        let stats = self.listener.send(GetListenerStats).await.unwrap();
        stats.refused.values().sum()
    }
}

/// `one` dials `two` as `peer`; gives what `one` is told, and what `two` tells.
async fn meet(one: Local, peer: NodeId, two: Local) -> (Refusal, Refusal) {
    let (mut one, mut two) = (Node::new(one), Node::new(two));
    let from = one.local.node();
    let sender = one.dial(peer, two.address);
    let told = one.refused().await;
    let (whom, turned) = two.turned().await;
    assert_eq!(whom, Some(from));
    assert!(!sender.is_connected());
    assert!(sender.stats().refusals >= 1 && sender.stats().connects == 0);
    assert!(two.refusals().await >= 1);
    assert!(two.inbound.try_recv().is_err());
    (told, turned)
}

#[actix_rt::test]
async fn two_clusters_do_not_merge() {
    let other = Local::new(
        ONE,
        folder(ONE),
        1,
        Some(ClusterId(9)),
        born(),
        Held::default(),
    );
    let (told, turned) = meet(other, TWO, local(TWO)).await;
    let ours = |ours, theirs| Refusal::WrongCluster { theirs, ours };
    // Who is refused is not told what would have been right, so that it cannot come back with it.
    let start = ClusterId(CLUSTER.0 & !(u128::MAX >> 32));
    assert_ne!(start, CLUSTER);
    assert_eq!(told, ours(ClusterId(9), start));
    assert_eq!(turned, ours(CLUSTER, ClusterId(9)));
}

#[actix_rt::test]
async fn the_address_of_another_node() {
    let expected = Refusal::NotMe {
        asked: THREE,
        am: TWO,
    };
    let both = meet(local(ONE), THREE, local(TWO)).await;
    assert_eq!(both, (expected.clone(), expected));
}

#[actix_rt::test]
async fn a_node_that_is_not_listed_while_one_of_the_two_is_not_born() {
    let node = NodeId(4);
    let expected = Refusal::UnknownNode { node };
    for (theirs, ours) in [(None, None), (Some(CLUSTER), None), (None, Some(CLUSTER))] {
        let four = listing(node, theirs, [1, 2, 3, 4]);
        let both = meet(four, TWO, listing(TWO, ours, [1, 2, 3])).await;
        assert_eq!(both, (expected.clone(), expected.clone()));
    }
}

/// Of the ids up to 4 all were given, and 4 is nobody's.
fn without_four() -> Local {
    let two = local(TWO);
    two.set_members(born(), NodeId(4));
    two
}

#[actix_rt::test]
async fn a_removed_node_whoever_dials() {
    let node = NodeId(4);
    let expected = Refusal::Removed { node };
    let four = |cluster| listing(node, cluster, [1, 2, 3, 4]);
    // Its folder, and an empty one that calls itself so.
    for cluster in [Some(CLUSTER), None] {
        let both = meet(four(cluster), TWO, without_four()).await;
        assert_eq!(both, (expected.clone(), expected.clone()));
    }
    let (mut two, mut four) = (Node::new(without_four()), Node::new(four(Some(CLUSTER))));
    let _dials = two.dial(node, four.address);
    assert_eq!(two.refused().await, expected);
    let told = four.event(|event| match event {
        PeerEvent::Closed {
            reason: Ending::Refused(refusal),
            ..
        } => Some(refusal.clone()),
        _ => None,
    });
    assert_eq!(told.await, expected);
}

#[actix_rt::test]
async fn a_node_that_is_removed_while_it_is_connected_is_told_so() {
    let four = NodeId(4);
    let all = || super::knowing([ONE, TWO, THREE, four]);
    let local = |node| Local::new(node, folder(node), 1, Some(CLUSTER), all(), Held::default());
    let (mut two, mut four) = (Node::new(local(TWO)), Node::new(local(four)));
    let id = four.local.node();
    let (_dials, dialled) = (four.dial(TWO, two.address), two.dial(id, four.address));
    four.connected(TWO).await;
    two.connected(id).await;
    assert!(two.local.witness(id, 1, claim(1, 1)));
    two.local.set_members(born(), id);
    assert!(!two.local.witness(id, 1, claim(1, 2)));
    assert_eq!(four.refused().await, Refusal::Removed { node: id });
    let lost = two.event(|event| match event {
        PeerEvent::Lost { peer, reason, .. } if *peer == id => Some(reason.to_string()),
        _ => None,
    });
    let lost = lost.await;
    assert!(lost.contains("not given again"), "{lost}");
    dialled.stop();
}

fn listing<const N: usize>(node: NodeId, cluster: Option<ClusterId>, ids: [u64; N]) -> Local {
    let members = super::listing(ids.map(NodeId));
    Local::new(node, folder(node), 1, cluster, members, Held::default())
}

#[actix_rt::test]
async fn nodes_that_are_not_born_and_list_different_peers() {
    let refusal = |theirs: &[u64], ours: &[u64]| Refusal::OtherPeers {
        theirs: theirs.iter().copied().map(NodeId).collect(),
        ours: ours.iter().copied().map(NodeId).collect(),
    };
    // Whoever dials, and whichever of the two is born.
    for (ones, twos) in [(None, None), (Some(CLUSTER), None), (None, Some(CLUSTER))] {
        let one = || listing(ONE, ones, [1, 2, 3, 4, 5]);
        let two = || listing(TWO, twos, [1, 2]);
        let (one_says, two_says) = (
            refusal(&[1, 2], &[1, 2, 3, 4, 5]),
            refusal(&[1, 2, 3, 4, 5], &[1, 2]),
        );
        let both = meet(one(), TWO, two()).await;
        assert_eq!(both, (one_says.clone(), two_says.clone()));
        assert_eq!(meet(two(), ONE, one()).await, (two_says, one_says));
    }
}

/// It was there when the cluster was born, and died before it had written that down. Others have joined since.
#[actix_rt::test]
async fn who_knows_the_folder_of_one_that_is_not_born_asks_for_no_list() {
    let born = || super::knowing([ONE, TWO, THREE, NodeId(4)]);
    let one = || Local::new(ONE, folder(ONE), 1, Some(CLUSTER), born(), Held::default());
    let three = || listing(THREE, None, [1, 2, 3]);
    let (mut dials, waits) = (Node::new(three()), Node::new(one()));
    let _sender = dials.dial(ONE, waits.address);
    dials.connected(ONE).await;
    let (mut dials, waits) = (Node::new(one()), Node::new(three()));
    let _sender = dials.dial(THREE, waits.address);
    dials.connected(THREE).await;
}

#[actix_rt::test]
async fn born_nodes_may_list_different_peers() {
    let mut one = Node::new(listing(ONE, Some(CLUSTER), [1, 2, 3]));
    let two = Node::new(listing(TWO, Some(CLUSTER), [1, 2]));
    let _sender = one.dial(TWO, two.address);
    one.connected(TWO).await;
}

#[actix_rt::test]
async fn a_connection_of_before_the_list_changed_is_cut() {
    let mut one = Node::new(listing(ONE, None, [1, 2, 3]));
    let two = Node::new(listing(TWO, None, [1, 2, 3]));
    let _sender = one.dial(TWO, two.address);
    one.connected(TWO).await;
    one.local.set_members(super::knowing([ONE, TWO]), TWO);
    assert!(matches!(one.refused().await, Refusal::OtherPeers { .. }));
}

#[test]
fn a_refusal_of_long_lists_fits_a_handshake() {
    let ids: Vec<_> = (0..256).map(|id| NodeId(u64::MAX - id)).collect();
    let refusal = Refusal::OtherPeers {
        theirs: ids.clone(),
        ours: ids.clone(),
    };
    let frame = refusal.encode(&limits()).unwrap();
    let mut decoder = FrameDecoder::for_handshake(&limits());
    decoder.feed(frame.as_bytes());
    let read = Refusal::decode(&decoder.next_raw().unwrap().unwrap()).unwrap();
    let Refusal::OtherPeers { theirs, ours } = read else {
        panic!("{read}");
    };
    assert!(theirs == ids[..128] && ours == ids[..128]);
    let text = refusal.text();
    assert!(text.ends_with("give all nodes the same list"), "{text}");
    assert!(text.contains(" and 238 more}"), "{text}");
}

#[test]
fn an_introduction_lists_no_more_than_a_handshake_holds() {
    let listing = |ids: std::ops::Range<u64>| Introduction {
        members: ids.map(NodeId).collect(),
        ..local(ONE).introduction(TWO)
    };
    let decoded = |frame: &crate::EncodedFrame| {
        let mut decoder = FrameDecoder::for_handshake(&limits());
        decoder.feed(frame.as_bytes());
        Introduction::decode(&decoder.next_raw().unwrap().unwrap())
    };
    let full = listing(u64::MAX - 256..u64::MAX);
    let frame = full.encode(FrameKind::Hello, &limits()).unwrap();
    assert_eq!(decoded(&frame).unwrap(), full);
    assert!(matches!(
        listing(0..257).encode(FrameKind::Hello, &limits()),
        Err(EncodeError::TooManyMembers { members: 257 })
    ));
    let small = Limits {
        handshake_frame_len_max: frame.len() - 1,
        ..limits()
    };
    assert!(matches!(
        full.encode(FrameKind::Hello, &small),
        Err(EncodeError::IntroductionTooLong { members: 256, .. })
    ));
    // One more than allowed, from a program that does not keep to it.
    let mut bytes = listing(0..256)
        .encode(FrameKind::Hello, &limits())
        .unwrap()
        .as_bytes()
        .to_vec();
    let at = bytes
        .windows(4)
        .position(|at| at == [0xdc, 1, 0, 0])
        .unwrap();
    bytes[at + 2] = 1;
    bytes.insert(at + 3, 0);
    Header::write(&mut bytes, FrameKind::Hello);
    let mut decoder = FrameDecoder::for_handshake(&limits());
    decoder.feed(&bytes);
    let error = Introduction::decode(&decoder.next_raw().unwrap().unwrap()).unwrap_err();
    assert!(error.to_string().contains("at most 256"), "{error}");
}

#[actix_rt::test]
async fn a_dialler_whose_disk_was_wiped() {
    let shown = Incarnation(7);
    let wiped = Local::new(ONE, shown, 1, None, unborn(), Held::default());
    let expected = Refusal::WrongIncarnation {
        node: ONE,
        known: folder(ONE),
        shown,
    };
    let both = meet(wiped, TWO, local(TWO)).await;
    assert_ne!(expected.without_secrets(), expected);
    assert_eq!(both, (expected.without_secrets(), expected));
}

#[actix_rt::test]
async fn a_dialled_node_whose_disk_was_wiped_learns_it() {
    let shown = Incarnation(7);
    let wiped = Local::new(TWO, shown, 1, None, unborn(), Held::default());
    let expected = Refusal::WrongIncarnation {
        node: TWO,
        known: folder(TWO),
        shown,
    };
    let both = meet(local(ONE), TWO, wiped).await;
    assert_ne!(expected.without_secrets(), expected);
    assert_eq!(both, (expected.without_secrets(), expected));
}

#[actix_rt::test]
async fn a_node_that_dials_itself() {
    let mut one = Node::new(local(ONE));
    let _sender = one.dial(TWO, one.address);
    let expected = Refusal::Itself { node: ONE };
    let (mut told, mut turned) = (None, None);
    while told.is_none() || turned.is_none() {
        one.event(|event| match event {
            PeerEvent::Refused { reason, .. } => Some((true, reason.clone())),
            PeerEvent::Turned { reason, .. } => Some((false, reason.clone())),
            _ => None,
        })
        .await
        .then(&mut told, &mut turned);
    }
    assert_eq!(told, Some(expected.clone()));
    assert_eq!(turned, Some(expected));
}

trait Sort {
    fn then(self, told: &mut Option<Refusal>, turned: &mut Option<Refusal>);
}

impl Sort for (bool, Refusal) {
    fn then(self, told: &mut Option<Refusal>, turned: &mut Option<Refusal>) {
        let place = if self.0 { told } else { turned };
        *place = Some(self.1);
    }
}

#[actix_rt::test]
async fn another_process_with_the_id_of_this_node() {
    let twin = Local::new(TWO, Incarnation(7), 1, None, unborn(), Held::default());
    let expected = Refusal::DuplicateNode { node: TWO };
    let both = meet(twin, TWO, local(TWO)).await;
    assert_eq!(both, (expected.clone(), expected));
}

#[actix_rt::test]
async fn a_second_process_with_the_id_of_a_connected_one() {
    let unborn = |node, folder| Local::new(node, folder, 1, None, unborn(), Held::default());
    let mut two = Node::new(unborn(TWO, folder(TWO)));
    let mut one = Node::new(unborn(ONE, folder(ONE)));
    let mut twin = Node::new(unborn(ONE, Incarnation(7)));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    let _twins = twin.dial(TWO, two.address);
    assert_eq!(twin.refused().await, Refusal::DuplicateNode { node: ONE });
    let turned = two.turned().await;
    assert_eq!(turned, (Some(ONE), Refusal::DuplicateNode { node: ONE }));
    assert!(to_two.is_connected());
    // Nothing is decided before the birth: when the first is gone, the other is as good.
    to_two.stop();
    to_two.stopped().await;
    twin.connected(TWO).await;
}

#[actix_rt::test]
async fn an_old_copy_of_a_folder() {
    let started = |starts| {
        Local::new(
            ONE,
            folder(ONE),
            starts,
            Some(CLUSTER),
            born(),
            Held::default(),
        )
    };
    let mut two = Node::new(local(TWO));
    let mut newest = Node::new(started(5));
    let to_two = newest.dial(TWO, two.address);
    newest.connected(TWO).await;
    to_two.stop();
    let mut old = Node::new(started(4));
    let _sender = old.dial(TWO, two.address);
    let expected = Refusal::OldCopy {
        node: ONE,
        seen_starts: 5,
        shown: 4,
    };
    assert_eq!(old.refused().await, expected);
    assert_eq!(two.turned().await, (Some(ONE), expected));
}

#[actix_rt::test]
async fn a_copy_of_a_folder_that_runs_at_the_same_time() {
    let mut two = Node::new(local(TWO));
    let mut one = Node::new(local(ONE));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    let mut copy = Node::new(local(ONE));
    let _sender = copy.dial(TWO, two.address);
    let expected = Refusal::DuplicateNode { node: ONE };
    assert_eq!(copy.refused().await, expected);
    assert_eq!(two.turned().await, (Some(ONE), expected));
    assert!(to_two.is_connected());
}

#[actix_rt::test]
async fn the_dialler_judges_by_the_same_rules() {
    // Node 1 has seen a later start of node 2 than the one that it dials now.
    let started = |starts| {
        Local::new(
            TWO,
            folder(TWO),
            starts,
            Some(CLUSTER),
            born(),
            Held::default(),
        )
    };
    let mut one = Node::new(local(ONE));
    let mut newest = Node::new(started(5));
    let to_one = newest.dial(ONE, one.address);
    newest.connected(ONE).await;
    to_one.stop();
    let mut old = Node::new(started(4));
    let to_two = one.dial(TWO, old.address);
    let expected = Refusal::OldCopy {
        node: TWO,
        seen_starts: 5,
        shown: 4,
    };
    assert_eq!(one.refused().await, expected);
    assert!(!to_two.is_connected());
    let told = old
        .event(|event| match event {
            PeerEvent::Closed { reason, .. } => Some(reason.to_string()),
            _ => None,
        })
        .await;
    assert!(told.contains("old copy"), "{told}");
}

/// Node 1 in its `starts`th start, whose disk held then what is said.
fn came_back(starts: u64, term: u64, last: (u64, u64)) -> Local {
    let held = Held {
        term: Term(term),
        last: LogId::new(Term(last.0), LogIndex(last.1)),
    };
    Local::new(ONE, folder(ONE), starts, Some(CLUSTER), born(), held)
}

fn claim(term: u64, through: u64) -> Option<Claim> {
    Some(Claim {
        term: Term(term),
        through: LogIndex(through),
    })
}

/// Node 2, to which the first start of node 1 has acknowledged entries 1 to 10 in term 3, 8 of them
/// committed; and node 1, connected.
async fn acknowledged() -> (Node, Node, PeerSender) {
    let two = Node::new(local(TWO));
    let mut one = Node::new(came_back(1, 0, (0, 0)));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    assert!(two.local.witness(ONE, 1, claim(3, 10)));
    two.local.committed(Term(3), LogIndex(8));
    (two, one, to_two)
}

fn lost(acknowledged: u64, found_term: u64, found: (u64, u64)) -> Refusal {
    Refusal::LostAcknowledged {
        node: ONE,
        term: Term(3),
        acknowledged: LogIndex(acknowledged),
        found_term: Term(found_term),
        found: LogId::new(Term(found.0), LogIndex(found.1)),
    }
}

#[actix_rt::test]
async fn a_disk_that_lost_what_was_acknowledged_whoever_dials() {
    for (through, term, last) in [(10, 3, (3, 9)), (10, 2, (2, 10)), (8, 4, (4, 7))] {
        let expected = lost(through, term, last);
        let (mut two, _one, to_two) = acknowledged().await;
        to_two.stop();
        to_two.stopped().await;
        let mut back = Node::new(came_back(2, term, last));
        let _sender = back.dial(TWO, two.address);
        assert_eq!(back.refused().await, expected);
        assert_eq!(two.turned().await, (Some(ONE), expected.clone()));
        assert!(two.refusals().await >= 1);
        // Neither it, nor what the one before it has still on its way, is believed.
        assert!(!two.local.witness(ONE, 2, None));
        assert!(!two.local.witness(ONE, 1, claim(3, 12)));

        let (mut two, _one, to_two) = acknowledged().await;
        to_two.stop();
        let mut back = Node::new(came_back(2, term, last));
        let _sender = two.dial(ONE, back.address);
        assert_eq!(two.refused().await, expected);
        let told = back
            .event(|event| match event {
                PeerEvent::Closed {
                    reason: Ending::Refused(refusal),
                    ..
                } => Some(refusal.clone()),
                _ => None,
            })
            .await;
        assert_eq!(told, expected);
    }
}

#[actix_rt::test]
async fn a_disk_that_holds_what_was_acknowledged_or_was_rightly_cut() {
    for (term, last) in [(3, (3, 10)), (3, (3, 11)), (4, (4, 9)), (5, (2, 8))] {
        let (two, _one, to_two) = acknowledged().await;
        to_two.stop();
        to_two.stopped().await;
        // It is asked at each start, and keeps what it has claimed through all of them.
        for starts in 2..4 {
            let mut back = Node::new(came_back(starts, term, last));
            let sender = back.dial(TWO, two.address);
            back.connected(TWO).await;
            sender.stop();
            sender.stopped().await;
        }
        let mut back = Node::new(came_back(4, 2, last));
        let _sender = back.dial(TWO, two.address);
        assert!(matches!(
            back.refused().await,
            Refusal::LostAcknowledged { .. }
        ));
    }
}

#[actix_rt::test]
async fn the_same_process_is_not_asked_again() {
    let (two, mut one, to_two) = acknowledged().await;
    to_two.stop();
    to_two.stopped().await;
    let _again = one.dial(TWO, two.address);
    one.connected(TWO).await;
    assert!(two.local.witness(ONE, 1, claim(3, 12)));
}

#[actix_rt::test]
async fn what_an_earlier_start_said_does_not_count_once_a_later_one_was_met() {
    let (two, _one, to_two) = acknowledged().await;
    to_two.stop();
    to_two.stopped().await;
    let mut back = Node::new(came_back(2, 3, (3, 10)));
    let _sender = back.dial(TWO, two.address);
    back.connected(TWO).await;
    // It was still on its way, and the later start was judged without it.
    assert!(!two.local.witness(ONE, 1, claim(3, 12)));
    assert!(two.local.witness(ONE, 2, claim(3, 10)));
    assert!(two.local.take_lost().is_empty());
}

#[actix_rt::test]
async fn what_the_start_before_a_refused_one_said_does_not_count_unless_it_lives() {
    let (two, mut one, to_two) = acknowledged().await;
    let mut back = Node::new(came_back(2, 3, (3, 9)));
    let sender = back.dial(TWO, two.address);
    assert_eq!(back.refused().await, lost(10, 3, (3, 9)));
    assert!(two.local.take_lost().contains(&ONE));
    assert!(two.local.take_lost().is_empty());
    // What was refused was a copy: the rightful process dials again, and is believed again.
    sender.stop();
    one.connected(TWO).await;
    assert!(to_two.is_connected());
    assert!(two.local.witness(ONE, 1, claim(3, 12)));
}

/// Sends `bytes` and reads the refusal.
async fn answer_to(node: &Node, bytes: &[u8]) -> Refusal {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut decoder = FrameDecoder::new(&Limits::default());
    let frame = read_frame(&mut stream, &mut decoder).await.unwrap();
    assert_eq!(
        stream.read(&mut [0]).await.unwrap(),
        0,
        "it ends the connection"
    );
    Refusal::decode(&frame).unwrap()
}

#[actix_rt::test]
async fn a_peer_of_another_version() {
    let mut two = Node::new(local(TWO));
    let from_the_future = Introduction {
        version_min: 2,
        version_max: 3,
        ..local(ONE).introduction(TWO)
    };
    let hello = from_the_future.encode(FrameKind::Hello, &limits()).unwrap();
    let told = answer_to(&two, hello.as_bytes()).await;
    let expected = Refusal::Version {
        theirs_min: 1,
        theirs_max: 1,
        ours_min: 2,
        ours_max: 3,
    };
    assert_eq!(told, expected);
    let expected = Refusal::Version {
        theirs_min: 2,
        theirs_max: 3,
        ours_min: 1,
        ours_max: 1,
    };
    assert_eq!(two.turned().await, (Some(ONE), expected));
}

#[actix_rt::test]
async fn a_peer_that_speaks_a_later_version_too_is_welcome() {
    let mut two = Node::new(local(TWO));
    let newer = Introduction {
        version_max: 3,
        ..local(ONE).introduction(TWO)
    };
    let hello = newer.encode(FrameKind::Hello, &limits()).unwrap();
    let mut stream = TcpStream::connect(two.address).await.unwrap();
    stream.write_all(hello.as_bytes()).await.unwrap();
    let mut decoder = FrameDecoder::new(&Limits::default());
    let frame = read_frame(&mut stream, &mut decoder).await.unwrap();
    assert_eq!(frame.kind, FrameKind::Welcome);
    let ours = Introduction::decode(&frame).unwrap();
    assert_eq!((ours.version_min, ours.version_max), (1, 1));
    confirm(&mut stream, ours.nonce, &limits()).await.unwrap();
    // From now on both speak the newest that both know.
    let commit = super::commit(1);
    let mut bytes = super::encode(&commit).as_bytes().to_vec();
    assert_eq!(bytes[4], 1);
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(two.batch().await.frames, [commit]);
    bytes[4] = 2;
    stream.write_all(&bytes).await.unwrap();
    let ending = two
        .event(|event| match event {
            PeerEvent::Closed { reason, .. } => Some(reason.to_string()),
            _ => None,
        })
        .await;
    assert!(
        ending.contains("protocol version 2 in a frame, 1 is agreed"),
        "{ending}"
    );
}

#[actix_rt::test]
async fn what_is_no_handshake() {
    let mut two = Node::new(local(TWO));
    let garbage = vec![b'x'; 10_000];
    let told = answer_to(&two, &garbage).await;
    let Refusal::Malformed { what } = &told else {
        panic!("{told}");
    };
    assert!(what.contains("not of this protocol"), "{what}");
    assert_eq!(two.turned().await, (None, told));
    // A frame that is one, but too long for a handshake.
    let mut long = local(ONE)
        .introduction(TWO)
        .encode(FrameKind::Hello, &limits())
        .unwrap();
    let mut bytes = long.as_bytes().to_vec();
    bytes[16..20].copy_from_slice(&5000_u32.to_be_bytes());
    let told = answer_to(&two, &bytes).await;
    assert!(told.to_string().contains("the limit is 4096"), "{told}");
    // An address that is none.
    let hello = local(ONE);
    hello.advertise("host:7001");
    let hello = hello.introduction(TWO);
    let hello = hello.encode(FrameKind::Hello, &limits()).unwrap();
    let mut bytes = hello.as_bytes().to_vec();
    let at = bytes.windows(9).position(|at| at == b"host:7001");
    bytes[at.unwrap() + 4] = b' ';
    Header::write(&mut bytes, FrameKind::Hello);
    let told = answer_to(&two, &bytes).await;
    assert!(told.to_string().contains("host:port"), "{told}");
    // A frame that is one, but out of place.
    long = super::encode(&super::commit(1));
    let told = answer_to(&two, long.as_bytes()).await;
    assert!(told.to_string().contains("out of place"), "{told}");
    assert!(two.inbound.try_recv().is_err());
}

#[actix_rt::test]
async fn something_else_at_the_address_of_a_peer() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut one = Node::new(local(ONE));
    let _sender = one.dial(TWO, address);
    let (mut stream, _) = socket.accept().await.unwrap();
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\n")
        .await
        .unwrap();
    assert!(matches!(one.refused().await, Refusal::Malformed { .. }));
}

#[actix_rt::test]
async fn a_slow_handshake_is_cut() {
    let quick = Limits {
        handshake_timeout: Duration::from_millis(50),
        ..limits()
    };
    let mut two = Node::with(local(TWO), quick.clone());
    assert_eq!(
        answer_to(&two, b"rAFt").await,
        Refusal::Slow { limit_ms: 50 }
    );
    assert_eq!(two.turned().await.1, Refusal::Slow { limit_ms: 50 });
    // The dialling side does not wait for ever either.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut one = Node::with(local(ONE), quick);
    let _sender = one.dial(TWO, silent.local_addr().unwrap());
    let reason = one
        .event(|event| match event {
            PeerEvent::Unreachable {
                refused: false,
                reason,
                ..
            } => Some(reason.to_string()),
            _ => None,
        })
        .await;
    assert!(reason.contains("broke off"), "{reason}");
}
