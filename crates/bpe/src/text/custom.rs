//! Any regular expression, matched by the engine of fancy-regex.
//!
//! A pretoken is what a match covers, or what lies between two matches. An empty match is a place
//! to cut, as it is for Hugging Face's `Split`. The engine reads text, not bytes: where the bytes
//! are not valid UTF-8, it is given a copy in which each invalid byte is U+FFFD (not a letter,
//! number or space), and the places it finds are translated back.
//!
//! Several expressions, written with [`THEN`] between them, cut one after the other: each cuts every
//! piece that those before it left, as if the piece were all the text there is. `DeepSeek`'s
//! tokenizers have three in a row, in which no single expression says the same.

use std::sync::Arc;

use fancy_regex::Regex;

use super::utf8::replace_invalid;
use crate::error::{Error, Result};
use crate::progress::check_thread;

/// What stands between expressions that cut one after the other: a comment of this syntax.
pub const THEN: &str = "(?#then)";

/// How many expressions there may be: each is a call deeper.
const MOST: usize = 64;

/// How many matches are found between two looks at whether to stop.
const CHECK_EVERY: usize = 1 << 12;

/// Compiled regular expressions; cloning shares them.
#[derive(Clone, Debug)]
pub struct CustomPattern(Arc<Expressions>);

#[derive(Debug)]
struct Expressions {
    written: String,
    /// In the order in which they cut; at least one.
    regexes: Vec<Regex>,
}

impl CustomPattern {
    /// Compiles `written`, in the syntax of fancy-regex; [`THEN`] stands between several.
    ///
    /// # Errors
    /// One is empty, or not a valid regular expression; the message says where.
    pub fn new(written: &str) -> Result<Self> {
        let regexes =
            written.split(THEN).take(MOST + 1).map(compiled).collect::<Result<Vec<_>>>()?;
        if regexes.len() > MOST {
            return Err(Error::invalid(format!(
                "pattern: more than {MOST} regular expressions one after the other"
            )));
        }
        Ok(Self(Arc::new(Expressions { written: written.to_owned(), regexes })))
    }

    /// What it was compiled from.
    pub fn as_str(&self) -> &str {
        &self.0.written
    }

    /// The expressions that cut one after the other.
    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        self.0.regexes.iter().map(Regex::as_str)
    }

    /// Calls `visit` with each pretoken of `text` in order; joined they are `text`.
    ///
    /// # Errors
    /// The engine gives up backtracking, or the job that this is done for is to stop.
    pub fn for_each<'t>(&self, text: &'t [u8], mut visit: impl FnMut(&'t [u8])) -> Result<()> {
        let mut from = 0;
        let mut edge = |to: usize| {
            if to > from {
                visit(&text[from..to]);
                from = to;
            }
        };
        match std::str::from_utf8(text) {
            Ok(valid) => self.for_each_edge(valid, &mut edge)?,
            Err(_) => {
                let (replaced, mut offsets) = replace_invalid(text);
                self.for_each_edge(&replaced, &mut |at| edge(offsets.original(at)))?;
            }
        }
        edge(text.len());
        Ok(())
    }

    /// Where each match starts and ends, in order.
    fn for_each_edge(&self, text: &str, edge: &mut impl FnMut(usize)) -> Result<()> {
        let mut matches = 0;
        self.cut(&self.0.regexes, text, 0, &mut matches, edge)
    }

    /// Cuts `text`, which lies at `base`, with the first of `regexes`, and its pieces with the rest.
    fn cut(
        &self,
        regexes: &[Regex],
        text: &str,
        base: usize,
        matches: &mut usize,
        edge: &mut impl FnMut(usize),
    ) -> Result<()> {
        let Some((first, rest)) = regexes.split_first() else {
            edge(base + text.len());
            return Ok(());
        };
        let mut from = 0;
        for found in first.find_iter(text) {
            // A whole file may come at once, and the engine is slow.
            if matches.is_multiple_of(CHECK_EVERY) {
                check_thread()?;
            }
            *matches += 1;
            let found = found.map_err(|error| {
                Error::invalid(format!("pattern {:?}: gave up on the text: {error}", self.as_str()))
            })?;
            for (start, end) in [(from, found.start()), (found.start(), found.end())] {
                if start < end {
                    self.cut(rest, &text[start..end], base + start, matches, edge)?;
                }
            }
            from = found.end();
        }
        match text.get(from..) {
            Some(left) if !left.is_empty() => self.cut(rest, left, base + from, matches, edge),
            _ => Ok(()),
        }
    }
}

fn compiled(regex: &str) -> Result<Regex> {
    if regex.is_empty() {
        return Err(Error::invalid(
            "pattern: an empty regular expression splits nothing; leave it out or give another",
        ));
    }
    Regex::new(regex).map_err(|error| {
        // The engine's message may point at the place over several lines; ours takes one.
        let reason = error.to_string();
        let reason = reason.lines().map(str::trim).filter(|line| !line.is_empty());
        let reason = reason.collect::<Vec<_>>().join(" ");
        Error::invalid(format!("pattern {regex:?}: not a valid regular expression: {reason}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'t>(regex: &str, text: &'t [u8]) -> Vec<&'t [u8]> {
        let mut pretokens = Vec::new();
        let pattern = CustomPattern::new(regex).expect("valid");
        pattern.for_each(text, |pretoken| pretokens.push(pretoken)).expect("no limit");
        pretokens
    }

    #[test]
    fn gaps_are_pretokens() {
        assert_eq!(split("b+", b"abbcb"), [b"a".as_slice(), b"bb", b"c", b"b"]);
        assert_eq!(split("x", b"abc"), [b"abc"]);
        assert_eq!(split("x", b""), [b""; 0]);
    }

    #[test]
    fn an_empty_match_is_a_cut() {
        assert_eq!(split("b*", b"abbc"), [b"a".as_slice(), b"bb", b"c"]);
        assert_eq!(split(r"(?=\p{Lu})", b"oneTwoThree"), [b"one".as_slice(), b"Two", b"Three"]);
    }

    #[test]
    fn expressions_cut_one_after_the_other() {
        let digits = r"\p{N}{1,3}(?#then)\s+(?!\S)|\s+|\w+";
        // Each piece is a text of its own: its end is the end.
        assert_eq!(split(digits, b"ab  1234"), [b"ab".as_slice(), b"  ", b"123", b"4"]);
        assert_eq!(split(r"\s+(?!\S)|\s+|\w+", b"ab  1"), [b"ab".as_slice(), b" ", b" ", b"1"]);
        // What one leaves alone the next may cut, matched or not.
        assert_eq!(split("b+(?#then)a|.", b"abbc"), [b"a".as_slice(), b"b", b"b", b"c"]);
        assert_eq!(
            split("b*(?#then)(?=c)(?#then)x", b"abcbb"),
            [b"a".as_slice(), b"b", b"c", b"bb"]
        );
        assert_eq!(split(r"\xE4(?#then).", b"\xFF\xE4b"), [b"\xFF".as_slice(), b"\xE4", b"b"]);
        for written in ["a(?#then)", "(?#then)a", "a(?#then)(?#then)b", "a(?#then)b("] {
            assert!(CustomPattern::new(written).is_err(), "{written}");
        }
        let many = |count| CustomPattern::new(&vec!["a"; count].join(THEN));
        assert_eq!(many(MOST).expect("as many as may be").expressions().count(), MOST);
        assert!(many(MOST + 1).is_err());
    }

    #[test]
    fn invalid_bytes_are_characters_of_their_own() {
        let text = b"\xFFa\xE4\xB8 \xE4\xB8\xADb\x80";
        assert_eq!(
            split(r"\w+|\s", text),
            [b"\xFF".as_slice(), b"a", b"\xE4\xB8", b" ", b"\xE4\xB8\xADb", b"\x80"]
        );
        assert_eq!(split("(?s).", b"\xF0\x9F\x98"), [b"\xF0", b"\x9F", b"\x98"]);
    }

    #[test]
    fn errors_take_one_line_and_name_the_pattern() {
        let error = CustomPattern::new("a(b").expect_err("unbalanced").to_string();
        assert!(error.starts_with("pattern \"a(b\": ") && !error.contains('\n'), "{error}");
        let slow = CustomPattern::new(r"(?i)(a|b|ab)*(?>c)").expect("valid");
        let error = slow.for_each("ab".repeat(500).as_bytes(), |_| {}).expect_err("backtracks");
        assert!(error.to_string().contains("gave up"), "{error}");
    }
}
