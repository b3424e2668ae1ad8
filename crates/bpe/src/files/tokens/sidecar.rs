//! `tokens.json`: what is in `tokens.npy`, which tokenizer made it, and from what.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::ledger::Position;
use super::npy::Dtype;
use super::options::EncodeOptions;
use super::outputs::OutputPaths;
use super::split::{TRAIN, VAL};
use crate::encode::encoder::Tokenizer;
use crate::error::{Error, Result};
use crate::files::atomic_file::AtomicFile;

/// What was done, as the sidecar says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncodeStats {
    /// The version of this format.
    pub format: u32,
    /// The fingerprint of the tokenizer.
    pub tokenizer_sha256: String,
    /// One more than the largest id: what a model's embedding must hold.
    pub vocab_size: u64,
    /// `uint16` or `uint32`.
    pub dtype: &'static str,
    /// How many ids there are.
    pub tokens: u64,
    /// How many bytes of text they stand for.
    pub bytes: u64,
    /// Texts between separators and files' ends; an empty one at a file's end is not counted.
    pub documents: u64,
    /// The files that were encoded.
    pub inputs: Vec<InputStats>,
    /// The array's files in order, if it is in shards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardStats>,
    /// What was left out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// What went to validation; it has a sidecar of its own.
    #[serde(skip)]
    pub val: Option<Box<EncodeStats>>,
}

/// A file that was encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputStats {
    /// Its path, as given; in the sidecar, what of it is not UTF-8 is U+FFFD.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// How many bytes of text it held.
    pub bytes: u64,
}

/// One of the files of an array in shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardStats {
    /// Its name; it is beside the sidecar.
    pub file: PathBuf,
    /// How many ids it holds.
    pub tokens: u64,
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Whether this is what a sidecar holds, of this version or another.
pub fn is_one(json: &Value) -> bool {
    json["format"].is_u64()
        && json["tokenizer_sha256"].is_string()
        && json["dtype"].is_string()
        && json["tokens"].is_u64()
        && json["inputs"].is_array()
}

/// What is to be said about the arrays that were written.
pub fn stats(
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
    dtype: Dtype,
    paths: &[PathBuf],
    outputs: &OutputPaths,
    sizes: &[[u64; 2]],
    totals: Position,
) -> EncodeStats {
    let input = |(i, path): (usize, &PathBuf)| {
        let bytes = totals.file_bytes.get(i).copied().unwrap_or(0);
        InputStats { path: path.clone(), bytes }
    };
    let of_side = |side: usize| EncodeStats {
        format: 1,
        tokenizer_sha256: options.fingerprint.clone(),
        vocab_size: u64::from(tokenizer.vocab().max_id()) + 1,
        dtype: dtype.name(),
        tokens: totals.tokens[side],
        bytes: totals.bytes[side],
        documents: totals.documents[side],
        inputs: paths.iter().enumerate().map(input).collect(),
        shards: if options.shard_tokens.is_some() { shards(outputs, sizes, side) } else { vec![] },
        skipped: totals.skipped.clone(),
        val: None,
    };
    let val = (options.val_fraction > 0.0).then(|| Box::new(of_side(VAL)));
    EncodeStats { val, ..of_side(TRAIN) }
}

fn shards(outputs: &OutputPaths, sizes: &[[u64; 2]], side: usize) -> Vec<ShardStats> {
    let shard = |(number, sizes): (usize, &[u64; 2])| {
        let path = outputs.array(number, side);
        let file = path.file_name().map_or(path.as_path(), Path::new).to_path_buf();
        ShardStats { file, tokens: sizes[side] }
    };
    // The first exists even if it is empty: an array has at least one file.
    let has_file = |(number, shard): &(usize, ShardStats)| *number == 0 || shard.tokens > 0;
    sizes.iter().enumerate().map(shard).enumerate().filter(has_file).map(|(_, s)| s).collect()
}

/// Begins the sidecars of training and, if there is one, of validation, before the work: the older
/// ones will be gone, and what replaces them has their permissions.
pub fn begin(outputs: &OutputPaths) -> Result<Vec<AtomicFile>> {
    outputs.sides().map(|side| AtomicFile::create(&outputs.sidecar(side))).collect()
}

/// Writes the sidecars that were begun.
pub fn write(begun: Vec<AtomicFile>, stats: &EncodeStats) -> Result<()> {
    let sides = [Some(stats), stats.val.as_deref()];
    for (file, stats) in begun.into_iter().zip(sides.into_iter().flatten()) {
        let mut out = BufWriter::new(file.file());
        serde_json::to_writer_pretty(&mut out, stats)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n").and_then(|()| out.flush()))
            .map_err(|error| Error::io(file.path(), error))?;
        drop(out);
        file.commit()?;
    }
    Ok(())
}
