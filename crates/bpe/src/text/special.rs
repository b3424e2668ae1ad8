//! Special tokens: finds them in text, leftmost first, the longest of those at one place.
//!
//! One pass of an Aho-Corasick automaton, however many they are. The text between them is
//! pretokenized by itself: special tokens bound pretokens and never enter the counts.

use std::ops::Range;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::error::{Error, Result};
use crate::store::once::filled_beside;

/// A list of distinct special tokens, and the automaton that finds them. Cloning is cheap for the
/// automaton, not for the list.
#[derive(Clone, Debug, Default)]
pub struct SpecialTokens {
    tokens: Vec<String>,
    /// `None` if there are no tokens.
    finder: Option<AhoCorasick>,
    /// Finds all occurrences, those inside others too; made when first needed.
    overlapping: OnceLock<Option<AhoCorasick>>,
    max_len: usize,
}

/// A piece of text: a special token, or what lies between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment<'t> {
    /// Text without a special token in it, never empty.
    Text(&'t [u8]),
    /// A special token, by its index in [`SpecialTokens::tokens`].
    Special(usize),
}

impl SpecialTokens {
    /// The special tokens of a tokenizer, in the order of their ids.
    ///
    /// # Errors
    /// A token that is empty or given twice.
    pub fn new<S: AsRef<str>>(tokens: &[S]) -> Result<Self> {
        let tokens: Vec<String> = tokens.iter().map(|token| token.as_ref().to_owned()).collect();
        let mut seen = std::collections::HashSet::new();
        for token in &tokens {
            if token.is_empty() {
                return Err(Error::invalid("special token \"\": must not be empty"));
            }
            if !seen.insert(token) {
                return Err(Error::invalid(format!("special token {token:?}: given twice")));
            }
        }
        let max_len = tokens.iter().map(String::len).max().unwrap_or(0);
        let finder = match tokens.is_empty() {
            true => None,
            false => Some(
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(&tokens)
                    .map_err(|error| Error::invalid(format!("special tokens: {error}")))?,
            ),
        };
        Ok(Self { tokens, finder, overlapping: OnceLock::new(), max_len })
    }

    /// The tokens, in the order given.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The longest token's length in bytes; 0 if there are none.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Calls `visit` with each special token of `text` and with what lies between, in order, and
    /// stops at the first error of `visit`.
    pub(crate) fn for_each_segment<'t>(
        &self,
        text: &'t [u8],
        mut visit: impl FnMut(Segment<'t>) -> Result<()>,
    ) -> Result<()> {
        let mut from = 0;
        if let Some(finder) = &self.finder {
            for found in finder.find_iter(text) {
                if found.start() > from {
                    visit(Segment::Text(&text[from..found.start()]))?;
                }
                visit(Segment::Special(found.pattern().as_usize()))?;
                from = found.end();
            }
        }
        if from < text.len() { visit(Segment::Text(&text[from..])) } else { Ok(()) }
    }

    /// Calls `visit` with the place of each special token that [`for_each_segment`] finds.
    ///
    /// [`for_each_segment`]: Self::for_each_segment
    pub(crate) fn for_each_place(&self, text: &[u8], mut visit: impl FnMut(Range<usize>)) {
        count_searched(text.len());
        if let Some(finder) = &self.finder {
            finder.find_iter(text).for_each(|found| visit(found.range()));
        }
    }

    /// For each place in `range` whether some special token in `text` starts before it and ends
    /// after it, even if another one that overlaps it would be taken in its place. One pass over
    /// the range and the length of a token on either side, however many tokens there are.
    pub(crate) fn straddled(&self, text: &[u8], range: Range<usize>) -> Vec<bool> {
        let from = range.start.saturating_sub(self.max_len);
        let window = &text[from..text.len().min(range.end + self.max_len)];
        count_searched(window.len());
        // How many occurrences more than at the place before, of those around a place.
        let mut change = vec![0isize; range.len() + 1];
        let at = |place: usize| (place + from).clamp(range.start, range.end) - range.start;
        let build =
            || AhoCorasick::builder().match_kind(MatchKind::Standard).build(&self.tokens).ok();
        if let Some(finder) = filled_beside(&self.overlapping, build) {
            for found in finder.find_overlapping_iter(window) {
                change[at(found.start() + 1)] += 1;
                change[at(found.end())] -= 1;
            }
        }
        let mut around = 0;
        let sums = change[..range.len()].iter().map(|change| {
            around += change;
            around > 0
        });
        sums.collect()
    }
}

/// Adds to what the tests count: bytes that were searched for special tokens.
#[cfg(test)]
fn count_searched(bytes: usize) {
    SEARCHED.with(|searched| searched.set(searched.get() + bytes));
}

#[cfg(not(test))]
fn count_searched(_: usize) {}

#[cfg(test)]
thread_local! {
    pub(crate) static SEARCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments(tokens: &[&str], text: &str) -> Vec<String> {
        let special = SpecialTokens::new(tokens).expect("valid");
        let mut seen = Vec::new();
        let result = special.for_each_segment(text.as_bytes(), |segment| {
            seen.push(match segment {
                Segment::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Segment::Special(index) => format!("#{index}"),
            });
            Ok(())
        });
        result.expect("visit does not fail");
        seen
    }

    /// The definition, letter by letter.
    fn obvious(tokens: &[&str], text: &str) -> Vec<String> {
        let (mut seen, mut pending, mut at) = (Vec::new(), String::new(), 0);
        while at < text.len() {
            let here = (0..tokens.len()).filter(|&index| text[at..].starts_with(tokens[index]));
            match here.max_by_key(|&index| tokens[index].len()) {
                Some(index) => {
                    if !pending.is_empty() {
                        seen.push(std::mem::take(&mut pending));
                    }
                    seen.push(format!("#{index}"));
                    at += tokens[index].len();
                }
                None => {
                    pending.push(text.as_bytes()[at].into());
                    at += 1;
                }
            }
        }
        if !pending.is_empty() {
            seen.push(pending);
        }
        seen
    }

    #[test]
    fn the_longest_of_the_leftmost_wins() {
        let tokens = ["<a>", "<a><a>", "a><", "x"];
        assert_eq!(segments(&tokens, "<a><a><a>b"), ["#1", "#0", "b"]);
        assert_eq!(segments(&tokens, "aa><xx"), ["a", "#2", "#3", "#3"]);
        assert_eq!(segments(&tokens, ""), [""; 0]);
        assert_eq!(segments(&[], "<a>"), ["<a>"]);
    }

    #[test]
    fn refuses_empty_and_duplicate_tokens() {
        assert!(SpecialTokens::new(&["a", ""]).is_err());
        let error = SpecialTokens::new(&["a", "b", "a"]).expect_err("duplicate");
        assert_eq!(error.to_string(), "special token \"a\": given twice");
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            tokens in prop::collection::btree_set("[ab]{1,4}", 0..5),
            text in "[abc]{0,30}",
        ) {
            let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
            prop_assert_eq!(segments(&tokens, &text), obvious(&tokens, &text));
        }

        #[test]
        fn straddled_is_what_it_says(
            tokens in prop::collection::btree_set("[ab]{1,4}", 0..4),
            text in "[abc]{0,16}",
            start in 0usize..18,
            len in 0usize..18,
        ) {
            let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
            let special = SpecialTokens::new(&tokens).expect("valid");
            let obvious = |at: usize| tokens.iter().any(|token| {
                text.match_indices(token).count() > 0
                    && (0..text.len()).any(|start| {
                        text[start..].starts_with(token) && start < at && at < start + token.len()
                    })
            });
            let range = start.min(text.len())..(start + len).min(text.len());
            let expected: Vec<bool> = range.clone().map(obvious).collect();
            prop_assert_eq!(special.straddled(text.as_bytes(), range), expected);
        }
    }
}
