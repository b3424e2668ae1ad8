//! A tokenizer's directory, before it is written: its files are this crate's, or not there.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::claim::{Claim, Inputs};
use crate::files::unfinished::remove_unfinished;

/// The files that [`save`](super::save) writes, in that order.
pub const FILES: [&str; 4] =
    ["vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json"];

const WRITER: &str = "cs336lm train-bpe";

/// A directory that one job at a time writes a tokenizer into.
pub struct FolderClaim {
    folder: PathBuf,
    claim: Option<Claim>,
    is_new: bool,
}

/// Claims `folder`, which is created if it is not there, for a tokenizer made of `inputs`. What
/// killed jobs left unfinished in it is removed.
///
/// # Errors
/// One of the files would replace an input or what [`save`](super::save) did not write, another
/// job is writing there, or the folder cannot be written to.
pub fn claim(folder: &Path, inputs: &[PathBuf]) -> Result<FolderClaim> {
    check(folder, &Inputs::of(inputs))?;
    let is_new = !folder.exists();
    fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    let mut claimed = FolderClaim { folder: folder.to_path_buf(), claim: None, is_new };
    claimed.claim = Claim::take(folder, "tokenizer".as_ref(), folder)?;
    remove_unfinished(&folder.join(FILES[0]), |name| FILES.contains(&name));
    Ok(claimed)
}

impl Drop for FolderClaim {
    fn drop(&mut self) {
        self.claim = None;
        if self.is_new {
            // Only if it is empty: where nothing was made, nothing is left.
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// Checks that writing a tokenizer into `folder` replaces nothing but a tokenizer of this crate.
///
/// # Errors
/// Names the file that would be lost.
pub fn check(folder: &Path, inputs: &Inputs) -> Result<()> {
    let is_whole = FILES.iter().all(|name| folder.join(name).is_file());
    for name in FILES {
        let is_ours = |path: &Path| match name {
            "tokenizer.json" => is_whole && is_config(&folder.join("tokenizer_config.json")),
            "tokenizer_config.json" => is_config(path),
            "vocab.json" => begins_with(path, b"{\n\""),
            // The same in every tokenizer of this kind; ours has a vocabulary beside it.
            _ => begins_with(path, b"#version") && begins_with(&folder.join(FILES[0]), b"{\n\""),
        };
        inputs.check_output(&folder.join(name), WRITER, is_ours)?;
    }
    Ok(())
}

/// Whether it is the short `tokenizer_config.json` of this crate, which says nothing else.
fn is_config(path: &Path) -> bool {
    let known =
        ["tokenizer_class", "clean_up_tokenization_spaces", "eos_token", "added_tokens_decoder"];
    let json: Option<Value> =
        fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    json.as_ref().and_then(Value::as_object).is_some_and(|config| {
        config.keys().all(|key| known.contains(&key.as_str()))
            && config.get("tokenizer_class") == Some(&"PreTrainedTokenizerFast".into())
            && config.get("clean_up_tokenization_spaces") == Some(&false.into())
    })
}

/// A vocabulary has a line for each token here, and everything in one line or indented elsewhere.
fn begins_with(path: &Path, start: &[u8]) -> bool {
    use std::io::Read;
    let mut begin = vec![0; start.len()];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == start
}
