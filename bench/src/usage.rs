//! What processes have used of the machine, and what everybody else has: from /proc.
//!
//! CPU time of a process is what the scheduler has measured. That of the machine is sampled at each clock tick, so "foreign"
//! is good to a few hundredths of a core; work that the kernel does on its own threads for our writes is in it.

use std::fs;
use std::ops::Sub;

use anyhow::{Context as _, Result, anyhow};

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all its threads, in microseconds.
    pub(crate) cpu_us: u64,
    /// How often a thread that still runs has waited for something.
    pub(crate) voluntary: u64,
    /// How often one was made to wait for the processor.
    pub(crate) involuntary: u64,
    /// Bytes that it caused to be written to disks, in whole pages.
    pub(crate) disk_bytes: u64,
}

impl Usage {
    /// That of process `pid` so far.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let (mut voluntary, mut involuntary) = (0, 0);
        // The process's own status counts the switches of its first thread only.
        for task in read_dir(&format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task.join("status")) else {
                continue;
            };
            voluntary += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            involuntary += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        let io = read(&format!("/proc/{pid}/io"))?;
        let disk_bytes = field(&io, "write_bytes:").with_context(|| format!("/proc/{pid}/io"))?;
        Ok(Self {
            cpu_us: cpu_us(pid)?,
            voluntary,
            involuntary,
            disk_bytes,
        })
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        // Threads end, and take their switches with them.
        Self {
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
            disk_bytes: self.disk_bytes.saturating_sub(before.disk_bytes),
        }
    }
}

/// What all processors together have done since the machine started, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Processors {
    /// Worked, for whomever.
    pub(crate) busy_us: u64,
    /// Wanted to work, while the host gave the processor to another machine.
    pub(crate) stolen_us: u64,
}

impl Processors {
    pub(crate) fn now() -> Result<Self> {
        Self::parse(&read("/proc/stat")?)
            .ok_or_else(|| anyhow!("/proc/stat is not as it should be"))
    }

    fn parse(stat: &str) -> Option<Self> {
        let all = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = all
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks[..] else {
            return None;
        };
        Some(Self {
            busy_us: micros(user + nice + system + irq + softirq),
            stolen_us: micros(stolen),
        })
    }
}

/// The CPU time that a process has used so far, user and system, in microseconds.
fn cpu_us(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    parse_cpu(&read(&path)?)
        .map(micros)
        .with_context(|| format!("{path} is not as it should be"))
}

fn parse_cpu(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn micros(ticks: u64) -> u64 {
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second()
}

/// The number behind `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

fn read_dir(path: &str) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {path}"))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read_as_it_is_meant() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 5 0 0 0 30 12 900 800 20 0 9 0 5 1 2";
        assert_eq!(parse_cpu(stat), Some(42));
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t31\nnonvoluntary_ctxt_switches:\t4\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(31));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(4));
        let machine = "cpu  100 20 30 999 999 4 6 40 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let wanted = Processors {
            busy_us: micros(160),
            stolen_us: micros(40),
        };
        assert_eq!(Processors::parse(machine), Some(wanted));
    }

    #[test]
    fn this_process_is_seen_to_work() {
        let (before, machine) = (
            Usage::of(std::process::id()).unwrap(),
            Processors::now().unwrap(),
        );
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(200) {
            std::hint::spin_loop();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        let used = Usage::of(std::process::id()).unwrap() - before;
        // Others may have had the processor for some of that time.
        assert!(used.cpu_us >= 20_000, "{used:?}");
        // Of threads that have ended meanwhile the switches are gone; this one has just slept.
        let now = Usage::of(std::process::id()).unwrap();
        assert!(now.voluntary >= 1, "{now:?}");
        assert!(Processors::now().unwrap().busy_us > machine.busy_us);
    }
}
