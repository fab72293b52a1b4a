//! Numbers, names and bytes in words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use raft_core::membership::Configuration;
use raft_core::{LogId, NodeId};
use serde_json::{Value, json};

/// A row of two columns.
pub(crate) fn row(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name:<14} {value}")
}

/// A count of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1, 2, 3`.
pub(crate) fn list<'n>(nodes: impl IntoIterator<Item = &'n NodeId>) -> String {
    let nodes: Vec<_> = nodes.into_iter().map(NodeId::to_string).collect();
    if nodes.is_empty() {
        return "nobody".to_owned();
    }
    nodes.join(", ")
}

/// The first `max` bytes as text: printable as they are, others escaped.
pub(crate) fn preview(data: &[u8], max: Option<usize>) -> String {
    let shown = &data[..max.unwrap_or(data.len()).min(data.len())];
    let mut text = String::new();
    for chunk in shown.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\'' => text.push(character),
                // Nothing that moves a cursor or turns the line around.
                _ => text.extend(character.escape_debug()),
            }
        }
        // Cut in the middle of a character, which is nobody's fault.
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if shown.len() < data.len() {
        text.push('…');
    }
    text
}

/// Bytes in hexadecimal.
pub(crate) fn hex(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

pub(crate) fn json_id(id: LogId) -> Value {
    json!({ "index": id.index.0, "term": id.term.0 })
}

pub(crate) fn json_configuration(configuration: &Configuration) -> Value {
    let ids = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    json!({
        "voters": ids(&configuration.voters),
        "voters_outgoing": ids(&configuration.voters_outgoing),
        "learners": ids(&configuration.learners),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_printed_is_escaped() {
        assert_eq!(preview(b"plain", None), "plain");
        assert_eq!(preview("grün\n\t\\".as_bytes(), None), "grün\\n\\t\\\\");
        assert_eq!(preview(b"\xff\x00", None), "\\xff\\0");
        assert_eq!(preview(b"abcdef", Some(3)), "abc…");
        assert_eq!(preview("grün".as_bytes(), Some(3)), "gr\\xc3…");
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
    }
}
