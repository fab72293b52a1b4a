//! Counters and gauges of a node's process, kept so that the process can be asked for them. Histograms are not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};

/// See the [module](self). Clones are the same recorder.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<BTreeMap<String, Arc<Value>>>>);

/// A counter, or a gauge without its fraction.
#[derive(Debug, Default)]
struct Value(AtomicU64);

impl Kept {
    /// All there is, by `name{label="value",…}` with the labels in order. The label `node` is left out: a process has
    /// one node.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, u64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|(name, value)| (name.clone(), value.0.load(Ordering::Relaxed)))
            .collect()
    }

    fn value(&self, key: &Key) -> Arc<Value> {
        let mut labels: Vec<_> = key
            .labels()
            .filter(|label| label.key() != "node")
            .map(|label| format!("{}={:?}", label.key(), label.value()))
            .collect();
        labels.sort();
        let name = match labels.is_empty() {
            true => key.name().to_owned(),
            false => format!("{}{{{}}}", key.name(), labels.join(",")),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name).or_default())
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl CounterFn for Value {
    fn increment(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn absolute(&self, to: u64) {
        self.0.fetch_max(to, Ordering::Relaxed);
    }
}

impl GaugeFn for Value {
    // The nodes set their gauges, and do nothing else with them.
    fn increment(&self, by: f64) {
        self.0.fetch_add(by as u64, Ordering::Relaxed);
    }

    fn decrement(&self, by: f64) {
        self.0.fetch_sub(by as u64, Ordering::Relaxed);
    }

    fn set(&self, to: f64) {
        self.0.store(to as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_can_be_asked_for() {
        let kept = Kept::default();
        metrics::with_local_recorder(&kept, || {
            let count = || metrics::counter!("a", "node" => "1", "why" => "x", "by" => "y");
            count().increment(2);
            count().increment(3);
            metrics::gauge!("b", "node" => "1").set(7.0);
        });
        let expected = [("a{by=\"y\",why=\"x\"}".to_owned(), 5), ("b".to_owned(), 7)];
        assert_eq!(kept.all(), BTreeMap::from(expected));
    }
}
