//! Distinct pretokens by falling count, as training lays them out.
//!
//! In memory an array of indices is sorted. On the disk they are sorted runs of strings that begin
//! with the count's complement: ascending strings are falling counts.

use std::cmp::Reverse;

use rayon::prelude::*;

use super::pretoken_counts::PretokenCounts;
use super::sort::sort;
use super::spill::{SortedRun, SortedRunWriter, merge};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::byte_strings::ByteStrings;

/// How many words are visited between two looks at whether to stop.
const CHECK_EVERY: usize = 1 << 14;

/// Words by falling count: pretokens of two bytes or more, as a single byte holds no pair.
pub struct Ranked {
    words: Words,
    symbols: u64,
    pretokens: u64,
}

enum Words {
    Memory(PretokenCounts),
    Disk(Vec<SortedRun>),
}

impl Ranked {
    /// Sorts nothing yet: the words are sorted when they are visited.
    ///
    /// # Errors
    /// There are 2^32 pretokens or more.
    pub fn new(counts: PretokenCounts) -> Result<Self> {
        let number = u32::try_from(counts.counts.len()).map_err(|_| too_many_pretokens())?;
        let lengths = counts.pretokens.iter().map(|pretoken| pretoken.len() as u64);
        let symbols = lengths.filter(|&len| len > 1).map(|len| len + 1).sum();
        Ok(Self { words: Words::Memory(counts), symbols, pretokens: number.into() })
    }

    /// How many pretokens there are, those of a single byte included.
    pub fn pretokens(&self) -> u64 {
        self.pretokens
    }

    /// How many symbols it takes to lay out all words: their bytes, and one more for each word.
    pub fn symbols(&self) -> u64 {
        self.symbols
    }

    /// Deals the words with their counts, by falling count, out to `parts` like cards: `take` is
    /// called with a part and its next word, until it fails. In memory all parts are dealt to at once.
    ///
    /// # Errors
    /// Those of `take` and of the disk, and [`Error::Cancelled`].
    pub fn deal<P: Send>(
        self,
        parts: &mut [P],
        progress: &Progress,
        take: impl Fn(&mut P, &[u8], u64) -> Result<()> + Sync,
    ) -> Result<()> {
        let number = parts.len();
        match self.words {
            Words::Memory(counts) => {
                let order = by_falling_count(&counts, progress)?;
                parts.par_iter_mut().enumerate().try_for_each(|(first, part)| {
                    let hand = order.iter().skip(first).step_by(number);
                    hand.enumerate().try_for_each(|(dealt, &(count, index))| {
                        if dealt % CHECK_EVERY == 0 {
                            progress.check()?;
                        }
                        take(part, counts.pretokens.get(index as usize), count)
                    })
                })
            }
            Words::Disk(runs) => {
                let mut next = (0..number).cycle();
                merge(runs, progress, |string, _| {
                    let (count, word) = unranked(string);
                    let part = next.next().and_then(|next| parts.get_mut(next));
                    part.map_or(Ok(()), |part| take(part, word, count))
                })
            }
        }
    }
}

/// The counts and indices of all words.
fn by_falling_count(counts: &PretokenCounts, progress: &Progress) -> Result<Vec<(u64, u32)>> {
    let mut order: Vec<(u64, u32)> = (counts.counts.iter().copied().zip(0..))
        .filter(|&(_, index)| counts.pretokens.get(index as usize).len() > 1)
        .collect();
    let falling = |&(count, index): &(u64, u32)| (Reverse(count), index);
    sort(&mut order, &|one, other| falling(one).cmp(&falling(other)), progress)?;
    Ok(order)
}

/// Takes pretokens in any order and ranks them; on the disk if memory is bounded.
pub struct Ranking {
    max_bytes: Option<u64>,
    counts: PretokenCounts,
    runs: Vec<SortedRun>,
    symbols: u64,
    pretokens: u64,
}

impl Ranking {
    /// `max_bytes` is how much memory may be taken until the words are laid out.
    pub fn new(max_bytes: Option<u64>) -> Self {
        let counts = PretokenCounts::default();
        Self { max_bytes, counts, runs: Vec::new(), symbols: 0, pretokens: 0 }
    }

    /// Adds a pretoken, once.
    ///
    /// # Errors
    /// The disk is full, or `progress` says stop.
    pub fn push(&mut self, pretoken: &[u8], count: u64, progress: &Progress) -> Result<()> {
        self.counts.push(pretoken, count);
        // A count, an end, and four bytes of order each; the strings are there twice when sorted.
        let bytes = 2 * self.counts.pretokens.total_bytes() + 36 * self.counts.counts.len();
        match self.max_bytes {
            Some(max_bytes) if bytes as u64 > max_bytes => self.write_run(progress),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// Those of [`push`](Self::push) and of [`Ranked::new`].
    pub fn finish(mut self, progress: &Progress) -> Result<Ranked> {
        if self.runs.is_empty() {
            return Ranked::new(self.counts);
        }
        self.write_run(progress)?;
        let Self { runs, symbols, pretokens, .. } = self;
        Ok(Ranked { words: Words::Disk(runs), symbols, pretokens })
    }

    fn write_run(&mut self, progress: &Progress) -> Result<()> {
        let PretokenCounts { pretokens, counts } = std::mem::take(&mut self.counts);
        self.pretokens += counts.len() as u64;
        let words = pretokens.iter().zip(counts).filter(|(word, _)| word.len() > 1);
        let ranked: ByteStrings = words.map(|(word, count)| ranked(word, count)).collect();
        self.symbols += (ranked.total_bytes() - (COMPLEMENT - 1) * ranked.len()) as u64;
        drop(pretokens);

        let mut order: Vec<u32> = (0..ranked.len() as u32).collect();
        let string = |&index: &u32| ranked.get(index as usize);
        sort(&mut order, &|one, other| string(one).cmp(string(other)), progress)?;
        let mut out = SortedRunWriter::create()?;
        for index in order {
            out.push(ranked.get(index as usize), 1, progress)?;
        }
        self.runs.push(out.finish()?);
        Ok(())
    }
}

/// The length of a count's complement.
const COMPLEMENT: usize = size_of::<u64>();

fn ranked(word: &[u8], count: u64) -> Vec<u8> {
    [&(!count).to_be_bytes(), word].concat()
}

/// Undoes [`ranked`].
fn unranked(string: &[u8]) -> (u64, &[u8]) {
    let (complement, word) = string.split_first_chunk().unwrap_or((&[0; COMPLEMENT], string));
    (!u64::from_be_bytes(*complement), word)
}

/// The error for more words than positions or indices can tell apart.
pub fn too_many_pretokens() -> Error {
    Error::invalid("more distinct pretokens than can be trained on: drop rare ones (min_count)")
}
