//! Regular expressions from Oniguruma's dialect, in which `tokenizer.json` has them, to the one of
//! fancy-regex, in which this crate matches them, and back.
//!
//! Both look like Perl's and differ in what they mean: to Oniguruma (Ruby's syntax) `$` is the end
//! of a line, `{1,3}+` is a quantifier on a quantifier and not a possessive one, `(?m)` lets a dot
//! match a line's end, `\w` knows `½`. What can be said in the other dialect is translated; the
//! rest is refused by name. What both read alike stays as it is written, letter by letter.
//!
//! Source: the document RE of Oniguruma; the behaviour of `tokenizers`, which a test compares.

mod class;
mod cursor;
mod parser;

pub use cursor::Dialect;

use crate::error::Result;
use parser::Parser;

/// An expression in the other dialect.
#[derive(Debug)]
pub struct Translated {
    /// As text.
    pub regex: String,
    /// Whether it is certain that matches follow each other without a gap on every text, and that
    /// none is empty.
    pub covers_all: bool,
}

/// Translates `regex`, which is valid in its dialect.
///
/// # Errors
/// It holds something that the other dialect has no equal for, or that this does not know.
pub fn translate(regex: &str, from: Dialect) -> Result<Translated> {
    let whole = Parser::new(regex, from).whole()?;
    let covers_all = whole.consumes && whole.covers_all();
    Ok(Translated { regex: whole.text, covers_all })
}
