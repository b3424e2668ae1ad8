//! The names of everything that a job writes.

use std::path::{Path, PathBuf};

use super::split::VAL;

/// The files of one job, named after the array that was asked for.
#[derive(Clone, Debug)]
pub struct OutputPaths {
    out: PathBuf,
    is_sharded: bool,
}

impl OutputPaths {
    pub fn new(out: &Path, is_sharded: bool) -> Self {
        Self { out: out.to_path_buf(), is_sharded }
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

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.out.file_stem().unwrap_or_default().to_os_string();
        name.push(ending);
        self.out.with_file_name(name)
    }
}

fn side_suffix(side: usize) -> &'static str {
    if side == VAL { ".val" } else { "" }
}
