//! What tokenizer files say.

use std::collections::HashSet;

use super::extras::Extras;
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
    /// Special tokens of which the owner fixed the id, and which are only there if they are named
    /// ([`add_special_tokens`](Self::add_special_tokens)).
    pub reserved: Vec<(String, TokenId)>,
    /// What decides no id here and is kept for saving.
    pub extras: Extras,
    /// What others make of these files beyond what is done here, a line each.
    pub notes: Vec<String>,
}

impl TokenizerParts {
    /// Parts that a file says nothing more about.
    pub fn new(vocab: Vocab, special_tokens: Vec<String>, pattern: Pattern) -> Self {
        let (reserved, notes) = (Vec::new(), Vec::new());
        Self { vocab, special_tokens, pattern, reserved, extras: Extras::default(), notes }
    }

    /// Adds special tokens, each with the id that is given with it, or the one it has in the
    /// vocabulary, or the one its owner fixed; the others get the ids after all of these, in the
    /// order given. Those that are there already stay as they are.
    ///
    /// # Errors
    /// An id that belongs to another token, a second id for a token, an empty token.
    pub fn add_special_tokens(&mut self, tokens: &[(String, Option<TokenId>)]) -> Result<()> {
        if tokens.iter().any(|(token, _)| token.is_empty()) {
            return Err(Error::invalid("special token \"\": must not be empty"));
        }
        let reserved = &self.reserved;
        let owners = |token: &str| reserved.iter().find(|(name, _)| name == token);
        for (token, id) in tokens {
            let known = self.vocab.id(token.as_bytes());
            let id = id.or(known).or_else(|| owners(token).map(|(_, id)| *id));
            if let Some(id) = id {
                self.vocab
                    .add_token_as(id, token.as_bytes())
                    .map_err(|error| Error::invalid(format!("special token {token:?}: {error}")))?;
            }
        }
        let mut next = reserved.iter().map(|(_, id)| *id).fold(self.vocab.max_id(), Ord::max) + 1;
        for (token, _) in tokens {
            if self.vocab.id(token.as_bytes()).is_none() {
                self.vocab.add_token_as(next, token.as_bytes())?;
                next += 1;
            }
        }
        let known: HashSet<String> = self.special_tokens.iter().cloned().collect();
        let new = tokens.iter().map(|(token, _)| token).filter(|token| !known.contains(*token));
        self.special_tokens.extend(new.cloned());
        Ok(())
    }
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
