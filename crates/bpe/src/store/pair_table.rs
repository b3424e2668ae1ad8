//! (left id, right id) -> merge: what is asked most often while a word is merged, mostly about
//! pairs that do not merge. Open addressing, at most half full, 16 bytes a slot.

use super::hash::fold;
use super::pages::prefetch;
use super::token_table::TokenId;

/// A merge as the loop compares it: the rank above, the resulting id below, so that the least
/// [`PairMerge`] is the merge to apply first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PairMerge(u64);

impl PairMerge {
    /// The pair does not merge: greater than every merge.
    pub const NONE: Self = Self(u64::MAX);

    /// The merge of this rank.
    pub fn new(rank: u32, result: TokenId) -> Self {
        Self(u64::from(rank) << 32 | u64::from(result))
    }

    #[inline(always)]
    pub fn rank(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    pub fn result(self) -> TokenId {
        self.0 as TokenId
    }
}

#[derive(Clone, Copy, Debug)]
struct PairSlot {
    pair: u64,
    merge: PairMerge,
}

/// Not a pair of ids: they end at [`super::token_table::MAX_TOKEN_ID`].
const EMPTY: PairSlot = PairSlot { pair: u64::MAX, merge: PairMerge::NONE };

/// Which pairs of adjacent tokens merge, at which rank, and into what.
#[derive(Clone, Debug)]
pub struct PairTable {
    slots: Vec<PairSlot>,
    len: usize,
    /// How far a hash is shifted right to become a slot's number.
    shift: u32,
}

impl PairTable {
    /// An empty table with room for `pairs` pairs.
    pub fn with_capacity(pairs: usize) -> Self {
        let slots = (pairs * 2).next_power_of_two().max(64);
        Self { slots: vec![EMPTY; slots], len: 0, shift: 64 - slots.trailing_zeros() }
    }

    /// The merge of two adjacent tokens, or [`PairMerge::NONE`].
    #[inline(always)]
    pub fn get(&self, left: TokenId, right: TokenId) -> PairMerge {
        self.slots[self.slot_of(pair_key(left, right))].merge
    }

    /// Starts loading what [`get`](Self::get) will read first.
    #[inline(always)]
    pub fn prefetch(&self, left: TokenId, right: TokenId) {
        prefetch(&self.slots[self.first_slot(pair_key(left, right))]);
    }

    /// Adds a merge and returns whether its pair is new; a pair that has one keeps it.
    pub fn insert(&mut self, left: TokenId, right: TokenId, merge: PairMerge) -> bool {
        if (self.len + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let pair = pair_key(left, right);
        let slot = self.slot_of(pair);
        if self.slots[slot].pair == pair {
            return false;
        }
        self.slots[slot] = PairSlot { pair, merge };
        self.len += 1;
        true
    }

    /// How many pairs merge.
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn first_slot(&self, pair: u64) -> usize {
        (fold(pair, 0) >> self.shift) as usize & (self.slots.len() - 1)
    }

    #[inline(always)]
    fn slot_of(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.first_slot(pair);
        loop {
            let found = self.slots[slot].pair;
            if found == pair || found == EMPTY.pair {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let mut larger = Self::with_capacity(self.slots.len());
        for slot in self.slots.iter().filter(|slot| slot.pair != EMPTY.pair) {
            let at = larger.slot_of(slot.pair);
            larger.slots[at] = *slot;
        }
        larger.len = self.len;
        *self = larger;
    }
}

#[inline(always)]
fn pair_key(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn is_a_map(pairs in prop::collection::vec((0u32..40, 0u32..40), 0..400)) {
            let mut table = PairTable::with_capacity(0);
            let mut oracle = HashMap::new();
            for (rank, &(left, right)) in pairs.iter().enumerate() {
                let merge = PairMerge::new(rank as u32, left + right);
                let is_new = table.insert(left, right, merge);
                prop_assert_eq!(is_new, !oracle.contains_key(&(left, right)));
                oracle.entry((left, right)).or_insert(merge);
            }
            for left in 0..40 {
                for right in 0..40 {
                    let expected = oracle.get(&(left, right)).copied();
                    prop_assert_eq!(table.get(left, right), expected.unwrap_or(PairMerge::NONE));
                }
            }
        }
    }
}
