//! What tokenizer files say.

use crate::error::{Error, Result};
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

/// The parts of a tokenizer. Every special token is in the vocabulary too.
#[derive(Clone, Debug)]
pub struct TokenizerParts {
    /// All tokens with their ids, and the merges.
    pub vocab: Vocab,
    /// The tokens that are found in text before it is divided into pretokens.
    pub special_tokens: Vec<String>,
    /// How text is divided into pretokens.
    pub pattern: Pattern,
}

/// Special tokens with their ids, by rising id.
///
/// # Errors
/// One is not in the vocabulary.
pub fn special_ids<'t>(
    vocab: &Vocab,
    special_tokens: &'t [String],
) -> Result<Vec<(TokenId, &'t str)>> {
    let with_id = |token: &'t String| match vocab.id(token.as_bytes()) {
        Some(id) => Ok((id, token.as_str())),
        None => Err(Error::invalid(format!("special token {token:?}: not in the vocabulary"))),
    };
    let mut special = special_tokens.iter().map(with_id).collect::<Result<Vec<_>>>()?;
    special.sort_unstable();
    Ok(special)
}
