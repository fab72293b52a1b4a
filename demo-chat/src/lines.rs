//! Lines of the standard input, each of them bounded.
//!
//! A line over the bound is counted to its end and not kept: an endless one costs time and no memory.

use std::io::{self, BufRead};

/// One line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A whole one.
    Whole(Vec<u8>),
    /// One that is too long to be kept.
    TooLong {
        /// Its length, in bytes.
        len: usize,
    },
}

/// Reads lines of at most `len_max` bytes.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    len_max: usize,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R, len_max: usize) -> Self {
        Self { input, len_max }
    }

    /// The next line; what stands behind the last newline is one too, unless it is empty.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Line>> {
        let (mut kept, mut len) = (Vec::new(), 0_usize);
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() && len == 0 {
                return Ok(None);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            let is_end = end.is_some() || available.is_empty();
            let used = part.len() + usize::from(end.is_some());
            len = len.saturating_add(part.len());
            if len <= self.len_max {
                kept.extend_from_slice(part);
            } else {
                kept = Vec::new();
            }
            self.input.consume(used);
            if is_end {
                let whole = len <= self.len_max;
                return Ok(Some(if whole {
                    Line::Whole(kept)
                } else {
                    Line::TooLong { len }
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    fn read(input: &[u8], buffer: usize) -> Vec<Line> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, input), 4);
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.into())
    }

    #[test]
    fn lines_are_split_at_newlines_whatever_the_buffer() {
        for buffer in 1..20 {
            assert_eq!(read(b"", buffer), []);
            assert_eq!(
                read(b"a\n\nb\r\nc", buffer),
                [whole("a"), whole(""), whole("b\r"), whole("c")]
            );
            let lines = [
                whole("1234"),
                Line::TooLong { len: 5 },
                whole("x"),
                Line::TooLong { len: 6 },
            ];
            assert_eq!(read(b"1234\n12345\nx\n123456", buffer), lines);
            assert_eq!(read(b"\xff\0\n", buffer), [Line::Whole(vec![0xff, 0])]);
        }
    }

    #[test]
    fn an_endless_line_is_counted_and_not_kept() {
        let endless = std::io::repeat(b'x').take(1 << 28);
        let mut lines = Lines::new(BufReader::new(endless), 1 << 20);
        assert_eq!(
            lines.next_line().unwrap(),
            Some(Line::TooLong { len: 1 << 28 })
        );
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
