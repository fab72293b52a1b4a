//! Damages to a file, each chosen by a seed and told in words.

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::random::Random;

const PAGE: usize = 4096;

/// How the last record of a log is torn.
pub const TEARS: [&str; 6] = [
    "cut",
    "zeros to its end",
    "zeros to the file's end",
    "an inner page of zeros",
    "garbage to its end",
    "what an older record left to its end",
];

/// Tears what lies in `range`, behind which nothing counts, in the given way. Says where; none if that changes no byte.
pub fn tear(
    file: &Path,
    range: &Range<usize>,
    kind: usize,
    random: &mut Random,
) -> Result<Option<String>> {
    let before = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let mut bytes = before.clone();
    let at = range.start + random.below((range.end - range.start) as u64) as usize;
    match kind {
        0 => bytes.truncate(at),
        1 => bytes[at..range.end].fill(0),
        2 => bytes[at..].fill(0),
        3 => {
            // The part of one page that this record has.
            let page = at / PAGE * PAGE;
            let end = (page + PAGE).min(range.end);
            bytes[page.max(range.start)..end].fill(0);
        }
        4 => {
            for byte in &mut bytes[at..range.end] {
                *byte = random.number() as u8;
            }
        }
        _ => {
            let length = (range.end - at).min(range.start);
            let from = random.below((range.start - length) as u64 + 1) as usize;
            bytes.copy_within(from..from + length, at);
        }
    }
    if bytes == before {
        return Ok(None);
    }
    rewrite(file, &bytes)?;
    Ok(Some(format!(
        "{} at byte {at} of {} (record from {} on)",
        TEARS[kind],
        before.len(),
        range.start
    )))
}

/// Damages any file in one of six ways. Says how; none if that changes no byte.
pub fn damage(file: &Path, random: &mut Random) -> Result<Option<String>> {
    let before = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    if before.is_empty() || random.below(10) == 0 {
        fs::remove_file(file).with_context(|| format!("remove {}", file.display()))?;
        return Ok(Some("removed".to_owned()));
    }
    let mut bytes = before.clone();
    let length = bytes.len();
    let at = spot(length, random);
    let size_max = [8, 512, 8192][random.below(3) as usize];
    let size = (1 + random.below(size_max) as usize).min(length - at);
    let how = match random.below(5) {
        0 | 1 => {
            let bit = random.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        2 => {
            bytes[at..at + size].fill(0);
            format!("zeros in bytes {at}..{}", at + size)
        }
        3 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        _ => {
            let other = spot(length, random);
            let size = size.min(length - other).min(at.abs_diff(other));
            for offset in 0..size {
                bytes.swap(at + offset, other + offset);
            }
            format!("bytes {at}.. and {other}.. swapped, {size} of each")
        }
    };
    if bytes == before {
        return Ok(None);
    }
    rewrite(file, &bytes)?;
    Ok(Some(format!("{how} (of {length})")))
}

/// A place in a file: its two ends are hit more often than their share.
fn spot(length: usize, random: &mut Random) -> usize {
    let near = length.min(600) as u64;
    match random.below(4) {
        0 => random.below(near) as usize,
        1 => length - 1 - random.below(near) as usize,
        _ => random.below(length as u64) as usize,
    }
}

/// A file of its own: what else has the old one's bytes keeps them.
fn rewrite(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::remove_file(file).with_context(|| format!("remove {}", file.display()))?;
    fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
}

/// Copies a stopped node's folder. Table files, which are never written again, are shared with the original.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for file in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let file = file?;
        let (source, target) = (file.path(), to.join(file.file_name()));
        if file.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else if source.extension().is_some_and(|ending| ending == "sst") {
            fs::hard_link(&source, &target)
                .with_context(|| format!("link {}", target.display()))?;
        } else {
            fs::copy(&source, &target).with_context(|| format!("copy {}", target.display()))?;
        }
    }
    Ok(())
}

/// All files below a folder, in order.
pub fn files(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let file = file?;
        if file.file_type()?.is_dir() {
            found.extend(files(&file.path())?);
        } else {
            found.push(file.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Makes a file that takes up `bytes` of its disk.
pub fn ballast(file: &Path, bytes: usize) -> Result<()> {
    fs::write(file, vec![1; bytes]).with_context(|| format!("write {}", file.display()))?;
    File::open(file)?.sync_all().context("sync the ballast")
}
