//! A tokenizer's fingerprint, by which token files name the tokenizer that made them.

use sha2::{Digest, Sha256};

use super::parts::special_ids;
use crate::error::Result;
use crate::files::sealed::hex;
use crate::text::pattern::Pattern;
use crate::vocab::Vocab;

/// SHA-256, in hexadecimal, of everything that decides ids: the pattern, the tokens with their ids,
/// the merges and the special tokens. It is the same for one tokenizer in any file format that
/// holds all of it.
///
/// # Errors
/// A special token is not in the vocabulary.
pub fn fingerprint(vocab: &Vocab, special_tokens: &[String], pattern: &Pattern) -> Result<String> {
    // Every list and every string comes after its length: no two contents look alike.
    let mut hash = Sha256::new();
    let number = |hash: &mut Sha256, value: usize| hash.update((value as u64).to_le_bytes());
    // The patterns that got a name later are still called by what they were called before: so the
    // token files of then still belong to their tokenizer.
    let pattern = match pattern {
        Pattern::Gpt2 | Pattern::Gpt4 | Pattern::Gpt4o => pattern.name(),
        _ => pattern.regex(),
    };
    number(&mut hash, pattern.len());
    hash.update(pattern);
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
    Ok(hex(&hash.finalize()))
}
