//! What a node counts and measures, through the [`metrics`](https://docs.rs/metrics) facade.
//!
//! A program that installs a recorder (of Prometheus, say) **before it spawns a node** gets all of this; without
//! one each costs a branch. Every metric has the label `node`, the id of the node in this process that it is of.
//! Counters begin with 0 at the node's start.
//!
//! | name | kind | unit | labels | meaning |
//! |---|---|---|---|---|
//! | `raft_proposals_total` | counter | | `outcome` | proposals of this process that were answered, by what was said: `committed`, `refused` (by the state machine), `cancelled`, `forgotten` (applied before), `session_expired`, `too_many_sessions`, `too_large`, `invalid`, `busy`, `no_leader`, `superseded`, `shutting_down`, `failed`, `unknown` |
//! | `raft_proposal_duration_seconds` | histogram | s | | from a proposal's being taken in until its being known to be committed, on the node that was asked |
//! | `raft_proposals_waiting` | gauge | | | proposals of this process that wait for their outcome |
//! | `raft_term` | gauge | | | the current term |
//! | `raft_is_leader` | gauge | | | 1 if the node leads, else 0; the sum over a cluster is 1 |
//! | `raft_has_leader` | gauge | | | 1 if the node takes part and knows a leader, else 0 |
//! | `raft_leader_changes_total` | counter | | | how often the node has learned of a leader that was not the one before |
//! | `raft_last_index` | gauge | | | the last entry of the node's log |
//! | `raft_durable_index` | gauge | | | the last entry that is on the node's disk |
//! | `raft_commit_index` | gauge | | | the last entry known to be committed |
//! | `raft_applied_index` | gauge | | | the last entry applied |
//! | `raft_log_start_index` | gauge | | | the last entry that the log does not hold any more |
//! | `raft_snapshot_index` | gauge | | | the last entry that the node's snapshot covers |
//! | `raft_write_duration_seconds` | histogram | s | | from handing entries or votes to the storage until they are on the disk, of the oldest of each synced batch |
//! | `raft_write_batch_size` | histogram | | | writes in each synced batch |
//! | `raft_log_appended_bytes_total` | counter | bytes | | bytes of entries handed to the storage |
//! | `raft_unapplied_bytes` | gauge | bytes | | bytes of committed entries that wait in memory to be applied |
//! | `raft_apply_duration_seconds` | histogram | s | | how long applying took at a stretch, up to the entry that was committed last |
//! | `raft_sessions` | gauge | | | sessions that are open in the cluster, as of the last entry applied here |
//! | `raft_subscribers` | gauge | | | subscriptions that are served |
//! | `raft_subscriber_lag_entries` | gauge | | | entries that are applied here and not handled yet by the subscriber that is furthest behind |
//! | `raft_snapshots_total` | counter | | `event` | what happened to snapshots: `taken`, `not_taken` (an error), `sent`, `not_sent`, `received` |
//! | `raft_snapshot_duration_seconds` | histogram | s | | how long it took to write a snapshot to its file |
//! | `raft_tls_certificate_left_seconds` | gauge | s | | how long the node's own certificate is still valid; 0 once it has expired, infinite without TLS |
//! | `raft_tls_reloads_total` | counter | | `outcome` | how often changed TLS files were put to use (`loaded`), or were no good (`failed`) |
//! | `raft_peer_messages_total` | counter | | `peer` | messages of the protocol that the peer sent and the protocol took in |
//! | `raft_failure_tolerance` | gauge | | | how many more voters may fail before nothing can be committed; not a number on a node that does not lead, or has just begun to |
//! | `raft_failure_tolerance_possible` | gauge | | | how many may if all are healthy; not a number on a node that does not lead |
//! | `raft_voters` | gauge | | | voters, by the last configuration in the node's log |
//! | `raft_learners` | gauge | | | members that do not vote, by the same |
//! | `raft_member_healthy` | gauge | | `peer` | 1 if the leader has heard the peer lately, feeds it with entries, and finds it close behind, else 0; not a number on a node that does not lead |
//! | `raft_changes_total` | counter | | `outcome` | changes of the membership that the node, leading, was to make, by what came of them: `committed`, `unneeded` (it was so already), `refused`, `timed_out` (before it could begin), `deposed` (the node leads no more, and the next leader knows) |
//! | `raft_refused_total` | counter | | `what`, `reason` | what peers and strangers sent and the node did not take, by what was wrong with it: a `connection` that was turned away or broke off in its handshake, a `frame` that is none, a `message` that no working node could have sent, a `snapshot`, a `refusal` that cannot be |
//! | `raft_peer_connected` | gauge | | `peer` | 1 if there is a connection to the peer, else 0 |
//! | `raft_peer_urgent_connected` | gauge |  | `peer` | 1 if votes and heartbeats have a connection of their own to the peer, else 0: then they take the other |
//! | `raft_peer_round_trip_seconds` | gauge | s | `peer` | how long the peer took to answer the last ping, or has not answered the next one, if that is longer; 0 without a connection |
//! | `raft_peer_round_trip_smoothed_seconds` | gauge | s | `peer` | the average of the last answers; 0 without a connection |
//! | `raft_peer_lag_entries` | gauge | | `peer` | entries of the leader's log that the peer has not acknowledged; 0 on a node that does not lead |
//! | `raft_peer_queue_frames` | gauge | | `peer` | frames that wait to be sent to the peer, on both connections |
//! | `raft_peer_queue_bytes` | gauge | bytes | `peer` | their bytes |
//! | `raft_peer_queue_frames_max` | gauge |  | `peer` | the most frames that ever waited on one of the two connections |
//! | `raft_peer_queue_bytes_max` | gauge | bytes | `peer` | the most bytes that ever did |
//! | `raft_peer_sent_bytes_total` | counter | bytes | `peer` | bytes handed to the system for the peer |
//! | `raft_peer_sent_frames_total` | counter |  | `peer` | frames handed to the system for the peer |
//! | `raft_peer_dials_total` | counter |  | `peer` | times that the peer was dialled; those that led to no connection failed or were refused |
//! | `raft_peer_connects_total` | counter | | `peer` | connections made to the peer; all but the first are reconnects |
//! | `raft_peer_refusals_total` | counter |  | `peer` | dials that ended with a refusal, by the peer or by this node |
//! | `raft_peer_dropped_frames_total` | counter | | `peer`, `reason` | frames for the peer that were not sent, and why: `full`, `not_connected`, `too_large`, `lost`; what matters is sent again |
//!
//! Gauges, and counters by peer, are brought up to date each 100 ms.
//!
//! Invariants:
//! - A name stands in [`METRICS`] and in the table above, or it does not exist; a test holds the three together.
//! - Nothing is counted entry by entry but outcomes of proposals, each of which has a caller who waits for it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ::metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use raft_core::membership::Configuration;
use raft_core::{NodeId, Role, Status};
use raft_net::{PeerStats, TlsStats};

use crate::ledger::Settlement;
use crate::proposals::Outcome;
use crate::{ProposeError, Tolerance};

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Of many, how many were how large.
    Histogram,
}

/// A metric as it is documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels beside `node`.
    pub labels: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    meaning: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        unit,
        labels,
        meaning,
    }
}

/// Every metric that a node emits.
pub const METRICS: [Metric; 48] = [
    metric(
        "raft_proposals_total",
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "proposals of this process that were answered, by what was said: committed, refused (by the state machine), cancelled, forgotten (applied before), session_expired, too_many_sessions, too_large, invalid, busy, no_leader, superseded, shutting_down, failed, unknown",
    ),
    metric(
        "raft_proposal_duration_seconds",
        Kind::Histogram,
        Unit::Seconds,
        &[],
        "from a proposal's being taken in until its being known to be committed, on the node that was asked",
    ),
    metric(
        "raft_proposals_waiting",
        Kind::Gauge,
        Unit::Count,
        &[],
        "proposals of this process that wait for their outcome",
    ),
    metric(
        "raft_term",
        Kind::Gauge,
        Unit::Count,
        &[],
        "the current term",
    ),
    metric(
        "raft_is_leader",
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 if the node leads, else 0; the sum over a cluster is 1",
    ),
    metric(
        "raft_has_leader",
        Kind::Gauge,
        Unit::Count,
        &[],
        "1 if the node takes part and knows a leader, else 0",
    ),
    metric(
        "raft_leader_changes_total",
        Kind::Counter,
        Unit::Count,
        &[],
        "how often the node has learned of a leader that was not the one before",
    ),
    metric(
        "raft_last_index",
        Kind::Gauge,
        Unit::Count,
        &[],
        "the last entry of the node's log",
    ),
    metric(
        "raft_durable_index",
        Kind::Gauge,
        Unit::Count,
        &[],
        "the last entry that is on the node's disk",
    ),
    metric(
        "raft_commit_index",
        Kind::Gauge,
        Unit::Count,
        &[],
        "the last entry known to be committed",
    ),
    metric(
        "raft_applied_index",
        Kind::Gauge,
        Unit::Count,
        &[],
        "the last entry applied",
    ),
    metric(
        "raft_log_start_index",
        Kind::Gauge,
        Unit::Count,
        &[],
        "the last entry that the log does not hold any more",
    ),
    metric(
        "raft_snapshot_index",
        Kind::Gauge,
        Unit::Count,
        &[],
        "the last entry that the node's snapshot covers",
    ),
    metric(
        "raft_write_duration_seconds",
        Kind::Histogram,
        Unit::Seconds,
        &[],
        "from handing entries or votes to the storage until they are on the disk, of the oldest of each synced batch",
    ),
    metric(
        "raft_write_batch_size",
        Kind::Histogram,
        Unit::Count,
        &[],
        "writes in each synced batch",
    ),
    metric(
        "raft_log_appended_bytes_total",
        Kind::Counter,
        Unit::Bytes,
        &[],
        "bytes of entries handed to the storage",
    ),
    metric(
        "raft_unapplied_bytes",
        Kind::Gauge,
        Unit::Bytes,
        &[],
        "bytes of committed entries that wait in memory to be applied",
    ),
    metric(
        "raft_apply_duration_seconds",
        Kind::Histogram,
        Unit::Seconds,
        &[],
        "how long applying took at a stretch, up to the entry that was committed last",
    ),
    metric(
        "raft_sessions",
        Kind::Gauge,
        Unit::Count,
        &[],
        "sessions that are open in the cluster, as of the last entry applied here",
    ),
    metric(
        "raft_subscribers",
        Kind::Gauge,
        Unit::Count,
        &[],
        "subscriptions that are served",
    ),
    metric(
        "raft_subscriber_lag_entries",
        Kind::Gauge,
        Unit::Count,
        &[],
        "entries that are applied here and not handled yet by the subscriber that is furthest behind",
    ),
    metric(
        "raft_snapshots_total",
        Kind::Counter,
        Unit::Count,
        &["event"],
        "what happened to snapshots: taken, not_taken (an error), sent, not_sent, received",
    ),
    metric(
        "raft_snapshot_duration_seconds",
        Kind::Histogram,
        Unit::Seconds,
        &[],
        "how long it took to write a snapshot to its file",
    ),
    metric(
        "raft_tls_certificate_left_seconds",
        Kind::Gauge,
        Unit::Seconds,
        &[],
        "how long the node's own certificate is still valid; 0 once it has expired, infinite without TLS",
    ),
    metric(
        "raft_tls_reloads_total",
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "how often changed TLS files were put to use (loaded), or were no good (failed)",
    ),
    metric(
        "raft_peer_messages_total",
        Kind::Counter,
        Unit::Count,
        &["peer"],
        "messages of the protocol that the peer sent and the protocol took in",
    ),
    metric(
        "raft_failure_tolerance",
        Kind::Gauge,
        Unit::Count,
        &[],
        "how many more voters may fail before nothing can be committed; not a number on a node that does not lead, or has just begun to",
    ),
    metric(
        "raft_failure_tolerance_possible",
        Kind::Gauge,
        Unit::Count,
        &[],
        "how many may if all are healthy; not a number on a node that does not lead",
    ),
    metric(
        "raft_voters",
        Kind::Gauge,
        Unit::Count,
        &[],
        "voters, by the last configuration in the node's log",
    ),
    metric(
        "raft_learners",
        Kind::Gauge,
        Unit::Count,
        &[],
        "members that do not vote, by the same",
    ),
    metric(
        "raft_member_healthy",
        Kind::Gauge,
        Unit::Count,
        &["peer"],
        "1 if the leader has heard the peer lately, feeds it with entries, and finds it close behind, else 0; not a number on a node that does not lead",
    ),
    metric(
        "raft_changes_total",
        Kind::Counter,
        Unit::Count,
        &["outcome"],
        "changes of the membership that the node, leading, was to make, by what came of them: committed, unneeded (it was so already), refused, timed_out (before it could begin), deposed (the node leads no more, and the next leader knows)",
    ),
    metric(
        "raft_refused_total",
        Kind::Counter,
        Unit::Count,
        &["what", "reason"],
        "what peers and strangers sent and the node did not take, by what was wrong with it: a connection that was turned away or broke off in its handshake, a frame that is none, a message that no working node could have sent, a snapshot, a refusal that cannot be",
    ),
    metric(
        "raft_peer_connected",
        Kind::Gauge,
        Unit::Count,
        &["peer"],
        "1 if there is a connection to the peer, else 0",
    ),
    metric(
        "raft_peer_urgent_connected",
        Kind::Gauge,
        Unit::Count,
        &["peer"],
        "1 if votes and heartbeats have a connection of their own to the peer, else 0: then they take the other",
    ),
    metric(
        "raft_peer_round_trip_seconds",
        Kind::Gauge,
        Unit::Seconds,
        &["peer"],
        "how long the peer took to answer the last ping, or has not answered the next one, if that is longer; 0 without a connection",
    ),
    metric(
        "raft_peer_round_trip_smoothed_seconds",
        Kind::Gauge,
        Unit::Seconds,
        &["peer"],
        "the average of the last answers; 0 without a connection",
    ),
    metric(
        "raft_peer_lag_entries",
        Kind::Gauge,
        Unit::Count,
        &["peer"],
        "entries of the leader's log that the peer has not acknowledged; 0 on a node that does not lead",
    ),
    metric(
        "raft_peer_queue_frames",
        Kind::Gauge,
        Unit::Count,
        &["peer"],
        "frames that wait to be sent to the peer, on both connections",
    ),
    metric(
        "raft_peer_queue_bytes",
        Kind::Gauge,
        Unit::Bytes,
        &["peer"],
        "their bytes",
    ),
    metric(
        "raft_peer_queue_frames_max",
        Kind::Gauge,
        Unit::Count,
        &["peer"],
        "the most frames that ever waited on one of the two connections",
    ),
    metric(
        "raft_peer_queue_bytes_max",
        Kind::Gauge,
        Unit::Bytes,
        &["peer"],
        "the most bytes that ever did",
    ),
    metric(
        "raft_peer_sent_bytes_total",
        Kind::Counter,
        Unit::Bytes,
        &["peer"],
        "bytes handed to the system for the peer",
    ),
    metric(
        "raft_peer_sent_frames_total",
        Kind::Counter,
        Unit::Count,
        &["peer"],
        "frames handed to the system for the peer",
    ),
    metric(
        "raft_peer_dials_total",
        Kind::Counter,
        Unit::Count,
        &["peer"],
        "times that the peer was dialled; those that led to no connection failed or were refused",
    ),
    metric(
        "raft_peer_connects_total",
        Kind::Counter,
        Unit::Count,
        &["peer"],
        "connections made to the peer; all but the first are reconnects",
    ),
    metric(
        "raft_peer_refusals_total",
        Kind::Counter,
        Unit::Count,
        &["peer"],
        "dials that ended with a refusal, by the peer or by this node",
    ),
    metric(
        "raft_peer_dropped_frames_total",
        Kind::Counter,
        Unit::Count,
        &["peer", "reason"],
        "frames for the peer that were not sent, and why: full, not_connected, too_large, lost; what matters is sent again",
    ),
];

/// Tells the recorder, if there is one, what all of it means.
pub(crate) fn describe() {
    for Metric {
        name,
        kind,
        unit,
        meaning,
        ..
    } in METRICS
    {
        match kind {
            Kind::Counter => ::metrics::describe_counter!(name, unit, meaning),
            Kind::Gauge => ::metrics::describe_gauge!(name, unit, meaning),
            Kind::Histogram => ::metrics::describe_histogram!(name, unit, meaning),
        }
    }
}

/// A gauge takes a float, which is exact up to 2^53: further than any log will come.
#[allow(clippy::cast_precision_loss)]
fn exact(number: u64) -> f64 {
    number as f64
}

/// Outcomes of the proposals of this process.
pub(crate) struct Proposals {
    outcomes: [Counter; OUTCOMES.len()],
    duration: Histogram,
}

/// The labels of outcomes.
const OUTCOMES: [&str; 14] = [
    "committed",
    "refused",
    "cancelled",
    "forgotten",
    "session_expired",
    "too_many_sessions",
    "too_large",
    "invalid",
    "busy",
    "no_leader",
    "superseded",
    "shutting_down",
    "failed",
    "unknown",
];

impl Proposals {
    pub(crate) fn new(id: NodeId) -> Self {
        let id = id.to_string();
        let count = |outcome: &'static str| {
            let counter =
                counter!("raft_proposals_total", "node" => id.clone(), "outcome" => outcome);
            counter.increment(0);
            counter
        };
        Self {
            outcomes: OUTCOMES.map(count),
            duration: histogram!("raft_proposal_duration_seconds", "node" => id.clone()),
        }
    }

    /// A proposal that was taken in so long ago is answered.
    pub(crate) fn answered(&self, outcome: &Outcome, took: Duration) {
        match outcome {
            Ok(settled) => self.count(match &settled.settlement {
                Settlement::Applied { answer: Err(_), .. } => "refused",
                Settlement::Applied { .. } | Settlement::Opened { .. } | Settlement::Closed => {
                    self.duration.record(took);
                    "committed"
                }
                Settlement::Cancelled { .. } => "cancelled",
                Settlement::AnswerForgotten { .. } | Settlement::Acknowledged => "forgotten",
                Settlement::SessionExpired => "session_expired",
                Settlement::TooManySessions => "too_many_sessions",
                Settlement::BeyondWindow { .. } | Settlement::Malformed => "invalid",
            }),
            Err(error) => self.refused(error),
        }
    }

    /// A proposal is answered with an error.
    pub(crate) fn refused(&self, error: &ProposeError) {
        self.count(match error {
            ProposeError::TooLarge { .. } => "too_large",
            ProposeError::Busy => "busy",
            ProposeError::NoLeader { .. } => "no_leader",
            ProposeError::Superseded => "superseded",
            ProposeError::ShuttingDown => "shutting_down",
            ProposeError::Failed(_) => "failed",
            ProposeError::Refused { .. } => "refused",
            ProposeError::Cancelled => "cancelled",
            ProposeError::SessionExpired(_) => "session_expired",
            ProposeError::TooManySessions => "too_many_sessions",
            ProposeError::Done(_) | ProposeError::ResponseForgotten { .. } => "forgotten",
            ProposeError::BeyondWindow(_)
            | ProposeError::SequenceZero
            | ProposeError::Malformed => "invalid",
            ProposeError::Unknown { .. } => "unknown",
        });
    }

    fn count(&self, outcome: &'static str) {
        let at = OUTCOMES.iter().position(|label| *label == outcome);
        debug_assert!(at.is_some(), "{outcome} has no counter");
        if let Some(at) = at {
            self.outcomes[at].increment(1);
        }
    }
}

/// What happens to snapshots.
#[derive(Clone, Copy)]
pub(crate) enum SnapshotEvent {
    Taken,
    NotTaken,
    Sent,
    NotSent,
    Received,
}

/// The labels of [`SnapshotEvent`]s, in their order.
const SNAPSHOT_EVENTS: [&str; 5] = ["taken", "not_taken", "sent", "not_sent", "received"];

/// How applying goes, and who is handed what is applied.
pub(crate) struct DeliveryMetrics {
    apply_duration: Histogram,
    sessions: Gauge,
    subscribers: Gauge,
    subscriber_lag: Gauge,
}

impl DeliveryMetrics {
    pub(crate) fn new(id: NodeId) -> Self {
        let node = id.to_string();
        let gauge = |name: &'static str| gauge!(name, "node" => node.clone());
        Self {
            apply_duration: histogram!("raft_apply_duration_seconds", "node" => node.clone()),
            sessions: gauge("raft_sessions"),
            subscribers: gauge("raft_subscribers"),
            subscriber_lag: gauge("raft_subscriber_lag_entries"),
        }
    }

    /// What was committed is applied.
    pub(crate) fn applied(&self, took: Duration) {
        self.apply_duration.record(took);
    }

    pub(crate) fn sample(&self, sessions: usize, subscribers: usize, lag: u64) {
        self.sessions.set(exact(sessions as u64));
        self.subscribers.set(exact(subscribers as u64));
        self.subscriber_lag.set(exact(lag));
    }
}

/// What came of a change of the membership.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChangeOutcome {
    Committed,
    Unneeded,
    Refused,
    TimedOut,
    Deposed,
}

/// Their labels, in the same order.
const CHANGE_OUTCOMES: [&str; 5] = ["committed", "unneeded", "refused", "timed_out", "deposed"];

/// How the node stands, and how its disk does.
pub(crate) struct NodeMetrics {
    proposals_waiting: Gauge,
    term: Gauge,
    is_leader: Gauge,
    has_leader: Gauge,
    leader_changes: Counter,
    last: Gauge,
    durable: Gauge,
    commit: Gauge,
    applied: Gauge,
    log_start: Gauge,
    snapshot: Gauge,
    write_duration: Histogram,
    write_batches: Histogram,
    appended_bytes: Counter,
    unapplied_bytes: Gauge,
    snapshots: [Counter; SNAPSHOT_EVENTS.len()],
    snapshot_duration: Histogram,
    tolerance: Gauge,
    tolerance_possible: Gauge,
    voters: Gauge,
    learners: Gauge,
    changes: [Counter; CHANGE_OUTCOMES.len()],
    tls_left: Gauge,
    tls_loaded: Counter,
    tls_failed: Counter,
    peers: BTreeMap<NodeId, PeerMetrics>,
    id: NodeId,
}

impl NodeMetrics {
    pub(crate) fn new(id: NodeId) -> Self {
        let node = id.to_string();
        let gauge = |name: &'static str| gauge!(name, "node" => node.clone());
        let count = |name: &'static str| {
            let counter = counter!(name, "node" => node.clone());
            counter.increment(0);
            counter
        };
        let reloads = |outcome: &'static str| {
            let counter =
                counter!("raft_tls_reloads_total", "node" => node.clone(), "outcome" => outcome);
            counter.increment(0);
            counter
        };
        Self {
            proposals_waiting: gauge("raft_proposals_waiting"),
            term: gauge("raft_term"),
            is_leader: gauge("raft_is_leader"),
            has_leader: gauge("raft_has_leader"),
            leader_changes: count("raft_leader_changes_total"),
            last: gauge("raft_last_index"),
            durable: gauge("raft_durable_index"),
            commit: gauge("raft_commit_index"),
            applied: gauge("raft_applied_index"),
            log_start: gauge("raft_log_start_index"),
            snapshot: gauge("raft_snapshot_index"),
            write_duration: histogram!("raft_write_duration_seconds", "node" => node.clone()),
            write_batches: histogram!("raft_write_batch_size", "node" => node.clone()),
            appended_bytes: count("raft_log_appended_bytes_total"),
            unapplied_bytes: gauge("raft_unapplied_bytes"),
            snapshots: SNAPSHOT_EVENTS.map(|event| {
                let counter =
                    counter!("raft_snapshots_total", "node" => node.clone(), "event" => event);
                counter.increment(0);
                counter
            }),
            snapshot_duration: histogram!("raft_snapshot_duration_seconds", "node" => node.clone()),
            tolerance: gauge("raft_failure_tolerance"),
            tolerance_possible: gauge("raft_failure_tolerance_possible"),
            voters: gauge("raft_voters"),
            learners: gauge("raft_learners"),
            changes: CHANGE_OUTCOMES.map(|outcome| {
                let counter =
                    counter!("raft_changes_total", "node" => node.clone(), "outcome" => outcome);
                counter.increment(0);
                counter
            }),
            tls_left: gauge("raft_tls_certificate_left_seconds"),
            tls_loaded: reloads("loaded"),
            tls_failed: reloads("failed"),
            peers: BTreeMap::new(),
            id,
        }
    }

    /// The node has learned of another leader than the one that it knew last.
    pub(crate) fn leader_changed(&self) {
        self.leader_changes.increment(1);
    }

    /// Entries of so many bytes are handed to the storage.
    pub(crate) fn appended(&self, bytes: u64) {
        self.appended_bytes.increment(bytes);
    }

    /// So many writes were made durable with one sync, the first of which was handed over so long ago.
    pub(crate) fn written(&self, writes: u32, took: Duration) {
        self.write_batches.record(writes);
        self.write_duration.record(took);
    }

    /// Something happened to a snapshot.
    pub(crate) fn snapshot_event(&self, event: SnapshotEvent) {
        self.snapshots[event as usize].increment(1);
    }

    /// A snapshot was written.
    pub(crate) fn snapshot_written(&self, took: Duration) {
        self.snapshot_duration.record(took);
    }

    /// This node, as the leader, was to change the membership.
    pub(crate) fn membership_changed(&self, outcome: ChangeOutcome) {
        self.changes[outcome as usize].increment(1);
    }

    /// Who belongs to the cluster, and how many voters may fail, if that is known.
    pub(crate) fn sample_membership(
        &self,
        configuration: &Configuration,
        leads: bool,
        tolerance: Option<&Tolerance>,
    ) {
        let voters = configuration.voters.len();
        self.voters.set(exact(voters as u64));
        let learners = configuration.members().len() - voters;
        self.learners.set(exact(learners as u64));
        let now = tolerance.map_or(f64::NAN, |tolerance| exact(tolerance.now as u64));
        self.tolerance.set(now);
        let possible = voters.saturating_sub(1) / 2;
        let possible = if leads {
            exact(possible as u64)
        } else {
            f64::NAN
        };
        self.tolerance_possible.set(possible);
    }

    /// Committed entries of so many bytes wait to be applied.
    pub(crate) fn sample_unapplied(&self, bytes: usize) {
        self.unapplied_bytes.set(exact(bytes as u64));
    }

    /// Brings the gauges up to date. Without a status the node takes no part.
    pub(crate) fn sample(&self, status: Option<&Status>, applied: u64, waiting: usize) {
        self.proposals_waiting.set(exact(waiting as u64));
        self.applied.set(exact(applied));
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        self.is_leader.set(flag(
            status.is_some_and(|status| status.role == Role::Leader),
        ));
        self.has_leader
            .set(flag(status.is_some_and(|status| status.leader.is_some())));
        let Some(status) = status else { return };
        self.term.set(exact(status.term.0));
        self.last.set(exact(status.last.index.0));
        self.durable.set(exact(status.durable.0));
        self.commit.set(exact(status.commit.0));
        self.log_start.set(exact(status.log_start.index.0));
        self.snapshot.set(exact(status.snapshot.index.0));
    }

    /// The same for the TLS files, if there are any.
    pub(crate) fn sample_tls(&self, tls: Option<TlsStats>) {
        let left = tls.map_or(f64::INFINITY, |tls| {
            let left = tls.not_after.duration_since(SystemTime::now());
            left.unwrap_or_default().as_secs_f64()
        });
        self.tls_left.set(left);
        if let Some(tls) = tls {
            self.tls_loaded.absolute(tls.reloads);
            self.tls_failed.absolute(tls.reloads_failed);
        }
    }

    /// The same for a peer, which may be new.
    pub(crate) fn sample_peer(
        &mut self,
        peer: NodeId,
        stats: &PeerStats,
        lag: u64,
        healthy: Option<bool>,
    ) {
        let id = self.id;
        let metrics = self
            .peers
            .entry(peer)
            .or_insert_with(|| PeerMetrics::new(id, peer));
        metrics.sample(stats, lag, healthy);
    }

    /// Nothing is between the node and this peer any more.
    pub(crate) fn forget_peer(&mut self, peer: NodeId) {
        if let Some(metrics) = self.peers.remove(&peer) {
            metrics.sample(&PeerStats::default(), 0, None);
        }
    }
}

/// What is between the node and one peer.
struct PeerMetrics {
    connected: Gauge,
    urgent_connected: Gauge,
    healthy: Gauge,
    round_trip: Gauge,
    round_trip_smoothed: Gauge,
    lag: Gauge,
    queue_frames: Gauge,
    queue_bytes: Gauge,
    queue_frames_max: Gauge,
    queue_bytes_max: Gauge,
    sent_bytes: Counter,
    sent_frames: Counter,
    dials: Counter,
    connects: Counter,
    refusals: Counter,
    dropped_full: Counter,
    dropped_not_connected: Counter,
    dropped_too_large: Counter,
    dropped_lost: Counter,
}

impl PeerMetrics {
    fn new(node: NodeId, peer: NodeId) -> Self {
        let (node, peer) = (node.to_string(), peer.to_string());
        let gauge =
            |name: &'static str| gauge!(name, "node" => node.clone(), "peer" => peer.clone());
        let count =
            |name: &'static str| counter!(name, "node" => node.clone(), "peer" => peer.clone());
        let dropped = |reason: &'static str| counter!("raft_peer_dropped_frames_total", "node" => node.clone(), "peer" => peer.clone(), "reason" => reason);
        Self {
            connected: gauge("raft_peer_connected"),
            urgent_connected: gauge("raft_peer_urgent_connected"),
            healthy: gauge("raft_member_healthy"),
            round_trip: gauge("raft_peer_round_trip_seconds"),
            round_trip_smoothed: gauge("raft_peer_round_trip_smoothed_seconds"),
            lag: gauge("raft_peer_lag_entries"),
            queue_frames: gauge("raft_peer_queue_frames"),
            queue_bytes: gauge("raft_peer_queue_bytes"),
            queue_frames_max: gauge("raft_peer_queue_frames_max"),
            queue_bytes_max: gauge("raft_peer_queue_bytes_max"),
            sent_bytes: count("raft_peer_sent_bytes_total"),
            sent_frames: count("raft_peer_sent_frames_total"),
            dials: count("raft_peer_dials_total"),
            connects: count("raft_peer_connects_total"),
            refusals: count("raft_peer_refusals_total"),
            dropped_full: dropped("full"),
            dropped_not_connected: dropped("not_connected"),
            dropped_too_large: dropped("too_large"),
            dropped_lost: dropped("lost"),
        }
    }

    fn sample(&self, stats: &PeerStats, lag: u64, healthy: Option<bool>) {
        let flag = |is: bool| if is { 1.0 } else { 0.0 };
        self.healthy.set(healthy.map_or(f64::NAN, flag));
        self.connected.set(flag(stats.connected));
        self.urgent_connected.set(flag(stats.urgent_connected));
        let trip = stats.round_trip;
        let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
        self.round_trip.set(seconds(trip.map(|trip| trip.last)));
        self.round_trip_smoothed
            .set(seconds(trip.map(|trip| trip.smoothed)));
        self.lag.set(exact(lag));
        self.queue_frames.set(exact(stats.queued_frames as u64));
        self.queue_bytes.set(exact(stats.queued_bytes as u64));
        self.queue_frames_max
            .set(exact(stats.queued_frames_max as u64));
        self.queue_bytes_max
            .set(exact(stats.queued_bytes_max as u64));
        self.sent_bytes.absolute(stats.bytes);
        self.sent_frames.absolute(stats.frames);
        self.dials.absolute(stats.dials);
        self.connects.absolute(stats.connects);
        self.refusals.absolute(stats.refusals);
        self.dropped_full.absolute(stats.dropped_full);
        self.dropped_not_connected
            .absolute(stats.dropped_not_connected);
        self.dropped_too_large.absolute(stats.dropped_too_large);
        self.dropped_lost.absolute(stats.dropped_lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table at the head of this file, which people read, says what [`METRICS`] says.
    #[test]
    fn the_table_is_complete() {
        let lines = include_str!("metrics.rs").lines();
        let table: Vec<_> = lines
            .filter(|line| line.starts_with("//! | `raft_"))
            .collect();
        assert_eq!(table.len(), METRICS.len());
        for (line, metric) in table.into_iter().zip(METRICS) {
            let unit = match metric.unit {
                Unit::Seconds => "s",
                Unit::Bytes => "bytes",
                _ => "",
            };
            let labels: Vec<_> = metric
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let row = [
                "",
                &format!("`{}`", metric.name),
                &kind,
                unit,
                &labels.join(", "),
                metric.meaning,
            ];
            let mut cells = line.trim_start_matches("//!").split('|').map(str::trim);
            for expected in row {
                let cell = cells.next().unwrap_or_default();
                let cell = if expected == metric.meaning {
                    cell.replace('`', "")
                } else {
                    cell.to_owned()
                };
                assert_eq!(cell, expected, "{line}");
            }
        }
    }
}
