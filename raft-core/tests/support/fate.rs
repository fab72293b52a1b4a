//! What a seed decides: the numbers, and how rough a run becomes.

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True `n` times in 1,000.
    pub(crate) fn permille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// How rough the fate is, per 1,000.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) crash: u64,
    pub(crate) cut: u64,
    pub(crate) stuck_disk: u64,
    pub(crate) delay_max: u64,
    pub(crate) read_delay_max: u64,
}

impl Fate {
    /// Nothing is lost, and nobody falls.
    pub(crate) const CALM: Self = Self {
        loss: 0,
        duplication: 0,
        crash: 0,
        cut: 0,
        stuck_disk: 0,
        delay_max: 2,
        read_delay_max: 2,
    };

    /// From calm to rough in each respect by itself.
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            loss: random.pick(&[0, 20, 100, 300]),
            duplication: random.pick(&[0, 50, 200]),
            crash: random.pick(&[0, 5, 15]),
            cut: random.pick(&[0, 10, 30]),
            stuck_disk: random.pick(&[0, 5, 30]),
            delay_max: random.pick(&[1, 4, 30]),
            read_delay_max: 20,
        }
    }
}
