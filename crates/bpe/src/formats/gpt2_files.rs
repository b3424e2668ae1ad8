//! `vocab.json` + `merges.txt`, as GPT-2 was published.
//!
//! The first maps tokens to ids, the second lists the merges in rank order, a line each, after a
//! line `#version: 0.2` that may be missing. Both write tokens in GPT-2's alphabet, except for
//! special tokens, which are literal in `vocab.json`. Neither says which those are, nor the
//! pattern, but a token that no merge makes can only be a special one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::alphabet;
use super::json::{Merges, Tokens};
use super::parts::TokenizerParts;
use super::spelling::unspell_tokens;
use super::text_file::{in_file, read_text};
use crate::error::{Error, Result};
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

const HEADER: &str = "#version";

/// `special_tokens` are tokens that the caller knows to be special; they need not be in the files.
pub fn load(
    vocab_path: &Path,
    merges_path: &Path,
    special_tokens: &[String],
) -> Result<TokenizerParts> {
    let text = read_text(vocab_path)?;
    let written: Tokens = serde_json::from_str(&text).map_err(|error| {
        Error::invalid(format!("{}: is not a vocab.json: {error}", vocab_path.display()))
    })?;
    let merges = read_merges(merges_path)?;
    let tokens = unspell_tokens(&written, |token, bytes| {
        special_tokens.iter().any(|known| known.as_bytes() == token)
            && bytes.len() > 1
            && !merges.iter().any(|(left, right)| bytes == [left, right].concat())
    });
    let vocab = Vocab::new(written.ids.iter().copied().zip(tokens.iter()), merges.iter())
        .map_err(|error| in_file(vocab_path, error))?;
    let mut special = made_by_no_merge(&vocab, &written);
    special.sort_unstable();
    special.dedup();
    let special_tokens = special.into_iter().map(|(_, token)| token.to_owned()).collect();
    Ok(TokenizerParts { vocab, special_tokens, pattern: Pattern::Gpt2 })
}

/// Tokens that are literal in the file (not in the alphabet, or the same in both) and are neither a
/// byte nor the result of a merge.
fn made_by_no_merge<'t>(vocab: &Vocab, written: &'t Tokens) -> Vec<(TokenId, &'t str)> {
    let mut made = vec![false; vocab.max_id() as usize + 1];
    for rule in vocab.merges() {
        made[rule.result as usize] = true;
    }
    for &id in vocab.byte_ids() {
        made[id as usize] = true;
    }
    let is_literal = |id, token: &[u8]| vocab.token(id) == Some(token);
    written
        .iter()
        .filter(|&(id, token)| !made[id as usize] && is_literal(id, token))
        .filter_map(|(id, token)| Some((id, str::from_utf8(token).ok()?)))
        .collect()
}

fn read_merges(path: &Path) -> Result<Merges> {
    let text = read_text(path)?;
    let mut merges = Merges::default();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with(HEADER)) {
            continue;
        }
        merges.push_line(line).map_err(|reason| {
            Error::invalid(format!("{} line {}: {reason}", path.display(), number + 1))
        })?;
    }
    Ok(merges)
}

/// `x-vocab.json` for `x-merges.txt` and the other way round, if `path` is named like one of them.
pub fn pair_of(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let name = path.file_name()?.to_str()?;
    let (vocab, merges) = if let Some(stem) = name.strip_suffix("vocab.json") {
        (name.to_owned(), format!("{stem}merges.txt"))
    } else {
        let stem = name.strip_suffix("merges.txt")?;
        (format!("{stem}vocab.json"), name.to_owned())
    };
    Some((path.with_file_name(vocab), path.with_file_name(merges)))
}

/// Writes `vocab.json`, a line for each token.
pub fn write_vocab(out: &mut impl Write, tokens: &[(TokenId, String)]) -> io::Result<()> {
    for (place, (id, token)) in tokens.iter().enumerate() {
        out.write_all(if place == 0 { b"{\n" } else { b",\n" })?;
        serde_json::to_writer(&mut *out, token)?;
        write!(out, ": {id}")?;
    }
    out.write_all(b"\n}\n")
}

/// Writes `merges.txt`.
pub fn write_merges(out: &mut impl Write, vocab: &Vocab) -> io::Result<()> {
    writeln!(out, "{HEADER}: 0.2")?;
    for (left, right) in vocab.merge_bytes() {
        writeln!(out, "{} {}", alphabet::spell(left), alphabet::spell(right))?;
    }
    Ok(())
}
