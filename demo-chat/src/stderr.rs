//! The standard error, written by a thread of its own.
//!
//! Outcomes and logs share it. Whoever reads it slowly, or not at all, must not hold up the node: a log line
//! that finds the queue full is dropped and counted; an outcome waits. Each line is written at once, so that
//! none stands within another.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::chat;

/// How many lines may wait to be written.
const LINES_WAITING_MAX: usize = 4096;

enum Item {
    Line(String),
    Flush(oneshot::Sender<()>),
}

/// A way to write lines.
#[derive(Clone, Debug)]
pub(crate) struct Stderr {
    items: mpsc::Sender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Stderr {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (items, mut waiting) = mpsc::channel(LINES_WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let this = Self {
            items,
            dropped: dropped.clone(),
        };
        std::thread::Builder::new()
            .name("stderr".into())
            .spawn(move || {
                while let Some(item) = waiting.blocking_recv() {
                    match item {
                        Item::Line(line) => write(&line),
                        Item::Flush(done) => drop(done.send(())),
                    }
                    let dropped = dropped.swap(0, Ordering::Relaxed);
                    if dropped > 0 {
                        write(&format!(
                            "demo-chat: {dropped} lines of logs were not read fast enough\n"
                        ));
                    }
                }
            })?;
        Ok(this)
    }

    /// Hands over `line`, which ends with a newline; or gives it back, if too many wait.
    pub(crate) fn line(&self, line: String) -> Result<(), String> {
        match self.items.try_send(Item::Line(line)) {
            Err(TrySendError::Full(Item::Line(line))) => Err(line),
            // The thread does not end before the program; there would be nobody to tell.
            _ => Ok(()),
        }
    }

    /// Waits until a line could be handed over.
    pub(crate) async fn room(&self) {
        let _ = self.items.reserve().await;
    }

    /// Waits until all is written that was handed over before, for at most `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let flush = async {
            let (done, written) = oneshot::channel();
            if self.items.send(Item::Flush(done)).await.is_ok() {
                let _ = written.await;
            }
        };
        let _ = tokio::time::timeout(limit, flush).await;
    }
}

/// For [`tracing`]: it hands over each event's line in one piece.
impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self
            .line(String::from_utf8_lossy(line).into_owned())
            .is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says what ended the program, or what should be known, at once and on one line.
pub(crate) fn complain(message: &str) {
    write(&format!("demo-chat: {}\n", chat::one_line(message)));
}

fn write(line: &str) {
    // A closed standard error is no reason to end.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}
