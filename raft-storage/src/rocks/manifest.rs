//! What a power loss leaves of the MANIFEST, RocksDB's list of the files that make up the database.
//!
//! RocksDB appends to it whenever a file comes or goes, and syncs it then. Power lost in between can leave the
//! last, unsynced record half there: some of its sectors written, others not. A record that is merely short
//! RocksDB takes for what it is; one that is as long as it says, with a hole in it, it takes for damage, and
//! refuses to open. That would make an ordinary power loss the end of a node.
//!
//! So the list is cut behind its last whole record, in a second folder of links, and the database as that list
//! has it is judged like any other: if it holds all that the mark claims, the record was never relied upon.
//! Only then is the list itself cut. If it was damage instead, the judgement says what is missing, and the
//! folder stays as it was.
//!
//! The format is that of RocksDB's log files: blocks of 32 KiB; in them records of checksum (4 bytes), length
//! (2), kind (1) and data, little-endian; a record that does not fit its block is cut into parts.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use crate::StorageError;

const BLOCK_LEN: usize = 32 << 10;
const HEADER_LEN: usize = 7;
const FULL: u8 = 1;
const LAST: u8 = 4;

/// A list whose end is not whole.
pub(super) struct Torn {
    manifest: PathBuf,
    name: String,
    /// Where its last whole record ends.
    whole: Vec<u8>,
    /// A database of links beside the real one.
    links: PathBuf,
}

impl Torn {
    /// The database's list, if its end is not whole. `links` is a folder that may be made for as long as this
    /// lives.
    pub(super) fn find(database: &Path, links: PathBuf) -> io::Result<Option<Self>> {
        let current = fs::read_to_string(database.join("CURRENT"))?;
        let name = current.trim_end().to_owned();
        if !name.starts_with("MANIFEST-") || name.contains('/') {
            return Ok(None);
        }
        let manifest = database.join(&name);
        let mut whole = fs::read(&manifest)?;
        let end = end_of_whole_records(&whole);
        if end == whole.len() {
            return Ok(None);
        }
        whole.truncate(end);
        Ok(Some(Self {
            manifest,
            name,
            whole,
            links,
        }))
    }

    /// Makes a database of links to the same files, with the list cut.
    pub(super) fn link(&self) -> io::Result<&Path> {
        remove(&self.links)?;
        fs::create_dir(&self.links)?;
        let database = self.manifest.parent().unwrap_or(Path::new("."));
        for file in fs::read_dir(database)? {
            let (name, path) = file.map(|file| (file.file_name(), file.path()))?;
            let kept = Path::new(&name).extension();
            if kept.is_some_and(|kind| kind == "sst" || kind == "log") {
                std::os::unix::fs::symlink(fs::canonicalize(path)?, self.links.join(&name))?;
            }
        }
        fs::write(self.links.join(&self.name), &self.whole)?;
        fs::copy(database.join("CURRENT"), self.links.join("CURRENT"))?;
        Ok(&self.links)
    }

    /// Cuts the list itself, durably.
    pub(super) fn cut(&self) -> Result<(), StorageError> {
        let cut = || {
            let file = OpenOptions::new().write(true).open(&self.manifest)?;
            file.set_len(self.whole.len() as u64)?;
            file.sync_all()
        };
        cut().map_err(StorageError::io("cut the torn end of", &self.manifest))
    }
}

impl Drop for Torn {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next opening.
        let _ = remove(&self.links);
    }
}

/// Removes a folder of links, if there is one.
pub(super) fn remove(links: &Path) -> io::Result<()> {
    match fs::remove_dir_all(links) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where the last record ends before which all are whole.
fn end_of_whole_records(bytes: &[u8]) -> usize {
    let (mut at, mut end) = (0, 0);
    loop {
        let left_of_block = BLOCK_LEN - at % BLOCK_LEN;
        if left_of_block < HEADER_LEN {
            at += left_of_block;
        }
        let Some(header) = bytes.get(at..at + HEADER_LEN) else {
            return end;
        };
        let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let kind = header[6];
        let behind = at + HEADER_LEN + len;
        let Some(checked) = bytes.get(at + HEADER_LEN - 1..behind) else {
            return end;
        };
        let sum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if !(FULL..=LAST).contains(&kind) || sum != masked(crc32c::crc32c(checked)) {
            return end;
        }
        at = behind;
        if kind == FULL || kind == LAST {
            end = at;
        }
    }
}

/// RocksDB stores a checksum changed, so that the checksum of data with checksums in it is not special.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, data: &[u8]) -> Vec<u8> {
        let sum = masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), data));
        let mut record = sum.to_le_bytes().to_vec();
        record.extend_from_slice(&(data.len() as u16).to_le_bytes());
        record.push(kind);
        record.extend_from_slice(data);
        record
    }

    #[test]
    fn a_list_ends_behind_its_last_whole_record() {
        let mut list = record(FULL, b"one");
        let first = list.len();
        list.extend(record(FULL, b"two"));
        assert_eq!(end_of_whole_records(&list), list.len());
        for cut in first..list.len() {
            assert_eq!(end_of_whole_records(&list[..cut]), first);
        }
        for hole in first..list.len() {
            let mut torn = list.clone();
            torn[hole] ^= 0xff;
            assert_eq!(end_of_whole_records(&torn), first, "byte {hole}");
        }
        list[first..].fill(0);
        assert_eq!(end_of_whole_records(&list), first);
    }

    #[test]
    fn a_record_in_parts_is_whole_with_its_last_one() {
        let mut list = record(FULL, &[1; 100]);
        let first = list.len();
        let fits = BLOCK_LEN - list.len() - HEADER_LEN;
        list.extend(record(2, &vec![2; fits]));
        assert_eq!(list.len(), BLOCK_LEN);
        list.extend(record(3, &[3; BLOCK_LEN - HEADER_LEN]));
        assert_eq!(end_of_whole_records(&list), first);
        // The last part ends so near its block's end that the next record begins in the next block.
        list.extend(record(LAST, &[4; BLOCK_LEN - HEADER_LEN - 3]));
        let second = list.len();
        assert_eq!(end_of_whole_records(&list), second);
        list.extend([0; 3]);
        list.extend(record(FULL, b"next"));
        assert_eq!(end_of_whole_records(&list), list.len());
    }
}
