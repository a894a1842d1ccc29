//! Random numbers: one stream for each who needs some, so that nobody's draws change another's.

/// A stream of random numbers. Two with the same seed and name are the same.
#[derive(Clone, Debug)]
pub struct Stream(u64);

/// Mixes a number well (the finalizer of SplitMix64).
pub const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Stream {
    /// The stream of this name and number under a seed.
    pub fn new(seed: u64, name: &str, number: u64) -> Self {
        let named = name.bytes().fold(mix(seed ^ 0x5851_f42d_4c95_7f2d), |hash, byte| {
            mix(hash.wrapping_add(u64::from(byte) + 1))
        });
        Self(mix(named.wrapping_add(mix(number.wrapping_add(1)))))
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 where that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in so many of a hundred cases.
    pub const fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
