//! What strangers and mis-started nodes may write into the log.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
const PASSES_MAX: u32 = 10;

/// Lets ten pass in ten seconds, and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    window: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl Gate {
    /// Whether one more may pass; if so, how many have not since the last that did.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self
            .window
            .is_none_or(|start| now.duration_since(start) >= WINDOW)
        {
            self.window = Some(now);
            self.passed = 0;
        }
        if self.passed == PASSES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Lets a text pass when it is another one than the last, or half a minute after that one.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    last: Option<(String, Instant)>,
    suppressed: u64,
}

impl Repeats {
    /// Whether `text` may pass; if so, how many have not since the last that did.
    pub(crate) fn pass(&mut self, now: Instant, text: String) -> Option<u64> {
        if let Some((last, at)) = &self.last
            && *last == text
            && now.duration_since(*at) < 3 * WINDOW
        {
            self.suppressed += 1;
            return None;
        }
        self.last = Some((text, now));
        Some(std::mem::take(&mut self.suppressed))
    }

    /// Lets the next one pass, whatever it is.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_pass_in_a_window_and_the_next_window_tells_the_rest() {
        let mut gate = Gate::default();
        let start = Instant::now();
        for _ in 0..PASSES_MAX {
            assert_eq!(gate.pass(start), Some(0));
        }
        assert_eq!(gate.pass(start), None);
        assert_eq!(gate.pass(start + WINDOW / 2), None);
        assert_eq!(gate.pass(start + WINDOW), Some(2));
        assert_eq!(gate.pass(start + WINDOW), Some(0));
    }
}
