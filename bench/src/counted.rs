//! What the nodes of this process count of themselves, taken from their metrics.
//!
//! Only what happens once for each synced batch is taken: a recorder that looked at each proposal would be measured with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use crate::protocol::Counted;

/// The metric that is recorded for each synced batch, with the number of writes in it.
const BATCHES: &str = "raft_write_batch_size";

/// The counts. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Batches>);

#[derive(Debug, Default)]
struct Batches {
    syncs: AtomicU64,
    writes: AtomicU64,
}

impl Counts {
    /// Has all nodes that start in this process from now on counted.
    pub(crate) fn install() -> Result<Self> {
        let counts = Self::default();
        metrics::set_global_recorder(counts.clone())
            .map_err(|_| anyhow!("metrics are recorded already"))?;
        Ok(counts)
    }

    /// What they have counted so far.
    pub(crate) fn now(&self) -> Counted {
        Counted {
            syncs: self.0.syncs.load(Ordering::Relaxed),
            writes: self.0.writes.load(Ordering::Relaxed),
        }
    }
}

impl HistogramFn for Batches {
    fn record(&self, writes: f64) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name() == BATCHES {
            Histogram::from_arc(Arc::clone(&self.0))
        } else {
            Histogram::noop()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_and_nothing_else() {
        let counts = Counts::default();
        metrics::with_local_recorder(&counts, || {
            metrics::histogram!(BATCHES, "node" => "1").record(3.0);
            metrics::histogram!(BATCHES, "node" => "2").record(4.0);
            metrics::histogram!("raft_apply_duration_seconds").record(5.0);
        });
        let Counted { syncs, writes } = counts.now();
        assert_eq!((syncs, writes), (2, 7));
        // A metric of another name would count nothing, and nobody would notice.
        let known = raft_actor::metrics::METRICS;
        assert!(known.iter().any(|metric| metric.name == BATCHES));
    }
}
