//! What parent and child say to each other: one line of JSON each, over the child's standard input and output.
//!
//! A child is a process with one node or, where nothing is to go over a wire, with all of them.

use serde::{Deserialize, Serialize};

/// From the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answered by [`Answer::States`].
    State,
    /// Have clients propose or read: answered by [`Answer::Opened`] when the warm-up is over, by [`Answer::Closed`] at
    /// the end of the window, and by [`Answer::Measured`].
    Measure(Load),
    /// Replay the log to a new subscriber: answered by [`Answer::Replayed`].
    Replay {
        /// Of which of the process's nodes.
        node: usize,
        /// How many commands the log holds.
        commands: u64,
    },
    /// End in order: answered by [`Answer::Ended`].
    End,
}

/// What clients ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// A command in the log.
    #[default]
    Propose,
    /// A linearizable read.
    Read,
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Which of the process's nodes is asked, by its place.
    pub(crate) node: usize,
    /// What is asked for.
    pub(crate) operation: Operation,
    /// How many clients. Of no meaning in an open loop.
    pub(crate) clients: usize,
    /// How many proposals each client has on its way at a time; in an open loop, how many there may be in all.
    pub(crate) in_flight: usize,
    /// How many are due each second; none for a closed loop.
    pub(crate) rate: Option<u64>,
    /// How many bytes each proposal has.
    pub(crate) payload: usize,
    /// How long the clients run before the window opens.
    pub(crate) warm_up_ms: u64,
    /// How long the window is open.
    pub(crate) window_ms: u64,
}

/// From a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The nodes as they see themselves.
    States(Vec<State>),
    /// The window is open; what had been counted by then.
    Opened(Counted),
    /// The window is closed; what had been counted by then.
    Closed(Counted),
    /// What was measured.
    Measured(Measured),
    /// How long a replay took.
    Replayed(Replayed),
    /// The nodes have ended in order.
    Ended,
    /// It cannot be done.
    Failed(String),
}

/// A node as it sees itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Its number.
    pub(crate) id: u64,
    /// Whether it takes part.
    pub(crate) running: bool,
    /// Whether it leads.
    pub(crate) leads: bool,
    /// Who leads.
    pub(crate) leader: Option<u64>,
    /// The current term.
    pub(crate) term: u64,
    /// The last entry that it has applied.
    pub(crate) applied: u64,
    /// How many commands the slowest of its subscribers has been handed; none without any.
    pub(crate) delivered: Option<u64>,
    /// What its process has counted.
    pub(crate) counted: Counted,
}

/// A replay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replayed {
    /// How many commands were delivered.
    pub(crate) deliveries: u64,
    /// From the subscription to the last of them.
    pub(crate) seconds: f64,
}

/// What the nodes of a process have counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Batches that were written to a log and synced.
    pub(crate) syncs: u64,
    /// Writes that these batches were gathered from.
    pub(crate) writes: u64,
}

/// What the clients of one load saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Commits, or reads, inside the window.
    pub(crate) commits: u64,
    /// And in all, warm-up included.
    pub(crate) commits_in_all: u64,
    /// How long the window was, in seconds.
    pub(crate) seconds: f64,
    /// How long the commits of the window took on average, in microseconds.
    pub(crate) mean_us: f64,
    /// Half of them took at most this long.
    pub(crate) median_us: u64,
    /// 90 of 100.
    pub(crate) p90_us: u64,
    /// 99 of 100.
    pub(crate) p99_us: u64,
    /// 999 of 1,000.
    pub(crate) p999_us: u64,
    /// The slowest.
    pub(crate) max_us: u64,
    /// Whether as many were answered as were due, but for one of 100. A closed loop has no rate to hold.
    pub(crate) held: bool,
    /// Questions that got no good answer, warm-up included.
    pub(crate) errors: u64,
    /// The first of their errors.
    pub(crate) first_error: Option<String>,
}
