//! The objects by which Python says what a job reads, what it may use and how it writes
//! (`cs336lm.text.options`), as the crate's options.

use std::ops::Range;
use std::path::PathBuf;
use std::thread::available_parallelism;

use pyo3::prelude::*;

use crate::files::input::TextFields;
use crate::train::TrainOptions;
use crate::train::count::CountOptions;

/// Python's `TextSource`: files, and where the text is in them.
#[derive(FromPyObject)]
pub struct TextSource {
    pub paths: Vec<PathBuf>,
    text_field: Option<String>,
    text_column: String,
    range: Option<(u64, u64)>,
}

impl TextSource {
    /// Where the text is in files of records.
    pub fn fields(&self) -> TextFields {
        TextFields { json: self.text_field.clone(), parquet: self.text_column.clone() }
    }

    /// The bytes to read of the only file, if not all.
    pub fn range(&self) -> Option<Range<u64>> {
        self.range.map(|(start, end)| start..end)
    }
}

/// Python's `Resources`: what a job may use, and a callback for its progress.
#[derive(FromPyObject)]
pub struct Resources<'py> {
    threads: Option<usize>,
    max_memory: Option<u64>,
    pub progress: Option<Bound<'py, PyAny>>,
}

impl Resources<'_> {
    /// How many threads to use.
    pub fn threads(&self) -> usize {
        threads_or_all(self.threads)
    }

    /// How to count, leaving out what occurs less often than `min_count`.
    pub fn counting(&self, min_count: u64) -> CountOptions {
        CountOptions { threads: self.threads(), max_memory: self.max_memory, min_count }
    }

    /// How to train on files, leaving out what occurs less often than `min_count`.
    pub fn training(&self, source: &TextSource, min_count: u64) -> TrainOptions {
        let (fields, range) = (source.fields(), source.range());
        TrainOptions { count: self.counting(min_count), fields, range }
    }
}

/// Python's `EncodeOptions`: how token files are written.
#[derive(FromPyObject)]
pub struct EncodeOptions {
    pub append_eot: bool,
    pub special_in_records: bool,
    pub val_fraction: f64,
    pub seed: u64,
    pub shard_tokens: Option<u64>,
    pub resume: bool,
    pub skip_errors: bool,
    pub documents: bool,
}

/// All cores that this process may use, unless a number is given.
pub fn threads_or_all(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(|| available_parallelism().map_or(1, usize::from)).max(1)
}
