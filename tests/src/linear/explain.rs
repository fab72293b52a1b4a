//! Why a history is impossible, in as few operations as can be found.
//!
//! What is left out is left out only where that cannot make a possible history impossible:
//!
//! - what was called behind the answer at which the search was stuck; what was answered behind it loses its answer;
//! - an operation that changes nothing;
//! - a write whose value nobody that is left saw, once no failed comparison is left (such a one may owe its failure
//!   to any write).
//!
//! So what is left, being impossible, is why the whole is.

use std::fmt;
use std::time::{Duration, Instant};

use super::search::{Found, Stuck, search};
use super::{Answer, Operation};

/// How long is spent on leaving operations out.
const PATIENCE: Duration = Duration::from_secs(10);

/// A history that is not linearizable.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The register.
    pub key: u64,
    /// The operation that cannot have been answered as it was.
    pub operation: Operation,
    /// What the register could hold until it was answered.
    pub values: Vec<u64>,
    /// As few operations as were found that cannot be brought into an order; by their calls.
    pub core: Vec<Operation>,
    /// How many operations the register's history has.
    pub of: usize,
}

/// Explains why `operations` of register `key`, at which the search was `stuck`, have no order.
#[must_use]
pub fn explain(key: u64, operations: &[Operation], stuck: &Stuck, limit: usize) -> Violation {
    let deadline = Instant::now() + PATIENCE;
    let culprit = operations[stuck.operation];
    let end = culprit.answer.map_or(u64::MAX, |(at, _)| at);
    let mut core: Vec<_> = operations.to_vec();
    let is_later = |operation: &Operation| operation.answer.is_none_or(|(at, _)| at > end);
    core.retain(|o| o.called <= end && !(o.is_pure() && is_later(o)));
    for operation in core.iter_mut().filter(|o| is_later(o)) {
        operation.answer = None;
    }
    core.sort_by_key(|operation| operation.called);
    let mut rounds = 0;
    loop {
        let before = core.len();
        core = leave_out(core, limit, deadline);
        rounds += 1;
        // What one round left out may have been the last that saw a value.
        if core.len() == before || rounds == 20 {
            break;
        }
    }
    Violation {
        key,
        operation: culprit,
        values: stuck.values.clone(),
        core,
        of: operations.len(),
    }
}

/// Leaves out runs of operations, long ones first.
fn leave_out(mut core: Vec<Operation>, limit: usize, deadline: Instant) -> Vec<Operation> {
    let mut length = core.len().next_power_of_two();
    while length > 0 {
        let mut from = 0;
        while from < core.len() {
            if Instant::now() > deadline {
                return core;
            }
            let run = from..(from + length).min(core.len());
            let rest = without(&core, &run);
            let less = rest.len() < core.len();
            if less && matches!(search(&rest, limit, deadline), Found::None(_)) {
                // What of the run had to stay is at its begin.
                from += length - (core.len() - rest.len()).min(length);
                core = rest;
            } else {
                from += length;
            }
        }
        length /= 2;
    }
    core
}

/// `core` without what may be left out of a run of it.
fn without(core: &[Operation], run: &std::ops::Range<usize>) -> Vec<Operation> {
    let is_failure = |o: &Operation| matches!(o.answer, Some((_, Answer::Swapped(false))));
    let mut rest: Vec<_> = (0..)
        .zip(core)
        .filter(|(place, operation)| !(run.contains(place) && operation.is_pure()))
        .collect();
    if !rest.iter().any(|(_, operation)| is_failure(operation)) {
        let mut seen: Vec<_> = rest.iter().filter_map(|(_, o)| o.observed()).collect();
        seen.sort_unstable();
        rest.retain(|(place, operation)| {
            let unseen = |value: &u64| seen.binary_search(value).is_err();
            !(run.contains(place) && operation.written().as_ref().is_some_and(unseen))
        });
    }
    rest.into_iter().map(|(_, operation)| *operation).collect()
}

/// At most so many operations are printed.
const PRINTED_MAX: usize = 40;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            operation,
            values,
            core,
            of,
        } = self;
        let some: Vec<_> = values.iter().take(8).map(u64::to_string).collect();
        writeln!(
            f,
            "register {key}: client {} was told \"{operation}\", and until then the register can only have held {}{}",
            operation.client,
            some.join(" or "),
            if values.len() > some.len() {
                " or others"
            } else {
                ""
            },
        )?;
        writeln!(
            f,
            "of its {of} operations, these {} have no order (microseconds from the first call on):",
            core.len()
        )?;
        let zero = core.iter().map(|o| o.called).min().unwrap_or(0);
        let skipped = core.len().saturating_sub(PRINTED_MAX);
        for operation in core.iter().skip(skipped) {
            let micros = |at: u64| (at - zero) as f64 / 1000.0;
            let answered = operation.answer.map_or_else(
                || "not answered".to_owned(),
                |(at, _)| format!("{:12.1}", micros(at)),
            );
            writeln!(
                f,
                "  {:12.1} to {answered}  client {:3}  {operation}",
                micros(operation.called),
                operation.client,
            )?;
        }
        Ok(())
    }
}
