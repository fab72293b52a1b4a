//! What has been delivered, newest last, and which part of it is looked at.
//!
//! Only what was delivered is history. It is bounded: older messages are in the log, where plain mode shows
//! them. The view either follows the end or stands still, with its lowest row tied to a message, so that
//! neither news nor another width moves what somebody reads.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation;

use super::wrap;
use crate::chat::Message;

const MESSAGES_MAX: usize = 10_000;
/// How much of a text is kept.
const TEXT_LEN_MAX: usize = 4096;
/// How much of a name is kept.
const NAME_CHARS_MAX: usize = 32;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) index: u64,
    pub(crate) from: String,
    pub(crate) text: String,
}

/// One row of the screen: a message's first, or a later one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) is_first: bool,
    pub(crate) text: String,
}

/// The lowest row that is shown: the `rows`-th of the `number`-th message.
#[derive(Clone, Copy, Debug)]
struct Bottom {
    number: u64,
    rows: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: VecDeque<Entry>,
    /// The number of the first entry. Numbers count messages, without gaps.
    first: u64,
    /// None follows the end.
    bottom: Option<Bottom>,
    /// How many messages there were when the view stopped following.
    seen: u64,
    name_width: usize,
}

impl History {
    /// Adds what was delivered at `index`.
    pub(crate) fn push(&mut self, index: u64, message: &Message) {
        if self.entries.len() == MESSAGES_MAX {
            self.entries.pop_front();
            self.first += 1;
        }
        let from: String = message.from.chars().take(NAME_CHARS_MAX).collect();
        let from = wrap::printable(&from).replace('\n', "\\n");
        self.name_width = self.name_width.max(wrap::width(&from));
        self.entries.push_back(Entry {
            index,
            from,
            text: kept(&message.text),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The index of the last message; 0 before the first.
    pub(crate) fn last_index(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.index)
    }

    /// How wide the widest name has been.
    pub(crate) fn name_width(&self) -> usize {
        self.name_width
    }

    /// How many messages have come since the view stopped following; none while it follows.
    pub(crate) fn unseen(&self) -> Option<u64> {
        self.bottom.map(|_| self.end() - self.seen)
    }

    /// Goes to the end, and follows it.
    pub(crate) fn follow(&mut self) {
        self.bottom = None;
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get(at)
    }

    fn rows_of(&self, number: u64, columns: usize) -> usize {
        self.entry(number)
            .map_or(0, |entry| wrap::wrap(&entry.text, columns).len())
    }

    /// The lowest row, wherever the view stands; none if there is nothing.
    fn bottom(&self, columns: usize) -> Option<Bottom> {
        let last = self
            .end()
            .checked_sub(1)
            .filter(|_| !self.entries.is_empty())?;
        let number = self
            .bottom
            .map_or(last, |bottom| bottom.number.max(self.first));
        let all = self.rows_of(number, columns);
        let rows = match self.bottom {
            Some(bottom) if bottom.number == number => bottom.rows.min(all),
            _ => all,
        };
        Some(Bottom { number, rows })
    }

    /// Scrolls by `rows` towards the beginning, as far as the screen stays full.
    pub(crate) fn scroll_up(&mut self, rows: usize, columns: usize, height: usize) {
        let Some(start) = self.bottom(columns) else {
            return;
        };
        let wanted = height.saturating_add(rows);
        let mut above = start.rows;
        let mut number = start.number;
        while above < wanted && number > self.first {
            number -= 1;
            above += self.rows_of(number, columns);
        }
        let mut left = above.saturating_sub(height).min(rows);
        if left == 0 {
            return;
        }
        let mut bottom = start;
        while left >= bottom.rows {
            left -= bottom.rows;
            bottom.number -= 1;
            bottom.rows = self.rows_of(bottom.number, columns);
        }
        bottom.rows -= left;
        if self.bottom.is_none() {
            self.seen = self.end();
        }
        self.bottom = Some(bottom);
    }

    /// Scrolls by `rows` towards the end; at the end, follows it again.
    pub(crate) fn scroll_down(&mut self, rows: usize, columns: usize) {
        if self.bottom.is_none() {
            return;
        }
        let Some(mut bottom) = self.bottom(columns) else {
            return;
        };
        bottom.rows = bottom.rows.saturating_add(rows);
        loop {
            let all = self.rows_of(bottom.number, columns);
            let is_last = bottom.number + 1 == self.end();
            if is_last && bottom.rows >= all {
                return self.follow();
            }
            if bottom.rows <= all {
                break;
            }
            bottom.rows -= all;
            bottom.number += 1;
        }
        self.bottom = Some(bottom);
    }

    /// The rows that are looked at, from the top: at most `height`, each text at most `columns` wide.
    pub(crate) fn visible(&self, columns: usize, height: usize) -> Vec<Row<'_>> {
        let mut rows = VecDeque::new();
        let Some(bottom) = self.bottom(columns) else {
            return Vec::new();
        };
        let mut number = bottom.number;
        let mut take = bottom.rows;
        while let Some(entry) = self.entry(number).filter(|_| rows.len() < height) {
            for (at, text) in wrap::wrap(&entry.text, columns)
                .into_iter()
                .take(take)
                .enumerate()
                .rev()
            {
                rows.push_front(Row {
                    entry,
                    is_first: at == 0,
                    text,
                });
            }
            take = usize::MAX;
            let Some(before) = number.checked_sub(1) else {
                break;
            };
            number = before;
        }
        // A wider screen may leave room below.
        let mut below = bottom;
        while let Some(entry) = self.entry(below.number).filter(|_| rows.len() < height) {
            for (at, text) in wrap::wrap(&entry.text, columns)
                .into_iter()
                .enumerate()
                .skip(below.rows)
            {
                rows.push_back(Row {
                    entry,
                    is_first: at == 0,
                    text,
                });
            }
            below = Bottom {
                number: below.number + 1,
                rows: 0,
            };
        }
        if below.number == bottom.number {
            rows.drain(..rows.len().saturating_sub(height));
        } else {
            rows.truncate(height);
        }
        rows.into()
    }
}

/// As much of `text` as is kept, for a screen, and how much is not.
fn kept(text: &str) -> String {
    if text.len() <= TEXT_LEN_MAX {
        return wrap::printable(text);
    }
    let cut = text
        .grapheme_indices(true)
        .map(|(at, _)| at)
        .take_while(|at| *at <= TEXT_LEN_MAX)
        .last()
        .filter(|at| *at > 0)
        .or_else(|| {
            (0..=TEXT_LEN_MAX)
                .rev()
                .find(|at| text.is_char_boundary(*at))
        })
        .unwrap_or(0);
    format!(
        "{}… ({} more bytes)",
        wrap::printable(&text[..cut]),
        text.len() - cut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(texts: &[&str]) -> History {
        let mut history = History::default();
        for (at, text) in texts.iter().enumerate() {
            push(&mut history, at as u64 + 1, text);
        }
        history
    }

    fn push(history: &mut History, index: u64, text: &str) {
        history.push(
            index,
            &Message {
                from: "ada".into(),
                text: text.into(),
            },
        );
    }

    fn shown(history: &History, columns: usize, height: usize) -> Vec<String> {
        history
            .visible(columns, height)
            .into_iter()
            .map(|row| row.text)
            .collect()
    }

    #[test]
    fn the_end_is_followed_until_one_scrolls_up() {
        let mut history = history(&["a", "b b", "c", "d"]);
        assert_eq!(shown(&history, 1, 3), ["b", "c", "d"]);
        assert_eq!(shown(&history, 9, 9), ["a", "b b", "c", "d"]);
        assert_eq!(history.unseen(), None);
        history.scroll_up(1, 1, 3);
        assert_eq!(shown(&history, 1, 3), ["b", "b", "c"]);
        push(&mut history, 9, "e");
        assert_eq!(shown(&history, 1, 3), ["b", "b", "c"]);
        assert_eq!(history.unseen(), Some(1));
        history.scroll_up(99, 1, 3);
        assert_eq!(shown(&history, 1, 3), ["a", "b", "b"]);
        history.scroll_down(2, 1);
        assert_eq!(shown(&history, 1, 3), ["b", "c", "d"]);
        history.scroll_down(1, 1);
        assert_eq!(history.unseen(), None);
        push(&mut history, 10, "f");
        assert_eq!(shown(&history, 1, 2), ["e", "f"]);
    }

    #[test]
    fn scrolling_by_one_row_shows_every_row() {
        let mut history = history(&["one two three", "x", "a b c d e", "y"]);
        let all = shown(&history, 3, 100);
        assert_eq!(all.len(), 4 + 1 + 3 + 1);
        for up in 0..20_usize {
            let bottom = all.len() - up.min(all.len() - 4);
            assert_eq!(shown(&history, 3, 4), all[bottom - 4..bottom], "{up} up");
            history.scroll_up(1, 3, 4);
        }
        for down in 0..20_usize {
            let top = down.min(all.len() - 4);
            assert_eq!(shown(&history, 3, 4), all[top..top + 4], "{down} down");
            history.scroll_down(1, 3);
        }
    }

    #[test]
    fn a_short_history_does_not_scroll() {
        let mut history = history(&["a", "b"]);
        history.scroll_up(5, 9, 2);
        assert_eq!(history.unseen(), None);
        history.scroll_down(5, 9);
        assert_eq!(shown(&history, 9, 2), ["a", "b"]);
        let mut empty = History::default();
        empty.scroll_up(1, 1, 1);
        empty.scroll_down(1, 1);
        assert_eq!(shown(&empty, 1, 1), [""; 0]);
    }

    #[test]
    fn another_width_keeps_the_screen_full() {
        let mut history = history(&["a a a a a a", "b", "c", "d"]);
        history.scroll_up(99, 1, 3);
        assert_eq!(shown(&history, 1, 3), ["a", "a", "a"]);
        assert_eq!(shown(&history, 20, 3), ["a a a a a a", "b", "c"]);
        assert_eq!(shown(&history, 20, 0), [""; 0]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = History::default();
        push(&mut history, 1, &"日".repeat(1 << 20));
        assert!(history.entries[0].text.ends_with("more bytes)"));
        assert!(history.entries[0].text.len() < TEXT_LEN_MAX + 100);
        push(&mut history, 2, &"\u{301}".repeat(1 << 16));
        assert!(history.entries[1].text.len() < TEXT_LEN_MAX + 100);
        history.scroll_up(50, 5, 10);
        for index in 3..MESSAGES_MAX as u64 + 100 {
            push(&mut history, index, "x");
        }
        assert_eq!(history.entries.len(), MESSAGES_MAX);
        assert_eq!(shown(&history, 5, 2), ["x", "x"]);
        assert!(history.unseen().unwrap() > 0);
        history.scroll_down(usize::MAX, 5);
        assert_eq!(history.unseen(), None);
        assert_eq!(history.last_index(), MESSAGES_MAX as u64 + 99);
    }
}
