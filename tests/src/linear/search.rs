//! The search for an order of one register's operations.
//!
//! It goes through calls and answers in the order of time, and keeps every **configuration** that the register can be
//! in: its value, and which of the operations under way have taken effect. At an answer, and not before (Lowe's
//! just-in-time linearization), the configurations in which that operation has not taken effect are carried on, one
//! operation after the other, until it has; those that cannot are given up. None left: there is no order.
//!
//! What keeps their number small, and loses no order:
//!
//! - an operation that changes nothing takes effect as soon as it can: that is never worse than later;
//! - of two configurations with the same value, in which the same answered writes have taken effect, the one in which
//!   more reads and fewer operations of unknown outcome have is at least as good, and the other is dropped.
//!
//! Memory follows the number of operations under way, not the length of the history. An operation of unknown outcome
//! is under way for ever.

use std::collections::HashMap;
use std::time::Instant;

use super::{INITIAL, Operation};

/// What the search came to.
#[derive(Clone, Debug)]
pub enum Found {
    /// There is an order.
    Order,
    /// There is none.
    None(Stuck),
    /// A limit was reached first.
    Limit(&'static str),
}

/// Where there was no way on.
#[derive(Clone, Debug)]
pub struct Stuck {
    /// The operation that cannot have been answered as it was: its place in the history.
    pub operation: usize,
    /// What the register could hold from the answer before it until its own; sorted.
    pub values: Vec<u64>,
}

/// How many operations may be under way at once.
const SLOTS: usize = 256;

/// A set of operations under way, by their slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Slots([u64; SLOTS / 64]);

impl Slots {
    fn with(mut self, slot: usize) -> Self {
        self.0[slot / 64] |= 1 << (slot % 64);
        self
    }

    fn without(mut self, slot: usize) -> Self {
        self.0[slot / 64] &= !(1 << (slot % 64));
        self
    }

    fn has(&self, slot: usize) -> bool {
        self.0[slot / 64] & (1 << (slot % 64)) != 0
    }

    fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= b);
        self
    }

    fn is_within(&self, other: &Self) -> bool {
        self.and(other) == *self
    }
}

#[derive(Clone, Copy, Debug)]
struct Configuration {
    value: u64,
    /// What has taken effect of what is under way.
    done: Slots,
}

/// Configurations, none of which is as good as another of them.
#[derive(Default)]
struct Configurations {
    /// By value and answered writes; of those, what else has taken effect.
    map: HashMap<(u64, Slots), Vec<(Slots, Slots)>>,
    count: usize,
}

/// The operations under way.
#[derive(Default)]
struct UnderWay<'h> {
    operations: Vec<(usize, &'h Operation)>,
    free: Vec<usize>,
    taken: usize,
    /// Those that change nothing.
    pure: Slots,
    /// Those of unknown outcome.
    unknown: Slots,
    /// The others: answered, and they change the value.
    writes: Slots,
}

impl Configurations {
    /// Adds one, unless there is one at least as good; drops those that it is at least as good as. True if added.
    fn add(&mut self, new: Configuration, under_way: &UnderWay<'_>) -> bool {
        let key = (new.value, new.done.and(&under_way.writes));
        let pure = new.done.and(&under_way.pure);
        let unknown = new.done.and(&under_way.unknown);
        let alike = self.map.entry(key).or_default();
        if alike
            .iter()
            .any(|(p, u)| pure.is_within(p) && u.is_within(&unknown))
        {
            return false;
        }
        let before = alike.len();
        alike.retain(|(p, u)| !(p.is_within(&pure) && unknown.is_within(u)));
        self.count -= before - alike.len();
        alike.push((pure, unknown));
        self.count += 1;
        true
    }

    fn list(&self) -> Vec<Configuration> {
        let mut all = Vec::with_capacity(self.count);
        for ((value, writes), others) in &self.map {
            for (pure, unknown) in others {
                let mut done = *writes;
                for part in [pure, unknown] {
                    done.0.iter_mut().zip(part.0).for_each(|(a, b)| *a |= b);
                }
                let value = *value;
                all.push(Configuration { value, done });
            }
        }
        all
    }
}

impl<'h> UnderWay<'h> {
    fn begin(&mut self, operation: &'h Operation) -> Option<usize> {
        let slot = self.free.pop().or_else(|| {
            self.taken += 1;
            (self.taken <= SLOTS).then(|| self.taken - 1)
        })?;
        self.operations.push((slot, operation));
        let kind = match (operation.is_pure(), operation.answer) {
            (true, _) => &mut self.pure,
            (false, None) => &mut self.unknown,
            (false, Some(_)) => &mut self.writes,
        };
        *kind = kind.with(slot);
        Some(slot)
    }

    fn end(&mut self, slot: usize) {
        self.operations.retain(|(other, _)| *other != slot);
        for kind in [&mut self.pure, &mut self.unknown, &mut self.writes] {
            *kind = kind.without(slot);
        }
        self.free.push(slot);
    }

    /// Lets everything take effect that changes nothing and can.
    fn absorb(&self, mut configuration: Configuration) -> Configuration {
        for (slot, operation) in &self.operations {
            if self.pure.has(*slot) && operation.effect(configuration.value).is_some() {
                configuration.done = configuration.done.with(*slot);
            }
        }
        configuration
    }

    /// The configurations one step on.
    fn steps(&self, from: Configuration) -> impl Iterator<Item = Configuration> + '_ {
        self.operations.iter().filter_map(move |(slot, operation)| {
            if from.done.has(*slot) || self.pure.has(*slot) {
                return None;
            }
            let value = operation.effect(from.value)?;
            let done = from.done.with(*slot);
            Some(self.absorb(Configuration { value, done }))
        })
    }
}

/// A call, or an answer: with its time, and the place of the operation in the history.
type Event = (u64, bool, usize);

/// Looks for an order of `operations`, which are all of one register, in any order. At most `limit` configurations
/// are kept at a time, and it gives up at `deadline`.
#[must_use]
pub fn search(operations: &[Operation], limit: usize, deadline: Instant) -> Found {
    let mut events: Vec<Event> = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        match operation.answer {
            // Whatever it would have read says nothing.
            None if operation.is_pure() => {}
            None => events.push((operation.called, false, place)),
            Some((at, _)) => {
                events.push((operation.called, false, place));
                events.push((at.max(operation.called), true, place));
            }
        }
    }
    // Calls before answers: what happens at the same time is concurrent.
    events.sort_unstable();

    let mut under_way = UnderWay::default();
    let mut slots: HashMap<usize, usize> = HashMap::new();
    let mut now = vec![Configuration {
        value: INITIAL,
        done: Slots::default(),
    }];
    for (_, is_answer, place) in events {
        if Instant::now() > deadline {
            return Found::Limit("its time was up");
        }
        if !is_answer {
            let Some(slot) = under_way.begin(&operations[place]) else {
                return Found::Limit("too many operations were under way at once");
            };
            slots.insert(place, slot);
            if under_way.pure.has(slot) {
                for configuration in &mut now {
                    *configuration = under_way.absorb(*configuration);
                }
            }
            continue;
        }
        let Some(slot) = slots.remove(&place) else {
            continue;
        };
        match answered(&now, slot, &under_way, limit, deadline) {
            Err(why) => return Found::Limit(why),
            Ok(Err(values)) => {
                return Found::None(Stuck {
                    operation: place,
                    values,
                });
            }
            Ok(Ok(ready)) => {
                under_way.end(slot);
                let mut next = Configurations::default();
                for configuration in ready {
                    // What is not under way any more has no place in the sets that it is kept by.
                    next.add(configuration, &under_way);
                }
                now = next.list();
            }
        }
    }
    Found::Order
}

/// Every configuration in which the operation of `slot` has taken effect; or if there is none, the values that the
/// register could have without it.
fn answered(
    now: &[Configuration],
    slot: usize,
    under_way: &UnderWay<'_>,
    limit: usize,
    deadline: Instant,
) -> Result<Result<Vec<Configuration>, Vec<u64>>, &'static str> {
    let mut ready = Configurations::default();
    let mut seen = Configurations::default();
    let mut ahead = Vec::new();
    let mut look = |configuration: Configuration, ahead: &mut Vec<_>| {
        if configuration.done.has(slot) {
            ready.add(configuration, under_way);
        } else if seen.add(configuration, under_way) {
            ahead.push(configuration);
        }
        ready.count + seen.count
    };
    for configuration in now {
        look(*configuration, &mut ahead);
    }
    let mut steps = 0_u32;
    while let Some(from) = ahead.pop() {
        steps += 1;
        if steps.is_multiple_of(1024) && Instant::now() > deadline {
            return Err("its time was up");
        }
        for to in under_way.steps(from) {
            if look(to, &mut ahead) > limit {
                return Err("too many configurations were possible at once");
            }
        }
    }
    if ready.count > 0 {
        return Ok(Ok(ready.list()));
    }
    let mut values: Vec<_> = seen.map.into_keys().map(|(value, _)| value).collect();
    values.sort_unstable();
    values.dedup();
    Ok(Err(values))
}
