//! Sixteen bytes that stand for a word in a table: compared and hashed without a loop.
//!
//! Nearly all words have 15 bytes or fewer. Their key is the word itself, padded with zeros, and
//! its length in the last byte. The key of a longer word holds two numbers by which the table
//! finds it: its hash, its index, or its place.

use super::hash::fold;

/// The key of a word. Two short words are equal if and only if their keys are.
///
/// Two halves rather than one number of 128 bits, which would be aligned to 16 bytes: a key and a
/// count then take 24 bytes, not 32.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShortKey {
    /// The first eight bytes, the first one lowest.
    low: u64,
    /// The other seven, and in the topmost byte the length, or [`LONG`].
    high: u64,
}

/// The topmost byte of a long word's key.
const LONG: u64 = 0xFF << 56;

impl ShortKey {
    /// The longest word that a key holds, in bytes.
    pub const MAX_LEN: usize = 15;

    /// No word: its length would be 0.
    pub const NONE: Self = Self { low: 0, high: 0 };

    /// `MASKS[len]` keeps the first `len` bytes.
    const MASKS: [(u64, u64); 16] = {
        let mut masks = [(0, 0); 16];
        let mut len = 0;
        while len < 16 {
            let mask = (1u128 << (8 * len)) - 1;
            masks[len] = (mask as u64, (mask >> 64) as u64);
            len += 1;
        }
        masks
    };

    /// The key of `text[start..start + len]`, of 1 to [`MAX_LEN`](Self::MAX_LEN) bytes. Where the
    /// text goes on, 16 bytes are read at once and those behind the word masked.
    #[inline(always)]
    pub fn short(text: &[u8], start: usize, len: usize) -> Self {
        debug_assert!((1..=Self::MAX_LEN).contains(&len));
        let bytes = match text[start..].first_chunk::<16>() {
            Some(bytes) => *bytes,
            None => padded(&text[start..start + len]),
        };
        let bytes = u128::from_le_bytes(bytes);
        let (low, high) = Self::MASKS[len & Self::MAX_LEN];
        Self { low: bytes as u64 & low, high: (bytes >> 64) as u64 & high | (len as u64) << 56 }
    }

    /// The key of a longer word, as two numbers of the table's own; `second` is below 2^56.
    #[inline(always)]
    pub fn long(first: u64, second: u64) -> Self {
        Self { low: first, high: LONG | second }
    }

    /// Whether there is no word: an empty slot.
    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.high == 0
    }

    /// Whether the key holds the word itself. [`NONE`](Self::NONE) counts as short.
    #[inline(always)]
    pub fn is_short(self) -> bool {
        self.high < LONG
    }

    /// What [`long`](Self::long) was given.
    #[inline]
    pub fn long_parts(self) -> Option<(u64, u64)> {
        (!self.is_short()).then_some((self.low, self.high & !LONG))
    }

    /// Of a short word: its length in bytes.
    #[inline]
    pub fn len(self) -> usize {
        (self.high >> 56) as usize
    }

    /// Of a short word: its bytes, zeros after them, and its length. Compared as they are, they
    /// order short words as their bytes do.
    #[inline]
    pub fn bytes(self) -> [u8; 16] {
        self.as_number().to_le_bytes()
    }

    /// Of a short word: whether all of it is ASCII.
    #[inline(always)]
    pub fn is_ascii(self) -> bool {
        const TOP_BITS: u64 = 0x8080_8080_8080_8080;
        (self.low | self.high << 8) & TOP_BITS == 0
    }

    /// All of the key, mixed.
    #[inline(always)]
    pub fn hash(self) -> u64 {
        fold(self.low, self.high)
    }

    #[inline(always)]
    fn as_number(self) -> u128 {
        u128::from(self.low) | u128::from(self.high) << 64
    }
}

impl PartialEq for ShortKey {
    /// In one comparison: the branch between two would be mispredicted.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.as_number() == other.as_number()
    }
}

impl Eq for ShortKey {}

#[cold]
fn padded(bytes: &[u8]) -> [u8; 16] {
    let mut block = [0; 16];
    block[..bytes.len()].copy_from_slice(bytes);
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => 0u8..3, 1 => any::<u8>()];
        prop::collection::vec(byte, 1..=ShortKey::MAX_LEN)
    }

    proptest! {
        #[test]
        fn a_short_word_is_its_key(one in word(), other in word()) {
            // In the middle of a text and at its end.
            let text = [b"..", one.as_slice(), b"tail of more than 16 bytes"].concat();
            let key = ShortKey::short(&text, 2, one.len());
            let other_key = ShortKey::short(&other, 0, other.len());
            prop_assert!(key == ShortKey::short(&one, 0, one.len()));
            prop_assert!(key.is_short() && !key.is_none() && key.long_parts().is_none());
            prop_assert_eq!(&key.bytes()[..key.len()], one.as_slice());
            prop_assert_eq!(key.is_ascii(), one.is_ascii());
            prop_assert_eq!(key == other_key, one == other);
            prop_assert_eq!(key.bytes().cmp(&other_key.bytes()), one.cmp(&other));
        }

        #[test]
        fn knows_ascii(word in prop::collection::vec(any::<u8>(), 1..=ShortKey::MAX_LEN)) {
            let key = ShortKey::short(&word, 0, word.len());
            prop_assert_eq!(key.is_ascii(), word.is_ascii());
        }

        #[test]
        fn a_long_word_is_two_numbers(first in any::<u64>(), second in 0u64..1 << 56) {
            let key = ShortKey::long(first, second);
            prop_assert!(!key.is_short() && !key.is_none());
            prop_assert_eq!(key.long_parts(), Some((first, second)));
        }
    }

    #[test]
    fn no_word_is_a_key_of_none() {
        assert!(ShortKey::NONE.is_none() && ShortKey::NONE == ShortKey::default());
        assert!(!ShortKey::short(b"\0", 0, 1).is_none());
    }
}
