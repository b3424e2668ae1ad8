//! A vocabulary: ids <-> bytes, and the merges by rank.
//!
//! Ids may be in any order and leave gaps; what is fixed is that every byte has a token (so that
//! any input can be encoded) and that a merge's rank is its place in the list.
//!
//! A byte string has at most one id and an id one byte string, so every merge must make bytes that
//! no other token has. Files that break this are refused. Training never does: once a merge has
//! made some bytes, every occurrence of them between two token boundaries is that one token, so no
//! other pair can make them (the proof is at `Queue` in `train/pairs.rs`). So training numbers its
//! merges as it makes them, and [`Vocab::from_merges`] takes whatever it made. A merge does not
//! make a special token either: its text does not occur in a pretoken.

pub(crate) mod merge;
mod merge_long;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::pair_table::{PairMerge, PairTable};
pub use crate::store::token_table::{MAX_TOKEN_ID, TokenId};
use crate::store::token_table::{TokenTable, WIDE, quoted};
use merge::{MergeScratch, merge};

/// A merge: `left` and `right`, side by side, become `result`. Its rank is its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeRule {
    /// The left token.
    pub left: TokenId,
    /// The right token.
    pub right: TokenId,
    /// The token of the bytes of both.
    pub result: TokenId,
}

/// Tokens with their ids, and the merges that build them.
#[derive(Clone, Debug)]
pub struct Vocab {
    tokens: TokenTable,
    byte_ids: [TokenId; 256],
    merges: Vec<MergeRule>,
    pairs: PairTable,
    whole_words_first: bool,
}

impl Vocab {
    /// A vocabulary as `vocab.json` and `merges.txt` hold it: tokens with their ids, and merges
    /// in rank order as pairs of byte strings.
    ///
    /// # Errors
    /// A byte without a token, two ids for the same bytes, one id for two tokens, an id above
    /// [`MAX_TOKEN_ID`], a merge whose parts or result are not tokens, a merge listed twice.
    pub fn new<T, L, R>(
        tokens: impl IntoIterator<Item = (TokenId, T)>,
        merges: impl IntoIterator<Item = (L, R)>,
    ) -> Result<Self>
    where
        T: AsRef<[u8]>,
        L: AsRef<[u8]>,
        R: AsRef<[u8]>,
    {
        let mut vocab = Self::from_tokens(tokens)?;
        let merges = merges.into_iter();
        vocab.reserve_merges(merges.size_hint().1.unwrap_or(0));
        let mut joined = Vec::new();
        let mut next = 0;
        for (left, right) in merges {
            let (left, right) = (left.as_ref(), right.as_ref());
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let find = |part: &[u8]| {
                vocab.tokens.id(part).ok_or_else(|| {
                    Error::invalid(format!(
                        "merge {} ({} {}): {} is not in the vocabulary",
                        vocab.merges.len() + 1,
                        quoted(left),
                        quoted(right),
                        quoted(part)
                    ))
                })
            };
            let (left, right) = (find(left)?, find(right)?);
            // Mostly ids rise with the merges: to compare the next one's bytes is less than a search.
            let result = match vocab.tokens.get(next) {
                Some(token) if token == joined => next,
                _ => find(&joined)?,
            };
            next = result + 1;
            vocab.push_merge(MergeRule { left, right, result })?;
        }
        Ok(vocab)
    }

    /// A vocabulary as training makes it: ids 0-255 are the bytes, then the merges in order of
    /// creation, then the special tokens.
    ///
    /// # Errors
    /// A merge of tokens that do not exist yet, or of which the bytes are those of another token,
    /// which no training makes (see the top of `vocab/mod.rs`).
    pub fn from_merges<S: AsRef<str>>(
        merges: &[(TokenId, TokenId)],
        special_tokens: &[S],
    ) -> Result<Self> {
        let mut tokens = TokenTable::with_capacity(256 + merges.len() + special_tokens.len());
        for byte in 0..=255u8 {
            tokens.insert(TokenId::from(byte), &[byte])?;
        }
        let mut vocab = Self::with_table(tokens)?;
        vocab.reserve_merges(merges.len());
        let mut joined = Vec::new();
        for (rank, &(left, right)) in merges.iter().enumerate() {
            joined.clear();
            for part in [left, right] {
                let bytes = vocab.tokens.get(part).ok_or_else(|| {
                    Error::invalid(format!("merge {}: no token has id {part} yet", rank + 1))
                })?;
                joined.extend_from_slice(bytes);
            }
            let result = vocab.add_token(&joined)?;
            vocab.push_merge(MergeRule { left, right, result })?;
        }
        for token in special_tokens {
            vocab.add_token(token.as_ref().as_bytes())?;
        }
        Ok(vocab)
    }

    /// A vocabulary as a `.tiktoken` file holds it: tokens whose id is their rank, and no list of
    /// merges. There, two adjacent tokens merge if their joined bytes are a token, the least rank
    /// first, and a pretoken that is a token is taken whole.
    ///
    /// Each merge is recovered by encoding the token with the merges before it: two parts are left,
    /// and they are what it was made from. Where it comes out otherwise (a token added by hand),
    /// every way to split it in two becomes a merge, and whole words come first.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Cancelled`].
    pub fn from_ranks<T: AsRef<[u8]>>(
        tokens: impl IntoIterator<Item = (TokenId, T)>,
        progress: &Progress,
    ) -> Result<Self> {
        let mut vocab = Self::from_tokens(tokens)?;
        vocab.reserve_merges(vocab.tokens.len());
        let lengths = vocab.token_lengths();
        let mut scratch = MergeScratch::default();
        let mut parts = Vec::new();
        for id in 0..=vocab.tokens.max_id().unwrap_or(0) {
            let Some(token) = vocab.tokens.get(id).filter(|token| token.len() > 1) else {
                continue;
            };
            progress.check()?;
            parts.clear();
            parts.extend(token.iter().map(|&byte| vocab.byte_ids[usize::from(byte)]));
            let len = merge(&vocab.pairs, &mut parts, &mut scratch)?;
            if let [left, right] = parts[..len] {
                vocab.push_merge(MergeRule { left, right, result: id })?;
                continue;
            }
            let splits: Vec<MergeRule> = splits_in_two(token.len(), &lengths)
                .filter_map(|at| {
                    let left = vocab.tokens.id(&token[..at])?;
                    let right = vocab.tokens.id(&token[at..])?;
                    Some(MergeRule { left, right, result: id })
                })
                .collect();
            vocab.whole_words_first = true;
            splits.into_iter().try_for_each(|rule| vocab.push_merge(rule))?;
        }
        Ok(vocab)
    }

    /// The lengths that tokens have, rising. Their number is at most the square root of twice the
    /// bytes of all tokens.
    fn token_lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> = self.tokens.iter().map(|(_, token)| token.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }

    fn from_tokens<T: AsRef<[u8]>>(tokens: impl IntoIterator<Item = (TokenId, T)>) -> Result<Self> {
        let tokens = tokens.into_iter();
        let mut table = TokenTable::with_capacity(tokens.size_hint().0);
        for (id, token) in tokens {
            table.insert(id, token.as_ref())?;
        }
        Self::with_table(table)
    }

    fn with_table(tokens: TokenTable) -> Result<Self> {
        let mut byte_ids = [0; 256];
        for byte in 0..=255u8 {
            byte_ids[usize::from(byte)] = tokens.id(&[byte]).ok_or_else(|| {
                Error::invalid(format!(
                    "the vocabulary has no token for byte 0x{byte:02X}: text that holds it could \
                     not be encoded; add all 256 bytes"
                ))
            })?;
        }
        let pairs = PairTable::with_capacity(0);
        Ok(Self { tokens, byte_ids, merges: Vec::new(), pairs, whole_words_first: false })
    }

    fn reserve_merges(&mut self, merges: usize) {
        self.merges.reserve(merges);
        self.pairs = PairTable::with_capacity(merges);
    }

    fn push_merge(&mut self, rule: MergeRule) -> Result<()> {
        let rank = self.merges.len() as u32;
        if !self.pairs.insert(rule.left, rule.right, PairMerge::new(rank, rule.result)) {
            let part = |id| self.tokens.get(id).map(quoted).unwrap_or_default();
            return Err(Error::invalid(format!(
                "merge {} ({} {}) is listed twice: remove one of them",
                rank + 1,
                part(rule.left),
                part(rule.right)
            )));
        }
        self.merges.push(rule);
        Ok(())
    }

    /// Gives `token` the id after the largest one. It takes part in no merge.
    ///
    /// # Errors
    /// The token exists, or is empty, or the largest id is [`MAX_TOKEN_ID`].
    pub fn add_token(&mut self, token: &[u8]) -> Result<TokenId> {
        let id = self.tokens.max_id().map_or(0, |id| id + 1);
        self.tokens.insert(id, token)?;
        Ok(id)
    }

    /// Gives `token` this id. It takes part in no merge, unless it does already.
    ///
    /// # Errors
    /// The token has another id, the id another token; the token is empty; the id is above
    /// [`MAX_TOKEN_ID`].
    pub fn add_token_as(&mut self, id: TokenId, token: &[u8]) -> Result<()> {
        self.tokens.insert(id, token)
    }

    /// The bytes of a token.
    #[inline]
    pub fn token(&self, id: TokenId) -> Option<&[u8]> {
        self.tokens.get(id)
    }

    /// See [`TokenTable::get_wide`].
    #[inline]
    pub(crate) fn token_wide(&self, id: TokenId) -> Option<(usize, &[u8; WIDE])> {
        self.tokens.get_wide(id)
    }

    /// The id of a token.
    #[inline]
    pub fn id(&self, token: &[u8]) -> Option<TokenId> {
        self.tokens.id(token)
    }

    /// How many tokens there are. Ids may be larger: see [`max_id`](Self::max_id).
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never true: a vocabulary holds at least the 256 bytes.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The largest id.
    pub fn max_id(&self) -> TokenId {
        self.tokens.max_id().unwrap_or(0)
    }

    /// Tokens with their ids, by rising id.
    pub fn tokens(&self) -> impl Iterator<Item = (TokenId, &[u8])> {
        self.tokens.iter()
    }

    /// Merges in rank order.
    pub fn merges(&self) -> &[MergeRule] {
        &self.merges
    }

    /// Merges in rank order, as pairs of byte strings.
    pub fn merge_bytes(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let part = |id| self.tokens.get(id).unwrap_or_default();
        self.merges.iter().map(move |rule| (part(rule.left), part(rule.right)))
    }

    /// The merges by pair.
    #[inline]
    pub(crate) fn pairs(&self) -> &PairTable {
        &self.pairs
    }

    /// The ids of the 256 bytes.
    #[inline]
    pub fn byte_ids(&self) -> &[TokenId; 256] {
        &self.byte_ids
    }

    /// Whether a pretoken that is a token is taken whole even where its merges would not lead
    /// there (`ignore_merges` in `tokenizer.json`; tiktoken always does). It makes no difference
    /// to a vocabulary that came from training, where every token is what its bytes merge to.
    pub fn whole_words_first(&self) -> bool {
        self.whole_words_first
    }

    /// Sets [`whole_words_first`](Self::whole_words_first).
    pub fn set_whole_words_first(&mut self, whole_words_first: bool) {
        self.whole_words_first = whole_words_first;
    }
}

/// Where a token of `len` bytes may be split so that both parts are as long as some token, rising.
/// To look at every place would be to hash the square of the bytes of one long token.
fn splits_in_two(len: usize, lengths: &[usize]) -> impl Iterator<Item = usize> {
    let shorter = lengths.iter().copied().take_while(move |&at| at < len);
    shorter.filter(move |at| lengths.binary_search(&(len - at)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<(TokenId, Vec<u8>)> {
        (0..=255u8).map(|byte| (TokenId::from(byte), vec![byte])).collect()
    }

    fn with(extra: &[(TokenId, &str)]) -> Vec<(TokenId, Vec<u8>)> {
        let extra = extra.iter().map(|&(id, token)| (id, token.as_bytes().to_vec()));
        bytes().into_iter().chain(extra).collect()
    }

    fn message<T>(result: Result<T>) -> String {
        result.err().expect("refused").to_string()
    }

    #[test]
    fn keeps_ids_as_they_are_given() {
        // Reversed bytes, a gap, and merges in no relation to ids.
        let mut tokens: Vec<(TokenId, Vec<u8>)> =
            (0..=255u8).map(|byte| (1000 - TokenId::from(byte), vec![byte])).collect();
        tokens.extend([(5, b"ab".to_vec()), (70_000, b"abc".to_vec())]);
        let vocab = Vocab::new(tokens.clone(), [("a", "b"), ("ab", "c")]).unwrap();
        for (id, token) in &tokens {
            assert_eq!(vocab.token(*id), Some(token.as_slice()));
            assert_eq!(vocab.id(token), Some(*id));
        }
        assert_eq!((vocab.len(), vocab.max_id()), (258, 70_000));
        assert_eq!((vocab.token(6), vocab.token(70_001), vocab.id(b"zz")), (None, None, None));
        assert_eq!(vocab.byte_ids()[usize::from(b'a')], 1000 - 97);
        let rule = vocab.merges()[1];
        assert_eq!((rule.left, rule.right, rule.result), (5, 1000 - 99, 70_000));
        let pair = vocab.pairs().get(5, 1000 - 99);
        assert_eq!((pair.rank(), pair.result()), (1, 70_000));
        let ids: Vec<TokenId> = vocab.tokens().map(|(id, _)| id).collect();
        assert!(ids.is_sorted() && ids.len() == 258);
    }

    #[test]
    fn from_merges_numbers_bytes_then_merges_then_specials() {
        let merges = [(97, 98), (256, 99)];
        let vocab = Vocab::from_merges(&merges, &["<|eot|>"]).unwrap();
        assert_eq!(vocab.token(257), Some(b"abc".as_slice()));
        assert_eq!(vocab.id(b"<|eot|>"), Some(258));
        let parts: Vec<_> = vocab.merge_bytes().collect();
        assert_eq!(parts, [(b"a".as_slice(), b"b".as_slice()), (b"ab", b"c")]);
    }

    #[test]
    fn from_ranks_finds_the_merges_again() {
        let merges = [(97, 98), (99, 256), (257, 257), (98, 99)];
        let trained = Vocab::from_merges(&merges, &[] as &[&str]).unwrap();
        let ranks: Vec<_> = trained.tokens().map(|(id, token)| (id, token.to_vec())).collect();
        let found = Vocab::from_ranks(ranks.into_iter().rev(), &Progress::new()).unwrap();
        assert_eq!(found.merges(), trained.merges());
        assert!(!found.whole_words_first());
    }

    #[test]
    fn from_ranks_takes_a_token_that_no_two_lower_ones_make() {
        // "abc" comes before "ab", the only way to make it.
        let vocab =
            Vocab::from_ranks(with(&[(256, "abc"), (257, "ab")]), &Progress::new()).unwrap();
        assert!(vocab.whole_words_first());
        let merges: Vec<_> = vocab.merge_bytes().collect();
        assert_eq!(merges, [(b"ab".as_slice(), b"c".as_slice()), (b"a", b"b")]);
    }

    #[test]
    fn a_long_token_is_split_only_where_both_parts_may_be_tokens() {
        let lengths = [1, 2, 3, 50_000, 99_999, 100_000];
        let places: Vec<usize> = splits_in_two(100_000, &lengths).collect();
        assert_eq!(places, [1, 50_000, 99_999]);
        let long = "ab".repeat(50_000);
        let vocab = Vocab::from_ranks(with(&[(256, "aa"), (257, &long)]), &Progress::new());
        let vocab = vocab.unwrap();
        assert!(vocab.whole_words_first() && vocab.merges().len() == 1);
    }

    #[test]
    fn refuses_by_name() {
        let none: [(&str, &str); 0] = [];
        let few = bytes().into_iter().filter(|(id, _)| *id != 10);
        assert!(message(Vocab::new(few, none)).contains("0x0A"));
        let twice = message(Vocab::new(with(&[(256, "ab"), (257, "ab")]), none));
        assert!(twice.contains("\"ab\" has two ids, 256 and 257"), "{twice}");
        let shared = message(Vocab::new(with(&[(256, "ab"), (256, "cd")]), none));
        assert!(shared.contains("id 256 belongs to two tokens"), "{shared}");
        assert!(message(Vocab::new(with(&[(256, "")]), none)).contains("256 is empty"));
        let large = message(Vocab::new(with(&[(TokenId::MAX, "ab")]), none));
        assert!(large.contains("not supported"), "{large}");
        let part = message(Vocab::new(with(&[(256, "ab")]), [("a", "b"), ("é", "b")]));
        assert!(part.contains("merge 2") && part.contains("\"é\" is not in"), "{part}");
        let result = message(Vocab::new(bytes(), [("a", "b")]));
        assert!(result.contains("\"ab\" is not in the vocabulary"), "{result}");
        let again = message(Vocab::new(with(&[(256, "ab")]), [("a", "b"), ("a", "b")]));
        assert!(again.contains("listed twice"), "{again}");
    }

    #[test]
    fn the_same_token_may_be_listed_twice_with_one_id() {
        let none: [(&str, &str); 0] = [];
        assert_eq!(Vocab::new(with(&[(256, "ab"), (256, "ab")]), none).unwrap().len(), 257);
    }
}
