//! Frames that are handed over within the process: their bounds, their order, and what becomes of them when a connection
//! ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use raft_core::{AppendEntries, Entry, EntryKind, LogId, LogIndex, NodeId, OpenMessage, Term};

use super::{Node, ONE, PATIENCE, TWO, bulk, commit, heartbeat, limits, local};
use crate::check::check;
use crate::decode::NUMBER_MAX;
use crate::{
    Answer, EncodeError, ForwardOutcome, Forwarded, Frame, FrameDecoder, FrameEncoder, ITEMS_MAX,
    Limits, Listener, MANAGE_LEN_MAX, MANAGED_LEN_MAX, NotApplied, PeerEvent, PeerSender,
    PeerStats, REASON_LEN_MAX, SendError,
};

/// Two nodes of which the first, with these limits, has dialled the second there, on both lanes.
async fn two_nodes(address: &str, of_one: Limits) -> (Node, Node, PeerSender) {
    let mut one = Node::with(local(ONE), of_one);
    let bound = Listener::bind(address).unwrap();
    let two = Node::with_listener(local(TWO), limits(), bound);
    one.local.list(TWO, address);
    let to_two = one.dial_where_it_is(TWO);
    one.connected(TWO).await;
    until(&to_two, "both lanes", |stats| stats.urgent_connected).await;
    (one, two, to_two)
}

async fn until(to: &PeerSender, what: &str, wanted: impl Fn(&PeerStats) -> bool) {
    let since = Instant::now();
    while !wanted(&to.stats()) {
        assert!(since.elapsed() < PATIENCE, "{what}: {:?}", to.stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn send(to: &PeerSender, frame: Frame) -> Result<(), SendError> {
    let mut encoder = FrameEncoder::new(&limits());
    to.try_send(encoder.encode_for(to, frame).unwrap())
}

/// Sends one that is taken and not handled, so that what is sent after it waits.
async fn stick(to: &PeerSender, two: &mut Node) -> tokio::sync::OwnedSemaphorePermit {
    let held = two.hold().await;
    send(to, commit(1)).unwrap();
    assert_eq!(two.batch().await.frames, [commit(1)]);
    held
}

#[actix_rt::test]
async fn a_queue_is_full_of_frames_while_the_other_side_takes_none() {
    const FRAMES: usize = 8;
    let narrow = Limits {
        queue_frames_max: FRAMES,
        urgent_frames_max: 2,
        ..limits()
    };
    let (_one, mut two, to_two) = two_nodes("memory/frames:2", narrow).await;
    let held = stick(&to_two, &mut two).await;
    for term in 2..10 {
        send(&to_two, commit(term)).unwrap();
    }
    let full = send(&to_two, commit(10)).unwrap_err();
    assert!(
        matches!(
            full,
            SendError::Full {
                peer: TWO,
                frames: FRAMES,
                ..
            }
        ),
        "{full:?}"
    );
    // Its urgent lane has room of its own; there the first is taken, and waits for the other lane's batch.
    send(&to_two, heartbeat(1)).unwrap();
    assert_eq!(two.batch().await.frames, [heartbeat(1)]);
    for term in [2, 3] {
        send(&to_two, heartbeat(term)).unwrap();
    }
    let full = send(&to_two, heartbeat(4)).unwrap_err();
    assert!(
        matches!(full, SendError::Full { frames: 2, .. }),
        "{full:?}"
    );
    let stats = to_two.stats();
    assert_eq!((stats.queued_frames, stats.dropped_full), (FRAMES + 2, 2));
    assert_eq!((stats.frames, stats.urgent_frames), (2, 1));
    drop(held);
    let mut came = Vec::new();
    while came.len() < FRAMES + 2 {
        came.extend(two.batch().await.frames);
    }
    let is_urgent = |frame: &Frame| [heartbeat(2), heartbeat(3)].contains(frame);
    let (urgent, others): (Vec<_>, Vec<_>) = came.into_iter().partition(is_urgent);
    assert_eq!(urgent, [2, 3].map(heartbeat));
    assert!(others.into_iter().eq((2..10).map(commit)));
    let stats = to_two.stats();
    assert_eq!((stats.queued_frames, stats.queued_bytes), (0, 0));
    send(&to_two, commit(11)).unwrap();
    assert_eq!(two.batch().await.frames, [commit(11)]);
}

#[actix_rt::test]
async fn a_queue_is_full_of_bytes_while_the_other_side_takes_none() {
    const BYTES: usize = 1 << 20;
    let narrow = Limits {
        queue_bytes_max: BYTES,
        ..limits()
    };
    let (_one, mut two, to_two) = two_nodes("memory/bytes:2", narrow).await;
    let held = stick(&to_two, &mut two).await;
    let mut sent = 0;
    let full = loop {
        match send(&to_two, bulk(100 << 10)) {
            Ok(()) => sent += 1,
            Err(full) => break full,
        }
    };
    assert_eq!(sent, 10);
    assert!(
        matches!(full, SendError::Full { frames: 10, .. }),
        "{full:?}"
    );
    let stats = to_two.stats();
    assert!(
        (1000 << 10..=BYTES).contains(&stats.queued_bytes),
        "{stats:?}"
    );
    let never = send(&to_two, bulk(BYTES)).unwrap_err();
    assert!(matches!(never, SendError::TooLarge { .. }), "{never:?}");
    drop(held);
    until(&to_two, "all taken", |stats| stats.queued_frames == 0).await;
    let stats = to_two.stats();
    assert_eq!((stats.queued_bytes, stats.frames), (0, 11));
    assert!((1000 << 10..=BYTES).contains(&stats.queued_bytes_max));
    send(&to_two, bulk(100 << 10)).unwrap();
}

#[actix_rt::test]
async fn what_was_said_before_the_end_arrives_on_both_lanes_and_before_its_news() {
    let (_one, mut two, to_two) = two_nodes("memory/last-words:2", limits()).await;
    let held = stick(&to_two, &mut two).await;
    for term in 2..1000 {
        send(&to_two, commit(term)).unwrap();
    }
    send(&to_two, heartbeat(1)).unwrap();
    assert_eq!(two.batch().await.frames, [heartbeat(1)]);
    send(&to_two, heartbeat(2)).unwrap();
    to_two.stop();
    to_two.stopped().await;
    let stats = to_two.stats();
    assert!(!stats.connected);
    assert_eq!(stats.dropped_lost, 999, "what waited then counts as lost");
    drop(held);
    two.event(|event| matches!(event, PeerEvent::Closed { peer: ONE, .. }).then_some(()))
        .await;
    let (mut main, mut urgent) = (Vec::new(), Vec::new());
    while let Ok(batch) = two.inbound.try_recv() {
        let of_main = |frame: &Frame| *frame != heartbeat(2);
        let (came, last): (Vec<_>, Vec<_>) = batch.frames.into_iter().partition(of_main);
        main.extend(came);
        urgent.extend(last);
    }
    assert_eq!(urgent, [heartbeat(2)]);
    assert!(main.into_iter().eq((2..1000).map(commit)));
    let stats = to_two.stats();
    assert_eq!((stats.queued_frames, stats.dropped_lost), (0, 999));
}

#[actix_rt::test]
async fn a_flood_of_frames_keeps_no_ping_waiting() {
    let hasty = Limits {
        ping_interval: Duration::from_millis(20),
        idle_timeout: Duration::from_millis(500),
        ..limits()
    };
    let (_one, mut two, to_two) = two_nodes("memory/flood:2", hasty).await;
    let since = Instant::now();
    let mut term = 0;
    // The main lane never has nothing to take, and the urgent one stays idle.
    while since.elapsed() < Duration::from_secs(2) {
        term += 1;
        if send(&to_two, commit(term)).is_err() {
            tokio::task::yield_now().await;
        }
        while two.inbound.try_recv().is_ok() {}
    }
    let stats = to_two.stats();
    assert_eq!((stats.connects, stats.urgent_connects), (1, 1));
    assert!(stats.frames > 1000, "{stats:?}");
    assert!(stats.round_trip.is_some());
}

fn payload(lengths: impl Strategy<Value = usize>) -> impl Strategy<Value = Bytes> {
    lengths.prop_map(|len| Bytes::from(vec![b'x'; len]))
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0_u64..300,
        2 => NUMBER_MAX - 2..=NUMBER_MAX,
        1 => NUMBER_MAX + 1..=NUMBER_MAX + 2,
        1 => Just(u64::MAX),
    ]
}

fn outcome() -> impl Strategy<Value = ForwardOutcome> {
    let place = || (number().prop_map(LogIndex), number().prop_map(Term));
    let reason = || {
        let long = REASON_LEN_MAX - 1..REASON_LEN_MAX + 2;
        prop_oneof![
            payload(0_usize..20),
            payload(long),
            Just(Bytes::from_static(b"\xff"))
        ]
    };
    prop_oneof![
        (place(), payload(0_usize..400)).prop_map(|((index, term), response)| {
            ForwardOutcome::Committed {
                index,
                term,
                response,
            }
        }),
        (place(), reason()).prop_map(|((index, term), reason)| {
            ForwardOutcome::Refused {
                index,
                term,
                reason,
            }
        }),
        place().prop_map(|(index, term)| ForwardOutcome::NotApplied {
            why: NotApplied::Cancelled { index, term },
        }),
        place().prop_map(|(index, term)| ForwardOutcome::NotApplied {
            why: NotApplied::AnswerForgotten { index, term },
        }),
        any::<Option<u64>>().prop_map(|leader| ForwardOutcome::NotLeader {
            leader: leader.map(NodeId),
        }),
        any::<u64>().prop_map(|max| ForwardOutcome::TooLarge { max }),
        Just(ForwardOutcome::Busy),
    ]
}

/// Entries that mostly follow each other, behind `prev`.
fn append() -> impl Strategy<Value = Frame> {
    let entry = (0_u64..2, 0_u64..40, payload(0_usize..300))
        .prop_map(|(rise, gap, data)| (rise, u64::from(gap == 0), data));
    let entries = prop::collection::vec(entry, 0..12);
    (number(), number(), number(), 0_u64..12, entries).prop_map(
        |(prev_term, prev_index, commit, above, entries)| {
            let (mut term, mut index) = (prev_term, prev_index);
            let entries: Arc<[Entry]> = entries
                .into_iter()
                .map(|(rise, gap, data)| {
                    term = term.saturating_add(rise);
                    index = index.saturating_add(1 + gap);
                    Entry::new(Term(term), LogIndex(index), EntryKind::Command, data)
                })
                .collect();
            let message = AppendEntries {
                term: Term(prev_term.saturating_add(above)),
                prev: LogId::new(Term(prev_term), LogIndex(prev_index)),
                entries,
                commit: LogIndex(commit),
            };
            Frame::Raft(OpenMessage::AppendEntries(message).into())
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let forwarded = || {
        let item = (any::<u64>(), payload(0_usize..600));
        item.prop_map(|(request, data)| Forwarded { request, data })
    };
    let answer = (any::<u64>(), outcome());
    let answer = answer.prop_map(|(request, outcome)| Answer { request, outcome });
    let short = Forwarded {
        request: u64::MAX,
        data: Bytes::new(),
    };
    prop_oneof![
        prop::collection::vec(forwarded(), 0..8).prop_map(Frame::Forward),
        (ITEMS_MAX - 1..ITEMS_MAX + 2)
            .prop_map(move |items| Frame::Forward(vec![short.clone(); items])),
        prop::collection::vec(answer, 0..12).prop_map(Frame::Answers),
        append(),
        (
            any::<u64>(),
            payload(MANAGE_LEN_MAX - 2..MANAGE_LEN_MAX + 3)
        )
            .prop_map(|(request, data)| Frame::Manage { request, data }),
        (
            any::<u64>(),
            payload(MANAGED_LEN_MAX - 2..MANAGED_LEN_MAX + 3)
        )
            .prop_map(|(request, data)| Frame::Managed { request, data }),
        (number().prop_map(LogIndex), any::<u128>(), any::<bool>()).prop_map(
            |(index, digest, announced)| Frame::Digest {
                index,
                digest,
                announced
            }
        ),
        number().prop_map(heartbeat),
    ]
}

proptest! {
    /// What is handed over within the process is what would be taken over a wire, and never less: what is checked there by
    /// the length of its bytes is estimated here, by no more than each item's share.
    #[test]
    fn what_is_handed_over_is_what_a_wire_would_take(
        frame in frame(),
        frame_len_max in prop_oneof![500_usize..4000, Just(300_000), Just(8 << 20)],
    ) {
        let limits = Limits { frame_len_max, ..Limits::default() };
        let encoded = FrameEncoder::new(&limits).encode(&frame);
        match (check(&frame, frame_len_max), encoded) {
            (Ok(content), Ok(encoded)) => {
                prop_assert!(content.len_max() >= encoded.len());
                prop_assert_eq!(content.kind.is_urgent(), encoded.is_urgent());
                let mut decoder = FrameDecoder::new(&limits);
                decoder.feed(encoded.as_bytes());
                prop_assert_eq!(decoder.next_frame().unwrap(), Some(frame));
            }
            (Ok(content), Err(EncodeError::TooLong { len, max })) => {
                prop_assert!(len > max && content.len_max() >= len);
            }
            (Err(here), Err(there)) => prop_assert_eq!(here.to_string(), there.to_string()),
            (here, there) => prop_assert!(false, "{:?}, but {:?}", here, there),
        }
    }
}
