//! One measurement: a system, so many clients, and what came of it.

use serde::{Deserialize, Serialize};

use crate::load::Measured;

/// One measurement of one system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// How many clients.
    pub(crate) clients: usize,
    pub(crate) commits_per_s: f64,
    pub(crate) median_us: u64,
    pub(crate) p99_us: u64,
    /// CPU time of all processes of the system and of the clients, for each commit, in microseconds.
    pub(crate) cpu_us: f64,
    /// The same without the clients; None where they are in the system's own process.
    pub(crate) servers_cpu_us: Option<f64>,
    /// What others took of the machine's CPU in the window, 0 to 1.
    pub(crate) foreign: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Row {
    /// What a load process measured.
    pub(crate) fn of(clients: usize, measured: Measured, cores: usize) -> Self {
        let for_each = |us: u64| us as f64 / measured.commits.max(1) as f64;
        Self {
            clients,
            commits_per_s: measured.commits as f64 / measured.seconds,
            median_us: measured.median_us,
            p99_us: measured.p99_us,
            cpu_us: for_each(measured.cpu_us),
            servers_cpu_us: measured.servers_cpu_us.map(for_each),
            foreign: measured.foreign_cpu_us as f64 / (measured.seconds * 1e6 * cores as f64),
            errors: measured.errors,
            first_error: measured.first_error,
        }
    }
}

/// Which side of a turn was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// Ours, clients in the leader's process; or the memory mode, beside a peer that has only that.
    Ours,
    /// Ours, clients in a process of their own.
    Outside,
    /// The peer.
    Peer,
}

/// What came of one side of one turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// The round, from 0.
    pub(crate) round: usize,
    /// Beside which peer.
    pub(crate) peer: String,
    pub(crate) side: Side,
    pub(crate) rows: Vec<Row>,
    /// Why there is nothing, or not all.
    pub(crate) failed: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_for_each_commit() {
        let measured = Measured {
            commits: 1_000,
            seconds: 0.5,
            median_us: 7,
            p99_us: 9,
            max_us: 11,
            errors: 0,
            first_error: None,
            servers_cpu_us: Some(300_000),
            cpu_us: 500_000,
            foreign_cpu_us: 250_000,
        };
        let row = Row::of(4, measured, 2);
        assert_eq!(
            (row.commits_per_s, row.cpu_us, row.servers_cpu_us),
            (2_000.0, 500.0, Some(300.0))
        );
        assert_eq!(row.foreign, 0.25);
    }
}
