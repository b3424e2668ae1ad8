//! `.tiktoken`: a line for each token, with its bytes in base64 and its rank, which is its id.
//!
//! The file has neither special tokens nor the pattern. The pattern is known, by name, for files
//! that OpenAI published; for others it is GPT-2's. Special tokens are not guessed.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::parts::TokenizerParts;
use super::text_file::{in_file, read_text};
use crate::error::{Error, Result};
use crate::store::byte_strings::ByteStrings;
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

/// Reads a `.tiktoken` file.
pub fn load(path: &Path) -> Result<TokenizerParts> {
    let text = read_text(path)?;
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
    let vocab = Vocab::from_ranks(ids.into_iter().zip(tokens.iter()))
        .map_err(|error| in_file(path, error))?;
    Ok(TokenizerParts { vocab, special_tokens: Vec::new(), pattern: pattern_by_name(path) })
}

fn pattern_by_name(path: &Path) -> Pattern {
    match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("cl100k_base") => Pattern::Gpt4,
        Some("o200k_base") => Pattern::Gpt4o,
        _ => Pattern::Gpt2,
    }
}
