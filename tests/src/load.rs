//! Messages from many nodes at once.
//!
//! A loader feeds one life of one node: as many messages as its window allows are on their way, and no more are
//! sent in a second than its rate. It ends when it is told to, when its process ends, or with its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::node::Node;

/// The messages of one node over all its lives: each text is unique, and none is sent twice.
#[derive(Debug)]
pub struct Work {
    node: u64,
    next: AtomicU64,
    last: u64,
}

impl Work {
    /// `count` messages of node `node`.
    #[must_use]
    pub fn new(node: u64, count: u64) -> Arc<Self> {
        Arc::new(Self {
            node,
            next: AtomicU64::new(1),
            last: count,
        })
    }

    /// How many have been taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        (self.next.load(Ordering::Relaxed) - 1).min(self.last)
    }

    fn take(&self) -> Option<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number <= self.last).then(|| format!("{}.{number} {}", self.node, FILLER))
    }
}

/// So that a message is about as long as what people write.
const FILLER: &str = "the quick brown fox jumps over the lazy dog";

/// How hard a node is driven.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Messages without an outcome.
    pub window: usize,
    /// Messages in a second; 0 for as many as it takes.
    pub per_second: u32,
}

/// A thread that feeds one life.
#[derive(Debug)]
pub struct Loader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Begins to feed `node`.
    #[must_use]
    pub fn start(node: Arc<Node>, work: Arc<Work>, pace: Pace) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || feed(&node, &work, pace, &stopped));
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// No more messages are sent when this returns.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It can only have panicked over what it prints to nobody.
            let _ = thread.join();
        }
    }

    /// Whether there is nothing more to send.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}

fn feed(node: &Node, work: &Work, pace: Pace, stop: &AtomicBool) {
    let started = Instant::now();
    let mut sent = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let wanted = match pace.per_second {
            0 => u32::MAX,
            rate => (started.elapsed().as_secs_f64() * f64::from(rate)) as u32,
        };
        let free = node.output.wait(Duration::from_millis(50), |printed| {
            let on_their_way = (sent as usize).saturating_sub(printed.outcomes.len());
            (on_their_way < pace.window).then(|| pace.window - on_their_way)
        });
        if node.output.lock().ended == 2 {
            break;
        }
        let free = u32::try_from(free.unwrap_or(0)).unwrap_or(u32::MAX);
        let batch = wanted.saturating_sub(sent).min(free);
        for _ in 0..batch {
            let Some(text) = work.take() else { return };
            node.send(&text);
            sent += 1;
        }
        if batch == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
}
