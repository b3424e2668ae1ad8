//! Text -> pretokens: the pieces that merges never cross.
//!
//! Each known pattern has a scanner written by hand, equal to its regular expression on every
//! input; any other regular expression goes through the engine ([`super::custom`]). The text is one
//! segment between special tokens, so its end is the end of text to a look-ahead. Bytes that are
//! not valid UTF-8 are text too: each is one character that is not a letter, number or space.
//!
//! The patterns are those of tiktoken's `gpt2`, `cl100k_base` and `o200k_base`.

use super::custom::CustomPattern;
use super::visitor::Visitor;
use super::{gpt2, gpt4, gpt4o, window};
use crate::error::Result;

/// A way to cut text into pretokens. Cloning is cheap.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// The pattern of GPT-2.
    Gpt2,
    /// The pattern of GPT-4: cl100k_base.
    Gpt4,
    /// The pattern of GPT-4o: o200k_base.
    Gpt4o,
    /// Any other regular expression.
    Custom(CustomPattern),
}

/// The regular expressions, in the syntax that fancy-regex and Oniguruma (Hugging Face) read
/// alike: to the latter, `$` is the end of a line and `{1,3}+` is not a possessive quantifier.
const GPT2: &str =
    concat!(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+", r"|\s+(?!\S)|\s+");
const GPT4: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+",
    r"|\s++\z|\s*[\r\n]|\s+(?!\S)|\s"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Other spellings of the known patterns, as published files have them: the same pretokens on
/// every input.
const SPELLINGS: [(&str, Pattern); 6] = [
    (GPT2, Pattern::Gpt2),
    (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", Pattern::Gpt2),
    (
        concat!(
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++",
            r"|\s++$|\s+(?!\S)|\s"
        ),
        Pattern::Gpt2,
    ),
    (GPT4, Pattern::Gpt4),
    (
        concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+",
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        Pattern::Gpt4,
    ),
    (GPT4O, Pattern::Gpt4o),
];

impl Pattern {
    /// `gpt2`, `gpt4`, `gpt4o`, or a regular expression; one that is a known pattern's is that
    /// pattern.
    ///
    /// # Errors
    /// Any other regular expression that is empty or not valid; the message says why.
    pub fn parse(name_or_regex: &str) -> Result<Pattern> {
        let known = match name_or_regex {
            "gpt2" => Some(Pattern::Gpt2),
            "gpt4" => Some(Pattern::Gpt4),
            "gpt4o" => Some(Pattern::Gpt4o),
            regex => SPELLINGS
                .iter()
                .find(|(spelling, _)| *spelling == regex)
                .map(|(_, pattern)| pattern.clone()),
        };
        match known {
            Some(pattern) => Ok(pattern),
            None => CustomPattern::new(name_or_regex).map(Pattern::Custom),
        }
    }

    /// What [`parse`](Self::parse) makes this pattern from.
    pub fn name(&self) -> &str {
        match self {
            Pattern::Gpt2 => "gpt2",
            Pattern::Gpt4 => "gpt4",
            Pattern::Gpt4o => "gpt4o",
            Pattern::Custom(custom) => custom.as_str(),
        }
    }

    /// The regular expression.
    pub fn regex(&self) -> &str {
        match self {
            Pattern::Gpt2 => GPT2,
            Pattern::Gpt4 => GPT4,
            Pattern::Gpt4o => GPT4O,
            Pattern::Custom(custom) => custom.as_str(),
        }
    }

    /// Calls `visit` with each pretoken of `text` in order; joined they are `text`. What a custom
    /// regular expression leaves unmatched is a pretoken too.
    ///
    /// # Errors
    /// The engine gives up backtracking, which only a custom regular expression can make it do.
    pub fn for_each<'t>(&self, text: &'t [u8], visit: impl FnMut(&'t [u8])) -> Result<()> {
        self.scan(text, &mut Each { text, visit })
    }

    /// The same for a [`Visitor`], which gets places instead of bytes.
    #[inline]
    pub(crate) fn scan(&self, text: &[u8], visitor: &mut impl Visitor) -> Result<()> {
        match self {
            Pattern::Gpt2 => window::scan::<gpt2::Gpt2>(text, visitor),
            Pattern::Gpt4 => window::scan::<gpt4::Gpt4>(text, visitor),
            Pattern::Gpt4o => window::scan::<gpt4o::Gpt4o>(text, visitor),
            Pattern::Custom(custom) => {
                let mut start = 0;
                custom.for_each(text, |pretoken| {
                    let end = start + pretoken.len();
                    visitor.pretoken(start, end);
                    start = end;
                })?;
            }
        }
        Ok(())
    }

    /// Whether [`is_certain_boundary`](Self::is_certain_boundary) is ever sure.
    pub(crate) fn has_certain_boundaries(&self) -> bool {
        !matches!(self, Pattern::Custom(_))
    }

    /// Whether a pretoken certainly ends at `at`, whatever comes before or after the few bytes
    /// around it, so that `text[..at]` and `text[at..]` may be pretokenized separately. `false`
    /// means unknown, as it is at the ends of `text`, and everywhere for a custom pattern.
    pub(crate) fn is_certain_boundary(&self, text: &[u8], at: usize) -> bool {
        match self {
            Pattern::Gpt2 => gpt2::is_certain_boundary(text, at),
            Pattern::Gpt4 => gpt4::is_certain_boundary(text, at),
            Pattern::Gpt4o => gpt4o::is_certain_boundary(text, at),
            Pattern::Custom(_) => false,
        }
    }
}

/// A visitor that calls `visit` with each pretoken's bytes.
struct Each<'t, F> {
    text: &'t [u8],
    visit: F,
}

impl<'t, F: FnMut(&'t [u8])> Visitor for Each<'t, F> {
    #[inline(always)]
    fn pretoken(&mut self, start: usize, end: usize) {
        (self.visit)(&self.text[start..end]);
    }
}
