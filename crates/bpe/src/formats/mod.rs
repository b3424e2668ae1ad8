//! Read and write tokenizer files.
//!
//! | file | holds | does not say |
//! |---|---|---|
//! | `tokenizer.json` (Hugging Face) | everything | |
//! | `vocab.json` + `merges.txt` (GPT-2) | tokens, ids, merges | pattern: GPT-2's; special tokens: those that no merge makes |
//! | `.tiktoken` | tokens, ids | pattern: GPT-2's if the name does not tell; special tokens: none; merges: found again |
//!
//! A tokenizer's directory holds the first two kinds. Whatever is wrong with a file is said in one
//! line that begins with its path.

mod alphabet;
mod gpt2_files;
mod json;
mod tiktoken_file;
mod tokenizer_json;
mod tokenizer_json_writer;

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::atomic_file::write_atomically;
use crate::store::byte_strings::ByteStrings;
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

/// What files say of a tokenizer. Every special token is in the vocabulary too.
#[derive(Clone, Debug)]
pub struct Files {
    pub vocab: Vocab,
    pub special_tokens: Vec<String>,
    pub pattern: Pattern,
}

/// Reads a tokenizer: a directory that [`save`] wrote or someone published, or one of the files
/// above (of `vocab.json` and `merges.txt` either, with the other one beside it).
pub fn load(path: &Path) -> Result<Files> {
    if path.is_dir() {
        return load(&file_in(path)?);
    }
    if let Some((vocab, merges)) = gpt2_files::pair_of(path) {
        return gpt2_files::load(&vocab, &merges, &[]);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("tiktoken") => tiktoken_file::load(path),
        Some("json") => tokenizer_json::load(path),
        // A missing file says so, whatever it is called.
        _ => fs::metadata(path).map_err(|error| Error::io(path, error)).and_then(|_| {
            Err(Error::invalid(format!(
                "{}: no tokenizer: a directory, tokenizer.json, vocab.json, merges.txt or a \
                 .tiktoken file is expected",
                path.display()
            )))
        }),
    }
}

/// Reads `vocab.json` and `merges.txt` under any names. `special_tokens` are those that the caller
/// knows to be special; the result's are these, as far as the files have them, and those that can
/// be nothing else.
pub fn load_pair(vocab: &Path, merges: &Path, special_tokens: &[String]) -> Result<Files> {
    gpt2_files::load(vocab, merges, special_tokens)
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
            "{}: no tokenizer: tokenizer.json, vocab.json or {} .tiktoken file is expected in it",
            folder.display(),
            if first.is_some() { "only one" } else { "a" }
        ))),
    }
}

/// Writes `tokenizer.json`, `tokenizer_config.json`, `vocab.json` and `merges.txt` into `folder`,
/// which is made if need be; each appears whole or not at all. `special_tokens` are in `vocab`.
pub fn save(
    folder: &Path,
    vocab: &Vocab,
    special_tokens: &[String],
    pattern: &Pattern,
) -> Result<()> {
    let special = special_ids(vocab, special_tokens)?;
    let tokens = spell_tokens(vocab, &special)?;
    fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    let file = |name: &str| folder.join(name);
    write_atomically(&file("vocab.json"), |out| gpt2_files::write_vocab(out, &tokens))?;
    write_atomically(&file("merges.txt"), |out| gpt2_files::write_merges(out, vocab))?;
    write_atomically(&file("tokenizer_config.json"), |out| {
        tokenizer_json_writer::write_config(out, &special)
    })?;
    write_atomically(&file("tokenizer.json"), |out| {
        tokenizer_json_writer::write(out, vocab, &tokens, &special, pattern)
    })
}

/// SHA-256, in hexadecimal, of all that decides ids: the pattern, the tokens with their ids, the
/// merges and the special tokens. It is the same for one tokenizer in any file format that holds
/// all of it.
pub fn fingerprint(vocab: &Vocab, special_tokens: &[String], pattern: &Pattern) -> Result<String> {
    // Every list with its length before it, every string too: no two contents look alike.
    let mut hash = Sha256::new();
    let number = |hash: &mut Sha256, value: usize| hash.update((value as u64).to_le_bytes());
    number(&mut hash, pattern.name().len());
    hash.update(pattern.name());
    number(&mut hash, vocab.len());
    for (id, token) in vocab.tokens() {
        number(&mut hash, id as usize);
        number(&mut hash, token.len());
        hash.update(token);
    }
    number(&mut hash, vocab.merges().len());
    for rule in vocab.merges() {
        number(&mut hash, rule.left as usize);
        number(&mut hash, rule.right as usize);
    }
    let special = special_ids(vocab, special_tokens)?;
    number(&mut hash, special.len());
    for (id, _) in special {
        number(&mut hash, id as usize);
    }
    number(&mut hash, usize::from(vocab.whole_words_first()));
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Special tokens with their ids, by rising id.
fn special_ids<'t>(vocab: &Vocab, special_tokens: &'t [String]) -> Result<Vec<(TokenId, &'t str)>> {
    let with_id = |token: &'t String| match vocab.id(token.as_bytes()) {
        Some(id) => Ok((id, token.as_str())),
        None => Err(Error::invalid(format!("special token {token:?}: not in the vocabulary"))),
    };
    let mut special = special_tokens.iter().map(with_id).collect::<Result<Vec<_>>>()?;
    special.sort_unstable();
    Ok(special)
}

/// All tokens as they are written in JSON: special ones as they are, the others in GPT-2's
/// alphabet.
fn spell_tokens(vocab: &Vocab, special: &[(TokenId, &str)]) -> Result<Vec<(TokenId, String)>> {
    for (id, token) in special {
        let mut bytes = Vec::new();
        let other = match alphabet::unspell(token.as_bytes(), &mut bytes) {
            true => vocab.id(&bytes).filter(|other| other != id),
            false => None,
        };
        if let Some(other) = other {
            return Err(Error::invalid(format!(
                "special token {token:?}: in the files it would be written like token {other} \
                 ({bytes:?}); choose one with only ASCII characters"
            )));
        }
    }
    let mut special = special.iter().peekable();
    let spelled = vocab.tokens().map(|(id, token)| {
        match special.next_if(|(special_id, _)| *special_id == id) {
            Some((_, token)) => (id, (*token).to_owned()),
            None => (id, alphabet::spell(token)),
        }
    });
    Ok(spelled.collect())
}

/// The reverse: the bytes of the tokens, in the order of the file. `is_literal(token as written,
/// its bytes by the alphabet)` says which stand as they are; those that are not written in the
/// alphabet do in any case.
fn unspell_tokens(
    written: &json::Tokens,
    mut is_literal: impl FnMut(&[u8], &[u8]) -> bool,
) -> ByteStrings {
    let mut tokens = ByteStrings::with_capacity(written.ids.len(), written.spelled.total_bytes());
    let mut bytes = Vec::new();
    for (_, token) in written.iter() {
        bytes.clear();
        let is_spelled = alphabet::unspell(token, &mut bytes);
        // All are asked about, whatever they are written in.
        let literal = is_literal(token, &bytes) || !is_spelled;
        tokens.push(if literal { token } else { &bytes });
    }
    tokens
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Error::invalid(format!("{}: no text: byte {place} is not valid UTF-8", path.display()))
    })
}

/// Says which file an error is about.
fn blame(path: &Path, error: Error) -> Error {
    match error {
        Error::Invalid(message) => Error::invalid(format!("{}: {message}", path.display())),
        other => other,
    }
}

#[cfg(test)]
mod tests;
