//! Repeatable choices: SplitMix64.

/// A stream of random numbers that is determined by its seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates the stream of one iteration. It depends only on the two numbers, so that any iteration can be run alone.
    #[must_use]
    pub fn new(seed: u64, iteration: u64) -> Self {
        let mut random = Self(seed);
        let start = random.number() ^ iteration.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self(start)
    }

    /// Draws any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Draws a number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }

    /// Returns true once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Draws one of several items. Panics if there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Draws a length up to `max`, mostly a small one.
    pub fn length(&mut self, max: usize) -> usize {
        let bits = self.below(usize::BITS as usize - max.leading_zeros() as usize + 1);
        self.below((1 << bits).min(max + 1))
    }
}
