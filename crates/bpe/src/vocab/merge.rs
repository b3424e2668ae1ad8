//! One pretoken's bytes -> its ids: of all adjacent pairs that merge, the one of least rank
//! merges first, the leftmost of equals (Sennrich, Haddow and Birch, 2016, section 3.2), until
//! none is left.
//!
//! Most pretokens are a few bytes, and there nothing beats looking at all pairs each time
//! ([`merge_short`]). That is quadratic, so long ones are merged otherwise ([`super::merge_long`]).

pub use super::merge_long::MergeScratch;
use super::merge_long::{LIMIT, merge_long};
use crate::error::{Error, Result};
use crate::store::pair_table::{PairMerge, PairTable};
use crate::store::token_table::TokenId;

/// Up to here a scan over all pairs is quicker.
const SHORT: usize = 48;

/// Merges `symbols` in place and returns how many are left.
///
/// # Errors
/// More than 2^32 - 2 symbols, beyond positions of 32 bits; or the job that this is done for is to
/// stop.
#[inline]
pub fn merge(
    pairs: &PairTable,
    symbols: &mut [TokenId],
    scratch: &mut MergeScratch,
) -> Result<usize> {
    if symbols.len() <= SHORT {
        Ok(merge_short(pairs, symbols))
    } else if symbols.len() < LIMIT {
        merge_long(pairs, symbols, scratch)
    } else {
        Err(Error::invalid(format!(
            "a pretoken of {} bytes is too long to encode (the limit is 4 GiB): use a pattern that \
             cuts the text",
            symbols.len()
        )))
    }
}

/// All pairs in an array; each merge takes the least and closes the gap.
fn merge_short(pairs: &PairTable, symbols: &mut [TokenId]) -> usize {
    let mut len = symbols.len();
    // merges[i] is what symbols i and i + 1 become.
    let mut merges = [PairMerge::NONE; SHORT];
    for (merge, pair) in merges.iter_mut().zip(symbols.windows(2)) {
        *merge = pairs.get(pair[0], pair[1]);
    }
    while len > 1 {
        let (mut at, mut least) = (0, PairMerge::NONE);
        for (i, &merge) in merges[..len - 1].iter().enumerate() {
            if merge < least {
                (at, least) = (i, merge);
            }
        }
        if least == PairMerge::NONE {
            break;
        }
        symbols[at] = least.result();
        // Two reads from far away, and the first decides a branch: they are begun together.
        if at + 2 < len {
            pairs.prefetch(symbols[at], symbols[at + 2]);
        }
        symbols.copy_within(at + 2..len, at + 1);
        merges.copy_within(at + 1..len, at);
        len -= 1;
        if at > 0 {
            merges[at - 1] = pairs.get(symbols[at - 1], symbols[at]);
        }
        merges[at] =
            if at + 1 < len { pairs.get(symbols[at], symbols[at + 1]) } else { PairMerge::NONE };
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::Vocab;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// The definition, as plainly as it can be written.
    fn merge_naive(vocab: &Vocab, mut symbols: Vec<TokenId>) -> Vec<TokenId> {
        let ranks: HashMap<(TokenId, TokenId), (usize, TokenId)> = vocab
            .merges()
            .iter()
            .enumerate()
            .map(|(rank, rule)| ((rule.left, rule.right), (rank, rule.result)))
            .collect();
        loop {
            let best = (1..symbols.len())
                .filter_map(|i| Some((ranks.get(&(symbols[i - 1], symbols[i]))?, i)))
                .min();
            let Some((&(_, result), i)) = best else { return symbols };
            symbols.splice(i - 1..=i, [result]);
        }
    }

    fn check(vocab: &Vocab, word: &[u8]) {
        let symbols: Vec<TokenId> =
            word.iter().map(|&byte| vocab.byte_ids()[usize::from(byte)]).collect();
        let expected = merge_naive(vocab, symbols.clone());
        let mut scratch = MergeScratch::default();
        let mut long = symbols.clone();
        let len = merge_long(vocab.pairs(), &mut long, &mut scratch).unwrap();
        assert_eq!(long[..len], expected, "long");
        let mut chosen = symbols;
        let len = merge(vocab.pairs(), &mut chosen, &mut scratch).unwrap();
        assert_eq!(chosen[..len], expected, "chosen by length");
        let bytes: Vec<u8> =
            expected.iter().flat_map(|&id| vocab.token(id).unwrap().to_vec()).collect();
        assert_eq!(bytes, word);
    }

    /// Merges of any tokens in any order, as training would never make them: `picks` choose two
    /// tokens each; a result that is a token already gets a second merge. Ids run backwards.
    fn weird_vocab(picks: &[(usize, usize)], letters: &[u8], order: &[usize]) -> Vocab {
        let mut tokens: Vec<Vec<u8>> = letters.iter().map(|&letter| vec![letter]).collect();
        let mut merges: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for &(left, right) in picks {
            let left = tokens[left % tokens.len()].clone();
            let right = tokens[right % tokens.len()].clone();
            let joined = [left.as_slice(), &right].concat();
            if joined.len() > 40 || merges.contains(&(left.clone(), right.clone())) {
                continue;
            }
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
            merges.push((left, right));
        }
        // Ranks in an order of their own, so that a merge may come before its parts exist.
        let mut ranked: Vec<_> = merges.into_iter().enumerate().collect();
        ranked.sort_by_key(|(i, _)| order.get(*i).copied().unwrap_or(*i));
        let rest = (0..=255u8).filter(|byte| !letters.contains(byte)).map(|byte| vec![byte]);
        let ids = tokens.into_iter().chain(rest).enumerate();
        let tokens = ids.map(|(i, token)| (90_000 - 3 * i as TokenId, token));
        Vocab::new(tokens, ranked.into_iter().map(|(_, pair)| pair)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn equals_the_naive_loop(
            picks in prop::collection::vec((0usize..1000, 0usize..1000), 0..40),
            order in prop::collection::vec(0usize..40, 40),
            words in prop::collection::vec(prop::collection::vec(0usize..3, 0..130), 1..6),
        ) {
            let vocab = weird_vocab(&picks, b"abc", &order);
            for word in words {
                let word: Vec<u8> = word.into_iter().map(|letter| b"abc"[letter]).collect();
                check(&vocab, &word);
            }
        }

        #[test]
        fn equals_the_naive_loop_on_one_letter(
            picks in prop::collection::vec((0usize..1000, 0usize..1000), 0..12),
            len in 0usize..200,
        ) {
            check(&weird_vocab(&picks, b"a", &[]), &vec![b'a'; len]);
        }
    }

    #[test]
    fn every_length_around_the_limit() {
        let vocab = weird_vocab(&[(0, 1), (1, 0), (2, 2), (3, 2), (0, 0)], b"ab", &[]);
        for len in 0..2 * SHORT {
            let word: Vec<u8> = (0..len).map(|i| b"ab"[i * i / 3 % 2]).collect();
            check(&vocab, &word);
        }
    }
}
