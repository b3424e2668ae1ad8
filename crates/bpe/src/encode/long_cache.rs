//! What does not fit in a slot of [`super::short_cache`]: pretokens of 16 bytes and more, or with
//! many ids.
//!
//! One word in a hundred is like that, and merging it costs as much as looking up the other
//! ninety-nine. Bytes and ids are kept in two arenas; a slot holds a hash and where they are. When
//! an arena is full, everything is forgotten, so memory is bounded.

use crate::store::hash::hash_bytes;
use crate::store::token_table::TokenId;

/// In bytes. Longer words are merged each time: they hardly ever come twice.
const MAX_WORD: usize = 256;

/// How many slots there are at first and at most.
const MIN_SLOTS: usize = 1 << 9;
const SLOTS: usize = 1 << 15;
const ARENA_BYTES: usize = 1 << 20;
const ARENA_IDS: usize = 1 << 18;

#[derive(Clone, Copy, Default)]
struct LongSlot {
    /// 0 where the slot is empty; a word whose hash is 0 is never stored.
    hash: u64,
    bytes_start: u32,
    ids_start: u32,
    bytes_len: u16,
    ids_len: u16,
}

/// The cache for words that are long or have many ids.
#[derive(Default)]
pub struct LongCache {
    /// Empty until the first word.
    slots: Vec<LongSlot>,
    /// How many words were put in.
    len: usize,
    bytes: Vec<u8>,
    ids: Vec<TokenId>,
}

impl LongCache {
    /// The ids of a word, if they are known.
    #[inline]
    pub fn get(&self, word: &[u8]) -> Option<&[TokenId]> {
        if word.len() > MAX_WORD {
            return None;
        }
        let hash = hash_bytes(word);
        let slot = self.slots.get(self.slot_of(hash))?;
        if slot.hash != hash || hash == 0 {
            return None;
        }
        let start = slot.bytes_start as usize;
        if &self.bytes[start..start + usize::from(slot.bytes_len)] != word {
            return None;
        }
        let start = slot.ids_start as usize;
        Some(&self.ids[start..start + usize::from(slot.ids_len)])
    }

    /// Remembers the ids of a word.
    pub fn insert(&mut self, word: &[u8], ids: &[TokenId]) {
        if word.len() > MAX_WORD {
            return;
        }
        let is_full =
            self.bytes.len() + word.len() > ARENA_BYTES || self.ids.len() + ids.len() > ARENA_IDS;
        if is_full || self.slots.is_empty() {
            let slots = self.slots.len().max(MIN_SLOTS);
            self.slots.clear();
            self.slots.resize(slots, LongSlot::default());
            self.len = 0;
            self.bytes.clear();
            self.ids.clear();
        } else if 4 * self.len > self.slots.len() && self.slots.len() < SLOTS {
            self.grow();
        }
        self.len += 1;
        let hash = hash_bytes(word);
        let at = self.slot_of(hash);
        self.slots[at] = LongSlot {
            hash,
            bytes_start: self.bytes.len() as u32,
            ids_start: self.ids.len() as u32,
            bytes_len: word.len() as u16,
            ids_len: ids.len() as u16,
        };
        self.bytes.extend_from_slice(word);
        self.ids.extend_from_slice(ids);
    }

    /// The number of slots is a power of two, or none.
    fn slot_of(&self, hash: u64) -> usize {
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    #[cold]
    fn grow(&mut self) {
        let larger = vec![LongSlot::default(); (4 * self.slots.len()).min(SLOTS)];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot.hash != 0 {
                let at = self.slot_of(slot.hash);
                self.slots[at] = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_it_was_told_or_nothing() {
        let mut cache = LongCache::default();
        assert!(cache.get(b"anything").is_none());
        // Enough to fill the arenas several times over; ids that tell what they belong to.
        let word = |i: u32| format!("{i:0>width$}", width = 10 + i as usize % 200).into_bytes();
        let ids = |i: u32| vec![i; 1 + i as usize % 20];
        for i in 0..50_000 {
            cache.insert(&word(i), &ids(i));
            assert_eq!(cache.get(&word(i)), Some(ids(i).as_slice()));
        }
        let known = (0..50_000).filter(|&i| match cache.get(&word(i)) {
            Some(found) => found == ids(i) || panic!("{i} has {found:?}"),
            None => false,
        });
        assert!((1000..SLOTS).contains(&known.count()));
        cache.insert(&[b'x'; MAX_WORD + 1], &[1]);
        assert!(cache.get(&[b'x'; MAX_WORD + 1]).is_none());
    }
}
