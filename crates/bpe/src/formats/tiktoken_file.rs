//! `.tiktoken`: a line for each token, with its bytes in base64 and its rank, which is its id.
//!
//! The file has neither special tokens nor the pattern. Both are known, by name, for files that
//! OpenAI published ([`super::published`]); for others the pattern must be said. Special tokens are
//! there if they are named, those of published files with the ids that their owner gave them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::parts::TokenizerParts;
use super::published;
use super::text_file::{in_file, read_text};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::byte_strings::ByteStrings;
use crate::text::known;
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

/// Reads a `.tiktoken` file. `pattern` is what the caller says, whatever the file is called.
pub fn load(path: &Path, pattern: Option<&Pattern>, progress: &Progress) -> Result<TokenizerParts> {
    let published = path.file_stem().and_then(|stem| stem.to_str()).and_then(published::find);
    let Some(pattern) = pattern.or(published.map(|file| &file.pattern)) else {
        return Err(Error::invalid(format!(
            "{}: neither the file nor its name says how text is split into words: say the pattern \
             (--pattern, pattern=...): {} (gpt4 is cl100k_base's, gpt4o o200k_base's) or a regular \
             expression",
            path.display(),
            known::names()
        )));
    };
    let text = read_text(path, progress)?;
    let mut ids: Vec<TokenId> = Vec::new();
    let mut tokens = ByteStrings::with_capacity(text.len() / 16, text.len() / 2);
    let mut token = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() {
            continue;
        }
        let entry = line.split_once(' ').and_then(|(encoded, rank)| {
            token.clear();
            STANDARD.decode_vec(encoded, &mut token).ok()?;
            rank.parse().ok()
        });
        let Some(rank) = entry else {
            return Err(Error::invalid(format!(
                "{} line {}: expected a token in base64, a space and its rank",
                path.display(),
                number + 1
            )));
        };
        ids.push(rank);
        tokens.push(&token);
    }
    let vocab = Vocab::from_ranks(ids.into_iter().zip(tokens.iter()), progress)
        .map_err(|error| in_file(path, error))?;
    let mut parts = TokenizerParts::new(vocab, Vec::new(), pattern.clone());
    let special = published.map_or(&[][..], |file| file.special).iter();
    parts.reserved = special.map(|&(token, id)| (token.to_owned(), id)).collect();
    Ok(parts)
}
