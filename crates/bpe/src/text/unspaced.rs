//! Text without spaces: where it can be encoded without looking for pretokens.
//!
//! Chinese and Japanese are written without spaces, so a pretoken is a sentence, and what decides
//! its ids is where no merge reaches across (the encoder's cut table). Two kinds of characters,
//! both of three bytes, let the encoder go from one such cut to the next without a scanner:
//! *letters* (Lm, Lo: without case) and *others* (neither letter, mark, number nor white space,
//! such as an ideographic comma). In all known patterns:
//!
//! * No pretoken ends between two letters, and one always ends between a letter and an other.
//! * A scanner that begins at a letter after a letter, or after an other, finds the end of the
//!   pretoken that this letter is in; one that begins at an other after a letter is at a
//!   pretoken's start. Only between two others does it matter what came before.
//!
//! So whoever is at a pretoken's start, with such characters ahead, may take them one by one, or
//! several letters together, as long as there is a cut behind them and a letter or an other
//! follows; not two others in a row.

use super::classes::{CASELESS, Classes, OTHER};

/// A character of text without spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnspacedChar {
    /// A letter without case.
    Letter,
    /// Neither letter, mark, number nor white space.
    Other,
}

/// Which of the two a character is, if it is one of them. A surrogate is not a character.
pub fn classify(code_point: u32) -> Option<UnspacedChar> {
    match char::from_u32(code_point).map(|_| Classes::get().of(code_point)) {
        Some(CASELESS) => Some(UnspacedChar::Letter),
        Some(OTHER) => Some(UnspacedChar::Other),
        _ => None,
    }
}
