//! GPT-2's pattern by hand:
//!
//! ```text
//! '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! A pretoken is a contraction, a run of one kind (letters, numbers, other) with one space before
//! it, or white space: all of a run but the last character if something follows, which is then a
//! pretoken of its own or, if it is U+0020, the next run's space.
//!
//! StarCoder's is the same on what lies between two digits, and each digit is a pretoken:
//!
//! ```text
//! '(?:[sdmt]|ll|ve|re)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+
//! ```

use super::ascii;
use super::block::Block;
use super::classes::{self, Classes};
use super::window::{Boundaries, Kinds, Lanes, Scanner};

/// Kinds: runs are of letters, of numbers or of anything else (marks too) but white space.
const LETTER: u8 = 1;
const NUMBER: u8 = 2;
const OTHER: u8 = 4;
const SPACE: u8 = 8;
/// U+0020, with [`SPACE`]: joins the run after it.
const JOINS: u8 = 16;
/// With [`OTHER`].
const APOSTROPHE: u8 = 32;

/// The scanner of GPT-2's pattern, or of StarCoder's with `DIGITS_APART`.
pub struct Gpt2<const DIGITS_APART: bool>;

impl<const DIGITS_APART: bool> Scanner for Gpt2<DIGITS_APART> {
    #[inline(always)]
    fn ascii_kinds(block: &Block, high: u64) -> Kinds {
        let (letters, numbers, spaces) = (block.letters(), block.digits(), block.spaces());
        Kinds::new([
            (LETTER, letters),
            (NUMBER, numbers),
            (SPACE, spaces),
            (OTHER, !(letters | numbers | spaces | high)),
            (JOINS, block.equal(b' ')),
            (APOSTROPHE, block.equal(b'\'')),
        ])
    }

    #[inline(always)]
    fn wide_kind(class: u8, _last: u8) -> (u8, bool) {
        // The last of several white spaces starts a pretoken, and is found by its only byte, if it
        // has only one.
        let kind = kind(class);
        // A digit alone starts at its first byte, which a kind of all its bytes cannot say.
        (kind, kind == SPACE || DIGITS_APART && kind == NUMBER)
    }

    #[inline(always)]
    fn boundaries(lanes: &Lanes) -> Boundaries {
        let Lanes { last, this, next, .. } = lanes;
        let joins = last.of(JOINS);
        let letter = this.of(LETTER) & !last.of(LETTER);
        let other = this.of(OTHER) & !last.of(OTHER);
        let (run, space_goes_on) = if DIGITS_APART {
            ((letter | other) & !joins | this.of(NUMBER), next.of(SPACE) | next.of(NUMBER))
        } else {
            let number = this.of(NUMBER) & !last.of(NUMBER);
            ((letter | number | other) & !joins, next.of(SPACE))
        };
        let space = this.of(SPACE) & !(last.of(SPACE) & space_goes_on);
        let contraction = other & !joins & this.of(APOSTROPHE) & next.of(LETTER);
        Boundaries { start: run | space, unsure: contraction }
    }

    #[inline]
    fn resolve(text: &[u8], at: usize, _last: u8) -> Option<usize> {
        match contraction_len(&text[at + 1..]) {
            0 => Some(at),
            len => Some(at + 1 + len),
        }
    }

    #[inline(always)]
    fn pretoken_end(classes: &Classes, text: &[u8], start: usize) -> usize {
        pretoken_end::<DIGITS_APART>(classes, text, start)
    }
}

#[inline(always)]
fn kind(class: u8) -> u8 {
    if class & classes::LETTER != 0 {
        LETTER
    } else if class & classes::SPACE != 0 {
        SPACE
    } else if class & classes::NUMBER != 0 {
        NUMBER
    } else {
        OTHER
    }
}

#[inline(always)]
fn pretoken_end<const DIGITS_APART: bool>(classes: &Classes, text: &[u8], start: usize) -> usize {
    let at = start + usize::from(text[start] == b' ');
    let Some(&first) = text.get(at) else { return at };
    if ascii::is_letter(first) {
        return letters_end(classes, text, at + 1);
    }
    other_pretoken_end::<DIGITS_APART>(classes, text, start, at)
}

/// The end of a run of letters that goes on at `at`.
#[inline(always)]
fn letters_end(classes: &Classes, text: &[u8], at: usize) -> usize {
    let at = ascii::letters_end(text, at);
    match text.get(at) {
        Some(0x80..) => run_end(classes, text, at, LETTER),
        _ => at,
    }
}

/// Any pretoken but a run of letters whose first is ASCII. `at` is past its space.
fn other_pretoken_end<const DIGITS_APART: bool>(
    classes: &Classes,
    text: &[u8],
    start: usize,
    at: usize,
) -> usize {
    if text[start] == b'\'' {
        let len = contraction_len(&text[start + 1..]);
        if len > 0 {
            return start + 1 + len;
        }
    }
    let (class, len) = classes.at(text, at);
    match kind(class) {
        SPACE => space_end::<DIGITS_APART>(classes, text, start),
        // The digit, or the space before it.
        NUMBER if DIGITS_APART => {
            if at > start {
                at
            } else {
                at + len
            }
        }
        run => run_end(classes, text, at + len, run),
    }
}

/// The end of the run of `run` that goes on at `at`.
#[inline(always)]
fn run_end(classes: &Classes, text: &[u8], mut at: usize, run: u8) -> usize {
    while at < text.len() {
        let (class, len) = classes.at(text, at);
        if kind(class) != run {
            break;
        }
        at += len;
    }
    at
}

/// `\s+(?!\S)|\s+`, where white space is at `start`; digits apart are an end of text to it.
fn space_end<const DIGITS_APART: bool>(classes: &Classes, text: &[u8], start: usize) -> usize {
    let (mut last, mut at) = (start, start);
    while at < text.len() {
        let (class, len) = classes.at(text, at);
        if class & classes::SPACE == 0 {
            let whole = last == start || DIGITS_APART && class == classes::NUMBER;
            return if whole { at } else { last };
        }
        last = at;
        at += len;
    }
    at
}

/// How much of `rest`, which follows an apostrophe, `[sdmt]|ll|ve|re` matches.
fn contraction_len(rest: &[u8]) -> usize {
    match rest {
        [b's' | b'd' | b'm' | b't', ..] => 1,
        [b'l', b'l', ..] | [b'v', b'e', ..] | [b'r', b'e', ..] => 2,
        _ => 0,
    }
}

/// No pretoken goes from one kind into another, except for a space at its start and contractions;
/// and only white space looks ahead.
pub fn is_certain_boundary(text: &[u8], at: usize) -> bool {
    let classes = Classes::get();
    let Some(right) = classes.after(text, at) else { return false };
    let Some((left, place)) = classes.before(text, at) else { return false };
    let (left, right) = (kind(left), kind(right));
    let contraction = text[place] == b'\'' && b"sdmtlvr".contains(&text[at]);
    left != SPACE && left != right && !contraction
}
