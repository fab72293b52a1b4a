//! Whether a history of registers could have happened one operation at a time: linearizability (Herlihy and Wing,
//! 1990), by key.
//!
//! Read in this order:
//!
//! - this file: what a history is, and the verdict;
//! - [`search`] the question for one register: Wing and Gong's search, with Lowe's just-in-time linearization and
//!   memoized configurations;
//! - [`explain`] the smallest part of a history that is as impossible as the whole.
//!
//! Invariants:
//!
//! - an operation takes effect once, at one moment between its call and its answer; one without an answer at any
//!   moment behind its call, or never;
//! - an operation that certainly failed is not part of a history, and neither is a read without an answer;
//! - calls and answers at the same nanosecond are concurrent: the checker never invents an order;
//! - memory and time are bounded, and what is not decided within them is [`Verdict::Undecided`], which is a failure.
//!
//! Registers are independent of each other, and linearizability is local: a history is linearizable if and only if
//! each register's own part of it is. So each is decided alone.

pub mod explain;
pub mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

pub use explain::Violation;
use search::Found;

/// What a register holds before anybody wrote it.
pub const INITIAL: u64 = 0;

/// What a client asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Its value.
    Read,
    /// A new value.
    Write(u64),
    /// A new value if it holds a certain one: `Cas(from, to)`.
    Cas(u64, u64),
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To [`Call::Read`].
    Value(u64),
    /// To [`Call::Write`].
    Written,
    /// To [`Call::Cas`]: whether it held the value.
    Swapped(bool),
}

/// One operation of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u64,
    /// Which register.
    pub key: u64,
    /// What it asked.
    pub call: Call,
    /// When it asked: nanoseconds on one clock of all clients.
    pub called: u64,
    /// When it was told what, by the same clock. `None`: its outcome is unknown.
    pub answer: Option<(u64, Answer)>,
}

impl Operation {
    /// The value behind it if it takes effect on `value`; `None` if its answer says that it did not meet this value.
    #[must_use]
    pub fn effect(&self, value: u64) -> Option<u64> {
        let answer = self.answer.map(|(_, answer)| answer);
        match (self.call, answer) {
            (Call::Read, Some(Answer::Value(read))) => (read == value).then_some(value),
            (Call::Write(new), Some(Answer::Written) | None) => Some(new),
            (Call::Cas(from, to), Some(Answer::Swapped(true)) | None) => {
                (from == value).then_some(to)
            }
            (Call::Cas(from, _), Some(Answer::Swapped(false))) => (from != value).then_some(value),
            // An answer to another question is no answer that a register gives.
            _ => None,
        }
    }

    /// Whether it leaves every value as it is: then it may take effect as soon as it can.
    fn is_pure(&self) -> bool {
        matches!(
            (self.call, self.answer),
            (Call::Read, _) | (Call::Cas(..), Some((_, Answer::Swapped(false))))
        )
    }

    /// The value that it saw, for certain.
    fn observed(&self) -> Option<u64> {
        match (self.call, self.answer) {
            (_, Some((_, Answer::Value(value)))) => Some(value),
            (Call::Cas(from, _), Some((_, Answer::Swapped(true))) | None) => Some(from),
            _ => None,
        }
    }

    /// The value that it leaves, if it changes any.
    fn written(&self) -> Option<u64> {
        match self.call {
            Call::Write(value) | Call::Cas(_, value) if !self.is_pure() => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = self.answer.map(|(_, answer)| answer);
        match (self.call, answer) {
            (Call::Read, Some(Answer::Value(value))) => write!(f, "read -> {value}"),
            (Call::Write(value), Some(Answer::Written)) => write!(f, "write {value}"),
            (Call::Cas(from, to), Some(Answer::Swapped(true))) => write!(f, "cas {from} -> {to}"),
            (Call::Cas(from, to), Some(Answer::Swapped(false))) => {
                write!(f, "cas {from} -> {to}: it was another")
            }
            (call, answer) => write!(f, "{call:?}: {answer:?}"),
        }
    }
}

/// How much may be spent on a history.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Configurations that are kept at a time; one takes less than 200 bytes.
    pub configurations: usize,
    /// Time for all keys together.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            configurations: 200_000,
            time: Duration::from_secs(120),
        }
    }
}

/// What a history is.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It could have happened one operation at a time.
    Linearizable,
    /// It could not, and this is why.
    Violated(Box<Violation>),
    /// It could not be found out within the limits, for this key and reason.
    Undecided(u64, &'static str),
}

/// Decides on all registers of a history, in the order of their keys, up to the first that is not linearizable.
#[must_use]
pub fn check(history: &[Operation], limits: Limits) -> Verdict {
    let deadline = Instant::now() + limits.time;
    let mut keys: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(operation.key).or_default().push(*operation);
    }
    let mut undecided = None;
    for (key, operations) in keys {
        match search::search(&operations, limits.configurations, deadline) {
            Found::Order => {}
            Found::None(stuck) => {
                let violation = explain::explain(key, &operations, &stuck, limits.configurations);
                return Verdict::Violated(Box::new(violation));
            }
            Found::Limit(why) => undecided = Some((key, why)),
        }
    }
    undecided.map_or(Verdict::Linearizable, |(key, why)| {
        Verdict::Undecided(key, why)
    })
}
