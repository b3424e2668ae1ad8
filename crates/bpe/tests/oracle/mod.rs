//! Encoding as plainly as it can be said, to compare the crate with: nothing here is shared with
//! what it tests but the regular expression engine.

#![allow(dead_code)] // the tests and the fuzzer use what they need

use std::collections::HashMap;

use bpe::{TokenId, Vocab};

/// Trains on the words of a text by counting pairs afresh for each merge. Ids 0-255 are bytes.
pub fn train(words: &[&[u8]], num_merges: usize) -> Vec<(TokenId, TokenId)> {
    let mut words: Vec<Vec<TokenId>> =
        words.iter().map(|word| word.iter().map(|&b| TokenId::from(b)).collect()).collect();
    let mut merges = Vec::new();
    for id in 256..256 + num_merges as TokenId {
        let mut counts: HashMap<(TokenId, TokenId), usize> = HashMap::new();
        for pair in words.iter().flat_map(|word| word.windows(2)) {
            *counts.entry((pair[0], pair[1])).or_default() += 1;
        }
        let Some((&pair, _)) = counts.iter().max_by_key(|&(pair, count)| (*count, *pair)) else {
            break;
        };
        merges.push(pair);
        for word in &mut words {
            let mut i = 0;
            while i + 1 < word.len() {
                if (word[i], word[i + 1]) == pair {
                    word.splice(i..i + 2, [id]);
                }
                i += 1;
            }
        }
    }
    merges
}

/// What decides about ids, in the forms that are easiest to ask.
pub struct Oracle<'v> {
    vocab: &'v Vocab,
    ranks: HashMap<(&'v [u8], &'v [u8]), usize>,
    regex: fancy_regex::Regex,
}

impl<'v> Oracle<'v> {
    pub fn new(vocab: &'v Vocab, regex: &str) -> Self {
        let ranks = vocab.merge_bytes().enumerate().map(|(rank, pair)| (pair, rank)).collect();
        Self { vocab, ranks, regex: fancy_regex::Regex::new(regex).expect("valid") }
    }

    /// The ids of one word: the pair of least rank first, the leftmost of equals.
    pub fn encode_word(&self, word: &[u8]) -> Vec<TokenId> {
        let mut parts: Vec<Vec<u8>> = word.iter().map(|&byte| vec![byte]).collect();
        loop {
            let rank = |i: usize| self.ranks.get(&(&parts[i - 1][..], &parts[i][..]));
            let best = (1..parts.len()).filter_map(|i| Some((rank(i)?, i))).min();
            let Some((_, i)) = best else { break };
            let right = parts.remove(i);
            parts[i - 1].extend(right);
        }
        parts.iter().map(|part| self.vocab.id(part).expect("a part is a token")).collect()
    }

    /// The ids of valid UTF-8 text: special tokens leftmost-longest, the rest by the regex.
    pub fn encode(&self, special: &[&str], text: &str) -> Vec<TokenId> {
        let mut ids = Vec::new();
        self.for_each_word(special, text, |word, is_special| match is_special {
            true => ids.push(self.vocab.id(word.as_bytes()).expect("special tokens have ids")),
            false => ids.extend(self.encode_word(word.as_bytes())),
        });
        ids
    }

    /// Calls `visit` with each special token, with each match of the regex between them, and with
    /// what it leaves out, in order.
    pub fn for_each_word<'t>(
        &self,
        special: &[&str],
        text: &'t str,
        mut visit: impl FnMut(&'t str, bool),
    ) {
        let mut rest = text;
        while !rest.is_empty() {
            let next = special
                .iter()
                .filter_map(|token| Some((rest.find(token)?, usize::MAX - token.len(), *token)))
                .min();
            let (at, len) = next.map_or((rest.len(), 0), |(at, _, token)| (at, token.len()));
            let mut end = 0;
            for word in self.regex.find_iter(&rest[..at]) {
                let word = word.expect("no backtracking");
                if end < word.start() {
                    visit(&rest[end..word.start()], false);
                }
                visit(word.as_str(), false);
                end = word.end();
            }
            if end < at {
                visit(&rest[end..at], false);
            }
            if len > 0 {
                visit(&rest[at..at + len], true);
            }
            rest = &rest[at + len..];
        }
    }
}

/// The ids of one word, as [`Oracle::encode_word`] says.
pub fn encode_word(vocab: &Vocab, word: &[u8]) -> Vec<TokenId> {
    Oracle::new(vocab, "").encode_word(word)
}

/// The ids of a text, as [`Oracle::encode`] says.
pub fn encode(vocab: &Vocab, special: &[&str], regex: &str, text: &str) -> Vec<TokenId> {
    Oracle::new(vocab, regex).encode(special, text)
}
