//! Chunks -> how often each pretoken occurs.
//!
//! Every thread takes chunks from the source and counts into a table of its own ([`table`]); in
//! the end the tables are summed, each thread a part of all hashes. Nothing is shared meanwhile.

mod table;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rayon::prelude::*;

use crate::byte_strings::ByteStrings;
use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use crate::progress::{Phase, Progress};
use crate::source::Source;
use crate::special::{Segment, SpecialTokens};
use table::CountTable;

/// Every distinct pretoken of a text, in no particular order, and how often it occurs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PretokenCounts {
    pub pretokens: ByteStrings,
    pub counts: Vec<u64>,
}

/// Counts all pretokens of all chunks that `source` has left. Special tokens bound pretokens and
/// are not counted. `pattern` and `special` must be the source's.
pub fn count_pretokens(
    source: &Source,
    pattern: &Pattern,
    special: &SpecialTokens,
    threads: usize,
    progress: &Progress,
) -> Result<PretokenCounts> {
    progress.begin(Phase::Counting, source.total_bytes());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    let pool = pool.map_err(|error| Error::invalid(format!("{threads} threads: {error}")))?;
    let failed = AtomicBool::new(false);
    let tables = pool.broadcast(|_| {
        let mut table = CountTable::default();
        let counted = count_chunks(source, pattern, special, &mut table, &failed, progress);
        if counted.is_err() {
            failed.store(true, Relaxed);
        }
        counted.map(|()| table)
    });
    let tables = tables.into_iter().collect::<Result<Vec<_>>>()?;
    progress.check()?;
    Ok(pool.install(|| sum(&tables)))
}

/// One thread's work: chunk after chunk, until there is none or another thread has failed.
fn count_chunks(
    source: &Source,
    pattern: &Pattern,
    special: &SpecialTokens,
    table: &mut CountTable,
    failed: &AtomicBool,
    progress: &Progress,
) -> Result<()> {
    let mut buffer = Vec::new();
    while !failed.load(Relaxed) {
        let Some(chunk) = source.read_next(&mut buffer)? else {
            break;
        };
        for piece in chunk.pieces(&buffer) {
            count_text(piece, pattern, special, table)?;
        }
        progress.advance(chunk.input_bytes)?;
    }
    Ok(())
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

/// Sums the tables, a part of all hashes at a time.
fn sum(tables: &[CountTable]) -> PretokenCounts {
    if let [table] = tables {
        return to_counts(table);
    }
    // More parts than threads, so that none waits long for another in the end.
    let parts = (4 * tables.len()).next_power_of_two().min(CountTable::MAX_PARTS);
    let sums: Vec<PretokenCounts> = (0..parts)
        .into_par_iter()
        .map(|part| to_counts(&CountTable::sum_part(tables, part, parts)))
        .collect();
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
    all
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
