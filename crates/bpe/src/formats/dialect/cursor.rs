//! Where the reading of an expression is, character by character.

use std::iter::repeat_n;

use crate::error::{Error, Result};

/// The dialect that an expression is written in; it is translated into the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Oniguruma with Ruby's syntax, as Hugging Face's library uses it.
    Oniguruma,
    /// fancy-regex.
    Fancy,
}

/// The rest of an expression.
pub struct Cursor {
    pub chars: Vec<char>,
    pub at: usize,
    pub from: Dialect,
}

impl Cursor {
    pub fn new(regex: &str, from: Dialect) -> Self {
        Self { chars: regex.chars().collect(), at: 0, from }
    }

    pub fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub fn next(&mut self) -> Result<char> {
        let next = self.peek();
        self.at += 1;
        next.ok_or_else(|| Error::invalid("it ends too early"))
    }

    pub fn eat(&mut self, text: &str) -> bool {
        let len = text.chars().count();
        let here = self.chars.get(self.at..self.at + len);
        let found = here.is_some_and(|here| here.iter().copied().eq(text.chars()));
        self.at += if found { len } else { 0 };
        found
    }

    pub fn back(&mut self, chars: usize) {
        self.at -= chars;
    }

    /// Up to `end`, which is taken too.
    pub fn until(&mut self, end: char) -> Result<String> {
        let mut taken = String::new();
        loop {
            match self.next()? {
                c if c == end => return Ok(taken),
                c => taken.push(c),
            }
        }
    }

    /// Hexadecimal digits: exactly `len` of them.
    pub fn hex(&mut self, len: usize) -> Result<u32> {
        let digits: String = repeat_n((), len).map(|()| self.next()).collect::<Result<String>>()?;
        hex_number(&digits)
    }
}

/// A code point from its hexadecimal digits.
pub fn hex_number(digits: &str) -> Result<u32> {
    let number = u32::from_str_radix(digits.trim(), 16);
    number.map_err(|_| Error::invalid(format!("{digits:?} is not a hexadecimal number")))
}

/// What is refused, and why.
pub fn refuse<T>(what: impl AsRef<str>) -> Result<T> {
    Err(Error::invalid(format!(
        "{} is not supported: Hugging Face's engine and this one may read it differently",
        what.as_ref()
    )))
}
