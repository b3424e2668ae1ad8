//! The names of everything that a job writes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::split::{TRAIN, VAL};
use crate::files::place::folder;

/// The files of one job, named after the array that was asked for.
#[derive(Clone, Debug)]
pub struct OutputPaths {
    out: PathBuf,
    is_sharded: bool,
    has_val: bool,
}

impl OutputPaths {
    pub fn new(out: &Path, is_sharded: bool, has_val: bool) -> Self {
        Self { out: out.to_path_buf(), is_sharded, has_val }
    }

    pub fn is_sharded(&self) -> bool {
        self.is_sharded
    }

    /// The array that was asked for.
    pub fn asked(&self) -> &Path {
        &self.out
    }

    /// `tokens.npy`, `tokens.val.npy`; as shards `tokens-00000.npy`, `tokens.val-00000.npy`.
    pub fn array(&self, shard: usize, side: usize) -> PathBuf {
        let number = if self.is_sharded { format!("-{shard:05}") } else { String::new() };
        self.beside(&format!("{}{number}.npy", side_suffix(side)))
    }

    /// `tokens.json`, `tokens.val.json`.
    pub fn sidecar(&self, side: usize) -> PathBuf {
        self.beside(&format!("{}.json", side_suffix(side)))
    }

    /// `tokens.resume.json`, while a job with shards is not finished.
    pub fn journal(&self) -> PathBuf {
        self.beside(".resume.json")
    }

    /// `tokens.documents`, if the array is a part of one to come.
    pub fn documents(&self) -> PathBuf {
        self.beside(".documents")
    }

    /// The sides that the job writes.
    pub fn sides(&self) -> impl Iterator<Item = usize> {
        [TRAIN, VAL].into_iter().take(1 + usize::from(self.has_val))
    }

    /// The arrays of a side that are there already and may be replaced, with how many shards
    /// nobody knows yet.
    pub fn arrays_there(&self, side: usize) -> Vec<PathBuf> {
        if !self.is_sharded {
            return vec![self.array(0, side)];
        }
        let entries = fs::read_dir(folder(&self.out)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        let shards = names.filter(|name| self.is_shard(name, side));
        // A folder in the way of a shard that may not come to be is none of this job's.
        shards.map(|name| self.out.with_file_name(name)).filter(|path| !path.is_dir()).collect()
    }

    /// The arrays that a side's sidecar says it is about, as long as they have names of this job's
    /// or would have in one file.
    pub fn arrays_listed(&self, side: usize, sidecar: &Value) -> Vec<PathBuf> {
        let Some(shards) = sidecar["shards"].as_array() else {
            let whole = Self { is_sharded: false, ..self.clone() };
            return vec![whole.array(0, side)];
        };
        let sharded = Self { is_sharded: true, ..self.clone() };
        let names = shards.iter().filter_map(|shard| shard["file"].as_str());
        let names = names.filter(|name| sharded.is_shard(OsStr::new(name), side));
        names.map(|name| self.out.with_file_name(name)).collect()
    }

    /// Whether the job writes a file of that name.
    pub fn is_output(&self, name: &str) -> bool {
        let is_path = |path: PathBuf| path.file_name() == Some(OsStr::new(name));
        is_path(self.journal())
            || is_path(self.documents())
            || self.sides().any(|side| {
                is_path(self.sidecar(side))
                    || self.is_shard(OsStr::new(name), side)
                    || (!self.is_sharded && is_path(self.array(0, side)))
            })
    }

    /// What the outputs of each side have in common: two jobs that share one share files.
    pub fn stems(&self) -> Vec<OsString> {
        let stem = |side| self.stem(side_suffix(side));
        self.sides().map(stem).collect()
    }

    fn is_shard(&self, name: &OsStr, side: usize) -> bool {
        let stem = self.stem(side_suffix(side));
        let number = || {
            let rest = name.to_str()?.strip_prefix(stem.to_str()?)?;
            rest.strip_prefix('-')?.strip_suffix(".npy")
        };
        let is_number =
            |number: &str| number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
        self.is_sharded && number().is_some_and(is_number)
    }

    fn stem(&self, ending: &str) -> OsString {
        let mut name = self.out.file_stem().unwrap_or_default().to_os_string();
        name.push(ending);
        name
    }

    fn beside(&self, ending: &str) -> PathBuf {
        self.out.with_file_name(self.stem(ending))
    }
}

fn side_suffix(side: usize) -> &'static str {
    if side == VAL { ".val" } else { "" }
}
