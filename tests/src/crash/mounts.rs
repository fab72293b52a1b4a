//! Mounts that do not outlive the program, however it ends.
//!
//! A [`Sweeper`] is a small process with a pipe to this one. When the pipe ends, because this process did, it unmounts
//! what is still mounted below the working folder. It is in a process group of its own, so that a ctrl-c does
//! not take it too.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::programs::Programs;

/// What a part that mounts needs and this machine lacks, in words; none if nothing is missing.
#[must_use]
pub fn missing(with_fuse: bool) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root, to mount a file system".to_owned());
    }
    if with_fuse && let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
        return Some(format!("/dev/fuse: {error}"));
    }
    None
}

/// Mounts a tmpfs of `bytes` in the folder `point`.
pub fn tmpfs(point: &Path, bytes: u64) -> Result<Tmpfs> {
    let data = size(bytes)?;
    mount(
        "crash",
        point,
        "tmpfs",
        MountFlags::empty(),
        data.as_c_str(),
    )
    .with_context(|| format!("mount a tmpfs on {}", point.display()))?;
    Ok(Tmpfs(point.to_owned()))
}

fn size(bytes: u64) -> Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(format!("size={bytes}"))?)
}

/// A mounted tmpfs. Dropped, it is unmounted.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Gives it another size.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        mount_remount(&self.0, MountFlags::empty(), size(bytes)?.as_c_str())
            .with_context(|| format!("resize the tmpfs on {}", self.0.display()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

/// Unmounts at once, whoever still uses it.
pub fn detach(point: &Path) {
    // Not mounted, or not ours to unmount: both are as it was.
    let _ = unmount(point, UnmountFlags::DETACH);
}

/// Unmounts all that is mounted below `folder`.
pub fn sweep(folder: &Path) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else {
        return;
    };
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<_> = points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(folder))
        .collect();
    // The innermost first.
    points.sort();
    for point in points.iter().rev() {
        detach(point);
    }
}

/// What the hidden subcommand does: waits for the end of who started it, and sweeps behind.
pub fn wait_and_sweep(folder: &Path) {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    sweep(folder);
}

/// Unmounts below a folder when this process has ended.
#[derive(Debug)]
pub struct Sweeper(Child);

impl Sweeper {
    /// Unmounts what an earlier run left below `folder`, and starts to watch over this one.
    pub fn start(programs: &Programs, folder: &Path) -> Result<Self> {
        let folder =
            fs::canonicalize(folder).with_context(|| format!("find {}", folder.display()))?;
        sweep(&folder);
        let child = Command::new(&programs.harness)
            .arg("sweep")
            .arg(folder)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start a sweeper")?;
        Ok(Self(child))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Whether nothing is mounted below `folder`.
#[must_use]
pub fn is_clean(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    !points.any(|point| Path::new(point).starts_with(folder))
}
