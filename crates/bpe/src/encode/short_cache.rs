//! Pretokens seen before -> their ids.
//!
//! Text repeats itself: in a novel 99 of 100 pretokens were seen before. A look-up is therefore
//! what encoding mostly does, and it is made to touch one cache line: the pretoken's bytes and
//! its ids lie side by side in a slot, two slots fill a line, and a hash chooses the line. A new
//! entry pushes out the older of the two, so memory is bounded and no probe is long.

use std::ops::Range;

use crate::store::hash::fold;
use crate::store::pages::{filled, prefetch};
use crate::store::token_table::TokenId;

/// The longest pretoken that a slot takes, in bytes.
pub const MAX_KEY: usize = 15;

/// The most ids that a slot takes.
pub const MAX_IDS: usize = 4;

/// A pretoken of 1 to [`MAX_KEY`] bytes: the bytes below, their number in the topmost byte. Of a
/// longer one: where it is in its text, below a topmost byte of 0; no slot holds such a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(u128);

impl Key {
    /// No pretoken: its length would be 0.
    pub const NONE: Self = Self(0);

    const HIGH_BITS: u128 = u128::from_le_bytes([
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0,
    ]);

    /// `MASKS[len]` keeps the first `len` bytes.
    const MASKS: [u128; 16] = {
        let mut masks = [0; 16];
        let mut len = 1;
        while len < 16 {
            masks[len] = masks[len - 1] << 8 | 0xFF;
            len += 1;
        }
        masks
    };

    /// The key of `text[start..start + len]`, which is not empty. Where the text goes on, 16
    /// bytes are read at once and those behind the pretoken masked.
    #[inline(always)]
    pub fn at(text: &[u8], start: usize, len: usize) -> Self {
        if len > MAX_KEY {
            return Self((len as u128) << 64 | start as u128);
        }
        let bytes = match text[start..].first_chunk::<16>() {
            Some(bytes) => *bytes,
            None => padded(&text[start..start + len]),
        };
        Self(u128::from_le_bytes(bytes) & Self::MASKS[len & MAX_KEY] | (len as u128) << 120)
    }

    #[inline(always)]
    pub fn is_short(self) -> bool {
        self.0 >> 120 != 0
    }

    /// Where the pretoken is, if it is a long one.
    #[inline]
    pub fn range(self) -> Option<Range<usize>> {
        let (start, len) = (self.0 as u64 as usize, (self.0 >> 64) as usize);
        (self.0 >> 120 == 0).then(|| start..start + len)
    }

    /// The bytes of a short pretoken, and how many of them count.
    #[inline]
    pub fn bytes(self) -> ([u8; 16], usize) {
        (self.0.to_le_bytes(), (self.0 >> 120) as usize)
    }

    /// Of a short pretoken only.
    #[inline(always)]
    pub fn is_ascii(self) -> bool {
        self.0 & Self::HIGH_BITS == 0
    }

    #[inline(always)]
    fn hash(self) -> u64 {
        fold(self.0 as u64, (self.0 >> 64) as u64)
    }
}

#[cold]
fn padded(bytes: &[u8]) -> [u8; 16] {
    let mut block = [0; 16];
    block[..bytes.len()].copy_from_slice(bytes);
    block
}

/// Up to [`MAX_IDS`] ids (24 bits each), their number in the topmost byte of the first.
#[derive(Clone, Copy)]
pub struct Ids([TokenId; MAX_IDS]);

impl Ids {
    const ID_BITS: u32 = 24;

    pub fn new(ids: &[TokenId]) -> Option<Self> {
        let mut packed = [0; MAX_IDS];
        packed.get_mut(..ids.len())?.copy_from_slice(ids);
        packed[0] |= (ids.len() as u32) << Self::ID_BITS;
        Some(Self(packed))
    }

    #[inline(always)]
    pub fn count(self) -> usize {
        (self.0[0] >> Self::ID_BITS) as usize
    }

    /// The ids, and after [`count`](Self::count) of them zeros: to be copied whole.
    #[inline(always)]
    pub fn padded(self) -> [TokenId; MAX_IDS] {
        let [first, rest @ ..] = self.0;
        let [second, third, fourth] = rest;
        [first & ((1 << Self::ID_BITS) - 1), second, third, fourth]
    }
}

#[derive(Clone, Copy)]
struct Slot {
    key: Key,
    ids: Ids,
}

const EMPTY: Slot = Slot { key: Key::NONE, ids: Ids([0; MAX_IDS]) };

/// One cache line; the newer entry comes first.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([Slot; 2]);

pub struct Cache {
    lines: Box<[Line]>,
    /// How far a hash is shifted right to become a line's number.
    shift: u32,
}

impl Cache {
    /// `1 << log_lines` lines of two entries, 64 bytes each.
    pub fn new(log_lines: u32) -> Self {
        let lines = filled(Line([EMPTY; 2]), 1 << log_lines).into_boxed_slice();
        Self { lines, shift: 64 - log_lines }
    }

    #[inline(always)]
    pub fn get(&self, key: Key) -> Option<Ids> {
        let Line(line) = &self.lines[self.line(key)];
        // Which of the two it is, nobody can predict: computed, not branched on.
        let slot = &line[usize::from(line[0].key != key)];
        (slot.key == key).then_some(slot.ids)
    }

    /// Has the line that a look-up of `key` will read brought near.
    #[inline(always)]
    pub fn prefetch(&self, key: Key) {
        prefetch(&self.lines[self.line(key)]);
    }

    pub fn insert(&mut self, key: Key, ids: Ids) {
        let at = self.line(key);
        let Line(line) = &mut self.lines[at];
        *line = [Slot { key, ids }, line[0]];
    }

    #[inline(always)]
    fn line(&self, key: Key) -> usize {
        (key.hash() >> self.shift) as usize & (self.lines.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Whatever a cache still holds is what was put there, however small it is.
        #[test]
        fn never_answers_for_another(
            words in prop::collection::vec(prop::collection::vec(0u8..3, 1..=MAX_KEY), 1..200),
            ids in prop::collection::vec(prop::collection::vec(0u32..1 << 24, 1..=MAX_IDS), 200),
        ) {
            let mut cache = Cache::new(3);
            let mut known: HashMap<Vec<u8>, Vec<TokenId>> = HashMap::new();
            for (i, word) in words.iter().enumerate() {
                // The same word in the middle of a text and at its end has the same key.
                let text = [b"..", word.as_slice(), b"tail of more than 16 bytes"].concat();
                let key = Key::at(&text, 2, word.len());
                prop_assert!(key == Key::at(word, 0, word.len()));
                let (bytes, len) = key.bytes();
                prop_assert_eq!(&bytes[..len], word.as_slice());
                prop_assert_eq!(key.range(), None);
                if let Some(found) = cache.get(key) {
                    prop_assert_eq!(&found.padded()[..found.count()], known[word].as_slice());
                }
                cache.insert(key, Ids::new(&ids[i]).unwrap());
                known.insert(word.clone(), ids[i].clone());
                let found = cache.get(key).expect("just inserted");
                prop_assert_eq!(&found.padded()[..found.count()], ids[i].as_slice());
            }
        }

        #[test]
        fn knows_ascii(word in prop::collection::vec(any::<u8>(), 1..=MAX_KEY)) {
            prop_assert_eq!(Key::at(&word, 0, word.len()).is_ascii(), word.is_ascii());
        }
    }

    #[test]
    fn a_long_pretoken_is_where_it_is() {
        let text = [b'x'; 100];
        assert_eq!(Key::at(&text, 0, 16).range(), Some(0..16));
        assert_eq!(Key::at(&text, 70, 30).range(), Some(70..100));
        assert!(Cache::new(3).get(Key::at(&text, 0, 16)).is_none());
    }

    #[test]
    fn too_many_ids_are_refused() {
        assert!(Ids::new(&[1; MAX_IDS + 1]).is_none());
    }
}
