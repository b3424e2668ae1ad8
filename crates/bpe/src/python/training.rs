//! Training by way of counts files.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::errors::to_usage_error;
use super::tokenizer::{PyTokenizer, texts, threads_or_all};
use super::watch::watch;
use crate::encode::encoder::Tokenizer;
use crate::files::input::TextFields;
use crate::progress::Progress;
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;
use crate::train::count::{CountOptions, save_counts};
use crate::train::{TrainOptions, count_files, train_counts as train};

/// What counting depends on beside the text; `max_memory` is in bytes.
pub fn train_options(
    threads: Option<usize>,
    max_memory: Option<u64>,
    min_count: u64,
    fields: TextFields,
) -> TrainOptions {
    let count = CountOptions { threads: threads_or_all(threads), max_memory, min_count };
    TrainOptions { count, fields }
}

/// Where the text stands in files of records.
pub fn text_fields(text_field: Option<String>, text_column: String) -> TextFields {
    TextFields { json: text_field, parquet: text_column }
}

/// Counts text files into a counts file; returns how many distinct pretokens it holds.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "one for each of Python's")]
pub fn count_pretokens(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    out: PathBuf,
    special_tokens: Vec<Bound<'_, PyString>>,
    pattern: &str,
    threads: Option<usize>,
    max_memory: Option<u64>,
    text_field: Option<String>,
    text_column: String,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<u64> {
    let special = SpecialTokens::new(&texts(&special_tokens)?).map_err(to_usage_error)?;
    let pattern = Pattern::parse(pattern).map_err(to_usage_error)?;
    // A pretoken that is rare here may be frequent in all: none is left out.
    let options = train_options(threads, max_memory, 1, text_fields(text_field, text_column));
    watch(py, progress, |progress: &Progress| {
        let counts = count_files(&paths, &special, &pattern, &options, progress)?;
        let pretokens = counts.len();
        save_counts(&out, counts, &pattern, &special, progress)?;
        Ok(pretokens)
    })
}

/// Trains on the sum of counts files.
#[pyfunction]
pub fn train_counts(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    vocab_size: usize,
    min_count: u64,
    max_memory: Option<u64>,
    threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<PyTokenizer> {
    let options = CountOptions { threads: threads_or_all(threads), max_memory, min_count };
    let job = |progress: &Progress| {
        let trained = train(&paths, vocab_size, &options, progress)?;
        Tokenizer::new(trained.vocab()?, trained.special.tokens(), trained.pattern)
    };
    watch(py, progress, job).map(PyTokenizer::from)
}
