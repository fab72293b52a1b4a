//! The time since the machine was started, those times included that it was suspended: leases end in it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Reads the clock.
pub(crate) fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
