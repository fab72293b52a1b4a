//! How long to wait before the next dial.
//!
//! Invariants: the delay is random over its whole range, so that nodes which lost the same peer do
//! not dial it in step; its upper end doubles with each failure up to the bound.

use std::time::Duration;

use crate::Limits;
use crate::random::random_u64;

#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    upper: Duration,
}

impl Backoff {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            min: limits.backoff_min,
            max: limits.backoff_max.max(limits.backoff_min),
            upper: limits.backoff_min,
        }
    }

    /// The delay before the next dial; the one after it may be twice as long.
    pub(crate) fn next(&mut self) -> Duration {
        let upper = self.upper;
        self.upper = upper.saturating_mul(2).min(self.max);
        let nanos = u64::try_from(upper.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random_u64() % nanos.saturating_add(1).max(1))
    }

    /// A connection lived: start over.
    pub(crate) fn reset(&mut self) {
        self.upper = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_an_upper_end_that_doubles_up_to_the_bound() {
        let limits = Limits {
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(50),
            ..Limits::default()
        };
        let mut backoff = Backoff::new(&limits);
        for upper in [20, 40, 50, 50] {
            assert!(backoff.next() <= Duration::from_millis(upper));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(20));
    }
}
