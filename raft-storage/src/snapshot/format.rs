//! How a snapshot's file is laid out. All numbers are big-endian.
//!
//! ```text
//! magic    "raftsnap"
//! header   length (4 bytes), then sealed: group, id, last entry's term and index, cluster, length of a chunk,
//!          the configuration
//! chunk    length (4), crc32c (4), data; all but the last are of the length that the header says
//! ...
//! trailer  u32::MAX, crc32c (4), how many chunks (8), how many bytes of data (8)
//! ```
//!
//! Invariants:
//! - The checksum of a chunk and of the trailer begins with the snapshot's id and the chunk's number, so that
//!   one that comes from another snapshot, or stands in another's place, does not match.
//! - The trailer is written last. A file without one is not whole, whatever else is in it.
//! - Where a chunk begins follows from its number, so that any one is read without those before it.

use std::sync::Arc;

use raft_core::{ClusterId, LogId, LogIndex, SnapshotMeta, Term, membership::Configuration};

use super::{CHUNK_BYTES, SnapshotInfo};
use crate::{
    Damage,
    sealed::{self, Fields},
};

pub(crate) const MAGIC: &[u8; 8] = b"raftsnap";
/// A header cannot be longer; a length that says more is damage.
pub(crate) const HEADER_LEN_MAX: usize = 1 << 20;
/// What stands before the data of a chunk.
pub(crate) const CHUNK_HEADER_LEN: usize = 8;
pub(crate) const TRAILER_LEN: usize = 24;
const TRAILER_TAG: u32 = u32::MAX;
const GROUP: u64 = 0;

/// A file's beginning: everything before the first chunk.
pub(crate) fn header(info: &SnapshotInfo) -> Vec<u8> {
    let mut body = Vec::new();
    sealed::begin(&mut body);
    body.extend_from_slice(&GROUP.to_be_bytes());
    body.extend_from_slice(&info.id.to_be_bytes());
    body.extend_from_slice(&info.meta.last.term.0.to_be_bytes());
    body.extend_from_slice(&info.meta.last.index.0.to_be_bytes());
    body.push(u8::from(info.cluster.is_some()));
    let cluster = info.cluster.map_or(0, |cluster| cluster.0);
    body.extend_from_slice(&cluster.to_be_bytes());
    body.extend_from_slice(&(CHUNK_BYTES as u32).to_be_bytes());
    body.extend_from_slice(&info.meta.configuration.encode());
    sealed::finish(MAGIC, &mut body);
    let mut header = MAGIC.to_vec();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    header.extend_from_slice(&len.to_be_bytes());
    header.extend_from_slice(&body);
    header
}

/// Reads what follows the magic and the length. How many bytes the state has, only the trailer says.
pub(crate) fn read_header(sealed: &[u8]) -> Result<SnapshotInfo, Damage> {
    let mut fields = Fields(sealed::open(MAGIC, sealed)?);
    let group = fields.u64()?;
    let id = fields.u128()?;
    let last = LogId::new(Term(fields.u64()?), LogIndex(fields.u64()?));
    let has_cluster = fields.u8()? == 1;
    let cluster = ClusterId(fields.u128()?);
    let chunk_bytes = fields.u32()?;
    if group != GROUP || chunk_bytes as usize != CHUNK_BYTES {
        return Err(Damage::Length);
    }
    let configuration = Configuration::decode(fields.0)?;
    Ok(SnapshotInfo {
        meta: SnapshotMeta {
            last,
            configuration: Arc::new(configuration),
        },
        cluster: has_cluster.then_some(cluster),
        id,
        bytes: 0,
    })
}

/// The checksum of chunk `number`.
pub(crate) fn checksum(id: u128, number: u64, data: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&id.to_be_bytes());
    let sum = crc32c::crc32c_append(sum, &number.to_be_bytes());
    crc32c::crc32c_append(sum, data)
}

/// What goes before a chunk's data.
pub(crate) fn chunk_header(id: u128, number: u64, data: &[u8]) -> [u8; CHUNK_HEADER_LEN] {
    let len = u32::try_from(data.len()).unwrap_or(TRAILER_TAG);
    let mut header = [0; CHUNK_HEADER_LEN];
    header[..4].copy_from_slice(&len.to_be_bytes());
    header[4..].copy_from_slice(&checksum(id, number, data).to_be_bytes());
    header
}

/// Checks a chunk and its header against each other, and against what it must be.
pub(crate) fn check_chunk(info: &SnapshotInfo, number: u64, chunk: &[u8]) -> Result<(), Damage> {
    let (header, data) = chunk
        .split_first_chunk::<CHUNK_HEADER_LEN>()
        .ok_or(Damage::Length)?;
    if *header == chunk_header(info.id, number, data) {
        Ok(())
    } else {
        Err(Damage::Checksum)
    }
}

/// A file's end.
pub(crate) fn trailer(info: &SnapshotInfo) -> [u8; TRAILER_LEN] {
    let mut trailer = [0; TRAILER_LEN];
    trailer[..4].copy_from_slice(&TRAILER_TAG.to_be_bytes());
    trailer[8..16].copy_from_slice(&info.chunks().to_be_bytes());
    trailer[16..].copy_from_slice(&info.bytes.to_be_bytes());
    let sum = checksum(info.id, u64::MAX, &trailer[8..]);
    trailer[4..8].copy_from_slice(&sum.to_be_bytes());
    trailer
}

/// How many bytes the state has, as the file's end says.
pub(crate) fn read_trailer(id: u128, trailer: &[u8; TRAILER_LEN]) -> Result<u64, Damage> {
    let sum = checksum(id, u64::MAX, &trailer[8..]);
    let mut fields = Fields(trailer);
    let (tag, stored) = (fields.u32()?, fields.u32()?);
    let (chunks, bytes) = (fields.u64()?, fields.u64()?);
    let whole = tag == TRAILER_TAG && stored == sum;
    if whole && chunks == bytes.div_ceil(CHUNK_BYTES as u64) {
        Ok(bytes)
    } else {
        Err(Damage::Unfinished)
    }
}

/// Where chunk `number` begins in a file whose header has `header_len` bytes, and how long it is with its own
/// header; none if the snapshot has no such chunk.
pub(crate) fn chunk_at(info: &SnapshotInfo, header_len: u64, number: u64) -> Option<(u64, usize)> {
    let stride = (CHUNK_HEADER_LEN + CHUNK_BYTES) as u64;
    let before = number.checked_mul(CHUNK_BYTES as u64)?;
    let left = info.bytes.checked_sub(before).filter(|left| *left > 0)?;
    let data = left.min(CHUNK_BYTES as u64) as usize;
    let at = header_len.checked_add(number.checked_mul(stride)?)?;
    Some((at, CHUNK_HEADER_LEN + data))
}

/// How long the whole file is; none for more than a file can hold.
pub(crate) fn file_len(info: &SnapshotInfo, header_len: u64) -> Option<u64> {
    let frames = info.chunks().checked_mul(CHUNK_HEADER_LEN as u64)?;
    header_len
        .checked_add(info.bytes)?
        .checked_add(frames)?
        .checked_add(TRAILER_LEN as u64)
}

#[cfg(test)]
mod tests {
    use raft_core::NodeId;

    use super::*;

    fn info(bytes: u64) -> SnapshotInfo {
        SnapshotInfo {
            meta: SnapshotMeta {
                last: LogId::new(Term(3), LogIndex(700)),
                configuration: Arc::new(Configuration::of([NodeId(1), NodeId(2)])),
            },
            cluster: Some(ClusterId(77)),
            id: 0x0123,
            bytes,
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let header = header(&info(0));
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&header), HEADER);
        assert_eq!(hex(&chunk_header(0x0123, 4, b"state")), CHUNK);
        assert_eq!(hex(&trailer(&info(CHUNK_BYTES as u64 + 1))), TRAILER);
        assert_eq!(read_header(&header[12..]), Ok(info(0)));
    }

    const HEADER: &str = "72616674736e61700000006001c805884a000000000000000000000000000000000000000000000123000000000000000300000000000002bc010000000000000000000000000000004d00040000010000020000000000000001000000000000000200000000000000000000";
    const CHUNK: &str = "00000005e5740bc4";
    const TRAILER: &str = "ffffffff6b72f64800000000000000020000000000040001";

    #[test]
    fn a_chunk_of_another_place_or_another_snapshot_does_not_match() {
        let info = info(9);
        let mut chunk = chunk_header(info.id, 0, b"the state").to_vec();
        chunk.extend_from_slice(b"the state");
        assert_eq!(check_chunk(&info, 0, &chunk), Ok(()));
        assert_eq!(check_chunk(&info, 1, &chunk), Err(Damage::Checksum));
        let other = SnapshotInfo {
            id: 9,
            ..info.clone()
        };
        assert_eq!(check_chunk(&other, 0, &chunk), Err(Damage::Checksum));
        for bit in 0..chunk.len() * 8 {
            let mut flipped = chunk.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(check_chunk(&info, 0, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn any_flipped_bit_of_the_frame_is_noticed() {
        let (header, end) = (header(&info(9)), trailer(&info(9)));
        for bit in 0..end.len() * 8 {
            let mut flipped = end;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_trailer(info(9).id, &flipped).is_err(), "bit {bit}");
        }
        for bit in 0..(header.len() - 12) * 8 {
            let mut flipped = header[12..].to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_header(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_byte_of_the_file_is_in_one_place() {
        for bytes in [0, 1, CHUNK_BYTES as u64, CHUNK_BYTES as u64 * 3 + 5] {
            let info = info(bytes);
            let mut at = 100;
            for number in 0..info.chunks() {
                let (begins, len) = chunk_at(&info, 100, number).unwrap();
                assert_eq!(begins, at);
                at += len as u64;
            }
            assert_eq!(chunk_at(&info, 100, info.chunks()), None);
            assert_eq!(chunk_at(&info, 100, u64::MAX), None);
            assert_eq!(file_len(&info, 100), Some(at + TRAILER_LEN as u64));
        }
    }
}
