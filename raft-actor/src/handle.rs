//! `Raft`: a node for programs without actix.
//!
//! The node and its actors run in a system on a thread of its own. A handle sends them the same messages as any actor
//! would; nothing of a node's behaviour is in here.
//!
//! Invariants:
//! - No method needs a runtime, or blocks its thread: what needs a clock waits on the system's.
//! - Every wait ends: with the answer, or because the actor that owed it is gone.

mod adding;
mod channels;
mod events;
mod members;
mod session;
mod system;

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use raft_core::{LogId, LogIndex};
use tokio::sync::watch;

pub use channels::{CommandReceiver, CommandSender};
pub use events::{Event, Events, Position};
pub use session::Session;
use system::Running;

use crate::message::Naming;
use crate::{
    BytesStateMachine, Cancel, Cancellation, CloseSession, CodecError, Committed, Config,
    Consistency, ForgetCursor, GetHealth, GetStatus, Health, NodeFailure, NodeStatus, NodeView,
    OpenSession, ProposalId, Propose, ProposeBatch, ProposeError, RaftActor, Read, ReadError,
    ReadIndex, ReadValue, Resolve, SessionId, SnapshotError, StartError, StateMachine,
    SubscribeError, TakeSnapshot, UnknownCause, Watch,
};

/// The pause before something is tried again that was refused for now.
const RETRY: Duration = Duration::from_millis(20);

/// A node, held by a program that need not know of actix. Its methods wait on any executor.
///
/// ```
/// use raft_actor::{Config, Event, MemoryDisk, NodeId, Position, Raft};
///
/// # futures_executor::block_on(async {
/// // A cluster of one, for a test. See the README for one of three.
/// let config = Config::new(NodeId(1))
///     .peers([(NodeId(1), "127.0.0.1:7001")])
///     .listen("127.0.0.1:0")
///     .memory(MemoryDisk::new());
/// let raft = Raft::start(config).await?;
///
/// let mut events = raft.subscribe(Position::Start).await?;
/// let committed = raft.propose("hello").await?;
/// let Event::Delivered(delivered) = events.recv().await? else {
///     unreachable!("nothing is compacted yet")
/// };
/// assert_eq!((delivered.index, &delivered.command[..]), (committed.index, &b"hello"[..]));
///
/// raft.shutdown().await?;
/// # anyhow::Ok(())
/// # }).unwrap();
/// ```
///
/// Clones are the same node. When the last of them is dropped, and all that was made from them ([`Session`], [`Events`],
/// [`CommandSender`]), the node shuts down in order by itself: that takes milliseconds, and at most half a minute.
/// Dropping does not wait for it. A program that is about to exit, or wants the data folder back, calls
/// [`shutdown`](Self::shutdown); if it exits without, it is to the node as a crash, and as safe.
#[derive(Clone)]
pub struct Raft {
    running: Arc<Running>,
    propose_timeout: Duration,
    command_bytes_max: usize,
}

/// The node has ended, and its actors are gone. [`Raft::ended`] says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has ended")]
pub struct NodeEnded;

/// Why a command of a state machine's type was not answered with a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The proposal had no such outcome.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The command cannot be encoded, and was not proposed; or it is applied, and the response is of another type.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Raft {
    /// Starts a node without a state machine, as [`RaftActor::spawn`] does, and a system for it.
    ///
    /// It ends when the log is open (about half a second for each million entries), and blocks nobody meanwhile. If it is
    /// dropped before, so is the node.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong with the configuration, the folder, the address or the machine.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::started(config, async |config| RaftActor::spawn(config)).await
    }

    /// Starts a node that replicates `machine`, as [`RaftActor::spawn_with`] does, and a system for it.
    ///
    /// # Errors
    /// As [`start`](Self::start); and if the state cannot be had back.
    pub async fn start_with(
        config: Config,
        machine: impl BytesStateMachine,
    ) -> Result<Self, StartError> {
        Self::started(config, async |config| {
            RaftActor::spawn_with(config, machine)
        })
        .await
    }

    /// Starts a cluster of which this node is the first, or goes on with that of its folder, as [`RaftActor::lead`] does,
    /// and a system for it.
    ///
    /// ```
    /// # use raft_actor::{Config, MemoryDisk, Raft};
    /// # futures_executor::block_on(async {
    /// let config = Config::at("127.0.0.1:7001"); // And a data_dir, outside tests.
    /// # let config = Config::at("127.0.0.1:27381").memory(MemoryDisk::new());
    /// let raft = Raft::lead(config).await?;
    /// raft.propose("alone, for now").await?;
    /// # raft.shutdown().await?;
    /// # anyhow::Ok(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`RaftActor::lead`].
    pub async fn lead(config: Config) -> Result<Self, StartError> {
        Self::started(config, async |config| RaftActor::lead(config).await).await
    }

    /// [`lead`](Self::lead), with a state machine.
    ///
    /// # Errors
    /// As [`RaftActor::lead_with`].
    pub async fn lead_with(
        config: Config,
        machine: impl BytesStateMachine,
    ) -> Result<Self, StartError> {
        Self::started(config, async |config| {
            RaftActor::lead_with(config, machine).await
        })
        .await
    }

    /// Joins the cluster that is found at any of `addresses`, or goes on with that of its folder, as [`RaftActor::join`]
    /// does, and a system for it. Dropped before it ends, it breaks the join off; it can be repeated.
    ///
    /// # Errors
    /// As [`RaftActor::join`].
    pub async fn join<A: Into<String>>(
        config: Config,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, StartError> {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        Self::started(config, async |config| {
            RaftActor::join(config, addresses).await
        })
        .await
    }

    /// [`join`](Self::join), with a state machine.
    ///
    /// # Errors
    /// As [`RaftActor::join_with`].
    pub async fn join_with<A: Into<String>>(
        config: Config,
        addresses: impl IntoIterator<Item = A>,
        machine: impl BytesStateMachine,
    ) -> Result<Self, StartError> {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        Self::started(config, async |config| {
            RaftActor::join_with(config, addresses, machine).await
        })
        .await
    }

    async fn started<S>(config: Config, spawn: S) -> Result<Self, StartError>
    where
        S: AsyncFnOnce(Config) -> Result<Addr<RaftActor>, StartError> + Send + 'static,
    {
        let propose_timeout = config.propose_timeout;
        let command_bytes_max = config.command_bytes_max;
        let running = Running::start(move || spawn(config)).await?;
        Ok(Self {
            running: Arc::new(running),
            propose_timeout,
            command_bytes_max,
        })
    }

    /// The node's actor, which takes the same things as messages. It does not keep the node alive.
    #[must_use]
    pub fn addr(&self) -> &Addr<RaftActor> {
        &self.running.node
    }

    /// Puts a command into the log: bytes, or a [`Propose`] with a timeout or a name. See there for what is tried, and for how
    /// long.
    ///
    /// # Errors
    /// [`ProposeError`] says whether the command can still have an effect.
    pub async fn propose(&self, command: impl Into<Propose>) -> Result<Committed, ProposeError> {
        let propose = command.into();
        let id = match propose.naming {
            Naming::Client { id, .. } => Some(id),
            Naming::Node | Naming::Nothing => None,
        };
        self.settled(id, |node| node.send(propose)).await?
    }

    /// Puts a command of a [`StateMachine`]'s type into the log, and gives its response.
    ///
    /// ```
    /// # use std::io;
    /// # use raft_actor::{ApplyError, At, Capture, Config, MemoryDisk, NodeId, Raft, StateMachine, capture, restored};
    /// #[derive(Default)]
    /// struct Sum(u64);
    ///
    /// impl StateMachine for Sum {
    ///     type Command = u64;
    ///     type Response = u64;
    ///     // ...
    /// #   fn apply(&mut self, _: At, command: u64) -> Result<u64, ApplyError> {
    /// #       self.0 += command;
    /// #       Ok(self.0)
    /// #   }
    /// #   fn snapshot(&self) -> Capture {
    /// #       capture(self.0)
    /// #   }
    /// #   fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
    /// #       self.0 = restored(from)?;
    /// #       Ok(())
    /// #   }
    /// }
    ///
    /// # futures_executor::block_on(async {
    /// # let peers = [(NodeId(1), "127.0.0.1:7001")];
    /// # let config = Config::new(NodeId(1)).peers(peers).listen("127.0.0.1:0").memory(MemoryDisk::new());
    /// let raft = Raft::start_with(config, Sum::default()).await?;
    /// assert_eq!(raft.apply::<Sum>(&40).await?, 40);
    /// assert_eq!(raft.apply::<Sum>(&2).await?, 42);
    /// assert_eq!(raft.read(|sum: &Sum| sum.0).await?.value, 42);
    /// # anyhow::Ok(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`CommandError`]: those of [`propose`](Self::propose), and of encoding.
    pub async fn apply<M: StateMachine>(
        &self,
        command: &M::Command,
    ) -> Result<M::Response, CommandError> {
        let committed = self.propose(Propose::of(command)?).await?;
        Ok(committed.response_as()?)
    }

    /// Puts several commands into the log; see [`ProposeBatch`]. The answers are in the order of the commands.
    pub async fn propose_batch<P: Into<Propose>>(
        &self,
        commands: impl IntoIterator<Item = P>,
    ) -> Vec<Result<Committed, ProposeError>> {
        let proposals: Vec<Propose> = commands.into_iter().map(Into::into).collect();
        let count = proposals.len();
        let batch = ProposeBatch(proposals);
        let outcomes = self.settled(None, |node| node.send(batch)).await;
        outcomes.unwrap_or_else(|error| vec![Err(error); count])
    }

    /// Opens a session, in which a client names its proposals.
    ///
    /// # Errors
    /// As [`OpenSession`] has them.
    pub async fn open_session(&self, open: OpenSession) -> Result<Session, ProposeError> {
        let id = self.settled(None, |node| node.send(open)).await??;
        Ok(Session::new(self.clone(), id))
    }

    /// Goes on with a session after a restart of the client. `low` is the lowest sequence whose outcome the client does not
    /// know: the cluster may forget those below, so that what is proposed first must be what was proposed as `low`, and so
    /// on. Nothing is sent before that.
    #[must_use]
    pub fn resume_session(&self, id: SessionId, low: u64) -> Session {
        Session::resumed(self.clone(), id, low)
    }

    /// Closes a session.
    ///
    /// # Errors
    /// As [`CloseSession`] has them.
    pub async fn close_session(&self, id: SessionId) -> Result<(), ProposeError> {
        self.settled(None, |node| node.send(CloseSession(id)))
            .await?
    }

    /// Sees to it that a proposal is never applied, unless it was already; see [`Cancel`].
    ///
    /// # Errors
    /// As [`Cancel`] has them.
    pub async fn cancel(&self, id: ProposalId) -> Result<Cancellation, ProposeError> {
        self.settled(Some(id), |node| node.send(Cancel(id))).await?
    }

    /// What has become of a proposal? See [`Resolve`].
    ///
    /// # Errors
    /// As [`Resolve`] has them.
    pub async fn resolve(&self, id: ProposalId) -> Result<Option<Committed>, ProposeError> {
        self.settled(Some(id), |node| node.send(Resolve(id)))
            .await?
    }

    /// Reads the state machine, as of everything that was acknowledged before; see [`Read`].
    ///
    /// # Errors
    /// [`ReadError`]. It can be asked again.
    pub async fn read<S: 'static, R: Send + 'static>(
        &self,
        read: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<ReadValue<R>, ReadError> {
        let sent = self.addr().send(Read::new(read)).await;
        sent.unwrap_or(Err(ReadError::NodeEnded))
    }

    /// Reads the state machine as this node has it, however old that is; see [`Consistency::Stale`].
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_stale<S: 'static, R: Send + 'static>(
        &self,
        read: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Result<ReadValue<R>, ReadError> {
        let read = Read::new(read).consistency(Consistency::Stale);
        let sent = self.addr().send(read).await;
        sent.unwrap_or(Err(ReadError::NodeEnded))
    }

    /// How far a subscriber must have come to answer a linearizable read from a state of its own; see [`ReadIndex`].
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_index(&self) -> Result<LogIndex, ReadError> {
        let sent = self.addr().send(ReadIndex::new()).await;
        sent.unwrap_or(Err(ReadError::NodeEnded))
    }

    /// Subscribes to what is committed.
    ///
    /// # Errors
    /// [`SubscribeError`]: there is no such position, the cursor is in use, or the node has ended.
    pub async fn subscribe(&self, from: Position) -> Result<Events, SubscribeError> {
        Events::of(self, from).await
    }

    /// A pair of channels: what is sent into one, on any node, comes out of the other, on every node, in one order.
    ///
    /// ```
    /// # use raft_actor::{Config, MemoryDisk, NodeId, Position, Raft};
    /// # futures_executor::block_on(async {
    /// # let peers = [(NodeId(1), "127.0.0.1:7001")];
    /// # let config = Config::new(NodeId(1)).peers(peers).listen("127.0.0.1:0").memory(MemoryDisk::new());
    /// # let raft = Raft::start(config).await?;
    /// let (sender, mut receiver) = raft.channels(Position::Start).await?;
    /// sender.send("hello").await?;
    /// assert_eq!(&receiver.recv().await?.command[..], b"hello");
    /// # anyhow::Ok(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn channels(
        &self,
        from: Position,
    ) -> Result<(CommandSender, CommandReceiver), SubscribeError> {
        channels::channels(self, from).await
    }

    /// Forgets a named cursor.
    ///
    /// # Errors
    /// It is in use, or the node has ended.
    pub async fn forget_cursor(&self, name: impl Into<String>) -> Result<(), SubscribeError> {
        let sent = self.addr().send(ForgetCursor(name.into())).await;
        sent.unwrap_or(Err(SubscribeError::NodeEnded))
    }

    /// How the node sees itself and its cluster. One that has failed still says so.
    ///
    /// # Errors
    /// It was shut down.
    pub async fn status(&self) -> Result<NodeStatus, NodeEnded> {
        self.addr().send(GetStatus).await.map_err(|_| NodeEnded)
    }

    /// Can the node be used, and should its process be kept? See [`GetHealth`].
    ///
    /// # Errors
    /// It was shut down.
    pub async fn health(&self) -> Result<Health, NodeEnded> {
        self.addr().send(GetHealth).await.map_err(|_| NodeEnded)
    }

    /// The newest view of the node at any time, which can be waited on for the next one; see [`Watch`].
    ///
    /// # Errors
    /// It was shut down.
    pub async fn watch(&self) -> Result<watch::Receiver<NodeView>, NodeEnded> {
        self.addr().send(Watch).await.map_err(|_| NodeEnded)
    }

    /// Takes a snapshot; see [`TakeSnapshot`].
    ///
    /// # Errors
    /// [`SnapshotError`]. The log goes on.
    pub async fn take_snapshot(&self) -> Result<LogId, SnapshotError> {
        let sent = self.addr().send(TakeSnapshot).await;
        sent.unwrap_or(Err(SnapshotError::NodeEnded))
    }

    /// Ends the node in order (see [`Shutdown`](crate::Shutdown)), whoever else holds it, and waits until its data folder
    /// and its address are free. Once asked, it goes on also if nobody waits.
    ///
    /// # Errors
    /// The node had failed, or did not close its log in order.
    pub async fn shutdown(&self) -> Result<(), NodeFailure> {
        self.running.shutdown().await
    }

    /// Waits for the node's end: `Ok` if it was shut down, an error if it failed. A program that depends on its node ends
    /// with it.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn ended(&self) -> Result<(), NodeFailure> {
        self.running.ended().await
    }

    /// Sends what changes the log. If the node is gone before it is sent, nothing comes of it; if it is gone before the
    /// answer, that is unknown.
    async fn settled<T, F>(
        &self,
        id: Option<ProposalId>,
        send: impl FnOnce(&Addr<RaftActor>) -> F,
    ) -> Result<T, ProposeError>
    where
        F: Future<Output = Result<T, actix::MailboxError>>,
    {
        if !self.addr().connected() {
            return Err(ProposeError::ShuttingDown);
        }
        let cause = UnknownCause::NodeEnded;
        let sent = send(self.addr()).await;
        sent.map_err(|_| ProposeError::Unknown { cause, id })
    }
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft").finish_non_exhaustive()
    }
}

/// Bytes are a command.
impl<T: Into<Bytes>> From<T> for Propose {
    fn from(command: T) -> Self {
        Self::new(command)
    }
}
