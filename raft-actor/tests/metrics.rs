//! Every documented metric is emitted by a running cluster, and no other. A program of its own, for there is
//! one recorder in a process.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix::prelude::*;
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use raft_actor::metrics::{Kind, METRICS};
use raft_actor::{Delivered, Propose, ProposeError, Shutdown, Subscribe, TakeSnapshot};

mod support;

use support::{configs, spawn, until};

/// By name and labels: kind, whether it is described, and value.
type Recorded = BTreeMap<(String, BTreeMap<String, String>), (MetricKind, bool, DebugValue)>;

/// Adds what was recorded since the last look, which takes it out of the recorder.
fn look(snapshotter: &Snapshotter, all: &mut Recorded) {
    for (key, _, description, value) in snapshotter.snapshot().into_vec() {
        let (kind, key) = key.into_parts();
        let (name, labels) = key.into_parts();
        let labels = labels
            .iter()
            .map(|label| (label.key().to_owned(), label.value().to_owned()));
        let key = (name.as_str().to_owned(), labels.collect());
        let value = match (all.remove(&key), value) {
            (Some((.., DebugValue::Counter(old))), DebugValue::Counter(new)) => {
                DebugValue::Counter(old + new)
            }
            (Some((.., DebugValue::Histogram(mut old))), DebugValue::Histogram(new)) => {
                old.extend(new);
                DebugValue::Histogram(old)
            }
            (_, value) => value,
        };
        all.insert(key, (kind, description.is_some(), value));
    }
}

/// A subscriber.
struct Counter;

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Delivered> for Counter {
    type Result = ();

    fn handle(&mut self, _: Delivered, _: &mut Self::Context) {}
}

#[actix::test]
async fn every_documented_metric_is_emitted_and_no_other() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let configs: Vec<_> = configs(3)
        .into_iter()
        .map(|(config, disk)| (config.proposals_max(1, 1 << 20), disk))
        .collect();
    let nodes = spawn(&configs);
    let counter = Counter.start();
    nodes[0]
        .send(Subscribe::from_start(counter.recipient::<Delivered>()))
        .await
        .unwrap()
        .unwrap();
    for node in &nodes {
        for _ in 0..10 {
            node.send(Propose::new("x")).await.unwrap().unwrap();
        }
        let [first, second] = [1, 2].map(|_| node.send(Propose::new("at once")));
        let (first, second) = tokio::join!(first, second);
        assert!(first.unwrap().is_ok() && second.unwrap() == Err(ProposeError::Busy));
        let long = vec![0; 2 << 20];
        let refused = node.send(Propose::new(long)).await.unwrap().unwrap_err();
        assert!(matches!(refused, ProposeError::TooLarge { .. }));
    }
    nodes[0].send(TakeSnapshot).await.unwrap().unwrap();
    let mut all = Recorded::new();
    until("the gauges", async || {
        // A look takes gauges out too: they are there again a tenth of a second later.
        tokio::time::sleep(Duration::from_millis(300)).await;
        look(&snapshotter, &mut all);
        let applied = |(name, _): &(String, _)| name == "raft_applied_index";
        let applied: Vec<_> = all.iter().filter(|(key, _)| applied(key)).collect();
        let done =
            |value: &DebugValue| matches!(value, DebugValue::Gauge(index) if index.0 >= 34.0);
        (applied.len() == 3 && applied.iter().all(|(_, (_, _, value))| done(value))).then_some(())
    })
    .await;

    let found: BTreeSet<_> = all.keys().map(|(name, _)| name.as_str()).collect();
    let documented: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(found, documented);
    for ((name, labels), (kind, described, _)) in &all {
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
        let expected = match metric.kind {
            Kind::Counter => MetricKind::Counter,
            Kind::Gauge => MetricKind::Gauge,
            Kind::Histogram => MetricKind::Histogram,
        };
        assert_eq!(*kind, expected, "{name}");
        assert!(described, "{name}");
        let keys: BTreeSet<_> = labels.keys().map(String::as_str).collect();
        let documented = metric.labels.iter().copied().chain(["node"]).collect();
        assert_eq!(keys, documented, "{name}");
    }

    // Not only are they there: they say what happened.
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect();
        match &all[&(name.to_owned(), labels)].2 {
            DebugValue::Counter(count) => *count as f64,
            DebugValue::Gauge(value) => value.0,
            DebugValue::Histogram(values) => values.len() as f64,
        }
    };
    let ids = ["1", "2", "3"];
    let mut sent = 0.0;
    for id in ids {
        let outcome = |outcome| {
            value(
                "raft_proposals_total",
                &[("node", id), ("outcome", outcome)],
            )
        };
        assert_eq!(
            (outcome("committed"), outcome("too_large"), outcome("busy")),
            (11.0, 1.0, 1.0)
        );
        assert_eq!(value("raft_has_leader", &[("node", id)]), 1.0);
        assert!(value("raft_leader_changes_total", &[("node", id)]) >= 1.0);
        assert!(value("raft_log_appended_bytes_total", &[("node", id)]) >= 30.0);
        assert!(value("raft_commit_index", &[("node", id)]) >= 34.0);
        for peer in ids.iter().filter(|peer| **peer != id) {
            let of = |name| value(name, &[("node", id), ("peer", peer)]);
            assert_eq!(of("raft_peer_connected"), 1.0);
            assert!(of("raft_peer_connects_total") >= 1.0);
            assert_eq!(of("raft_peer_urgent_connected"), 1.0);
            let trips = [
                of("raft_peer_round_trip_seconds"),
                of("raft_peer_round_trip_smoothed_seconds"),
            ];
            assert!(
                trips.iter().all(|trip| *trip > 0.0 && *trip < 5.0),
                "{trips:?}"
            );
            // Two followers may have nothing to say to each other.
            sent += of("raft_peer_sent_bytes_total");
        }
    }
    let leaders: f64 = ids
        .iter()
        .map(|id| value("raft_is_leader", &[("node", id)]))
        .sum();
    assert_eq!(leaders, 1.0);
    for id in ids {
        let of = |name| value(name, &[("node", id)]);
        assert_eq!((of("raft_voters"), of("raft_learners")), (3.0, 0.0));
        // Only the leader knows who is well.
        let leads = of("raft_is_leader") == 1.0;
        let possible = of("raft_failure_tolerance_possible");
        assert_eq!(possible.is_nan(), !leads, "{possible}");
        assert!(!leads || possible == 1.0, "{possible}");
        assert!(leads || of("raft_failure_tolerance").is_nan());
        for peer in ids.iter().filter(|peer| **peer != id) {
            let healthy = value("raft_member_healthy", &[("node", id), ("peer", peer)]);
            assert_eq!(healthy.is_nan(), !leads, "{healthy}");
        }
    }
    assert!(sent > 0.0);
    let taken = |id| value("raft_snapshots_total", &[("node", id), ("event", "taken")]);
    assert_eq!((taken("1"), taken("2")), (1.0, 0.0));
    for (name, least) in [
        ("raft_snapshot_duration_seconds", 1.0),
        ("raft_snapshot_index", 2.0),
        ("raft_subscribers", 1.0),
        ("raft_sessions", 1.0),
        ("raft_apply_duration_seconds", 1.0),
        ("raft_proposal_duration_seconds", 10.0),
        ("raft_write_duration_seconds", 1.0),
    ] {
        let is = value(name, &[("node", "1")]);
        assert!(is >= least, "{name} is {is}");
    }
    assert_eq!(value("raft_subscribers", &[("node", "2")]), 0.0);
    for node in nodes {
        node.send(Shutdown).await.unwrap().unwrap();
    }
}
