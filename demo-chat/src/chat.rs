//! What a chat message is as a command of the log, and how one is written on a line.
//!
//! The bytes are MessagePack: an array of version, sender and text. Another program may put other bytes
//! into the same log, or a later version of this one: [`Message::decode`] refuses them, and whoever shows
//! them shows them as such.

use std::fmt::Write;

use raft_actor::NodeId;
use serde::{Deserialize, Serialize};

/// The longest command that this program proposes or takes, on every node.
pub(crate) const COMMAND_BYTES_MAX: usize = 1 << 20;
/// The longest name that a node may give itself.
pub(crate) const NAME_CHARS_MAX: usize = 32;
/// The sender that is shown for a command that is no chat message. No node may call itself so.
pub(crate) const NOBODY: &str = "?";

const VERSION: u8 = 1;
/// How many bytes of a command that is no chat message are shown.
const FOREIGN_BYTES_SHOWN: usize = 64;

/// The name of a node's messages: what was given, else one after the node's id.
pub(crate) fn name(given: Option<String>, id: Option<NodeId>) -> String {
    given.unwrap_or_else(|| id.map_or_else(|| "node".to_owned(), |id| format!("node-{id}")))
}

/// What one person said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) from: String,
    pub(crate) text: String,
}

#[derive(Serialize)]
struct Encoded<'a>(u8, &'a str, &'a str);

#[derive(Deserialize)]
struct Decoded(u8, String, String);

impl Message {
    /// The command's bytes.
    pub(crate) fn encode(from: &str, text: &str) -> Vec<u8> {
        // Writing to memory cannot fail, and an empty command would still be shown as no chat message.
        rmp_serde::to_vec(&Encoded(VERSION, from, text)).unwrap_or_default()
    }

    /// How long the command of a text of `text_len` bytes is, without making it.
    pub(crate) fn encoded_len(from: &str, text_len: usize) -> usize {
        let string = |len: usize| match len {
            0..32 => 1 + len,
            32..0x100 => 2 + len,
            0x100..0x1_0000 => 3 + len,
            _ => 5 + len,
        };
        2 + string(from.len()) + string(text_len)
    }

    /// The longest text whose command is not too long.
    pub(crate) fn text_len_max(from: &str) -> usize {
        let beside_the_text = Self::encoded_len(from, COMMAND_BYTES_MAX) - COMMAND_BYTES_MAX;
        COMMAND_BYTES_MAX - beside_the_text
    }

    /// The message that `command` is, if it is one: to the byte, with nothing behind it.
    pub(crate) fn decode(command: &[u8]) -> Option<Self> {
        match rmp_serde::from_slice(command) {
            Ok(Decoded(VERSION, from, text))
                if Self::encoded_len(&from, text.len()) == command.len() =>
            {
                Some(Self { from, text })
            }
            _ => None,
        }
    }

    /// The message that `command` is; or one from [`NOBODY`] that says what it is instead.
    pub(crate) fn decode_or_describe(command: &[u8]) -> Self {
        Self::decode(command).unwrap_or_else(|| {
            let shown = &command[..command.len().min(FOREIGN_BYTES_SHOWN)];
            let more = if shown.len() < command.len() {
                "…"
            } else {
                ""
            };
            let text = format!(
                "no chat message, {} bytes: {}{more}",
                command.len(),
                shown.escape_ascii()
            );
            Self {
                from: NOBODY.into(),
                text,
            }
        })
    }
}

/// Whether `c` is written in another way: it would break the line, move the cursor, or turn the direction
/// of what stands around it.
pub(crate) fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends `text` to `out` as one field of one line: `\t`, `\n`, `\r` and `\\` for tabulator, newline,
/// carriage return and backslash, `\xNN` for the other control characters of ASCII, `\u{N…}` for those
/// beyond it, for the line and paragraph separators and for what turns the direction of writing. Everything
/// else is itself, so that the original can be had back.
pub(crate) fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            c if must_escape(c) => escape_char_into(out, c),
            c => out.push(c),
        }
    }
}

/// Appends one character that [must be escaped](must_escape).
pub(crate) fn escape_char_into(out: &mut String, c: char) {
    // Writing to memory cannot fail.
    let _ = match c {
        '\t' => out.write_str("\\t"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        c if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// `text` as one line, for errors that quote what they were given.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if must_escape(c) {
            escape_char_into(&mut line, c)
        } else {
            line.push(c)
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape(text: &str) -> String {
        let mut out = String::new();
        escape_into(&mut out, text);
        out
    }

    #[test]
    fn a_message_is_what_it_was() {
        for text in ["", "hi", "ünï\t💬\n\0", &"x".repeat(70_000)] {
            let bytes = Message::encode("ada", text);
            assert_eq!(bytes.len(), Message::encoded_len("ada", text.len()));
            assert_eq!(
                Message::decode(&bytes),
                Some(Message {
                    from: "ada".into(),
                    text: text.into()
                })
            );
        }
    }

    #[test]
    fn the_longest_text_fits_and_one_more_byte_does_not() {
        for from in ["a", "a name of more than thirty-one bytes"] {
            let max = Message::text_len_max(from);
            assert_eq!(
                Message::encode(from, &"x".repeat(max)).len(),
                COMMAND_BYTES_MAX
            );
            assert_eq!(Message::encoded_len(from, max + 1), COMMAND_BYTES_MAX + 1);
        }
    }

    #[test]
    fn the_format_is_frozen() {
        assert_eq!(Message::encode("ada", "hi"), b"\x93\x01\xa3ada\xa2hi");
    }

    #[test]
    fn other_bytes_are_shown_as_such() {
        let newer = rmp_serde::to_vec(&Encoded(2, "ada", "hi")).unwrap();
        let longer = [Message::encode("ada", "hi"), vec![0]].concat();
        let cut = &Message::encode("ada", "hi")[..5];
        let huge_claim = b"\x93\x01\xdb\xff\xff\xff\xffx";
        for bytes in [
            b"",
            b"hello".as_slice(),
            b"\xc1",
            huge_claim,
            &newer,
            &longer,
            cut,
        ] {
            assert_eq!(Message::decode(bytes), None, "{bytes:?}");
            assert_eq!(Message::decode_or_describe(bytes).from, NOBODY);
        }
        assert_eq!(
            Message::decode_or_describe(b"a\tb").text,
            "no chat message, 3 bytes: a\\tb"
        );
        let long = Message::decode_or_describe(&[b'x'; 1000]).text;
        assert!(
            long.starts_with("no chat message, 1000 bytes: xxx") && long.ends_with('…'),
            "{long}"
        );
        assert!(long.len() < 200);
    }

    #[test]
    fn a_deeply_nested_command_is_no_message_and_no_overflow() {
        assert_eq!(Message::decode(&[0x91; 1 << 20]), None);
    }

    #[test]
    fn no_control_character_is_left() {
        assert_eq!(escape("a\tb\nc\rd\\e"), "a\\tb\\nc\\rd\\\\e");
        assert_eq!(escape("\x1b[31m\0\x7f"), "\\x1b[31m\\x00\\x7f");
        assert_eq!(
            escape("\u{85}\u{2028}\u{202e}"),
            "\\u{85}\\u{2028}\\u{202e}"
        );
        assert_eq!(escape("grüße 💬 👩‍👩‍👧 نص"), "grüße 💬 👩‍👩‍👧 نص");
        let all: String = (0..=0x0011_0000).filter_map(char::from_u32).collect();
        assert!(!escape(&all).chars().any(must_escape));
    }
}
