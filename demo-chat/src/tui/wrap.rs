//! Text in columns: what a terminal shows as one character may be several code points, and two columns wide.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::chat;

/// How many columns `text` takes.
pub(crate) fn width(text: &str) -> usize {
    text.graphemes(true).map(UnicodeWidthStr::width).sum()
}

/// `text` with what would disturb a screen written out: newlines stay, tabulators become blanks.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push_str("    "),
            c if chat::must_escape(c) => chat::escape_char_into(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

/// `text` in at most `columns`, with an ellipsis if something had to go.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut out, mut used) = (String::new(), 0);
    for grapheme in text.graphemes(true) {
        used += grapheme.width();
        if used + 1 > columns {
            break;
        }
        out.push_str(grapheme);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// `text` in rows of at most `columns`, broken between words where that is possible. At least one row.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for paragraph in text.split('\n') {
        wrap_paragraph(paragraph, columns.max(1), &mut rows);
    }
    rows
}

fn wrap_paragraph(text: &str, columns: usize, rows: &mut Vec<String>) {
    let (mut row, mut row_width) = (String::new(), 0);
    // Where in the row a word begins, and how wide the row is up to there.
    let mut word = None;
    for grapheme in text.graphemes(true) {
        let grapheme_width = grapheme.width();
        let is_blank = grapheme == " ";
        if row_width + grapheme_width > columns && !row.is_empty() {
            if is_blank {
                rows.push(std::mem::take(&mut row));
                (row_width, word) = (0, None);
                continue;
            }
            let (at, width_to_word) = word.take().unwrap_or((row.len(), row_width));
            let rest = row.split_off(at);
            row.truncate(row.trim_end_matches(' ').len());
            rows.push(std::mem::replace(&mut row, rest));
            row_width -= width_to_word;
        }
        row.push_str(grapheme);
        row_width += grapheme_width;
        if is_blank {
            word = Some((row.len(), row_width));
        }
    }
    rows.push(row);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_where_they_fit() {
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two", 3), ["one", "two"]);
        assert_eq!(wrap("a\n\nb", 3), ["a", "", "b"]);
        assert_eq!(wrap("  indented", 10), ["  indented"]);
    }

    #[test]
    fn a_word_wider_than_the_row_is_broken() {
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("x abcdefgh", 3), ["x", "abc", "def", "gh"]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }

    #[test]
    fn wide_and_joined_characters_are_measured_as_shown() {
        assert_eq!(width("日本"), 4);
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
        assert_eq!(wrap("日本語", 3), ["日", "本", "語"]);
        assert_eq!(wrap("日本", 1), ["日", "本"]);
        assert_eq!(width("👩‍👩‍👧"), 2);
        assert_eq!(wrap("👩‍👩‍👧👩‍👩‍👧", 3), ["👩‍👩‍👧", "👩‍👩‍👧"]);
        assert_eq!(wrap("e\u{301}e\u{301}", 1), ["e\u{301}", "e\u{301}"]);
    }

    #[test]
    fn no_row_is_wider_than_asked_and_no_word_is_lost() {
        let text = "the quick brown 狐 jumps over thelazydogwithoutanyblanks  twice 👩‍👩‍👧 ok";
        for columns in 2..60 {
            let rows = wrap(text, columns);
            assert!(
                rows.iter().all(|row| width(row) <= columns),
                "{columns}: {rows:?}"
            );
            let without_blanks = |text: &str| text.replace(' ', "");
            assert_eq!(
                without_blanks(&rows.concat()),
                without_blanks(text),
                "{columns}"
            );
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(
            printable("a\tb\n\x1b[2J\u{202e}\\"),
            "a    b\n\\x1b[2J\\u{202e}\\"
        );
    }
}
