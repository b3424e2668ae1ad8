//! Merging a long pretoken: megabytes of one letter, of spaces, of ideographs without a space.
//!
//! Merges are to be applied by (rank, position). A heap of all pairs would do that, and spend its
//! time sinking megabytes of entries through twenty levels. But while the pairs of one rank are
//! merged from left to right, the pairs that this makes appear from left to right too. So the
//! pairs of a rank are kept as *runs* of rising positions, to which a new pair is appended where
//! it can be, and only runs are in the heap, by their first position. A run is walked until
//! another one comes before its next position. Where merges follow each other as training made
//! them there is one run a rank, and the work is linear; whatever they are, it is `n log n`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::store::pair_table::{PairMerge, PairTable};
use crate::store::token_table::TokenId;

/// No symbol and no run.
const NONE: u32 = u32::MAX;

/// One more than the longest word that this takes, in symbols.
pub const LIMIT: usize = NONE as usize;

/// A symbol that was merged into its left neighbour; no token has this id.
const GONE: TokenId = TokenId::MAX;

/// What merging a long word needs, kept to be used again.
#[derive(Debug, Default)]
pub struct MergeScratch {
    /// The neighbours of each symbol that is left, as positions.
    left: Vec<u32>,
    right: Vec<u32>,
    runs: Vec<Run>,
    /// Runs that are used up.
    free: Vec<u32>,
    /// By rank: the run that new pairs are appended to.
    open: Vec<u32>,
    heap: BinaryHeap<Reverse<(u32, u32, u32)>>,
}

/// Places where a pair was seen, by rising position. It may have changed since.
#[derive(Debug, Default)]
struct Run {
    pair: (TokenId, TokenId),
    result: TokenId,
    positions: Vec<u32>,
    /// How many of them are done.
    done: usize,
}

impl MergeScratch {
    /// Scratch grown by a word of megabytes is given back after it.
    const KEEP: usize = 1 << 16;

    fn begin(&mut self, len: u32, num_merges: usize) {
        self.left.clear();
        self.left.extend((0..len).map(|at| at.wrapping_sub(1)));
        self.right.clear();
        self.right.extend((1..len).chain([NONE]));
        self.open.resize(num_merges, NONE);
    }

    /// Notes a pair of neighbours, the left one at `at`, if they merge.
    #[inline]
    fn note(&mut self, at: u32, pair: (TokenId, TokenId), merge: PairMerge) {
        if merge == PairMerge::NONE {
            return;
        }
        let open = &mut self.open[merge.rank() as usize];
        if let Some(run) = self.runs.get_mut(*open as usize)
            && run.positions.last().is_some_and(|&last| last <= at)
        {
            run.positions.push(at);
            return;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.runs.push(Run::default());
            self.runs.len() as u32 - 1
        });
        *open = number;
        let run = &mut self.runs[number as usize];
        (run.pair, run.result, run.done) = (pair, merge.result(), 0);
        run.positions.clear();
        run.positions.push(at);
        self.heap.push(Reverse((merge.rank(), at, number)));
    }

    /// The next position of a run that comes before all others; `None` if the run is used up or
    /// another one comes first.
    #[inline]
    fn advance(&mut self, rank: u32, number: u32) -> Option<u32> {
        let run = &mut self.runs[number as usize];
        let Some(&at) = run.positions.get(run.done) else {
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
        run.done += 1;
        Some(at)
    }

    fn trim(&mut self) {
        if self.left.capacity() > Self::KEEP {
            *self = Self::default();
        }
    }
}

/// Merges `symbols`, fewer than [`LIMIT`], in place and returns how many are left.
pub fn merge_long(pairs: &PairTable, symbols: &mut [TokenId], scratch: &mut MergeScratch) -> usize {
    scratch.begin(symbols.len() as u32, pairs.len());
    for (at, pair) in (0..).zip(symbols.windows(2)) {
        scratch.note(at, (pair[0], pair[1]), pairs.get(pair[0], pair[1]));
    }
    while let Some(Reverse((rank, _, number))) = scratch.heap.pop() {
        while let Some(at) = scratch.advance(rank, number) {
            merge_at(pairs, symbols, scratch, at, number);
        }
    }
    scratch.trim();
    compact(symbols)
}

/// Merges the pair of a run at one of its positions, if it still stands there.
#[inline]
fn merge_at(
    pairs: &PairTable,
    symbols: &mut [TokenId],
    scratch: &mut MergeScratch,
    at: u32,
    number: u32,
) {
    let &Run { pair, result, .. } = &scratch.runs[number as usize];
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
        scratch.note(before, (left, result), pairs.get(left, result));
    }
    if after != NONE {
        scratch.left[after as usize] = at;
        let right = symbols[after as usize];
        scratch.note(at, (result, right), pairs.get(result, right));
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
