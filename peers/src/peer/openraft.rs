//! openraft: three nodes in one process, the log in memory, the network a function call; no disk, no wire.
//!
//! What its users write themselves is here as cheap as it can be: the log is a deque, the state machine only counts, a
//! snapshot is empty. Its configuration is that of openraft's own benchmark, with election timeouts that a loaded
//! machine does not run into.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Debug, Display};
use std::future::Future;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::type_config::alias::{
    EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use openraft::{Config, EntryPayload, Raft, RaftLogReader};

use super::{Ground, Outcome, PATIENCE, Peer, Stage, locked_version};
use crate::load::{Client, closed_loop};
use crate::process::Process;

const NODES: u64 = 3;

pub(super) struct Openraft;

impl Peer for Openraft {
    fn name(&self) -> &'static str {
        "openraft_memory"
    }

    fn what(&self) -> String {
        let version = locked_version("openraft");
        format!(
            "openraft {version}, three nodes and the clients in one process, log in memory, no wire"
        )
    }

    fn differs(&self) -> &'static str {
        "beside our one-process memory mode; its entries are handed over as they are, and it keeps no sessions"
    }

    fn program(&self) -> Option<&'static str> {
        None
    }

    fn ports(&self) -> usize {
        0
    }

    fn start(&self, _: &Ground) -> Result<Vec<Process>> {
        Ok(Vec::new())
    }

    fn load<'a>(&'a self, stage: &'a Stage) -> Outcome<'a> {
        Box::pin(async move {
            let leader = cluster().await?;
            let command = Command(stage.load.command());
            let clients = (0..stage.load.clients)
                .map(|_| Writer {
                    raft: leader.clone(),
                    command: command.clone(),
                })
                .collect();
            closed_loop(clients, stage.load, &stage.counted).await
        })
    }
}

/// Starts the three, and gives the one that leads.
async fn cluster() -> Result<Node> {
    let config = Config {
        election_timeout_min: 1_000,
        election_timeout_max: 2_000,
        heartbeat_interval: 100,
        purge_batch_size: 1_024,
        max_payload_entries: 1_024,
        ..Config::default()
    };
    let config = Arc::new(config.validate().context("its configuration")?);
    let nodes = Nodes::default();
    for id in 0..NODES {
        let node = Node::new(
            id,
            Arc::clone(&config),
            nodes.clone(),
            Log::default(),
            Counter::default(),
        );
        let node = node.await.context("a node")?;
        lock(&nodes.0).insert(id, node);
    }
    let first = nodes.get(0).context("the first node")?;
    first
        .initialize((0..NODES).collect::<BTreeSet<_>>())
        .await
        .context("the first membership")?;
    first
        .wait(Some(PATIENCE))
        .current_leader(0, "the first node leads")
        .await
        .context("no leader")?;
    Ok(first)
}

struct Writer {
    raft: Node,
    command: Command,
}

impl Client for Writer {
    async fn commit(&mut self) -> Result<u64> {
        self.raft.client_write(self.command.clone()).await?;
        Ok(1)
    }
}

/// What is replicated.
#[derive(Clone, Debug)]
pub(crate) struct Command(Bytes);

impl Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Done;

impl Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("done")
    }
}

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Command,
        R = Done,
        Node = (),
);

type Node = Raft<Types, Counter>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The network: who is called.
#[derive(Clone, Default)]
struct Nodes(Arc<Mutex<BTreeMap<u64, Node>>>);

impl Nodes {
    fn get(&self, id: u64) -> Option<Node> {
        lock(&self.0).get(&id).cloned()
    }
}

impl RaftNetworkFactory<Types> for Nodes {
    type Network = Call;

    async fn new_client(&mut self, target: u64, _: &()) -> Call {
        Call {
            nodes: self.clone(),
            target,
            node: None,
        }
    }
}

/// A connection: a node that is called.
struct Call {
    nodes: Nodes,
    target: u64,
    /// Looked up with the first call, when all nodes are there.
    node: Option<Node>,
}

impl Call {
    fn node(&mut self) -> Result<&Node, RPCError<Types>> {
        if self.node.is_none() {
            self.node = self.nodes.get(self.target);
        }
        let missing = || io::Error::new(io::ErrorKind::NotConnected, "not started yet");
        self.node
            .as_ref()
            .ok_or_else(|| RPCError::Network(NetworkError::new(&missing())))
    }
}

impl RaftNetworkV2<Types> for Call {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let answer = self.node()?.append_entries(request).await;
        answer.map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.node()?.vote(request).await;
        answer.map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, ()>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let answer = self.node()?.install_full_snapshot(vote, snapshot).await;
        answer.map_err(|error| StreamingError::Network(NetworkError::new(&error)))
    }
}

/// The log of a node.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    vote: Option<VoteOf<Types>>,
    purged: Option<LogIdOf<Types>>,
    /// The index of the first of `kept`.
    first: u64,
    kept: VecDeque<EntryOf<Types>>,
}

impl Entries {
    /// How many entries lie before `index`.
    fn before(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.first))
            .map_or(self.kept.len(), |count| count.min(self.kept.len()))
    }

    fn range(&self, range: impl RangeBounds<u64>) -> Vec<EntryOf<Types>> {
        let from = match range.start_bound() {
            Bound::Included(index) => self.before(*index),
            Bound::Excluded(index) => self.before(index + 1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => self.before(index + 1),
            Bound::Excluded(index) => self.before(*index),
            Bound::Unbounded => self.kept.len(),
        };
        self.kept.range(from..to.max(from)).cloned().collect()
    }

    fn append(&mut self, entry: EntryOf<Types>) {
        if self.kept.is_empty() {
            self.first = entry.log_id.index();
        }
        self.kept.push_back(entry);
    }

    fn truncate_after(&mut self, index: Option<u64>) {
        let keep = index.map_or(0, |index| self.before(index + 1));
        self.kept.truncate(keep);
    }

    fn purge(&mut self, through: LogIdOf<Types>) {
        let gone = self.before(through.index() + 1);
        self.kept.drain(..gone);
        self.first = self.first.max(through.index() + 1);
        self.purged = Some(through);
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<EntryOf<Types>>, io::Error> {
        Ok(lock(&self.0).range(range))
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(lock(&self.0).vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let entries = lock(&self.0);
        let last = entries.kept.back().map(|entry| entry.log_id);
        Ok(LogState {
            last_purged_log_id: entries.purged,
            last_log_id: last.or(entries.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        lock(&self.0).vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<Types>> + Send,
        I::IntoIter: Send,
    {
        {
            let mut log = lock(&self.0);
            entries.into_iter().for_each(|entry| log.append(entry));
        }
        done.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        lock(&self.0).truncate_after(last.map(|id| id.index()));
        Ok(())
    }

    async fn purge(&mut self, through: LogIdOf<Types>) -> Result<(), io::Error> {
        lock(&self.0).purge(through);
        Ok(())
    }
}

/// The state machine, which only knows how far it is. Nobody else looks at it, so that a snapshot is what it knows.
#[derive(Clone, Default)]
struct Counter {
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl Counter {
    fn meta(&self) -> SnapshotMetaOf<Types> {
        SnapshotMetaOf::<Types> {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Counter {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        Ok(SnapshotOf::<Types, ()> {
            meta: self.meta(),
            snapshot: (),
        })
    }
}

impl RaftStateMachine<Types> for Counter {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, waiter)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembershipOf::<Types>::new(self.applied, membership);
            }
            if let Some(waiter) = waiter {
                waiter.send(Done);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        (): (),
    ) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        Ok(self.applied.is_some().then(|| SnapshotOf::<Types, ()> {
            meta: self.meta(),
            snapshot: (),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> LogIdOf<Types> {
        use openraft::vote::RaftLeaderId as _;
        let leader = openraft::impls::leader_id_adv::LeaderId::<u64, u64>::new(1, 0);
        LogIdOf::<Types>::new(leader.to_committed(), index)
    }

    fn log(indexes: std::ops::Range<u64>) -> Entries {
        let mut log = Entries::default();
        for index in indexes {
            log.append(EntryOf::<Types> {
                log_id: id(index),
                payload: EntryPayload::Blank,
            });
        }
        log
    }

    fn indexes(log: &Entries, range: impl RangeBounds<u64>) -> Vec<u64> {
        log.range(range)
            .iter()
            .map(|entry| entry.log_id.index())
            .collect()
    }

    #[test]
    fn ranges_are_those_of_the_indexes_also_behind_a_purge() {
        let mut log = log(0..10);
        assert_eq!(indexes(&log, 3..6), [3, 4, 5]);
        log.purge(id(4));
        assert_eq!(indexes(&log, ..), [5, 6, 7, 8, 9]);
        assert_eq!(indexes(&log, 3..7), [5, 6]);
        assert_eq!(indexes(&log, 8..=20), [8, 9]);
        assert_eq!(indexes(&log, 20..), Vec::<u64>::new());
    }

    #[test]
    fn a_truncation_keeps_what_is_named() {
        let mut log = log(5..10);
        log.truncate_after(Some(7));
        assert_eq!(indexes(&log, ..), [5, 6, 7]);
        log.truncate_after(None);
        assert_eq!(indexes(&log, ..), Vec::<u64>::new());
    }

    #[test]
    fn an_empty_log_goes_on_where_it_is_told() {
        let mut log = log(0..3);
        log.purge(id(2));
        log.append(EntryOf::<Types> {
            log_id: id(3),
            payload: EntryPayload::Blank,
        });
        assert_eq!((log.first, indexes(&log, ..)), (3, vec![3]));
    }

    #[test]
    fn three_nodes_commit() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(commit_ten());
    }

    async fn commit_ten() {
        let mut writer = Writer {
            raft: cluster().await.unwrap(),
            command: Command(Bytes::from_static(b"x")),
        };
        for _ in 0..10 {
            assert_eq!(writer.commit().await.unwrap(), 1);
        }
    }
}
