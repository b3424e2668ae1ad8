//! `tokens.json`: what is in `tokens.npy`, which tokenizer made it, and from what.
//!
//! Since format 2 it is [sealed](crate::files::sealed), and has the CRC-32 of the ids' bytes of each
//! array: damage is told from what was written.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::journal::FinishedShard;
use super::ledger::Position;
use super::npy::Dtype;
use super::options::EncodeOptions;
use super::outputs::OutputPaths;
use super::split::{TRAIN, VAL};
use crate::encode::encoder::Tokenizer;
use crate::error::{Error, Result};
use crate::files::atomic_file::AtomicFile;
use crate::files::sealed::{Seal, seal, sealed};

/// The version of what is written.
const FORMAT: u32 = 2;

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
    /// The CRC-32 of the ids' bytes, if the array is in one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<u32>,
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
    /// The CRC-32 of their bytes.
    pub crc32: u32,
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
    finished: &[FinishedShard],
    totals: Position,
) -> EncodeStats {
    let input = |(i, path): (usize, &PathBuf)| {
        let bytes = totals.file_bytes.get(i).copied().unwrap_or(0);
        InputStats { path: path.clone(), bytes }
    };
    let is_sharded = options.shard_tokens.is_some();
    let of_side = |side: usize| EncodeStats {
        format: FORMAT,
        tokenizer_sha256: options.fingerprint.clone(),
        vocab_size: u64::from(tokenizer.vocab().max_id()) + 1,
        dtype: dtype.name(),
        tokens: totals.tokens[side],
        bytes: totals.bytes[side],
        documents: totals.documents[side],
        inputs: paths.iter().enumerate().map(input).collect(),
        shards: if is_sharded { shards(outputs, finished, side) } else { vec![] },
        crc32: finished.first().filter(|_| !is_sharded).map(|shard| shard.crc32[side]),
        skipped: totals.skipped.clone(),
        val: None,
    };
    let val = (options.val_fraction > 0.0).then(|| Box::new(of_side(VAL)));
    EncodeStats { val, ..of_side(TRAIN) }
}

fn shards(outputs: &OutputPaths, finished: &[FinishedShard], side: usize) -> Vec<ShardStats> {
    let shard = |(number, shard): (usize, &FinishedShard)| {
        let path = outputs.array(number, side);
        let file = path.file_name().map_or(path.as_path(), Path::new).to_path_buf();
        ShardStats { file, tokens: shard.sizes[side], crc32: shard.crc32[side] }
    };
    // The first exists even if it is empty: an array has at least one file.
    let has_file = |(number, shard): &(usize, ShardStats)| *number == 0 || shard.tokens > 0;
    finished.iter().enumerate().map(shard).enumerate().filter(has_file).map(|(_, s)| s).collect()
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
        sealed(stats)
            .and_then(|content| file.file().write_all(&content))
            .map_err(|error| Error::io(file.path(), error))?;
        file.commit()?;
    }
    Ok(())
}

/// Whether a sidecar's bytes are as they were written, as far as they tell: those of before format
/// 2 do not.
pub fn is_intact(bytes: &[u8], json: &Value) -> bool {
    match seal(bytes) {
        Seal::Whole => true,
        Seal::Broken => false,
        Seal::Missing => json["format"] == 1 && json.get("checksum").is_none(),
    }
}
