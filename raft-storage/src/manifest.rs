//! What a power loss or damage leaves of the MANIFEST, RocksDB's list of the files that make up the database.
//!
//! RocksDB appends to it whenever a file comes or goes, and syncs it then. Power lost in between can leave the
//! last, unsynced record half there: some of its sectors written, others not. A record that is merely short
//! RocksDB takes for what it is; one that is as long as it says, with a hole in it, it takes for damage, and
//! refuses to open. That would make an ordinary power loss the end of a node.
//!
//! So the list is cut behind its last whole record, in a second folder of links, and the database as that list
//! has it is judged like any other: if it holds all that the mark claims, the record was never relied upon.
//! Only then is the list itself cut. If it was damage instead, something is missing, and the folder stays as it
//! was.
//!
//! The format is that of RocksDB's log files: blocks of 32 KiB; in them records of checksum (4 bytes), length
//! (2), kind (1) and data, little-endian; a record that does not fit its block is cut into parts.
//!
//! Invariant: RocksDB is never handed a list that was not walked to its end first. Its reader (11.8) neither
//! reports nor passes a header of the kinds that log files written over old ones have (5 to 8, 11, 131), where
//! the records before it had none of them: it reads the same header for ever. One flipped bit makes such a kind.
//!
//! Log files are of the same format, and are read by the same reader, but ours begin with those kinds
//! (`set_recycle_log_file_num`), and then it passes all of them. Damage cannot take that away: what it touches
//! has no checksum any more, and only a whole record of the other kinds would.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{Damage, StorageError, error::Item};

pub(crate) const BLOCK_LEN: usize = 32 << 10;
pub(crate) const HEADER_LEN: usize = 7;
pub(crate) const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// More than any list's name has.
const CURRENT_LEN_MAX: u64 = 64;

/// Refuses a database whose list of files RocksDB must not read.
///
/// # Errors
/// [`StorageError::Damaged`] with the file's name; [`StorageError::Io`] if the file cannot be read.
pub(crate) fn check(database: &Path) -> Result<(), StorageError> {
    let (path, _) = current(database)?;
    match walk_file(&path)?.bad {
        Some(at) => Err(damaged(path, Damage::NoRecord { at })),
        None => Ok(()),
    }
}

/// The database's list of files, and its name.
fn current(database: &Path) -> Result<(PathBuf, String), StorageError> {
    let current = database.join("CURRENT");
    let mut text = Vec::new();
    let read = File::open(&current).and_then(|file| {
        let mut start = file.take(CURRENT_LEN_MAX);
        start.read_to_end(&mut text)
    });
    read.map_err(StorageError::io("read", &current))?;
    // As strict as RocksDB, so that it reads no other file than the one that is walked.
    let name = String::from_utf8(text).ok();
    let name = name.as_deref().and_then(|text| text.strip_suffix('\n'));
    let name = name.filter(|name| {
        let number = name.strip_prefix("MANIFEST-").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    });
    match name {
        Some(name) => Ok((database.join(name), name.to_owned())),
        None => Err(damaged(current, Damage::Unknown)),
    }
}

fn walk_file(path: &Path) -> Result<Walked, StorageError> {
    match File::open(path).and_then(walk) {
        Ok(walked) => Ok(walked),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(damaged(path.to_owned(), Damage::Absent))
        }
        Err(error) => Err(StorageError::io("read", path)(error)),
    }
}

fn damaged(path: PathBuf, damage: Damage) -> StorageError {
    StorageError::Damaged {
        path,
        item: Item::Files,
        damage,
    }
}

/// A list with something in it that is no record.
pub(crate) struct Torn {
    manifest: PathBuf,
    name: String,
    /// Where its last whole record ends.
    end: u64,
    /// A database of links beside the real one.
    links: PathBuf,
}

impl Torn {
    /// The database's list, if something in it is no record. `links` is a folder that may be made for as long as
    /// this lives.
    ///
    /// # Errors
    /// As [`check`]'s, where there is no list that could be cut.
    pub(crate) fn find(database: &Path, links: PathBuf) -> Result<Option<Self>, StorageError> {
        let (manifest, name) = current(database)?;
        let walked = walk_file(&manifest)?;
        Ok(walked.bad.map(|_| Self {
            manifest,
            name,
            end: walked.end,
            links,
        }))
    }

    /// Makes a database of links to the same files, with the list cut.
    pub(crate) fn link(&self) -> io::Result<&Path> {
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
        let mut whole = File::open(&self.manifest)?.take(self.end);
        io::copy(&mut whole, &mut File::create(self.links.join(&self.name))?)?;
        fs::copy(database.join("CURRENT"), self.links.join("CURRENT"))?;
        Ok(&self.links)
    }

    /// Cuts the list itself, durably.
    pub(crate) fn cut(&self) -> Result<(), StorageError> {
        let cut = || {
            let file = OpenOptions::new().write(true).open(&self.manifest)?;
            file.set_len(self.end)?;
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
pub(crate) fn remove(links: &Path) -> io::Result<()> {
    match fs::remove_dir_all(links) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a walk has found.
#[derive(Debug, PartialEq)]
pub(crate) struct Walked {
    /// Where the last record ends before which all are whole.
    pub(crate) end: u64,
    /// Where something stands behind it that is no record. What is merely not written to its end is none of that:
    /// RocksDB takes it for what it is, and in a folder that is in use it may be a record on its way.
    pub(crate) bad: Option<u64>,
}

/// Walks a list with a block of it in memory at a time.
pub(crate) fn walk(mut file: impl Read) -> io::Result<Walked> {
    let mut block = Vec::with_capacity(BLOCK_LEN);
    let (mut begin, mut end) = (0, 0);
    let mut in_parts = false;
    loop {
        read_block(&mut file, &mut block)?;
        let mut at = 0;
        // What is shorter than a header fills the block, or is the beginning of one.
        while let Some((header, behind)) = block[at..].split_at_checked(HEADER_LEN) {
            let bad = Walked {
                end,
                bad: Some(begin + at as u64),
            };
            let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let kind = header[6];
            let in_order = match kind {
                FULL | FIRST => !in_parts,
                MIDDLE | LAST => in_parts,
                _ => false,
            };
            if !in_order {
                let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
                let mut unwritten = !in_parts && zeros(&block[at..]);
                while unwritten && block.len() == BLOCK_LEN {
                    read_block(&mut file, &mut block)?;
                    unwritten = zeros(&block);
                }
                return Ok(if unwritten {
                    Walked { end, bad: None }
                } else {
                    bad
                });
            }
            let Some(data) = behind.get(..len) else {
                // No record runs out of its block.
                let short = at + HEADER_LEN + len <= BLOCK_LEN;
                return Ok(if short {
                    Walked { end, bad: None }
                } else {
                    bad
                });
            };
            let sum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            if sum != checksum(kind, data) {
                return Ok(bad);
            }
            at += HEADER_LEN + len;
            in_parts = kind == FIRST || kind == MIDDLE;
            if !in_parts {
                end = begin + at as u64;
            }
        }
        if block.len() < BLOCK_LEN {
            return Ok(Walked { end, bad: None });
        }
        begin += BLOCK_LEN as u64;
    }
}

/// Reads a whole block, or what is left of the file.
fn read_block(file: &mut impl Read, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    let mut next = file.take(BLOCK_LEN as u64);
    next.read_to_end(block).map(drop)
}

/// RocksDB stores a checksum changed, so that the checksum of data with checksums in it is not special.
pub(crate) fn checksum(kind: u8, data: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), data);
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut record = checksum(kind, data).to_le_bytes().to_vec();
        record.extend_from_slice(&(data.len() as u16).to_le_bytes());
        record.push(kind);
        record.extend_from_slice(data);
        record
    }

    /// Where the whole records of `list` end, and where something else stands.
    fn walked(list: &[u8]) -> (usize, Option<usize>) {
        let Walked { end, bad } = walk(list).unwrap();
        (end as usize, bad.map(|at| at as usize))
    }

    #[test]
    fn a_list_ends_behind_its_last_whole_record() {
        let mut list = record(FULL, b"one");
        let first = list.len();
        list.extend(record(FULL, b"two"));
        assert_eq!(walked(&list), (list.len(), None));
        for cut in first..list.len() {
            assert_eq!(walked(&list[..cut]), (first, None), "cut at {cut}");
        }
        for hole in first..list.len() {
            let mut torn = list.clone();
            torn[hole] ^= 0xff;
            let (end, bad) = walked(&torn);
            assert_eq!(end, first, "byte {hole}");
            // One of the two bytes of the length still fits a block, where the file ends.
            assert!(bad == Some(first) || hole == first + 4, "byte {hole}");
        }
        // What was never written, however long.
        list.truncate(first);
        for zeros in [3, 10, BLOCK_LEN, 3 * BLOCK_LEN] {
            list.resize(first + zeros, 0);
            assert_eq!(walked(&list), (first, None));
        }
        *list.last_mut().unwrap() = 1;
        assert_eq!(walked(&list), (first, Some(first)));
    }

    #[test]
    fn only_the_four_kinds_of_a_list_are_records_whole_or_short() {
        let list = record(FULL, b"one");
        for kind in (0..=u8::MAX).filter(|kind| *kind != FULL) {
            let mut next = list.clone();
            next.extend(record(kind, b"two"));
            let expected = (kind != FIRST).then_some(list.len());
            assert_eq!(walked(&next), (list.len(), expected), "kind {kind}");
            next.pop();
            assert_eq!(walked(&next), (list.len(), expected), "short, kind {kind}");
        }
    }

    #[test]
    fn parts_follow_each_other_from_the_first_to_the_last() {
        let whole = [FIRST, MIDDLE, MIDDLE, LAST, FULL, FIRST, LAST];
        fn list(kinds: &[u8]) -> Vec<u8> {
            let records = kinds.iter().map(|kind| record(*kind, b"part"));
            records.collect::<Vec<_>>().concat()
        }
        let len = record(FULL, b"part").len();
        let bytes = list(&whole);
        assert_eq!(walked(&bytes), (bytes.len(), None));
        for kinds in [
            [FIRST, FULL],
            [FIRST, FIRST],
            [FULL, MIDDLE],
            [FULL, LAST],
            [FIRST, 0],
        ] {
            let bytes = list(&kinds);
            let end = if kinds[0] == FULL { len } else { 0 };
            assert_eq!(walked(&bytes), (end, Some(len)), "{kinds:?}");
        }
    }

    #[test]
    fn a_record_in_parts_is_whole_with_its_last_one() {
        let mut list = record(FULL, &[1; 100]);
        let first = list.len();
        let fits = BLOCK_LEN - list.len() - HEADER_LEN;
        list.extend(record(FIRST, &vec![2; fits]));
        assert_eq!(list.len(), BLOCK_LEN);
        list.extend(record(MIDDLE, &[3; BLOCK_LEN - HEADER_LEN]));
        assert_eq!(walked(&list), (first, None));
        // The last part ends so near its block's end that the next record begins in the next block.
        list.extend(record(LAST, &[4; BLOCK_LEN - HEADER_LEN - 3]));
        let second = list.len();
        assert_eq!(walked(&list), (second, None));
        list.extend([0; 3]);
        list.extend(record(FULL, b"next"));
        assert_eq!(walked(&list), (list.len(), None));
        // No part is longer than what is left of its block.
        let third = list.len();
        list.extend(record(FULL, &vec![5; BLOCK_LEN]));
        assert_eq!(walked(&list), (third, Some(third)));
    }
}
