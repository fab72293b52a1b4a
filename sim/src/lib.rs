//! A deterministic simulation of `raft-core`: whole clusters in one thread, in virtual time, with disks that
//! forget what was not synced, a network that loses, doubles, delays and cuts, clocks that run apart,
//! processes that pause and die between two effects, reckless operators, and clients that try again. All of
//! it is drawn from one seed, so that a failure can be looked at again, step by step.
//!
//! After every step of every node all invariants are checked over the whole history ([`Broken`] names the
//! one that does not hold), and the table of [`Event`]s shows that what was to be tested did happen.
//!
//! The modules in the order to read them: `fate` (what a seed decides), `time` (what happens when), `world`
//! (the loop), `node`, `disk`, `network`, `machine` (what is simulated), `process`, `faults`, `operator`,
//! `client`, `snapshots` (who does what), `step`, `carry` (one step of a core), `shadow`, `observe`,
//! `inspect`, `claims`, `history` (the checks), `ending` (what must be true in the end), `campaign` (many
//! seeds). `liar` is by itself: one node among members that lie, as a fuzzer chooses.
#![allow(clippy::unwrap_used)]

mod broken;
mod campaign;
mod carry;
mod claims;
mod client;
mod digest;
mod disk;
mod ending;
mod events;
mod fate;
mod faults;
mod history;
mod inspect;
mod liar;
mod machine;
mod mix;
mod network;
mod node;
mod observe;
mod operator;
mod process;
mod random;
mod run;
mod sets;
mod shadow;
mod snapshots;
mod step;
mod text;
mod time;
mod world;

pub use broken::Broken;
pub use campaign::{Campaign, Report};
pub use events::{Counts, Event};
pub use liar::liar;
pub use run::{Outcome, run, run_traced};
