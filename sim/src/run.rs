//! One seed from its beginning to its end.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::broken::Broken;
use crate::events::Counts;
use crate::world::World;

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which seed.
    pub seed: u64,
    /// Steps of all cores together.
    pub steps: u64,
    /// One number for all that happened: the same in each run of the seed.
    pub digest: u64,
    /// How often each event happened.
    pub counts: Counts,
    /// The first invariant that did not hold.
    pub broken: Option<Broken>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what a panic says for the report, in place of printing it.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
        }));
    });
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    run_one(seed, false)
}

/// Runs a seed and prints every step.
#[must_use]
pub fn run_traced(seed: u64) -> Outcome {
    run_one(seed, true)
}

fn run_one(seed: u64, trace: bool) -> Outcome {
    keep_panics_quiet();
    let mut outcome = Outcome {
        seed,
        steps: 0,
        digest: 0,
        counts: Counts::default(),
        broken: None,
    };
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut world = match World::new(seed, trace) {
            Ok(world) => world,
            Err(broken) => return (0, 0, Counts::default(), Some(broken)),
        };
        // A panic of the core is told with all that was counted before it.
        let end = catch_unwind(AssertUnwindSafe(|| world.live()));
        let broken = match end {
            Ok(result) => result.err(),
            Err(_) => Some(panicked()),
        };
        (world.steps, world.digest, world.counts, broken)
    }));
    match lived {
        Ok((steps, digest, counts, broken)) => {
            outcome.steps = steps;
            outcome.digest = digest;
            outcome.counts = counts;
            outcome.broken = broken;
        }
        Err(_) => outcome.broken = Some(panicked()),
    }
    outcome
}

fn panicked() -> Broken {
    let words = PANIC.with(|panic| panic.borrow_mut().take());
    Broken {
        invariant: "no-panic",
        detail: words.unwrap_or_default().replace('\n', " "),
    }
}
