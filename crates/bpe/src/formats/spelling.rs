//! Tokens as the files of GPT-2 and Hugging Face spell them: special tokens literally, the others
//! in GPT-2's alphabet.

use super::alphabet;
use super::json::Tokens;
use crate::error::{Error, Result};
use crate::store::byte_strings::ByteStrings;
use crate::vocab::{TokenId, Vocab};

/// All tokens as they are spelled, by rising id.
///
/// # Errors
/// A special token would be spelled like another token.
pub fn spell_tokens(vocab: &Vocab, special: &[(TokenId, &str)]) -> Result<Vec<(TokenId, String)>> {
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

/// The reverse: the bytes of the tokens, in the order of the file. `is_literal(token as spelled,
/// its bytes by the alphabet)` says which are spelled literally; those that are not written in the
/// alphabet are in any case.
pub fn unspell_tokens(
    written: &Tokens,
    mut is_literal: impl FnMut(&[u8], &[u8]) -> bool,
) -> ByteStrings {
    let mut tokens = ByteStrings::with_capacity(written.ids.len(), written.spelled.total_bytes());
    let mut bytes = Vec::new();
    for (_, token) in written.iter() {
        bytes.clear();
        let is_spelled = alphabet::unspell(token, &mut bytes);
        // Asked about every token, whatever it is written in.
        let literal = is_literal(token, &bytes) || !is_spelled;
        tokens.push(if literal { token } else { &bytes });
    }
    tokens
}
