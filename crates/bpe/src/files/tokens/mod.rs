//! Files -> tokens.npy: one array of ids that `numpy.load(path, mmap_mode="r")` maps, and beside
//! it a sidecar that says what they are.
//!
//! Each thread takes a chunk, encodes it and hands in the result (`job`). Where it belongs is
//! known as soon as all chunks before it are counted (`ledger`), and then whichever thread is there
//! writes it at its place (`shards`), outside the lock. Nothing is collected first: memory is
//! bounded by threads times chunk size (where files are read at the same time, ids wait on the disk:
//! `ahead`), and only adding up counts is done by one thread at a time.
//!
//! On the way documents may be split into training and validation (`split`), and the array into
//! shards; a job with shards can be resumed (`journal`).

mod ahead;
mod documents;
mod flusher;
mod job;
mod join;
mod journal;
mod ledger;
mod measure;
mod npy;
mod options;
mod outputs;
mod ownership;
mod shards;
mod sidecar;
mod split;
mod start;

use std::path::{Path, PathBuf};

pub use join::{Part, join_files};
pub use measure::count_tokens;
pub use options::EncodeOptions;
pub use sidecar::{EncodeStats, InputStats, ShardStats};

use crate::encode::encoder::Tokenizer;
use crate::error::Result;
use crate::files::input::Source;
use crate::progress::{Phase, Progress};
use crate::workers;
use ahead::Ahead;
use documents::DocumentsWriter;
use job::Job;
use ledger::Ledger;
use npy::Dtype;
use split::Split;
use start::{begin, claim, conclude, readable};

/// Encodes `paths` one after another into the array `out`, by up to `options.threads` threads.
/// The ids are those of [`Tokenizer::encode`] on each whole file, or on each record. Every file
/// appears whole or not at all; if the job fails, finished shards are all that is left.
///
/// # Errors
/// An option that makes no sense, an input that cannot be read, an output that cannot be written,
/// a text that cannot be encoded, [`Error::Cancelled`]; before any work an output that is also an
/// input, that was not written by this crate, or that another job is writing.
///
/// [`Error::Cancelled`]: crate::error::Error::Cancelled
pub fn encode_files(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    out: &Path,
    options: &EncodeOptions,
    progress: &Progress,
) -> Result<EncodeStats> {
    // To the end of the job.
    let (outputs, claimed) = claim(paths, out, options)?;
    let (paths, unreadable) = readable(paths, options)?;
    let (pattern, special) = (tokenizer.pattern(), tokenizer.special_tokens());
    let source = Source::open(&paths, pattern, special, &options.source())?;
    let dtype = Dtype::for_max_id(tokenizer.vocab().max_id());
    let settings = || options.settings(&paths);
    let (shards, position) = begin(&outputs, dtype, settings, options, progress)?;
    shards.check()?;
    let sidecars = sidecar::begin(&outputs)?;
    let documents = match options.documents {
        true => Some(DocumentsWriter::create(&outputs.documents())?),
        false => None,
    };

    progress.begin(Phase::Encoding, source.total_bytes());
    let mut turn = (source.start().file, source.start().offset);
    if position.chunk > 0 {
        source.seek(&position.place, progress)?;
        turn = (position.place.file, position.place.offset);
    }
    let split = Split::new(options.val_fraction, options.seed);
    let shard_tokens = options.shard_tokens.unwrap_or(u64::MAX);
    let ledger = Ledger::new(position, turn, shard_tokens, split, 4 * options.threads.max(1));
    let (source, shards, documents) = (&source, &shards, documents);
    let job = Job {
        tokenizer,
        source,
        shards,
        documents: documents.as_ref(),
        options,
        dtype,
        ledger,
        ahead: Ahead::beside(out),
        progress,
    };
    std::thread::scope(|scope| {
        workers::start(scope, options.threads.saturating_sub(1), || job.work());
        job.work();
    });
    let last = job.ledger.finish()?;
    let mut totals = last.resume_from.clone();
    totals.skipped.splice(0..0, unreadable);
    shards.close(last)?;
    documents.map_or(Ok(()), DocumentsWriter::commit)?;

    let finished = shards.finished();
    let stats = sidecar::stats(tokenizer, options, dtype, &paths, &outputs, &finished, totals);
    conclude(&outputs, claimed, shards, sidecars, &stats)?;
    Ok(stats)
}

/// Refuses, before any work, what [`encode_files`] and [`join_files`] would refuse.
///
/// # Errors
/// An option that makes no sense, an output that is also an input, that was not written by this
/// crate, or that another job is writing.
pub fn check_output(paths: &[PathBuf], out: &Path, options: &EncodeOptions) -> Result<()> {
    claim(paths, out, options).map(drop)
}
