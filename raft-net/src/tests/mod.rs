//! Tests that need more than one module.

mod addresses;
mod at_once;
mod codec;
mod connect;
mod documented;
mod fixtures;
mod guests;
mod handed;
mod hostile;
mod lanes;
mod memory;
mod process;
mod refusals;
mod snapshots;
mod snapshots_hostile;
mod tls;
mod tls_hostile;
mod visited;
mod visits;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use raft_core::{
    ClusterId, CommitAdvanced, Heartbeat, Incarnation, LogIndex, NodeId, OpenMessage, Round, Term,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    BoundListener, EncodedFrame, Forwarded, Frame, FrameEncoder, Held, Inbound, Known, Limits,
    Listener, Local, PeerConnection, PeerEvent, PeerSender, Recipients, SnapshotArrived,
    SnapshotSent, Stop, TlsName, Visit,
};
use snapshots::{Folder, Shared};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const ONE: NodeId = NodeId(1);
pub(super) const TWO: NodeId = NodeId(2);
pub(super) const THREE: NodeId = NodeId(3);
pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);

/// The data folder that a node has in tests.
pub(super) fn folder(node: NodeId) -> Incarnation {
    Incarnation(0xf0 + u128::from(node.0))
}

/// What is known of `node` when its folder is `incarnation`.
pub(super) fn known(node: NodeId, incarnation: Option<Incarnation>) -> Known {
    Known {
        incarnation,
        address: String::new(),
        tls_name: Some(TlsName::of(node)),
    }
}

/// These nodes, each known by its folder.
pub(super) fn knowing<const N: usize>(nodes: [NodeId; N]) -> BTreeMap<NodeId, Known> {
    nodes
        .map(|node| (node, known(node, Some(folder(node)))))
        .into()
}

/// These nodes, of which nothing else is known.
pub(super) fn listing<const N: usize>(nodes: [NodeId; N]) -> BTreeMap<NodeId, Known> {
    nodes.map(|node| (node, known(node, None))).into()
}

/// Nodes 1 to 3, born.
pub(super) fn born() -> BTreeMap<NodeId, Known> {
    knowing([ONE, TWO, THREE])
}

/// Nodes 1 to 3, not yet born.
pub(super) fn unborn() -> BTreeMap<NodeId, Known> {
    listing([ONE, TWO, THREE])
}

pub(super) fn local(node: NodeId) -> Local {
    Local::new(
        node,
        folder(node),
        1,
        Some(CLUSTER),
        born(),
        Held::default(),
    )
}

pub(super) fn limits() -> Limits {
    Limits {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        ..Limits::default()
    }
}

/// Where a test can have a connection's task panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Panic {
    Read,
    Write,
    Log,
    Tell,
}

thread_local! {
    /// The panic that is asked for; all tasks of a test run on its thread.
    static ASKED: Cell<Option<Panic>> = const { Cell::new(None) };
}

/// Panics, once, if a test has asked for it.
pub(crate) fn panic_if_asked(here: Panic) {
    if ASKED.get() == Some(here) {
        ASKED.set(None);
        panic!("on purpose, at {here:?}");
    }
}

pub(super) fn ask_for(panic: Panic) {
    ASKED.set(Some(panic));
}

thread_local! {
    /// Where names lead, in this test.
    static NAMES: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
    /// The sockets that have been set up, by their own address and the other side's.
    static CONFIGURED: RefCell<BTreeSet<(SocketAddr, SocketAddr)>> = const { RefCell::new(BTreeSet::new()) };
}

/// Where `name` leads now.
pub(crate) fn looked_up(name: &str) -> String {
    NAMES.with_borrow(|names| names.get(name).map_or(name, String::as_str).to_owned())
}

pub(super) fn lead(name: &str, to: SocketAddr) {
    NAMES.with_borrow_mut(|names| names.insert(name.to_owned(), to.to_string()));
}

/// A socket has been set up.
pub(crate) fn configured(stream: &tokio::net::TcpStream) {
    let ends = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    CONFIGURED.with_borrow_mut(|all| all.insert(ends));
}

/// Takes what connections tell and hands it to the test.
pub(super) struct Sink {
    events: UnboundedSender<PeerEvent>,
    inbound: UnboundedSender<Inbound>,
    arrived: UnboundedSender<SnapshotArrived>,
    sent: UnboundedSender<SnapshotSent>,
    visits: UnboundedSender<Visit>,
    folder: Arc<Folder>,
    /// A batch is handled when there is a permit.
    gate: Arc<Semaphore>,
}

impl Actor for Sink {
    type Context = Context<Self>;
}

impl Handler<PeerEvent> for Sink {
    type Result = ();

    fn handle(&mut self, event: PeerEvent, _: &mut Self::Context) {
        let _ = self.events.send(event);
    }
}

impl Handler<Inbound> for Sink {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, inbound: Inbound, _: &mut Self::Context) -> Self::Result {
        let _ = self.inbound.send(inbound);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let _passed = gate.acquire_owned().await;
        })
    }
}

impl Handler<SnapshotArrived> for Sink {
    type Result = bool;

    fn handle(&mut self, arrived: SnapshotArrived, _: &mut Self::Context) -> bool {
        let _ = self.arrived.send(arrived);
        self.folder.is_of_use()
    }
}

impl Handler<SnapshotSent> for Sink {
    type Result = ();

    fn handle(&mut self, sent: SnapshotSent, _: &mut Self::Context) {
        let _ = self.sent.send(sent);
    }
}

impl Handler<Visit> for Sink {
    type Result = ();

    fn handle(&mut self, visit: Visit, _: &mut Self::Context) {
        let _ = self.visits.send(visit);
    }
}

/// A node of a test: a listener on a port of its own, and what it was told.
pub(super) struct Node {
    pub(super) local: Local,
    pub(super) limits: Limits,
    pub(super) address: SocketAddr,
    pub(super) listener: Addr<Listener>,
    pub(super) events: UnboundedReceiver<PeerEvent>,
    pub(super) inbound: UnboundedReceiver<Inbound>,
    pub(super) arrived: UnboundedReceiver<SnapshotArrived>,
    pub(super) sent: UnboundedReceiver<SnapshotSent>,
    pub(super) visits: UnboundedReceiver<Visit>,
    /// Where its snapshots go.
    folder: Arc<Folder>,
    pub(super) gate: Arc<Semaphore>,
    sink: Addr<Sink>,
}

impl Node {
    pub(super) fn new(local: Local) -> Self {
        Self::with(local, limits())
    }

    pub(super) fn with(local: Local, limits: Limits) -> Self {
        let bound = Listener::bind("127.0.0.1:0").unwrap();
        Self::with_listener(local, limits, bound)
    }

    pub(super) fn with_listener(local: Local, limits: Limits, bound: BoundListener) -> Self {
        let (events, events_told) = unbounded_channel();
        let (inbound, inbound_told) = unbounded_channel();
        let (arrived, arrived_told) = unbounded_channel();
        let (sent, sent_told) = unbounded_channel();
        let (visits, visits_told) = unbounded_channel();
        let gate = Arc::new(Semaphore::new(1));
        let folder = Arc::new(Folder::default());
        let sink = Sink {
            events,
            inbound,
            arrived,
            sent,
            visits,
            folder: Arc::clone(&folder),
            gate: Arc::clone(&gate),
        }
        .start();
        let (address, listener) = listen(bound, &local, &limits, &sink, &folder);
        Self {
            local,
            limits,
            address,
            listener,
            events: events_told,
            inbound: inbound_told,
            arrived: arrived_told,
            sent: sent_told,
            visits: visits_told,
            folder,
            gate,
            sink,
        }
    }

    /// Dials `peer`, which is listed at `address`.
    pub(super) fn dial(&self, peer: NodeId, address: SocketAddr) -> PeerSender {
        self.local.list(peer, address.to_string());
        self.dial_where_it_is(peer)
    }

    pub(super) fn dial_where_it_is(&self, peer: NodeId) -> PeerSender {
        PeerConnection::start(
            peer,
            self.local.clone(),
            self.limits.clone(),
            self.sink.clone().recipient(),
        )
    }

    /// Closes the listener, and opens it again at the same address.
    pub(super) async fn restart_listener(&mut self) {
        self.listener.send(Stop).await.unwrap();
        self.reopen();
    }

    pub(super) fn reopen(&mut self) {
        self.listener = listen(
            Listener::bind(self.address).unwrap(),
            &self.local,
            &self.limits,
            &self.sink,
            &self.folder,
        )
        .1;
    }

    /// Waits for the first event that `wanted` gives something for.
    pub(super) async fn event<T>(&mut self, wanted: impl Fn(&PeerEvent) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let search = async {
            while let Some(event) = self.events.recv().await {
                if let Some(found) = wanted(&event) {
                    return found;
                }
                seen.push(event);
            }
            panic!("the sink is gone");
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("node {} waits in vain; it saw {seen:?}", self.local.node()),
        }
    }

    pub(super) async fn connected(&mut self, to: NodeId) {
        self.event(|event| {
            matches!(event, PeerEvent::Connected { peer, .. } if *peer == to).then_some(())
        })
        .await;
    }

    pub(super) async fn batch(&mut self) -> Inbound {
        let batch = tokio::time::timeout(PATIENCE, self.inbound.recv()).await;
        batch.expect("a batch comes").expect("the sink lives")
    }

    /// Lets nothing be handled until the permit is dropped.
    pub(super) async fn hold(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.gate).acquire_owned().await.unwrap()
    }
}

fn listen(
    bound: BoundListener,
    local: &Local,
    limits: &Limits,
    sink: &Addr<Sink>,
    folder: &Arc<Folder>,
) -> (SocketAddr, Addr<Listener>) {
    let address = bound.local_addr();
    let folder = Arc::new(Shared(Arc::clone(folder)));
    let listener = bound.start(local.clone(), limits.clone(), told(sink), folder);
    (address, listener)
}

/// All goes to `sink`.
pub(super) fn told(sink: &Addr<Sink>) -> Recipients {
    Recipients {
        inbound: sink.clone().recipient(),
        events: sink.clone().recipient(),
        arrived: sink.clone().recipient(),
        visits: sink.clone().recipient(),
    }
}

/// A short frame of the main lane.
pub(super) fn commit(term: u64) -> Frame {
    let commit = CommitAdvanced {
        term: Term(term),
        commit: LogIndex(0),
    };
    Frame::Raft(OpenMessage::CommitAdvanced(commit).into())
}

/// A short frame of the urgent lane.
pub(super) fn heartbeat(term: u64) -> Frame {
    let heartbeat = Heartbeat {
        term: Term(term),
        commit: LogIndex(0),
        round: Round(0),
    };
    Frame::Raft(OpenMessage::Heartbeat(heartbeat).into())
}

/// A frame of about `len` bytes.
pub(super) fn bulk(len: usize) -> Frame {
    let data = Bytes::from(vec![7; len]);
    Frame::Forward(vec![Forwarded { request: 1, data }])
}

pub(super) fn encode(frame: &Frame) -> EncodedFrame {
    FrameEncoder::new(&Limits::default()).encode(frame).unwrap()
}
