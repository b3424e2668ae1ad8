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
            return Err(ambiguous(token, &format!("token {other} ({bytes:?})")));
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

/// Refuses special tokens that would be spelled like a byte, or like what merges may make of text:
/// this much can be known before a vocabulary is trained.
///
/// # Errors
/// Names the token.
pub fn check_special_tokens(special: &[String]) -> Result<()> {
    for token in special {
        let mut bytes = Vec::new();
        let is_spelled = alphabet::unspell(token.as_bytes(), &mut bytes);
        if is_spelled && bytes != token.as_bytes() && (bytes.len() == 1 || may_be_in_text(&bytes)) {
            return Err(ambiguous(token, &format!("the bytes {bytes:?}")));
        }
    }
    Ok(())
}

/// Whether `bytes` can be a part of valid UTF-8, cut anywhere.
fn may_be_in_text(bytes: &[u8]) -> bool {
    let continued = bytes.iter().take(3).take_while(|&&byte| byte & 0xC0 == 0x80).count();
    match str::from_utf8(&bytes[continued..]) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    }
}

fn ambiguous(token: &str, other: &str) -> Error {
    Error::invalid(format!(
        "special token {token:?}: in the files it would be written like {other}; choose one with \
         only ASCII characters"
    ))
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
