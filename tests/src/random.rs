//! Random numbers from a seed that is printed, so that a run can be repeated as far as processes allow.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose whom to kill.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias is of no matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }
}

/// A seed that differs from run to run.
#[must_use]
pub fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |d| d.subsec_nanos() as u64 ^ (d.as_secs() << 30));
    // Short, because people type it.
    Random::new(nanos ^ u64::from(std::process::id())).number() % 1_000_000_000
}
