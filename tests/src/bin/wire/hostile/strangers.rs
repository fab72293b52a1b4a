//! What comes from who is no member, or not the one that it says it is.

use super::cases::{Case, Way};
use super::forge::{Body, connect, frame, kind, send, wait_end};
use super::scene::Scene;

/// All of them, in the order in which they are sent.
pub(crate) const CASES: &[Case] = &[
    connection("garbage", "malformed", Way::Stranger(garbage)),
    connection("a lying length", "malformed", Way::Stranger(lying_length)),
    connection("zero length", "malformed", Way::Stranger(zero_length)),
    connection(
        "an unknown kind of frame",
        "malformed",
        Way::Stranger(unknown_kind),
    ),
    connection(
        "ten thousand members",
        "malformed",
        Way::Stranger(many_members),
    ),
    connection(
        "another cluster",
        "wrong_cluster",
        Way::Stranger(other_cluster),
    ),
    connection(
        "a node that is not listed, and not born",
        "unknown_node",
        Way::Stranger(unknown_node),
    ),
    connection(
        "a node that is no member any more",
        "removed",
        Way::Stranger(removed),
    ),
    connection(
        "an old incarnation",
        "wrong_incarnation",
        Way::Stranger(old_incarnation),
    ),
    connection(
        "the receiver's old incarnation",
        "wrong_incarnation",
        Way::Stranger(old_receiver),
    ),
    connection("an old start counter", "old_copy", Way::Stranger(old_start)),
    connection(
        "another process of the same start",
        "duplicate_node",
        Way::Stranger(duplicate),
    ),
    connection(
        "an address of another node",
        "not_me",
        Way::Stranger(misdialled),
    ),
    connection(
        "an old protocol version",
        "version",
        Way::Stranger(old_version),
    ),
    connection(
        "a future protocol version",
        "version",
        Way::Stranger(future_version),
    ),
    connection(
        "a visit of another shape",
        "malformed",
        Way::Stranger(shapeless_visit),
    ),
    connection(
        "a visit that makes no sense",
        "malformed",
        Way::Stranger(senseless_visit),
    ),
    connection(
        "a visit that is too long",
        "malformed",
        Way::Stranger(long_visit),
    ),
    connection("a recorded session", "replayed", Way::Own(replayed)),
    connection("TLS", "no_tls", Way::Own(speaks_tls)),
];

const fn connection(name: &'static str, reason: &'static str, way: Way) -> Case {
    Case::new(name, "connection", reason, way)
}

fn garbage(_: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut state = node | 1;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..1024).map(|_| byte()).collect()
}

fn lying_length(_: &Scene<'_>, _: u64) -> Vec<u8> {
    frame(0, kind::HELLO, u32::MAX, &[0; 64])
}

fn zero_length(_: &Scene<'_>, _: u64) -> Vec<u8> {
    frame(0, kind::HELLO, 0, &[])
}

fn unknown_kind(_: &Scene<'_>, _: u64) -> Vec<u8> {
    Body::array(1).uint(1).frame(250)
}

fn many_members(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.members = (1..=10_000).collect();
    hello.frame(kind::HELLO)
}

fn other_cluster(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.cluster = vec![7; 16];
    hello.frame(kind::HELLO)
}

fn unknown_node(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.from = 9;
    hello.cluster.clear();
    hello.frame(kind::HELLO)
}

fn removed(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    // Ids begin with 1, and none below the highest is given again.
    hello.from = 0;
    hello.frame(kind::HELLO)
}

fn shapeless_visit(_: &Scene<'_>, _: u64) -> Vec<u8> {
    Body::array(1).uint(1).frame(kind::VISIT)
}

fn senseless_visit(_: &Scene<'_>, _: u64) -> Vec<u8> {
    Body::array(1).bin(&[0xc1; 64]).frame(kind::VISIT)
}

fn long_visit(_: &Scene<'_>, _: u64) -> Vec<u8> {
    Body::array(1).bin(&[7; 4_040]).frame(kind::VISIT)
}

fn old_incarnation(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.incarnation = vec![7; 16];
    hello.frame(kind::HELLO)
}

fn old_receiver(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.known = vec![7; 16];
    hello.frame(kind::HELLO)
}

fn old_start(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.starts = 1;
    hello.frame(kind::HELLO)
}

fn duplicate(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.run += 1;
    hello.frame(kind::HELLO)
}

fn misdialled(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.to = 3 - node;
    hello.frame(kind::HELLO)
}

fn old_version(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.versions = (0, 0);
    hello.frame(kind::HELLO)
}

fn future_version(scene: &Scene<'_>, node: u64) -> Vec<u8> {
    let mut hello = scene.introduction(node);
    hello.versions = (200, 201);
    hello.frame(kind::HELLO)
}

/// A whole session, frames included, played again byte by byte.
fn replayed(scene: &Scene<'_>, now: &super::cases::Now, node: u64) -> anyhow::Result<()> {
    let (stream, mut bytes) = scene.recorded(node, kind::HELLO)?;
    drop(stream);
    bytes.extend(
        Body::array(2)
            .uints(&[now.term, 0])
            .frame(kind::HEARTBEAT_RESPONSE),
    );
    let mut stream = connect(scene.replicas.seat(node).address)?;
    send(&mut stream, &bytes);
    wait_end(&mut stream).map(drop)
}

fn speaks_tls(scene: &Scene<'_>, _: &super::cases::Now, node: u64) -> anyhow::Result<()> {
    let mut stream = connect(scene.replicas.seat(node).address)?;
    send(&mut stream, &super::tls::first_words()?);
    wait_end(&mut stream).map(drop)
}
