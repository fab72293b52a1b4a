//! How fast snapshots may leave a node.
//!
//! Invariant: over any time, all transfers together send no more than the rate allows and one piece each.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A slower rate is taken for this one: two transfers that share it must each send a chunk in less time
/// than its receiver waits.
const BYTES_PER_S_MIN: u64 = 128 << 10;
/// So much is sent at once.
pub(super) const PIECE_LEN: usize = 16 << 10;

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
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let at = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = free_at.map_or(now, |free_at| free_at.max(now));
            *free_at = Some(at + takes);
            at
        };
        sleep_until(at).await;
    }
}
