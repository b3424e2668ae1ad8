//! Text -> ids, piece by piece: however the bytes are cut, inside a character or a special token
//! too, the ids are those of the whole.
//!
//! Pieces are gathered into a batch, and the batch is encoded up to its last safe cut
//! ([`crate::text::cut::last_cut`]); what follows the cut waits for more. A stretch without a cut
//! is kept whole and searched again only when it has doubled, and only where it was not searched
//! before, so memory is bounded by the longest such stretch and time stays linear.

use std::borrow::Borrow;

use super::encoder::Tokenizer;
use crate::error::Result;
use crate::text::cut::{last_cut, reach};
use crate::vocab::TokenId;

/// In bytes: less is not worth a search for a cut.
const BATCH: usize = 16 * 1024;

/// Encodes text that comes in pieces. `T` is a [`Tokenizer`], borrowed or shared.
pub struct StreamEncoder<T: Borrow<Tokenizer>> {
    tokenizer: T,
    pending: Vec<u8>,
    /// In `pending`: where the next search for a cut begins.
    searched: usize,
    /// The length of `pending` that makes a search worthwhile.
    wanted: usize,
}

impl<T: Borrow<Tokenizer>> StreamEncoder<T> {
    /// An encoder at the start of a text.
    pub fn new(tokenizer: T) -> Self {
        Self { tokenizer, pending: Vec::new(), searched: 1, wanted: BATCH }
    }

    /// Takes the next piece of the text and appends the ids that are certain by now to `out`.
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

    /// Ends the text: appends the last ids to `out`. Another text may follow.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn finish(&mut self, out: &mut Vec<TokenId>) -> Result<()> {
        let pending = self.take_pending();
        self.tokenizer.borrow().encode(&pending, out)
    }

    /// Ends the text: what [`finish`](Self::finish) would encode.
    pub(crate) fn take_pending(&mut self) -> Vec<u8> {
        (self.searched, self.wanted) = (1, BATCH);
        std::mem::take(&mut self.pending)
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
        // The first place that was too near the end to be decided.
        self.searched = (self.pending.len() + 1).saturating_sub(reach(special));
        self.wanted = BATCH.max(2 * self.pending.len());
        Ok(())
    }
}
