//! What parent and child say to each other: one line of JSON each, over the child's standard input and output.

use serde::{Deserialize, Serialize};

/// From the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answered by [`Answer::State`].
    State,
    /// Propose in a closed loop: answered by [`Answer::Opened`] when the warm-up is over, by [`Answer::Closed`] at the
    /// end of the window, and by [`Answer::Measured`].
    Measure(Load),
    /// End in order: answered by [`Answer::Ended`].
    End,
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// How many clients, each with one proposal on its way.
    pub(crate) clients: usize,
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
    /// The node as it sees itself.
    State(State),
    /// The window is open.
    Opened,
    /// The window is closed.
    Closed,
    /// What was measured.
    Measured(Measured),
    /// The node has ended in order.
    Ended,
    /// It cannot be done.
    Failed(String),
}

/// A node as it sees itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Whether it takes part.
    pub(crate) running: bool,
    /// Whether it leads.
    pub(crate) leads: bool,
    /// Who leads.
    pub(crate) leader: Option<u64>,
    /// The current term.
    pub(crate) term: u64,
    /// How many commands its subscriber has been handed.
    pub(crate) delivered: u64,
}

/// What the clients of one load saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Commits inside the window.
    pub(crate) commits: u64,
    /// Commits in all, warm-up included.
    pub(crate) commits_in_all: u64,
    /// How long the window was, in seconds.
    pub(crate) seconds: f64,
    /// Half of the commits in the window took at most this long, in microseconds.
    pub(crate) median_us: u64,
    /// 99 of 100.
    pub(crate) p99_us: u64,
    /// The slowest.
    pub(crate) max_us: u64,
    /// Proposals that were not committed, warm-up included.
    pub(crate) errors: u64,
    /// The first of their errors.
    pub(crate) first_error: Option<String>,
}
