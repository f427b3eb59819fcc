//! What tells two lives apart: a number mixed from everything that happened, in order.

/// The number so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace(u64);

/// FNV-1a's, which is enough to see a difference.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

impl Trace {
    pub(crate) fn new() -> Self {
        Self(START)
    }

    /// Mixes a number in.
    pub(crate) fn mix(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(PRIME).rotate_left(23);
    }

    /// Mixes a text in.
    pub(crate) fn mix_text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }

    /// What came of it.
    pub(crate) fn sum(self) -> u64 {
        self.0
    }
}
