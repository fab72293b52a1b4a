//! The format, frozen: `fixtures/frames.hex` holds one frame of every kind as it travels. A line of
//! a released version never changes; a new kind, or a new version of a kind, gets a new line.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{
    AppendEntries, AppendOutcome, AppendResponse, ClusterId, CommitAdvanced, DurableMessage, Entry,
    EntryKind, Heartbeat, HeartbeatResponse, Incarnation, InstallSnapshot, LogId, LogIndex, NodeId,
    OpenMessage, PreVote, PreVoteResponse, ReadBatch, ReadIndex, ReadIndexResponse, RequestVote,
    Round, SnapshotMeta, Term, TimeoutNow, VoteResponse,
};

use crate::decode::{FrameDecoder, NUMBER_MAX, decode_body, decode_frame};
use crate::handshake::Introduction;
use crate::snapshot::wire::SnapshotFrame;
use crate::wire::PingBody;
use crate::{
    Answer, CertificateProblem, EncodedFrame, ForwardOutcome, Forwarded, Frame, FrameEncoder,
    FrameKind, Held, Limits, NotApplied, NotTaken, Refusal, SnapshotOffer, VISIT_LEN_MAX,
    WhyNotTaken, visit,
};

/// What refusals say here; what they really say may be worded better without changing the format.
const TEXT: &str = "why";

const FROZEN: &str = include_str!("../../fixtures/frames.hex");

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

/// A frame of every kind and shape, named.
pub(super) fn frames() -> Vec<(&'static str, Frame)> {
    let open = |message: OpenMessage| Frame::Raft(message.into());
    let durable = |message: DurableMessage| Frame::Raft(message.into());
    let term = Term(7);
    let entry = |term, index, kind, data: &'static [u8]| {
        Entry::new(Term(term), LogIndex(index), kind, Bytes::from_static(data))
    };
    let entries: Arc<[Entry]> = [
        entry(6, 301, EntryKind::Birth, b"who"),
        entry(6, 302, EntryKind::Command, b"hello"),
        entry(7, 303, EntryKind::Noop, b""),
        entry(7, 304, EntryKind::Configuration, b"they"),
    ]
    .into();
    let answer = |request, outcome| Answer { request, outcome };
    let batch = ReadBatch {
        start: u64::MAX,
        number: 17,
    };
    let rejected = AppendOutcome::Rejected {
        prev: LogIndex(300),
        hint: id(4, 250),
    };
    vec![
        (
            "append_entries",
            open(OpenMessage::AppendEntries(AppendEntries {
                term,
                prev: id(6, 300),
                entries,
                commit: LogIndex(299),
            })),
        ),
        (
            "append_entries_empty",
            open(OpenMessage::AppendEntries(AppendEntries {
                term: Term(NUMBER_MAX),
                prev: id(NUMBER_MAX, NUMBER_MAX),
                entries: [].into(),
                commit: LogIndex(NUMBER_MAX),
            })),
        ),
        (
            "heartbeat",
            open(OpenMessage::Heartbeat(Heartbeat {
                term,
                commit: LogIndex(299),
                round: Round(1000),
            })),
        ),
        (
            "heartbeat_response",
            open(OpenMessage::HeartbeatResponse(HeartbeatResponse {
                term,
                round: Round(1000),
            })),
        ),
        (
            "commit_advanced",
            open(OpenMessage::CommitAdvanced(CommitAdvanced {
                term,
                commit: LogIndex(303),
            })),
        ),
        (
            "pre_vote",
            open(OpenMessage::PreVote(PreVote {
                term,
                last: id(6, 302),
                transfer: true,
            })),
        ),
        (
            "pre_vote_response",
            open(OpenMessage::PreVoteResponse(PreVoteResponse {
                term,
                granted: true,
            })),
        ),
        (
            "timeout_now",
            open(OpenMessage::TimeoutNow(TimeoutNow { term })),
        ),
        (
            "read_index",
            open(OpenMessage::ReadIndex(ReadIndex { term, batch })),
        ),
        (
            "read_index_response",
            open(OpenMessage::ReadIndexResponse(ReadIndexResponse {
                term,
                batch,
                index: Some(LogIndex(303)),
            })),
        ),
        (
            "read_index_response_later",
            open(OpenMessage::ReadIndexResponse(ReadIndexResponse {
                term,
                batch,
                index: None,
            })),
        ),
        (
            "request_vote",
            durable(DurableMessage::RequestVote(RequestVote {
                term,
                last: id(6, 302),
                transfer: false,
            })),
        ),
        (
            "request_vote_transfer",
            durable(DurableMessage::RequestVote(RequestVote {
                term,
                last: id(6, 302),
                transfer: true,
            })),
        ),
        (
            "vote_response",
            durable(DurableMessage::VoteResponse(VoteResponse {
                term,
                granted: false,
            })),
        ),
        (
            "append_accepted",
            durable(DurableMessage::AppendResponse(AppendResponse {
                term,
                outcome: AppendOutcome::Accepted {
                    matched: LogIndex(303),
                },
            })),
        ),
        (
            "append_rejected",
            durable(DurableMessage::AppendResponse(AppendResponse {
                term,
                outcome: rejected,
            })),
        ),
        (
            "forward",
            Frame::Forward(vec![
                Forwarded {
                    request: u64::MAX,
                    data: Bytes::from_static(b"hello"),
                },
                Forwarded {
                    request: 0,
                    data: Bytes::new(),
                },
            ]),
        ),
        (
            "answers",
            Frame::Answers(vec![
                answer(
                    1,
                    ForwardOutcome::Committed {
                        index: LogIndex(303),
                        term,
                        response: Bytes::from_static(b"done"),
                    },
                ),
                answer(
                    2,
                    ForwardOutcome::NotLeader {
                        leader: Some(NodeId(3)),
                    },
                ),
                answer(3, ForwardOutcome::NotLeader { leader: None }),
                answer(4, ForwardOutcome::Busy),
                answer(5, ForwardOutcome::TooLarge { max: 1 << 20 }),
                answer(6, ForwardOutcome::Superseded),
                answer(7, ForwardOutcome::Unknown),
            ]),
        ),
        ("answers_not_run", Frame::Answers(not_run(term).collect())),
        (
            "digest",
            Frame::Digest {
                index: LogIndex(303),
                digest: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
                announced: true,
            },
        ),
        (
            "digest_answered",
            Frame::Digest {
                index: LogIndex(NUMBER_MAX),
                digest: u128::MAX,
                announced: false,
            },
        ),
        (
            "manage",
            Frame::Manage {
                request: u64::MAX,
                data: Bytes::from_static(b"remove 3"),
            },
        ),
        (
            "managed",
            Frame::Managed {
                request: 0,
                data: Bytes::new(),
            },
        ),
    ]
}

/// The outcomes of commands that changed nothing.
fn not_run(term: Term) -> impl Iterator<Item = Answer> {
    let index = LogIndex(303);
    let why = |why| ForwardOutcome::NotApplied { why };
    let refused = |reason| ForwardOutcome::Refused {
        index,
        term,
        reason: Bytes::from_static(reason),
    };
    let outcomes = vec![
        refused("zu wenig Geld: 3 €".as_bytes()),
        refused(b""),
        why(NotApplied::AnswerForgotten { index, term }),
        why(NotApplied::Cancelled { index, term }),
        why(NotApplied::SessionExpired),
        why(NotApplied::BeyondWindow),
        why(NotApplied::Acknowledged),
        why(NotApplied::TooManySessions),
        why(NotApplied::Malformed),
    ];
    let answer = |(request, outcome)| Answer { request, outcome };
    (1..).zip(outcomes).map(answer)
}

/// A frame of every kind that a snapshot connection carries.
fn snapshot_frames() -> Vec<(&'static str, SnapshotFrame)> {
    let not_taken = |why| {
        SnapshotFrame::Done(Err(NotTaken {
            why,
            text: TEXT.into(),
        }))
    };
    let mut configuration = Configuration::of([1, 2, 3].map(NodeId));
    configuration.learners.insert(NodeId(u64::MAX));
    let offer = SnapshotOffer {
        message: InstallSnapshot {
            term: Term(7),
            snapshot: SnapshotMeta {
                last: id(6, 302),
                configuration: Arc::new(configuration),
            },
        },
        id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        bytes: 1 << 33,
        chunk_bytes: 256 << 10,
    };
    let chunk = SnapshotFrame::Chunk {
        number: 32_767,
        data: Bytes::from_static(b"state"),
    };
    let mut all = vec![
        ("snapshot_offer", SnapshotFrame::Offer(offer)),
        ("snapshot_wanted", SnapshotFrame::Wanted { from: 1000 }),
        ("snapshot_chunk", chunk),
        ("snapshot_arrived", SnapshotFrame::Done(Ok(()))),
    ];
    let whys = [
        ("snapshot_unwanted", WhyNotTaken::Unwanted),
        ("snapshot_busy", WhyNotTaken::Busy),
        ("snapshot_failed", WhyNotTaken::Failed),
        ("snapshot_unsound", WhyNotTaken::Unsound),
        ("snapshot_too_large", WhyNotTaken::TooLarge),
        ("snapshot_out_of_order", WhyNotTaken::OutOfOrder),
        ("snapshot_wrong_length", WhyNotTaken::WrongLength),
        ("snapshot_trailing", WhyNotTaken::Trailing),
        ("snapshot_malformed", WhyNotTaken::Malformed),
        ("snapshot_slow", WhyNotTaken::Slow),
        ("snapshot_from_the_future", WhyNotTaken::Other(200)),
    ];
    all.extend(whys.map(|(name, why)| (name, not_taken(why))));
    all
}

/// The shapes of an introduction.
fn introductions() -> [(&'static str, FrameKind, Introduction); 4] {
    let unborn = Introduction {
        version_min: 1,
        version_max: 1,
        cluster: None,
        from: NodeId(1),
        to: NodeId(2),
        incarnation: Incarnation(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        starts: 3,
        run: 0xfeed,
        known: None,
        held: Held {
            term: Term(7),
            last: id(6, 302),
        },
        members: [1, 2, u64::MAX].map(NodeId).into(),
        address: String::new(),
        nonce: 0,
    };
    let born = Introduction {
        cluster: Some(ClusterId(u128::MAX)),
        known: Some(Incarnation(1)),
        held: Held {
            term: Term(NUMBER_MAX),
            last: id(NUMBER_MAX, NUMBER_MAX),
        },
        members: [1, 2].map(NodeId).into(),
        address: "node-1.example:7001".into(),
        ..unborn.clone()
    };
    [
        ("hello", FrameKind::Hello, unborn),
        ("welcome", FrameKind::Welcome, born.clone()),
        ("snapshot_hello", FrameKind::SnapshotHello, born.clone()),
        ("urgent_hello", FrameKind::UrgentHello, born),
    ]
}

/// What a connection is kept alive with.
fn pings() -> [(&'static str, FrameKind, PingBody); 3] {
    let body = |number| PingBody { number };
    [
        ("confirm", FrameKind::Confirm, body(0x0102_0304_0506_0708)),
        ("ping", FrameKind::Ping, body(1000)),
        ("pong", FrameKind::Pong, body(u64::MAX)),
    ]
}

/// A question, and an answer.
fn visits() -> [(&'static str, FrameKind, &'static [u8]); 2] {
    [
        ("visit", FrameKind::Visit, b"who?"),
        ("visit_answer", FrameKind::VisitAnswer, b""),
    ]
}

/// A refusal of every kind, as the refusing side has it, and as the other side reads it.
pub(super) fn refusals() -> Vec<(&'static str, Refusal, Refusal)> {
    let node = NodeId(3);
    let same = |name, refusal: Refusal| (name, refusal.clone(), refusal);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let certificate = |name, problem: CertificateProblem| {
        let of = |ours| Refusal::Certificate {
            ours,
            problem: problem.clone(),
        };
        (name, of(false), of(true))
    };
    vec![
        (
            "refuse_version",
            Refusal::Version {
                theirs_min: 2,
                theirs_max: 3,
                ours_min: 1,
                ours_max: 1,
            },
            Refusal::Version {
                theirs_min: 1,
                theirs_max: 1,
                ours_min: 2,
                ours_max: 3,
            },
        ),
        (
            "refuse_wrong_cluster",
            Refusal::WrongCluster {
                theirs: ClusterId(1),
                ours: ClusterId(2),
            },
            Refusal::WrongCluster {
                theirs: ClusterId(2),
                ours: ClusterId(1),
            },
        ),
        same(
            "refuse_not_me",
            Refusal::NotMe {
                asked: NodeId(2),
                am: node,
            },
        ),
        same("refuse_itself", Refusal::Itself { node }),
        same("refuse_unknown_node", Refusal::UnknownNode { node }),
        same(
            "refuse_wrong_incarnation",
            Refusal::WrongIncarnation {
                node,
                known: Incarnation(1),
                shown: Incarnation(2),
            },
        ),
        same(
            "refuse_old_copy",
            Refusal::OldCopy {
                node,
                seen_starts: 9,
                shown: 8,
            },
        ),
        same("refuse_duplicate_node", Refusal::DuplicateNode { node }),
        same(
            "refuse_malformed",
            Refusal::Malformed {
                what: "the bytes are not of this protocol".into(),
            },
        ),
        same("refuse_too_many_connections", Refusal::TooManyConnections),
        same("refuse_slow", Refusal::Slow { limit_ms: 5000 }),
        same("refuse_replayed", Refusal::Replayed),
        (
            "refuse_other_peers",
            Refusal::OtherPeers {
                theirs: [1, 2].map(NodeId).into(),
                ours: [1, 2, 3, 4, 500].map(NodeId).into(),
            },
            Refusal::OtherPeers {
                theirs: [1, 2, 3, 4, 500].map(NodeId).into(),
                ours: [1, 2].map(NodeId).into(),
            },
        ),
        same(
            "refuse_lost_acknowledged",
            Refusal::LostAcknowledged {
                node,
                term: Term(7),
                acknowledged: LogIndex(303),
                found_term: Term(6),
                found: id(5, 300),
            },
        ),
        same("refuse_tls_wanted", Refusal::TlsWanted),
        same("refuse_no_tls", Refusal::NoTls),
        certificate(
            "refuse_certificate_expired",
            CertificateProblem::Expired { not_after: at },
        ),
        certificate(
            "refuse_certificate_not_yet_valid",
            CertificateProblem::NotYetValid { not_before: at },
        ),
        certificate(
            "refuse_certificate_name",
            CertificateProblem::Name {
                expected: "node-2, but node-3".into(),
            },
        ),
        certificate("refuse_certificate_chain", CertificateProblem::Chain),
        certificate("refuse_certificate_key", CertificateProblem::Key),
        certificate("refuse_certificate_missing", CertificateProblem::Missing),
        certificate(
            "refuse_certificate_unfit",
            CertificateProblem::Unfit {
                what: "for servers only".into(),
            },
        ),
        same("refuse_removed", Refusal::Removed { node }),
        same("refuse_joining", Refusal::Joining),
        same("refuse_no_joins", Refusal::NoJoins),
        same(
            "refuse_unreachable",
            Refusal::Unreachable {
                address: "node-4.example:7004".into(),
            },
        ),
        same(
            "refuse_tls_name",
            Refusal::TlsName {
                name: "node-4".into(),
            },
        ),
        same("refuse_alive", Refusal::Alive { node }),
        same("refuse_too_many_members", Refusal::TooManyMembers),
        same(
            "refuse_from_the_future",
            Refusal::Other {
                number: 200,
                text: TEXT.into(),
            },
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn frozen(name: &str) -> Vec<u8> {
    let line = FROZEN
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    unhex(line.unwrap_or_else(|| panic!("no fixture of {name}")))
}

/// Everything as it is encoded now.
fn encoded() -> Vec<(&'static str, EncodedFrame)> {
    let limits = Limits::default();
    let mut encoder = FrameEncoder::new(&limits);
    let mut all = Vec::new();
    for (name, kind, introduction) in introductions() {
        all.push((name, introduction.encode(kind, &limits).unwrap()));
    }
    for (name, kind, body) in pings() {
        all.push((name, encoder.body(kind, &body, 1, 0).unwrap()));
    }
    for (name, kind, data) in visits() {
        all.push((name, visit::encode(kind, data, VISIT_LEN_MAX).unwrap()));
    }
    for (name, refusal, _) in refusals() {
        all.push((name, refusal.encode_as(TEXT, &limits).unwrap()));
    }
    for (name, frame) in frames() {
        all.push((name, encoder.encode(&frame).unwrap()));
    }
    for (name, frame) in snapshot_frames() {
        all.push((name, frame.encode(&mut encoder).unwrap()));
    }
    all
}

#[test]
fn every_frame_encodes_to_its_frozen_bytes() {
    let now: String = encoded()
        .iter()
        .map(|(name, frame)| format!("{name} {}\n", hex(frame.as_bytes())))
        .collect();
    assert!(
        now == FROZEN,
        "the format has changed; if no released version is concerned, fixtures/frames.hex \
         becomes:\n{now}"
    );
}

#[test]
fn every_frozen_frame_decodes_to_what_it_was() {
    let limits = Limits::default();
    let read = |name| {
        let mut decoder = FrameDecoder::new(&limits);
        decoder.feed(&frozen(name));
        let frame = decoder.next_raw().unwrap().unwrap();
        assert!(decoder.buffer_mut().is_empty());
        frame
    };
    for (name, kind, introduction) in introductions() {
        let frame = read(name);
        assert_eq!(frame.kind, kind);
        assert_eq!(Introduction::decode(&frame).unwrap(), introduction);
    }
    for (name, kind, body) in pings() {
        let frame = read(name);
        let read: PingBody = decode_body(kind, &frame.body).unwrap();
        assert_eq!((frame.kind, read.number), (kind, body.number));
        assert!(decode_frame(frame.kind, &frame.body).is_err(), "{name}");
    }
    for (name, kind, data) in visits() {
        let frame = read(name);
        assert_eq!(frame.kind, kind);
        assert_eq!(visit::decode(&frame, VISIT_LEN_MAX).unwrap(), data);
        assert!(decode_frame(frame.kind, &frame.body).is_err(), "{name}");
    }
    for (name, _, refusal) in refusals() {
        assert_eq!(Refusal::decode(&read(name)).unwrap(), refusal, "{name}");
    }
    for (name, frame) in frames() {
        let raw = read(name);
        assert_eq!(decode_frame(raw.kind, &raw.body).unwrap(), frame, "{name}");
    }
    for (name, frame) in snapshot_frames() {
        let raw = read(name);
        assert_eq!(SnapshotFrame::decode(&raw).unwrap(), frame, "{name}");
        assert!(decode_frame(raw.kind, &raw.body).is_err(), "{name}");
    }
}

#[test]
fn every_kind_has_a_fixture() {
    let kinds: Vec<u8> = FROZEN
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|frame| unhex(frame)[5])
        .collect();
    for kind in FrameKind::ALL {
        assert!(kinds.contains(&(*kind as u8)), "no fixture of {kind:?}");
    }
}
