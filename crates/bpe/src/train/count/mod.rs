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

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rayon::ThreadPool;

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
        let mut counts = sum(tables, &pool, progress)?;
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

/// About how many strings of all tables are summed at a time: in a table that a core's cache holds, and
/// in moments, so that it can be stopped.
const MAX_PART: usize = 1 << 14;

/// Sums the tables, each thread a part of all hashes at a time.
fn sum(tables: Vec<CountTable>, pool: &ThreadPool, progress: &Progress) -> Result<PretokenCounts> {
    if let [table] = &tables[..] {
        return Ok(add(table, PretokenCounts::default()));
    }
    let strings = tables.iter().map(CountTable::len).sum::<usize>();
    // More parts than threads, so that none waits long for another in the end.
    let parts = (4 * tables.len()).max(strings / MAX_PART).next_power_of_two();
    let parts = parts.min(CountTable::MAX_PARTS);
    let next = AtomicUsize::new(0);
    // One list a thread: many small ones, freed, would leave holes that no large one fits into.
    let sums = pool.broadcast(|_| {
        let mut sum = PretokenCounts::default();
        loop {
            let part = next.fetch_add(1, Relaxed);
            if part >= parts {
                return Ok(sum);
            }
            progress.check()?;
            sum = add(&CountTable::sum_part(&tables, part, parts), sum);
        }
    });
    drop(tables); // before strings are there a third time
    let mut sums = sums.into_iter();
    let first = sums.next().unwrap_or_else(|| Ok(PretokenCounts::default()));
    sums.try_fold(first?, |mut all, sum| {
        all.append(sum?);
        Ok(all)
    })
}

/// What a table holds, and what was there; nothing may be in both.
fn add(table: &CountTable, mut counts: PretokenCounts) -> PretokenCounts {
    table.for_each(|pretoken, count| counts.push(pretoken, count));
    counts
}

#[cfg(test)]
mod tests;
