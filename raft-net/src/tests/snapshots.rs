//! Snapshots between nodes that mean well, over a network that may not.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{
    Incarnation, InstallSnapshot, LogId, LogIndex, Message, NodeId, OpenMessage, SnapshotMeta, Term,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::{CLUSTER, Node, ONE, PATIENCE, THREE, TWO, encode, heartbeat, limits, local};
use crate::random::random_u64;
use crate::{
    ChunkSink, ChunkSource, Frame, GetListenerStats, Held, Limits, Local, NotTaken, PeerEvent,
    ReceptionStats, Refusal, SnapshotOffer, SnapshotReceiver, SnapshotSender, Stop, TransferError,
    WhyNotTaken,
};

pub(super) const CHUNK: usize = 64 << 10;

/// Where a test's snapshots go, and what became of them.
#[derive(Default)]
pub(super) struct Folder {
    pub(super) finished: Mutex<Vec<Vec<u8>>>,
    pub(super) begun: AtomicU64,
    /// Sinks that were dropped unfinished.
    pub(super) abandoned: AtomicU64,
    pub(super) chunks: AtomicU64,
    /// How long a write takes.
    pub(super) write_ms: AtomicU64,
    refuses: AtomicBool,
    of_no_use: AtomicBool,
    fails_at: AtomicU64,
    panics: AtomicBool,
}

impl Folder {
    pub(super) fn is_of_use(&self) -> bool {
        !self.of_no_use.load(Ordering::SeqCst)
    }
}

struct MemorySink {
    folder: Arc<Folder>,
    content: Vec<u8>,
    finished: bool,
}

/// A [`Folder`], as a listener has it.
pub(super) struct Shared(pub(super) Arc<Folder>);

impl SnapshotReceiver for Shared {
    fn begin(&self, _: NodeId, _: &SnapshotOffer) -> Result<Box<dyn ChunkSink>, String> {
        let Self(folder) = self;
        if folder.refuses.load(Ordering::SeqCst) {
            return Err("no room".to_owned());
        }
        folder.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MemorySink {
            folder: Arc::clone(folder),
            content: Vec::new(),
            finished: false,
        }))
    }
}

impl ChunkSink for MemorySink {
    fn write(&mut self, chunk: &Bytes) -> Result<(), String> {
        let folder = &self.folder;
        assert!(!folder.panics.load(Ordering::SeqCst), "on purpose");
        let chunks = folder.chunks.fetch_add(1, Ordering::SeqCst) + 1;
        if chunks == folder.fails_at.load(Ordering::SeqCst) {
            return Err("the disk is full".to_owned());
        }
        std::thread::sleep(Duration::from_millis(
            folder.write_ms.load(Ordering::SeqCst),
        ));
        self.content.extend_from_slice(chunk);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        let content = std::mem::take(&mut self.content);
        self.folder.finished.lock().unwrap().push(content);
        self.finished = true;
        Ok(())
    }
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        if !self.finished {
            self.folder.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What a source has handed out.
#[derive(Default)]
pub(super) struct Handed {
    chunks: AtomicU64,
    /// Bytes that it handed out and that still live, and the most that ever did.
    live: AtomicI64,
    peak: AtomicI64,
    dropped: AtomicBool,
}

/// Bytes that count themselves.
struct Counted(Vec<u8>, Arc<Handed>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.live.fetch_sub(self.0.len() as i64, Ordering::SeqCst);
    }
}

pub(super) struct TestSource {
    bytes: u64,
    handed: Arc<Handed>,
    panics_at: Option<u64>,
}

impl Drop for TestSource {
    fn drop(&mut self) {
        self.handed.dropped.store(true, Ordering::SeqCst);
    }
}

/// The content of every test's snapshot: no two places within one are alike.
pub(super) fn content(range: Range<u64>) -> Vec<u8> {
    range
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

impl ChunkSource for TestSource {
    fn chunk(&mut self, number: u64) -> Result<Bytes, String> {
        assert_ne!(self.panics_at, Some(number), "on purpose");
        let start = number * CHUNK as u64;
        let chunk = content(start..(start + CHUNK as u64).min(self.bytes));
        self.handed.chunks.fetch_add(1, Ordering::SeqCst);
        let len = chunk.len() as i64;
        let live = self.handed.live.fetch_add(len, Ordering::SeqCst) + len;
        self.handed.peak.fetch_max(live, Ordering::SeqCst);
        let counted = Counted(chunk, Arc::clone(&self.handed));
        Ok(Bytes::from_owner(counted))
    }
}

pub(super) fn offer(bytes: u64) -> SnapshotOffer {
    let last = LogId::new(Term(2), LogIndex(300));
    let configuration = Configuration::of([ONE, TWO, THREE]);
    SnapshotOffer {
        message: InstallSnapshot {
            term: Term(3),
            snapshot: SnapshotMeta {
                last,
                configuration: Arc::new(configuration),
            },
        },
        id: 77,
        bytes,
        chunk_bytes: CHUNK as u32,
    }
}

impl Node {
    /// Begins a transfer to `peer`; what is handed out is counted.
    pub(super) fn offers(
        &self,
        sender: &SnapshotSender,
        peer: NodeId,
        address: impl ToString,
        bytes: u64,
    ) -> Arc<Handed> {
        let handed = Arc::new(Handed::default());
        let source = TestSource {
            bytes,
            handed: Arc::clone(&handed),
            panics_at: None,
        };
        let told = self.sink.clone().recipient();
        sender.send(
            peer,
            address.to_string(),
            offer(bytes),
            Box::new(source),
            told,
        );
        handed
    }

    /// How the next transfer ended.
    pub(super) async fn ended(&mut self) -> Result<(), TransferError> {
        let told = timeout(PATIENCE, self.sent.recv()).await;
        told.expect("it is told").expect("the sink lives").arrived
    }

    pub(super) async fn receptions(&self) -> ReceptionStats {
        let stats = self.listener.send(GetListenerStats).await.unwrap();
        stats.snapshots
    }

    pub(super) fn snapshots(&self) -> SnapshotSender {
        SnapshotSender::new(self.local.clone(), &self.limits)
    }
}

pub(super) async fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

fn not_taken(result: Result<(), TransferError>) -> NotTaken {
    match result {
        Err(TransferError::NotTaken(not_taken)) => not_taken,
        other => panic!("{other:?}"),
    }
}

/// Passes bytes on to `to`, for each connection so many as the next of `lens` says, and then resets it.
async fn proxy(to: SocketAddr, lens: Vec<usize>) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    actix_rt::spawn(async move {
        let mut lens = lens.into_iter();
        while let Ok((mut near, _)) = socket.accept().await {
            let len = lens.next().unwrap_or(usize::MAX);
            let mut far = TcpStream::connect(to).await.unwrap();
            let (mut near_read, mut near_write) = near.split();
            let (mut far_read, mut far_write) = far.split();
            let mut limited = (&mut near_read).take(len as u64);
            tokio::select! {
                _ = tokio::io::copy(&mut limited, &mut far_write) => {}
                _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
            }
        }
    });
    address
}

#[actix_rt::test]
async fn a_snapshot_arrives_byte_for_byte_while_frames_go_on_beside_it() {
    const BYTES: u64 = (20 << 20) + 17;
    let (mut one, mut two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    // All that the disk takes is time in which a heartbeat must not wait.
    two.folder.write_ms.store(12, Ordering::SeqCst);
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    two.event(|event| matches!(event, PeerEvent::Accepted { .. }).then_some(()))
        .await;
    let sender = one.snapshots();
    let handed = one.offers(&sender, TWO, two.address, BYTES);
    let mut late = Vec::new();
    let ended = loop {
        let before = Instant::now();
        to_two
            .try_send(encode(&heartbeat(1 + late.len() as u64)))
            .unwrap();
        let Frame::Raft(Message::Open(OpenMessage::Heartbeat(heard))) =
            &two.batch().await.frames[0]
        else {
            panic!("not what was sent");
        };
        late.push(before.elapsed());
        assert_eq!(heard.term, Term(late.len() as u64));
        if let Ok(sent) = one.sent.try_recv() {
            break sent;
        }
        sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(ended.to, TWO);
    ended.arrived.unwrap();
    assert!(two.folder.finished.lock().unwrap()[..] == [content(0..BYTES)]);
    let arrived = two.arrived.try_recv().unwrap();
    let expected = (ONE, 1, offer(BYTES).message);
    assert_eq!((arrived.from, arrived.starts, arrived.message), expected);
    late.sort();
    let median = late[late.len() / 2];
    assert!(late.len() > 50, "only {} heartbeats", late.len());
    assert!(
        median < Duration::from_millis(10),
        "half took more than {median:?}"
    );
    // The ordinary connection is the one that it was, and nobody was told of another.
    assert_eq!(to_two.stats().connects, 1);
    assert!(one.events.try_recv().is_err() && two.events.try_recv().is_err());
    assert!(handed.peak.load(Ordering::SeqCst) <= CHUNK as i64);
    assert!(handed.dropped.load(Ordering::SeqCst));
    let stats = two.receptions().await;
    let expected = ReceptionStats {
        offered: 1,
        chunks: BYTES.div_ceil(CHUNK as u64),
        bytes: BYTES,
        arrived: 1,
        ..ReceptionStats::default()
    };
    assert_eq!(stats, expected);
}

#[actix_rt::test]
async fn what_broke_off_goes_on_where_it_was() {
    const BYTES: u64 = (4 << 20) + 1;
    const BREAKS: usize = 8;
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let seed = random_u64();
    let len = |i: u64| (seed >> (i * 7)) as usize % (400 << 10) + 1000;
    let lens: Vec<_> = (0..BREAKS as u64).map(len).collect();
    let address = proxy(two.address, lens.clone()).await;
    let sender = one.snapshots();
    let mut handed_out = 0;
    for broken in 0..=BREAKS {
        let handed = one.offers(&sender, TWO, address, BYTES);
        let result = one.ended().await;
        handed_out += handed.chunks.load(Ordering::SeqCst);
        match result {
            Err(TransferError::Lost(_)) if broken < BREAKS => {}
            Ok(()) if broken == BREAKS => {}
            other => panic!("{other:?} after {broken} breaks; {lens:?}"),
        }
        // The receiver may see the end later than the sender.
        let start = Instant::now();
        while two.receptions().await.broken < (broken + 1).min(BREAKS) as u64 {
            assert!(start.elapsed() < PATIENCE);
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(two.folder.finished.lock().unwrap()[..] == [content(0..BYTES)]);
    let (stats, chunks) = (two.receptions().await, BYTES.div_ceil(CHUNK as u64));
    // Each came once, though more were sent: what was on its way was lost.
    assert_eq!((stats.chunks, stats.bytes), (chunks, BYTES), "{lens:?}");
    assert_eq!((stats.resumed, stats.offered), (BREAKS as u64, 9));
    assert_eq!(two.folder.begun.load(Ordering::SeqCst), 1);
    assert!(handed_out < chunks * BREAKS as u64, "{handed_out} chunks");
}

#[actix_rt::test]
async fn only_the_same_file_goes_on_and_what_is_kept_is_not_kept_for_ever() {
    let brief = Limits {
        snapshot_kept_timeout: Duration::from_millis(200),
        ..limits()
    };
    let mut one = Node::new(local(ONE));
    let two = Node::with(local(TWO), brief);
    let broken = vec![300 << 10, 300 << 10];
    let address = proxy(two.address, broken).await;
    let sender = one.snapshots();
    one.offers(&sender, TWO, address, 1 << 20);
    one.ended().await.unwrap_err();
    until("it is kept", || {
        two.folder.chunks.load(Ordering::SeqCst) > 0
    })
    .await;
    // As many bytes less, another file.
    one.offers(&sender, TWO, address, (1 << 20) - 1);
    one.ended().await.unwrap_err();
    until("the first is dropped for the second", || {
        two.folder.abandoned.load(Ordering::SeqCst) >= 1
    })
    .await;
    until("the second is dropped in time", || {
        two.folder.abandoned.load(Ordering::SeqCst) == 2
    })
    .await;
    one.offers(&sender, TWO, address, 1 << 20);
    one.ended().await.unwrap();
    let stats = two.receptions().await;
    assert_eq!((stats.resumed, stats.arrived), (0, 1));
    assert_eq!(two.folder.begun.load(Ordering::SeqCst), 3);
}

#[actix_rt::test]
async fn whoever_does_not_take_it_says_why() {
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let sender = one.snapshots();
    let folder = Arc::clone(&two.folder);
    let set = |flag: &AtomicBool, on| flag.store(on, Ordering::SeqCst);

    set(&folder.refuses, true);
    one.offers(&sender, TWO, two.address, 1 << 20);
    let refused = not_taken(one.ended().await);
    assert_eq!(refused.why, WhyNotTaken::Failed);
    assert_eq!(refused.to_string(), "it could not be kept: no room");
    set(&folder.refuses, false);

    // Much is on its way when the disk is full.
    folder.fails_at.store(3, Ordering::SeqCst);
    one.offers(&sender, TWO, two.address, 64 << 20);
    let full = not_taken(one.ended().await);
    assert_eq!(full.to_string(), "it could not be kept: the disk is full");
    assert_eq!(folder.abandoned.load(Ordering::SeqCst), 1);

    set(&folder.of_no_use, true);
    one.offers(&sender, TWO, two.address, 10);
    assert_eq!(not_taken(one.ended().await).why, WhyNotTaken::Unwanted);
    set(&folder.of_no_use, false);

    // Nothing at all is a snapshot too.
    one.offers(&sender, TWO, two.address, 0);
    one.ended().await.unwrap();

    one.offers(&sender, THREE, two.address, 10);
    let other = one.ended().await;
    assert!(matches!(
        other,
        Err(TransferError::Refused(Refusal::NotMe {
            asked: THREE,
            am: TWO
        }))
    ));
    two.listener.send(Stop).await.unwrap();
    one.offers(&sender, TWO, two.address, 10);
    assert!(matches!(
        one.ended().await,
        Err(TransferError::Unreachable(_))
    ));
}

#[actix_rt::test]
async fn two_come_in_at_once_and_a_third_is_told_that_it_is_too_much() {
    let four = NodeId(4);
    let members = |of| {
        let members = super::listing([ONE, TWO, THREE, four]);
        Local::new(
            of,
            Incarnation(of.0.into()),
            1,
            Some(CLUSTER),
            members,
            Held::default(),
        )
    };
    let mut one = Node::new(members(ONE));
    let two = Node::new(members(TWO));
    let (mut three, mut four) = (Node::new(members(THREE)), Node::new(members(four)));
    two.folder.write_ms.store(20, Ordering::SeqCst);
    let senders = [one.snapshots(), three.snapshots(), four.snapshots()];
    one.offers(&senders[0], TWO, two.address, 2 << 20);
    three.offers(&senders[1], TWO, two.address, (2 << 20) - 1);
    until("both have begun", || {
        two.folder.begun.load(Ordering::SeqCst) == 2
    })
    .await;
    four.offers(&senders[2], TWO, two.address, 10);
    assert_eq!(not_taken(four.ended().await).why, WhyNotTaken::Busy);
    one.ended().await.unwrap();
    three.ended().await.unwrap();
    four.offers(&senders[2], TWO, two.address, 10);
    four.ended().await.unwrap();
    let mut finished = two.folder.finished.lock().unwrap().clone();
    finished.sort_by_key(Vec::len);
    assert!(finished == [10, (2 << 20) - 1, 2 << 20].map(|len| content(0..len)));
}

#[actix_rt::test]
async fn a_newer_transfer_of_the_same_peer_goes_on_with_the_older_one() {
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    two.folder.write_ms.store(10, Ordering::SeqCst);
    let sender = one.snapshots();
    one.offers(&sender, TWO, two.address, 2 << 20);
    until("it runs", || two.folder.chunks.load(Ordering::SeqCst) > 3).await;
    one.offers(&sender, TWO, two.address, 2 << 20);
    one.ended().await.unwrap_err();
    one.ended().await.unwrap();
    let stats = two.receptions().await;
    assert_eq!((stats.resumed, stats.chunks), (1, 32));
    assert!(two.folder.finished.lock().unwrap()[..] == [content(0..2 << 20)]);
}

#[actix_rt::test]
async fn a_slow_disk_holds_up_the_sender_and_no_memory() {
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    two.folder.write_ms.store(300, Ordering::SeqCst);
    let sender = one.snapshots();
    let handed = one.offers(&sender, TWO, two.address, 256 << 20);
    let mut before = u64::MAX;
    loop {
        sleep(Duration::from_millis(100)).await;
        let now = handed.chunks.load(Ordering::SeqCst);
        if now > 0 && now == std::mem::replace(&mut before, now) {
            break;
        }
    }
    let sent = handed.chunks.load(Ordering::SeqCst) * CHUNK as u64;
    assert!(sent < 32 << 20, "{sent} bytes are on their way");
    assert!(handed.peak.load(Ordering::SeqCst) <= CHUNK as i64);
    sender.stop();
    sender.stopped().await;
    assert!(matches!(one.ended().await, Err(TransferError::Stopped)));
    assert!(handed.dropped.load(Ordering::SeqCst));
}

#[actix_rt::test]
async fn the_throttle_holds_for_all_transfers_together() {
    let slow = Limits {
        snapshot_bytes_per_s: Some(2 << 20),
        ..limits()
    };
    let mut one = Node::with(local(ONE), slow);
    let (two, three) = (Node::new(local(TWO)), Node::new(local(THREE)));
    let sender = one.snapshots();
    let start = Instant::now();
    one.offers(&sender, TWO, two.address, 1 << 20);
    one.offers(&sender, THREE, three.address, 1 << 20);
    one.ended().await.unwrap();
    one.ended().await.unwrap();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(950), "{took:?}");
}

#[actix_rt::test]
async fn a_panic_ends_one_transfer_and_is_told() {
    let (mut one, two) = (Node::new(local(ONE)), Node::new(local(TWO)));
    let sender = one.snapshots();
    let source = TestSource {
        bytes: 1 << 20,
        handed: Arc::default(),
        panics_at: Some(2),
    };
    let told = one.sink.clone().recipient();
    let address = two.address.to_string();
    sender.send(TWO, address, offer(1 << 20), Box::new(source), told);
    assert!(matches!(one.ended().await, Err(TransferError::Panicked)));
    // The receiver may still write what had come.
    while two.receptions().await.broken == 0 {
        sleep(Duration::from_millis(1)).await;
    }

    two.folder.panics.store(true, Ordering::SeqCst);
    one.offers(&sender, TWO, two.address, 1 << 20);
    assert!(matches!(one.ended().await, Err(TransferError::Lost(_))));
    two.folder.panics.store(false, Ordering::SeqCst);
    one.offers(&sender, TWO, two.address, 1 << 20);
    one.ended().await.unwrap();
    let stats = two.listener.send(GetListenerStats).await.unwrap();
    assert_eq!((stats.panicked, stats.snapshots.arrived), (1, 1));
}

/// How many threads of this process have a name that ends so.
fn threads(named: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    let names = tasks.filter_map(name);
    names
        .filter(|name| name.trim().starts_with("snap-") && name.trim().ends_with(named))
        .count()
}

#[cfg(target_os = "linux")]
#[actix_rt::test]
async fn a_stop_at_any_moment_leaves_nothing() {
    // No other test has nodes of these names.
    let (one, two) = (NodeId(71), NodeId(72));
    let members = |of| {
        let members = super::listing([one, two]);
        let folder = Incarnation(of);
        Local::new(
            NodeId(of as u64),
            folder,
            1,
            Some(CLUSTER),
            members,
            Held::default(),
        )
    };
    let all = || threads("-71") + threads("-72");
    let mut seen = 0;
    for round in 0..24 {
        let (mut near, far) = (Node::new(members(71)), Node::new(members(72)));
        far.folder.write_ms.store(1, Ordering::SeqCst);
        let sender = near.snapshots();
        let handed = near.offers(&sender, two, far.address, 4 << 20);
        sleep(Duration::from_micros(random_u64() % 60_000)).await;
        seen = seen.max(all());
        // By either side.
        if round % 2 == 0 {
            sender.stop();
            sender.stopped().await;
        } else {
            far.listener.send(Stop).await.unwrap();
        }
        let _ = near.ended().await;
        assert!(near.sent.try_recv().is_err(), "it is told once");
        assert!(handed.dropped.load(Ordering::SeqCst));
        sender.stop();
        sender.stopped().await;
        if round % 2 == 0 {
            far.listener.send(Stop).await.unwrap();
        }
        until("its threads end", || all() == 0).await;
        let folder = &far.folder;
        let ended =
            folder.abandoned.load(Ordering::SeqCst) + folder.finished.lock().unwrap().len() as u64;
        assert_eq!(folder.begun.load(Ordering::SeqCst), ended);
        // What comes later ends at once.
        near.offers(&sender, two, far.address, 10);
        assert!(matches!(near.ended().await, Err(TransferError::Stopped)));
    }
    assert!(seen > 0, "no thread was ever seen");
}

/// A snapshot connection of `from` to `node` whose handshake is over.
pub(super) async fn greeted(from: &Local, node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let hello = from.introduction(node.local.node());
    let hello = hello.encode(crate::FrameKind::SnapshotHello, &limits());
    stream.write_all(hello.unwrap().as_bytes()).await.unwrap();
    let mut decoder = crate::decode::FrameDecoder::for_handshake(&limits());
    let frame = crate::handshake::read_frame(&mut stream, &mut decoder).await;
    let frame = frame.unwrap();
    assert_eq!(frame.kind, crate::FrameKind::Welcome);
    let nonce = crate::handshake::Introduction::decode(&frame)
        .unwrap()
        .nonce;
    crate::handshake::confirm(&mut stream, nonce, &limits())
        .await
        .unwrap();
    stream
}
