//! Where ids go while a text is encoded: into a list, or into what a file is written from.

use crate::vocab::TokenId;

/// What ids are appended to.
pub trait Output {
    /// Appends `ids`.
    fn append(&mut self, ids: &[TokenId]);

    /// How many ids there are so far.
    fn len(&self) -> usize;

    /// Drops all but the first `len` ids: what a text that failed has appended.
    fn truncate(&mut self, len: usize);
}

impl Output for Vec<TokenId> {
    #[inline]
    fn append(&mut self, ids: &[TokenId]) {
        self.extend_from_slice(ids);
    }

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn truncate(&mut self, len: usize) {
        Vec::truncate(self, len);
    }
}
