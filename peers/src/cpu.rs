//! CPU time, as the kernel counts it in ticks of ten milliseconds.

use std::fs;

use anyhow::{Context as _, Result};

/// The CPU time that processes have used so far, user and system, in microseconds.
pub(crate) fn of(pids: &[u32]) -> Result<u64> {
    let mut ticks = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
        ticks += process_ticks(&stat).with_context(|| format!("{path} is not as it should be"))?;
    }
    Ok(in_us(ticks))
}

/// The CPU time that the whole machine has used so far, in microseconds.
pub(crate) fn of_machine() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let ticks = machine_ticks(&stat).context("/proc/stat is not as it should be")?;
    Ok(in_us(ticks))
}

fn in_us(ticks: u64) -> u64 {
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second()
}

/// The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// User, nice, system, idle, iowait, irq, softirq, steal: what is neither idle nor waiting. Guests are in user already.
fn machine_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 5 6 7";
        assert_eq!(process_ticks(stat), Some(42));
        assert_eq!(process_ticks("7 (short) S 1"), None);
    }

    #[test]
    fn idle_and_waiting_are_not_work() {
        let stat = "cpu  10 1 5 1000 300 2 3 4 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(machine_ticks(stat), Some(25));
        assert_eq!(machine_ticks("cpu  1 2\n"), None);
    }

    #[test]
    fn a_process_that_works_is_seen_to() {
        let me = [std::process::id()];
        let (before, machine_before) = (of(&me).unwrap(), of_machine().unwrap());
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 100 {
            std::hint::black_box(0);
        }
        assert!(of(&me).unwrap() >= before + 20_000);
        assert!(of_machine().unwrap() >= machine_before + 20_000);
    }
}
