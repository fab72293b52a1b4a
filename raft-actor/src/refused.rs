//! What peers and strangers sent that this node did not take: counted by name, and told in the log a few times.
//!
//! Invariants: whatever anybody sends, and however fast, costs at most [`LINES_MAX`] lines of the log in
//! [`WINDOW`]; the names are this program's, never a stranger's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ::metrics::{Counter, counter};
use raft_core::{NodeId, Unsound};
use raft_net::{ListenerStats, Refusal, WhyNotTaken};

/// For so long at most [`LINES_MAX`] lines are written.
const WINDOW: Duration = Duration::from_secs(10);
const LINES_MAX: u32 = 10;

/// See the [module](self).
pub(crate) struct Refused {
    node: String,
    counters: BTreeMap<(&'static str, &'static str), Counter>,
    /// Messages that the protocol took in, by who sent them.
    taken: BTreeMap<NodeId, Counter>,
    window: Option<Instant>,
    lines: u32,
    /// Lines that were not written since the last one that was.
    suppressed: u64,
}

impl Refused {
    pub(crate) fn new(node: NodeId) -> Self {
        let mut refused = Self {
            node: node.to_string(),
            counters: BTreeMap::new(),
            taken: BTreeMap::new(),
            window: None,
            lines: 0,
            suppressed: 0,
        };
        for unsound in Unsound::ALL {
            refused.counter("message", unsound.name()).increment(0);
        }
        refused
    }

    /// The protocol took in a message.
    pub(crate) fn taken(&mut self, from: NodeId) {
        let node = &self.node;
        let new = || counter!("raft_peer_messages_total", "node" => node.clone(), "peer" => from.to_string());
        self.taken.entry(from).or_insert_with(new).increment(1);
    }

    /// The protocol did not take in a message.
    pub(crate) fn message(&mut self, from: NodeId, reason: Unsound) {
        self.counter("message", reason.name()).increment(1);
        let Some(suppressed) = self.line() else {
            return;
        };
        if reason == Unsound::AnotherLeads {
            tracing::error!(peer = %from, suppressed, "refused a message: {reason}");
        } else {
            tracing::warn!(peer = %from, suppressed, "refused a message: {reason}");
        }
    }

    /// A peer refuses this node for a reason that cannot be.
    pub(crate) fn refusal(&mut self, from: NodeId, refusal: &Refusal) {
        self.counter("refusal", Refusal::name_of(refusal.number()))
            .increment(1);
        if let Some(suppressed) = self.line() {
            tracing::error!(peer = %from, suppressed, "not believed, it found nothing wrong before: {refusal}");
        }
    }

    /// What the listener has turned away so far, which it has logged.
    pub(crate) fn listener(&mut self, stats: &ListenerStats) {
        for (number, times) in &stats.refused {
            self.counter("connection", Refusal::name_of(*number))
                .absolute(*times);
        }
        self.counter("connection", "broken").absolute(stats.broken);
        for (name, times) in &stats.malformed {
            self.counter("frame", name).absolute(*times);
        }
        for (number, times) in &stats.snapshots.not_taken {
            self.counter("snapshot", WhyNotTaken::name_of(*number))
                .absolute(*times);
        }
    }

    fn counter(&mut self, what: &'static str, reason: &'static str) -> &Counter {
        let node = &self.node;
        self.counters.entry((what, reason)).or_insert_with(
            || counter!("raft_refused_total", "node" => node.clone(), "what" => what, "reason" => reason),
        )
    }

    /// Whether a line may be written; if so, how many were not since the last.
    pub(crate) fn line(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.window.is_none_or(|since| now - since >= WINDOW) {
            (self.window, self.lines) = (Some(now), 0);
        }
        if self.lines == LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_nonsense_writes_ten_lines() {
        let mut refused = Refused::new(NodeId(1));
        let lines = (0..10_000).filter(|_| refused.line().is_some()).count();
        assert_eq!(lines, 10);
        refused.window = None;
        assert_eq!(refused.line(), Some(9_990));
    }
}
