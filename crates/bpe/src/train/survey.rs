//! Which pairs are frequent enough to be followed: two linear passes over all words.
//!
//! The first pass adds counts into a table of hashed pairs, which tells of each pair how frequent
//! it can be at most. From it a threshold is chosen. The second pass counts exactly the pairs that
//! may reach the threshold, and notes where they are. Everything that is less frequent, and that
//! is nearly everything, costs two table look-ups and no memory.

use rayon::prelude::*;

use super::pairs::{Pair, PairIndex, Pairs, hash, key};
use super::shard::{List, NO_LIST, SENTINEL, Shard};
use crate::pages::filled;
use crate::vocab::TokenId;

/// The sketch has this many cells for every pair that could reach the threshold if counts were
/// evenly spread: what cells hold by chance is then well below it. At most 2^25, 128 MB.
const CELLS_PER_PAIR: u64 = 2;
const CELL_BITS: std::ops::RangeInclusive<u32> = 12..=25;

/// How far the threshold lies below the greatest count: the higher, the more surveys are made, the
/// lower, the more pairs are followed that are never merged.
const RATIO: u64 = 64;

/// Finds the most frequent of all pairs below `ceiling`, the threshold of the survey before, and
/// puts them into `pairs`, with lists in `shards`. `wanted` pairs are enough. Returns the new
/// threshold, or `None` if no pair is left at all.
pub fn survey(shards: &mut [Shard], pairs: &mut Pairs, ceiling: u64, wanted: usize) -> Option<u64> {
    let sketch = Sketch::new(shards, ceiling / RATIO);
    let threshold = choose_threshold(&sketch.cells, ceiling, wanted)?;
    let mut found: Vec<Found> =
        shards.par_iter().map(|shard| Found::new(shard, &sketch, threshold)).collect();
    follow(shards, pairs, &mut found, threshold);
    shards.par_iter_mut().zip(&mut found).for_each(|(shard, found)| found.fill_lists(shard));
    Some(threshold)
}

/// Calls `visit` with every two neighbours of a shard that [`Shard::compact`] left, with where
/// the first stands, and the word's count. Also with those where one is a sentinel; their count is
/// 0, which is quicker than to tell them apart.
#[inline]
fn for_each_pair(shard: &Shard, mut visit: impl FnMut(usize, TokenId, TokenId, u64)) {
    for (start, end, count) in shard.classes.iter() {
        let mut left = SENTINEL;
        for (at, &right) in (start..end).zip(&shard.symbols[start..end]) {
            let inside = left != SENTINEL && right != SENTINEL;
            visit(at - 1, left, right, if inside { count } else { 0 });
            left = right;
        }
    }
}

/// Sums of counts by hashed pair: no pair is more frequent than its cell says. A cell that is full
/// says nothing.
struct Sketch {
    cells: Vec<u32>,
    /// The upper bits of a hash are its cell.
    shift: u32,
}

impl Sketch {
    /// `threshold` is what will be asked for, roughly.
    fn new(shards: &[Shard], threshold: u64) -> Self {
        let places: u64 = shards.par_iter().map(total_count).sum();
        let cells = CELLS_PER_PAIR * (places / threshold.max(1));
        let bits = (cells.max(1).ilog2() + 1).clamp(*CELL_BITS.start(), *CELL_BITS.end());
        let parts = shards.par_iter().map(|shard| Self::of_shard(shard, bits));
        let merged = parts.reduce_with(|mut sum, part| {
            let cells = sum.cells.iter_mut().zip(part.cells);
            cells.for_each(|(sum, cell)| *sum = sum.saturating_add(cell));
            sum
        });
        merged.unwrap_or_else(|| Self::of_shard(&Shard::default(), bits))
    }

    fn of_shard(shard: &Shard, bits: u32) -> Self {
        let mut sketch = Self { cells: filled(0, 1 << bits), shift: 64 - bits };
        for_each_pair(shard, |_, left, right, count| {
            let cell = sketch.cell_of(key(left, right));
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            sketch.cells[cell] = sketch.cells[cell].saturating_add(count);
        });
        sketch
    }

    #[inline]
    fn cell_of(&self, key: u64) -> usize {
        (hash(key) >> self.shift) as usize
    }

    #[inline]
    fn may_reach(&self, threshold: u64, key: u64) -> bool {
        let cell = self.cells[self.cell_of(key)];
        (cell == u32::MAX) | (u64::from(cell) >= threshold)
    }
}

/// How often any two symbols stand side by side, nearly: sentinels are taken for symbols.
fn total_count(shard: &Shard) -> u64 {
    shard.classes.iter().map(|(start, end, count)| (end - start) as u64 * count).sum()
}

/// The greatest count that a pair can have, divided by [`RATIO`]; higher if so many pairs may
/// reach more that `wanted` are found. `None` if there is no pair.
fn choose_threshold(cells: &[u32], ceiling: u64, wanted: usize) -> Option<u64> {
    let greatest = u64::from(cells.iter().copied().max().unwrap_or(0)).min(ceiling - 1);
    if greatest == 0 {
        return None;
    }
    // Eight steps an octave are exact enough for a guess of how many there are.
    let step_of = |count: u32| {
        let octave = count.ilog2().max(3);
        (octave * 8 + (count >> (octave - 3)) % 8) as usize
    };
    let mut histogram = vec![0; 32 * 8];
    cells.iter().filter(|&&cell| cell > 0).for_each(|&cell| histogram[step_of(cell)] += 1);
    let mut number = 0;
    let enough = (0..histogram.len()).rev().find(|&step| {
        number += histogram[step];
        number >= wanted
    });
    let by_number = enough.map_or(1, |step| (8 + step as u64 % 8) << (step / 8 - 3));
    Some((greatest / RATIO).max(by_number).clamp(1, greatest))
}

/// What one shard holds of the pairs that may reach the threshold.
struct Found {
    pairs: Vec<FoundPair>,
    /// (index in `pairs`, position), ascending by position.
    places: Vec<(u32, u32)>,
}

/// A place whose pair may reach the threshold.
#[derive(Clone, Copy, Default)]
struct Candidate {
    left: TokenId,
    right: TokenId,
    count: u64,
    at: u32,
}

const BLOCK: usize = 1 << 10;

struct FoundPair {
    left: TokenId,
    right: TokenId,
    count: u64,
    places: u32,
    /// Where its next position goes, or [`NO_LIST`].
    cursor: u32,
}

impl Found {
    #[inline(never)] // one name per pass in a profile
    fn new(shard: &Shard, sketch: &Sketch, threshold: u64) -> Self {
        let mut index = PairIndex::default();
        let mut found = Found { pairs: Vec::new(), places: Vec::new() };
        // Whether a pair passes the sketch cannot be foretold, so it must not be branched on: all
        // are written to a block, and the next overwrites what did not pass.
        let mut block = vec![Candidate::default(); BLOCK];
        let mut len = 0;
        for_each_pair(shard, |at, left, right, count| {
            block[len] = Candidate { left, right, count, at: at as u32 };
            len += usize::from((count > 0) & sketch.may_reach(threshold, key(left, right)));
            if len == BLOCK {
                found.add(&block, &mut index);
                len = 0;
            }
        });
        found.add(&block[..len], &mut index);
        found
    }

    fn add(&mut self, candidates: &[Candidate], index: &mut PairIndex) {
        for &Candidate { left, right, count, at } in candidates {
            let next = self.pairs.len() as u32;
            let id = index.get_or_insert(key(left, right), next);
            if id == next {
                self.pairs.push(FoundPair { left, right, count: 0, places: 0, cursor: NO_LIST });
            }
            let pair = &mut self.pairs[id as usize];
            pair.count += count;
            pair.places += 1;
            self.places.push((id, at));
        }
    }

    fn fill_lists(&mut self, shard: &mut Shard) {
        for (id, position) in self.places.drain(..) {
            let cursor = &mut self.pairs[id as usize].cursor;
            if *cursor != NO_LIST {
                shard.positions[*cursor as usize] = position;
                *cursor += 1;
            }
        }
    }
}

/// Makes pairs of what the shards found together, where it reaches the threshold.
fn follow(shards: &mut [Shard], pairs: &mut Pairs, found: &mut [Found], threshold: u64) {
    let mut index = PairIndex::default();
    let mut sums: Vec<Pair> = Vec::new();
    // For each of `sums`, one after the other, where it is in each shard's `found`.
    let mut members: Vec<u32> = Vec::new();
    for (shard, found) in found.iter().enumerate() {
        for (local, &FoundPair { left, right, count, .. }) in found.pairs.iter().enumerate() {
            let next = sums.len() as u32;
            let id = index.get_or_insert(key(left, right), next) as usize;
            if id == sums.len() {
                sums.push(Pair { left, right, count: 0 });
                members.resize(sums.len() * shards.len(), u32::MAX);
            }
            sums[id].count += count;
            members[id * shards.len() + shard] = local as u32;
        }
    }
    for (&pair, members) in sums.iter().zip(members.chunks_exact(shards.len())) {
        if pair.count < threshold {
            continue;
        }
        let parts = shards.iter_mut().zip(found.iter_mut()).zip(members);
        pairs.push(
            pair,
            parts.map(|((shard, found), &local)| match found.pairs.get_mut(local as usize) {
                None => List::default(),
                Some(found) => {
                    let list = shard.reserve_list(found.places);
                    found.cursor = list.start;
                    list
                }
            }),
        );
    }
}
