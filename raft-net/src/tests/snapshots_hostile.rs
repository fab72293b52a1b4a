//! Members that send snapshots, or take them, as no working node does.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{LogIndex, NodeId, Term};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::codec::forge;
use super::snapshots::{CHUNK, content, greeted, offer, until};
use super::{Node, ONE, PATIENCE, TWO, encode, heartbeat, limits, local};
use crate::decode::FrameDecoder;
use crate::handshake::read_frame;
use crate::header::FrameKind;
use crate::snapshot::wire::SnapshotFrame;
use crate::{
    Ending, FrameEncoder, Held, Limits, Local, NotTaken, PeerEvent, SNAPSHOT_CHUNK_LEN_MAX,
    SnapshotOffer, TransferError, WhyNotTaken,
};

fn bytes_of(frame: &SnapshotFrame) -> Vec<u8> {
    let mut encoder = FrameEncoder::for_snapshots();
    frame.encode(&mut encoder).unwrap().as_bytes().to_vec()
}

fn offered(bytes: u64) -> Vec<u8> {
    bytes_of(&SnapshotFrame::Offer(offer(bytes)))
}

fn chunk(number: u64, len: u64) -> Vec<u8> {
    let data = Bytes::from(content(0..len));
    bytes_of(&SnapshotFrame::Chunk { number, data })
}

/// An offer as no encoder of ours makes it.
fn forged(change: impl Fn(&mut SnapshotOffer)) -> Vec<u8> {
    let mut offer = offer(10);
    change(&mut offer);
    let snapshot = &offer.message.snapshot;
    let configuration = snapshot.configuration.encode();
    forge(
        FrameKind::SnapshotOffer,
        &(
            offer.message.term.0,
            snapshot.last.term.0,
            snapshot.last.index.0,
            serde_bytes::Bytes::new(&configuration),
            serde_bytes::ByteArray::new(offer.id.to_be_bytes()),
            offer.bytes,
            offer.chunk_bytes,
        ),
    )
}

/// What the receiver says at the end; what it says before is passed over.
async fn verdict(stream: &mut TcpStream) -> Result<(), NotTaken> {
    let mut decoder = FrameDecoder::for_handshake(&limits());
    loop {
        let frame = timeout(PATIENCE, read_frame(stream, &mut decoder)).await;
        match SnapshotFrame::decode(&frame.unwrap().unwrap()).unwrap() {
            SnapshotFrame::Wanted { .. } => {}
            SnapshotFrame::Done(result) => return result,
            other => panic!("{other:?}"),
        }
    }
}

#[actix_rt::test]
async fn what_no_working_sender_sends_is_refused_by_name() {
    use WhyNotTaken as W;
    let (one, two) = (local(ONE), Node::new(local(TWO)));
    let len = CHUNK as u64;
    let both = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let absurd = forged(|offer| offer.bytes = u64::MAX);
    let no_chunks = forged(|offer| offer.chunk_bytes = 0);
    let long_chunks = forged(|offer| offer.chunk_bytes = SNAPSHOT_CHUNK_LEN_MAX as u32 + 1);
    let term = forged(|offer| offer.message.term = Term(1));
    let index = forged(|offer| offer.message.snapshot.last.index = LogIndex(0));
    let nobody =
        forged(|offer| offer.message.snapshot.configuration = Configuration::default().into());
    let garbage = forge(FrameKind::SnapshotOffer, &"what");
    let damaged = {
        let mut bytes = chunk(0, len);
        bytes[100] ^= 1;
        bytes
    };
    let too_long = forge(
        FrameKind::SnapshotChunk,
        &(
            0_u64,
            serde_bytes::Bytes::new(&vec![0; SNAPSHOT_CHUNK_LEN_MAX + 200]),
        ),
    );
    let cases = [
        ("absurd length", absurd, W::TooLarge, 0),
        ("empty chunks", no_chunks, W::Unsound, 0),
        ("long chunks", long_chunks, W::Unsound, 0),
        ("a term before the last entry's", term, W::Unsound, 0),
        ("an index of 0", index, W::Unsound, 0),
        ("a configuration of nobody", nobody, W::Unsound, 0),
        ("no offer", garbage, W::Malformed, 0),
        ("a chunk first", chunk(0, len), W::Malformed, 0),
        (
            "a heartbeat first",
            encode(&heartbeat(1)).as_bytes().to_vec(),
            W::Malformed,
            0,
        ),
        (
            "the wrong chunk",
            both(offered(3 * len), chunk(1, len)),
            W::OutOfOrder,
            1,
        ),
        (
            "a chunk twice",
            both(both(offered(3 * len), chunk(0, len)), chunk(0, len)),
            W::OutOfOrder,
            1,
        ),
        (
            "too few bytes",
            both(offered(3 * len), chunk(0, len - 1)),
            W::WrongLength,
            1,
        ),
        (
            "too many bytes",
            both(offered(3 * len), chunk(0, len + 1)),
            W::WrongLength,
            1,
        ),
        (
            "too many in the last",
            both(offered(10), chunk(0, 11)),
            W::WrongLength,
            1,
        ),
        (
            "a frame that is too long",
            both(offered(3 * len), too_long),
            W::Malformed,
            1,
        ),
        (
            "a damaged chunk",
            both(offered(3 * len), damaged),
            W::Malformed,
            1,
        ),
        (
            "an offer twice",
            both(offered(3 * len), offered(3 * len)),
            W::Malformed,
            1,
        ),
        (
            "bytes behind the end",
            both(offered(10), both(chunk(0, 10), chunk(1, 1))),
            W::Trailing,
            1,
        ),
        (
            "a byte behind the end",
            both(offered(10), both(chunk(0, 10), vec![0])),
            W::Trailing,
            1,
        ),
    ];
    let mut begun = 0;
    for (name, bytes, expected, sinks) in cases {
        let counted = |stats: &crate::ReceptionStats| {
            let counted = stats.not_taken.get(&expected.number());
            counted.copied().unwrap_or_default()
        };
        let before = counted(&two.receptions().await);
        let mut stream = greeted(&one, &two).await;
        stream.write_all(&bytes).await.unwrap();
        let refused = verdict(&mut stream).await.unwrap_err();
        assert_eq!(refused.why, expected, "{name}: {refused}");
        begun += sinks;
        let folder = &two.folder;
        assert_eq!(folder.begun.load(Ordering::SeqCst), begun, "{name}");
        assert_eq!(folder.abandoned.load(Ordering::SeqCst), begun, "{name}");
        assert_eq!(counted(&two.receptions().await), before + 1, "{name}");
    }
    assert!(two.folder.finished.lock().unwrap().is_empty());
    // A working one is served all the same.
    let mut stream = greeted(&one, &two).await;
    let good = both(offered(10), chunk(0, 10));
    stream.write_all(&good).await.unwrap();
    verdict(&mut stream).await.unwrap();
}

fn hasty() -> Limits {
    Limits {
        stall_timeout: Duration::from_millis(200),
        snapshot_chunk_timeout: Duration::from_millis(300),
        snapshot_finish_timeout: Duration::from_millis(300),
        ..limits()
    }
}

#[actix_rt::test]
async fn a_sender_that_stops_or_trickles_is_given_up_on_and_may_come_back() {
    let mut one = Node::new(local(ONE));
    let two = Node::with(local(TWO), hasty());
    let begin = [offered(10 * CHUNK as u64), chunk(0, CHUNK as u64)].concat();

    let mut silent = greeted(&one.local, &two).await;
    silent.write_all(&begin).await.unwrap();
    let slow = verdict(&mut silent).await.unwrap_err();
    assert_eq!(slow.why, WhyNotTaken::Slow);

    // One byte at a time is progress, but not enough.
    let mut trickling = greeted(&one.local, &two).await;
    let again = offered(10 * CHUNK as u64);
    trickling.write_all(&again).await.unwrap();
    let start = Instant::now();
    for byte in chunk(1, CHUNK as u64) {
        if trickling.write_all(&[byte]).await.is_err() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it is read for ever");
        sleep(Duration::from_millis(20)).await;
    }
    let stats = two.receptions().await;
    assert_eq!(
        stats.not_taken.get(&WhyNotTaken::Slow.number()),
        Some(&2),
        "{stats:?}"
    );
    let sender = one.snapshots();
    one.offers(&sender, TWO, two.address, 10 * CHUNK as u64);
    one.ended().await.unwrap();
    let stats = two.receptions().await;
    assert_eq!((stats.resumed, stats.chunks), (2, 10));
}

/// Node 2, by hand: accepts one connection, and answers its greeting and its offer.
async fn by_hand(socket: &TcpListener, local: &Local, wanted: u64) -> TcpStream {
    let (mut stream, _) = socket.accept().await.unwrap();
    let mut decoder = FrameDecoder::new(&limits());
    let hello = read_frame(&mut stream, &mut decoder).await.unwrap();
    assert_eq!(hello.kind, FrameKind::SnapshotHello);
    let welcome = local.introduction(ONE);
    let welcome = welcome.encode(FrameKind::Welcome, &limits()).unwrap();
    stream.write_all(welcome.as_bytes()).await.unwrap();
    let confirm = read_frame(&mut stream, &mut decoder).await.unwrap();
    assert_eq!(confirm.kind, FrameKind::Confirm);
    let offer = read_frame(&mut stream, &mut decoder).await.unwrap();
    assert_eq!(offer.kind, FrameKind::SnapshotOffer);
    let wanted = bytes_of(&SnapshotFrame::Wanted { from: wanted });
    stream.write_all(&wanted).await.unwrap();
    stream
}

#[actix_rt::test]
async fn a_receiver_that_stops_reading_or_answering_is_given_up_on() {
    let mut one = Node::with(local(ONE), hasty());
    let (two, socket) = (local(TWO), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    let sender = one.snapshots();

    one.offers(&sender, TWO, address, 64 << 20);
    let _reads_nothing = by_hand(&socket, &two, 0).await;
    let stalled = one.ended().await;
    assert!(
        matches!(stalled, Err(TransferError::Lost(_))),
        "{stalled:?}"
    );

    one.offers(&sender, TWO, address, 10);
    let _answers_nothing = by_hand(&socket, &two, 0).await;
    let silent = one.ended().await;
    assert!(
        matches!(silent, Err(TransferError::Lost(Ending::Stalled(_)))),
        "{silent:?}"
    );

    // Nobody says anything at all.
    one.offers(&sender, TWO, address, 10);
    let (_mute, _) = socket.accept().await.unwrap();
    let limit = Duration::from_millis(100);
    assert!(timeout(limit, one.sent.recv()).await.is_err());
    sender.stop();
    assert!(matches!(one.ended().await, Err(TransferError::Stopped)));
}

#[actix_rt::test]
async fn a_receiver_that_talks_nonsense_ends_the_transfer() {
    let mut one = Node::new(local(ONE));
    let (two, socket) = (local(TWO), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    let sender = one.snapshots();
    one.offers(&sender, TWO, address, 10);
    let _beyond = by_hand(&socket, &two, 2).await;
    let beyond = one.ended().await;
    assert!(
        matches!(beyond, Err(TransferError::Lost(Ending::Malformed(_)))),
        "{beyond:?}"
    );
    // It has come before it was sent.
    one.offers(&sender, TWO, address, 64 << 20);
    let mut early = by_hand(&socket, &two, 0).await;
    let arrived = bytes_of(&SnapshotFrame::Done(Ok(())));
    early.write_all(&arrived).await.unwrap();
    let early = one.ended().await;
    assert!(
        matches!(early, Err(TransferError::Lost(Ending::Malformed(_)))),
        "{early:?}"
    );
}

#[actix_rt::test]
async fn a_snapshot_connection_is_judged_as_any_other_and_ended_with_its_process() {
    let (mut one, mut two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    two.folder.write_ms.store(10, Ordering::SeqCst);
    two.local.set_members(super::born(), NodeId(9));
    let stranger = {
        let members = super::listing([ONE, TWO, NodeId(9)]);
        let held = Held::default();
        Local::new(
            NodeId(9),
            super::folder(NodeId(9)),
            1,
            Some(super::CLUSTER),
            members,
            held,
        )
    };
    let mut nine = Node::new(stranger);
    let strange = nine.snapshots();
    nine.offers(&strange, TWO, two.address, 10);
    assert!(matches!(nine.ended().await, Err(TransferError::Refused(_))));
    let turned = two.event(|event| match event {
        PeerEvent::Turned { peer, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!(turned.await, Some(NodeId(9)));

    let sender = one.snapshots();
    one.offers(&sender, TWO, two.address, 8 << 20);
    until("it runs", || two.folder.chunks.load(Ordering::SeqCst) > 1).await;
    // A later start of node 1 ends what the earlier one sends.
    let later = Local::new(
        ONE,
        super::folder(ONE),
        2,
        Some(super::CLUSTER),
        super::born(),
        Held::default(),
    );
    let mut later = Node::new(later);
    let _to_two = later.dial(TWO, two.address);
    later.connected(TWO).await;
    let ended = one.ended().await;
    assert!(matches!(ended, Err(TransferError::Lost(_))), "{ended:?}");
}
