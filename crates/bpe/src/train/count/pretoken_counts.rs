//! Counts in memory.

use crate::store::byte_strings::ByteStrings;

/// Every distinct pretoken of a text, in no particular order, and how often it occurs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PretokenCounts {
    /// The pretokens, each once.
    pub pretokens: ByteStrings,
    /// How often each occurs, in the same order.
    pub counts: Vec<u64>,
}

impl PretokenCounts {
    /// Adds a pretoken that is not there yet.
    pub(super) fn push(&mut self, pretoken: &[u8], count: u64) {
        self.pretokens.push(pretoken);
        self.counts.push(count);
    }

    /// Adds other pretokens, none of which is there yet.
    pub(super) fn append(&mut self, other: PretokenCounts) {
        self.pretokens.append(&other.pretokens);
        self.counts.extend(other.counts);
    }

    /// Drops what occurs less often than `min_count`.
    pub(super) fn drop_rare(&mut self, min_count: u64) {
        if min_count <= 1 {
            return;
        }
        let all = std::mem::take(self);
        for (pretoken, count) in all.pretokens.iter().zip(all.counts) {
            if count >= min_count {
                self.push(pretoken, count);
            }
        }
    }
}
