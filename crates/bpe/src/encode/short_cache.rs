//! Pretokens seen before -> their ids.
//!
//! Text repeats itself: in a novel 99 of 100 pretokens were seen before. A look-up is therefore
//! what encoding mostly does, and it is made to touch one cache line: the pretoken's bytes and
//! its ids lie side by side in a slot, two slots fill a line, and a hash chooses the line. A new
//! word pushes out the older of the two, so memory is bounded and no probe is long.
//!
//! It begins small and becomes four times as large whenever a quarter of its slots has been taken: a
//! text of few words takes little memory, and stays in the nearer caches. (Fuller, a new word pushes
//! out many that will come again: doubling when as many words were new as there are slots cost a
//! text of many words an eighth of its time.)

use crate::store::pages::{filled, prefetch};
use crate::store::short_key::ShortKey;
use crate::vocab::TokenId;

/// The most ids that a slot takes.
pub const MAX_IDS: usize = 4;

/// Up to [`MAX_IDS`] ids (24 bits each), their number in the topmost byte of the first.
#[derive(Clone, Copy)]
pub struct PackedIds([TokenId; MAX_IDS]);

impl PackedIds {
    const ID_BITS: u32 = 24;

    /// `None` if they are too many.
    pub fn new(ids: &[TokenId]) -> Option<Self> {
        let mut packed = [0; MAX_IDS];
        packed.get_mut(..ids.len())?.copy_from_slice(ids);
        packed[0] |= (ids.len() as u32) << Self::ID_BITS;
        Some(Self(packed))
    }

    /// How many ids there are.
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
struct WordSlot {
    key: ShortKey,
    ids: PackedIds,
}

const EMPTY: WordSlot = WordSlot { key: ShortKey::NONE, ids: PackedIds([0; MAX_IDS]) };

/// One cache line; the newer word comes first.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([WordSlot; 2]);

/// The line that a word is in, if it is known. A cache that has grown in between finds nothing there.
#[derive(Clone, Copy, Default)]
pub struct LineNumber(u32);

/// The cache for words of up to [`ShortKey::MAX_LEN`] bytes. Longer ones are never found in it.
pub struct ShortCache {
    lines: Box<[Line]>,
    /// How far a hash is shifted right to become a line's number.
    shift: u32,
    max_log_lines: u32,
    /// How many words were put in since it has this size.
    new_words: usize,
}

/// What it begins with: 128 KiB.
const MIN_LOG_LINES: u32 = 11;

impl ShortCache {
    /// Up to `1 << max_log_lines` lines of two words, 64 bytes each.
    pub fn new(max_log_lines: u32) -> Self {
        Self::of_size(MIN_LOG_LINES.min(max_log_lines), max_log_lines)
    }

    fn of_size(log_lines: u32, max_log_lines: u32) -> Self {
        let lines = filled(Line([EMPTY; 2]), 1 << log_lines).into_boxed_slice();
        Self { lines, shift: 64 - log_lines, max_log_lines, new_words: 0 }
    }

    /// Lets it grow to `1 << max_log_lines` lines from now on.
    pub fn limit(&mut self, max_log_lines: u32) {
        self.max_log_lines = max_log_lines;
    }

    /// The ids of a word, if they are known.
    #[inline(always)]
    pub fn get(&self, key: ShortKey) -> Option<PackedIds> {
        self.get_in(LineNumber(self.line(key) as u32), key)
    }

    /// The ids of a word, if they are known, where [`prefetch`](Self::prefetch) said.
    #[inline(always)]
    pub fn get_in(&self, line: LineNumber, key: ShortKey) -> Option<PackedIds> {
        let Line(line) = &self.lines[line.0 as usize & (self.lines.len() - 1)];
        // Which of the two it is, nobody can predict: computed, not branched on.
        let slot = &line[usize::from(line[0].key != key)];
        (slot.key == key).then_some(slot.ids)
    }

    /// Starts loading the line that a look-up of `key` will read; returns which it is.
    #[inline(always)]
    pub fn prefetch(&self, key: ShortKey) -> LineNumber {
        let line = self.line(key);
        prefetch(&self.lines[line]);
        LineNumber(line as u32)
    }

    /// Remembers the ids of a short word.
    pub fn insert(&mut self, key: ShortKey, ids: PackedIds) {
        self.new_words += 1;
        if 2 * self.new_words > self.lines.len() && 64 - self.shift < self.max_log_lines {
            self.grow();
        }
        self.put(WordSlot { key, ids });
    }

    fn put(&mut self, slot: WordSlot) {
        let at = self.line(slot.key);
        let Line(line) = &mut self.lines[at];
        *line = [slot, line[0]];
    }

    #[cold]
    fn grow(&mut self) {
        let log_lines = (64 - self.shift + 2).min(self.max_log_lines);
        let mut larger = Self::of_size(log_lines, self.max_log_lines);
        larger.new_words = self.new_words;
        for Line([newer, older]) in &self.lines {
            for slot in [older, newer] {
                if slot.key != ShortKey::NONE {
                    larger.put(*slot);
                }
            }
        }
        *self = larger;
    }

    #[inline(always)]
    fn line(&self, key: ShortKey) -> usize {
        (key.hash() >> self.shift) as usize & (self.lines.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const MAX_LEN: usize = ShortKey::MAX_LEN;

    proptest! {
        /// Whatever a cache still holds is what was put there, however small it is.
        #[test]
        fn never_answers_for_another(
            words in prop::collection::vec(prop::collection::vec(0u8..3, 1..=MAX_LEN), 1..200),
            ids in prop::collection::vec(prop::collection::vec(0u32..1 << 24, 1..=MAX_IDS), 200),
        ) {
            let mut cache = ShortCache::new(3);
            let mut known: HashMap<Vec<u8>, Vec<TokenId>> = HashMap::new();
            for (i, word) in words.iter().enumerate() {
                // The same word in the middle of a text and at its end has the same key.
                let text = [b"..", word.as_slice(), b"tail of more than 16 bytes"].concat();
                let key = ShortKey::short(&text, 2, word.len());
                prop_assert!(key == ShortKey::short(word, 0, word.len()));
                if let Some(found) = cache.get(key) {
                    prop_assert_eq!(&found.padded()[..found.count()], known[word].as_slice());
                }
                cache.insert(key, PackedIds::new(&ids[i]).unwrap());
                known.insert(word.clone(), ids[i].clone());
                let found = cache.get(key).expect("just inserted");
                prop_assert_eq!(&found.padded()[..found.count()], ids[i].as_slice());
            }
        }
    }

    /// With room for them, words stay while it grows.
    #[test]
    fn grows_with_its_words_and_forgets_few() {
        let mut cache = ShortCache::new(16);
        assert_eq!(cache.lines.len(), 1 << MIN_LOG_LINES);
        let key = |i: u32| {
            let word = format!("w{i}");
            ShortKey::short(word.as_bytes(), 0, word.len())
        };
        for i in 0..8000 {
            cache.insert(key(i), PackedIds::new(&[i]).unwrap());
        }
        assert_eq!(cache.lines.len(), 1 << 15);
        let known = (0..8000).filter(|&i| match cache.get(key(i)) {
            Some(found) => found.padded()[0] == i || panic!("{i}"),
            None => false,
        });
        assert!(known.count() > 7000);
        for i in 0..1_000_000 {
            cache.insert(key(i), PackedIds::new(&[i]).unwrap());
        }
        assert_eq!(cache.lines.len(), 1 << 16);
    }

    #[test]
    fn a_long_word_is_never_found() {
        assert!(ShortCache::new(3).get(ShortKey::long(0, 16)).is_none());
    }

    #[test]
    fn too_many_ids_are_refused() {
        assert!(PackedIds::new(&[1; MAX_IDS + 1]).is_none());
    }
}
