//! Pairs of tokens that are, or were, frequent enough to be merged soon: where they are, and which
//! is next.

use std::cmp::Ordering;

use super::partition::{List, NO_LIST};
use crate::store::byte_strings::ByteStrings;
use crate::store::pages::prefetch;
use crate::vocab::TokenId;

/// Key of a pair -> its index in [`Pairs`], by open addressing.
#[derive(Default)]
pub struct PairIndex {
    /// Half full at most; a power of two, or empty.
    slots: Vec<(u64, u32)>,
    len: usize,
}

const EMPTY: u32 = u32::MAX;

/// Both ids in one number.
pub fn pair_key(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// A hash of a pair's key, whose upper bits are well mixed. Half the multiplication of
/// [`crate::store::hash`], which takes sixteen bytes at a time: a key is eight.
#[inline]
pub fn hash(key: u64) -> u64 {
    // 2^64 / golden ratio. The fold brings the left id's bits down, so that both ids spread.
    (key ^ (key >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl PairIndex {
    #[inline]
    pub fn get(&self, key: u64) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let (found, index) = self.slots[self.slot_of(key)];
        (index != EMPTY && found == key).then_some(index)
    }

    /// The index of `key`; `next` if it is new.
    #[inline]
    pub fn get_or_insert(&mut self, key: u64, next: u32) -> u32 {
        if 2 * self.len >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot_of(key);
        let (_, index) = &mut self.slots[slot];
        if *index == EMPTY {
            self.slots[slot] = (key, next);
            self.len += 1;
            return next;
        }
        *index
    }

    /// Asks for the slot of a key that will be looked up soon.
    #[inline]
    pub fn prefetch(&self, key: u64) {
        if let Some(slot) = self.slots.get(self.home_of(key)) {
            prefetch(slot);
        }
    }

    pub fn clear(&mut self) {
        self.slots.clear();
        self.len = 0;
    }

    /// Where `key` is, or the empty slot where it would be.
    #[inline]
    fn slot_of(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.home_of(key);
        while self.slots[slot].1 != EMPTY && self.slots[slot].0 != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    #[inline]
    fn home_of(&self, key: u64) -> usize {
        (hash(key) >> 32) as usize & self.slots.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let capacity = (2 * self.slots.len()).max(1 << 10);
        let old = std::mem::replace(&mut self.slots, vec![(0, EMPTY); capacity]);
        for (key, index) in old.into_iter().filter(|&(_, index)| index != EMPTY) {
            let slot = self.slot_of(key);
            self.slots[slot] = (key, index);
        }
    }
}

/// A pair of tokens and how often it occurs.
#[derive(Clone, Copy)]
pub struct Pair {
    pub left: TokenId,
    pub right: TokenId,
    pub count: u64,
}

/// All pairs whose count was at least the threshold when it was last looked at.
#[derive(Default)]
pub struct Pairs {
    index: PairIndex,
    pairs: Vec<Pair>,
    /// For each pair one list per partition.
    lists: Vec<List>,
}

impl Pairs {
    /// Adds a pair that is not there yet, with one list per partition.
    pub fn push(&mut self, pair: Pair, lists: impl Iterator<Item = List>) -> u32 {
        let id = self.pairs.len() as u32;
        self.index.get_or_insert(pair_key(pair.left, pair.right), id);
        self.pairs.push(pair);
        self.lists.extend(lists);
        id
    }

    pub fn get(&self, id: u32) -> Pair {
        self.pairs[id as usize]
    }

    /// Where the pair was seen, one list per partition.
    pub fn lists(&self, id: u32) -> &[List] {
        let partitions = self.lists.len() / self.pairs.len();
        &self.lists[id as usize * partitions..][..partitions]
    }

    /// Whether its positions are listed.
    pub fn is_listed(&self, id: u32) -> bool {
        self.lists(id).iter().all(|list| list.start != NO_LIST)
    }

    /// At how many positions it occurs, at most.
    pub fn places(&self, id: u32) -> u64 {
        self.lists(id).iter().map(|list| u64::from(list.len)).sum()
    }

    /// Its list in one partition.
    pub fn list_mut(&mut self, id: u32, partition: usize) -> &mut List {
        let partitions = self.lists.len() / self.pairs.len();
        &mut self.lists[id as usize * partitions + partition]
    }

    /// Forgets the lists of all pairs.
    pub fn unlist(&mut self) {
        self.lists.iter_mut().for_each(|list| list.start = NO_LIST);
    }

    pub fn id_of(&self, key: u64) -> Option<u32> {
        self.index.get(key)
    }

    /// Lowers a pair's count, if it is tracked.
    pub fn lower(&mut self, left: TokenId, right: TokenId, by: u64) {
        if let Some(id) = self.index.get(pair_key(left, right)) {
            let count = &mut self.pairs[id as usize].count;
            debug_assert!(*count == 0 || *count >= by, "counts are exact");
            *count = count.saturating_sub(by);
        }
    }

    /// The pair has been merged wherever it was.
    pub fn retire(&mut self, id: u32) {
        self.pairs[id as usize].count = 0;
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn clear(&mut self) {
        self.index.clear();
        self.pairs.clear();
        self.lists.clear();
    }
}

/// Tokens' bytes, and their first eight as a number that sorts alike: it decides most ties.
#[derive(Default)]
pub struct TokenBytes {
    bytes: ByteStrings,
    prefixes: Vec<u64>,
}

impl TokenBytes {
    /// Adds the next token.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut prefix = [0; 8];
        let len = bytes.len().min(8);
        prefix[..len].copy_from_slice(&bytes[..len]);
        self.bytes.push(bytes);
        self.prefixes.push(u64::from_be_bytes(prefix));
    }

    /// Adds the next token, which is two others joined.
    pub fn push_joined(&mut self, left: TokenId, right: TokenId) {
        let (left, right) = (self.bytes.get(left as usize), self.bytes.get(right as usize));
        let joined = [left, right].concat();
        self.push(&joined);
    }

    fn compare(&self, one: TokenId, other: TokenId) -> Ordering {
        self.bytes.get(one as usize).cmp(self.bytes.get(other as usize))
    }
}

/// Which pair is next: the most frequent, of several the one whose (left bytes, right bytes) is
/// greatest. A binary heap of counts that may be too high by now, as counts only fall.
///
/// That this is one pair, and not two that look alike, relies on **no two tokens having the same
/// bytes**; so does the vocabulary, which finds a token by its bytes. Bytes are told apart by their
/// value, and merges give at least two bytes, so what is to be shown is that no two merges give the
/// same bytes *w*:
///
/// - Merging only ever removes boundaries between tokens. So where at some time a *w* in a word has
///   a boundary at either end, it has had both since the beginning, and no merge so far has reached
///   across them.
/// - Then merging inside that *w* has not depended on what is around it: leftmost-first merging
///   arrives at its start between two tokens and leaves its end between two tokens, as it would
///   were *w* a word of its own. Hence at any time every *w* with boundaries at both ends is
///   divided in the same way, that of the word *w*.
/// - When the first merge that gives *w* is made, it makes one of them a single token; so that way
///   is from then on a single token, for all of them and for good.
/// - A second merge that gives *w* would need a *w* with boundaries at both ends that is two
///   tokens.
#[derive(Default)]
pub struct Queue {
    heap: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    count: u64,
    left_prefix: u64,
    id: u32,
}

impl Queue {
    /// Adds a pair with its present count.
    pub fn push(&mut self, id: u32, pairs: &Pairs, tokens: &TokenBytes) {
        let Pair { left, count, .. } = pairs.get(id);
        let left_prefix = tokens.prefixes[left as usize];
        self.heap.push(Entry { count, left_prefix, id });
        self.sift_up(self.heap.len() - 1, pairs, tokens);
    }

    /// The next pair of at least `threshold`. Pairs that have fallen below are forgotten.
    pub fn pop(&mut self, threshold: u64, pairs: &Pairs, tokens: &TokenBytes) -> Option<u32> {
        while let Some(top) = self.heap.first_mut() {
            let count = pairs.get(top.id).count;
            let id = top.id;
            if count == top.count || count < threshold {
                self.heap.swap_remove(0);
                self.sift_down(pairs, tokens);
                if count >= threshold {
                    return Some(id);
                }
            } else {
                top.count = count;
                self.sift_down(pairs, tokens);
            }
        }
        None
    }

    fn sift_up(&mut self, mut at: usize, pairs: &Pairs, tokens: &TokenBytes) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.comes_before(at, parent, pairs, tokens) {
                return;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    fn sift_down(&mut self, pairs: &Pairs, tokens: &TokenBytes) {
        let mut at = 0;
        loop {
            let mut best = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.comes_before(child, best, pairs, tokens) {
                    best = child;
                }
            }
            if best == at {
                return;
            }
            self.heap.swap(at, best);
            at = best;
        }
    }

    #[inline]
    fn comes_before(&self, one: usize, other: usize, pairs: &Pairs, tokens: &TokenBytes) -> bool {
        let (one, other) = (self.heap[one], self.heap[other]);
        let by_count = one.count.cmp(&other.count).then(one.left_prefix.cmp(&other.left_prefix));
        let by_bytes = || {
            let (one, other) = (pairs.get(one.id), pairs.get(other.id));
            let by_left = tokens.compare(one.left, other.left);
            by_left.then_with(|| tokens.compare(one.right, other.right))
        };
        by_count.then_with(by_bytes) == Ordering::Greater
    }
}
