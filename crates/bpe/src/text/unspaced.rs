//! Where pretokens need not be known: text of characters that stand for themselves.
//!
//! Chinese and Japanese are written without spaces, so a pretoken is a sentence, and what decides
//! their ids is where no merge reaches across ([`crate::encode::cut_table`]). Two kinds of
//! characters, both of three bytes, allow to go from one such cut to the next without looking for
//! pretokens: *letters* (Lm, Lo: without case) and *others* (no letter, mark, number or white
//! space, such as an ideographic comma). In all known patterns:
//!
//! * No pretoken ends between two letters, and one always ends between a letter and another.
//! * A scanner that begins at a letter which stands after a letter, or after another, finds the
//!   end that the pretoken has which holds it; begun at another after a letter, it is at a
//!   pretoken's start. Only between two others does it matter what stood before.
//!
//! So whoever is at a pretoken's start and has such characters before it may take them one by one,
//! or several letters together, as long as there is a cut behind them and a letter or another
//! follows; not two others in a row.

use super::classes::{CASELESS, Classes, OTHER};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Letter,
    Other,
}

/// The kind of a character, if it is of one of the two. Surrogates are no characters.
pub fn kind(code_point: u32) -> Option<Kind> {
    match char::from_u32(code_point).map(|_| Classes::get().of(code_point)) {
        Some(CASELESS) => Some(Kind::Letter),
        Some(OTHER) => Some(Kind::Other),
        _ => None,
    }
}
