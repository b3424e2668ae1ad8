//! Merging a long pretoken: megabytes of one letter, of spaces, of ideographs without a space.
//!
//! Merges are applied by (rank, position). A heap of all pairs would give that order, and spend
//! its time sinking megabytes of entries through twenty levels. But while the pairs of one rank
//! are merged from left to right, the pairs that this makes appear from left to right too. So the
//! occurrences of a pair are kept in *lists* of rising positions, to which a new one is appended
//! where it can be, and only lists are in the heap, by their first position. A list is walked
//! until another one comes before its next position. Where merges follow each other as training
//! made them there is one list a rank, and the work is linear; whatever they are, it is `n log n`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::Result;
use crate::progress::check_thread;
use crate::store::pair_table::{PairMerge, PairTable};
use crate::store::token_table::TokenId;

/// How many merges are made between two looks at whether to stop.
const CHECK_EVERY: u32 = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// Neither a symbol nor a list.
const NONE: u32 = u32::MAX;

/// One more than the length of the longest word that this takes, in symbols.
pub const LIMIT: usize = NONE as usize;

/// A symbol that was merged into its left neighbour; no token has this id.
const GONE: TokenId = TokenId::MAX;

/// The working memory of merging a long word, kept to be used again.
#[derive(Debug, Default)]
pub struct MergeScratch {
    /// The neighbours of each symbol that is left, as positions.
    left: Vec<u32>,
    right: Vec<u32>,
    lists: Vec<Occurrences>,
    /// Lists that are used up.
    free: Vec<u32>,
    /// By rank: the list that new pairs are appended to.
    open: Vec<u32>,
    heap: BinaryHeap<Reverse<(u32, u32, u32)>>,
}

/// Where a pair was seen, by rising position. It may be gone from there by now.
#[derive(Debug, Default)]
struct Occurrences {
    pair: (TokenId, TokenId),
    result: TokenId,
    positions: Vec<u32>,
    /// How many of them are done.
    done: usize,
}

impl MergeScratch {
    /// In symbols: what a longer word has taken is given back after it.
    const KEEP: usize = 1 << 16;

    fn begin(&mut self, len: u32, num_merges: usize) {
        self.left.clear();
        self.left.extend((0..len).map(|at| at.wrapping_sub(1)));
        self.right.clear();
        self.right.extend((1..len).chain([NONE]));
        self.open.resize(num_merges, NONE);
    }

    /// Adds a pair of neighbours, the left one at `at`, if they merge.
    #[inline]
    fn add_pair(&mut self, at: u32, pair: (TokenId, TokenId), merge: PairMerge) {
        if merge == PairMerge::NONE {
            return;
        }
        let open = &mut self.open[merge.rank() as usize];
        if let Some(list) = self.lists.get_mut(*open as usize)
            && list.positions.last().is_some_and(|&last| last <= at)
        {
            list.positions.push(at);
            return;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.lists.push(Occurrences::default());
            self.lists.len() as u32 - 1
        });
        *open = number;
        let list = &mut self.lists[number as usize];
        (list.pair, list.result, list.done) = (pair, merge.result(), 0);
        list.positions.clear();
        list.positions.push(at);
        self.heap.push(Reverse((merge.rank(), at, number)));
    }

    /// The next position of a list that comes before all others; `None` if the list is used up or
    /// another one comes first.
    #[inline]
    fn advance(&mut self, rank: u32, number: u32) -> Option<u32> {
        let list = &mut self.lists[number as usize];
        let Some(&at) = list.positions.get(list.done) else {
            self.free.push(number);
            if self.open[rank as usize] == number {
                self.open[rank as usize] = NONE;
            }
            return None;
        };
        let entry = Reverse((rank, at, number));
        if self.heap.peek().is_some_and(|first| *first > entry) {
            self.heap.push(entry);
            return None;
        }
        list.done += 1;
        Some(at)
    }

    fn trim(&mut self) {
        if self.left.capacity() > Self::KEEP {
            *self = Self::default();
        }
    }
}

/// Merges `symbols`, fewer than [`LIMIT`], in place and returns how many are left.
///
/// # Errors
/// The job that this is done for is to stop.
pub fn merge_long(
    pairs: &PairTable,
    symbols: &mut [TokenId],
    scratch: &mut MergeScratch,
) -> Result<usize> {
    merge_all(pairs, symbols, scratch).inspect_err(|_| *scratch = MergeScratch::default())?;
    scratch.trim();
    Ok(compact(symbols))
}

fn merge_all(pairs: &PairTable, symbols: &mut [TokenId], scratch: &mut MergeScratch) -> Result<()> {
    scratch.begin(symbols.len() as u32, pairs.len());
    for (at, pair) in (0..).zip(symbols.windows(2)) {
        scratch.add_pair(at, (pair[0], pair[1]), pairs.get(pair[0], pair[1]));
    }
    let mut steps = 0u32;
    while let Some(Reverse((rank, _, number))) = scratch.heap.pop() {
        while let Some(at) = scratch.advance(rank, number) {
            merge_at(pairs, symbols, scratch, at, number);
            steps = steps.wrapping_add(1);
            if steps.is_multiple_of(CHECK_EVERY) {
                check_thread()?;
            }
        }
    }
    Ok(())
}

/// Merges the pair of a list at one of its positions, if it is still there.
#[inline]
fn merge_at(
    pairs: &PairTable,
    symbols: &mut [TokenId],
    scratch: &mut MergeScratch,
    at: u32,
    number: u32,
) {
    let &Occurrences { pair, result, .. } = &scratch.lists[number as usize];
    let next = scratch.right[at as usize];
    if symbols[at as usize] != pair.0 || next == NONE || symbols[next as usize] != pair.1 {
        return;
    }
    symbols[at as usize] = result;
    symbols[next as usize] = GONE;
    let (before, after) = (scratch.left[at as usize], scratch.right[next as usize]);
    scratch.right[at as usize] = after;
    if before != NONE {
        let left = symbols[before as usize];
        scratch.add_pair(before, (left, result), pairs.get(left, result));
    }
    if after != NONE {
        scratch.left[after as usize] = at;
        let right = symbols[after as usize];
        scratch.add_pair(at, (result, right), pairs.get(result, right));
    }
}

fn compact(symbols: &mut [TokenId]) -> usize {
    let mut kept = 0;
    for at in 0..symbols.len() {
        if symbols[at] != GONE {
            symbols[kept] = symbols[at];
            kept += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;
    use crate::vocab::Vocab;

    #[test]
    fn a_long_word_stops_when_it_is_asked_to_and_leaves_nothing() {
        let vocab = Vocab::from_merges(&[(97, 97), (256, 256)], &[""; 0]).expect("valid");
        let (mut scratch, progress) = (MergeScratch::default(), Progress::new());
        let word = vec![97; 1 << 12];
        progress.cancel();
        let stopped =
            progress.watched(|| merge_long(vocab.pairs(), &mut word.clone(), &mut scratch));
        assert!(stopped.is_err());
        let mut again = word;
        let len = merge_long(vocab.pairs(), &mut again, &mut scratch).expect("nobody stops it");
        assert_eq!(again[..len], [257; 1 << 10]);
    }
}
