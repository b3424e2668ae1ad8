//! Chunks -> how often each pretoken occurs.
//!
//! Every thread takes chunks from the source and counts into a table of its own (`table`); in the
//! end the tables are summed, each thread a part of all hashes. Nothing is shared meanwhile. Where
//! memory is bounded, tables go to the disk as sorted runs (`spill`) and are summed there; training
//! takes the sum by falling count (`ranked`).

mod counts;
mod counts_file;
mod options;
mod pretoken_counts;
mod ranked;
mod sort;
mod sorted_run;
mod spill;
mod table;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rayon::prelude::*;

use crate::error::Result;
use crate::files::input::Source;
use crate::progress::{Phase, Progress};
use crate::text::pattern::Pattern;
use crate::text::special::{Segment, SpecialTokens};
use crate::text::visitor::Visitor;
use crate::workers;
pub use counts::Counts;
pub use counts_file::{add_counts, claim_counts, load_counts, save_counts};
pub use options::CountOptions;
pub use pretoken_counts::PretokenCounts;
pub use ranked::Ranked;
#[cfg(test)]
pub(crate) use ranked::Ranking;
pub(crate) use ranked::too_many_pretokens;
pub use spill::SortedRun;
use spill::Spill;
use table::CountTable;

/// Counts all pretokens of all chunks that `source` has left. Special tokens bound pretokens and
/// are not counted.
///
/// # Errors
/// A file cannot be read, the pattern gives up, the disk is full, or `progress` says stop.
pub fn count_pretokens(
    source: &Source,
    options: &CountOptions,
    progress: &Progress,
) -> Result<Counts> {
    progress.begin(Phase::Counting, source.total_bytes());
    let threads = options.threads;
    let pool = workers::pool(threads)?;
    let counting = Counting {
        source,
        progress,
        max_table_bytes: options.max_table_bytes(),
        spill: Spill::default(),
        failed: AtomicBool::new(false),
    };
    let tables = pool.broadcast(|_| counting.count_chunks());
    let mut tables = tables.into_iter().collect::<Result<Vec<_>>>()?;
    progress.check()?;
    let Counting { spill, .. } = counting;
    if spill.is_empty() {
        let mut counts = pool.install(|| sum(&tables, progress))?;
        counts.drop_rare(options.min_count);
        return Ok(Counts::Memory(counts));
    }
    tables.iter_mut().try_for_each(|table| spill.write(table, progress))?;
    drop(tables);
    Ok(Counts::Disk(spill.sum(options.min_count, progress)?))
}

/// What all threads of a call share.
struct Counting<'c> {
    source: &'c Source,
    progress: &'c Progress,
    max_table_bytes: usize,
    spill: Spill,
    failed: AtomicBool,
}

impl Counting<'_> {
    /// One thread's work; if it fails the others stop too.
    fn count_chunks(&self) -> Result<CountTable> {
        let counted = self.progress.watched(|| self.count_until_failure());
        if counted.is_err() {
            self.failed.store(true, Relaxed);
        }
        counted
    }

    fn count_until_failure(&self) -> Result<CountTable> {
        let (pattern, special) = (self.source.pattern(), self.source.special_tokens());
        let mut table = CountTable::default();
        let mut buffer = Vec::new();
        while !self.failed.load(Relaxed) {
            let Some(chunk) = self.source.read_next(&mut buffer, true)? else {
                break;
            };
            for piece in chunk.pieces(&buffer) {
                count_text(piece, pattern, special, &mut table)?;
            }
            if table.bytes() > self.max_table_bytes {
                self.spill.write(&mut table, self.progress)?;
            }
            self.progress.advance(chunk.input_bytes)?;
        }
        Ok(table)
    }
}

fn count_text(
    text: &[u8],
    pattern: &Pattern,
    special: &SpecialTokens,
    table: &mut CountTable,
) -> Result<()> {
    // Segments come in order and leave nothing out, so their lengths tell where they are.
    let mut start = 0;
    special.for_each_segment(text, |segment| match segment {
        Segment::Text(piece) => {
            let mut counter = Counter { text, start, table: &mut *table };
            start += piece.len();
            pattern.scan(piece, &mut counter)
        }
        Segment::Special(index) => {
            start += special.tokens()[index].len();
            Ok(())
        }
    })?;
    table.flush();
    Ok(())
}

/// Counts the pretokens of the piece of `text` that begins at `start`.
struct Counter<'c> {
    text: &'c [u8],
    start: usize,
    table: &'c mut CountTable,
}

impl Visitor for Counter<'_> {
    #[inline(always)]
    fn pretoken(&mut self, start: usize, end: usize) {
        self.table.count(self.text, self.start + start, end - start);
    }
}

/// About how many strings of all tables are summed at a time.
const MAX_PART: usize = 1 << 16;

/// Sums the tables, a part of all hashes at a time.
fn sum(tables: &[CountTable], progress: &Progress) -> Result<PretokenCounts> {
    if let [table] = tables {
        return Ok(to_counts(table));
    }
    // More parts than threads, so that none waits long for another in the end; parts that take
    // moments, so that all can be stopped.
    let strings = tables.iter().map(CountTable::len).sum::<usize>();
    let parts = (4 * tables.len()).max(strings / MAX_PART).next_power_of_two();
    let parts = parts.min(CountTable::MAX_PARTS);
    let sums: Vec<PretokenCounts> = (0..parts)
        .into_par_iter()
        .map(|part| {
            progress.check()?;
            Ok(to_counts(&CountTable::sum_part(tables, part, parts)))
        })
        .collect::<Result<_>>()?;
    let strings = sums.iter().map(|sum| sum.counts.len()).sum();
    let bytes = sums.iter().map(|sum| sum.pretokens.total_bytes()).sum();
    let mut all = PretokenCounts::with_capacity(strings, bytes);
    for sum in sums {
        all.pretokens.append(&sum.pretokens);
        all.counts.extend(sum.counts);
    }
    Ok(all)
}

fn to_counts(table: &CountTable) -> PretokenCounts {
    let mut counts = PretokenCounts::with_capacity(table.len(), 8 * table.len());
    table.for_each(|pretoken, count| counts.push(pretoken, count));
    counts
}

#[cfg(test)]
mod tests;
