//! When a leader takes up what stands at its [`Door`](crate::door::Door): at once, or together with what is about to come.
//!
//! A batch costs a leader and its followers about the same whatever is in it. Callers who wait for one answer before they ask
//! for the next fall into two groups, of which one is on its way while the other gathers; each group waits for the other
//! one's disk. So while a batch is on its way, what comes is held, and once it is committed, until as many stand at the door
//! as were waiting for answers: then they are one group.
//!
//! That helps only where those who are answered ask again at once. Where they do not, holding is time lost, and so it is
//! given up, for [`PAUSE`] batches and each time twice as many, before it is tried again.
//!
//! Invariants:
//! - Nothing is held where nothing is on its way and nobody was just answered: a caller alone never waits.
//! - What is held is held for [`UNDER_WAY_MAX`] and [`RETURN_MAX`] at most, and to the end of the node's tick. So is a commit
//!   index that the next entries were to say: [`RETURN_MAX`], and a tick more where a [steady](Rhythm::is_steady) caller stops.

use std::time::{Duration, Instant};

/// A batch of so many proposals is not held.
pub(crate) const HELD_MAX: usize = 256;
/// Nor is one while proposals of so many bytes wait.
pub(crate) const HELD_BYTES_MAX: usize = 128 << 10;
/// For so long a batch may be on its way, and more be held for it.
const UNDER_WAY_MAX: Duration = Duration::from_millis(10);
/// For so long those who were answered are waited for.
pub(crate) const RETURN_MAX: Duration = Duration::from_millis(1);
/// Who has come back so many times in a row is taken to do it again.
const STEADY: u32 = 64;
/// So many batches are not held after one that was for nothing, and at most.
const PAUSE: u32 = 64;
const PAUSE_MAX: u32 = 4_096;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Rhythm {
    /// Batches that are not held before one is again.
    paused_for: u32,
    pause: u32,
    phase: Phase,
    /// So many times in a row those who were answered asked again at once.
    returned: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody is waited for.
    Idle,
    /// A batch is on its way, and since then something is held.
    UnderWay { held: Option<Instant> },
    /// It is committed: so many are about to come, until then at most.
    Return { count: usize, until: Instant },
}

impl Rhythm {
    pub(crate) fn new() -> Self {
        Self {
            paused_for: 0,
            pause: PAUSE,
            phase: Phase::Idle,
            returned: 0,
        }
    }

    /// A turn is over. `under_way`: this node leads, and something in its log is not committed; `outstanding` are not
    /// answered, and at most so many are about to come. Says how many must stand at the door before they are taken up, if
    /// they are to be waited for.
    pub(crate) fn turned(
        &mut self,
        under_way: bool,
        outstanding: usize,
        now: Instant,
    ) -> Option<usize> {
        match (self.phase, under_way) {
            (Phase::Idle | Phase::Return { .. }, true) if self.paused_for == 0 => {
                self.phase = Phase::UnderWay { held: None };
            }
            (Phase::UnderWay { .. }, false) => {
                let count = outstanding.min(HELD_MAX);
                let until = now + RETURN_MAX;
                self.phase = Phase::Return { count, until };
                return Some(count);
            }
            _ => {}
        }
        None
    }

    /// Whether `standing` proposals stay where they are for now.
    pub(crate) fn holds(&mut self, standing: usize, now: Instant) -> bool {
        if self.paused_for > 0 {
            self.paused_for -= 1;
            return false;
        }
        match &mut self.phase {
            _ if standing >= HELD_MAX => {}
            Phase::Idle => {}
            Phase::UnderWay { .. } if standing == 0 => return true,
            Phase::UnderWay { held } => {
                if now < *held.get_or_insert(now) + UNDER_WAY_MAX {
                    return true;
                }
                self.give_up();
            }
            Phase::Return { count, until } if standing >= *count => {
                self.pause = PAUSE;
                let in_time = now < *until;
                self.returned = if in_time {
                    self.returned.saturating_add(1)
                } else {
                    0
                };
            }
            Phase::Return { until, .. } if now < *until => return true,
            // Nobody has come, so nobody has waited.
            Phase::Return { .. } if standing == 0 => self.returned = 0,
            Phase::Return { .. } => self.give_up(),
        }
        self.phase = Phase::Idle;
        false
    }

    /// What stands at the door is not held any more, for another reason.
    pub(crate) fn release(&mut self) {
        self.phase = Phase::Idle;
    }

    /// Whether a batch is on its way.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::UnderWay { .. })
    }

    /// Whether the next batch is about to come, for all that is known of the last one.
    pub(crate) fn expects_more(&self, now: Instant) -> bool {
        self.returned > 0 && matches!(self.phase, Phase::Return { until, .. } if now < until)
    }

    /// Whether it has come so often that an alarm for the one time that it does not is not worth its price; the node's tick
    /// will do.
    pub(crate) fn is_steady(&self) -> bool {
        self.returned >= STEADY
    }

    fn give_up(&mut self) {
        self.returned = 0;
        self.paused_for = self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_caller_alone_never_waits() {
        let (mut rhythm, start) = (Rhythm::new(), Instant::now());
        for _ in 0..100 {
            assert!(!rhythm.holds(1, start));
            assert_eq!(rhythm.turned(true, 1, start), None);
            assert_eq!(rhythm.turned(false, 1, start), Some(1));
        }
        assert!(rhythm.expects_more(start) && !rhythm.holds(1, start));
    }

    #[test]
    fn two_groups_become_one() {
        let (mut rhythm, now) = (Rhythm::new(), Instant::now());
        assert!(!rhythm.holds(30, now));
        rhythm.turned(true, 30, now);
        assert!(rhythm.holds(1, now), "a batch is on its way");
        // The other 34 stand at the door when it is committed.
        assert_eq!(rhythm.turned(false, 64, now), Some(64));
        assert!(rhythm.holds(34, now) && rhythm.holds(63, now));
        assert!(!rhythm.holds(64, now));
        rhythm.turned(true, 64, now);
        assert_eq!(rhythm.turned(false, 64, now), Some(64));
        assert!(rhythm.expects_more(now));
    }

    #[test]
    fn who_does_not_come_back_is_not_waited_for_again() {
        let (mut rhythm, start) = (Rhythm::new(), Instant::now());
        rhythm.turned(true, 8, start);
        rhythm.turned(false, 8, start);
        assert!(rhythm.holds(1, start));
        assert!(!rhythm.holds(1, start + RETURN_MAX), "that was long enough");
        let mut pauses = [0, 0];
        for pause in &mut pauses {
            rhythm.turned(true, 8, start);
            while !rhythm.holds(1, start) {
                rhythm.turned(true, 8, start);
                *pause += 1;
            }
            rhythm.turned(false, 8, start);
            assert!(!rhythm.holds(1, start + RETURN_MAX));
        }
        assert_eq!(pauses, [PAUSE, 2 * PAUSE]);
    }

    #[test]
    fn nothing_is_held_for_a_batch_that_takes_long() {
        let (mut rhythm, start) = (Rhythm::new(), Instant::now());
        rhythm.turned(true, 8, start);
        assert!(rhythm.holds(0, start), "nobody is held yet");
        assert!(rhythm.holds(1, after(start, 5)));
        assert!(rhythm.holds(2, after(start, 14)));
        assert!(!rhythm.holds(2, after(start, 15)));
    }

    #[test]
    fn many_are_not_held() {
        let (mut rhythm, now) = (Rhythm::new(), Instant::now());
        rhythm.turned(true, 1_000, now);
        assert!(!rhythm.holds(HELD_MAX, now));
        rhythm.turned(true, 1_000, now);
        assert_eq!(rhythm.turned(false, 1_000, now), Some(HELD_MAX));
    }

    #[test]
    fn when_nobody_is_left_nothing_more_is_expected() {
        let (mut rhythm, start) = (Rhythm::new(), Instant::now());
        rhythm.turned(true, 1, start);
        rhythm.turned(false, 1, start);
        assert!(!rhythm.holds(1, start));
        rhythm.turned(true, 1, start);
        rhythm.turned(false, 1, start);
        assert!(rhythm.expects_more(start) && !rhythm.expects_more(start + RETURN_MAX));
        assert!(!rhythm.holds(0, start + RETURN_MAX));
        rhythm.turned(true, 1, start);
        rhythm.turned(false, 1, start);
        assert!(!rhythm.expects_more(start), "until somebody has come back");
    }

    #[test]
    fn who_comes_back_late_is_not_expected_and_not_steady() {
        let (mut rhythm, start) = (Rhythm::new(), Instant::now());
        let mut commit = |came: Instant| {
            rhythm.turned(true, 1, start);
            rhythm.turned(false, 1, start);
            let expected = rhythm.expects_more(start);
            assert!(!rhythm.holds(1, came), "alone, it does not wait");
            (expected, rhythm.is_steady())
        };
        assert_eq!(commit(start), (false, false));
        for _ in 2..STEADY {
            assert_eq!(commit(start), (true, false));
        }
        assert_eq!(commit(start), (true, true));
        assert_eq!(commit(start + RETURN_MAX), (true, false));
        assert_eq!(commit(start), (false, false));
    }
}
