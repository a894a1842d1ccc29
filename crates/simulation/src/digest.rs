//! A running hash of all that happens: two runs of a seed have the same.

use crate::random::mix;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Takes in a number.
    pub const fn number(&mut self, number: u64) {
        self.0 = mix(self.0.rotate_left(5) ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    /// Takes in bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    /// The hash so far.
    pub const fn value(self) -> u64 {
        self.0
    }
}
