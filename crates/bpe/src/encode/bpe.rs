//! What decides a word's ids, the same for all threads, and the ids of one word by merging.

use super::cut_table::CutTable;
use crate::error::Result;
use crate::vocab::merge::{MergeScratch, merge};
use crate::vocab::{TokenId, Vocab};

/// The vocabulary, and what was worked out from it once.
pub struct Bpe {
    pub vocab: Vocab,
    /// Where words may be cut.
    pub cuts: CutTable,
    /// Whether a pretoken that is one of the vocabulary's tokens is taken whole.
    pub whole_words_first: bool,
    /// Tokens that are not words.
    pub special_ids: Vec<TokenId>,
}

impl Bpe {
    /// The vocabulary with these tokens as its special ones.
    ///
    /// # Errors
    /// A token of 4 GiB.
    pub fn new(vocab: Vocab, special_ids: Vec<TokenId>) -> Result<Self> {
        let whole_words_first =
            vocab.whole_words_first() && has_words_that_merges_miss(&vocab, &special_ids)?;
        // A part of a word is not a word: where whole words count, nothing may be cut.
        let cuts = if whole_words_first { CutTable::uncut() } else { CutTable::new(&vocab) };
        Ok(Self { vocab, cuts, whole_words_first, special_ids })
    }

    /// The ids of one word, into `symbols`.
    pub fn encode_word(
        &self,
        word: &[u8],
        symbols: &mut Vec<TokenId>,
        scratch: &mut MergeScratch,
    ) -> Result<()> {
        symbols.clear();
        if self.whole_words_first
            && let Some(id) = self.vocab.id(word)
            && !self.special_ids.contains(&id)
        {
            symbols.push(id);
            return Ok(());
        }
        let byte_ids = self.vocab.byte_ids();
        symbols.extend(word.iter().map(|&byte| byte_ids[usize::from(byte)]));
        let len = merge(self.vocab.pairs(), symbols, scratch)?;
        symbols.truncate(len);
        Ok(())
    }
}

/// Whether some token, other than special ones, is not what its bytes merge to.
fn has_words_that_merges_miss(vocab: &Vocab, special_ids: &[TokenId]) -> Result<bool> {
    let mut symbols = Vec::new();
    let mut scratch = MergeScratch::default();
    for (id, token) in vocab.tokens() {
        symbols.clear();
        symbols.extend(token.iter().map(|&byte| vocab.byte_ids()[usize::from(byte)]));
        let len = merge(vocab.pairs(), &mut symbols, &mut scratch)?;
        if symbols[..len] != [id] && !special_ids.contains(&id) {
            return Ok(true);
        }
    }
    Ok(false)
}
