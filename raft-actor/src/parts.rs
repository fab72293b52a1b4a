//! The parts of a node that must be let go of when it ends, however it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::Addr;
use raft_core::NodeId;
use raft_net::{Listener, PeerSender, SnapshotSender};
use raft_storage::{Close, LogStorage, StorageError};
use tokio::time::timeout;

use crate::NodeFailure;
use crate::delivery::{Delivery, Finish};

/// How long connections are waited for. They let go at once, unless the thread is busy.
const CONNECTIONS: Duration = Duration::from_secs(2);
/// How long [`Delivery`] is waited for: it may be in the middle of a command, and keeps its cursors.
const DELIVERY: Duration = Duration::from_secs(2);
/// How long the storage is waited for: it may be in the middle of a sync.
const STORAGE: Duration = Duration::from_secs(10);

/// Addresses of the parts. Clones are the same parts.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) storage: Addr<LogStorage>,
    pub(crate) delivery: Addr<Delivery>,
    pub(crate) listener: Addr<Listener>,
    /// The connections to those whom the node deals with now.
    pub(crate) senders: Senders,
    pub(crate) snapshots: SnapshotSender,
}

/// The connections of a node to others, for its threads.
#[derive(Clone, Default)]
pub(crate) struct Senders(Arc<Mutex<BTreeMap<NodeId, PeerSender>>>);

impl Senders {
    fn all(&self) -> MutexGuard<'_, BTreeMap<NodeId, PeerSender>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, id: NodeId) -> Option<PeerSender> {
        self.all().get(&id).cloned()
    }

    pub(crate) fn insert(&self, id: NodeId, sender: PeerSender) {
        self.all().insert(id, sender);
    }

    pub(crate) fn remove(&self, id: NodeId) {
        self.all().remove(&id);
    }
}

impl Parts {
    /// Ends all parts, and waits until address and folder are free. Whoever waits for an outcome is
    /// answered by [`Delivery`] at once.
    ///
    /// # Errors
    /// The storage could not close in order, or not in time.
    pub(crate) async fn let_go(self) -> Result<(), NodeFailure> {
        let finish = self.delivery.send(Finish);
        self.snapshots.stop();
        let senders: Vec<_> = self.senders.all().values().cloned().collect();
        for sender in &senders {
            sender.stop();
        }
        let storage = async {
            // A delivery that has ended already has nothing to keep.
            let finished = timeout(DELIVERY, finish).await;
            let closed = timeout(STORAGE, self.storage.send(Close)).await;
            (finished, closed)
        };
        let connections = async {
            // A listener that has ended already has let go: then this is an error, and as good.
            let _ = self.listener.send(raft_net::Stop).await;
            for sender in &senders {
                sender.stopped().await;
            }
            self.snapshots.stopped().await;
        };
        let (connections, (finished, closed)) =
            tokio::join!(timeout(CONNECTIONS, connections), storage);
        if connections.is_err() {
            tracing::warn!("connections did not end within {CONNECTIONS:?}");
        }
        match closed {
            // A storage that has ended already has let go.
            Ok(Ok(Ok(()) | Err(StorageError::Closed)) | Err(_)) => match finished {
                Ok(_) => Ok(()),
                Err(_) => Err(NodeFailure::StateMachineBusy(DELIVERY)),
            },
            Ok(Ok(Err(error))) => Err(error.into()),
            Err(_) => Err(NodeFailure::CloseTimedOut(STORAGE)),
        }
    }
}

/// What those who wait are told if the node's actor dies without a word.
pub(crate) fn died() -> Result<(), NodeFailure> {
    Err(NodeFailure::PartStopped("the node's actor"))
}
