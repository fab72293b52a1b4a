//! What clients saw: latencies in a histogram, counts, the first error.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use crate::protocol::Measured;

/// Less than this of a rate was not that rate.
const HELD: f64 = 0.99;

/// What the clients of one thread saw.
pub(super) struct Seen {
    /// From 1 µs to two minutes, with three digits.
    latencies: Histogram<u64>,
    /// Answered inside the window.
    answered: u64,
    answered_in_all: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Seen {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            latencies: Histogram::new_with_bounds(1, 120_000_000, 3).context("a histogram")?,
            answered: 0,
            answered_in_all: 0,
            errors: 0,
            first_error: None,
        })
    }

    /// A good answer, inside the window or not.
    pub(super) fn answered(&mut self, inside: bool) {
        self.answered_in_all += 1;
        self.answered += u64::from(inside);
    }

    /// A latency that counts. One beyond the bound is taken for the bound: a proposal times out before.
    pub(super) fn took(&mut self, latency: Duration) {
        self.latencies
            .saturating_record(latency.as_micros().max(1) as u64);
    }

    pub(super) fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    /// Takes over what another thread saw.
    pub(super) fn add(&mut self, other: Self) -> Result<()> {
        self.latencies
            .add(&other.latencies)
            .context("histograms of the same bounds")?;
        self.answered += other.answered;
        self.answered_in_all += other.answered_in_all;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }

    /// The summary of a window of this length, in which `rate` was to be held.
    pub(super) fn measured(&self, window: Duration, rate: Option<u64>) -> Measured {
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        let seconds = window.as_secs_f64();
        let held = rate.is_none_or(|rate| self.answered as f64 >= HELD * rate as f64 * seconds);
        Measured {
            commits: self.answered,
            commits_in_all: self.answered_in_all,
            seconds,
            mean_us: self.latencies.mean(),
            median_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.latencies.max(),
            held,
            errors: self.errors,
            first_error: self.first_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(latencies: impl IntoIterator<Item = u64>) -> Seen {
        let mut seen = Seen::new().unwrap();
        for us in latencies {
            seen.answered(true);
            seen.took(Duration::from_micros(us));
        }
        seen
    }

    #[test]
    fn percentiles_of_threads_are_those_of_all_that_they_saw() {
        // One fast thread and one slow one: no mean of their percentiles is the percentile of both.
        let mut both = seen(1..=900);
        both.add(seen((1..=100).map(|n| 10_000 + n))).unwrap();
        let measured = both.measured(Duration::from_secs(2), None);
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) * 1_000 <= wanted;
        assert_eq!(measured.commits, 1_000);
        assert_eq!(measured.median_us, 500);
        assert!(near(measured.p90_us, 900), "{measured:?}");
        assert!(near(measured.p99_us, 10_090), "{measured:?}");
        assert!(near(measured.max_us, 10_100), "{measured:?}");
    }

    #[test]
    fn the_first_error_is_kept_and_all_are_counted() {
        let mut first = seen([]);
        first.failed("one".into());
        let mut second = seen([]);
        second.failed("two".into());
        second.failed("three".into());
        first.add(second).unwrap();
        let measured = first.measured(Duration::from_secs(1), None);
        assert_eq!(measured.errors, 3);
        assert_eq!(measured.first_error.as_deref(), Some("one"));
    }

    #[test]
    fn a_rate_is_held_or_it_is_said_that_it_was_not() {
        let seen = seen(std::iter::repeat_n(5, 990));
        let held = |rate| seen.measured(Duration::from_secs(1), rate).held;
        assert!(held(None));
        assert!(held(Some(1_000)));
        assert!(!held(Some(1_001)));
    }
}
