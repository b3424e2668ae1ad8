//! Chunks -> how often each pretoken occurs.
//!
//! Every thread takes chunks from the source and counts into a table of its own ([`table`]); in
//! the end the tables are summed, each thread a part of all hashes. Nothing is shared meanwhile.
//! Where memory is bounded, tables go to the disk as sorted runs ([`spill`]) and are summed there;
//! training takes the sum by falling count ([`ranked`]).

mod counts_file;
mod ranked;
mod sort;
mod sorted_run;
mod spill;
mod table;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::files::input::Source;
use crate::progress::{Phase, Progress};
use crate::store::byte_strings::ByteStrings;
use crate::text::pattern::Pattern;
use crate::text::special::{Segment, SpecialTokens};
pub use counts_file::{load_counts, save_counts};
pub use ranked::{Ranked, Ranking, too_many_pretokens};
use sort::sort;
use spill::{Run, Spill};
use table::CountTable;

/// Every distinct pretoken of a text, in no particular order, and how often it occurs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PretokenCounts {
    pub pretokens: ByteStrings,
    pub counts: Vec<u64>,
}

/// What counting makes: in memory or, where that is bounded and was not enough, on the disk.
pub enum Counts {
    Memory(PretokenCounts),
    Disk(Run),
}

impl Counts {
    /// How many distinct pretokens there are.
    pub fn len(&self) -> u64 {
        match self {
            Counts::Memory(counts) => counts.counts.len() as u64,
            Counts::Disk(run) => run.entries(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with each pretoken, in ascending order, and its count, until it fails.
    ///
    /// # Errors
    /// Those of `visit` and of the disk, and [`Error::Cancelled`].
    pub fn for_each_ascending<E: From<Error>>(
        self,
        progress: &Progress,
        mut visit: impl FnMut(&[u8], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Counts::Disk(run) => spill::merge(vec![run], progress, visit),
            Counts::Memory(counts) => {
                let pretoken = |index: usize| counts.pretokens.get(index);
                let mut order: Vec<usize> = (0..counts.counts.len()).collect();
                sort(&mut order, &|&one, &other| pretoken(one).cmp(pretoken(other)), progress)?;
                let mut order = order.into_iter();
                order.try_for_each(|index| visit(pretoken(index), counts.counts[index]))
            }
        }
    }

    /// By falling count; what is on the disk stays there.
    ///
    /// # Errors
    /// Those of the disk, [`Error::Cancelled`], and 2^32 pretokens or more in memory.
    pub fn ranked(self, max_memory: Option<u64>, progress: &Progress) -> Result<Ranked> {
        match self {
            Counts::Memory(counts) => Ranked::new(counts),
            Counts::Disk(_) => {
                let mut ranking = Ranking::new(max_memory.map(|bytes| bytes / 4));
                self.for_each_ascending(progress, |pretoken, count| {
                    ranking.push(pretoken, count, progress)
                })?;
                ranking.finish(progress)
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct CountOptions {
    pub threads: usize,
    /// About how many bytes the tables may take in all; what does not fit is kept on disk, in the
    /// folder for temporary files.
    pub max_memory: Option<u64>,
    /// Leaves out what occurs less often in all.
    pub min_count: u64,
}

impl CountOptions {
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), max_memory: None, min_count: 1 }
    }

    /// How large a thread's table may be when it takes another chunk: the chunk may double it, and
    /// for a moment the old one is there too.
    fn max_table_bytes(&self) -> usize {
        let bytes = self.max_memory.map_or(u64::MAX, |bytes| bytes / self.threads as u64 / 4);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// Counts all pretokens of all chunks that `source` has left. Special tokens bound pretokens and
/// are not counted. `pattern` and `special` must be the source's.
///
/// # Errors
/// A file cannot be read, the pattern gives up, the disk is full of runs, or `progress` says stop.
pub fn count_pretokens(
    source: &Source,
    pattern: &Pattern,
    special: &SpecialTokens,
    options: &CountOptions,
    progress: &Progress,
) -> Result<Counts> {
    progress.begin(Phase::Counting, source.total_bytes());
    let threads = options.threads;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| Error::invalid(format!("{threads} threads: {error}")))?;
    let counting = Counting {
        source,
        pattern,
        special,
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

impl PretokenCounts {
    fn drop_rare(&mut self, min_count: u64) {
        if min_count <= 1 {
            return;
        }
        let all = std::mem::take(self);
        for (pretoken, count) in all.pretokens.iter().zip(all.counts) {
            if count >= min_count {
                self.pretokens.push(pretoken);
                self.counts.push(count);
            }
        }
    }
}

/// What all threads of a call share.
struct Counting<'c> {
    source: &'c Source,
    pattern: &'c Pattern,
    special: &'c SpecialTokens,
    progress: &'c Progress,
    max_table_bytes: usize,
    spill: Spill,
    failed: AtomicBool,
}

impl Counting<'_> {
    /// One thread's work; if it fails the others stop too.
    fn count_chunks(&self) -> Result<CountTable> {
        let counted = self.count_until_failure();
        if counted.is_err() {
            self.failed.store(true, Relaxed);
        }
        counted
    }

    fn count_until_failure(&self) -> Result<CountTable> {
        let mut table = CountTable::default();
        let mut buffer = Vec::new();
        while !self.failed.load(Relaxed) {
            let Some(chunk) = self.source.read_next(&mut buffer)? else {
                break;
            };
            for piece in chunk.pieces(&buffer) {
                count_text(piece, self.pattern, self.special, &mut table)?;
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
    // Segments and pretokens come in order and leave nothing out, so lengths tell where they are.
    let mut at = 0;
    special.for_each_segment(text, |segment| match segment {
        Segment::Text(piece) => pattern.for_each(piece, |pretoken| {
            table.count(text, at, pretoken.len());
            at += pretoken.len();
        }),
        Segment::Special(index) => {
            at += special.tokens()[index].len();
            Ok(())
        }
    })?;
    table.flush();
    Ok(())
}

/// About how many strings of all tables are summed in one go.
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
    let mut all = PretokenCounts {
        pretokens: ByteStrings::with_capacity(strings, bytes),
        counts: Vec::with_capacity(strings),
    };
    for sum in sums {
        all.pretokens.append(&sum.pretokens);
        all.counts.extend(sum.counts);
    }
    Ok(all)
}

fn to_counts(table: &CountTable) -> PretokenCounts {
    let mut counts = PretokenCounts {
        pretokens: ByteStrings::with_capacity(table.len(), 8 * table.len()),
        counts: Vec::with_capacity(table.len()),
    };
    table.for_each(|pretoken, count| {
        counts.pretokens.push(pretoken);
        counts.counts.push(count);
    });
    counts
}

#[cfg(test)]
mod tests;
