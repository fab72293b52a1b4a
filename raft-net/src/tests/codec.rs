//! Frames to bytes and back, and what is not a frame.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use raft_core::{
    AppendEntries, ENTRY_OVERHEAD_BYTES, Entry, EntryKind, Heartbeat, HeartbeatResponse, LogId,
    LogIndex, OpenMessage, ReadBatch, ReadIndexResponse, Round, Term,
};
use serde::Serialize;

use super::fixtures::frames;
use super::{bulk, encode, heartbeat};
use crate::decode::NUMBER_MAX;
use crate::handshake::Introduction;
use crate::header::{HEADER_LEN, Header};
use crate::limits::COPIED_LEN_MAX;
use crate::wire::{
    AppendEntriesBody, CommitBody, EntryBody, HeartbeatBody, HeartbeatResponseBody,
    ReadIndexResponseBody, TimeoutNowBody,
};
use crate::{
    Answer, DecodeError, EncodeError, ForwardOutcome, Forwarded, Frame, FrameDecoder, FrameEncoder,
    FrameKind, ITEMS_MAX, Limits, MANAGE_LEN_MAX, MANAGED_LEN_MAX, REASON_LEN_MAX, Refusal,
};

fn run(term: u64, prev: LogId, count: usize, len: usize) -> AppendEntries {
    let entries: Arc<[Entry]> = (0..count)
        .map(|i| {
            let index = LogIndex(prev.index.0 + 1 + i as u64);
            Entry::new(
                Term(term),
                index,
                EntryKind::Command,
                Bytes::from(vec![9; len]),
            )
        })
        .collect();
    AppendEntries {
        term: Term(term),
        prev,
        entries,
        commit: prev.index,
    }
}

fn append(message: AppendEntries) -> Frame {
    Frame::Raft(OpenMessage::AppendEntries(message).into())
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

/// A frame of whatever body, with a right header.
pub(super) fn forge(kind: FrameKind, body: &impl Serialize) -> Vec<u8> {
    let mut frame = vec![0; HEADER_LEN];
    rmp_serde::encode::write(&mut frame, body).unwrap();
    Header::write(&mut frame, kind);
    frame
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, DecodeError> {
    let mut decoder = FrameDecoder::new(&Limits::default());
    decoder.feed(bytes);
    decoder.next_frame()
}

#[test]
fn an_entry_of_256_bytes_costs_less_than_300() {
    let frame = |count, term, prev| encode(&append(run(term, prev, count, 256))).len();
    assert!(frame(1, 7, id(7, 65_000)) < 300, "a frame of one entry");
    let highest = id(NUMBER_MAX, NUMBER_MAX - 2);
    let more = frame(2, NUMBER_MAX, highest) - frame(1, NUMBER_MAX, highest);
    assert!(
        more < 300,
        "an entry more, with the highest term, costs {more}"
    );
}

#[test]
fn the_same_entries_are_encoded_once() {
    let mut encoder = FrameEncoder::new(&Limits::default());
    let message = run(7, id(7, 10), 3, 100);
    let first = encoder.encode(&append(message.clone())).unwrap();
    encoder.encode(&heartbeat(7)).unwrap();
    let again = encoder.encode(&append(message.clone())).unwrap();
    assert_eq!(first.as_bytes().as_ptr(), again.as_bytes().as_ptr());
    let later = AppendEntries {
        commit: LogIndex(11),
        ..message
    };
    let later = encoder.encode(&append(later)).unwrap();
    assert_ne!(first.as_bytes(), later.as_bytes());
}

#[test]
fn payloads_are_slices_of_the_frame() {
    let mut decoder = FrameDecoder::new(&Limits::default());
    decoder.feed(encode(&bulk(COPIED_LEN_MAX)).as_bytes());
    let start = decoder.buffer_mut().as_ptr() as usize;
    let Ok(Some(Frame::Forward(items))) = decoder.next_frame() else {
        panic!("not what was sent");
    };
    let at = items[0].data.as_ptr() as usize - start;
    assert!(at < COPIED_LEN_MAX + HEADER_LEN, "copied to {at}");
}

#[test]
fn what_the_other_end_would_refuse_is_not_encoded() {
    let limits = Limits {
        frame_len_max: 1000,
        ..Limits::default()
    };
    let mut encoder = FrameEncoder::new(&limits);
    let mut encode = |frame| encoder.encode(&frame);
    assert!(matches!(
        encode(bulk(1000)),
        Err(EncodeError::TooLong { .. })
    ));
    assert!(matches!(
        encode(bulk(971)),
        Err(EncodeError::TooLong {
            len: 1001,
            max: 1000
        })
    ));
    assert!(encode(bulk(970)).is_ok());
    let item = Forwarded {
        request: 0,
        data: Bytes::new(),
    };
    assert!(matches!(
        encode(Frame::Forward(vec![item; ITEMS_MAX + 1])),
        Err(EncodeError::TooManyItems { items }) if items == ITEMS_MAX + 1
    ));
    assert!(matches!(
        encode(heartbeat(1 << 63)),
        Err(EncodeError::Number { .. })
    ));
    let (term, batch) = (Term(7), ReadBatch::default());
    let high = [
        OpenMessage::Heartbeat(Heartbeat {
            term,
            commit: LogIndex(0),
            round: Round(1 << 63),
        }),
        OpenMessage::HeartbeatResponse(HeartbeatResponse {
            term,
            round: Round(1 << 63),
        }),
        OpenMessage::ReadIndexResponse(ReadIndexResponse {
            term,
            batch,
            index: Some(LogIndex(1 << 63)),
        }),
    ];
    for message in high {
        assert!(matches!(
            encode(Frame::Raft(message.into())),
            Err(EncodeError::Number { .. })
        ));
    }
    let mut gap = run(7, id(7, 10), 2, 1);
    gap.prev.index = LogIndex(9);
    assert!(matches!(
        encode(append(gap)),
        Err(EncodeError::NotARun {
            index: LogIndex(11)
        })
    ));
    let mut above = run(7, id(7, 10), 2, 1);
    above.term = Term(6);
    assert!(matches!(
        encode(append(above)),
        Err(EncodeError::NotARun { .. })
    ));
}

#[test]
fn what_is_said_to_fit_fits() {
    let limits = Limits {
        frame_len_max: 100_000,
        ..Limits::default()
    };
    let max = limits.payload_len_max();
    let mut encoder = FrameEncoder::new(&limits);
    let mut fits = |frame| encoder.encode(&frame).unwrap();
    let high = id(NUMBER_MAX, NUMBER_MAX - 5000);
    let one = max - ENTRY_OVERHEAD_BYTES;
    fits(append(run(NUMBER_MAX, high, 1, one)));
    fits(append(run(NUMBER_MAX, high, max / ENTRY_OVERHEAD_BYTES, 0)));
    fits(append(run(
        NUMBER_MAX,
        high,
        300,
        max / 300 - ENTRY_OVERHEAD_BYTES,
    )));
    let data = Bytes::from(vec![0; max]);
    fits(Frame::Forward(vec![Forwarded {
        request: u64::MAX,
        data: data.clone(),
    }]));
    fits(Frame::Answers(vec![Answer {
        request: u64::MAX,
        outcome: ForwardOutcome::Committed {
            index: high.index,
            term: high.term,
            response: data,
        },
    }]));
}

#[test]
fn a_damaged_header_is_refused_by_name() {
    let good = encode(&heartbeat(7)).as_bytes().to_vec();
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        decode(&frame).unwrap_err()
    };
    assert!(matches!(with(0, b'R'), DecodeError::Magic));
    assert!(matches!(
        with(4, 2),
        DecodeError::Version {
            found: 2,
            expected: 1
        }
    ));
    assert!(matches!(
        with(4, 0),
        DecodeError::Version {
            found: 0,
            expected: 1
        }
    ));
    assert!(matches!(with(5, 99), DecodeError::Kind { number: 99 }));
    assert!(matches!(with(7, 1), DecodeError::Flags { flags: 1 }));
    assert!(matches!(with(15, 1), DecodeError::Group { group: 1 }));
    assert!(matches!(with(16, 0xff), DecodeError::TooLong { .. }));
    assert!(matches!(with(20, !good[20]), DecodeError::Checksum { .. }));
    assert!(matches!(with(24, !good[24]), DecodeError::Checksum { .. }));
    assert!(matches!(decode(b"GET / HTTP/1.1"), Err(DecodeError::Magic)));
    assert!(matches!(decode(b"r"), Ok(None)));
    assert!(matches!(decode(b"x"), Err(DecodeError::Magic)));
    assert!(matches!(
        decode(&forge(FrameKind::Hello, &1)),
        Err(DecodeError::OutOfPlace {
            kind: FrameKind::Hello
        })
    ));
}

#[test]
fn a_lying_length_reserves_nothing() {
    let mut frame = encode(&heartbeat(7)).as_bytes().to_vec();
    frame[16..20].copy_from_slice(&((8_u32 << 20) - 24).to_be_bytes());
    let mut decoder = FrameDecoder::new(&Limits::default());
    decoder.feed(&frame);
    for _ in 0..1000 {
        assert!(matches!(decoder.next_frame(), Ok(None)));
        decoder.feed(b"!");
    }
    assert!(decoder.buffer_mut().capacity() < 8 << 10);
}

#[test]
fn a_body_must_be_what_its_kind_says() {
    use FrameKind as K;
    let body = |term, commit, round| HeartbeatBody {
        term,
        commit,
        round,
    };
    let wrong = decode(&forge(K::Heartbeat, &"text")).unwrap_err();
    assert!(matches!(
        wrong,
        DecodeError::Body {
            kind: K::Heartbeat,
            ..
        }
    ));
    let short = decode(&forge(K::Heartbeat, &(1,))).unwrap_err();
    assert!(matches!(short, DecodeError::Body { .. }));
    let long = decode(&forge(K::Heartbeat, &(1, 2, 3, 4))).unwrap_err();
    assert!(matches!(long, DecodeError::Body { .. }));
    let empty = decode(&{
        let mut frame = vec![0; HEADER_LEN];
        Header::write(&mut frame, K::Heartbeat);
        frame
    });
    assert!(matches!(empty, Err(DecodeError::Body { .. })));
    let mut trailing = forge(K::Heartbeat, &body(1, 2, 3));
    trailing.push(0);
    Header::write(&mut trailing, K::Heartbeat);
    let trailing = decode(&trailing).unwrap_err();
    assert!(matches!(
        trailing,
        DecodeError::Trailing { kind: K::Heartbeat }
    ));
    let outcome = decode(&forge(K::Answers, &[(1_u64, 99_u8)])).unwrap_err();
    assert!(matches!(
        outcome,
        DecodeError::Body {
            kind: K::Answers,
            ..
        }
    ));
    let excess = decode(&forge(K::Answers, &[(1_u64, 2_u8, 3_u8)])).unwrap_err();
    assert!(matches!(
        excess,
        DecodeError::Body {
            kind: K::Answers,
            ..
        }
    ));
    let why = decode(&forge(K::Answers, &[(1_u64, 7_u8, 7_u8)])).unwrap_err();
    assert!(matches!(why, DecodeError::Body { .. }));
    for reason in [&b"\xff"[..], &[b'x'; REASON_LEN_MAX + 1]] {
        let body = [(1_u64, 6_u8, 1_u64, 1_u64, serde_bytes::Bytes::new(reason))];
        let refused = decode(&forge(K::Answers, &body)).unwrap_err();
        assert!(matches!(refused, DecodeError::Reason { .. }));
        let outcome = ForwardOutcome::Refused {
            index: LogIndex(1),
            term: Term(1),
            reason: Bytes::copy_from_slice(reason),
        };
        let answers = Frame::Answers(vec![Answer {
            request: 1,
            outcome,
        }]);
        let unsaid = FrameEncoder::new(&Limits::default()).encode(&answers);
        assert!(matches!(unsaid, Err(EncodeError::Reason { .. })));
    }
    let nested = vec![0x91; 2000];
    let mut frame = vec![0; HEADER_LEN];
    frame.extend(nested);
    Header::write(&mut frame, K::Answers);
    assert!(matches!(decode(&frame), Err(DecodeError::Body { .. })));
}

#[test]
fn what_is_managed_has_a_bound_of_its_own() {
    use FrameKind as K;
    let manage = |len| Frame::Manage {
        request: 1,
        data: Bytes::from(vec![7; len]),
    };
    let managed = |len| Frame::Managed {
        request: 1,
        data: Bytes::from(vec![7; len]),
    };
    for (kind, max, frame) in [
        (
            K::Manage,
            MANAGE_LEN_MAX,
            &manage as &dyn Fn(usize) -> Frame,
        ),
        (K::Managed, MANAGED_LEN_MAX, &managed),
    ] {
        let longest = frame(max);
        assert_eq!(decode(encode(&longest).as_bytes()).unwrap(), Some(longest));
        let unsaid = FrameEncoder::new(&Limits::default()).encode(&frame(max + 1));
        assert!(matches!(unsaid, Err(EncodeError::Payload { .. })));
        let data = vec![7; max + 1];
        let refused = decode(&forge(kind, &(1_u64, serde_bytes::Bytes::new(&data)))).unwrap_err();
        assert!(matches!(refused, DecodeError::Payload { len, .. } if len == max + 1));
    }
}

#[test]
fn numbers_beyond_all_are_refused_and_names_may_be_any() {
    use FrameKind as K;
    const HIGH: u64 = NUMBER_MAX + 1;
    fn refused(kind: FrameKind, body: &impl Serialize) -> &'static str {
        match decode(&forge(kind, body)) {
            Err(DecodeError::Number { what, number: HIGH }) => what,
            other => panic!("not refused: {other:?}"),
        }
    }
    let heartbeat = |term, commit, round| HeartbeatBody {
        term,
        commit,
        round,
    };
    assert_eq!(refused(K::Heartbeat, &heartbeat(HIGH, 0, 0)), "term");
    assert_eq!(refused(K::Heartbeat, &heartbeat(1, HIGH, 0)), "index");
    assert_eq!(refused(K::Heartbeat, &heartbeat(1, 0, HIGH)), "round");
    let (term, round, commit) = (1, HIGH, HIGH);
    let response = HeartbeatResponseBody { term, round };
    assert_eq!(refused(K::HeartbeatResponse, &response), "round");
    let advanced = CommitBody { term, commit };
    assert_eq!(refused(K::CommitAdvanced, &advanced), "index");
    let now = TimeoutNowBody { term: HIGH };
    assert_eq!(refused(K::TimeoutNow, &now), "term");
    let read = |term, index| ReadIndexResponseBody {
        term,
        start: u64::MAX,
        number: u64::MAX,
        index,
    };
    let response = K::ReadIndexResponse;
    assert_eq!(refused(response, &read(HIGH, None)), "term");
    assert_eq!(refused(response, &read(1, Some(HIGH))), "index");
    assert!(decode(&forge(response, &read(1, Some(NUMBER_MAX)))).is_ok());
    assert_eq!(refused(K::ReadIndex, &(HIGH, 0, 0)), "term");
    assert!(decode(&forge(K::ReadIndex, &(1, u64::MAX, u64::MAX))).is_ok());
}

#[test]
fn entries_must_be_ones_that_a_leader_can_have() {
    let forge = |term, prev: LogId, entries: Vec<(u64, u8)>| {
        let body = AppendEntriesBody {
            term,
            prev_term: prev.term.0,
            prev_index: prev.index.0,
            commit: 0,
            entries: entries
                .into_iter()
                .map(|(term, kind)| EntryBody {
                    term,
                    kind,
                    data: b"",
                })
                .collect::<Vec<_>>(),
        };
        decode(&forge(FrameKind::AppendEntries, &body))
    };
    assert!(forge(7, id(5, 10), vec![(5, 1), (7, 0), (7, 3)]).is_ok());
    assert!(matches!(
        forge(7, id(5, 10), vec![(5, 1), (7, 4)]),
        Err(DecodeError::EntryKind {
            number: 4,
            index: LogIndex(12)
        })
    ));
    assert!(matches!(
        forge(7, id(5, 10), vec![(4, 1)]),
        Err(DecodeError::EntryTerm {
            index: LogIndex(11),
            ..
        })
    ));
    assert!(matches!(
        forge(7, id(5, 10), vec![(8, 1)]),
        Err(DecodeError::EntryTerm { .. })
    ));
    assert!(matches!(
        forge(7, id(5, NUMBER_MAX), vec![(5, 1)]),
        Err(DecodeError::Number { what: "index", .. })
    ));
    assert!(forge(7, id(5, 0), vec![(5, 1); ITEMS_MAX]).is_ok());
    assert!(matches!(
        forge(7, id(5, 0), vec![(5, 1); ITEMS_MAX + 1]),
        Err(DecodeError::Body { .. })
    ));
    assert!(matches!(
        forge(7, id(5, 0), vec![(5, 1); 1_000_000]),
        Err(DecodeError::Body { .. })
    ));
}

/// Feeds `pieces` and takes frames as they come; what an error says ends it.
fn take(pieces: &[&[u8]]) -> (Vec<Frame>, Option<String>) {
    let mut decoder = FrameDecoder::new(&Limits::default());
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    (frames, None)
}

fn cut_up<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.push(0);
    at.push(bytes.len());
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn frames_in_pieces_equal_frames_in_one(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let all = frames();
        let picked: Vec<Frame> = picks.iter().map(|pick| pick.get(&all).1.clone()).collect();
        let mut bytes = Vec::new();
        for frame in &picked {
            bytes.extend_from_slice(encode(frame).as_bytes());
        }
        prop_assert_eq!(take(&cut_up(&bytes, &cuts)), (picked, None));
    }

    #[test]
    fn a_flipped_byte_is_the_same_error_in_pieces_and_never_a_frame(
        pick in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        flip in 1..=u8::MAX,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let all = frames();
        let mut bytes = encode(&pick.get(&all).1).as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let whole = take(&[&bytes]);
        prop_assert!(whole.0.is_empty());
        prop_assert_eq!(take(&cut_up(&bytes, &cuts)), whole);
    }

    #[test]
    fn garbage_behind_a_right_header_never_panics(
        kind in prop::sample::select(FrameKind::ALL),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut frame = vec![0; HEADER_LEN];
        frame.extend(body);
        Header::write(&mut frame, kind);
        let _ = take(&[&frame]);
        let mut decoder = FrameDecoder::new(&Limits::default());
        decoder.feed(&frame);
        if let Ok(Some(raw)) = decoder.next_raw() {
            let _ = Introduction::decode(&raw);
            let _ = Refusal::decode(&raw);
        }
    }
}
