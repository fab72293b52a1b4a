//! Ticks, computed from a monotonic clock and never counted: an actor's timers fire late under load, and
//! many at once after a pause. The clock counts the time that the machine was suspended, in which leases end.

use std::time::Duration;

/// Turns the time that has passed into ticks.
#[derive(Debug)]
pub(crate) struct Clock {
    tick: Duration,
    /// The most ticks that one look at the clock may bring. What a longer pause has over is slept through:
    /// the messages that wait are heard before an election timeout can run out.
    ticks_max: u32,
    counted: Duration,
}

/// What one look at the clock brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Ticks of the protocol's timers.
    pub(crate) ticks: u32,
    /// Ticks before those, which this node slept through: no timer counts them, only the clock by which leases
    /// are judged.
    pub(crate) paused_ticks: u32,
}

impl Clock {
    pub(crate) fn new(tick: Duration, ticks_max: u32, now: Duration) -> Self {
        Self {
            tick,
            ticks_max,
            counted: now,
        }
    }

    /// Up to when time was counted.
    pub(crate) fn counted(&self) -> Duration {
        self.counted
    }

    /// The ticks since the last look, each of which is in one of the two numbers.
    pub(crate) fn passed(&mut self, now: Duration) -> Passed {
        let passed = now.saturating_sub(self.counted);
        let all = u32::try_from(passed.as_nanos() / self.tick.as_nanos()).unwrap_or(u32::MAX);
        self.counted += self.tick * all;
        let ticks = all.min(self.ticks_max);
        Passed {
            ticks,
            paused_ticks: all - ticks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_the_time_and_a_pause_brings_few() {
        let start = Duration::from_secs(1000);
        let mut clock = Clock::new(Duration::from_millis(10), 10, start);
        let mut at = |ms| {
            let passed = clock.passed(start + Duration::from_millis(ms));
            (passed.ticks, passed.paused_ticks)
        };
        let few = [at(9), at(10), at(25), at(30), at(30)];
        assert_eq!(few, [(0, 0), (1, 0), (1, 0), (1, 0), (0, 0)]);
        let pause = [at(5036), at(5039), at(5040), at(5140), at(5250)];
        assert_eq!(pause, [(10, 490), (0, 0), (1, 0), (10, 0), (10, 1)]);
    }
}
