//! Counts files: made from text, and trained on.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::arguments::strings;
use super::errors::{guard, to_usage_error};
use super::options::{Resources, TextSource};
use super::tokenizer::PyTokenizer;
use super::watch::watch;
use crate::encode::encoder::Tokenizer;
use crate::files::input::{self, TextFields, cuts};
use crate::formats::check_savable as check;
use crate::progress::Progress;
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;
use crate::train;
use crate::train::count::{add_counts as add, claim_counts, save_counts};

/// Counts text files into a counts file; returns how many distinct pretokens it holds.
#[pyfunction]
pub fn count_pretokens(
    py: Python<'_>,
    source: TextSource,
    out: PathBuf,
    special_tokens: Vec<Bound<'_, PyString>>,
    pattern: &str,
    resources: Resources<'_>,
) -> PyResult<u64> {
    let special = SpecialTokens::new(&strings(&special_tokens)?).map_err(to_usage_error)?;
    let pattern = Pattern::parse(pattern).map_err(to_usage_error)?;
    // A pretoken that is rare here may be frequent in the sum: none is left out.
    let (paths, options) = (&source.paths, resources.training(&source, 1));
    watch(py, resources.progress.as_ref(), |progress: &Progress| {
        let _claim = claim_counts(&out, paths)?;
        let counts = train::count_files(paths, &special, &pattern, &options, progress)?;
        let pretokens = counts.len();
        save_counts(&out, counts, &pattern, &special, progress)?;
        Ok(pretokens)
    })
}

/// Whether a file holds JSON lines.
#[pyfunction]
pub fn holds_json_lines(path: PathBuf, text_field: Option<String>) -> PyResult<bool> {
    let fields = TextFields { json: text_field, ..TextFields::default() };
    guard(|| input::holds_json_lines(&path, &fields))
}

/// Writes the sum of counts files into one; returns how many distinct pretokens it holds.
#[pyfunction]
pub fn add_counts(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    out: PathBuf,
    resources: Resources<'_>,
) -> PyResult<u64> {
    watch(py, resources.progress.as_ref(), |progress: &Progress| add(&paths, &out, progress))
}

/// Refuses an output that `count_pretokens` would refuse.
#[pyfunction]
pub fn check_counts_output(py: Python<'_>, out: PathBuf, inputs: Vec<PathBuf>) -> PyResult<()> {
    watch(py, None, |_: &Progress| claim_counts(&out, &inputs).map(drop))
}

/// Where each file may be divided into parts of about so many bytes: the end of each, or None.
#[pyfunction]
pub fn text_cuts(
    py: Python<'_>,
    source: TextSource,
    part_bytes: usize,
    special_tokens: Vec<Bound<'_, PyString>>,
    pattern: &str,
) -> PyResult<Vec<Option<Vec<u64>>>> {
    let special = SpecialTokens::new(&strings(&special_tokens)?).map_err(to_usage_error)?;
    let pattern = Pattern::parse(pattern).map_err(to_usage_error)?;
    let fields = source.fields();
    watch(py, None, |progress: &Progress| {
        let cut = |path: &PathBuf| {
            progress.check()?;
            cuts(path, part_bytes, &pattern, &special, &fields)
        };
        source.paths.iter().map(cut).collect()
    })
}

/// Refuses what no tokenizer's files could hold, before the work of training one.
#[pyfunction]
pub fn check_savable(special_tokens: Vec<Bound<'_, PyString>>, pattern: &str) -> PyResult<()> {
    let special_tokens = strings(&special_tokens)?;
    let pattern = Pattern::parse(pattern).map_err(to_usage_error)?;
    check(&special_tokens, &pattern).map_err(to_usage_error)
}

/// Trains on the sum of counts files.
#[pyfunction]
pub fn train_counts(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    vocab_size: usize,
    min_count: u64,
    resources: Resources<'_>,
) -> PyResult<PyTokenizer> {
    let options = resources.counting(min_count);
    let job = |progress: &Progress| {
        let trained = train::train_counts(&paths, vocab_size, &options, progress)?;
        Tokenizer::new(trained.vocab()?, trained.special.tokens(), trained.pattern)
    };
    watch(py, resources.progress.as_ref(), job).map(PyTokenizer::from)
}

/// The patterns that have names, and their regular expressions.
#[pyfunction]
pub fn known_patterns() -> Vec<(String, String)> {
    Pattern::known().map(|known| (known.name().to_owned(), known.regex().to_owned())).collect()
}
