//! How pretokens are counted.

/// What counting and merging may use, and which pretokens are left out.
#[derive(Clone, Debug)]
pub struct CountOptions {
    /// How many threads to use.
    pub threads: usize,
    /// About how many bytes the tables may take in all; what does not fit is kept on disk, in the
    /// folder for temporary files.
    pub max_memory: Option<u64>,
    /// Leaves out what occurs less often in all.
    pub min_count: u64,
}

impl CountOptions {
    /// Unbounded memory, and nothing left out.
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), max_memory: None, min_count: 1 }
    }

    /// How large a thread's table may be when it takes another chunk: the chunk may double it, and
    /// for a moment the old one is there too.
    pub(super) fn max_table_bytes(&self) -> usize {
        let bytes = self.max_memory.map_or(u64::MAX, |bytes| bytes / self.threads as u64 / 4);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}
