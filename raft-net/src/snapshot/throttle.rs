//! How fast snapshots may leave a node.
//!
//! Invariant: over any time, all transfers together send no more than the rate allows, one piece each, and what the rate
//! allows in [`LATE_MAX`]: a timer wakes late, and who was woken late catches up, or no rate above a piece for each
//! millisecond would ever be reached.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A slower rate is taken for this one: two transfers that share it must each send a chunk in less time
/// than its receiver waits.
const BYTES_PER_S_MIN: u64 = 128 << 10;
/// So much is sent at once.
pub(super) const PIECE_LEN: usize = 16 << 10;

/// So much of the time that nobody used is made up for.
const LATE_MAX: Duration = Duration::from_millis(10);

/// Hands out the right to send, to all transfers of a node.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_s: Option<u64>,
    /// When all is sent that was let pass.
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(super) fn new(bytes_per_s: Option<u64>) -> Self {
        Self {
            bytes_per_s: bytes_per_s.map(|rate| rate.max(BYTES_PER_S_MIN)),
            free_at: Mutex::new(None),
        }
    }

    /// How much is let pass at once.
    pub(super) fn piece_len(&self) -> usize {
        self.bytes_per_s.map_or(usize::MAX, |_| PIECE_LEN)
    }

    /// Waits until `bytes` may be sent.
    pub(super) async fn pass(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_s else {
            return;
        };
        let now = Instant::now();
        let at = self.place(rate, bytes, now);
        // A timer takes a millisecond even for what is due.
        if at > now {
            sleep_until(at).await;
        }
    }

    /// When `bytes` may be sent, at the earliest.
    fn place(&self, rate: u64, bytes: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(LATE_MAX).unwrap_or(now);
        let at = free_at.map_or(now, |free_at| free_at.max(earliest));
        *free_at = Some(at + takes);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent in a second by transfers whose every sleep lasts a millisecond too long.
    fn sent(rate: u64) -> u64 {
        let throttle = Throttle::new(Some(rate));
        let start = Instant::now();
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(1) {
            let at = throttle.place(rate, PIECE_LEN, now);
            if at > now {
                now = at + Duration::from_millis(1);
            }
            sent += PIECE_LEN as u64;
        }
        sent
    }

    #[test]
    fn a_timer_that_is_late_slows_nobody_down_and_hurries_nobody_beyond_the_rate() {
        for mib in [1, 16, 64, 1024] {
            let (rate, burst) = (mib << 20, (mib << 20) / 100 + PIECE_LEN as u64);
            let sent = sent(rate);
            assert!(sent + burst >= rate, "{mib} MiB/s: {sent}");
            assert!(sent <= rate + 2 * burst, "{mib} MiB/s: {sent}");
        }
    }
}
