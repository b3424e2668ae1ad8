//! Which pairs are frequent enough to be followed: two linear passes over all words.
//!
//! The first pass adds counts into a table of hashed pairs, which tells of each pair how frequent
//! it can be at most. From it a threshold is chosen. The second pass counts exactly the pairs that
//! may reach the threshold, and notes where they are. Everything that is less frequent, and that
//! is nearly everything, costs two table look-ups and no memory.

use rayon::prelude::*;

use super::pairs::{Pair, PairIndex, Pairs, hash, key};
use super::shard::{List, NO_LIST, SENTINEL, Shard};
use crate::vocab::TokenId;

/// The table's size: 2^17 sums, a megabyte, stay in the nearest caches.
const CELL_BITS: u32 = 17;

/// How far the threshold lies below the greatest count: the higher, the more surveys are made, the
/// lower, the more pairs are followed that are never merged.
const RATIO: u64 = 8;

/// Finds the most frequent of all pairs below `ceiling`, the threshold of the survey before, and
/// puts them into `pairs`, with lists in `shards`. `wanted` pairs are enough. Returns the new
/// threshold, or `None` if no pair is left at all.
pub fn survey(shards: &mut [Shard], pairs: &mut Pairs, ceiling: u64, wanted: usize) -> Option<u64> {
    let cells = sketch(shards);
    let threshold = choose_threshold(&cells, ceiling, wanted)?;
    let mut found: Vec<Found> =
        shards.par_iter().map(|shard| Found::new(shard, &cells, threshold)).collect();
    follow(shards, pairs, &mut found, threshold);
    shards.par_iter_mut().zip(&mut found).for_each(|(shard, found)| found.fill_lists(shard));
    Some(threshold)
}

#[inline]
fn cell_of(key: u64) -> usize {
    (hash(key) >> (64 - CELL_BITS)) as usize
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

fn sketch(shards: &[Shard]) -> Vec<u64> {
    let sketches: Vec<Vec<u64>> = shards
        .par_iter()
        .map(|shard| {
            let mut cells = vec![0; 1 << CELL_BITS];
            for_each_pair(shard, |_, left, right, count| cells[cell_of(key(left, right))] += count);
            cells
        })
        .collect();
    let mut sketches = sketches.into_iter();
    let mut sum = sketches.next().unwrap_or_default();
    for cells in sketches {
        sum.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell);
    }
    sum
}

/// The greatest count that a pair can have, divided by [`RATIO`]; higher if so many pairs may
/// reach more that `wanted` are found. `None` if there is no pair.
fn choose_threshold(cells: &[u64], ceiling: u64, wanted: usize) -> Option<u64> {
    let greatest = cells.iter().copied().max().unwrap_or(0).min(ceiling - 1);
    if greatest == 0 {
        return None;
    }
    // Eight steps an octave are exact enough for a guess of how many there are.
    let step_of = |count: u64| {
        let octave = count.ilog2().max(3);
        (u64::from(octave) * 8 + (count >> (octave - 3)) % 8) as usize
    };
    let mut histogram = vec![0; 64 * 8];
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

struct FoundPair {
    left: TokenId,
    right: TokenId,
    count: u64,
    places: u32,
    /// Where its next position goes, or [`NO_LIST`].
    cursor: u32,
}

impl Found {
    fn new(shard: &Shard, cells: &[u64], threshold: u64) -> Self {
        let mut index = PairIndex::default();
        let mut found = Found { pairs: Vec::new(), places: Vec::new() };
        for_each_pair(shard, |at, left, right, count| {
            let key = key(left, right);
            if cells[cell_of(key)] < threshold || count == 0 {
                return;
            }
            let next = found.pairs.len() as u32;
            let id = index.get_or_insert(key, next);
            if id == next {
                found.pairs.push(FoundPair { left, right, count: 0, places: 0, cursor: NO_LIST });
            }
            let pair = &mut found.pairs[id as usize];
            pair.count += count;
            pair.places += 1;
            found.places.push((id, at as u32));
        });
        found
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
