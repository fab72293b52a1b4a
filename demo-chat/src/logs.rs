//! Where the library's logs go: `RUST_LOG` says which, and without it what the raft crates tell an operator.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::stderr;

const FILTER: &str =
    "warn,raft_core=info,raft_storage=info,raft_net=info,raft_actor=info,demo_chat=info";

/// Starts logging to `writer`, one line for each event.
pub(crate) fn start<W>(writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(&filter).unwrap_or_else(|error| {
            stderr::complain(&format!("RUST_LOG={filter:?} is not understood: {error}"));
            EnvFilter::new(FILTER)
        }),
        _ => EnvFilter::new(FILTER),
    };
    let logging = tracing_subscriber::fmt()
        .compact()
        .with_ansi(false)
        .with_env_filter(filter)
        // It would be told by a panicking macro.
        .log_internal_errors(false)
        .with_writer(writer);
    if let Err(error) = logging.try_init() {
        stderr::complain(&format!("no logs: {error}"));
    }
}

/// The last lines of the logs, kept in memory, for a screen that they must not run into.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Recent {
    const LINES_MAX: usize = 500;
    const LINE_CHARS_MAX: usize = 1000;

    /// The last `count` lines, oldest first.
    pub(crate) fn last(&self, count: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .skip(lines.len().saturating_sub(count))
            .cloned()
            .collect()
    }
}

impl Write for Recent {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end().chars().take(Self::LINE_CHARS_MAX).collect();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == Self::LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut recent = Recent::default();
        for n in 0..2000 {
            recent.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        recent.write_all("x".repeat(5000).as_bytes()).unwrap();
        let last = recent.last(3);
        assert_eq!(last[..2], ["1998", "1999"]);
        assert_eq!(last[2].len(), Recent::LINE_CHARS_MAX);
        assert_eq!(recent.last(usize::MAX).len(), Recent::LINES_MAX);
    }
}
