//! What `make fuzz` runs: it takes any bytes for what a store finds on its disk, and panics when something is wrong
//! with what became of them.
//!
//! It stands here because what it drives is private. The test runs it over the committed corpus, so that an input
//! which once failed stays a test of `cargo test`, and needs no fuzzer.

use std::{fmt::Debug, fs::File, os::unix::fs::FileExt, path::Path};

use bytes::Bytes;
use raft_core::{ClusterId, Entry, EntryKind, HardState, LogIndex, membership::Configuration};

use crate::{
    SnapshotSource as _,
    manifest::{self, Walked, walk},
    mark,
    records::{self, Body, CURSOR, Counted, FOLDER, Forced, Members, Owner, Pointer},
    run::{self, GROUP},
    sealed,
    snapshot::{
        files::FileSource,
        format::{self, CHUNK_HEADER_LEN, TRAILER_LEN},
    },
};

/// Any stored value: a run of entries, a record, a slot of the mark, a snapshot's file, RocksDB's list of files.
/// What can be read is written as the same again, and nothing is believed that the bytes only claim.
///
/// The first byte says what it is, the second whether its checksums are made right: no fuzzer finds them by itself.
pub fn stored(data: &[u8]) {
    let Some(([what, flags], bytes)) = data.split_first_chunk() else {
        return;
    };
    let heal = flags & 1 != 0;
    match what % 5 {
        0 => entries(bytes, heal),
        1 => record(*flags, bytes, heal),
        2 => slot(bytes, heal),
        3 => snapshot(bytes, heal),
        _ => list(*flags, bytes, heal),
    }
}

/// The index of the first entry, and the value of the run.
fn entries(bytes: &[u8], heal: bool) {
    let Some((first, value)) = bytes.split_first_chunk() else {
        return;
    };
    let first = LogIndex(u64::from_be_bytes(*first));
    let key = run::key(first);
    let value = Bytes::from(sealed_under(&key, value, heal));
    let Ok(header) = run::header(first, &value) else {
        return;
    };
    assert_eq!(run::first_of(&key), Some(header.first.index));
    let read = |from: LogIndex| {
        let mut entries = Vec::new();
        let read = run::decode(header, &value, from, |entry| {
            entries.push(entry);
            true
        });
        read.map(|()| entries)
    };
    let configurations = run::configurations(header, &value);
    let Ok(entries) = read(first) else {
        return;
    };
    assert_eq!(entries.len(), header.count as usize);
    let last = entries.last().map(|entry| entry.id.index);
    assert_eq!(last, Some(header.last()));
    let rest: Vec<Entry> = entries[entries.len() / 2..].to_vec();
    assert_eq!(read(rest[0].id.index), Ok(rest));
    let of_that_kind = |entry: &&Entry| entry.kind == EntryKind::Configuration;
    let expected = entries.iter().filter(of_that_kind);
    let expected: Vec<_> = expected
        .map(|entry| (entry.id.index, &entry.data[..]))
        .collect();
    assert_eq!(configurations, Ok(expected));
    let mut again = Vec::new();
    let run: Vec<&Entry> = entries.iter().collect();
    assert_eq!(run::encode(header.term_before, &run, &mut again), key);
    assert!(again[1..] == value[1..] || value[0] != again[0]);
}

fn record(flags: u8, bytes: &[u8], heal: bool) {
    let (group, name) = match flags >> 1 & 15 {
        0 => (FOLDER, "identity"),
        1 => (GROUP, "hard_state"),
        2 => (GROUP, "cluster"),
        3 => (GROUP, "members"),
        4 => (GROUP, "snapshot"),
        5 => (GROUP, "forced"),
        6 => (GROUP, "records"),
        8 => (GROUP, "known"),
        _ => (GROUP, "cursor/name"),
    };
    let key = records::key(group, name);
    let value = sealed_under(&key, bytes, heal);
    let fine = records::check(&key, &value).is_ok();
    let read = match name {
        "identity" => same_again::<Owner>(&key, &value),
        "hard_state" => same_again::<HardState>(&key, &value),
        "cluster" => same_again::<ClusterId>(&key, &value),
        "known" => same_again::<Configuration>(&key, &value),
        "members" => same_again::<Members>(&key, &value),
        "snapshot" => same_again::<Pointer>(&key, &value),
        "forced" => same_again::<Forced>(&key, &value),
        "records" => same_again::<Counted>(&key, &value),
        cursor => cursor.starts_with(CURSOR) && same_again::<LogIndex>(&key, &value),
    };
    assert_eq!(fine, read);
    // Keys are read back too, of whatever bytes they are.
    let _ = records::check(bytes, &value);
    let _ = run::first_of(bytes);
}

/// Whether it could be read.
fn same_again<T: Body + Debug + PartialEq>(key: &[u8], value: &[u8]) -> bool {
    let Ok(record) = records::decode::<T>(key, value) else {
        return false;
    };
    assert_eq!(
        records::decode(key, &records::encode(key, &record)),
        Ok(record)
    );
    true
}

fn slot(bytes: &[u8], heal: bool) {
    let mut body = bytes.to_vec();
    body.resize(mark::SLOT_LEN - mark::MAGIC.len(), 0);
    let sealed = sealed_under(mark::MAGIC, &body, heal);
    let slot = [mark::MAGIC, &sealed].concat();
    let slot = slot.try_into().expect("as long as a slot");
    if let Ok((sequence, record)) = mark::decode(&slot) {
        let again = mark::encode(sequence, &record).try_into();
        let again = mark::decode(&again.expect("as long as a slot"));
        assert_eq!(again, Ok((sequence, record)));
    }
}

/// The length of the header, the header, a chunk, and what the trailer says.
fn snapshot(bytes: &[u8], heal: bool) {
    let mut file = bytes.to_vec();
    if heal {
        healed_file(&mut file);
    }
    let info = |source: &FileSource| source.info().clone();
    let Some(source) = in_memory(&file) else {
        return;
    };
    let info = info(&source);
    assert!(info.bytes <= file.len() as u64, "bytes that are not there");
    let mut state = 0;
    for number in 0..info.chunks() {
        match source.read_chunk(number) {
            Ok(chunk) => state += chunk.len() as u64,
            Err(_) => return,
        }
    }
    assert_eq!(state, info.bytes);
    assert!(source.read_chunk(info.chunks()).is_err());
    assert!(source.read_chunk(u64::MAX).is_err());
    // Written again, its beginning and its end read as the same.
    let header = format::header(&info);
    let read = format::read_header(&header[12..]).map(|read| (read.meta, read.cluster, read.id));
    assert_eq!(read, Ok((info.meta.clone(), info.cluster, info.id)));
    assert_eq!(
        format::read_trailer(info.id, &format::trailer(&info)),
        Ok(info.bytes)
    );
}

fn in_memory(bytes: &[u8]) -> Option<FileSource> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let file = memfd_create("snapshot", MemfdFlags::CLOEXEC).expect("a file in memory");
    let file = File::from(file);
    file.write_all_at(bytes, 0).expect("a write to memory");
    FileSource::of(file, Path::new("snapshot")).ok()
}

/// Makes the checksums of a snapshot's file right, where it has the parts that they stand in; one chunk.
fn healed_file(file: &mut [u8]) {
    let Some((start, rest)) = file.split_first_chunk_mut::<12>() else {
        return;
    };
    start[..8].copy_from_slice(format::MAGIC);
    let header_len = usize::from(u16::from_be_bytes([start[10], start[11]]));
    start[8..10].fill(0);
    let Some((header, rest)) = rest.split_at_mut_checked(header_len) else {
        return;
    };
    if header.len() < sealed::HEADER_LEN {
        return;
    }
    sealed::finish(format::MAGIC, header);
    let Ok(info) = format::read_header(header) else {
        return;
    };
    let Some((chunk, trailer)) = rest.split_last_chunk_mut::<TRAILER_LEN>() else {
        return;
    };
    trailer[..4].fill(0xff);
    let sum = format::checksum(info.id, u64::MAX, &trailer[8..]);
    trailer[4..8].copy_from_slice(&sum.to_be_bytes());
    if let Some((header, data)) = chunk.split_first_chunk_mut::<CHUNK_HEADER_LEN>() {
        *header = format::chunk_header(info.id, 0, data);
    }
}

/// A value as it is stored under `key`: the version, and behind its checksum the body.
fn sealed_under(key: &[u8], bytes: &[u8], heal: bool) -> Vec<u8> {
    let mut value = bytes.to_vec();
    if heal && value.len() >= sealed::HEADER_LEN {
        sealed::finish(key, &mut value);
    }
    value
}

/// RocksDB's list of files: a record that fills most of a block if the flags want it, then any bytes.
fn list(flags: u8, bytes: &[u8], heal: bool) {
    let mut list = Vec::new();
    if flags & 2 != 0 {
        let left = usize::from(flags >> 2);
        let data = vec![flags; manifest::BLOCK_LEN - manifest::HEADER_LEN - left];
        list.extend_from_slice(&[0; 4]);
        list.extend_from_slice(&(data.len() as u16).to_le_bytes());
        list.push(manifest::FULL);
        list.extend_from_slice(&data);
    }
    list.extend_from_slice(bytes);
    if heal {
        healed_list(&mut list);
    }
    let walked = |list: &[u8]| walk(list).expect("memory can be read");
    let Walked { end, bad } = walked(&list);
    let len = list.len() as u64;
    assert!(end <= len && bad.is_none_or(|bad| (end..len).contains(&bad)));
    // Cut behind its last whole record, there is nothing wrong with it.
    let bad = None;
    assert_eq!(walked(&list[..end as usize]), Walked { end, bad });
}

/// Makes the checksums of the records right, block by block.
fn healed_list(list: &mut [u8]) {
    for mut block in list.chunks_mut(manifest::BLOCK_LEN) {
        while let Some((header, rest)) = block.split_first_chunk_mut::<{ manifest::HEADER_LEN }>() {
            let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let Some((data, behind)) = rest.split_at_mut_checked(len) else {
                break;
            };
            let sum = manifest::checksum(header[6], data);
            header[..4].copy_from_slice(&sum.to_le_bytes());
            block = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn stored() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/stored");
        let inputs = fs::read_dir(corpus).unwrap();
        let inputs = inputs.map(|input| fs::read(input.unwrap().path()).unwrap());
        let count = inputs.map(|input| super::stored(&input)).count();
        assert!(count > 10, "a corpus of {count} inputs");
    }
}
