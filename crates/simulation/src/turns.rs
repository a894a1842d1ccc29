//! Which turn a number has after an opening draw, worked out a second time: from the description alone, as
//! somebody would who checks the service, and as a table.

use sha2::{Digest as _, Sha256};

use crate::random::mix;

/// More are drawn by mistake only: such numbers have no other turn here.
const COUNT_MAX: u64 = 1 << 20;

/// See the module. Without a draw a number is its own turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// By number, from 1 on.
    turns: Vec<u64>,
    /// By turn, from 1 on.
    numbers: Vec<u64>,
}

impl Turns {
    /// Those of a draw of the numbers up to `count`.
    pub fn drawn(seed: &[u8; 32], count: u64) -> Self {
        let count = count.min(COUNT_MAX);
        let half = |last: u8| {
            let mut text = b"boxoffice draw keys 1\n".to_vec();
            text.extend(seed);
            text.extend(count.to_be_bytes());
            text.push(last);
            <[u8; 32]>::from(Sha256::digest(text))
        };
        let digests = [half(0), half(1)].concat();
        let keys: Vec<u64> = digests
            .chunks(8)
            .map(|key| key.iter().fold(0, |key, byte| key * 256 + u64::from(*byte)))
            .collect();
        // A square that has room for all of them: the side is a power of two, and eight at least.
        let side = (3..).map(|bits| 1_u64 << bits).find(|side| side * side >= count).unwrap_or(8);
        let scrambled = |cell: u64| {
            let (left, right) =
                keys.iter().fold((cell / side, cell % side), |(left, right), key| {
                    (right, left ^ (mix(right.wrapping_add(*key)) % side))
                });
            left * side + right
        };
        let mut numbers = vec![0; count as usize];
        let turns: Vec<u64> = (0..count)
            .map(|cell| {
                let mut turn = scrambled(cell);
                while turn >= count {
                    turn = scrambled(turn);
                }
                numbers[turn as usize] = cell + 1;
                turn + 1
            })
            .collect();
        Self { turns, numbers }
    }

    /// How many were drawn.
    pub const fn count(&self) -> u64 {
        self.turns.len() as u64
    }

    /// The turn of a number.
    pub fn turn(&self, number: u64) -> u64 {
        found(&self.turns, number)
    }

    /// The number whose turn it is.
    pub fn number(&self, turn: u64) -> u64 {
        found(&self.numbers, turn)
    }
}

/// Behind those who were drawn come the others as they joined.
fn found(table: &[u64], place: u64) -> u64 {
    let index = (place as usize).checked_sub(1);
    index.and_then(|index| table.get(index)).copied().unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use boxoffice_backends::store::draw;
    use boxoffice_domain::queue::Drawn;

    use super::*;

    #[test]
    fn it_is_what_is_promised_and_what_the_service_does() {
        let seed = std::array::from_fn(|index| index as u8);
        let ten = Turns::drawn(&seed, 10);
        assert_eq!(ten.turns, [8, 5, 7, 3, 10, 6, 1, 4, 2, 9]);
        assert_eq!([0, 11].map(|place| (ten.turn(place), ten.number(place))), [(0, 0), (11, 11)]);
        for count in [0, 1, 2, 63, 64, 65, 4_096, 5_000] {
            let (turns, theirs) = (Turns::drawn(&seed, count), draw(&Drawn { count, seed }));
            assert_eq!(turns.count(), count);
            for number in 0..=count + 1 {
                assert_eq!(turns.turn(number), theirs.rank(number));
                assert_eq!(turns.number(turns.turn(number)), number);
            }
        }
    }
}
