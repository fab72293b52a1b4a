//! Nodes that this one does not know yet: of its cluster, with ids above all that it has seen given.

use std::time::{Duration, Instant};

use raft_core::{ClusterId, Incarnation, LogIndex, NodeId, Term};
use tokio_util::sync::CancellationToken;

use super::tls::{Pki, Wanted};
use super::{
    CLUSTER, Node, ONE, PATIENCE, THREE, TWO, born, commit, encode, folder, knowing, known,
    listing, local,
};
use crate::cut::Cut;
use crate::local::{GUESTS_MAX, Purpose, Side};
use crate::{
    CertificateProblem, Claim, Ending, Held, Local, PeerEvent, PeerHello, PeerSender, Refusal, Tls,
    TlsName,
};

const FOUR: NodeId = NodeId(4);

/// A node that has come after node 3, and knows all.
fn later(node: NodeId, incarnation: Incarnation) -> Local {
    let mut members = born();
    members.insert(node, known(node, Some(incarnation)));
    Local::new(
        node,
        incarnation,
        1,
        Some(CLUSTER),
        members,
        Held::default(),
    )
}

fn four() -> Local {
    later(FOUR, folder(FOUR))
}

/// Node 2, whose log is behind: it knows of nodes 1 to 3.
fn behind() -> Local {
    let two = local(TWO);
    two.set_members(born(), THREE);
    two
}

impl Node {
    async fn refusal(&mut self) -> Refusal {
        self.event(|event| match event {
            PeerEvent::Refused { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until the connection that `from` has dialled is there.
    async fn accepted(&mut self, from: NodeId) -> PeerHello {
        self.event(|event| match event {
            PeerEvent::Accepted { peer, hello } if *peer == from => Some(hello.clone()),
            _ => None,
        })
        .await
    }

    /// What cut the connection that `from` had dialled.
    async fn cut(&mut self, from: NodeId) -> Refusal {
        self.event(|event| match event {
            PeerEvent::Closed {
                peer,
                reason: Ending::Contradicted(refusal),
            } if *peer == from => Some(refusal.clone()),
            _ => None,
        })
        .await
    }
}

/// Waits until `local` has forgotten node 4.
async fn forgotten(local: &Local) {
    let began = Instant::now();
    while local.witness(FOUR, 1, None) || !local.addresses(FOUR).is_empty() {
        assert!(began.elapsed() < PATIENCE, "it is remembered");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[actix_rt::test]
async fn a_node_whose_joining_has_not_come_here_yet_is_heard_and_dialled() {
    let (mut two, mut four) = (Node::new(behind()), Node::new(four()));
    four.local.advertise(four.address.to_string());
    let to_two = four.dial(TWO, two.address);
    four.connected(TWO).await;
    let hello = two.accepted(FOUR).await;
    assert_eq!(hello.address, four.address.to_string());
    to_two.try_send(encode(&commit(7))).unwrap();
    let batch = two.batch().await;
    assert_eq!((batch.from, batch.frames), (FOUR, vec![commit(7)]));
    let claim = Claim {
        term: Term(1),
        through: LogIndex(1),
    };
    assert!(two.local.witness(FOUR, 1, Some(claim)));
    // Frames go one way on a connection, so it is dialled where it says that it is.
    let to_four = two.dial_where_it_is(FOUR);
    two.connected(FOUR).await;
    to_four.try_send(encode(&commit(8))).unwrap();
    assert_eq!(four.batch().await.frames, [commit(8)]);
    // Nothing is left of it when it is gone.
    to_four.stop();
    to_two.stop();
    forgotten(&two.local).await;
}

#[actix_rt::test]
async fn a_guest_that_becomes_a_member_goes_on() {
    let (mut two, mut four) = (Node::new(behind()), Node::new(four()));
    let to_two = four.dial(TWO, two.address);
    four.connected(TWO).await;
    two.accepted(FOUR).await;
    two.local
        .set_members(knowing([ONE, TWO, THREE, FOUR]), FOUR);
    to_two.try_send(encode(&commit(7))).unwrap();
    assert_eq!(two.batch().await.frames, [commit(7)]);
    assert_eq!(to_two.stats().connects, 1);
    // And is remembered as members are.
    to_two.stop();
    to_two.stopped().await;
    assert!(two.local.witness(FOUR, 1, None));
}

#[actix_rt::test]
async fn a_guest_that_is_another_than_the_member_is_cut() {
    let (mut two, mut four) = (Node::new(behind()), Node::new(four()));
    let _to_two = four.dial(TWO, two.address);
    four.connected(TWO).await;
    two.accepted(FOUR).await;
    let mut members = born();
    members.insert(FOUR, known(FOUR, Some(Incarnation(7))));
    two.local.set_members(members, FOUR);
    let expected = Refusal::WrongIncarnation {
        node: FOUR,
        known: Incarnation(7),
        shown: folder(FOUR),
    };
    assert_eq!(two.cut(FOUR).await, expected);
    assert!(matches!(
        four.refusal().await,
        Refusal::WrongIncarnation { .. }
    ));
}

#[actix_rt::test]
async fn a_guest_whose_id_was_removed_is_cut() {
    let (mut two, mut four) = (Node::new(behind()), Node::new(four()));
    let _to_two = four.dial(TWO, two.address);
    four.connected(TWO).await;
    two.accepted(FOUR).await;
    two.local.set_members(born(), FOUR);
    assert!(!two.local.witness(FOUR, 1, None));
    assert_eq!(two.cut(FOUR).await, Refusal::Removed { node: FOUR });
    assert_eq!(four.refusal().await, Refusal::Removed { node: FOUR });
}

/// Two folders that were promised the same id: one of them is no node's.
#[actix_rt::test]
async fn of_two_guests_with_one_id_there_is_one() {
    let mut two = Node::new(behind());
    let mut first = Node::new(four());
    let mut second = Node::new(later(FOUR, Incarnation(7)));
    let to_two = first.dial(TWO, two.address);
    first.connected(TWO).await;
    two.accepted(FOUR).await;
    let _seconds = second.dial(TWO, two.address);
    assert_eq!(
        second.refusal().await,
        Refusal::DuplicateNode { node: FOUR }
    );
    assert!(to_two.is_connected());
    to_two.stop();
    second.connected(TWO).await;
}

#[actix_rt::test]
async fn who_is_of_another_cluster_is_no_guest() {
    let two = Node::new(behind());
    let members = listing([ONE, TWO, THREE, FOUR]);
    let cluster = Some(ClusterId(9));
    let other = Local::new(FOUR, folder(FOUR), 1, cluster, members, Held::default());
    let mut other = Node::new(other);
    let _to_two = other.dial(TWO, two.address);
    assert!(matches!(
        other.refusal().await,
        Refusal::WrongCluster { .. }
    ));
}

#[actix_rt::test]
async fn guests_are_few() {
    let mut two = Node::new(behind());
    let mut guests: Vec<(Node, PeerSender)> = Vec::new();
    for id in (4..).take(GUESTS_MAX) {
        let id = NodeId(id);
        let mut guest = Node::new(later(id, folder(id)));
        let sender = guest.dial(TWO, two.address);
        guest.connected(TWO).await;
        guests.push((guest, sender));
    }
    let last = NodeId(4 + GUESTS_MAX as u64);
    let mut last = Node::new(later(last, folder(last)));
    let _to_two = last.dial(TWO, two.address);
    assert_eq!(last.refusal().await, Refusal::TooManyConnections);
    // Those who are there may have more connections, and members are no guests.
    let _to_four = two.dial(FOUR, guests[0].0.address);
    two.connected(FOUR).await;
    let mut one = Node::new(local(ONE));
    let _ones = one.dial(TWO, two.address);
    one.connected(TWO).await;
    // A place that is given back is another's.
    guests[1].1.stop();
    last.connected(TWO).await;
}

/// Else anybody could fill the memory, one id after the other.
#[test]
fn of_a_guest_nothing_is_remembered_before_it_is_there() {
    let two = behind();
    let process = four().introduction(TWO);
    two.examine(Side::Accepted, &process, None).unwrap();
    // Another process of the same start would be refused as a copy.
    let other = four().introduction(TWO);
    assert_ne!(process.run, other.run);
    two.examine(Side::Accepted, &other, None).unwrap();
    let cut = Cut::below(&CancellationToken::new());
    let admit = |theirs| two.admit(Side::Accepted, Purpose::Urgent, theirs, None, &cut);
    let admission = admit(&process).unwrap();
    let refused = two.examine(Side::Accepted, &other, None).unwrap_err();
    assert_eq!(refused, Refusal::DuplicateNode { node: FOUR });
    drop(admission);
    drop(admit(&other).unwrap());
}

/// `local` with a certificate that holds `name`.
fn named(pki: &Pki, local: Local, name: &str) -> Node {
    let files = pki.give(local.node(), &Wanted::of(&[name]));
    let tls = Tls::load(files, Some(TlsName::new(name).unwrap())).unwrap();
    Node::new(local.with_tls(tls))
}

#[actix_rt::test]
async fn a_guest_shows_any_certificate_of_the_ca_until_its_name_is_known() {
    let pki = Pki::new();
    let two = behind().with_tls(pki.tls(TWO));
    let mut two = Node::new(two);
    let mut four = named(&pki, four(), "fourth.example");
    four.local.advertise(four.address.to_string());
    let to_two = four.dial(TWO, two.address);
    two.accepted(FOUR).await;
    let to_four = two.dial_where_it_is(FOUR);
    two.connected(FOUR).await;
    // Its joining is there, but may still be cut off: that says nothing of its name.
    let local = two.local.clone();
    let set_members = |tls_name: Option<&str>| {
        let mut members = knowing([ONE, TWO, THREE, FOUR]);
        let name = tls_name.map(|name| TlsName::new(name).unwrap());
        members.get_mut(&FOUR).unwrap().tls_name = name;
        local.set_members(members, FOUR);
    };
    set_members(None);
    set_members(Some("fourth.example"));
    to_two.try_send(encode(&commit(7))).unwrap();
    assert_eq!(two.batch().await.frames, [commit(7)]);
    to_four.try_send(encode(&commit(8))).unwrap();
    assert_eq!(four.batch().await.frames, [commit(8)]);
    assert_eq!((to_two.stats().connects, to_four.stats().connects), (1, 1));
    // By another name it is another node.
    set_members(Some("another.example"));
    let certificate = |ours| Refusal::Certificate {
        ours,
        problem: CertificateProblem::Name {
            expected: "another.example, but fourth.example".into(),
        },
    };
    assert_eq!(two.cut(FOUR).await, certificate(false));
    assert_eq!(four.refusal().await, certificate(true));
    assert_eq!(two.refusal().await, certificate(false));
}

#[actix_rt::test]
async fn a_guest_of_another_ca_is_none_whoever_dials() {
    let pki = Pki::new();
    let mut two = Node::new(behind().with_tls(pki.tls(TWO)));
    let mut four = named(&Pki::new(), four(), "fourth.example");
    let chain = |ours| Refusal::Certificate {
        ours,
        problem: CertificateProblem::Chain,
    };
    let _to_two = four.dial(TWO, two.address);
    assert_eq!(four.refusal().await, chain(false));
    let _to_four = two.dial(FOUR, four.address);
    assert_eq!(two.refusal().await, chain(false));
}

/// The name may become known while the handshake is under way.
#[test]
fn a_member_is_admitted_by_its_name_however_the_handshake_began() {
    let pki = Pki::new();
    let two = local(TWO).with_tls(pki.tls(TWO));
    let cut = Cut::below(&CancellationToken::new());
    let theirs = local(ONE).introduction(TWO);
    for side in [Side::Accepted, Side::Dialled(ONE)] {
        let refused = two.admit(side, Purpose::Main, &theirs, None, &cut);
        let expected = Refusal::Certificate {
            ours: false,
            problem: CertificateProblem::Missing,
        };
        assert_eq!(refused.unwrap_err(), expected);
    }
}
