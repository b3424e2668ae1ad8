//! Ids <-> byte strings, both ways in one flat store: the bytes end to end, where each id's lie,
//! and an open-addressed index from bytes back to ids.

use super::hash::hash_bytes;
use super::pages::filled;
use crate::error::{Error, Result};

/// A token's number in a vocabulary.
pub type TokenId = u32;

/// The largest id that a vocabulary may hold: far beyond any vocabulary in use, small enough for a
/// table indexed by id, and for an id and a count to share 32 bits.
pub const MAX_TOKEN_ID: TokenId = (1 << 24) - 1;

/// Most tokens are shorter: copying this many bytes at once is quicker than copying just enough.
pub const WIDE: usize = 16;

/// Not an id: an empty slot of the index.
const EMPTY: TokenId = TokenId::MAX;

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    /// `u32::MAX` where the id belongs to no token.
    len: u32,
}

/// A slot of the index: an id, or [`EMPTY`], and half of its bytes' hash. A look-up that meets
/// another token mostly sees that without reading that token's bytes.
#[derive(Clone, Copy, Debug)]
struct IndexSlot {
    tag: u32,
    id: TokenId,
}

const ABSENT: Span = Span { start: 0, len: u32::MAX };

/// The tokens of a vocabulary, by id and by bytes.
#[derive(Clone, Debug, Default)]
pub struct TokenTable {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    len: usize,
    /// A power of two slots, at most half of them taken; linear probing.
    index: Vec<IndexSlot>,
}

impl TokenTable {
    /// An empty table with room for `tokens` tokens.
    pub fn with_capacity(tokens: usize) -> Self {
        let mut table = Self::default();
        table.bytes.reserve(tokens * 8);
        table.spans.reserve(tokens);
        table.grow_index((tokens * 2).next_power_of_two().max(1024));
        table
    }

    /// Adds a token. The same token with the same id may come twice.
    ///
    /// # Errors
    /// Anything else that would make ids or bytes ambiguous, an empty token, or an id above
    /// [`MAX_TOKEN_ID`].
    pub fn insert(&mut self, id: TokenId, token: &[u8]) -> Result<()> {
        if id > MAX_TOKEN_ID {
            return Err(Error::invalid(format!(
                "token {} has id {id}: ids above {MAX_TOKEN_ID} are not supported",
                quoted(token)
            )));
        }
        if token.is_empty() {
            return Err(Error::invalid(format!(
                "token {id} is empty: every token needs at least one byte"
            )));
        }
        match self.get(id) {
            Some(known) if known == token => return Ok(()),
            Some(known) => {
                return Err(Error::invalid(format!(
                    "id {id} belongs to two tokens, {} and {}: give each its own",
                    quoted(known),
                    quoted(token)
                )));
            }
            None => {}
        }
        if (self.len + 1) * 2 > self.index.len() {
            self.grow_index((self.index.len() * 2).max(1024));
        }
        let (slot, tag) = self.slot_of(token);
        let known = self.index[slot].id;
        if known != EMPTY {
            return Err(Error::invalid(format!(
                "token {} has two ids, {known} and {id}: remove one of them",
                quoted(token)
            )));
        }
        let start = u32::try_from(self.bytes.len() + token.len())
            .map_err(|_| Error::invalid("the vocabulary's tokens are longer than 4 GiB in all"))?
            - token.len() as u32;
        if self.spans.len() <= id as usize {
            self.spans.resize(id as usize + 1, ABSENT);
        }
        self.bytes.extend_from_slice(token);
        self.spans[id as usize] = Span { start, len: token.len() as u32 };
        self.index[slot] = IndexSlot { tag, id };
        self.len += 1;
        Ok(())
    }

    /// The bytes of a token.
    #[inline]
    pub fn get(&self, id: TokenId) -> Option<&[u8]> {
        let span = self.spans.get(id as usize)?;
        // An absent span's end lies beyond all bytes (they end below u32::MAX).
        self.bytes.get(span.start as usize..span.start as usize + span.len as usize)
    }

    /// A token's length, and [`WIDE`] bytes that begin with it (or with its start, if it is
    /// longer); `None` for an unknown id, and for the few tokens too near the end of the store.
    #[inline]
    pub fn get_wide(&self, id: TokenId) -> Option<(usize, &[u8; WIDE])> {
        let span = self.spans.get(id as usize)?;
        let bytes = self.bytes.get(span.start as usize..)?.first_chunk()?;
        Some((span.len as usize, bytes))
    }

    /// The id of a token.
    #[inline]
    pub fn id(&self, token: &[u8]) -> Option<TokenId> {
        if self.index.is_empty() {
            return None;
        }
        let id = self.index[self.slot_of(token).0].id;
        (id != EMPTY).then_some(id)
    }

    /// How many tokens there are; with gaps between ids this is less than the largest id.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The largest id.
    pub fn max_id(&self) -> Option<TokenId> {
        self.spans.len().checked_sub(1).map(|id| id as TokenId)
    }

    /// Tokens by rising id.
    pub fn iter(&self) -> impl Iterator<Item = (TokenId, &[u8])> {
        (0..self.spans.len() as TokenId).filter_map(|id| Some((id, self.get(id)?)))
    }

    /// Where `token` is in the index, or the empty slot where it would go, and its tag.
    #[inline]
    fn slot_of(&self, token: &[u8]) -> (usize, u32) {
        let mask = self.index.len() - 1;
        let hash = hash_bytes(token);
        let (mut slot, tag) = (hash as usize & mask, (hash >> 32) as u32);
        loop {
            let found = self.index[slot];
            if found.id == EMPTY || (found.tag == tag && self.get(found.id) == Some(token)) {
                return (slot, tag);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow_index(&mut self, slots: usize) {
        self.index = filled(IndexSlot { tag: 0, id: EMPTY }, slots);
        for id in 0..self.spans.len() as TokenId {
            if let Some(token) = self.get(id) {
                let (slot, tag) = self.slot_of(token);
                self.index[slot] = IndexSlot { tag, id };
            }
        }
    }
}

/// A token as an error message shows it: as text where it is text.
pub fn quoted(token: &[u8]) -> String {
    match std::str::from_utf8(token) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("b\"{}\"", token.escape_ascii()),
    }
}
