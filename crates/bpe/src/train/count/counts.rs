//! The result of counting: in memory or, where memory is bounded and was not enough, on the disk.

use super::pretoken_counts::PretokenCounts;
use super::ranked::{Ranked, Ranking};
use super::sort::sort;
use super::spill::{self, SortedRun};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Every distinct pretoken of a text, and how often it occurs.
pub enum Counts {
    /// In no particular order.
    Memory(PretokenCounts),
    /// In ascending order.
    Disk(SortedRun),
}

impl Counts {
    /// How many distinct pretokens there are.
    pub fn len(&self) -> u64 {
        match self {
            Counts::Memory(counts) => counts.counts.len() as u64,
            Counts::Disk(run) => run.entries(),
        }
    }

    /// Whether there are none.
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
