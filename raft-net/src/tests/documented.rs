//! What docs/wire.md says is so.

use std::time::Duration;

use super::{bulk, encode};
use crate::header::{HEADER_LEN, VERSION_MAX, VERSION_MIN};
use crate::local::GUESTS_MAX;
use crate::stream::HANDSHAKE_LEN_MAX;
use crate::visit::VISITS_MAX;
use crate::{
    ADDRESS_LEN_MAX, FrameKind, ITEMS_MAX, Limits, MANAGE_LEN_MAX, MANAGED_LEN_MAX,
    SNAPSHOT_CHUNK_LEN_MAX,
};

const DOCUMENT: &str = include_str!("../../../docs/wire.md");

/// The rows of the table whose head begins with `head`, cell by cell.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let lines = DOCUMENT.lines().skip_while(|line| !line.starts_with(head));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    rows.map(cells).collect()
}

#[test]
fn every_frame_is_in_the_table_and_nothing_else() {
    let rows = table("| number | frame |");
    let documented = rows
        .iter()
        .map(|row| (row[0].to_owned(), row[1].to_owned()));
    let exists = FrameKind::ALL.iter();
    let exists = exists.map(|kind| ((*kind as u8).to_string(), format!("`{kind:?}`")));
    assert_eq!(documented.collect::<Vec<_>>(), exists.collect::<Vec<_>>());
    for (row, kind) in rows.iter().zip(FrameKind::ALL) {
        assert_eq!(row.len(), 6, "{row:?}");
        let (number, lane) = (*kind as u8, row[4]);
        let expected = match kind {
            kind if kind.is_urgent() => "urgent",
            FrameKind::Hello => "main",
            FrameKind::UrgentHello => "urgent",
            FrameKind::SnapshotHello => "snapshot",
            FrameKind::Welcome | FrameKind::Refuse | FrameKind::Confirm => "any",
            FrameKind::Ping | FrameKind::Pong => "main, urgent",
            FrameKind::Visit | FrameKind::VisitAnswer => "visit",
            _ if number >= FrameKind::SnapshotOffer as u8 => "snapshot",
            _ => "main",
        };
        assert_eq!(lane, expected, "{kind:?}");
    }
}

#[test]
fn the_header_is_as_it_is_drawn() {
    let frame = encode(&bulk(1000));
    let bytes = frame.as_bytes();
    let mut at = 0;
    for row in table("| offset | bytes | field |") {
        let (offset, len): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        assert_eq!(offset, at, "{row:?}");
        let value = bytes[at..at + len]
            .iter()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let expected = match row[2].split(' ').next().unwrap() {
            "magic," => u64::from(u32::from_be_bytes(*b"rAFt")),
            "protocol" => u64::from(VERSION_MAX),
            "kind" => FrameKind::Forward as u64,
            "flags," | "group" => 0,
            "length" => (bytes.len() - HEADER_LEN) as u64,
            "crc32c" => {
                let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..at]), &bytes[HEADER_LEN..]);
                u64::from(crc)
            }
            field => panic!("no field {field}"),
        };
        assert_eq!(value, expected, "{row:?}");
        at += len;
    }
    assert_eq!(at, HEADER_LEN);
}

#[test]
fn the_bounds_are_the_defaults() {
    let limits = Limits::default();
    let number = |number: usize| number.to_string();
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let expected = [
        (
            "handshake_frame_len_max",
            kib(limits.handshake_frame_len_max),
        ),
        ("the other side's TLS handshake", kib(HANDSHAKE_LEN_MAX)),
        ("frame_len_max", mib(limits.frame_len_max)),
        ("queue_frames_max", number(limits.queue_frames_max)),
        ("queue_bytes_max", mib(limits.queue_bytes_max)),
        ("urgent_frames_max", number(limits.urgent_frames_max)),
        ("connect_timeout", seconds(limits.connect_timeout)),
        ("handshake_timeout", seconds(limits.handshake_timeout)),
        ("stall_timeout", seconds(limits.stall_timeout)),
        ("ping_interval", seconds(limits.ping_interval)),
        ("idle_timeout", seconds(limits.idle_timeout)),
        ("handshakes_max", number(limits.handshakes_max)),
        ("connections_max", number(limits.connections_max)),
        (
            "connections_per_address_max",
            number(limits.connections_per_address_max),
        ),
        ("batch_frames_max", number(limits.batch_frames_max)),
        ("batch_bytes_max", kib(limits.batch_bytes_max)),
        ("GUESTS_MAX", number(GUESTS_MAX)),
        ("ITEMS_MAX", number(ITEMS_MAX)),
        ("MANAGE_LEN_MAX", kib(MANAGE_LEN_MAX)),
        ("MANAGED_LEN_MAX", kib(MANAGED_LEN_MAX)),
        ("VISITS_MAX", number(VISITS_MAX)),
        ("ADDRESS_LEN_MAX", number(ADDRESS_LEN_MAX)),
        ("SNAPSHOT_CHUNK_LEN_MAX", mib(SNAPSHOT_CHUNK_LEN_MAX)),
    ];
    let documented = table("| bound | default |");
    let documented = documented
        .iter()
        .map(|row| (row[0].trim_matches('`'), row[1].to_owned()));
    assert_eq!(documented.collect::<Vec<_>>(), expected);
    assert!(DOCUMENT.contains(&format!("versions {VERSION_MIN} to {VERSION_MAX}")));
}
