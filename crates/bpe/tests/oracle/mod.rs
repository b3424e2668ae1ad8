//! Encoding as plainly as it can be said, to compare the crate with: nothing here is shared with
//! what it tests but the regular expression engine.

#![allow(dead_code)] // each test file uses what it needs

use std::collections::HashMap;

use bpe::vocab::{TokenId, Vocab};

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

/// The ids of one pretoken: the least rank first, the leftmost of equals.
pub fn encode_word(vocab: &Vocab, word: &[u8]) -> Vec<TokenId> {
    let mut parts: Vec<Vec<u8>> = word.iter().map(|&byte| vec![byte]).collect();
    let rules: Vec<(&[u8], &[u8])> = vocab.merge_bytes().collect();
    loop {
        let rank = |i: usize| {
            rules.iter().position(|&(left, right)| parts[i - 1] == left && parts[i] == right)
        };
        let best = (1..parts.len()).filter_map(|i| Some((rank(i)?, i))).min();
        let Some((_, i)) = best else { break };
        let right = parts.remove(i);
        parts[i - 1].extend(right);
    }
    parts.iter().map(|part| vocab.id(part).expect("a part is a token")).collect()
}

/// The ids of valid UTF-8 text: special tokens leftmost-longest, the rest by the regex.
pub fn encode(vocab: &Vocab, special: &[&str], regex: &str, text: &str) -> Vec<TokenId> {
    let regex = fancy_regex::Regex::new(regex).expect("valid");
    let mut ids = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let next = special
            .iter()
            .filter_map(|token| Some((rest.find(token)?, usize::MAX - token.len(), *token)))
            .min();
        let (at, token) = next.map_or((rest.len(), None), |(at, _, token)| (at, Some(token)));
        for word in regex.find_iter(&rest[..at]) {
            ids.extend(encode_word(vocab, word.expect("no backtracking").as_str().as_bytes()));
        }
        rest = &rest[at..];
        if let Some(token) = token {
            ids.push(vocab.id(token.as_bytes()).expect("special tokens have ids"));
            rest = &rest[token.len()..];
        }
    }
    ids
}
