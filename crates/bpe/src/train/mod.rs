//! Counts -> merges: byte-pair encoding (Sennrich, Haddow, Birch: Neural Machine Translation of
//! Rare Words with Subword Units, 2016), from bytes.
//!
//! Start with every byte a token; merge the most frequent pair of neighbours, of several the one
//! with the greatest (left bytes, right bytes), into a new token, wherever it stands, leftmost
//! first; repeat. `tests.rs` holds that as an obvious program, and the real one to it.

mod budget;
pub mod count;
mod listing;
mod merging;
mod pairs;
mod partition;
mod survey;

use std::path::PathBuf;

use merging::Merging;

use crate::error::{Error, Result};
use crate::files::input::{DEFAULT_CHUNK_BYTES, Source, TextFields};
use crate::progress::{Phase, Progress};
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;
use crate::vocab::{TokenId, Vocab};
use count::{CountOptions, Counts, Ranked, count_pretokens, load_counts};

/// The ids of a new token's two parts: 0 to 255 are the bytes, 256 + k is the k-th merge.
pub type Merge = (TokenId, TokenId);

/// The merges in the order of their creation; fewer than `num_merges` if no pair is left.
///
/// The words are in memory while they are merged, at two bytes each of theirs and one more (four
/// for a vocabulary beyond 65,535). `max_memory`, in bytes, bounds what comes on top.
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
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    let pool = pool.map_err(|error| Error::invalid(format!("{threads} threads: {error}")))?;
    pool.install(|| match 256 + num_merges <= usize::from(u16::MAX) {
        true => Merging::<u16>::new(words, threads, max_memory, progress)?.run(num_merges),
        false => Merging::<u32>::new(words, threads, max_memory, progress)?.run(num_merges),
    })
}

/// What training makes of text: all that a tokenizer is.
#[derive(Clone, Debug)]
pub struct Trained {
    pub merges: Vec<Merge>,
    pub special: SpecialTokens,
    pub pattern: Pattern,
    /// How many merges were asked for but not to be had: the text held no more pairs.
    pub missing_merges: usize,
}

impl Trained {
    pub fn vocab(&self) -> Result<Vocab> {
        Vocab::from_merges(&self.merges, self.special.tokens())
    }
}

#[derive(Clone, Debug)]
pub struct TrainOptions {
    pub count: CountOptions,
    /// Where the text stands in files of records.
    pub fields: TextFields,
}

impl TrainOptions {
    pub fn new(threads: usize) -> Self {
        Self { count: CountOptions::new(threads), fields: TextFields::default() }
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
    num_merges(vocab_size, special)?;
    let counts = count_files(paths, special, pattern, options, progress)?;
    let words = counts.ranked(options.count.max_memory, progress)?;
    train_on(paths, words, vocab_size, special, pattern, &options.count, progress)
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
    let fields = &options.fields;
    let source = Source::open_records(paths, pattern, special, DEFAULT_CHUNK_BYTES, fields)?;
    count_pretokens(&source, pattern, special, &options.count, progress)
}

/// Counts files -> the tokenizer that [`train`] makes of all the text they were counted of.
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
    train_on(paths, words, vocab_size, &special, &pattern, options, progress)
}

fn train_on(
    paths: &[PathBuf],
    words: Ranked,
    vocab_size: usize,
    special: &SpecialTokens,
    pattern: &Pattern,
    options: &CountOptions,
    progress: &Progress,
) -> Result<Trained> {
    let num_merges = num_merges(vocab_size, special)?;
    if words.pretokens() == 0 {
        return Err(nothing_to_learn(paths));
    }
    let &CountOptions { threads, max_memory, .. } = options;
    let merges = train_merges(words, num_merges, threads, max_memory, progress)?;
    let missing_merges = num_merges - merges.len();
    let (special, pattern) = (special.clone(), pattern.clone());
    Ok(Trained { merges, special, pattern, missing_merges })
}

/// How many merges make a vocabulary of this size. Refuses special tokens of a single byte, which
/// have an id already, and sizes that hold not even the bytes and the special tokens.
pub fn num_merges(vocab_size: usize, special: &SpecialTokens) -> Result<usize> {
    if let Some(token) = special.tokens().iter().find(|token| token.len() == 1) {
        return Err(Error::invalid(format!(
            "special token {token:?}: is a single byte, which is a token already; choose a longer one"
        )));
    }
    let (needed, specials) = (256 + special.tokens().len(), special.tokens().len());
    vocab_size.checked_sub(needed).ok_or_else(|| {
        Error::invalid(format!(
            "vocab_size {vocab_size}: must be at least {needed}, for 256 bytes and {specials} special tokens"
        ))
    })
}

fn nothing_to_learn(paths: &[PathBuf]) -> Error {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let names = match names.len() {
        0 => "no files given".to_owned(),
        1..4 => names.join(", "),
        number => format!("{} and {} other files", names[0], number - 1),
    };
    Error::invalid(format!("{names}: no text to train on, nothing but special tokens at most"))
}

#[cfg(test)]
mod tests;
