//! What a process takes of the machine's memory, as the kernel says.

use std::fs;

use anyhow::{Context as _, Result};

/// Of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Its resident pages that are no file's: what it allocated.
    pub anonymous: u64,
    /// The most that was resident since the mark was last reset.
    pub peak: u64,
    /// All that is resident now.
    pub resident: u64,
}

/// Looks at process `pid`.
pub fn look(pid: i32) -> Result<Memory> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let words = line.with_context(|| format!("{file} has no {name}"))?;
        let number = words.trim_start_matches(':').trim().trim_end_matches(" kB");
        number.parse().with_context(|| format!("{name}: {words}"))
    };
    Ok(Memory {
        anonymous: field("RssAnon")?,
        peak: field("VmHWM")?,
        resident: field("VmRSS")?,
    })
}

/// Lets the highest mark of process `pid` begin with what it has now.
pub fn reset_peak(pid: i32) -> Result<()> {
    let file = format!("/proc/{pid}/clear_refs");
    fs::write(&file, "5").with_context(|| format!("write {file}"))
}
