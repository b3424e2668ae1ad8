//! The survey where there are few tokens, as in the beginning, when words are longest and nearly all
//! places are of frequent pairs: every pair has a cell of its own in a table. One pass counts all of
//! them, exactly; a second, over the same words, lists the positions of those that are tracked.
//! Nothing is hashed, and no position is held but in its list.

use rayon::prelude::*;

use super::budget::Budget;
use super::pairs::{Pair, Pairs};
use super::partition::{List, NO_LIST, Partition, Symbol};
use super::threshold::choose_threshold;
use crate::error::Result;
use crate::progress::Progress;
use crate::store::pages::filled;
use crate::vocab::TokenId;

/// The table of more tokens would take more than a sketch does, and no second-level cache would hold
/// the used part of it.
const MAX_TOKENS: usize = 1 << 9;

/// With so many symbols of a partition for each cell, going through the table takes no time that counts
/// beside going through the words.
const SYMBOLS_PER_CELL: usize = 4;

/// Whether the pairs of so many tokens should be surveyed here, in partitions of so many symbols. (In
/// tests, half of all surveys are.)
pub fn suits(tokens: usize, symbols: usize, budget: &Budget) -> bool {
    let cells = Grid { tokens }.cells();
    let useful =
        if cfg!(test) { symbols.is_multiple_of(2) } else { SYMBOLS_PER_CELL * cells <= symbols };
    // A cell takes as much as four of a sketch.
    useful && tokens <= MAX_TOKENS && 4 * cells <= 1 << budget.max_cell_bits()
}

/// Tracks the most frequent of all pairs of `tokens` tokens: `wanted` are enough. Returns the threshold
/// that all of them reach and no other does, or `None` if no pair is left at all.
pub fn survey<S: Symbol>(
    partitions: &mut [Partition<S>],
    pairs: &mut Pairs,
    tokens: usize,
    wanted: usize,
    lists: bool,
    progress: &Progress,
) -> Result<Option<u64>> {
    let grid = Grid { tokens };
    let tables = partitions.par_iter().map(|partition| count(partition, grid, progress));
    let tables = tables.collect::<Result<Vec<_>>>()?;
    let sum = |cell: usize| tables.iter().map(|table| table[cell].count).sum::<u64>();
    let counts: Vec<u64> = (0..grid.cells()).map(sum).collect();
    let Some(threshold) = choose_threshold(counts.iter().copied(), wanted) else {
        return Ok(None);
    };
    let mut cursors = vec![filled(NO_LIST, grid.cells()); partitions.len()];
    for (cell, &count) in counts.iter().enumerate().filter(|&(_, &count)| count >= threshold) {
        let (left, right) = grid.pair(cell);
        let parts = partitions.iter_mut().zip(&tables).zip(&mut cursors);
        pairs.push(
            Pair { left, right, count },
            parts.map(|((partition, table), cursors)| match table[cell].places {
                places if !lists => List::unlisted(places),
                0 => List::default(),
                places => {
                    let list = partition.reserve_list(places);
                    cursors[cell] = list.start;
                    list
                }
            }),
        );
    }
    if lists {
        let parts = partitions.par_iter_mut().zip(cursors);
        parts
            .try_for_each(|(partition, cursors)| fill_lists(partition, cursors, grid, progress))?;
    }
    Ok(Some(threshold))
}

/// Which cell is a pair's. What stands between words has a row and a column too, which nobody reads:
/// that is quicker than to leave it out.
#[derive(Clone, Copy)]
struct Grid {
    tokens: usize,
}

impl Grid {
    fn cells(self) -> usize {
        (self.tokens + 1) * (self.tokens + 1)
    }

    #[inline]
    fn cell(self, left: TokenId, right: TokenId) -> usize {
        (left as usize).min(self.tokens) * (self.tokens + 1) + (right as usize).min(self.tokens)
    }

    fn pair(self, cell: usize) -> (TokenId, TokenId) {
        ((cell / (self.tokens + 1)) as TokenId, (cell % (self.tokens + 1)) as TokenId)
    }
}

/// How often a pair occurs, and at how many positions.
#[derive(Clone, Copy, Default)]
struct Cell {
    count: u64,
    places: u32,
}

#[inline(never)] // one name per pass in a profile
fn count<S: Symbol>(
    partition: &Partition<S>,
    grid: Grid,
    progress: &Progress,
) -> Result<Vec<Cell>> {
    let mut table = filled(Cell::default(), grid.cells());
    partition.for_each_pair(progress, |_, left, right, count| {
        let cell = &mut table[grid.cell(left, right)];
        cell.count += count;
        cell.places += 1;
    })?;
    Ok(table)
}

/// `cursors` is where the next position of each pair goes, or [`NO_LIST`].
#[inline(never)] // one name per pass in a profile
fn fill_lists<S: Symbol>(
    partition: &mut Partition<S>,
    mut cursors: Vec<u32>,
    grid: Grid,
    progress: &Progress,
) -> Result<()> {
    let mut positions = std::mem::take(&mut partition.positions);
    partition.for_each_pair(progress, |at, left, right, _| {
        let cursor = &mut cursors[grid.cell(left, right)];
        if *cursor != NO_LIST {
            positions[*cursor as usize] = at as u32;
            *cursor += 1;
        }
    })?;
    partition.positions = positions;
    Ok(())
}
