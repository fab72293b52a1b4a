//! Where the last record of a RocksDB write-ahead log lies.
//!
//! Blocks of 32 KiB; in each, pieces with a header of 7 bytes: checksum (4), length (2), kind (1), little-endian. A
//! record is one piece that is whole, or a first, any number in the middle, and a last. In a file that may be written
//! over an old one the header goes on with the file's number (4), and the kinds are others: behind the last record
//! stand pieces of the old file. What does not fit into a block is padded with zeros.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const HEADER_NUMBERED: usize = 11;

/// The newest log file in a data folder, and the last record in it.
#[derive(Clone, Debug)]
pub struct LastRecord {
    /// The file.
    pub file: PathBuf,
    /// Where the record lies, headers included.
    pub range: Range<usize>,
    /// Whether something older stands behind it.
    pub is_over_another: bool,
}

/// Finds the last record of the database in `dir`.
pub fn last_record(dir: &Path) -> Result<LastRecord> {
    let db = dir.join("db");
    let files = fs::read_dir(&db).with_context(|| format!("list {}", db.display()))?;
    let (number, file) = files
        .filter_map(|file| {
            let path = file.ok()?.path();
            let is_log = path.extension().is_some_and(|ending| ending == "log");
            let number = path.file_stem()?.to_str()?.parse::<u64>().ok()?;
            is_log.then_some((number, path))
        })
        .max()
        .context("no log file")?;
    let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let range = last_range(&bytes, number as u32)
        .with_context(|| format!("no record in {}", file.display()))?;
    Ok(LastRecord {
        file,
        is_over_another: range.end < bytes.len(),
        range,
    })
}

/// The last record of file `number` that is whole.
fn last_range(bytes: &[u8], number: u32) -> Option<Range<usize>> {
    let (mut at, mut begun, mut last) = (0, None, None);
    loop {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
            continue;
        }
        let Some((kind, end)) = piece(bytes, at, number) else {
            // Padding too, where the longer header does not fit.
            if left < HEADER_NUMBERED {
                at += left;
                continue;
            }
            return last;
        };
        match kind {
            1 | 5 => last = Some(at..end),
            2 | 6 => begun = Some(at),
            4 | 8 => last = begun.map(|begun| begun..end).or(last),
            _ => {}
        }
        at = end;
    }
}

/// The kind of the piece at `at`, and where it ends; none if there is none, or one of an older file.
fn piece(bytes: &[u8], at: usize, number: u32) -> Option<(u8, usize)> {
    let header = bytes.get(at..at + HEADER)?;
    let kind = header[6];
    let is_numbered = matches!(kind, 5..=8 | 11 | 131);
    let length = if is_numbered { HEADER_NUMBERED } else { HEADER };
    let end = at + length + usize::from(u16::from_le_bytes([header[4], header[5]]));
    let checked = bytes.get(at + 6..end)?;
    let sum = crc32c::crc32c(checked);
    // As it is stored: a checksum of what holds checksums is none.
    let stored = sum.rotate_right(15).wrapping_add(0xa282_ead8);
    let is_own = !is_numbered || bytes.get(at + HEADER..at + length)? == number.to_le_bytes();
    (kind != 0 && header[..4] == stored.to_le_bytes() && is_own).then_some((kind, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(kind: u8, length: u16, number: Option<u32>) -> Vec<u8> {
        let mut checked = vec![kind];
        checked.extend(number.into_iter().flat_map(u32::to_le_bytes));
        checked.extend(vec![7; usize::from(length)]);
        let sum = crc32c::crc32c(&checked).rotate_right(15);
        let mut piece = sum.wrapping_add(0xa282_ead8).to_le_bytes().to_vec();
        piece.extend(length.to_le_bytes());
        piece.extend(checked);
        piece
    }

    #[test]
    fn the_last_record_is_found_over_the_border_of_a_block() {
        let first = piece(1, 32_700, None);
        let mut bytes = [first.clone(), piece(2, 54, None)].concat();
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(last_range(&bytes, 3), Some(0..first.len()));
        bytes.extend(piece(4, 100, None));
        assert_eq!(last_range(&bytes, 3), Some(first.len()..bytes.len()));
        assert_eq!(last_range(&[], 3), None);
    }

    #[test]
    fn padding_is_skipped() {
        let mut bytes = piece(1, 32_757, None);
        bytes.resize(BLOCK, 0);
        bytes.extend(piece(1, 5, None));
        assert_eq!(last_range(&bytes, 3), Some(BLOCK..BLOCK + 12));
        // Ten bytes are left, and the header has eleven.
        let mut bytes = piece(5, 32_747, Some(3));
        bytes.resize(BLOCK, 0);
        assert_eq!(last_range(&bytes, 3), Some(0..BLOCK - 10));
        bytes.extend(piece(5, 5, Some(3)));
        assert_eq!(last_range(&bytes, 3), Some(BLOCK..BLOCK + 16));
    }

    #[test]
    fn what_an_older_file_left_is_not_the_last() {
        let own = piece(5, 10, Some(3));
        let bytes = [own.clone(), piece(5, 10, Some(2))].concat();
        assert_eq!(last_range(&bytes, 3), Some(0..own.len()));
        let torn = [own.clone(), piece(5, 10, Some(3))[4..].to_vec()].concat();
        assert_eq!(last_range(&torn, 3), Some(0..own.len()));
    }
}
