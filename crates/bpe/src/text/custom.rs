//! Any regular expression, matched by the engine of fancy-regex.
//!
//! A pretoken is what a match covers, or what lies between two matches. An empty match is a place
//! to cut, as it is for Hugging Face's `Split`. The engine reads text, not bytes: where the bytes
//! are not valid UTF-8, it is given a copy in which each invalid byte is U+FFFD (not a letter,
//! number or space), and the places it finds are translated back.

use std::sync::Arc;

use fancy_regex::Regex;

use super::utf8::replace_invalid;
use crate::error::{Error, Result};
use crate::progress::check_thread;

/// How many matches are found between two looks at whether to stop.
const CHECK_EVERY: usize = 1 << 12;

/// A compiled regular expression; cloning shares it.
#[derive(Clone, Debug)]
pub struct CustomPattern {
    regex: Arc<Regex>,
}

impl CustomPattern {
    /// Compiles `regex`, in the syntax of fancy-regex.
    ///
    /// # Errors
    /// It is empty, or not a valid regular expression; the message says where.
    pub fn new(regex: &str) -> Result<Self> {
        if regex.is_empty() {
            return Err(Error::invalid(
                "pattern: an empty regular expression splits nothing; leave it out or give another",
            ));
        }
        let compiled = Regex::new(regex).map_err(|error| {
            // The engine's message may point at the place over several lines; ours takes one.
            let reason = error.to_string();
            let reason = reason.lines().map(str::trim).filter(|line| !line.is_empty());
            let reason = reason.collect::<Vec<_>>().join(" ");
            Error::invalid(format!("pattern {regex:?}: not a valid regular expression: {reason}"))
        })?;
        Ok(Self { regex: Arc::new(compiled) })
    }

    /// The regular expression.
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
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
        for (number, found) in self.regex.find_iter(text).enumerate() {
            // A whole file may come at once, and the engine is slow.
            if number % CHECK_EVERY == 0 {
                check_thread()?;
            }
            let found = found.map_err(|error| {
                Error::invalid(format!("pattern {:?}: gave up on the text: {error}", self.as_str()))
            })?;
            edge(found.start());
            edge(found.end());
        }
        Ok(())
    }
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
