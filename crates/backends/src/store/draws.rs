//! The opening draw: its seed, what is said of it before, and the order that comes of it. How keys become an
//! order is the domain's business (`queue::Draw`).

use std::fmt;

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Draw, Drawing, Drawn, Order, QueueSettings, SettingsChange};
use boxoffice_domain::time::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use roaring::RoaringTreemap;
use sha2::{Digest as _, Sha256};

use super::types::DrawRequest;
use crate::Fault;
use crate::planted::{Bug, planted};

/// What decides a draw, and is a secret until then.
#[derive(Clone, PartialEq, Eq)]
pub struct DrawSeed(pub [u8; 32]);

impl fmt::Debug for DrawSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrawSeed(..)")
    }
}

/// Before what is digested stand these, so that no digest passes for another.
const COMMITMENT: &[u8] = b"boxoffice draw 1\n";
const KEYS: &[u8] = b"boxoffice draw keys 1\n";

impl DrawSeed {
    /// A new one, that nobody can guess.
    pub fn random() -> Result<Self, Fault> {
        let mut seed = [0; 32];
        let failed = |_| Fault::Unavailable("the system gives no random numbers".into());
        SystemRandom::new().fill(&mut seed).map_err(failed)?;
        Ok(Self(seed))
    }

    /// Returns what is said of it before the draw: SHA-256 of a line that names the purpose, the name of the
    /// queue, a line feed, and the seed.
    pub fn commitment(&self, queue: &QueueName) -> [u8; 32] {
        let hash = Sha256::new().chain_update(COMMITMENT).chain_update(queue.as_str());
        hash.chain_update(b"\n").chain_update(self.0).finalize().into()
    }
}

/// Returns the order that a draw makes. Its keys are SHA-256 of a line that names the purpose, the seed, the
/// count as eight bytes, and a byte 0, which makes the first four, or 1, which makes the others; each is eight
/// bytes. The highest byte is the first.
pub fn draw(drawn: &Drawn) -> Draw {
    let Drawn { count, seed } = drawn;
    let mut keys = [0; 8];
    for (half, keys) in [0, 1].into_iter().zip(keys.chunks_exact_mut(4)) {
        let hash = Sha256::new().chain_update(KEYS).chain_update(seed);
        let hash = hash.chain_update(count.to_be_bytes()).chain_update([half]).finalize();
        for (key, bytes) in keys.iter_mut().zip(hash.chunks_exact(8)) {
            *key = bytes.iter().fold(0, |key, byte| key << 8 | u64::from(*byte));
        }
    }
    Draw::new(*count, keys)
}

/// Whether the seed of a draw is the one that was committed to; of a draw that is still to come nothing can be
/// said.
pub fn is_as_committed(drawing: &Drawing, queue: &QueueName) -> bool {
    drawing.drawn.is_none_or(|drawn| DrawSeed(drawn.seed).commitment(queue) == drawing.commitment)
}

/// In which order the numbers of a queue have their turn.
pub(crate) fn order(drawing: Option<&Drawing>) -> Order {
    match drawing {
        None => Order::Joined,
        Some(Drawing { drawn: None, .. }) => Order::Undrawn,
        Some(Drawing { drawn: Some(drawn), .. }) => Order::Drawn(draw(drawn)),
    }
}

/// The draw of a queue as it is stored: the seed, and how many numbers were drawn.
pub(super) fn drawing(
    queue: &QueueName,
    seed: Option<DrawSeed>,
    count: Option<u64>,
) -> Option<Drawing> {
    let seed = seed?;
    let drawn = count.map(|count| Drawn { count, seed: seed.0 });
    Some(Drawing { commitment: seed.commitment(queue), drawn })
}

/// What is stored of a queue that is to be drawn, or was.
pub(super) struct Stored {
    pub(super) seed: Option<DrawSeed>,
    /// How many were drawn.
    pub(super) drawn: Option<u64>,
    pub(super) opens_at: Option<Timestamp>,
    /// The last number known to have been given,
    pub(super) next: u64,
    /// and the last one that was ever handed out.
    pub(super) watermark: u64,
}

/// What becomes of a request to draw.
pub(super) enum Decision {
    /// This draw is to be stored.
    Draw(Drawn),
    /// Nothing. There was this one, or it is not to be drawn, or not yet.
    Nothing(Option<Drawn>),
}

/// Decides on a request: a queue is drawn once, at its opening, of all numbers that whoever asks, or the store,
/// knows to have been given.
pub(super) fn decide(stored: &Stored, request: &DrawRequest) -> Decision {
    let Stored { seed: Some(DrawSeed(seed)), drawn, opens_at, next, watermark } = stored else {
        return Decision::Nothing(None);
    };
    let earlier = drawn.map(|count| Drawn { count, seed: *seed });
    let is_early = opens_at.is_some_and(|opens_at| request.at < opens_at);
    if (earlier.is_some() && !planted(Bug::DrawnAnew)) || is_early {
        return Decision::Nothing(earlier);
    }
    let known = if planted(Bug::PoolIsDrawn) {
        *watermark
    } else if planted(Bug::TakenUndrawn) {
        0
    } else {
        *next
    };
    let count = known.max(request.count).saturating_sub(planted(Bug::DrawnTooFew).into());
    Decision::Draw(Drawn { count, seed: *seed })
}

/// Whether a change is refused: an opening at which a queue was drawn stays when it was.
pub(super) fn refuses(drawn: Option<u64>, change: &SettingsChange, before: &QueueSettings) -> bool {
    drawn.is_some() && change.moves_opening(before)
}

/// The highest number of whose tickets nothing is to be known, where that is so of the ranks up to `floor`, but
/// for those that were let in late.
pub(super) const fn read_from(order: &Order, floor: u64, any_readmitted: bool) -> u64 {
    match order {
        Order::Drawn(_) if any_readmitted => 0,
        Order::Joined | Order::Undrawn | Order::Drawn(_) => order.numbers_up_to(floor),
    }
}

/// The ranks of numbers as tickets have them, where they are above `floor` or `known` says so.
pub(super) fn ranks(
    order: &Order,
    numbers: RoaringTreemap,
    floor: u64,
    known: impl Fn(u64) -> bool,
) -> RoaringTreemap {
    let Order::Drawn(_) = order else { return numbers };
    let ranks = numbers.into_iter().map(|number| order.rank(number));
    ranks.filter(|rank| *rank > floor || known(*rank)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap_or_else(|| panic!("a name"))
    }

    /// As scripts/check-log has it, which shares no code with this.
    #[test]
    fn a_draw_follows_from_seed_and_count() {
        let seed: [u8; 32] = std::array::from_fn(|index| index as u8);
        let hex = |bytes: [u8; 32]| super::super::digest::Digest(bytes).to_string();
        assert_eq!(
            hex(DrawSeed(seed).commitment(&queue("main"))),
            "cbd38485a86ebe5a90c66a277b53bf3e9c3b599856fd4c21b3ca929df2e10362"
        );
        assert_ne!(
            DrawSeed(seed).commitment(&queue("main")),
            DrawSeed(seed).commitment(&queue("vip"))
        );
        let order = draw(&Drawn { count: 10, seed });
        let ranks: Vec<u64> = (1..=10).map(|number| order.rank(number)).collect();
        assert_eq!(ranks, [8, 5, 7, 3, 10, 6, 1, 4, 2, 9]);
        assert_ne!(draw(&Drawn { count: 11, seed }), order);
    }

    #[test]
    fn seeds_are_never_the_same_and_are_not_shown() {
        let (one, two) = (DrawSeed::random(), DrawSeed::random());
        assert!(one.is_ok() && one != two);
        assert_eq!(format!("{:?}", DrawSeed([7; 32])), "DrawSeed(..)");
    }

    #[test]
    fn another_seed_is_not_the_one_that_was_committed_to() {
        let main = queue("main");
        let drawing = |seed: [u8; 32]| Drawing {
            commitment: DrawSeed([7; 32]).commitment(&main),
            drawn: Some(Drawn { count: 3, seed }),
        };
        assert!(is_as_committed(&drawing([7; 32]), &main));
        assert!(!is_as_committed(&drawing([8; 32]), &main));
        assert!(!is_as_committed(&drawing([7; 32]), &queue("vip")));
    }
}
