//! Where the last record of a RocksDB write-ahead log lies.
//!
//! Blocks of 32 KiB; in each, pieces with a header of 7 bytes: checksum (4), length (2, little-endian), kind (1). A
//! record is one piece of kind 1, or 2, any number of 3, and 4. What does not fit into a block is padded with zeros.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;

/// The newest log file in a data folder, and the last record in it.
#[derive(Clone, Debug)]
pub struct LastRecord {
    /// The file.
    pub file: PathBuf,
    /// Where the record lies, headers included.
    pub range: Range<usize>,
}

/// Finds the last record of the database in `dir`.
pub fn last_record(dir: &Path) -> Result<LastRecord> {
    let db = dir.join("db");
    let mut logs: Vec<PathBuf> = fs::read_dir(&db)
        .with_context(|| format!("list {}", db.display()))?
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .collect();
    logs.sort();
    let file = logs.pop().context("no log file")?;
    let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let range = last_range(&bytes).with_context(|| format!("no record in {}", file.display()))?;
    Ok(LastRecord { file, range })
}

fn last_range(bytes: &[u8]) -> Option<Range<usize>> {
    let (mut at, mut begun, mut last) = (0, None, None);
    loop {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
            continue;
        }
        let Some(header) = bytes.get(at..at + HEADER) else {
            return last;
        };
        let end = at + HEADER + usize::from(u16::from_le_bytes([header[4], header[5]]));
        match header[6] {
            1 => last = Some(at..end),
            2 => begun = Some(at),
            4 => last = Some(begun?..end),
            // Nothing was written here.
            0 => return last,
            _ => {}
        }
        if end > bytes.len() {
            return None;
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(kind: u8, length: u16) -> Vec<u8> {
        let mut piece = vec![9; 4];
        piece.extend(length.to_le_bytes());
        piece.push(kind);
        piece.resize(HEADER + usize::from(length), 7);
        piece
    }

    #[test]
    fn the_last_record_is_found_over_the_border_of_a_block() {
        let first = piece(1, 32_700);
        let mut bytes = [first.clone(), piece(2, 54)].concat();
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(last_range(&bytes), Some(0..first.len()));
        bytes.extend(piece(4, 100));
        assert_eq!(last_range(&bytes), Some(first.len()..bytes.len()));
        assert_eq!(last_range(&[]), None);
    }

    #[test]
    fn padding_is_skipped() {
        let mut bytes = piece(1, 32_757);
        bytes.resize(BLOCK, 0);
        bytes.extend(piece(1, 5));
        assert_eq!(last_range(&bytes), Some(BLOCK..BLOCK + 12));
    }
}
