//! Byte strings and how often each was seen: a hash table made for words.
//!
//! Open addressing, linear probing. A string of up to 15 bytes is in its slot, as a
//! [`ShortKey`]. A longer one is in `long`; the key in its slot holds its hash and where it is.
//! Nothing is allocated for a string.

use super::sort::sort;
use crate::error::Result;
use crate::progress::Progress;
use crate::store::byte_strings::ByteStrings;
use crate::store::hash::hash_bytes;
use crate::store::pages::{filled, prefetch};
use crate::store::short_key::ShortKey;

const MIN_CAPACITY: usize = 1 << 12;

/// How many strings are collected before they are looked up: what is read then was asked for when
/// they were collected.
const BATCH: usize = 128;

#[derive(Clone, Copy, Default)]
struct CountSlot {
    key: ShortKey,
    count: u64,
}

/// How often each string was seen.
pub struct CountTable {
    slots: Vec<CountSlot>,
    /// The slot is made of a hash's upper bits, so that hashes ascend through the table (but for
    /// probing). The uppermost, as many as `skip`, are left out: all strings have the same.
    skip: u32,
    shift: u32,
    len: usize,
    long: ByteStrings,
    /// Short strings that were counted but not looked up yet, each with its hash.
    pending: Box<[(ShortKey, u64); BATCH]>,
    num_pending: usize,
}

impl Default for CountTable {
    fn default() -> Self {
        Self::with_capacity(MIN_CAPACITY, 0)
    }
}

impl CountTable {
    fn with_capacity(capacity: usize, skip: u32) -> Self {
        let slots = filled(CountSlot::default(), capacity);
        Self {
            slots,
            skip,
            shift: 64 - capacity.ilog2(),
            len: 0,
            long: ByteStrings::new(),
            pending: Box::new([(ShortKey::NONE, 0); BATCH]),
            num_pending: 0,
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
    #[inline(always)]
    pub fn count(&mut self, text: &[u8], start: usize, len: usize) {
        if len > ShortKey::MAX_LEN {
            return self.add_long(&text[start..start + len], 1);
        }
        let key = ShortKey::short(text, start, len);
        let hash = key.hash();
        prefetch(&self.slots[self.slot_of(hash)]);
        let place = self.num_pending;
        self.pending[place % BATCH] = (key, hash);
        self.num_pending = place + 1;
        if self.num_pending == BATCH {
            self.flush();
        }
    }

    /// Looks up what was counted since the last flush.
    #[inline(never)]
    pub fn flush(&mut self) {
        for i in 0..std::mem::take(&mut self.num_pending) {
            let (key, hash) = self.pending[i];
            self.add_short_at(self.slot_of(hash), key, 1);
        }
    }

    fn add_short(&mut self, key: ShortKey, count: u64) {
        self.add_short_at(self.slot_of(key.hash()), key, count);
    }

    #[inline]
    fn add_short_at(&mut self, mut at: usize, key: ShortKey, count: u64) {
        loop {
            let slot = &mut self.slots[at];
            if slot.key == key {
                slot.count += count;
                return;
            }
            if slot.is_empty() {
                *slot = CountSlot { key, count };
                return self.grow_if_full();
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline(never)]
    fn add_long(&mut self, string: &[u8], count: u64) {
        let hash = hash_bytes(string);
        let mut at = self.slot_of(hash);
        loop {
            let slot = &mut self.slots[at];
            if slot.is_empty() {
                let key = ShortKey::long(hash, self.long.len() as u64);
                *slot = CountSlot { key, count };
                self.long.push(string);
                return self.grow_if_full();
            }
            if let Some((known, index)) = slot.key.long_parts()
                && known == hash
                && self.long.get(index as usize) == string
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
        if self.len > most_strings(self.slots.len()) {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Self::with_capacity(2 * self.slots.len(), self.skip);
        for slot in self.slots.iter().filter(|slot| !slot.is_empty()) {
            let mut at = larger.slot_of(hash_of(slot.key));
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
            let CountSlot { key, count } = other.slots[at & mask];
            let home = other.slot_of(hash_of(key));
            if count == 0 || home / width != part {
                continue;
            }
            match long_index(key) {
                None => self.add_short(key, count),
                Some(index) => self.add_long(other.long.get(index), count),
            }
        }
    }

    /// Calls `visit` with each string and its count, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        debug_assert!(self.num_pending == 0, "flush first");
        for CountSlot { key, count } in self.slots.iter().filter(|slot| !slot.is_empty()) {
            match long_index(*key) {
                None => visit(&key.bytes()[..key.len()], *count),
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
        debug_assert!(self.num_pending == 0, "flush first");
        let mut order: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|&at| !self.slots[at as usize].is_empty())
            .collect();
        let compare = |&one: &u32, &other: &u32| {
            let (one, other) = (self.slots[one as usize].key, self.slots[other as usize].key);
            match (long_index(one), long_index(other)) {
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
            let CountSlot { key, count } = self.slots[at as usize];
            visit(self.string(key, &mut [0; 16]), count)
        })
    }

    /// A key's string, in `space` if it is short.
    fn string<'s>(&'s self, key: ShortKey, space: &'s mut [u8; 16]) -> &'s [u8] {
        match long_index(key) {
            Some(index) => self.long.get(index),
            None => {
                *space = key.bytes();
                &space[..key.len()]
            }
        }
    }

    /// How much memory the table takes.
    pub fn bytes(&self) -> usize {
        self.slots.len() * size_of::<CountSlot>()
            + self.long.total_bytes()
            + self.long.len() * size_of::<usize>()
    }

    /// The most parts that [`sum_part`](Self::sum_part) can tell apart in any table.
    pub const MAX_PARTS: usize = MIN_CAPACITY;
}

impl CountSlot {
    #[inline]
    fn is_empty(&self) -> bool {
        self.key.is_none()
    }
}

/// How many strings so many slots hold. Half full, they are found at once; a large table is fuller, as
/// its memory then counts for more, and the frequent strings came first and are at their places.
fn most_strings(slots: usize) -> usize {
    if slots < 1 << 21 { slots / 2 } else { slots / 16 * 13 }
}

/// What places a key: a long string's key holds its hash.
#[inline]
fn hash_of(key: ShortKey) -> u64 {
    match key.long_parts() {
        Some((hash, _)) => hash,
        None => key.hash(),
    }
}

/// Where in `long` the string of a key is, if it is not in the key itself.
fn long_index(key: ShortKey) -> Option<usize> {
    key.long_parts().map(|(_, index)| index as usize)
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
