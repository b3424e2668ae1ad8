//! Byte strings and how often each was seen: a hash table made for words.
//!
//! Open addressing, linear probing. A string of up to 15 bytes stands in its slot, padded with
//! zeros, its length in the last byte: two words that are compared and hashed without a loop. A
//! longer one is in `long`, its hash in the slot. Nothing is allocated for a string.

use super::sort::sort;
use crate::error::Result;
use crate::progress::Progress;
use crate::store::byte_strings::ByteStrings;
use crate::store::pages::filled;

const MIN_CAPACITY: usize = 1 << 12;

/// How many strings are noted before they are looked up, together: the processor then waits for
/// several places in memory at once.
const BATCH: usize = 64;

const MAX_SHORT: usize = 15;

/// The length byte of strings longer than [`MAX_SHORT`].
const LONG: u64 = 0xff << 56;

#[derive(Clone, Copy, Default)]
struct Slot {
    key: Key,
    count: u64,
}

/// Short strings: their bytes, low first, then their length in the highest byte. Long ones: their
/// hash, and [`LONG`] with their index. All zero: an empty slot.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Key {
    low: u64,
    high: u64,
}

/// How often each string was seen.
pub struct CountTable {
    slots: Vec<Slot>,
    /// The slot is made of a hash's upper bits, so that hashes ascend through the table (but for
    /// probing). The uppermost, as many as `skip`, are left out: all strings have the same.
    skip: u32,
    shift: u32,
    len: usize,
    long: ByteStrings,
    /// Short strings that were counted but not looked up yet, each with space for its slot.
    noted: Vec<(Key, usize)>,
}

impl Default for CountTable {
    fn default() -> Self {
        Self::with_capacity(MIN_CAPACITY, 0)
    }
}

impl CountTable {
    fn with_capacity(capacity: usize, skip: u32) -> Self {
        let slots = filled(Slot::default(), capacity);
        Self {
            slots,
            skip,
            shift: 64 - capacity.ilog2(),
            len: 0,
            long: ByteStrings::new(),
            noted: Vec::with_capacity(BATCH),
        }
    }

    /// The sum of part `part` of `parts`, a power of two up to [`MAX_PARTS`](Self::MAX_PARTS), of
    /// several tables. All strings of a part are in that part of any table, so parts may be summed
    /// separately.
    pub fn sum_part(tables: &[CountTable], part: usize, parts: usize) -> Self {
        // Sized before use: strings come in the order of their hashes, so in a table that grows
        // they would all crowd in the same few slots.
        let expected = tables.iter().map(|table| table.len / parts).sum::<usize>();
        let capacity = (2 * expected + expected / 2).next_power_of_two().max(MIN_CAPACITY);
        let mut sum = Self::with_capacity(capacity, parts.ilog2());
        tables.iter().for_each(|table| sum.add_part(table, part, parts));
        sum
    }

    #[inline]
    fn slot_of(&self, hash: u64) -> usize {
        (hash << self.skip >> self.shift) as usize
    }

    /// How many distinct strings there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Counts `text[start..start + len]`; to be given the surrounding text saves a copy. What is
    /// counted is seen after the next [`flush`](Self::flush).
    #[inline]
    pub fn count(&mut self, text: &[u8], start: usize, len: usize) {
        if len > MAX_SHORT {
            return self.add_long(&text[start..start + len], 1);
        }
        self.noted.push((Key::short(text, start, len), 0));
        if self.noted.len() == BATCH {
            self.flush();
        }
    }

    /// Looks up what was counted since the last flush.
    pub fn flush(&mut self) {
        let mut noted = std::mem::take(&mut self.noted);
        while 2 * (self.len + noted.len()) > self.slots.len() {
            self.grow();
        }
        // Nothing depends on what is read here, so the reads overlap; the slots are near
        // afterwards.
        let mut read = 0;
        for (key, slot) in &mut noted {
            *slot = self.slot_of(key.hash());
            read ^= self.slots[*slot].count;
        }
        std::hint::black_box(read);
        for (key, slot) in noted.drain(..) {
            self.add_short_at(slot, key, 1);
        }
        self.noted = noted;
    }

    fn add_short(&mut self, key: Key, count: u64) {
        self.add_short_at(self.slot_of(key.hash()), key, count);
    }

    #[inline]
    fn add_short_at(&mut self, mut at: usize, key: Key, count: u64) {
        loop {
            let slot = &mut self.slots[at];
            if slot.key == key {
                slot.count += count;
                return;
            }
            if slot.is_empty() {
                *slot = Slot { key, count };
                return self.grow_if_full();
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline(never)]
    fn add_long(&mut self, string: &[u8], count: u64) {
        let hash = hash_long(string);
        let mut at = self.slot_of(hash);
        loop {
            let slot = &mut self.slots[at];
            if slot.is_empty() {
                let high = LONG | self.long.len() as u64;
                *slot = Slot { key: Key { low: hash, high }, count };
                self.long.push(string);
                return self.grow_if_full();
            }
            if slot.key.low == hash
                && slot.key.long_index().is_some_and(|index| self.long.get(index) == string)
            {
                slot.count += count;
                return;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn grow_if_full(&mut self) {
        self.len += 1;
        if 2 * self.len > self.slots.len() {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Self::with_capacity(2 * self.slots.len(), self.skip);
        for slot in self.slots.iter().filter(|slot| !slot.is_empty()) {
            let mut at = larger.slot_of(slot.key.hash());
            while !larger.slots[at].is_empty() {
                at = (at + 1) & (larger.slots.len() - 1);
            }
            larger.slots[at] = *slot;
        }
        (self.slots, self.shift) = (larger.slots, larger.shift);
    }

    fn add_part(&mut self, other: &CountTable, part: usize, parts: usize) {
        let mask = other.slots.len() - 1;
        let width = other.slots.len() / parts;
        let (start, end) = (part * width, (part + 1) * width);
        // Behind the part's own slots stand those that found theirs taken.
        let displaced =
            (end..start + other.slots.len()).take_while(|&at| !other.slots[at & mask].is_empty());
        for at in (start..end).chain(displaced) {
            let Slot { key, count } = other.slots[at & mask];
            let home = other.slot_of(key.hash());
            if count == 0 || home / width != part {
                continue;
            }
            match key.long_index() {
                None => self.add_short(key, count),
                Some(index) => self.add_long(other.long.get(index), count),
            }
        }
    }

    /// Calls `visit` with each string and its count, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        debug_assert!(self.noted.is_empty(), "flush first");
        for Slot { key, count } in self.slots.iter().filter(|slot| !slot.is_empty()) {
            match key.long_index() {
                None => visit(&key.bytes()[..key.short_len()], *count),
                Some(index) => visit(self.long.get(index), *count),
            }
        }
    }

    /// [`for_each`](Self::for_each), by ascending string, until `visit` fails or `progress` says
    /// stop.
    pub fn for_each_sorted(
        &self,
        progress: &Progress,
        mut visit: impl FnMut(&[u8], u64) -> Result<()>,
    ) -> Result<()> {
        debug_assert!(self.noted.is_empty(), "flush first");
        let mut order: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|&at| !self.slots[at as usize].is_empty())
            .collect();
        let compare = |&one: &u32, &other: &u32| {
            let (one, other) = (self.slots[one as usize].key, self.slots[other as usize].key);
            match (one.long_index(), other.long_index()) {
                // As numbers, first byte highest; the length, lowest, decides between zeros.
                (None, None) => one.bytes().cmp(&other.bytes()),
                _ => {
                    let (mut space, mut other_space) = ([0; 16], [0; 16]);
                    self.string(one, &mut space).cmp(self.string(other, &mut other_space))
                }
            }
        };
        sort(&mut order, &compare, progress)?;
        order.into_iter().try_for_each(|at| {
            let Slot { key, count } = self.slots[at as usize];
            visit(self.string(key, &mut [0; 16]), count)
        })
    }

    /// A key's string, in `space` if it is short.
    fn string<'s>(&'s self, key: Key, space: &'s mut [u8; 16]) -> &'s [u8] {
        match key.long_index() {
            Some(index) => self.long.get(index),
            None => {
                *space = key.bytes();
                &space[..key.short_len()]
            }
        }
    }

    /// How much memory the table takes.
    pub fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
            + self.long.total_bytes()
            + self.long.len() * size_of::<usize>()
    }

    /// The most parts that [`sum_part`](Self::sum_part) can tell apart in any table.
    pub const MAX_PARTS: usize = MIN_CAPACITY;
}

impl Slot {
    #[inline]
    fn is_empty(&self) -> bool {
        self.key.high == 0
    }
}

impl Key {
    #[inline]
    fn short(text: &[u8], start: usize, len: usize) -> Self {
        let mut bytes = [0; 16];
        match text.get(start..start + 16) {
            Some(sixteen) => bytes.copy_from_slice(sixteen),
            None => bytes[..len].copy_from_slice(&text[start..start + len]),
        }
        let [low, high] = halves(bytes);
        let (low_mask, high_mask) = MASKS[len];
        Self { low: low & low_mask, high: high & high_mask | (len as u64) << 56 }
    }

    #[inline]
    fn hash(self) -> u64 {
        if self.high >= LONG { self.low } else { fold(self.low ^ SEED, self.high ^ MULTIPLIER) }
    }

    fn long_index(self) -> Option<usize> {
        (self.high >= LONG).then_some((self.high & !LONG) as usize)
    }

    fn short_len(self) -> usize {
        (self.high >> 56) as usize
    }

    fn bytes(self) -> [u8; 16] {
        (u128::from(self.low) | u128::from(self.high) << 64).to_le_bytes()
    }
}

/// What is left of eight and eight bytes, as numbers, of the first so many bytes.
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

const SEED: u64 = 0x243F_6A88_85A3_08D3;
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// The two halves of a 128-bit product, folded: every bit of both numbers reaches every bit.
#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(bytes);
    [number as u64, (number >> 64) as u64]
}

fn hash_long(string: &[u8]) -> u64 {
    let (blocks, rest) = string.as_chunks::<16>();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    blocks.iter().chain([&last]).fold(string.len() as u64, |hash, &block| {
        let [low, high] = halves(block);
        fold(low ^ hash ^ SEED, high ^ hash.rotate_left(32) ^ MULTIPLIER)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn contents(table: &CountTable) -> HashMap<Vec<u8>, u64> {
        let mut contents = HashMap::new();
        table.for_each(|string, count| {
            assert!(contents.insert(string.to_vec(), count).is_none(), "{string:?} twice");
        });
        assert_eq!(contents.len(), table.len());
        contents
    }

    proptest! {
        #[test]
        fn counts_like_a_map(
            text in prop::collection::vec(0u8..3, 40..400),
            words in prop::collection::vec((0usize..40, 1usize..40), 0..600),
            parts in prop::sample::select(vec![1usize, 2, 8, CountTable::MAX_PARTS]),
        ) {
            let mut tables = [CountTable::default(), CountTable::default()];
            let mut expected: HashMap<Vec<u8>, u64> = HashMap::new();
            for (index, &(start, len)) in words.iter().enumerate() {
                let start = start * text.len() / 40;
                let len = len.min(text.len() - start);
                tables[index % 2].count(&text, start, len);
                *expected.entry(text[start..start + len].to_vec()).or_default() += 1;
            }
            tables.iter_mut().for_each(CountTable::flush);
            let mut found = HashMap::new();
            for part in 0..parts {
                found.extend(contents(&CountTable::sum_part(&tables, part, parts)));
            }
            prop_assert_eq!(&found, &expected);

            let mut sorted = Vec::new();
            let sum = CountTable::sum_part(&tables, 0, 1);
            let visited = sum.for_each_sorted(&Progress::new(), |string, count| {
                sorted.push((string.to_vec(), count));
                Ok(())
            });
            prop_assert!(visited.is_ok());
            let mut expected: Vec<_> = expected.into_iter().collect();
            expected.sort();
            prop_assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn grows() {
        let mut table = CountTable::default();
        let strings: Vec<Vec<u8>> = (0..20_000)
            .map(|number: u32| format!("{number}").repeat(1 + number as usize % 5).into())
            .collect();
        for string in strings.iter().chain(&strings) {
            table.count(string, 0, string.len());
        }
        table.flush();
        let distinct: std::collections::HashSet<_> = strings.iter().collect();
        assert_eq!(contents(&table).len(), distinct.len());
    }

    #[test]
    fn zeros_at_the_end_are_bytes_too() {
        let mut table = CountTable::default();
        for len in 1..20 {
            table.count(&[0; 20], 0, len);
        }
        table.flush();
        assert_eq!(table.len(), 19);
    }
}
