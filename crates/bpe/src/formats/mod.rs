//! Read and write tokenizer files.
//!
//! | file | holds | does not say |
//! |---|---|---|
//! | `tokenizer.json` (Hugging Face) | everything | |
//! | `vocab.json` + `merges.txt` (GPT-2) | tokens, ids, merges | pattern, special tokens |
//! | `.tiktoken` | tokens, ids | merges, pattern, special tokens |
//!
//! What a file does not say is derived: the pattern is GPT-2's, that of a `.tiktoken` file follows
//! from its name or must be said; special tokens are those that no merge makes or that files beside
//! it name (in a `.tiktoken` file there are none); merges follow from the ids. A tokenizer's
//! directory holds the first two kinds. Whatever is wrong with a file is said in one line that
//! begins with its path; what is not read as its owner reads it is refused or noted by name.

mod alphabet;
pub mod checksums;
mod companions;
mod dialect;
mod extras;
mod fingerprint;
mod folder;
mod gpt2_files;
mod json;
mod parts;
mod published;
mod spelling;
mod text_file;
mod tiktoken_file;
mod tokenizer_json;
mod tokenizer_json_writer;

use std::fs;
use std::path::{Path, PathBuf};

pub use extras::{AddedFlags, Extras};
pub use fingerprint::fingerprint;
pub use folder::{FolderClaim, claim};
pub use parts::TokenizerParts;

use crate::error::{Error, Result};
use crate::files::atomic_file::write_atomically;
use crate::files::claim::Inputs;
use crate::progress::Progress;
use crate::text::pattern::Pattern;
use crate::vocab::Vocab;
use companions::Companions;
use parts::special_ids;
use spelling::{check_special_tokens, spell_tokens};
use text_file::in_file;

/// Reads a tokenizer: a directory that [`save`] wrote or someone published, or one of the files
/// above (of `vocab.json` and `merges.txt` either, with the other one beside it). `pattern` takes
/// the place of the files' own.
///
/// # Errors
/// A file cannot be read, or holds something that it should not or that is not supported; a
/// `.tiktoken` file of which the pattern is not known; [`Error::Cancelled`].
pub fn load(path: &Path, pattern: Option<&Pattern>, progress: &Progress) -> Result<TokenizerParts> {
    if path.is_dir() {
        let file = file_in(path)?;
        let mut parts = load(&file, pattern, progress)?;
        if file.ends_with("tokenizer.json") {
            let companions = Companions::read(path, "", progress)?;
            companions.add_missing(&mut parts).map_err(|error| in_file(path, error))?;
        }
        return Ok(parts);
    }
    if let Some(pair) = gpt2_files::pair_of(path) {
        return gpt2_files::load_with_companions(&pair, pattern, progress);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("tiktoken") => tiktoken_file::load(path, pattern, progress),
        Some("json") => tokenizer_json::load(path, pattern, progress),
        // A missing file says so, whatever it is called.
        _ => fs::metadata(path).map_err(|error| Error::io(path, error)).and_then(|_| {
            Err(Error::invalid(format!(
                "{}: is not a tokenizer: give a directory, tokenizer.json, vocab.json, merges.txt \
                 or a .tiktoken file",
                path.display()
            )))
        }),
    }
}

/// Reads `vocab.json` and `merges.txt` under any names. `special_tokens` are those that the caller
/// knows to be special; the result's are these, as far as the files have them, and those that can
/// be nothing else.
///
/// # Errors
/// A file cannot be read, or holds something that it should not.
pub fn load_pair(
    vocab: &Path,
    merges: &Path,
    special_tokens: &[String],
    progress: &Progress,
) -> Result<TokenizerParts> {
    gpt2_files::load(vocab, merges, special_tokens, progress)
}

/// Refuses what [`save`] would refuse whatever is trained, so that it is known before.
///
/// # Errors
/// A special token that the files could not tell from another token, or a pattern that they cannot
/// hold.
pub fn check_savable(special_tokens: &[String], pattern: &Pattern) -> Result<()> {
    check_special_tokens(special_tokens)?;
    tokenizer_json_writer::pre_tokenizer(pattern).map(|_| ())
}

fn file_in(folder: &Path) -> Result<PathBuf> {
    for name in ["tokenizer.json", "vocab.json"] {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    let entries = fs::read_dir(folder).map_err(|error| Error::io(folder, error))?;
    let mut ranks = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
        path.extension().is_some_and(|extension| extension == "tiktoken") && path.is_file()
    });
    match (ranks.next(), ranks.next()) {
        (Some(path), None) => Ok(path),
        (first, _) => Err(Error::invalid(format!(
            "{}: holds no tokenizer: expected tokenizer.json, vocab.json or {} .tiktoken file",
            folder.display(),
            if first.is_some() { "only one" } else { "a" }
        ))),
    }
}

/// Writes `tokenizer.json`, `tokenizer_config.json`, `vocab.json` and `merges.txt` into `folder`,
/// which is created if it is not there; each appears whole or not at all. `special_tokens` are in
/// `vocab`. The [checksums] of what stood there are removed, and written by
/// [`checksums::remember`].
///
/// # Errors
/// A file cannot be written or would replace one that this crate did not write, the files could not
/// tell a special token from another token, or they cannot hold the pattern.
pub fn save(
    folder: &Path,
    vocab: &Vocab,
    special_tokens: &[String],
    pattern: &Pattern,
    extras: &Extras,
) -> Result<()> {
    let special = special_ids(vocab, special_tokens)?;
    let tokens = spell_tokens(vocab, &special)?;
    let pre_tokenizer = tokenizer_json_writer::pre_tokenizer(pattern)?;
    folder::check(folder, &Inputs::of(&[]))?;
    checksums::forget(folder)?;
    fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    let file = |name: &str| folder.join(name);
    write_atomically(&file("vocab.json"), |out| gpt2_files::write_vocab(out, &tokens))?;
    write_atomically(&file("merges.txt"), |out| gpt2_files::write_merges(out, vocab))?;
    write_atomically(&file("tokenizer_config.json"), |out| {
        tokenizer_json_writer::write_config(out, &special, extras)
    })?;
    write_atomically(&file("tokenizer.json"), |out| {
        tokenizer_json_writer::write(out, vocab, &tokens, &special, pre_tokenizer, extras)
    })
}

#[cfg(test)]
mod tests;
