//! What a job begins with: the inputs that can be read, the files to write, the place to go on at.

use std::path::PathBuf;

use serde_json::Value;

use super::journal::Journal;
use super::ledger::Position;
use super::npy::Dtype;
use super::options::EncodeOptions;
use super::outputs::OutputPaths;
use super::shards::Shards;
use crate::error::Result;
use crate::files::input;
use crate::progress::Progress;

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
        let shards = Shards::new(outputs.clone(), dtype, has_val, Vec::new(), None);
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
