//! `tokens.json`: what stands in `tokens.npy`, which tokenizer made it, and of what.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::EncodeOptions;
use super::ledger::Position;
use super::npy::Dtype;
use super::shards::Names;
use super::split::{TRAIN, VAL};
use crate::encode::encoder::Tokenizer;
use crate::error::Result;
use crate::files::atomic_file::write_atomically;

/// What was done, as the sidecar says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncodeStats {
    /// The version of this format.
    pub format: u32,
    pub tokenizer_sha256: String,
    /// One more than the largest id: what a model's embedding must hold.
    pub vocab_size: u64,
    /// `uint16` or `uint32`.
    pub dtype: &'static str,
    pub tokens: u64,
    /// Of text.
    pub bytes: u64,
    /// Texts between separators and files' ends, empty ones at a file's end not counted.
    pub documents: u64,
    pub inputs: Vec<InputStats>,
    /// The array's files in order, if it was split.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<ShardStats>,
    /// What was left out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// What went to validation; it has a sidecar of its own.
    #[serde(skip)]
    pub val: Option<Box<EncodeStats>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputStats {
    pub path: PathBuf,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardStats {
    /// The name of a file beside the sidecar.
    pub file: PathBuf,
    pub tokens: u64,
}

pub fn stats(
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
    dtype: Dtype,
    paths: &[PathBuf],
    names: &Names,
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
        shards: if options.shard_tokens.is_some() { shards(names, sizes, side) } else { vec![] },
        skipped: totals.skipped.clone(),
        val: None,
    };
    let val = (options.val_fraction > 0.0).then(|| Box::new(of_side(VAL)));
    EncodeStats { val, ..of_side(TRAIN) }
}

fn shards(names: &Names, sizes: &[[u64; 2]], side: usize) -> Vec<ShardStats> {
    let shard = |(number, sizes): (usize, &[u64; 2])| {
        let path = names.array(number, side);
        let file = path.file_name().map_or(path.as_path(), Path::new).to_path_buf();
        ShardStats { file, tokens: sizes[side] }
    };
    // The first is there even if it is empty: an array has at least one file.
    let has_file = |(number, shard): &(usize, ShardStats)| *number == 0 || shard.tokens > 0;
    sizes.iter().enumerate().map(shard).enumerate().filter(has_file).map(|(_, s)| s).collect()
}

pub fn write(names: &Names, stats: &EncodeStats) -> Result<()> {
    let sides = [(TRAIN, Some(stats)), (VAL, stats.val.as_deref())];
    for (side, stats) in sides.into_iter().filter_map(|(side, stats)| Some((side, stats?))) {
        write_atomically(&names.sidecar(side), |file| {
            serde_json::to_writer_pretty(&mut *file, stats)?;
            file.write_all(b"\n")
        })?;
    }
    Ok(())
}
