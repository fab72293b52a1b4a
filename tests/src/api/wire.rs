//! What a replica is asked, and what it answers: a line of JSON each, over TCP on loopback.
//!
//! Several requests may be under way on a connection; an answer carries the number of its request.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::machine::{Command, Marks, Response};

/// One line to a replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The answer will carry it.
    pub number: u64,
    /// What is asked.
    pub ask: Ask,
}

/// One line from a replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Of the request.
    pub number: u64,
    /// What is answered.
    pub told: Result<Told, Refused>,
}

/// What a replica can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// A session of the client's own.
    OpenSession,
    /// A command.
    Propose {
        /// The command.
        command: Command,
        /// How it is named.
        name: Name,
        /// How long the node tries.
        timeout_ms: u64,
    },
    /// What register `key` holds.
    Read {
        /// Which.
        key: u64,
        /// Whatever this node has applied; else linearizable.
        stale: bool,
        /// How long the node tries.
        timeout_ms: u64,
    },
    /// What was added.
    Counter {
        /// As of a read.
        stale: bool,
    },
    /// How the node sees itself.
    Status,
    /// A subscriber that writes what it is handed into a file.
    Subscribe {
        /// The name of its cursor.
        cursor: String,
        /// Where it writes.
        file: PathBuf,
        /// It handles nothing until it is told to [go on](Ask::GoOn).
        stalled: bool,
    },
    /// A stalled subscriber begins to handle what it is handed.
    GoOn {
        /// The name of its cursor.
        cursor: String,
    },
    /// The subscription is ended; answered when its subscriber is gone.
    Unsubscribe {
        /// The name of its cursor.
        cursor: String,
    },
    /// A snapshot, now.
    Snapshot,
    /// A hash over the bulk, as this node has it.
    BulkHash,
    /// What the process has counted and measured.
    Metrics,
    /// The next answer of this node's state machine is false.
    Flip,
    /// Which numbers below this bound were marked, as this node has it.
    Marks {
        /// The bound.
        below: u64,
    },
    /// Who belongs to the cluster.
    Members,
    /// A change of the members.
    Change {
        /// Those that go.
        remove: Vec<u64>,
        /// Too few healthy voters are no hindrance.
        forced: bool,
    },
    /// The leadership is handed over.
    Transfer {
        /// To this node, or to the best.
        to: Option<u64>,
    },
    /// The node leaves the cluster, and its process ends.
    Leave,
    /// The process ends itself at this step of a join or of a leave.
    DieAt {
        /// Its name.
        step: String,
    },
    /// The node ends in order, and its process with it.
    Shutdown,
}

/// How a proposal is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// In a session of the client's own.
    Client {
        /// The session.
        session: u64,
        /// Its sequence there.
        sequence: u64,
        /// The client knows the outcomes of all sequences below.
        done_below: u64,
    },
    /// By the node.
    Node,
    /// Not at all.
    Nothing,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// A session is open.
    Session(u64),
    /// A command is applied.
    Applied {
        /// Where it stands in the log.
        index: u64,
        /// What the state machine said.
        response: Response,
    },
    /// A value, or a hash.
    Value(u64),
    /// How the node sees itself.
    Status(Status),
    /// What was counted and measured, by name and labels.
    Metrics(BTreeMap<String, u64>),
    /// Which numbers were marked.
    Marks(Marks),
    /// Who belongs to the cluster.
    Members(Membership),
    /// A subscription began, and nothing before this index is delivered.
    Subscribed(u64),
    /// It is done.
    Done,
}

/// Who belongs to the cluster, as its leader says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The leader.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// The entry that says who belongs to it.
    pub index: u64,
    /// Whether no change is under way.
    pub settled: bool,
    /// The members.
    pub members: Vec<Member>,
    /// How many voters may fail; none if the leader cannot know yet.
    pub tolerance: Option<u64>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// It decides.
    pub votes: bool,
    /// Where it is reached.
    pub address: String,
    /// It was heard, and is not far behind.
    pub healthy: bool,
}

/// How a node sees itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub id: u64,
    /// It leads.
    pub is_leader: bool,
    /// Who leads.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// How far it knows the log to be committed.
    pub commit: u64,
    /// How far it has applied.
    pub applied: u64,
    /// The last entry that its snapshot covers; 0 if it has none.
    pub snapshot: u64,
    /// It takes part.
    pub is_running: bool,
    /// Why it does not, if it failed.
    pub failure: Option<String>,
    /// It failed because its state is not the majority's.
    pub is_diverged: bool,
    /// To how many others it has a connection: they have taken it in as it is.
    pub connected: u64,
    /// It failed because it was removed.
    pub is_removed: bool,
}

/// No answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What was asked has had no effect, and will have none.
    pub for_certain: bool,
    /// Its session, or its name in it, is not known any more: asking again is of no use.
    pub for_good: bool,
    /// Why.
    pub why: String,
}
