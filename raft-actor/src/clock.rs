//! Ticks, computed from a monotonic clock and never counted: an actor's timers fire late under load, and
//! many at once after a pause.

use std::time::{Duration, Instant};

/// Turns the time that has passed into ticks.
#[derive(Debug)]
pub(crate) struct Clock {
    tick: Duration,
    /// The most ticks that one look at the clock may bring. What a longer pause has over is forgotten: the
    /// messages that wait are heard before an election timeout can run out.
    ticks_max: u32,
    counted: Instant,
}

impl Clock {
    pub(crate) fn new(tick: Duration, ticks_max: u32, now: Instant) -> Self {
        Self {
            tick,
            ticks_max,
            counted: now,
        }
    }

    /// The ticks since the last look.
    pub(crate) fn ticks(&mut self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.counted);
        let ticks = u32::try_from(passed.as_nanos() / self.tick.as_nanos()).unwrap_or(u32::MAX);
        if ticks > self.ticks_max {
            self.counted = now;
            return self.ticks_max;
        }
        self.counted += self.tick * ticks;
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_the_time_and_a_pause_brings_few() {
        let start = Instant::now();
        let mut clock = Clock::new(Duration::from_millis(10), 10, start);
        let mut at = |ms| clock.ticks(start + Duration::from_millis(ms));
        assert_eq!([at(9), at(10), at(25), at(30), at(30)], [0, 1, 1, 1, 0]);
        assert_eq!([at(5030), at(5039), at(5040)], [10, 0, 1]);
    }
}
