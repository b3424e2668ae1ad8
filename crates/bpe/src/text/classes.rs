//! Characters as the patterns see them: eight classes, one bit each, looked up in two steps.
//!
//! Every known pattern is written in terms of Unicode's general categories, of `\s` and of
//! `[\r\n]`; no two of the classes here overlap, and each set that a pattern names is a union of
//! them. The table is filled once, on first use, from the classes of `regex-syntax`, which is what
//! the regex engine itself matches with: the Unicode version is the same by construction.
//!
//! Source: Unicode Standard Annex 44 (General_Category, White_Space).

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

use crate::store::once::filled_beside;

use super::utf8::{char_len, decode, is_continuation};

/// Lu and Lt.
pub const UPPER: u8 = 1;
/// Ll.
pub const LOWER: u8 = 2;
/// Lm and Lo: letters that are neither upper nor lower case.
pub const CASELESS: u8 = 4;
/// M: combining marks.
pub const MARK: u8 = 8;
/// N: digits, and numbers of other kinds.
pub const NUMBER: u8 = 16;
/// White_Space without `\r` and `\n`.
pub const BLANK: u8 = 32;
/// `\r` and `\n`.
pub const NEWLINE: u8 = 64;
/// Everything else, and every byte that is not part of valid UTF-8.
pub const OTHER: u8 = 128;

/// L: letters of any case, or of none.
pub const LETTER: u8 = UPPER | LOWER | CASELESS;
/// White_Space: what `\s` matches.
pub const SPACE: u8 = BLANK | NEWLINE;

const BLOCK: usize = 64;
const CODE_POINTS: usize = 0x11_0000;

/// Code point -> class: `blocks[index[code point / 64]][code point % 64]`. Most blocks are alike,
/// so what a text touches stays in the first-level cache.
pub struct Classes {
    ascii: [u8; 128],
    index: Vec<u16>,
    blocks: Vec<[u8; BLOCK]>,
}

static CLASSES: OnceLock<Classes> = OnceLock::new();

impl Classes {
    /// The one table there is.
    pub fn get() -> &'static Classes {
        filled_beside(&CLASSES, Classes::build)
    }

    fn build() -> Classes {
        let mut flat = vec![OTHER; CODE_POINTS];
        let sets = [
            (r"[\p{Lu}\p{Lt}]", UPPER),
            (r"\p{Ll}", LOWER),
            (r"[\p{Lm}\p{Lo}]", CASELESS),
            (r"\p{M}", MARK),
            (r"\p{N}", NUMBER),
            (r"\s", BLANK),
            (r"[\r\n]", NEWLINE),
        ];
        for (set, class) in sets {
            for (first, last) in ranges(set) {
                flat[first as usize..=last as usize].fill(class);
            }
        }

        let mut index = Vec::with_capacity(CODE_POINTS / BLOCK);
        let mut blocks: Vec<[u8; BLOCK]> = Vec::new();
        let mut known = std::collections::HashMap::new();
        for block in flat.as_chunks::<BLOCK>().0 {
            let place = *known.entry(block).or_insert_with(|| {
                blocks.push(*block);
                blocks.len() as u16 - 1
            });
            index.push(place);
        }
        let mut ascii = [0; 128];
        ascii.copy_from_slice(&flat[..128]);
        Classes { ascii, index, blocks }
    }

    /// The class of a code point, below 0x11_0000.
    #[inline(always)]
    pub fn of(&self, code_point: u32) -> u8 {
        let block = self.index[code_point as usize / BLOCK];
        self.blocks[block as usize][code_point as usize % BLOCK]
    }

    /// The character that starts at `at` (below `text.len()`): its class and its length in bytes.
    /// A byte that starts no valid character is one of class [`OTHER`], one byte long.
    #[inline(always)]
    pub fn at(&self, text: &[u8], at: usize) -> (u8, usize) {
        let byte = text[at];
        if byte < 0x80 {
            return (self.ascii[byte as usize], 1);
        }
        self.wide_at(text, at)
    }

    /// The same where the character at `at` is not ASCII.
    #[inline(always)]
    pub fn wide_at(&self, text: &[u8], at: usize) -> (u8, usize) {
        match decode(&text[at..]) {
            Some((code_point, len)) => (self.of(code_point), len),
            None => (OTHER, 1),
        }
    }

    /// The class of the character that ends right before `at`, and where it starts; `None` where
    /// what comes before could make it another one.
    pub fn before(&self, text: &[u8], at: usize) -> Option<(u8, usize)> {
        let last = at.checked_sub(1)?;
        if !is_continuation(text[last]) {
            // A lead byte that nothing follows before `at` is invalid if a character starts at
            // `at`, which the caller has to know.
            return Some((self.at(&text[..at], last).0, last));
        }
        for start in (at.saturating_sub(4)..last).rev() {
            if !is_continuation(text[start]) {
                return match self.at(&text[..at], start) {
                    (class, len) if start + len == at => Some((class, start)),
                    _ => Some((OTHER, last)),
                };
            }
        }
        // Four continuation bytes in a row: the last of them belongs to nothing.
        (at >= 4).then_some((OTHER, last))
    }

    /// The class of the character that starts at `at`; `None` where `at` is, or might be, inside a
    /// character, or where what comes after the end of `text` could make it another one.
    pub fn after(&self, text: &[u8], at: usize) -> Option<u8> {
        let byte = *text.get(at)?;
        if is_continuation(byte) {
            return None;
        }
        let (class, len) = self.at(text, at);
        let unfinished = len == 1 && byte >= 0xC2 && at + char_len(byte) > text.len();
        (!unfinished).then_some(class)
    }
}

/// The ranges of code points, ends included, that a regular expression's one class matches.
fn ranges(set: &str) -> Vec<(u32, u32)> {
    let hir = regex_syntax::parse(set).expect("the class is a constant of this file");
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().map(|range| (range.start() as u32, range.end() as u32)).collect()
        }
        // A class of ASCII alone may come as bytes.
        HirKind::Class(Class::Bytes(class)) => {
            class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
        other => unreachable!("{set} is a class, not {other:?}"),
    }
}
