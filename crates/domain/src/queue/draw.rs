//! The opening draw: in which order those have their turn who joined before the opening.
//!
//! The order is a permutation of the numbers 1 to `count`, made by eight keys: a Feistel network over the
//! smallest even number of bits that has room for them (six at least), applied again until the result is one
//! of them (*cycle walking*). So the place of a ticket stays arithmetic, and nothing is kept per ticket.
//!
//! Where the keys come from is not decided here. Nobody sees what they make of a number before the opening,
//! and from then on everybody may know them: what is asked of the network is that no place is favoured.

/// The rounds of the network.
const ROUNDS: usize = 8;
/// The fewest bits of half a number: with fewer the rounds have too little to mix.
const HALF_BITS_MIN: u32 = 3;

/// The opening draw of a queue, as everybody may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// A digest of the seed, known before anybody joins.
    pub commitment: [u8; 32],
    /// The draw, once the queue has opened.
    pub drawn: Option<Drawn>,
}

/// What decides a draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// How many numbers take part: those from 1 on.
    pub count: u64,
    /// What the keys are made of.
    pub seed: [u8; 32],
}

/// The order of the numbers up to `count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    count: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Draw {
    /// The order that these keys make of the numbers 1 to `count`.
    pub fn new(count: u64, keys: [u64; ROUNDS]) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self { count, half_bits: bits.div_ceil(2).max(HALF_BITS_MIN), keys }
    }

    /// How many numbers were drawn.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the rank of a number: which turn it has. Whoever joined later has the turn of their number.
    pub fn rank(&self, number: u64) -> u64 {
        self.walk(number, |network, x| network.forth(x))
    }

    /// Returns the number that has this rank.
    pub fn number(&self, rank: u64) -> u64 {
        self.walk(rank, |network, x| network.back(x))
    }

    fn walk(&self, number: u64, step: impl Fn(&Self, u64) -> u64) -> u64 {
        if number == 0 || number > self.count || self.count == 1 {
            return number;
        }
        let mut x = number - 1;
        // It ends: a permutation comes back to where it began, which is one of them.
        loop {
            x = step(self, x);
            if x < self.count {
                return x + 1;
            }
        }
    }

    fn forth(&self, x: u64) -> u64 {
        let (mut left, mut right) = self.halves(x);
        for key in self.keys {
            (left, right) = (right, left ^ self.round(key, right));
        }
        left << self.half_bits | right
    }

    fn back(&self, x: u64) -> u64 {
        let (mut left, mut right) = self.halves(x);
        for key in self.keys.iter().rev() {
            (left, right) = (right ^ self.round(*key, left), left);
        }
        left << self.half_bits | right
    }

    const fn halves(&self, x: u64) -> (u64, u64) {
        (x >> self.half_bits, x & self.mask())
    }

    const fn mask(&self) -> u64 {
        (1 << self.half_bits) - 1
    }

    const fn round(&self, key: u64, half: u64) -> u64 {
        mix(half.wrapping_add(key)) & self.mask()
    }
}

/// The finalizer of SplitMix64.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How the turns of a queue come about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As people joined.
    #[default]
    Joined,
    /// Those who join before the opening are drawn, which is still to come. Nobody has a turn before.
    Undrawn,
    /// They were drawn; those who have joined since follow as they joined.
    Drawn(Draw),
}

impl Order {
    /// Returns the rank of a number: which turn it has. Before a draw it is the number itself.
    pub fn rank(&self, number: u64) -> u64 {
        match self {
            Self::Joined | Self::Undrawn => number,
            Self::Drawn(draw) => draw.rank(number),
        }
    }

    /// Returns the highest number up to which all had their turn, where all up to the rank `floor` had it.
    pub const fn numbers_up_to(&self, floor: u64) -> u64 {
        match self {
            // Drawn numbers are everywhere below the end of the draw.
            Self::Drawn(draw) if floor < draw.count => 0,
            Self::Joined | Self::Undrawn | Self::Drawn(_) => floor,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Keys as a seed would make them: SplitMix64.
    fn keys(seed: u64) -> [u64; ROUNDS] {
        let mut state = seed;
        [(); ROUNDS].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        })
    }

    #[test]
    fn a_draw_is_a_permutation_and_whoever_joins_later_is_behind_it() {
        for count in (0..70).chain([100, 255, 256, 257, 4_095, 4_096, 4_097, 100_000]) {
            let draw = Draw::new(count, keys(count));
            let mut seen = vec![false; count as usize];
            for number in 1..=count {
                let rank = draw.rank(number);
                assert!((1..=count).contains(&rank), "{rank} of {count}");
                assert!(!std::mem::replace(&mut seen[rank as usize - 1], true), "{rank} twice");
                assert_eq!(draw.number(rank), number);
            }
            for number in [0, count + 1, count + 2, u64::MAX] {
                assert_eq!((draw.rank(number), draw.number(number)), (number, number));
            }
        }
    }

    #[test]
    fn the_largest_draws_are_arithmetic_too() {
        for count in [10_000_000, u64::from(u32::MAX), 1 << 40, u64::MAX] {
            let draw = Draw::new(count, keys(7));
            for number in [1, 2, 3, count / 2, count - 1, count] {
                let rank = draw.rank(number);
                assert!((1..=count).contains(&rank));
                assert_eq!(draw.number(rank), number);
            }
        }
    }

    /// The form is a promise to whoever checks a draw with a program of their own.
    #[test]
    fn the_order_of_given_keys_does_not_change() {
        let draw = Draw::new(10, [1, 2, 3, 4, 5, 6, 7, 8]);
        let ranks: Vec<u64> = (1..=10).map(|number| draw.rank(number)).collect();
        assert_eq!(ranks, [4, 10, 6, 3, 5, 9, 7, 1, 8, 2]);
        assert_eq!(Draw::new(1_000_000, keys(1)).rank(123_456), 906_015);
    }

    /// The sum of (seen - expected)² / expected, as standard deviations above what is expected of chance.
    fn surprise(seen: &[u64], expected: f64) -> f64 {
        let square = |count: &u64| (*count as f64 - expected).powi(2) / expected;
        let chi_square: f64 = seen.iter().map(square).sum();
        let freedom = (seen.len() - 1) as f64;
        (chi_square - freedom) / (2.0 * freedom).sqrt()
    }

    /// Of few, every order is as likely as any other.
    #[test]
    fn no_order_of_few_is_favoured() {
        const DRAWS: u64 = 120_000;
        for (count, orders) in [(2, 2), (3, 6), (4, 24), (5, 120)] {
            let mut seen: HashMap<Vec<u64>, u64> = HashMap::new();
            for seed in 0..DRAWS {
                let draw = Draw::new(count, keys(seed));
                let order = (1..=count).map(|number| draw.rank(number)).collect();
                *seen.entry(order).or_default() += 1;
            }
            assert_eq!(seen.len(), orders, "of {count}");
            let seen: Vec<u64> = seen.into_values().collect();
            let surprise = surprise(&seen, DRAWS as f64 / orders as f64);
            println!("orders of {count}: {surprise:.2} standard deviations");
            assert!(surprise < 5.0, "{surprise} of {count}");
        }
    }

    /// For each number, each place is as likely as any other; and a neighbour's place says nothing of one's
    /// own.
    #[test]
    fn no_place_is_favoured() {
        const DRAWS: u64 = 50_000;
        for count in [10, 64, 100, 1_000] {
            let numbers = [1, 2, count / 2, count - 1, count];
            let mut places = vec![vec![0; count as usize]; numbers.len()];
            let mut apart = vec![0; count as usize - 1];
            for seed in 0..DRAWS {
                let draw = Draw::new(count, keys(seed));
                for (places, number) in places.iter_mut().zip(numbers) {
                    places[draw.rank(number) as usize - 1] += 1;
                }
                let (one, two) = (draw.rank(1), draw.rank(2));
                // From one to the other, round the circle.
                apart[((two + count - one) % count) as usize - 1] += 1;
            }
            for (places, number) in places.iter().zip(numbers) {
                let surprise = surprise(places, DRAWS as f64 / count as f64);
                assert!(surprise < 5.0, "{surprise} for {number} of {count}");
            }
            let surprise = surprise(&apart, DRAWS as f64 / (count - 1) as f64);
            assert!(surprise < 5.0, "{surprise} for neighbours of {count}");
        }
    }

    #[test]
    fn what_is_over_is_forgotten_only_behind_the_draw() {
        let order = Order::Drawn(Draw::new(100, keys(1)));
        assert_eq!([0, 99, 100, 101].map(|floor| order.numbers_up_to(floor)), [0, 0, 100, 101]);
        assert_eq!(Order::Joined.numbers_up_to(7), 7);
    }
}
