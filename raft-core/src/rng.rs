//! A small generator of pseudo-random numbers (SplitMix64): the same seed gives the same numbers.

use std::hash::{Hash, Hasher};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rng(u64);

/// It decides when something is done, never what: to whoever explores states, those that differ in nothing
/// else are the same.
impl Hash for Rng {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `min` up to, but not including, `end`.
    pub(crate) fn between(&mut self, min: u32, end: u32) -> u32 {
        debug_assert!(min < end);
        // The bias of the remainder is far below anything an election timeout could notice.
        min + (self.next() % u64::from(end - min)) as u32
    }
}
