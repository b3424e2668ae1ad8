//! Which pairs are frequent enough to be tracked: two linear passes over all words. Where there are
//! few tokens, `dense` makes them; else, as here:
//!
//! The first pass adds counts into a table of hashed pairs, a sketch, which bounds the count of
//! every pair from above. From it a threshold is chosen. The second pass counts exactly the pairs
//! that may reach the threshold, and notes where they are. Everything less frequent, which is
//! nearly everything, costs two table look-ups and no memory.

use rayon::prelude::*;

use super::budget::{Budget, MIN_CELL_BITS};
use super::dense;
use super::pairs::{Pair, PairIndex, Pairs, hash, pair_key};
use super::partition::{List, NO_LIST, Partition, Symbol};
use super::threshold::{RATIO, choose_threshold};
use crate::error::Result;
use crate::progress::Progress;
use crate::store::pages::filled;
use crate::vocab::TokenId;

/// The sketch has this many cells for every pair that could reach the threshold if counts were
/// evenly spread: what cells hold by chance is then well below it.
const CELLS_PER_PAIR: u64 = 2;

/// Finds the most frequent of all pairs of `tokens` tokens, of which none exceeds `ceiling`, and puts
/// them into `pairs`, with lists in `partitions` if memory is not bounded. `wanted` pairs are enough.
/// Returns the threshold that all of them reach and no other does, or `None` if no pair is left at all.
///
/// # Errors
/// `progress` says stop.
pub fn survey<S: Symbol>(
    partitions: &mut [Partition<S>],
    pairs: &mut Pairs,
    tokens: usize,
    ceiling: u64,
    wanted: usize,
    budget: &Budget,
    progress: &Progress,
) -> Result<Option<u64>> {
    let symbols: usize = partitions.iter().map(|partition| partition.symbols.len()).sum();
    if dense::suits(tokens, symbols / partitions.len().max(1), budget) {
        return dense::survey(partitions, pairs, tokens, wanted, budget.is_unlimited(), progress);
    }
    sparse(partitions, pairs, ceiling, wanted, budget, progress)
}

/// The survey by a sketch.
fn sparse<S: Symbol>(
    partitions: &mut [Partition<S>],
    pairs: &mut Pairs,
    ceiling: u64,
    wanted: usize,
    budget: &Budget,
    progress: &Progress,
) -> Result<Option<u64>> {
    let bits = cell_bits(partitions, ceiling / RATIO, budget);
    let sketch = Sketch::new(partitions, bits, progress)?;
    let cells = sketch.cells.iter().map(|&cell| ceiling.min(cell.into()));
    let Some(threshold) = choose_threshold(cells, wanted) else {
        return Ok(None);
    };
    let mut found = partitions
        .par_iter()
        .map(|partition| Found::new(partition, &sketch, threshold, budget.is_unlimited(), progress))
        .collect::<Result<Vec<_>>>()?;
    drop(sketch);
    track(partitions, pairs, &mut found, threshold, budget.is_unlimited());
    partitions
        .par_iter_mut()
        .zip(&mut found)
        .for_each(|(partition, found)| found.fill_lists(partition));
    Ok(Some(threshold))
}

/// The size of a sketch that is about right for `threshold`. There are no more pairs than symbols, and
/// of so few most occur once: half as many cells are enough, and stay in a nearer cache.
fn cell_bits<S: Symbol>(partitions: &[Partition<S>], threshold: u64, budget: &Budget) -> u32 {
    let places: u64 = partitions.par_iter().map(|partition| partition.classes.total_count()).sum();
    let symbols: u64 = partitions.iter().map(|partition| partition.symbols.len() as u64).sum();
    let cells = (places / threshold.max(1)).saturating_mul(2 * CELLS_PER_PAIR).min(symbols / 2);
    cells.max(1).ilog2().clamp(MIN_CELL_BITS, budget.max_cell_bits())
}

/// Sums of counts by hashed pair: no pair is more frequent than its cell. A cell that is full says
/// nothing.
struct Sketch {
    cells: Vec<u32>,
    /// The upper bits of a hash are its cell.
    shift: u32,
}

impl Sketch {
    fn new<S: Symbol>(partitions: &[Partition<S>], bits: u32, progress: &Progress) -> Result<Self> {
        let empty = || Self { cells: filled(0, 1 << bits), shift: 64 - bits };
        let parts = partitions.par_iter().map(|partition| {
            let mut sketch = empty();
            sketch.add(partition, progress)?;
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
    fn add<S: Symbol>(&mut self, partition: &Partition<S>, progress: &Progress) -> Result<()> {
        partition.for_each_pair(progress, |_, left, right, count| {
            let cell = self.cell_of(pair_key(left, right));
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

/// The pairs of one partition that may reach the threshold.
struct Found {
    pairs: Vec<FoundPair>,
    /// (index in `pairs`, position), ascending by position; empty if they are not to be listed yet.
    places: Vec<(u32, u32)>,
    keeps_places: bool,
}

/// A position whose pair may reach the threshold.
#[derive(Clone, Copy, Default)]
struct Candidate {
    left: TokenId,
    right: TokenId,
    count: u64,
    at: u32,
}

const BLOCK: usize = 1 << 10;

/// So many candidates before its turn, a pair's slot in the index is asked for.
const AHEAD: usize = 16;

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
        partition: &Partition<S>,
        sketch: &Sketch,
        threshold: u64,
        keeps_places: bool,
        progress: &Progress,
    ) -> Result<Self> {
        let mut index = PairIndex::default();
        let mut found = Found { pairs: Vec::new(), places: Vec::new(), keeps_places };
        // Whether a pair passes the sketch cannot be predicted, so there is no branch on it: all
        // are written to a block, and the next overwrites what did not pass.
        let mut block = vec![Candidate::default(); BLOCK];
        let mut len = 0;
        partition.for_each_pair(progress, |at, left, right, count| {
            block[len] = Candidate { left, right, count, at: at as u32 };
            len += usize::from((count > 0) & sketch.may_reach(threshold, pair_key(left, right)));
            if len == BLOCK {
                found.add(&block, &mut index);
                len = 0;
            }
        })?;
        found.add(&block[..len], &mut index);
        Ok(found)
    }

    fn add(&mut self, candidates: &[Candidate], index: &mut PairIndex) {
        for (number, &Candidate { left, right, count, at }) in candidates.iter().enumerate() {
            if let Some(soon) = candidates.get(number + AHEAD) {
                index.prefetch(pair_key(soon.left, soon.right));
            }
            let next = self.pairs.len() as u32;
            let id = index.get_or_insert(pair_key(left, right), next);
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

    fn fill_lists<S: Symbol>(&mut self, partition: &mut Partition<S>) {
        for (id, position) in self.places.drain(..) {
            let cursor = &mut self.pairs[id as usize].cursor;
            if *cursor != NO_LIST {
                partition.positions[*cursor as usize] = position;
                *cursor += 1;
            }
        }
    }
}

/// Adds up what the partitions found, and tracks the pairs that reach the threshold.
fn track<S: Symbol>(
    partitions: &mut [Partition<S>],
    pairs: &mut Pairs,
    found: &mut [Found],
    threshold: u64,
    list: bool,
) {
    let mut index = PairIndex::default();
    let mut sums: Vec<Pair> = Vec::new();
    // For each of `sums`, one after the other, its index in each partition's `found`.
    let mut members: Vec<u32> = Vec::new();
    for (partition, found) in found.iter().enumerate() {
        for (local, &FoundPair { left, right, count, .. }) in found.pairs.iter().enumerate() {
            let next = sums.len() as u32;
            let id = index.get_or_insert(pair_key(left, right), next) as usize;
            if id == sums.len() {
                sums.push(Pair { left, right, count: 0 });
                members.resize(sums.len() * partitions.len(), u32::MAX);
            }
            sums[id].count += count;
            members[id * partitions.len() + partition] = local as u32;
        }
    }
    for (&pair, members) in sums.iter().zip(members.chunks_exact(partitions.len())) {
        if pair.count < threshold {
            continue;
        }
        let parts = partitions.iter_mut().zip(found.iter_mut()).zip(members);
        pairs.push(
            pair,
            parts.map(|((partition, found), &local)| match found.pairs.get_mut(local as usize) {
                None if list => List::default(),
                None => List::unlisted(0),
                Some(found) if !list => List::unlisted(found.places),
                Some(found) => {
                    let list = partition.reserve_list(found.places);
                    found.cursor = list.start;
                    list
                }
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_finds_what_the_sketch_finds(
            words in prop::collection::vec((prop::collection::vec(0u8..5, 2..9), 1u64..90), 1..80),
            wanted in 1usize..30,
            lists: bool,
        ) {
            let mut sorted = words;
            sorted.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
            let lay_out = || {
                let mut partitions = [Partition::<u16>::new(), Partition::<u16>::new()];
                for (number, (word, count)) in sorted.iter().enumerate() {
                    partitions[number % 2].push(word, *count);
                }
                partitions
            };
            let (mut ours, mut theirs) = (lay_out(), lay_out());
            let (mut our_pairs, mut their_pairs) = (Pairs::default(), Pairs::default());
            let progress = Progress::new();
            let threshold = dense::survey(&mut ours, &mut our_pairs, 256, wanted, lists, &progress);
            let threshold = threshold.expect("nobody says stop").expect("there are pairs");
            let budget = Budget::new((!lists).then_some(1 << 20), 2);
            let found = sparse(&mut theirs, &mut their_pairs, u64::MAX, wanted, &budget, &progress);
            let found = found.expect("nobody says stop").expect("there are pairs");

            // The sketch may want a higher threshold, as its cells hold more than one pair.
            let of = |partitions: &[Partition<u16>], pairs: &Pairs| {
                let mut all: Vec<_> = (0..pairs.len() as u32)
                    .filter(|&id| pairs.get(id).count >= found.max(threshold))
                    .map(|id| {
                        let Pair { left, right, count } = pairs.get(id);
                        let positions: Vec<Option<Vec<u32>>> = (pairs.lists(id).iter())
                            .zip(partitions)
                            .map(|(list, partition)| {
                                let start = list.start as usize;
                                let end = start + list.len as usize;
                                lists.then(|| partition.positions[start..end].to_vec())
                            })
                            .collect();
                        (left, right, count, pairs.places(id), positions)
                    })
                    .collect();
                all.sort();
                all
            };
            prop_assert!(our_pairs.len() >= 1);
            prop_assert_eq!(of(&ours, &our_pairs), of(&theirs, &their_pairs));
        }
    }
}
