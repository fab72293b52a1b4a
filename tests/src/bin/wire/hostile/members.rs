//! What comes over a connection of a member, and no working node says.

use anyhow::{Result, ensure};

use super::cases::{Case, Now, Way};
use super::forge::{Body, frame, kind, read_frame, send, wait_end};
use super::scene::Scene;

/// All of them, in the order in which they are sent.
pub(crate) const CASES: &[Case] = &[
    // A term or an index near 2^64, and near 2^63, below which every number must be.
    frames("a heartbeat of term 2^64 - 1", "number", |_| {
        heartbeat(u64::MAX, 1, 1)
    }),
    frames("entries behind index 2^64 - 1", "number", |now| {
        append(now.term, (1, u64::MAX), 1, &[])
    }),
    frames("an acknowledgement of index 2^63", "number", |now| {
        accepted(now.term, 1 << 63)
    }),
    frames("entries that end behind index 2^63", "number", |now| {
        append(now.term + 1, (1, (1 << 63) - 1), 1, &[(1, 1, b"x")])
    }),
    messages("a term of 2^63 - 1", "term_beyond", |_| {
        heartbeat(i64::MAX as u64, 1, 0)
    }),
    messages("a vote in term 2^62", "term_beyond", |_| vote(1 << 62)),
    messages("an answer in term 2^62", "term_beyond", |_| {
        heard(1 << 62, 0)
    }),
    messages("a candidate of term 2^62", "term_beyond", |now| {
        stand(1 << 62, (now.term, 1))
    }),
    messages("an acknowledgement of index 2^62", "acknowledged", |now| {
        accepted(now.term, 1 << 62)
    }),
    messages("an answer to round 2^62", "round", |now| {
        heard(now.term, 1 << 62)
    }),
    // A commit index beyond the log.
    messages("a commit index beyond the log", "commit", |now| {
        heartbeat(now.term + 1, 1 << 40, 1)
    }),
    messages("a second leader, with one", "another_leads", |now| {
        append(now.term, (0, 0), now.commit + (1 << 20), &[])
    }),
    messages("a second leader's heartbeat", "another_leads", |now| {
        heartbeat(now.term, 1, 1)
    }),
    // Entries.
    frames("a million empty entries", "too_long", |now| {
        many(now, 1_000_000)
    }),
    frames("as many empty entries as fit a frame", "body", |now| {
        many(now, 100_000)
    }),
    frames("a claim of a million entries", "body", |now| {
        let body = Body::array(5).uints(&[now.term + 1, now.term, now.commit, 1]);
        body.list(1_000_000).frame(kind::APPEND_ENTRIES)
    }),
    frames("entries of falling terms", "entry_term", |now| {
        let entries = [(now.term + 1, 1, &b"x"[..]), (now.term, 1, b"x")];
        append(now.term + 1, (now.term, now.commit), 1, &entries)
    }),
    frames("an entry of no known kind", "entry_kind", |now| {
        append(
            now.term + 1,
            (now.term, now.commit),
            1,
            &[(now.term, 200, b"x")],
        )
    }),
    messages(
        "a configuration of ten thousand nodes",
        "configuration",
        |now| {
            let nodes = configuration(10_000);
            append(
                now.term + 1,
                (now.term, now.commit),
                1,
                &[(now.term, CONFIGURATION, &nodes)],
            )
        },
    ),
    messages(
        "a candidate with entries of its own term",
        "candidate",
        |now| stand(now.term + 1, (now.term + 1, 1 << 40)),
    ),
    messages("a candidate with an index and no term", "position", |now| {
        stand(now.term + 1, (0, 1 << 40))
    }),
    // A sender that is not who the connection is: frames name no sender, so there is none to lie about.
    frames("a sender's name in a message", "body", |now| {
        Body::array(4)
            .uints(&[now.term, 1, 1, now.leader])
            .frame(kind::HEARTBEAT)
    }),
    Case::new(
        "another node's introduction",
        "frame",
        "out_of_place",
        Way::Own(second_hello),
    ),
    // Bytes.
    frames("a value a thousand deep", "body", |_| {
        Body::default().nested(1000).frame(kind::HEARTBEAT)
    }),
    frames("answers a thousand deep", "body", |_| {
        Body::array(1).nested(1000).frame(kind::ANSWERS)
    }),
    frames("a lying length", "too_long", |_| {
        frame(1, kind::HEARTBEAT, u32::MAX, &[0; 64])
    }),
    frames("a wrong checksum", "checksum", |now| {
        let mut bytes = heartbeat(now.term, 1, 1);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes
    }),
    frames("an old protocol version", "version", |now| {
        let body = Body::array(3).uints(&[now.term, 1, 1]);
        frame(0, kind::HEARTBEAT, body.0.len() as u32, &body.0)
    }),
    frames("zero length", "body", |_| frame(1, kind::HEARTBEAT, 0, &[])),
    Case::new(
        "a lie that the receiver's disk is lost",
        "refusal",
        "lost_acknowledged",
        Way::Own(lost),
    ),
    // Snapshots.
    snapshots(
        "a snapshot of an absurd size",
        "too_large",
        |scene, now, node| {
            offered(
                scene,
                node,
                offer(
                    now.term + 1,
                    (now.term, now.commit + 1000),
                    1 << 60,
                    &configuration(3),
                ),
            )
        },
    ),
    snapshots(
        "a snapshot of ten thousand nodes",
        "malformed",
        |scene, now, node| {
            offered(
                scene,
                node,
                offer(
                    now.term + 1,
                    (now.term, now.commit + 1000),
                    100,
                    &configuration(10_000),
                ),
            )
        },
    ),
    snapshots(
        "a snapshot of index 2^64 - 1",
        "malformed",
        |scene, now, node| {
            offered(
                scene,
                node,
                offer(now.term + 1, (now.term, u64::MAX), 100, &configuration(3)),
            )
        },
    ),
    snapshots("a snapshot of term 2^62", "failed", |scene, now, node| {
        offered(
            scene,
            node,
            offer(
                1 << 62,
                (now.term, now.commit + 1000),
                100,
                &configuration(3),
            ),
        )
    }),
    snapshots(
        "a snapshot from who does not lead",
        "failed",
        |scene, now, node| {
            offered(
                scene,
                node,
                offer(
                    now.term,
                    (now.term, now.commit + 100_000),
                    100,
                    &configuration(3),
                ),
            )
        },
    ),
    snapshots(
        "the receiver's own snapshot",
        "failed",
        |scene, now, node| {
            offered(
                scene,
                node,
                offer(
                    now.term + 1,
                    (now.term, now.snapshot.max(1)),
                    100,
                    &configuration(3),
                ),
            )
        },
    ),
    snapshots("a snapshot that is none", "failed", |scene, now, node| {
        chunk(scene, now, node, false)
    }),
    snapshots(
        "a snapshot with a wrong digest",
        "malformed",
        |scene, now, node| chunk(scene, now, node, true),
    ),
];

/// The number of a configuration's entry.
const CONFIGURATION: u64 = 3;

const fn frames(name: &'static str, reason: &'static str, bytes: fn(&Now) -> Vec<u8>) -> Case {
    Case::new(name, "frame", reason, Way::Frame(bytes))
}

const fn messages(name: &'static str, reason: &'static str, bytes: fn(&Now) -> Vec<u8>) -> Case {
    Case::new(name, "message", reason, Way::Message(bytes))
}

const fn snapshots(
    name: &'static str,
    reason: &'static str,
    act: fn(&Scene<'_>, &Now, u64) -> Result<()>,
) -> Case {
    Case::new(name, "snapshot", reason, Way::Own(act))
}

fn heartbeat(term: u64, commit: u64, round: u64) -> Vec<u8> {
    Body::array(3)
        .uints(&[term, commit, round])
        .frame(kind::HEARTBEAT)
}

fn heard(term: u64, round: u64) -> Vec<u8> {
    Body::array(2)
        .uints(&[term, round])
        .frame(kind::HEARTBEAT_RESPONSE)
}

fn vote(term: u64) -> Vec<u8> {
    Body::array(2)
        .uint(term)
        .flag(false)
        .frame(kind::VOTE_RESPONSE)
}

fn stand(term: u64, (last_term, last_index): (u64, u64)) -> Vec<u8> {
    let body = Body::array(4).uints(&[term, last_term, last_index]);
    body.flag(true).frame(kind::REQUEST_VOTE)
}

fn accepted(term: u64, matched: u64) -> Vec<u8> {
    Body::array(2)
        .uints(&[term, matched])
        .frame(kind::APPEND_ACCEPTED)
}

fn append(term: u64, prev: (u64, u64), commit: u64, entries: &[(u64, u64, &[u8])]) -> Vec<u8> {
    let mut body = Body::array(5).uints(&[term, prev.0, prev.1, commit]);
    body = body.list(entries.len() as u32);
    for (term, kind, data) in entries {
        // As short as an entry can be said: a million of them fit a frame.
        body.0.extend([0x93, *term as u8 & 0x7f]);
        match kind {
            0..0x80 => body.0.push(*kind as u8),
            _ => body = body.uint(*kind),
        }
        match data.len() {
            len @ 0..0x100 => body.0.extend([0xc4, len as u8]),
            _ => {
                body = body.bin(data);
                continue;
            }
        }
        body.0.extend(*data);
    }
    body.frame(kind::APPEND_ENTRIES)
}

fn many(now: &Now, count: usize) -> Vec<u8> {
    let entries = vec![(now.term, 1, &b""[..]); count];
    append(now.term + 1, (now.term, now.commit), 1, &entries)
}

/// The bytes of a configuration with so many voters.
fn configuration(voters: u64) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend((voters as u16).to_be_bytes());
    bytes.extend((1..=voters).flat_map(u64::to_be_bytes));
    bytes.extend([0; 10]);
    bytes
}

fn second_hello(scene: &Scene<'_>, now: &Now, node: u64) -> Result<()> {
    let mut stream = scene.established(node, kind::HELLO)?;
    let mut hello = scene.introduction(node);
    hello.from = now.leader;
    send(&mut stream, &hello.frame(kind::HELLO));
    wait_end(&mut stream).map(drop)
}

/// A member says that `node` has lost what it acknowledged, and quotes what that had said of itself.
fn lost(scene: &Scene<'_>, now: &Now, node: u64) -> Result<()> {
    let mut stream = scene.established(node, kind::HELLO)?;
    let [term, last_term, last_index] = scene.said(node).held;
    let numbers = [node, now.term, now.commit, term, last_term, last_index];
    let details = Body::array(6).uints(&numbers);
    let refusal = Body::array(3)
        .uint(13)
        .text("your disk has lost")
        .bin(&details.0);
    send(&mut stream, &refusal.frame(kind::REFUSE));
    wait_end(&mut stream).map(drop)
}

fn offer(term: u64, last: (u64, u64), bytes: u64, configuration: &[u8]) -> Vec<u8> {
    let body = Body::array(7)
        .uints(&[term, last.0, last.1])
        .bin(configuration);
    let body = body
        .bin(&term.to_be_bytes().repeat(2))
        .uints(&[bytes, 1 << 10]);
    body.frame(kind::SNAPSHOT_OFFER)
}

fn offered(scene: &Scene<'_>, node: u64, offer: Vec<u8>) -> Result<()> {
    let mut stream = scene.established(node, kind::SNAPSHOT_HELLO)?;
    send(&mut stream, &offer);
    wait_end(&mut stream).map(drop)
}

/// An offer that a new leader could make, and then what is no snapshot's beginning; or was one before a bit of it
/// was lost.
fn chunk(scene: &Scene<'_>, now: &Now, node: u64, is_damaged: bool) -> Result<()> {
    let mut stream = scene.established(node, kind::SNAPSHOT_HELLO)?;
    let last = (now.term, now.commit + (1 << 30));
    send(
        &mut stream,
        &offer(now.term + 1, last, 100, &configuration(3)),
    );
    let (answer, _) = read_frame(&mut stream)?;
    ensure!(
        answer == kind::SNAPSHOT_WANTED,
        "an offer was answered with {answer}"
    );
    let mut chunk = Body::array(2)
        .uint(0)
        .bin(&[1; 100])
        .frame(kind::SNAPSHOT_CHUNK);
    if is_damaged {
        let last = chunk.len() - 1;
        chunk[last] ^= 1;
    }
    send(&mut stream, &chunk);
    wait_end(&mut stream).map(drop)
}
