//! Text -> ids, fed piece by piece: any cut of the bytes, inside a character or a special token
//! too, gives the ids of the whole.
//!
//! Pieces are gathered until there is a batch, and the batch is encoded up to its last safe cut
//! ([`crate::text::cut::last_cut`]); what follows the cut waits for more. A run without a cut
//! is kept whole and looked at again only when it has doubled, and only where it was not searched
//! before, so memory is bounded by the longest such run and time stays linear.

use std::borrow::Borrow;

use super::encoder::Tokenizer;
use crate::error::Result;
use crate::text::cut::{last_cut, reach};
use crate::vocab::TokenId;

/// Less than this is not worth a search for a cut.
const BATCH: usize = 16 * 1024;

/// Encodes a text that comes in pieces. `T` is a [`Tokenizer`], borrowed or shared.
pub struct StreamEncoder<T: Borrow<Tokenizer>> {
    tokenizer: T,
    pending: Vec<u8>,
    /// In `pending`: where the next search for a cut begins.
    searched: usize,
    /// The length of `pending` that makes a search worth while.
    wanted: usize,
}

impl<T: Borrow<Tokenizer>> StreamEncoder<T> {
    pub fn new(tokenizer: T) -> Self {
        Self { tokenizer, pending: Vec::new(), searched: 1, wanted: BATCH }
    }

    /// Takes the next piece and appends to `out` the ids that are certain by now.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; the stream is then of no further use.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<TokenId>) -> Result<()> {
        // In slices, so that a piece of any size is not copied whole.
        for slice in piece.chunks(BATCH) {
            self.pending.extend_from_slice(slice);
            if self.pending.len() >= self.wanted {
                self.encode_batch(out)?;
            }
        }
        Ok(())
    }

    /// Appends the last ids to `out`. The text is at its end; another may begin.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn finish(&mut self, out: &mut Vec<TokenId>) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        (self.searched, self.wanted) = (1, BATCH);
        self.tokenizer.borrow().encode(&pending, out)
    }

    /// How many bytes wait for more text.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn encode_batch(&mut self, out: &mut Vec<TokenId>) -> Result<()> {
        let tokenizer = self.tokenizer.borrow();
        let (pattern, special) = (tokenizer.pattern(), tokenizer.special_tokens());
        if let Some(cut) = last_cut(&self.pending, self.searched, pattern, special) {
            tokenizer.encode(&self.pending[..cut], out)?;
            self.pending.drain(..cut);
        }
        // The first place that stood too near the end to be decided.
        self.searched = (self.pending.len() + 1).saturating_sub(reach(special));
        self.wanted = BATCH.max(2 * self.pending.len());
        Ok(())
    }
}
