//! What a frame costs once it is decoded, or refused: in proportion to its bytes, whatever they say.

use std::sync::Arc;

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use raft_core::{AppendEntries, Entry, EntryKind, LogId, LogIndex, OpenMessage, Term};

use super::codec::forge;
use super::{encode, heartbeat};
use crate::decode::FrameDecoder;
use crate::header::{HEADER_LEN, Header};
use crate::snapshot::wire::SnapshotFrame;
use crate::{
    Answer, EncodedFrame, ForwardOutcome, Forwarded, Frame, FrameKind, ITEMS_MAX, Limits, Refusal,
};

/// For each byte on the wire.
const FACTOR: u64 = 48;
/// Whatever the frame.
const BASE: u64 = 32 << 10;

/// The most memory that `work` held at once.
fn peak<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let mut result = None;
    let cost = measure(|| result = Some(work()));
    (cost.bytes_max, result.unwrap())
}

fn decoder(frame: &[u8]) -> FrameDecoder {
    let mut decoder = FrameDecoder::new(&Limits::default());
    decoder.feed(frame);
    decoder
}

/// Decodes `frame`, within its bound; gives what became of it.
fn cheap(what: &str, frame: &[u8]) -> Result<Frame, String> {
    let mut decoder = decoder(frame);
    let (peak, decoded) = peak(|| decoder.next_frame());
    let bound = frame.len() as u64 * FACTOR + BASE;
    assert!(
        peak <= bound,
        "{what}: {peak} bytes for {} on the wire",
        frame.len()
    );
    match decoded {
        Ok(frame) => Ok(frame.unwrap()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 2048, "{what}: {} bytes of text", text.len());
            Err(text)
        }
    }
}

/// A frame whose body is these bytes.
fn raw(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_LEN];
    frame.extend_from_slice(body);
    Header::write(&mut frame, kind);
    frame
}

fn bytes(frame: &EncodedFrame) -> Vec<u8> {
    frame.as_bytes().to_vec()
}

#[test]
fn as_many_empty_items_as_may_be_are_cheap() {
    let entry = |index| Entry::new(Term(1), LogIndex(index), EntryKind::Command, Bytes::new());
    let entries: Arc<[Entry]> = (1..=ITEMS_MAX as u64).map(entry).collect();
    let append = OpenMessage::AppendEntries(AppendEntries {
        term: Term(1),
        prev: LogId::ZERO,
        entries,
        commit: LogIndex(0),
    });
    let all = [
        Frame::Raft(append.into()),
        Frame::Forward(vec![
            Forwarded {
                request: 1,
                data: Bytes::new()
            };
            ITEMS_MAX
        ]),
        Frame::Answers(vec![
            Answer {
                request: 1,
                outcome: ForwardOutcome::Busy
            };
            ITEMS_MAX
        ]),
    ];
    for frame in all {
        let decoded = cheap("empty items", &bytes(&encode(&frame)));
        assert!(decoded == Ok(frame));
    }
}

#[test]
fn what_is_refused_is_refused_cheaply() {
    use FrameKind as K;
    let million: Vec<(u64, u8, &serde_bytes::Bytes)> =
        vec![(1, 0, serde_bytes::Bytes::new(b"")); 1_000_000];
    let text = "\u{7}".repeat(1 << 20);
    let all = [
        (
            "a million empty entries",
            forge(K::AppendEntries, &(1, 1, 1, 1, million)),
            "4096",
        ),
        (
            "a claim of all items",
            raw(K::Forward, &[0xdc, 0x10, 0]),
            "",
        ),
        (
            "a claim of more",
            raw(K::Answers, &[0xdd, 0xff, 0xff, 0xff, 0xff]),
            "4096",
        ),
        (
            "a claim within",
            raw(K::AppendEntries, &[0x95, 1, 1, 1, 1, 0xdc, 0x10, 0]),
            "",
        ),
        (
            "a claim of bytes",
            raw(K::Forward, &[0x91, 0x92, 1, 0xc6, 0xff, 0xff, 0xff, 0xff]),
            "",
        ),
        (
            "a thousand deep",
            raw(K::Answers, &[0x91; 1000]),
            "not a Answers",
        ),
        (
            "a text for a number",
            forge(K::Heartbeat, &(&text, 1, 1)),
            "",
        ),
        (
            "bytes for a list",
            forge(K::Forward, &serde_bytes::Bytes::new(text.as_bytes())),
            "",
        ),
        ("a text for a frame", forge(K::Digest, &text), ""),
    ];
    for (what, frame, says) in all {
        let error = cheap(what, &frame).unwrap_err();
        assert!(error.contains(says), "{what}: {error}");
    }
}

#[test]
fn what_is_said_in_a_refusal_is_cut() {
    let frame = forge(
        FrameKind::Refuse,
        &(200_u8, "x".repeat(1 << 20), serde_bytes::Bytes::new(b"")),
    );
    let raw = decoder(&frame).next_raw().unwrap().unwrap();
    let (peak, refusal) = peak(|| Refusal::decode(&raw).unwrap());
    assert!(peak < 4 << 10, "{peak} bytes");
    assert!(refusal.to_string().len() <= 1024);
}

#[test]
fn a_configuration_of_ten_thousand_nodes_is_refused_cheaply() {
    let mut configuration = vec![1, 0];
    configuration.extend(10_000_u16.to_be_bytes());
    configuration.extend((1..=10_000_u64).flat_map(u64::to_be_bytes));
    configuration.extend([0; 10]);
    let body = (
        7_u64,
        6_u64,
        302_u64,
        serde_bytes::Bytes::new(&configuration),
        serde_bytes::Bytes::new(&[7; 16]),
        1_u64,
        1_u32,
    );
    let frame = forge(FrameKind::SnapshotOffer, &body);
    let raw = decoder(&frame).next_raw().unwrap().unwrap();
    let (peak, decoded) = peak(|| SnapshotFrame::decode(&raw).map(drop));
    assert!(peak <= frame.len() as u64 * FACTOR, "{peak} bytes");
    assert!(
        decoded
            .unwrap_err()
            .to_string()
            .contains("a snapshot's offer")
    );
}

#[test]
fn a_payload_keeps_no_more_alive_than_its_frame() {
    // What else came in the same read is none of its business, much as it may be.
    let beats: Vec<u8> = (0..10_000)
        .flat_map(|_| bytes(&encode(&heartbeat(1))))
        .collect();
    for len in [1, 10 << 10, 64 << 10] {
        let data = Bytes::from(vec![7; len]);
        let short = encode(&Frame::Forward(vec![Forwarded { request: 1, data }]));
        let mut kept = None;
        let cost = measure(|| {
            let mut decoder = FrameDecoder::new(&Limits::default());
            *decoder.buffer_mut() = BytesMut::with_capacity(256 << 10);
            decoder.feed(short.as_bytes());
            decoder.feed(&beats[..(256 << 10) - short.len()]);
            let Ok(Some(Frame::Forward(items))) = decoder.next_frame() else {
                panic!("not what was sent");
            };
            kept = Some(items);
        });
        let bound = (short.len() * 16).max(1024);
        assert!(
            cost.bytes_current <= bound as i64 + 1024,
            "{len}: {} bytes",
            cost.bytes_current
        );
        assert_eq!(kept.unwrap()[0].data.len(), len);
    }
}
