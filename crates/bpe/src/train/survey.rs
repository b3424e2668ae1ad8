//! Which pairs are frequent enough to be followed: two linear passes over all words.
//!
//! The first pass adds counts into a table of hashed pairs, which tells of each pair how frequent
//! it can be at most. From it a threshold is chosen. The second pass counts exactly the pairs that
//! may reach the threshold, and notes where they are. Everything that is less frequent, and that
//! is nearly everything, costs two table look-ups and no memory.

use rayon::prelude::*;

use super::budget::{Budget, MIN_CELL_BITS};
use super::pairs::{Pair, PairIndex, Pairs, hash, key};
use super::partition::{CHECK_EVERY, List, NO_LIST, Shard, Symbol};
use crate::error::Result;
use crate::progress::Progress;
use crate::store::pages::filled;
use crate::vocab::TokenId;

/// The sketch has this many cells for every pair that could reach the threshold if counts were
/// evenly spread: what cells hold by chance is then well below it.
const CELLS_PER_PAIR: u64 = 2;

/// How far the threshold lies below the greatest count: the higher, the more surveys are made, the
/// lower, the more pairs are followed that are never merged.
const RATIO: u64 = 64;

/// Finds the most frequent of all pairs, of which none exceeds `ceiling`, and puts them into
/// `pairs`, with lists in `shards` if memory is not bounded. `wanted` pairs are enough. Returns
/// the threshold that all of them reach and no other does, or `None` if no pair is left at all.
pub fn survey<S: Symbol>(
    shards: &mut [Shard<S>],
    pairs: &mut Pairs,
    ceiling: u64,
    wanted: usize,
    budget: &Budget,
    progress: &Progress,
) -> Result<Option<u64>> {
    let bits = cell_bits(shards, ceiling / RATIO, budget);
    let sketch = Sketch::new(shards, bits, progress)?;
    let Some(threshold) = choose_threshold(&sketch.cells, ceiling, wanted) else {
        return Ok(None);
    };
    let mut found = shards
        .par_iter()
        .map(|shard| Found::new(shard, &sketch, threshold, budget.is_unlimited(), progress))
        .collect::<Result<Vec<_>>>()?;
    drop(sketch);
    follow(shards, pairs, &mut found, threshold, budget.is_unlimited());
    shards.par_iter_mut().zip(&mut found).for_each(|(shard, found)| found.fill_lists(shard));
    Ok(Some(threshold))
}

/// Calls `visit` with every two neighbours of a shard that [`Shard::compact`] left, with where
/// the first stands, and the word's count. Also with those where one is a sentinel; their count is
/// 0, which is quicker than to tell them apart.
#[inline]
pub fn for_each_pair<S: Symbol>(
    shard: &Shard<S>,
    progress: &Progress,
    mut visit: impl FnMut(usize, TokenId, TokenId, u64),
) -> Result<()> {
    for (start, end, count) in shard.classes.iter() {
        let mut left = S::SENTINEL;
        for start in (start..end).step_by(CHECK_EVERY) {
            let end = end.min(start + CHECK_EVERY);
            for (at, &right) in (start..end).zip(&shard.symbols[start..end]) {
                let inside = left != S::SENTINEL && right != S::SENTINEL;
                visit(at - 1, left.id(), right.id(), if inside { count } else { 0 });
                left = right;
            }
            progress.check()?;
        }
    }
    Ok(())
}

/// How large the sketch is to be if `threshold` is asked for, roughly.
fn cell_bits<S: Symbol>(shards: &[Shard<S>], threshold: u64, budget: &Budget) -> u32 {
    let places: u64 = shards.par_iter().map(|shard| shard.classes.total_count()).sum();
    let cells = CELLS_PER_PAIR * (places / threshold.max(1));
    (cells.max(1).ilog2() + 1).clamp(MIN_CELL_BITS, budget.max_cell_bits())
}

/// Sums of counts by hashed pair: no pair is more frequent than its cell says. A cell that is full
/// says nothing.
struct Sketch {
    cells: Vec<u32>,
    /// The upper bits of a hash are its cell.
    shift: u32,
}

impl Sketch {
    fn new<S: Symbol>(shards: &[Shard<S>], bits: u32, progress: &Progress) -> Result<Self> {
        let empty = || Self { cells: filled(0, 1 << bits), shift: 64 - bits };
        let parts = shards.par_iter().map(|shard| {
            let mut sketch = empty();
            sketch.add(shard, progress)?;
            Ok(sketch)
        });
        let merged = parts.try_reduce_with(|mut sum: Sketch, part| {
            let cells = sum.cells.iter_mut().zip(part.cells);
            cells.for_each(|(sum, cell)| *sum = sum.saturating_add(cell));
            Ok(sum)
        });
        merged.unwrap_or_else(|| Ok(empty()))
    }

    #[inline(never)] // one name per pass in a profile
    fn add<S: Symbol>(&mut self, shard: &Shard<S>, progress: &Progress) -> Result<()> {
        for_each_pair(shard, progress, |_, left, right, count| {
            let cell = self.cell_of(key(left, right));
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.cells[cell] = self.cells[cell].saturating_add(count);
        })
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

/// The greatest count that a pair can have, divided by [`RATIO`]; higher if so many pairs may
/// reach more that `wanted` are found. `None` if there is no pair.
fn choose_threshold(cells: &[u32], ceiling: u64, wanted: usize) -> Option<u64> {
    let greatest = ceiling.min(cells.iter().copied().max().unwrap_or(0).into());
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
    /// (index in `pairs`, position), ascending by position; none if they are not to be listed yet.
    places: Vec<(u32, u32)>,
    keeps_places: bool,
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
    fn new<S: Symbol>(
        shard: &Shard<S>,
        sketch: &Sketch,
        threshold: u64,
        keeps_places: bool,
        progress: &Progress,
    ) -> Result<Self> {
        let mut index = PairIndex::default();
        let mut found = Found { pairs: Vec::new(), places: Vec::new(), keeps_places };
        // Whether a pair passes the sketch cannot be foretold, so it must not be branched on: all
        // are written to a block, and the next overwrites what did not pass.
        let mut block = vec![Candidate::default(); BLOCK];
        let mut len = 0;
        for_each_pair(shard, progress, |at, left, right, count| {
            block[len] = Candidate { left, right, count, at: at as u32 };
            len += usize::from((count > 0) & sketch.may_reach(threshold, key(left, right)));
            if len == BLOCK {
                found.add(&block, &mut index);
                len = 0;
            }
        })?;
        found.add(&block[..len], &mut index);
        Ok(found)
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
            if self.keeps_places {
                self.places.push((id, at));
            }
        }
    }

    fn fill_lists<S: Symbol>(&mut self, shard: &mut Shard<S>) {
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
fn follow<S: Symbol>(
    shards: &mut [Shard<S>],
    pairs: &mut Pairs,
    found: &mut [Found],
    threshold: u64,
    list: bool,
) {
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
                None if list => List::default(),
                None => List::unlisted(0),
                Some(found) if !list => List::unlisted(found.places),
                Some(found) => {
                    let list = shard.reserve_list(found.places);
                    found.cursor = list.start;
                    list
                }
            }),
        );
    }
}
