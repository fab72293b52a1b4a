//! One number for a whole run: the same seed must give the same number, or it tells nothing.

use std::hash::{Hash, Hasher};

use raft_core::{Effect, Input};

use crate::machine::chain;
use crate::mix::Mix;

pub(crate) fn input(digest: u64, now: u64, node: usize, input: &Input) -> u64 {
    let mut mix = Mix::default();
    input.hash(&mut mix);
    chain(chain(digest, now ^ ((node as u64) << 48)), mix.finish())
}

pub(crate) fn effects(digest: u64, effects: &[Effect]) -> u64 {
    let mut mix = Mix::default();
    for effect in effects {
        std::mem::discriminant(effect).hash(&mut mix);
        match effect {
            Effect::Persist(persist) => persist.hash(&mut mix),
            Effect::Send { to, message } => (to, message).hash(&mut mix),
            Effect::SendSnapshot { to, message } => (to, message).hash(&mut mix),
            Effect::Commit(commit) => (commit.through, commit.entries.len()).hash(&mut mix),
            Effect::Restore(meta) => meta.hash(&mut mix),
            Effect::Read { request, from, .. } => (request, from).hash(&mut mix),
            Effect::Appended { first, term, count } => (first, term, count).hash(&mut mix),
            Effect::ReadReady(ready) => ready.hash(&mut mix),
            Effect::ReadFailed { reads, .. } => reads.hash(&mut mix),
            Effect::ConfigurationChanged(configuration) => configuration.hash(&mut mix),
            Effect::TransferEnded { to } => to.hash(&mut mix),
            Effect::SteppedDown(why) => why.hash(&mut mix),
            Effect::RoleChanged { role, term, leader } => (role, term, leader).hash(&mut mix),
            Effect::Ignored { from, .. } => from.hash(&mut mix),
            Effect::Rejected(_) | Effect::Halt(_) => {}
        }
    }
    chain(digest, mix.finish())
}
