//! Counts -> merges: byte-pair encoding (Sennrich, Haddow, Birch: Neural Machine Translation of
//! Rare Words with Subword Units, 2016), from bytes.
//!
//! Start with every byte a token; merge the most frequent pair of neighbours, of several the one
//! with the greatest (left bytes, right bytes), into a new token, wherever it occurs, leftmost
//! first; repeat. `tests.rs` has that as an obvious program, which the real one must equal.

mod budget;
pub mod count;
mod dense;
mod listing;
mod merging;
mod pairs;
mod partition;
mod survey;
mod threshold;

use std::ops::Range;
use std::path::PathBuf;

pub use merging::Merge;
use merging::Merging;

use crate::error::{Error, Result};
use crate::files::input::{Source, SourceOptions, TextFields};
use crate::progress::{Phase, Progress};
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;
use crate::vocab::Vocab;
use crate::workers;
use count::{CountOptions, Counts, Ranked, count_pretokens, load_counts};

/// What training learns from text: everything that a tokenizer is.
#[derive(Clone, Debug)]
pub struct Trained {
    /// In the order of their creation.
    pub merges: Vec<Merge>,
    /// The special tokens, whose ids follow those of the merges.
    pub special: SpecialTokens,
    /// How text is divided into pretokens.
    pub pattern: Pattern,
    /// How many merges were asked for but could not be made: the text held no more pairs.
    pub missing_merges: usize,
}

impl Trained {
    /// The vocabulary: 256 bytes, merges, special tokens.
    ///
    /// # Errors
    /// A special token is also the result of a merge.
    pub fn vocab(&self) -> Result<Vocab> {
        Vocab::from_merges(&self.merges, self.special.tokens())
    }
}

/// How files are trained on.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// How their pretokens are counted, and what merging may use.
    pub count: CountOptions,
    /// Where the text is in files of records.
    pub fields: TextFields,
    /// The bytes to read of the only file, if not all (`files::input::cuts`).
    pub range: Option<Range<u64>>,
}

impl TrainOptions {
    /// Unbounded memory, and nothing left out.
    pub fn new(threads: usize) -> Self {
        Self { count: CountOptions::new(threads), fields: TextFields::default(), range: None }
    }
}

/// Files -> a tokenizer: 256 bytes, then merges, then the special tokens make `vocab_size`.
///
/// # Errors
/// `vocab_size` is too small, a file cannot be read, or there is no text in the files.
pub fn train(
    paths: &[PathBuf],
    vocab_size: usize,
    special: &SpecialTokens,
    pattern: &Pattern,
    options: &TrainOptions,
    progress: &Progress,
) -> Result<Trained> {
    let num_merges = num_merges(vocab_size, special)?;
    let counts = count_files(paths, special, pattern, options, progress)?;
    let words = counts.ranked(options.count.max_memory, progress)?;
    check_not_empty(&words, paths)?;
    let (special, pattern) = (special.clone(), pattern.clone());
    train_words(words, num_merges, special, pattern, &options.count, progress)
}

/// What [`train`] counts, to be saved and trained on later.
///
/// # Errors
/// A file cannot be read.
pub fn count_files(
    paths: &[PathBuf],
    special: &SpecialTokens,
    pattern: &Pattern,
    options: &TrainOptions,
    progress: &Progress,
) -> Result<Counts> {
    let (fields, range) = (options.fields.clone(), options.range.clone());
    let reading = SourceOptions { fields, range, ..SourceOptions::default() };
    let source = Source::open(paths, pattern, special, &reading)?;
    count_pretokens(&source, &options.count, progress)
}

/// Counts files -> the tokenizer that [`train`] makes from all the text they were counted from.
///
/// # Errors
/// Those of [`load_counts`] and [`train`].
pub fn train_counts(
    paths: &[PathBuf],
    vocab_size: usize,
    options: &CountOptions,
    progress: &Progress,
) -> Result<Trained> {
    let &CountOptions { min_count, max_memory, .. } = options;
    let (words, pattern, special) = load_counts(paths, min_count, max_memory, progress)?;
    let num_merges = num_merges(vocab_size, &special)?;
    check_not_empty(&words, paths)?;
    train_words(words, num_merges, special, pattern, options, progress)
}

fn train_words(
    words: Ranked,
    num_merges: usize,
    special: SpecialTokens,
    pattern: Pattern,
    options: &CountOptions,
    progress: &Progress,
) -> Result<Trained> {
    let &CountOptions { threads, max_memory, .. } = options;
    let merges = train_merges(words, num_merges, threads, max_memory, progress)?;
    let missing_merges = num_merges - merges.len();
    Ok(Trained { merges, special, pattern, missing_merges })
}

/// The merges in the order of their creation; fewer than `num_merges` if no pair is left.
///
/// The words are in memory while they are merged, at two bytes for each of their bytes and two more
/// for each word (four for a vocabulary beyond 65,535). `max_memory`, in bytes, bounds what comes
/// on top.
///
/// # Errors
/// `progress` says stop, or the words are too many or cannot be read back from the disk.
pub fn train_merges(
    words: Ranked,
    num_merges: usize,
    threads: usize,
    max_memory: Option<u64>,
    progress: &Progress,
) -> Result<Vec<Merge>> {
    progress.begin(Phase::Merging, num_merges as u64);
    let pool = workers::pool(threads)?;
    pool.install(|| match 256 + num_merges <= usize::from(u16::MAX) {
        true => Merging::<u16>::new(words, threads, max_memory, progress)?.run(num_merges),
        false => Merging::<u32>::new(words, threads, max_memory, progress)?.run(num_merges),
    })
}

/// How many merges make a vocabulary of this size.
///
/// # Errors
/// A special token is a single byte, which has an id already, or the size is too small for the
/// bytes and the special tokens.
pub fn num_merges(vocab_size: usize, special: &SpecialTokens) -> Result<usize> {
    if let Some(token) = special.tokens().iter().find(|token| token.len() == 1) {
        return Err(Error::invalid(format!(
            "special token {token:?}: is a single byte, which is a token already; choose a longer \
             one"
        )));
    }
    let (needed, specials) = (256 + special.tokens().len(), special.tokens().len());
    vocab_size.checked_sub(needed).ok_or_else(|| {
        Error::invalid(format!(
            "vocab_size {vocab_size}: must be at least {needed}, for 256 bytes and {specials} \
             special tokens"
        ))
    })
}

fn check_not_empty(words: &Ranked, paths: &[PathBuf]) -> Result<()> {
    if words.pretokens() > 0 {
        return Ok(());
    }
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let names = match names.len() {
        0 => "no files given".to_owned(),
        1..4 => names.join(", "),
        number => format!("{} and {} other files", names[0], number - 1),
    };
    Err(Error::invalid(format!("{names}: no text to train on (special tokens do not count)")))
}

#[cfg(test)]
mod tests;
