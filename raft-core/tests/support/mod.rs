//! What the tests of the protocol share: a disk that forgets what was not synced, and words for effects.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of what all of them share"
)]

pub(crate) mod cluster;
pub(crate) mod diff;
pub(crate) mod disk;
pub(crate) mod node;
pub(crate) mod script;
pub(crate) mod text;
