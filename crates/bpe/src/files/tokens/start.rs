//! What a job begins with: its outputs to itself, the inputs that can be read, the files to write,
//! the place to go on at; and what it ends with.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::journal::Journal;
use super::ledger::Position;
use super::npy::Dtype;
use super::options::EncodeOptions;
use super::outputs::OutputPaths;
use super::ownership::{self, Claimed};
use super::shards::Shards;
use super::sidecar::{self, EncodeStats};
use crate::error::Result;
use crate::files::atomic_file::AtomicFile;
use crate::files::input;
use crate::progress::Progress;

/// The job's outputs, which are its own from here on.
///
/// # Errors
/// An option that makes no sense, an output that is also an input, that was not written by this
/// crate, or that another job is writing.
pub fn claim(
    paths: &[PathBuf],
    out: &Path,
    options: &EncodeOptions,
) -> Result<(OutputPaths, Claimed)> {
    options.check(out)?;
    ownership::check_name(out)?;
    let (has_shards, has_val) = (options.shard_tokens.is_some(), options.val_fraction > 0.0);
    let outputs = OutputPaths::new(out, has_shards, has_val);
    let claimed = ownership::claim(&outputs, paths)?;
    Ok((outputs, claimed))
}

/// Writes the sidecars, once all arrays are there, and removes what nobody needs any more: the
/// journal, and what older jobs left.
pub fn conclude(
    outputs: &OutputPaths,
    claimed: Claimed,
    shards: &Shards,
    sidecars: Vec<AtomicFile>,
    stats: &EncodeStats,
) -> Result<()> {
    sidecar::write(sidecars, stats)?;
    shards.remove_journal()?;
    claimed.remove_older(outputs, &shards.finished())
}

/// The inputs to read, and those to leave out with the reason.
pub fn readable(paths: &[PathBuf], options: &EncodeOptions) -> Result<(Vec<PathBuf>, Vec<String>)> {
    if !options.skip_errors {
        return Ok((paths.to_vec(), Vec::new()));
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for path in paths {
        match input::check(path, &options.fields) {
            Ok(()) => good.push(path.clone()),
            Err(error) => bad.push(error.to_string()),
        }
    }
    Ok((good, bad))
}

/// The files to write to, and where to begin in the input: at its start, or where an interrupted
/// job stopped.
pub fn begin(
    outputs: &OutputPaths,
    dtype: Dtype,
    settings: impl FnOnce() -> Result<Value>,
    options: &EncodeOptions,
    progress: &Progress,
) -> Result<(Shards, Position)> {
    let has_val = options.val_fraction > 0.0;
    if options.shard_tokens.is_none() {
        let claim = whole_claim(outputs, options);
        let shards = Shards::new(outputs.clone(), dtype, has_val, Vec::new(), claim);
        return Ok((shards, Position::default()));
    }
    let journal = Journal::new(outputs.journal(), settings()?);
    let (finished, position) = match options.resume {
        true => journal.read()?.unwrap_or_default(),
        false => Default::default(),
    };
    match finished.is_empty() {
        true => journal.remove()?,
        false => journal.verify(outputs, dtype, &finished, progress)?,
    }
    Ok((Shards::new(outputs.clone(), dtype, has_val, finished, Some(journal)), position))
}

/// The journal of a job without shards: nothing is resumed by it, but from the first array's name
/// to the last sidecar's it says whose the arrays are. None where somebody else's file has its name.
fn whole_claim(outputs: &OutputPaths, options: &EncodeOptions) -> Option<Journal> {
    let path = outputs.journal();
    let is_free = path.symlink_metadata().is_err() || ownership::is_journal(&path);
    is_free.then(|| Journal::new(path, json!({ "tokenizer": options.fingerprint })))
}
