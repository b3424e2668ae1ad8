//! Text -> pretokens: the pieces that merges never cross.
//!
//! Each known pattern has a scanner written by hand, equal to its regular expression on every
//! input; any other regular expression goes through the engine ([`super::custom`]). The text is one
//! segment between special tokens, so its end is the end of text to a look-ahead. Bytes that are
//! not valid UTF-8 are text too: each is one character that is not a letter, number or space.
//!
//! [`super::known`] lists the known ones.

use super::classes;
use super::custom::CustomPattern;
use super::visitor::Visitor;
use super::{gpt2, gpt4, gpt4o, known, window};
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
    /// The pattern of Llama 3, and of many others.
    Llama3,
    /// The pattern of Qwen 2, 2.5 and 3.
    Qwen2,
    /// The pattern of Qwen 3.5.
    Qwen35,
    /// The pattern of nanochat: Llama 3's with two digits.
    Nanochat,
    /// The pattern of Mistral, from Nemo on.
    Tekken,
    /// The pattern of StarCoder: GPT-2's between single digits.
    Starcoder,
    /// Any other regular expression.
    Custom(CustomPattern),
}

/// Those that are known, in the order of [`known::KNOWN`].
static KNOWN: [Pattern; 9] = [
    Pattern::Gpt2,
    Pattern::Gpt4,
    Pattern::Gpt4o,
    Pattern::Llama3,
    Pattern::Qwen2,
    Pattern::Qwen35,
    Pattern::Nanochat,
    Pattern::Tekken,
    Pattern::Starcoder,
];

impl Pattern {
    /// A name (`gpt2`, `gpt4`, `gpt4o`, `llama3`, `qwen2`, `qwen3.5`, `nanochat`, `tekken`,
    /// `starcoder`) or a regular expression; one that spells a known pattern is that pattern.
    ///
    /// # Errors
    /// Any other regular expression that is empty or not valid; the message says why.
    pub fn parse(name_or_regex: &str) -> Result<Pattern> {
        match known::find(name_or_regex) {
            Some(place) => Ok(KNOWN[place].clone()),
            None => CustomPattern::new(name_or_regex).map(Pattern::Custom),
        }
    }

    /// The patterns that have names, which have a scanner each.
    pub fn known() -> impl Iterator<Item = Pattern> {
        KNOWN.iter().cloned()
    }

    /// What [`parse`](Self::parse) makes this pattern from.
    pub fn name(&self) -> &str {
        self.listed().map_or_else(|| self.regex(), |known| known.name)
    }

    /// The regular expression.
    pub fn regex(&self) -> &str {
        match self {
            Pattern::Custom(custom) => custom.as_str(),
            _ => self.listed().map_or("", |known| known.regex),
        }
    }

    /// Its place in the list of known patterns.
    fn listed(&self) -> Option<&'static known::Known> {
        let kind = std::mem::discriminant(self);
        let place = KNOWN.iter().position(|known| std::mem::discriminant(known) == kind);
        place.map(|place| &known::KNOWN[place])
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
            Pattern::Gpt2 => window::scan::<gpt2::Gpt2<false>>(text, visitor),
            Pattern::Gpt4 => window::scan::<gpt4::Gpt4<gpt4::Cl100k>>(text, visitor),
            Pattern::Gpt4o => window::scan::<gpt4o::Gpt4o<gpt4o::O200k>>(text, visitor),
            Pattern::Llama3 => window::scan::<gpt4::Gpt4<gpt4::Llama3>>(text, visitor),
            Pattern::Qwen2 => window::scan::<gpt4::Gpt4<gpt4::Qwen2>>(text, visitor),
            Pattern::Qwen35 => window::scan::<gpt4::Gpt4<gpt4::Qwen35>>(text, visitor),
            Pattern::Nanochat => window::scan::<gpt4::Gpt4<gpt4::Nanochat>>(text, visitor),
            Pattern::Tekken => window::scan::<gpt4o::Gpt4o<gpt4o::Tekken>>(text, visitor),
            Pattern::Starcoder => window::scan::<gpt2::Gpt2<true>>(text, visitor),
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
            Pattern::Gpt2 | Pattern::Starcoder => gpt2::is_certain_boundary(text, at),
            Pattern::Gpt4 | Pattern::Llama3 | Pattern::Qwen2 | Pattern::Nanochat => {
                gpt4::is_certain_boundary(text, at, classes::LETTER)
            }
            Pattern::Qwen35 => gpt4::is_certain_boundary(text, at, classes::LETTER | classes::MARK),
            Pattern::Gpt4o | Pattern::Tekken => gpt4o::is_certain_boundary(text, at),
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
