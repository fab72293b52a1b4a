//! The line that is being typed: edited by what a terminal shows as characters, with the lines before it.

use std::collections::VecDeque;

use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};
use unicode_width::UnicodeWidthStr;

/// How many lines are remembered.
const LINES_MAX: usize = 100;
/// The longest line, in bytes. More is not taken.
const LINE_LEN_MAX: usize = 64 << 10;

/// A line editor.
#[derive(Debug, Default)]
pub(crate) struct Input {
    text: String,
    /// A byte offset, at the border of a character as shown.
    cursor: usize,
    before: VecDeque<String>,
    /// Which of the lines before is shown, counted from the newest, and what was being typed.
    recalled: Option<(usize, String)>,
}

impl Input {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Takes the line, and remembers it.
    pub(crate) fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        (self.cursor, self.recalled) = (0, None);
        if !text.trim().is_empty() && self.before.front() != Some(&text) {
            self.before.truncate(LINES_MAX - 1);
            self.before.push_front(text.clone());
        }
        text
    }

    /// Types `text`: newlines stay, tabulators too, other control characters are left out. Returns whether
    /// all of it fitted.
    pub(crate) fn insert(&mut self, text: &str) -> bool {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut text: String = text
            .chars()
            .filter(|c| matches!(c, '\n' | '\t') || !c.is_control())
            .collect();
        let room = LINE_LEN_MAX - self.text.len();
        let fits = text.len() <= room;
        while text.len() > room {
            text.pop();
        }
        self.text.insert_str(self.cursor, &text);
        self.cursor += text.len();
        self.leave_character();
        fits
    }

    /// What has come together at the cursor may be one character now: the cursor goes behind it.
    fn leave_character(&mut self) {
        while !self.is_border(self.cursor) {
            self.cursor += self.text[self.cursor..]
                .chars()
                .next()
                .map_or(1, char::len_utf8);
        }
    }

    fn is_border(&self, at: usize) -> bool {
        GraphemeCursor::new(at, self.text.len(), true)
            .is_boundary(&self.text, 0)
            .unwrap_or(true)
    }

    fn before_cursor(&self) -> usize {
        self.text[..self.cursor]
            .grapheme_indices(true)
            .next_back()
            .map_or(0, |(at, _)| at)
    }

    fn behind_cursor(&self) -> usize {
        let next = self.text[self.cursor..].graphemes(true).next();
        self.cursor + next.map_or(0, str::len)
    }

    fn word_before_cursor(&self) -> usize {
        let text = self.text[..self.cursor].trim_end();
        text.char_indices()
            .rev()
            .find(|(_, c)| c.is_whitespace())
            .map_or(0, |(at, c)| at + c.len_utf8())
    }

    fn word_behind_cursor(&self) -> usize {
        let behind = &self.text[self.cursor..];
        let word = behind.len() - behind.trim_start().len();
        let end = behind[word..]
            .find(char::is_whitespace)
            .map_or(behind.len(), |at| word + at);
        self.cursor + end
    }

    pub(crate) fn left(&mut self) {
        self.cursor = self.before_cursor();
    }

    pub(crate) fn right(&mut self) {
        self.cursor = self.behind_cursor();
    }

    pub(crate) fn word_left(&mut self) {
        self.cursor = self.word_before_cursor();
    }

    pub(crate) fn word_right(&mut self) {
        self.cursor = self.word_behind_cursor();
    }

    pub(crate) fn home(&mut self) {
        self.cursor = 0;
    }

    pub(crate) fn end(&mut self) {
        self.cursor = self.text.len();
    }

    pub(crate) fn backspace(&mut self) {
        self.delete_back_to(self.before_cursor());
    }

    pub(crate) fn delete(&mut self) {
        self.text.drain(self.cursor..self.behind_cursor());
        self.leave_character();
    }

    pub(crate) fn delete_word(&mut self) {
        self.delete_back_to(self.word_before_cursor());
    }

    pub(crate) fn delete_to_start(&mut self) {
        self.delete_back_to(0);
    }

    pub(crate) fn delete_to_end(&mut self) {
        self.text.truncate(self.cursor);
    }

    fn delete_back_to(&mut self, start: usize) {
        self.text.drain(start..self.cursor);
        self.cursor = start;
        self.leave_character();
    }

    /// The line before the one that is shown.
    pub(crate) fn up(&mut self) {
        let at = self.recalled.as_ref().map_or(0, |(at, _)| at + 1);
        let Some(line) = self.before.get(at) else {
            return;
        };
        let shown = std::mem::replace(&mut self.text, line.clone());
        let typed = self.recalled.take().map_or(shown, |(_, typed)| typed);
        self.recalled = Some((at, typed));
        self.end();
    }

    /// The line behind the one that is shown; at last what was being typed.
    pub(crate) fn down(&mut self) {
        let Some((at, typed)) = self.recalled.take() else {
            return;
        };
        if at == 0 {
            self.text = typed;
        } else {
            self.text = self.before[at - 1].clone();
            self.recalled = Some((at - 1, typed));
        }
        self.end();
    }

    /// What of the line is shown in `columns`, and in which of them the cursor stands: as much of what
    /// stands before the cursor as there is room for, then what stands behind it.
    pub(crate) fn window(&self, columns: usize) -> (String, usize) {
        let columns = columns.max(1);
        let (mut shown, mut cursor) = (Vec::new(), 0);
        for grapheme in self.text[..self.cursor]
            .graphemes(true)
            .rev()
            .map(on_one_row)
        {
            // One column is left for the cursor.
            if cursor + grapheme.width() >= columns {
                break;
            }
            cursor += grapheme.width();
            shown.push(grapheme);
        }
        shown.reverse();
        let mut used = cursor;
        for grapheme in self.text[self.cursor..].graphemes(true).map(on_one_row) {
            used += grapheme.width();
            if used > columns {
                break;
            }
            shown.push(grapheme);
        }
        (shown.concat(), cursor)
    }
}

fn on_one_row(grapheme: &str) -> &str {
    match grapheme {
        "\n" => "⏎",
        "\t" => " ",
        grapheme => grapheme,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(text: &str) -> Input {
        let mut input = Input::default();
        assert!(input.insert(text));
        input
    }

    #[test]
    fn editing_goes_by_characters_as_shown() {
        let mut line = input("ae\u{301}👩‍👩‍👧b");
        line.left();
        line.backspace();
        assert_eq!(line.text(), "ae\u{301}b");
        line.left();
        line.delete();
        assert_eq!(line.text(), "ab");
        line.insert("x");
        assert_eq!(line.text(), "axb");
        line.home();
        line.backspace();
        line.left();
        line.delete();
        line.end();
        line.delete();
        line.right();
        line.insert("!");
        assert_eq!(line.text(), "xb!");
    }

    #[test]
    fn a_joining_character_does_not_leave_the_cursor_within_another() {
        let mut line = input("👩👧");
        line.left();
        line.insert("\u{200d}");
        line.backspace();
        assert!(line.text().is_char_boundary(line.cursor));
        line.home();
        line.insert("e");
        line.insert("\u{301}");
        line.left();
        assert_eq!(line.cursor, 0);
    }

    #[test]
    fn words_and_ends_are_deleted() {
        let mut line = input("one  two three  ");
        line.delete_word();
        assert_eq!(line.text(), "one  two ");
        line.word_left();
        line.delete_to_end();
        assert_eq!(line.text(), "one  ");
        line.insert("é");
        line.word_left();
        line.word_left();
        line.word_right();
        assert_eq!(line.cursor, 3);
        line.delete_to_start();
        assert_eq!(line.text(), "  é");
        line.word_left();
        line.delete_word();
        assert_eq!(line.text(), "  é");
    }

    #[test]
    fn lines_come_back_and_so_does_what_was_being_typed() {
        let mut line = Input::default();
        for text in ["one", "two", "two", " "] {
            line.insert(text);
            line.take();
        }
        line.insert("thr");
        line.down();
        assert_eq!(line.text(), "thr");
        line.up();
        assert_eq!(line.text(), "two");
        line.up();
        line.up();
        assert_eq!(line.text(), "one");
        line.down();
        line.down();
        assert_eq!(line.text(), "thr");
    }

    #[test]
    fn a_paste_is_cleaned_and_bounded() {
        let mut line = input("a\r\nb\rc\td\x1b\0");
        assert_eq!(line.text(), "a\nb\nc\td");
        assert_eq!(line.window(20).0, "a⏎b⏎c d");
        assert!(!line.insert(&"x".repeat(LINE_LEN_MAX)));
        assert_eq!(line.text().len(), LINE_LEN_MAX);
    }

    #[test]
    fn the_cursor_is_always_in_the_window() {
        let mut line = input("abcdefghij 日本語");
        for columns in 1..30 {
            for _ in 0..20 {
                let (shown, cursor) = line.window(columns);
                assert!(
                    cursor < columns && super::super::wrap::width(&shown) <= columns,
                    "{columns}: {shown}"
                );
                line.left();
            }
            line.end();
        }
        assert_eq!(line.window(6), ("本語".into(), 4));
        line.home();
        assert_eq!(line.window(6), ("abcdef".into(), 0));
    }
}
