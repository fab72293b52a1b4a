//! One node: the shipped core, a disk, and what its caller would hold.
//!
//! What a node does with an input depends on nothing but the node and the input, so a step is worked out once
//! and shared by all states of the cluster in which it happens (see `memo`). What a step says to the rest of
//! the cluster is its [`Outcome`].

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use raft_core::{
    Config, Entry, Input, LogIndex, NodeId, Raft, ReadId, RequestId, Role, SnapshotMeta, Term,
    membership::Configuration,
};

use crate::disk::{Disk, Log};
use crate::doing::Doing;
use crate::law::{Broken, Events, Law};
use crate::packet::{Packet, digest};

/// How all nodes of a model behave, beside the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Writes are durable at the end of the step that began them.
    pub syncs_at_once: bool,
    /// Pre-votes are granted on the spot, by everybody, whatever they know: any node may campaign at any time.
    pub pre_votes_granted: bool,
    /// See [`Disk::hasty`].
    pub hasty_disks: bool,
    /// That a message claims what is not durable is overlooked, to see what comes of it. For tests.
    pub lies_overlooked: bool,
}

/// What happens to one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// A packet arrives.
    Receive(Packet),
    /// The caller of the core tells it something.
    Step(Input),
    /// The disk makes its first writes durable, so many.
    Sync(usize),
    /// The node crashes, finds the first writes that were pending, so many, and starts again.
    Crash(usize),
    /// The oldest read of the log is answered.
    AnswerRead,
    /// A snapshot of what is applied is durable.
    TakeSnapshot,
}

/// What the node looks like from outside, worked out once.
#[derive(Clone, Debug)]
pub struct View {
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it follows.
    pub leader: Option<NodeId>,
    /// How far it calls the log committed.
    pub commit: LogIndex,
    /// The configuration in effect.
    pub configuration: Configuration,
    /// Where the leader has its peers, if it leads: what they have acknowledged.
    pub matched: Vec<(NodeId, LogIndex)>,
    /// Its log, with what is not durable yet.
    pub log: Log,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// The core.
    pub raft: Raft,
    /// Its disk.
    pub disk: Disk,
    /// How far its state machine is. The state itself is the committed log up to here.
    pub applied: LogIndex,
    /// Reads of the log that are not answered.
    pub reads: Vec<(RequestId, LogIndex, LogIndex, usize)>,
    /// What it looks like from outside.
    pub view: View,
    pub(crate) config: Config,
    digest: u64,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

/// What a step of one node means for the others, and for the history.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The node afterwards.
    pub node: Arc<Node>,
    /// What it sent.
    pub packets: Vec<Packet>,
    /// The entries that it applied, in order.
    pub applied: Vec<Entry>,
    /// The snapshots that it took or was restored from.
    pub snapshots: Vec<SnapshotMeta>,
    /// The reads that were answered, with the index that they must wait for.
    pub answered: Vec<(ReadId, LogIndex)>,
    /// The reads that failed.
    pub failed: Vec<ReadId>,
    /// What happened.
    pub events: Events,
    /// The law that was broken.
    pub broken: Option<Broken>,
}

impl Node {
    /// A node that starts from `disk`.
    ///
    /// # Errors
    /// The core refuses the configuration, or what the disk holds.
    pub fn start(config: Config, disk: Disk) -> Result<Self, Broken> {
        let raft = Raft::new(config.clone(), disk.recover()).map_err(|error| Broken {
            law: Law::Invariants,
            by: error.to_string(),
        })?;
        let applied = disk.snapshot_last().index;
        let view = View::of(&raft, &disk);
        let mut node = Self {
            raft,
            disk,
            applied,
            reads: Vec::new(),
            view,
            config,
            digest: 0,
        };
        node.settle();
        Ok(node)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Stands for all that it is.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Works out what follows from `happening`.
    #[must_use]
    pub fn step(&self, happening: &Happening, habits: &Habits) -> Outcome {
        let out = Outcome {
            node: Arc::new(self.clone()),
            packets: Vec::new(),
            applied: Vec::new(),
            snapshots: Vec::new(),
            answered: Vec::new(),
            failed: Vec::new(),
            events: Events::default(),
            broken: None,
        };
        let mut doing = Doing {
            node: self.clone(),
            habits,
            pre_votes: Vec::new(),
            out,
        };
        let done = catch_unwind(AssertUnwindSafe(|| {
            doing.happen(happening).and_then(|()| doing.finish())?;
            doing.node.settle();
            Ok(())
        }));
        doing.out.broken = match done {
            Ok(result) => result.err(),
            Err(panic) => Some(Broken {
                law: Law::NoPanic,
                by: words_of(&*panic),
            }),
        };
        if doing.out.broken.is_none() {
            doing.look_back(self);
        }
        doing.out.node = Arc::new(doing.node);
        doing.out
    }

    fn settle(&mut self) {
        self.view = View::of(&self.raft, &self.disk);
        self.digest = digest(&(
            &self.raft,
            &self.disk,
            self.applied,
            &self.reads,
            self.config.start,
        ));
    }
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    let fixed = || {
        panic
            .downcast_ref::<&str>()
            .map(|words| (*words).to_owned())
    };
    owned.or_else(fixed).unwrap_or_default()
}

impl View {
    fn of(raft: &Raft, disk: &Disk) -> Self {
        let status = raft.status();
        Self {
            role: status.role,
            term: status.term,
            leader: status.leader,
            commit: status.commit,
            configuration: Configuration::clone(&status.configuration),
            matched: status
                .peers
                .iter()
                .map(|peer| (peer.id, peer.matched))
                .collect(),
            log: disk.log_with_pending(),
        }
    }
}
