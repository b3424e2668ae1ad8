//! Files -> tokens.npy: one array of ids that `numpy.load(path, mmap_mode="r")` maps, and beside
//! it a sidecar that says what they are.
//!
//! Each thread takes a chunk, encodes it and hands in the result. Where it belongs is known as
//! soon as all chunks before it are counted ([`ledger`]), and then whichever thread is there
//! writes it at its place ([`shards`]), outside the lock. Nothing is gathered: memory is bounded
//! by threads times chunk size, and the only thing done one at a time is adding up counts.
//!
//! On the way documents may be split into training and validation ([`split`]), and the array into
//! shards; a job with shards can be resumed ([`journal`]).

mod flusher;
mod journal;
mod ledger;
mod measure;
pub mod npy;
mod shards;
mod sidecar;
mod split;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use measure::count_tokens;
pub use sidecar::{EncodeStats, InputStats, ShardStats};

use crate::encode::encoder::Tokenizer;
use crate::encode::output::Output;
use crate::encode::words::WordEncoder;
use crate::error::{Error, Result};
use crate::files::input::{DEFAULT_CHUNK_BYTES, STDIN, Source, TextFields};
use crate::progress::{Phase, Progress};
use crate::text::special::Segment as Part;
use crate::vocab::TokenId;
use journal::Journal;
use ledger::{Entry, Ledger, Position};
use npy::{Dtype, StoredIds};
use shards::{Names, Shards};
use split::Split;

#[derive(Clone, Debug)]
pub struct EncodeOptions {
    pub threads: usize,
    /// Where the text stands in files of records.
    pub fields: TextFields,
    /// Appended after each record and after each file that is not one of records.
    pub append_eot: Option<TokenId>,
    /// What ends a document inside a file or a record.
    pub separator: Option<TokenId>,
    /// The tokenizer's SHA-256, for the sidecar.
    pub fingerprint: String,
    pub chunk_bytes: usize,
    /// How much of all documents, chosen by `seed`, goes to `tokens.val.npy`: 0 to 1.
    pub val_fraction: f64,
    pub seed: u64,
    /// Into files of so many tokens each (`tokens-00000.npy`), which the sidecar lists.
    pub shard_tokens: Option<u64>,
    /// Goes on after the last finished shard of an interrupted job, if there was one.
    pub resume: bool,
    /// Leaves out what cannot be read or encoded, and says so in the sidecar, rather than fail.
    pub skip_errors: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            fields: TextFields::default(),
            append_eot: None,
            separator: None,
            fingerprint: String::new(),
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            val_fraction: 0.0,
            seed: 0,
            shard_tokens: None,
            resume: false,
            skip_errors: false,
        }
    }
}

impl EncodeOptions {
    fn check(&self, out: &Path) -> Result<()> {
        if out.extension().is_none_or(|extension| extension != "npy") {
            return Err(Error::invalid(format!(
                "{}: the output must end in .npy (its sidecar gets the same name with .json)",
                out.display()
            )));
        }
        if !(0.0..=1.0).contains(&self.val_fraction) {
            let given = self.val_fraction;
            return Err(Error::invalid(format!("val_fraction {given}: must be from 0 to 1")));
        }
        if self.val_fraction > 0.0 && self.separator.is_none() {
            return Err(Error::invalid(
                "val_fraction: the tokenizer has no token that separates documents; train it with \
                 --special-token '<|endoftext|>'",
            ));
        }
        if self.shard_tokens == Some(0) {
            return Err(Error::invalid("shard_tokens 0: a shard needs a token"));
        }
        if self.resume && self.shard_tokens.is_none() {
            return Err(Error::invalid(
                "resume: only a job with shards can be resumed; give shard_tokens",
            ));
        }
        Ok(())
    }

    /// All that decides which id stands where.
    fn settings(&self, paths: &[PathBuf]) -> Result<Value> {
        Ok(json!({
            "tokenizer": self.fingerprint,
            "input": paths.iter().map(|path| self.describe(path)).collect::<Result<Vec<_>>>()?,
            "text_field": self.fields.json,
            "text_column": self.fields.parquet,
            "shard_tokens": self.shard_tokens,
            "val_fraction": self.val_fraction.to_string(),
            "seed": self.seed,
            "append_eot": self.append_eot,
            "separator": self.separator,
            "skip_errors": self.skip_errors,
        }))
    }

    /// What tells whether an input is still the same.
    fn describe(&self, path: &Path) -> Result<Value> {
        if path == Path::new(STDIN) {
            return match self.resume {
                true => Err(Error::invalid(
                    "-: standard input cannot be read a second time; only files can be resumed",
                )),
                false => Ok(json!(STDIN)),
            };
        }
        let metadata = fs::metadata(path).map_err(|error| Error::io(path, error))?;
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(json!([path, metadata.len(), since.map(|since| since.as_nanos().to_string())]))
    }
}

/// Encodes `paths` one after another into the array `out`, by up to `options.threads` threads.
/// The ids are those of [`Tokenizer::encode`] on each whole file, or on each record. Every file
/// appears whole or not at all; if the job fails, finished shards are all that is left.
///
/// # Errors
/// An option that makes no sense, an input that cannot be read, an output that cannot be written,
/// a text that cannot be encoded, [`Error::Cancelled`].
pub fn encode_files(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    out: &Path,
    options: &EncodeOptions,
    progress: &Progress,
) -> Result<EncodeStats> {
    options.check(out)?;
    let (paths, unreadable) = readable(paths, options)?;
    let (pattern, special) = (tokenizer.pattern(), tokenizer.special_tokens());
    let source =
        Source::open_records(&paths, pattern, special, options.chunk_bytes, &options.fields)?
            .skipping_errors(options.skip_errors);
    let dtype = Dtype::for_max_id(tokenizer.vocab().max_id());
    let names = Names::new(out, options.shard_tokens.is_some());
    let (shards, position) = begin(&names, dtype, &paths, options)?;
    shards.check()?;

    progress.begin(Phase::Encoding, source.total_bytes());
    source.seek(position.chunk, &position.place, progress)?;
    let split = Split::new(options.val_fraction, options.seed);
    let shard_tokens = options.shard_tokens.unwrap_or(u64::MAX);
    let ledger = Ledger::new(position, shard_tokens, split, 4 * options.threads.max(1));
    let job = Job { tokenizer, source: &source, shards: &shards, options, dtype, ledger, progress };
    std::thread::scope(|scope| {
        for _ in 1..options.threads {
            scope.spawn(|| job.work());
        }
        job.work();
    });
    let last = job.ledger.finish()?;
    let mut totals = last.resume_from.clone();
    totals.skipped.splice(0..0, unreadable);
    shards.close(last)?;

    let stats = sidecar::stats(tokenizer, options, dtype, &paths, &names, &shards.sizes(), totals);
    sidecar::write(&names, &stats)?;
    Journal::new(names.journal(), Value::Null).remove()?;
    Ok(stats)
}

/// The inputs to read, and those to leave out with the reason.
fn readable(paths: &[PathBuf], options: &EncodeOptions) -> Result<(Vec<PathBuf>, Vec<String>)> {
    if !options.skip_errors {
        return Ok((paths.to_vec(), Vec::new()));
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for path in paths {
        match File::open(path) {
            Ok(_) if !path.is_dir() => good.push(path.clone()),
            Ok(_) => bad.push(format!("{}: is a directory", path.display())),
            Err(error) => bad.push(Error::io(path, error).to_string()),
        }
    }
    Ok((good, bad))
}

/// The files to write to, and where to begin in the input: at its start, or where an interrupted
/// job left off.
fn begin(
    names: &Names,
    dtype: Dtype,
    paths: &[PathBuf],
    options: &EncodeOptions,
) -> Result<(Shards, Position)> {
    let has_val = options.val_fraction > 0.0;
    if options.shard_tokens.is_none() {
        let shards = Shards::new(names.clone(), dtype, has_val, Vec::new(), None);
        return Ok((shards, Position::default()));
    }
    let journal = Journal::new(names.journal(), options.settings(paths)?);
    let (sizes, position) = match options.resume {
        true => journal.read()?.unwrap_or_default(),
        false => Default::default(),
    };
    if sizes.is_empty() {
        journal.remove()?;
    }
    Ok((Shards::new(names.clone(), dtype, has_val, sizes, Some(journal)), position))
}

/// What all threads of a call share.
struct Job<'a> {
    tokenizer: &'a Tokenizer,
    source: &'a Source,
    shards: &'a Shards,
    options: &'a EncodeOptions,
    dtype: Dtype,
    ledger: Ledger,
    progress: &'a Progress,
}

impl Job<'_> {
    /// One thread's work: chunks until there are no more, or until some thread fails.
    fn work(&self) {
        let _guard = FailOnPanic(&self.ledger);
        let result = self.tokenizer.with_words(|words| {
            let mut text = Vec::new();
            while self.work_on_one(words, &mut text)? {}
            Ok(())
        });
        if let Err(error) = result {
            self.ledger.fail(error);
        }
    }

    fn work_on_one(&self, words: &mut WordEncoder, text: &mut Vec<u8>) -> Result<bool> {
        let Some(buffer) = self.ledger.wait_for_room() else { return Ok(false) };
        let Some(chunk) = self.source.read_next(text)? else { return Ok(false) };
        let mut ids = StoredIds::new(self.dtype, buffer);
        let mut entry = Entry {
            bytes: Vec::new(),
            segments: Vec::new(),
            start: chunk.start.clone(),
            text_bytes: text.len() as u64,
            skipped: chunk.skipped.clone(),
        };
        let ends_document = chunk.has_records() || chunk.ends_file;
        for piece in chunk.pieces(text) {
            self.encode_piece(words, piece, ends_document, &mut ids, &mut entry)?;
        }
        entry.bytes = ids.into_bytes();
        for mut assigned in self.ledger.submit(chunk.index, entry) {
            self.shards.write(&mut assigned)?;
            self.ledger.give_back(assigned.bytes);
        }
        self.progress.advance(chunk.input_bytes)?;
        Ok(true)
    }

    /// Encodes a record, or what of a file is in a chunk, and notes its documents.
    fn encode_piece(
        &self,
        words: &mut WordEncoder,
        text: &[u8],
        ends_document: bool,
        ids: &mut StoredIds,
        entry: &mut Entry,
    ) -> Result<()> {
        let from = ids.len();
        let skipped = self.encode(words, self.source.path(entry.start.file), text, ids)?;
        let mut segments = split::segments(ids, from, self.options.separator, ends_document);
        if self.options.val_fraction > 0.0 || !skipped.is_empty() {
            split::count_bytes(&mut segments, ids, from, self.tokenizer.vocab());
        } else if let Some(first) = segments.first_mut() {
            // All on one side: it need not be known which document has how many.
            first.bytes = text.len() as u64;
        }
        if let Some(eot) = self.options.append_eot
            && let Some(last) = segments.last_mut()
            && ends_document
        {
            ids.append(&[eot]);
            last.end += 1;
        }
        entry.segments.append(&mut segments);
        entry.skipped.extend(skipped);
        Ok(())
    }

    /// Encodes a text; returns what had to be left out of it, if that is wished.
    fn encode(
        &self,
        words: &mut WordEncoder,
        path: &Path,
        text: &[u8],
        ids: &mut StoredIds,
    ) -> Result<Vec<String>> {
        match self.tokenizer.encode_with(words, text, ids) {
            Err(Error::Invalid(_)) if self.options.skip_errors => {}
            result => return result.map(|()| Vec::new()),
        }
        // Once more, each text between special tokens by itself.
        let mut skipped = Vec::new();
        self.tokenizer.special_tokens().for_each_segment(text, |part| {
            match part {
                Part::Special(index) => ids.append(&[self.tokenizer.special_ids()[index]]),
                Part::Text(part) => match self.tokenizer.encode_with(words, part, ids) {
                    Err(Error::Invalid(why)) => {
                        let len = part.len();
                        skipped.push(format!("{}: {len} bytes: {why}", path.display()));
                    }
                    result => result?,
                },
            }
            Ok(())
        })?;
        Ok(skipped)
    }
}

/// A thread that panics never hands in its chunk: the others must not wait for it.
struct FailOnPanic<'a>(&'a Ledger);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::invalid("a thread panicked while encoding"));
        }
    }
}
