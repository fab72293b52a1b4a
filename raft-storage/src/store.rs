//! What a store of a log is.
//!
//! Invariants of every store, which [`suite`](crate::suite) checks:
//! - A write is atomic, and durable when it returns `Ok`. Until then no reader sees any of it.
//! - After a write failed nothing is written again: each later call answers with the first cause. A failed
//!   sync that is tried again "succeeds" with the data gone, as PostgreSQL found out.
//! - A closed store holds nothing: the same process can open the same place at once.

use std::{collections::BTreeMap, sync::Arc};

use raft_core::{
    ClusterId, Entry, Incarnation, LogIndex, NodeId, Recovered,
    membership::{ChangeError, Configuration},
};

use crate::{Batch, Misfit, Snapshots, StorageError};

/// A log on some disk, with the term and the vote. One thread writes it; [`LogReader`]s read it from others.
pub trait LogStore: Send + 'static {
    /// Makes `batch` durable, all of it or nothing. A batch of nothing needs no sync: all before it is
    /// durable already.
    ///
    /// # Errors
    /// Any error is final, and each later call of any method but [`reader`](Self::reader) repeats it.
    fn write(&mut self, batch: &Batch) -> Result<(), StorageError>;

    /// Makes durable what this node keeps beside its log.
    ///
    /// # Errors
    /// As for [`write`](Self::write); a node or a cluster that differs from the first one is refused, and so are
    /// [known](Record::known) members that cannot be, and a cursor beyond the [bounds](Record::cursors).
    fn record(&mut self, record: &Record) -> Result<(), StorageError>;

    /// Brings to the disk what no acknowledgement waits for. To be called about every half second, also
    /// when nothing is written.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn settle(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Reads what is written, from any thread.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// The snapshots beside the log, to be written and read from any thread. Once a write has named one, and
    /// is durable, all others go.
    fn snapshots(&self) -> Arc<dyn Snapshots>;

    /// Brings everything to the disk and lets go of it. Later calls, and the readers, answer
    /// [`StorageError::Closed`]. The place is released whatever the answer.
    ///
    /// # Errors
    /// What kept something from the disk; or the first cause, if the store had failed before.
    fn close(&mut self) -> Result<(), StorageError>;
}

/// Reads entries from a [`LogStore`] while it is written.
pub trait LogReader: Send + Sync + 'static {
    /// The entries from `from` on, without a gap and at least one, up to `through` or to the end of the
    /// log, whichever is first. Stops after the entry with which the sum of [`Entry::size_bytes`] reaches
    /// `bytes_max`.
    ///
    /// # Errors
    /// [`Compacted`](StorageError::Compacted), [`Missing`](StorageError::Missing) and
    /// [`EmptyRange`](StorageError::EmptyRange) say what was wrong with the question; anything else means
    /// that the disk can no longer be trusted.
    fn read(
        &self,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError>;
}

/// What a node keeps beside its log. What is `None` or not named stays as it is.
///
/// [`LogStorage`](crate::LogStorage) takes it as a message: it comes behind all writes before it, and is
/// synced when it is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, actix::Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct Record {
    /// Whose store it is: given once, to one that was nobody's yet.
    pub node: Option<NodeId>,
    /// What is known of the members. One without this node says that it [has departed](Identity::has_departed).
    pub known: Option<Configuration>,
    /// The cluster, once.
    pub cluster: Option<ClusterId>,
    /// How far each of these named readers of the log has come; with none, the cursor goes. A name has 1 to
    /// 255 bytes, and a store keeps up to 1,000 of them.
    pub cursors: BTreeMap<String, Option<LogIndex>>,
}

impl Record {
    const CURSOR_NAME_BYTES_MAX: usize = 255;
    const CURSORS_MAX: usize = 1000;

    /// Whether a store of `node` and `cluster` may take it; of the cursors that is not asked here.
    pub(crate) fn check(
        &self,
        node: Option<NodeId>,
        cluster: Option<ClusterId>,
    ) -> Result<(), Misfit> {
        check_id(self.node)?;
        if let (Some(is), Some(asked)) = (node, self.node)
            && is != asked
        {
            return Err(Misfit::OtherNode { is, asked });
        }
        if self.cluster.is_some() && cluster.is_some() && self.cluster != cluster {
            return Err(Misfit::OtherCluster);
        }
        let wrong = self.known.as_ref().and_then(Configuration::validate);
        wrong.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The cursors of a store that has `stored`, with these changes.
    pub(crate) fn cursors_over(
        &self,
        stored: &BTreeMap<String, LogIndex>,
    ) -> Result<BTreeMap<String, LogIndex>, Misfit> {
        let mut cursors = stored.clone();
        for (name, at) in &self.cursors {
            if name.is_empty() || name.len() > Self::CURSOR_NAME_BYTES_MAX {
                return Err(Misfit::CursorName { len: name.len() });
            }
            match at {
                Some(at) => cursors.insert(name.clone(), *at),
                None => cursors.remove(name),
            };
        }
        if cursors.len() > Self::CURSORS_MAX {
            let max = Self::CURSORS_MAX;
            return Err(Misfit::TooManyCursors { max });
        }
        Ok(cursors)
    }
}

/// Whose store it is, and what it knows of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose it is; none before it is somebody's.
    pub node: Option<NodeId>,
    /// Its name, drawn when it was made.
    pub incarnation: Incarnation,
    /// How often it was opened, this time included. Durable before the store is handed out, so that a
    /// peer can tell an old copy.
    pub starts: u64,
    /// The cluster, once one is born.
    pub cluster: Option<ClusterId>,
    /// What was recorded last of the members, once anything was: what the node goes by until its log says more. (The
    /// members of a store that an earlier version wrote have no addresses.)
    pub known: Option<Configuration>,
}

impl Identity {
    /// Whether its node was a member, and is none any more, for good: it has recorded so. It must not start.
    #[must_use]
    pub fn has_departed(&self) -> bool {
        has_departed(self.node, self.known.as_ref())
    }
}

/// Whether who is `known` to belong to the cluster says that `node` does not any more.
pub(crate) fn has_departed(node: Option<NodeId>, known: Option<&Configuration>) -> bool {
    node.zip(known)
        .is_some_and(|(node, known)| known.has_departed(node))
}

/// Ids begin with 1: where one is stored, 0 is none.
pub(crate) fn check_id(node: Option<NodeId>) -> Result<(), Misfit> {
    match node {
        Some(NodeId(0)) => Err(ChangeError::NodeIdZero.into()),
        _ => Ok(()),
    }
}

/// A store as it was found.
pub struct Opened {
    /// The store.
    pub store: Box<dyn LogStore>,
    /// For [`raft_core`].
    pub recovered: Recovered,
    /// Whose it is.
    pub identity: Identity,
    /// How far each named reader of the log has come.
    pub cursors: BTreeMap<String, LogIndex>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("hard_state", &self.recovered.hard_state)
            .field("last", &self.recovered.last)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A new folder's name.
pub(crate) fn random_incarnation() -> Result<Incarnation, crate::OpenError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(crate::OpenError::NoRandomness)?;
    Ok(Incarnation(u128::from_be_bytes(bytes)))
}
