//! `vocab.json` + `merges.txt`, as GPT-2 was published.
//!
//! The first maps tokens to ids, the second lists the merges in rank order, a line each, after a
//! line `#version: 0.2` that may be missing. Both write tokens in GPT-2's alphabet, except for
//! special tokens, which are literal in `vocab.json`. Neither says which those are, nor the
//! pattern, but a token that no merge makes can only be a special one, and files beside them may
//! name others ([`super::companions`]).

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::alphabet;
use super::companions::Companions;
use super::json::{Merges, Tokens};
use super::parts::TokenizerParts;
use super::spelling::unspell_tokens;
use super::text_file::{in_file, read_text};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

const HEADER: &str = "#version";

/// A pair with what the files beside it say.
pub fn load_with_companions(
    pair: &PairOfFiles,
    pattern: Option<&Pattern>,
    progress: &Progress,
) -> Result<TokenizerParts> {
    let folder = pair.vocab.parent().unwrap_or(Path::new(""));
    let companions = Companions::read(folder, &pair.prefix, progress)?;
    let mut parts = load(&pair.vocab, &pair.merges, &companions.names(), progress)?;
    companions.add_all(&mut parts).map_err(|error| in_file(&pair.vocab, error))?;
    parts.special_tokens.sort_by_key(|token| parts.vocab.id(token.as_bytes()));
    parts.pattern = pattern.cloned().unwrap_or(parts.pattern);
    Ok(parts)
}

/// `special_tokens` are tokens that the caller knows to be special; they need not be in the files.
pub fn load(
    vocab_path: &Path,
    merges_path: &Path,
    special_tokens: &[String],
    progress: &Progress,
) -> Result<TokenizerParts> {
    let text = read_text(vocab_path, progress)?;
    let written: Tokens = serde_json::from_str(&text).map_err(|error| {
        Error::invalid(format!("{}: is not a vocab.json: {error}", vocab_path.display()))
    })?;
    let merges = read_merges(merges_path, progress)?;
    let literal = literal_tokens(special_tokens, &merges);
    let tokens = unspell_tokens(&written, |token, _| literal.contains(token));
    // Where the caller says stop, the merges end and so does the reading.
    let wanted = merges.iter().take_while(|_| progress.check().is_ok());
    let vocab = Vocab::new(written.ids.iter().copied().zip(tokens.iter()), wanted)
        .map_err(|error| in_file(vocab_path, error))?;
    progress.check()?;
    let mut special = made_by_no_merge(&vocab, &written);
    special.sort_unstable();
    special.dedup();
    let special_tokens = special.into_iter().map(|(_, token)| token.to_owned()).collect();
    Ok(TokenizerParts::new(vocab, special_tokens, Pattern::Gpt2))
}

/// Those of `special_tokens` that are spelled literally: neither a byte nor what a merge makes, if
/// they were read in the alphabet.
fn literal_tokens<'t>(special_tokens: &'t [String], merges: &Merges) -> HashSet<&'t [u8]> {
    let unspelled = special_tokens.iter().map(|token| {
        let mut bytes = Vec::new();
        alphabet::unspell(token.as_bytes(), &mut bytes);
        bytes
    });
    let unspelled: Vec<Vec<u8>> = unspelled.collect();
    let mut made: HashSet<&[u8]> = HashSet::new();
    let candidates: HashSet<&[u8]> = unspelled.iter().map(Vec::as_slice).collect();
    let mut joined = Vec::new();
    for (left, right) in merges.iter() {
        joined.clear();
        joined.extend_from_slice(left);
        joined.extend_from_slice(right);
        made.extend(candidates.get(joined.as_slice()));
    }
    let pairs = special_tokens.iter().zip(&unspelled);
    let literal = pairs.filter(|(_, bytes)| bytes.len() > 1 && !made.contains(bytes.as_slice()));
    literal.map(|(token, _)| token.as_bytes()).collect()
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

fn read_merges(path: &Path, progress: &Progress) -> Result<Merges> {
    let text = read_text(path, progress)?;
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

/// Two files that belong together, and what their names begin with.
pub struct PairOfFiles {
    vocab: PathBuf,
    merges: PathBuf,
    prefix: String,
}

/// `x-vocab.json` for `x-merges.txt` and the other way round, if `path` is named like one of them.
pub fn pair_of(path: &Path) -> Option<PairOfFiles> {
    let name = path.file_name()?.to_str()?;
    let prefix = name.strip_suffix("vocab.json").or_else(|| name.strip_suffix("merges.txt"))?;
    Some(PairOfFiles {
        vocab: path.with_file_name(format!("{prefix}vocab.json")),
        merges: path.with_file_name(format!("{prefix}merges.txt")),
        prefix: prefix.to_owned(),
    })
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
