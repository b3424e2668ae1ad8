//! How files are encoded, and which of it decides the ids.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::input::{DEFAULT_CHUNK_BYTES, STDIN, SourceOptions, TextFields};
use crate::vocab::TokenId;

/// How [`encode_files`](super::encode_files) encodes.
#[derive(Clone, Debug)]
pub struct EncodeOptions {
    /// How many threads to use.
    pub threads: usize,
    /// Where the text is in files of records.
    pub fields: TextFields,
    /// Appended after each record and after each file that is not one of records.
    pub append_eot: Option<TokenId>,
    /// What ends a document inside a file or a record.
    pub separator: Option<TokenId>,
    /// Whether special tokens count as such in records too. Their fields came from somewhere, and
    /// a text that says `<|endoftext|>` would end the document that it stands in.
    pub special_in_records: bool,
    /// The tokenizer's SHA-256, for the sidecar.
    pub fingerprint: String,
    /// About how much text a thread takes at a time.
    pub chunk_bytes: usize,
    /// The share of all documents, chosen by `seed`, that goes to `tokens.val.npy`: 0 to 1.
    pub val_fraction: f64,
    /// Chooses the documents of `val_fraction`.
    pub seed: u64,
    /// Writes files of so many tokens each (`tokens-00000.npy`), which the sidecar lists.
    pub shard_tokens: Option<u64>,
    /// Continues after the last finished shard of an interrupted job, if there was one.
    pub resume: bool,
    /// Leaves out what cannot be read or encoded, and says so in the sidecar, rather than fail.
    pub skip_errors: bool,
    /// The bytes to read of the only file, if not all (`files::input::cuts`).
    pub range: Option<Range<u64>>,
    /// Writes `tokens.documents` beside the array, for [`join_files`](super::join_files).
    pub documents: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            fields: TextFields::default(),
            append_eot: None,
            separator: None,
            special_in_records: false,
            fingerprint: String::new(),
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            val_fraction: 0.0,
            seed: 0,
            shard_tokens: None,
            resume: false,
            skip_errors: false,
            range: None,
            documents: false,
        }
    }
}

impl EncodeOptions {
    /// Refuses, before any work, what makes no sense.
    pub(super) fn check(&self, out: &Path) -> Result<()> {
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
            return Err(Error::invalid("shard_tokens 0: must be at least 1"));
        }
        if self.documents && (self.val_fraction > 0.0 || self.shard_tokens.is_some()) {
            return Err(Error::invalid("a part is one array: split and divide what is joined"));
        }
        if self.resume && self.shard_tokens.is_none() {
            return Err(Error::invalid(
                "resume: only a job with shards can be resumed; give shard_tokens",
            ));
        }
        Ok(())
    }

    /// How the inputs are read.
    pub(super) fn source(&self) -> SourceOptions {
        SourceOptions {
            fields: self.fields.clone(),
            chunk_bytes: self.chunk_bytes,
            skip_errors: self.skip_errors,
            range: self.range.clone(),
        }
    }

    /// Everything that decides which id stands where.
    pub(super) fn settings(&self, paths: &[PathBuf]) -> Result<Value> {
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
            "special_in_records": self.special_in_records,
            "skip_errors": self.skip_errors,
        }))
    }

    /// What tells whether an input is still the same: its path, size and time of change.
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
        if self.resume && !metadata.is_file() {
            return Err(Error::invalid(format!(
                "{}: is a pipe or a device and cannot be read a second time; only files can be \
                 resumed",
                path.display()
            )));
        }
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let since = since.map(|since| since.as_nanos().to_string());
        Ok(json!([path.to_string_lossy(), metadata.len(), since]))
    }
}
